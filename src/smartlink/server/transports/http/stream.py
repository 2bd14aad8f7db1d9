"""An HTTP response written in parts: chunked for HTTP/1.1, delimited by the end of the connection for HTTP/1.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smartlink.server.net.link import Link
from smartlink.server.net.requests import StreamListener

__all__ = ["HttpStream"]


class HttpStream:
    """A `ResponseStream` over one HTTP connection. `finished` is called once the response is complete."""

    __slots__ = (
        "_finished",
        "_head",
        "_is_chunked",
        "_keeps_alive",
        "_link",
        "is_lost",
        "is_over",
        "listener",
    )

    def __init__(self, link: Link, finished: Callable[[], None], *, is_chunked: bool, keeps_alive: bool) -> None:
        self._link = link
        self._finished = finished
        self._is_chunked = is_chunked
        self._keeps_alive = keeps_alive and is_chunked
        self._head = b""
        self.listener: StreamListener | None = None
        self.is_over = False
        self.is_lost = False

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may carry another response after this one."""
        return self._keeps_alive

    @property
    def buffered(self) -> int:
        return self._link.buffered

    @property
    def peer(self) -> str:
        return self._link.peer

    def begin(self, headers: Mapping[str, str]) -> None:
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items())]
        if self._is_chunked:
            lines.append("Transfer-Encoding: chunked")
        if not self._keeps_alive:
            lines.append("Connection: close")
        self._head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def write(self, data: bytes) -> None:
        if self.is_over:
            return
        if data and self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send(data)

    def drop_queued(self) -> None:
        self._link.drop_queued()

    def end(self) -> None:
        if self.is_over:
            return
        self._send(b"0\r\n\r\n" if self._is_chunked else b"")
        if not self.is_over:
            self.is_over = True
            self._finished()

    def abort(self) -> None:
        if not self.is_over:
            self.listener = None
            self._link.abort()

    def lose(self) -> None:
        """The connection is gone."""
        if self.is_over:
            return
        self.is_over = self.is_lost = True
        if self.listener is not None:
            self.listener.on_lost()

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head or data:
            self._link.write(head + data)
