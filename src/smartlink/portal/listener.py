"""The portal's HTTP connections, bounded: what a client may take in time and places.

uvicorn ends connections that rest between two requests. This adds what it leaves open: a client that says nothing,
stops within a head or a body, or takes no answer; and how many there may be, in all and from one address. The last
places are for those whom strangers must not lock out: health checks and the realtime server's webhooks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from smartlink.portal.shared.security import TrustedProxies, client_address

__all__ = ["Bounds", "ConnectionSlots", "protocol"]

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
RESERVE = 16
"""So many places are for `RESERVED_FOR`; of few places, a quarter."""
RESERVED_FOR = frozenset({"/up", "/webhooks/realtime"})
PER_PUBLIC_ADDRESS = 250
SAY_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`connections` in all, `per_address` of one address that is no trusted proxy (None: 250 of a public one);
    `head_s` from a connection's or request's beginning to the end of its head; `body_s` for the body after it, and
    without taking any of an answer."""

    connections: int = 1_000
    per_address: int | None = None
    head_s: float = 10.0
    body_s: float = 20.0
    proxies: TrustedProxies = field(default_factory=TrustedProxies)


class ConnectionSlots:
    """Who has which of the places that `bounds` give."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._resting: dict[_Connection, None] = {}
        self._of_address: Counter[str] = Counter()
        self._taken = 0
        self._said_at = -SAY_EVERY_S

    @property
    def is_short(self) -> bool:
        """Whether only the reserve is left."""
        return self._taken > self.bounds.connections - min(RESERVE, self.bounds.connections // 4)

    def take(self, connection: _Connection, address: str) -> bool:
        """A place for a new connection; that of the one which has rested longest when there is no other."""
        if self._of_address[address] >= self._most_of(address):
            self._say(f"{address} has {self._of_address[address]} connections, the most that one address may have")
            return False
        if self._taken >= self.bounds.connections:
            self._say(f"all {self.bounds.connections} connections are taken (APP_MAX_CONNECTIONS, or descriptors)")
            if not self._resting:
                return False
            next(iter(self._resting)).end()
        self._taken += 1
        self._of_address[address] += 1
        self.rests(connection)
        return True

    def give_back(self, connection: _Connection, address: str) -> None:
        """The connection is gone."""
        self._resting.pop(connection, None)
        self._taken -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def rests(self, connection: _Connection) -> None:
        """It has no request under way."""
        self._resting[connection] = None

    def works(self, connection: _Connection) -> None:
        """It has one."""
        self._resting.pop(connection, None)

    def _most_of(self, address: str) -> float:
        if address in self.bounds.proxies:
            return math.inf
        if self.bounds.per_address is not None:
            return self.bounds.per_address
        try:
            return PER_PUBLIC_ADDRESS if ipaddress.ip_address(address).is_global else math.inf
        except ValueError:
            return math.inf

    def _say(self, what: str) -> None:
        now = time.monotonic()
        if now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            log.error("the portal refuses connections: %s", what)


def protocol(places: ConnectionSlots) -> Any:
    """For uvicorn's `http`."""
    return partial(_Connection, places=places)


class _Connection(HttpToolsProtocol):
    def __init__(self, *, places: ConnectionSlots, **options: Any) -> None:
        super().__init__(**options)
        self._places = places
        self._bounds = places.bounds
        self._address = ""
        self._has_place = False
        self._head_bytes = 0
        """Of a head that is not complete."""
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        # Behind a trusted proxy all come from its own address, which is not limited.
        self._address = client_address({"client": self.client, "headers": ()}, self._bounds.proxies)
        self._has_place = self._places.take(self, self._address)
        if self._has_place:
            self._within(self._bounds.head_s, self._late_head)
        else:
            self._refuse(503, "Too many connections.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest_of_time(None)
        self._moves_again()
        if self._has_place:
            self._has_place = False
            self._places.give_back(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._has_place or self.transport.is_closing():
            return
        if self._deadline is None and self._is_idle():
            self._within(self._bounds.head_s, self._late_head)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "The head is too large.")

    def on_headers_complete(self) -> None:
        self._places.works(self)
        self._within(self._bounds.body_s, self._late_body)
        if self._places.is_short and self.url.partition(b"?")[0].decode("latin-1") not in RESERVED_FOR:
            self.app = cast("Any", _busy)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._rest_of_time(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self._is_idle():
            self._places.rests(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._bounds.body_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._moves_again()

    def end(self) -> None:
        """Give the place to somebody else: nothing is under way."""
        self._has_place = False
        self._places.give_back(self, self._address)
        self._rest_of_time(None)
        self.transport.abort()

    def _is_idle(self) -> bool:
        return bool(getattr(self.cycle, "response_complete", True))

    def _within(self, seconds: float, late: Callable[[], None]) -> None:
        self._rest_of_time(self.loop.call_later(seconds, late))

    def _rest_of_time(self, deadline: asyncio.TimerHandle | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = deadline

    def _moves_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _late_head(self) -> None:
        self._deadline = None
        if self._head_bytes:
            self._refuse(408, "The request took too long.")
        else:
            self.transport.close()

    def _late_body(self) -> None:
        self._deadline = None
        if self.flow.read_paused:
            # It is we who do not read.
            self._within(self._bounds.body_s, self._late_body)
            return
        cycle = self.cycle
        is_answered = cycle.response_started
        cycle.disconnected = True
        cycle.message_event.set()
        if is_answered:
            self.transport.close()
        else:
            self._refuse(408, "The request took too long.")

    def _refuse(self, status: int, message: str) -> None:
        reason = HTTPStatus(status).phrase
        body = f'{{"message":"{message}"}}'
        more = "retry-after: 1\r\n" if status == 503 else ""
        self.transport.write(
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{more}connection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()


async def _busy(_scope: Any, _receive: Any, send: Callable[[Any], Any]) -> None:
    """Answers who came while only the reserve was left."""
    body = b'{"message":"Too many connections."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"retry-after", b"1"), (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
