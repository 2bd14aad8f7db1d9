"""Limits on the portal's HTTP connections: their number, and how long a client may take.

uvicorn only closes connections that are idle between two requests. This adds limits for clients that send nothing,
stop within a head or body, or do not read the response; and for the number of connections, in total and per address.
The last connections are reserved for health checks and the realtime server's webhooks, which strangers must not lock
out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from smartlink.portal.shared.security import client_address
from smartlink.proxies import TrustedProxies
from smartlink.throttle import Throttle

__all__ = ["Bounds", "ConnectionSlots", "protocol"]

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
RESERVE = 16
"""The number of connections reserved for `RESERVED_FOR`, up to a quarter of all."""
RESERVED_FOR = frozenset({"/up", "/webhooks/realtime"})
PER_PUBLIC_ADDRESS = 250


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the listener.

    `connections` in total; `per_address` for addresses that are not trusted proxies (None: 250 for public ones);
    `head_s` seconds from the start of a connection or request to the end of its head; `body_s` seconds for the body,
    and for a client that stops reading the response.
    """

    connections: int = 1_000
    per_address: int | None = None
    head_s: float = 10.0
    body_s: float = 20.0
    proxies: TrustedProxies = field(default_factory=TrustedProxies)


class ConnectionSlots:
    """Counts connections against `bounds`, and knows the idle ones."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._resting: dict[_Connection, None] = {}
        self._of_address: Counter[str] = Counter()
        self._taken = 0
        self._throttle = Throttle()

    @property
    def is_short(self) -> bool:
        """Whether only reserved connections are left."""
        return self._taken > self.bounds.connections - min(RESERVE, self.bounds.connections // 4)

    def take(self, connection: _Connection, address: str) -> bool:
        """Count a new connection, closing the one idle longest if there is no room. Returns False if it is refused."""
        if self._of_address[address] >= self._most_of(address):
            self._log(f"{address} has reached the limit of {self._of_address[address]} connections for one address")
            return False
        if self._taken >= self.bounds.connections:
            self._log(f"all {self.bounds.connections} connections are in use (APP_MAX_CONNECTIONS, or descriptors)")
            if not self._resting:
                return False
            next(iter(self._resting)).end()
        self._taken += 1
        self._of_address[address] += 1
        self.rests(connection)
        return True

    def give_back(self, connection: _Connection, address: str) -> None:
        """Release the place of a closed connection."""
        self._resting.pop(connection, None)
        self._taken -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def rests(self, connection: _Connection) -> None:
        """Note that the connection is idle."""
        self._resting[connection] = None

    def works(self, connection: _Connection) -> None:
        """Note that the connection has a request."""
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

    def _log(self, what: str) -> None:
        if self._throttle.allows():
            log.error("refusing connections: %s", what)


def protocol(places: ConnectionSlots) -> Any:
    """Return the protocol class for uvicorn's `http` option."""
    return partial(_Connection, places=places)


class _Connection(HttpToolsProtocol):
    def __init__(self, *, places: ConnectionSlots, **options: Any) -> None:
        super().__init__(**options)
        self._places = places
        self._bounds = places.bounds
        self._address = ""
        self._has_place = False
        self._head_bytes = 0
        """The size of an incomplete head."""
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        # Behind a trusted proxy, all connections come from its own address, which is not limited.
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
            self._refuse(431, "The request head is too large.")

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
        """Close an idle connection to make room for another."""
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
            # It is we who are not reading.
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
    """Answer a request on a reserved connection with 503."""
    body = b'{"message":"Too many connections."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"retry-after", b"1"), (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
