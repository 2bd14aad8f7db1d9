"""Which X-Forwarded-For is trusted."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from smartlink.portal.shared.security import client_address
from smartlink.portal.shared.settings import PortalSettings
from smartlink.proxies import TrustedProxies


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ("", "10.0.0.1", "1.1.1.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.0/8", "10.9.8.7", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.0/8, 192.168.0.1", "192.168.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.3", "1.1.1.1"),
        ("10.0.0.0/8", "2.2.2.2", "1.1.1.1", "2.2.2.2"),
        ("10.0.0.0/8", "10.0.0.1", "nonsense", "10.0.0.1"),
        ("fd00::/8", "fd00::1", "2001:db8:1:2:3::4", "2001:db8:1:2::"),
    ],
)
def test_the_client_is_the_first_untrusted_address_from_the_right(
    trusted: str, peer: str, forwarded: str, client: str
) -> None:
    scope = {"client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}

    assert client_address(scope, TrustedProxies(filter(None, map(str.strip, trusted.split(","))))) == client


def test_an_invalid_network_stops_the_start() -> None:
    with pytest.raises(ValidationError):
        PortalSettings(_env_file=None, trusted_proxies="10.0.0.0/8,proxy")
