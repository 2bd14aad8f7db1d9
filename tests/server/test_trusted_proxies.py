"""Which proxies are trusted about a client's address, and limits by address."""

from __future__ import annotations

import pytest

from kit.client import connected
from kit.realtime import realtime_server
from smartlink.proxies import TrustedProxies
from smartlink.server.runtime.limits import AddressRate
from smartlink.server.settings.config import ServerSettings


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded_for", "client"),
    [
        ((), "203.0.113.9", None, "203.0.113.9"),
        ((), "203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (("10.0.0.0/8",), "203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (("10.0.0.0/8",), "10.1.1.1", "198.51.100.1", "198.51.100.1"),
        (("10.0.0.0/8",), "10.1.1.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        (("10.0.0.0/8",), "10.1.1.1", "198.51.100.1, 10.2.2.2,10.3.3.3", "198.51.100.1"),
        (("10.0.0.0/8",), "10.1.1.1", "10.2.2.2", "10.2.2.2"),
        (("10.0.0.0/8",), "10.1.1.1", None, "10.1.1.1"),
        (("10.0.0.0/8",), "10.1.1.1", "", "10.1.1.1"),
        (("10.0.0.0/8",), "10.1.1.1", "198.51.100.1, unknown", "10.1.1.1"),
        (("10.0.0.0/8",), "10.1.1.1", "198.51.100.1, unknown, 10.2.2.2", "10.2.2.2"),
        (("10.0.0.0/8",), "10.1.1.1", "198.51.100.1:4711", "198.51.100.1"),
        (("10.0.0.0/8",), "10.1.1.1", "[2001:db8::1]:4711", "2001:db8::1"),
        (("10.0.0.0/8",), "::ffff:10.1.1.1", "2001:DB8::0:1", "2001:db8::1"),
        (("2001:db8::/32",), "2001:db8::5", "::ffff:198.51.100.1", "198.51.100.1"),
        (("127.0.0.1",), "unix", "198.51.100.1", "unix"),
        (("unix",), "unix", "198.51.100.1", "198.51.100.1"),
        (("unix", "10.1.1.1"), "gone", "198.51.100.1", "gone"),
    ],
)
def test_the_client_is_the_rightmost_untrusted_address(
    trusted: tuple[str, ...], peer: str, forwarded_for: str | None, client: str
) -> None:
    assert TrustedProxies(trusted).client(peer, forwarded_for) == client


def test_an_invalid_network_is_refused_at_startup() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        ServerSettings(_env_file=None, reverb_server_trusted_proxies="10.0.0.0/8, nonsense")  # type: ignore[arg-type]


def test_an_address_may_burst_ten_times_its_rate() -> None:
    rate = AddressRate(2)

    assert [rate.take("203.0.113.9", 0.0) for _ in range(21)] == [True] * 20 + [False]
    assert rate.take("203.0.113.10", 0.0)
    assert [rate.take("203.0.113.9", 0.5) for _ in range(2)] == [True, False]


def test_an_ipv6_network_counts_as_one_address() -> None:
    rate = AddressRate(1)

    assert [rate.take(f"2001:db8::{number:x}", 0.0) for number in range(11)] == [True] * 10 + [False]
    assert rate.take("2001:db8:0:1::1", 0.0)


async def test_connecting_too_often_is_refused_for_that_address_only() -> None:
    settings = {"reverb_server_connects_per_second": 1, "reverb_server_trusted_proxies": ("127.0.0.1",)}
    async with realtime_server(**settings) as server:
        for number in range(11):
            async with connected(server.port, headers="X-Forwarded-For: 203.0.113.9\r\n") as client:
                assert bool(client.socket_id) is (number < 10)
        assert client.refusal["code"] == 4100  # type: ignore[attr-defined]
        async with connected(server.port, headers="X-Forwarded-For: 203.0.113.10\r\n") as other:
            assert other.socket_id
