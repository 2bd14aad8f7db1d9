"""The socket id of the current request, which `to_others` excludes."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest

from smartlink.broadcasting import BroadcastEvent, Channel, SocketIdMiddleware, current_socket_id
from smartlink.broadcasting.testing import FakeBroadcaster


@dataclass(frozen=True)
class Said(BroadcastEvent):
    text: str

    def broadcast_on(self) -> Channel:
        return Channel("chat")


async def seen_by_the_app(*values: bytes, kind: str = "http") -> str | None:
    seen: list[str | None] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await asyncio.create_task(asyncio.to_thread(lambda: None))
        seen.append(current_socket_id())

    headers = [(b"x-socket-id", value) for value in values]

    async def nothing(*_: Any) -> Any:
        return {}

    await SocketIdMiddleware(app)({"type": kind, "headers": headers}, nothing, nothing)
    assert current_socket_id() is None
    return seen[0]


async def test_the_socket_of_the_request_is_known_within_it() -> None:
    assert await seen_by_the_app(b"12.34") == "12.34"


@pytest.mark.parametrize("value", [b"", b"1", b"1.1\n", b"1.1:private-x", "١.١".encode(), b"\xff.1", b"x" * 100_000])
async def test_a_malformed_socket_id_is_ignored(value: bytes) -> None:
    assert await seen_by_the_app(value) is None


async def test_a_repeated_socket_id_header_is_ignored() -> None:
    assert await seen_by_the_app(b"1.1", b"2.2") is None


async def test_only_http_requests_have_one() -> None:
    assert await seen_by_the_app(b"1.1", kind="websocket") is None


async def test_requests_at_the_same_time_do_not_see_each_other() -> None:
    numbers = [f"{number}.1".encode() for number in range(20)]

    seen = await asyncio.gather(*(seen_by_the_app(number) for number in numbers))

    assert seen == [number.decode() for number in numbers]


async def test_an_event_to_others_excludes_the_requests_socket() -> None:
    broadcaster = FakeBroadcaster()

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await broadcaster.send(Said("hello"), to_others=True)

    async def nothing(*_: Any) -> Any:
        return {}

    await SocketIdMiddleware(app)({"type": "http", "headers": [(b"x-socket-id", b"5.6")]}, nothing, nothing)

    assert [envelope.socket_id for envelope in broadcaster.sent] == ["5.6"]
    broadcaster.assert_broadcast(Said, on=Channel("chat"), to_others=True, times=1)
