"""The promises of every engine of the port `Link`, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from kit.waiting import LIMIT_S
from smartlink.server.net.link import Link, PlainLink, Poller, TransportLink


class Recorder:
    """A handler that writes down what it hears."""

    def __init__(self) -> None:
        self.received = b""
        self.closed = 0
        self.behind = 0
        self.caught_up = 0

    def on_bytes(self, data: bytes) -> None:
        self.received += data

    def on_closed(self, descriptor: int) -> None:
        self.closed += 1

    def on_backlog(self, descriptor: int) -> None:
        self.behind += 1

    def on_drained(self) -> None:
        self.caught_up += 1


async def until(condition: object) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


class LinkPromises:
    """Subclassed per engine; `link` and `peer` are the two ends."""

    link: Link
    peer: socket.socket
    recorder: Recorder

    async def read(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        async with asyncio.timeout(LIMIT_S):
            while len(data) < size and (part := await loop.sock_recv(self.peer, 1 << 20)):
                data += part
        return data

    async def test_bytes_arrive_both_ways(self) -> None:
        self.link.write(b"hello")
        assert await self.read(5) == b"hello"
        await asyncio.get_running_loop().sock_sendall(self.peer, b"you")
        await until(lambda: self.recorder.received == b"you")

    async def test_order_is_kept_through_a_backlog(self) -> None:
        pieces = [bytes([number % 251]) * 40_000 for number in range(400)]
        for piece in pieces:
            self.link.write(piece)

        assert self.link.buffered > 0
        assert self.recorder.behind == 1
        assert await self.read(16_000_000) == b"".join(pieces)
        await until(lambda: self.recorder.caught_up == 1)
        assert self.link.buffered == 0

    async def test_the_peers_end_is_reported_once(self) -> None:
        self.peer.close()
        await until(lambda: self.recorder.closed == 1)
        self.link.write(b"into nothing")
        self.link.finish()
        self.link.abort()
        await asyncio.sleep(0)
        assert self.recorder.closed == 1

    async def test_an_abort_is_reported_once_and_ends_the_peer(self) -> None:
        self.link.abort()
        self.link.abort()
        await until(lambda: self.recorder.closed == 1)
        with contextlib.suppress(ConnectionResetError):
            assert await self.read(1) == b""

    async def test_finish_sends_queued_bytes_first(self) -> None:
        self.link.write(b"x" * 8_000_000)
        self.link.finish()
        self.link.write(b"too late")

        assert len(await self.read(9_000_000)) == 8_000_000

    async def test_a_paused_link_reads_nothing_until_resumed(self) -> None:
        self.link.pause()
        await asyncio.get_running_loop().sock_sendall(self.peer, b"later")
        self.link.write(b"a")
        await self.read(1)
        assert self.recorder.received == b""
        self.link.resume()
        await until(lambda: self.recorder.received == b"later")

    async def test_the_peers_address_is_known(self) -> None:
        assert self.link.peer == "127.0.0.1"


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


class TestPlainLink(LinkPromises):
    @pytest.fixture(autouse=True)
    async def _ends(self) -> AsyncIterator[None]:
        ours, self.peer = tcp_pair()
        self.recorder = Recorder()
        poller = Poller(asyncio.get_running_loop())
        self.link = PlainLink(poller, ours.detach(), self.recorder)
        yield
        poller.close()
        self.peer.close()
        assert self.recorder.closed == 1


class TestTransportLink(LinkPromises):
    @pytest.fixture(autouse=True)
    async def _ends(self) -> AsyncIterator[None]:
        ours, self.peer = tcp_pair()
        self.recorder = Recorder()
        loop = asyncio.get_running_loop()
        _, link = await loop.connect_accepted_socket(lambda: TransportLink(lambda _: self.recorder), ours)
        self.link = link
        yield
        link.abort()
        await until(lambda: self.recorder.closed == 1)
        self.peer.close()
