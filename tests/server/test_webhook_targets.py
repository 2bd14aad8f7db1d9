"""Allowed webhook targets, and that posts go to the address that was checked."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kit.realtime import KEY, SECRET
from kit.receiver import receiver
from smartlink.protocol.signing import sign_webhook
from smartlink.server.webhooks.guard import Guard, TargetRefused, is_public
from smartlink.server.webhooks.post import Poster

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]
INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:7f00:1::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "[::1]", "[::ffff:7f00:1]"],
)
async def test_no_spelling_of_a_private_address_is_accepted(host: str) -> None:
    with pytest.raises((TargetRefused, OSError)):
        await Guard(allow_plain=True).resolve(f"http://{host}:8000/x")


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a.test/", "file:///etc/passwd", "https://", "https://u:p@8.8.8.8/", "http://8.8.8.8:99999/", "http://[::1/"],
)  # fmt: skip
async def test_an_unsupported_url_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        await Guard(allow_private=True).resolve(url)


async def test_plain_http_needs_to_be_allowed() -> None:
    with pytest.raises(TargetRefused, match="REVERB_WEBHOOK_ALLOW_HTTP"):
        await Guard().resolve("http://8.8.8.8/x")
    assert (await Guard(allow_plain=True).resolve("http://8.8.8.8/x?y=z#f")).url == "http://8.8.8.8:80/x?y=z"
    assert (await Guard().resolve("https://8.8.8.8")).url == "https://8.8.8.8:443/"


@pytest.mark.parametrize(
    ("entry", "is_allowed"),
    [("127.0.0.1:8000", True), ("127.0.0.1", True), ("127.0.0.1:8001", False), ("localhost:8000", False)],
)
async def test_only_listed_private_hosts_are_allowed(entry: str, is_allowed: bool) -> None:
    guard = Guard(inside=(entry,))
    if is_allowed:
        assert (await guard.resolve("http://127.0.0.1:8000/x")).url == "http://127.0.0.1:8000/x"
    else:
        with pytest.raises(TargetRefused):
            await guard.resolve("http://127.0.0.1:8000/x")


async def test_a_name_is_resolved_once_and_that_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["10.0.0.1", "93.184.216.34"], ["127.0.0.1"]]
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    target = await Guard().resolve("https://rebind.test/hook")

    assert (target.url, target.host_header, target.name) == (
        "https://93.184.216.34:443/hook", "rebind.test", "rebind.test"
    )  # fmt: skip
    assert asked == ["rebind.test"]
    with pytest.raises(TargetRefused):
        await Guard().resolve("https://rebind.test/hook")


async def test_the_receiver_gets_the_original_host_header() -> None:
    body = b'{"time_ms":1,"events":[]}'
    headers = {
        "Content-Type": "application/json",
        "X-Pusher-Key": KEY,
        "X-Pusher-Signature": sign_webhook(SECRET, body),
    }
    async with receiver() as target, Poster(Guard(inside=(f"localhost:{target.port}",)), 5).posting() as post:
        assert await post(f"http://localhost:{target.port}/hook?a=b", body, headers) is None

    assert target.requests[0].startswith("POST /hook?a=b HTTP/1.1\r\n")
    assert f"Host: localhost:{target.port}\r\n" in target.requests[0]


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    body = b"{}"
    headers = {
        "Content-Type": "application/json",
        "X-Pusher-Key": KEY,
        "X-Pusher-Signature": sign_webhook(SECRET, body),
    }
    async with receiver() as target, Poster(Guard(allow_private=True), 5).posting() as post:
        assert await post(target.url, body, headers) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://127.0.0.1:1/x", "not reached: ConnectError"), ("http://nosuch.invalid/x", "not reached")],
)
async def test_a_failed_post_gives_the_reason(url: str, reason: str) -> None:
    async with Poster(Guard(allow_private=True), 5).posting() as post:
        assert str(await post(url, b"{}", {})).startswith(reason)
