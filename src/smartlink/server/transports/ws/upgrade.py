"""The upgrade of an HTTP request to a WebSocket, or its refusal.

Refusals that a client must see (unknown app, wrong origin, over capacity) are sent over the WebSocket, as
`pusher:error` and close code: browsers hide HTTP responses to failed upgrades, and pusher-js would retry.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.server.apps.base import AppManager
from smartlink.server.core.client import ClientSettings
from smartlink.server.core.client_sessions import SessionToken
from smartlink.server.net.framing import close_frame, text_frame
from smartlink.server.net.link import Link
from smartlink.server.net.requests import HttpError, HttpRequest
from smartlink.server.runtime.limits import AddressRate
from smartlink.server.transports.admission import WRONG_ORIGIN, client_of, may_call, new_session, refusal
from smartlink.server.transports.ws.connection import WebSocket

__all__ = ["Upgrader"]

MIN_SENT_ON, SENT_ON_PER_CLIENT = 100, 3
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)


class Upgrader:
    """Takes over links from HTTP."""

    def __init__(
        self,
        apps: AppManager,
        shared: ClientSettings,
        is_ready: Callable[[], bool],
        is_replaced: Callable[[], bool],
        address_rate: AddressRate | None = None,
    ) -> None:
        """`is_replaced`: stopping, with a successor running. New clients are told to reconnect at once."""
        self._sent_on: int | None = None
        """Set when the server stops: how many clients may still be told to reconnect at once."""
        self._is_replaced = is_replaced
        self._address_rate = address_rate
        self._apps = apps
        self._shared = shared
        self._is_ready = is_ready

    def __call__(self, link: Link, request: HttpRequest) -> None:
        """Upgrade `link`. Raises HttpError if the request is not a WebSocket handshake."""
        accept = _accept(request)
        try:
            token, path = SessionToken.parse(request.path, request.query)
            wrong_path = "WebSockets are at /app/{key} and /s/{token}/app/{key}"
        except ValueError as error:
            token, path, wrong_path = None, "", str(error)
        is_path = path.startswith("/app/")
        app = self._apps.by_key(unquote(path.removeprefix("/app/"))) if is_path else None
        node, address = self._shared.node, request.client_address
        app_id = "" if app is None else app.id
        answer = _ANSWER % accept
        refused: tuple[Code, str] | None
        if app is not None and not may_call(app, request):
            origin = request.headers.get("origin", "")
            node.refuse("origin", f"{WRONG_ORIGIN}: {origin[:100]}", app_id, address)
            _Refused(link, self._shared, answer, Code.UNAUTHORIZED, WRONG_ORIGIN)
            return
        if self._is_replaced():
            refused = Code.RECONNECT, "The server was replaced: reconnect"
        elif not self._is_ready():
            refused = self._turn_away()
        elif not self._may_come(request):
            refused = Code.OVER_CAPACITY, "Too many connections at once from this address"
        elif is_path:
            refused = refusal(self._shared.node, self._shared.addresses, app, request)
        else:
            refused = Code.WRONG_PATH, wrong_path
        if app is None or refused is not None:
            code, reason = refused or (Code.NO_SUCH_APP, "No application has this key")
            node.refuse(code.name.lower(), reason, app_id, address)
            _Refused(link, self._shared, answer, code, reason)
            return
        connection = WebSocket(link, app, new_session(app), self._shared, token)
        link.handler = connection
        connection.start(address, client_of(request.query), answer)

    def _turn_away(self) -> tuple[Code, str]:
        """Refuse a client while the server stops, over the WebSocket: after an HTTP error pusher-js waits for 15 s.

        At first clients are told to reconnect at once, for a balancer to give them another node. When more have come
        than could be told by chance, they have no other, and are to wait for a second.
        """
        if self._sent_on is None:
            self._sent_on = max(MIN_SENT_ON, SENT_ON_PER_CLIENT * len(self._shared.node.hub))
        self._sent_on -= 1
        code = Code.RECONNECT if self._sent_on >= 0 else Code.OVER_CAPACITY
        return code, "The server is stopping: reconnect"

    def _may_come(self, request: HttpRequest) -> bool:
        rate = self._address_rate
        return rate is None or rate.take(request.client_address, self._shared.sweeper.now())


class _Refused:
    """A refused connection that is still to read the reason; its input is ignored."""

    def __init__(self, link: Link, shared: ClientSettings, answer: bytes, code: Code, reason: str) -> None:
        self._link = link
        self._sweeper = shared.sweeper
        self._deadline = shared.sweeper.now() + 2.0
        link.handler = self
        shared.sweeper.add(self)
        link.write(answer + text_frame(encoding.error(reason, code)) + close_frame(code, reason))
        link.finish()

    def on_bytes(self, data: bytes) -> None:
        if data[0] & 0x0F == 0x8:
            self._link.abort()

    def on_closed(self, descriptor: int) -> None:
        self._sweeper.discard(self)

    def on_backlog(self, descriptor: int) -> None:
        """The few hundred bytes fit the kernel's buffer, or the deadline ends it."""

    def on_drained(self) -> None:
        """Nothing was held back."""

    def sweep(self, now: float) -> None:
        if now >= self._deadline:
            self._link.abort()


def _accept(request: HttpRequest) -> bytes:
    headers = request.headers
    if request.method != "GET":
        raise HttpError(405, "A WebSocket handshake must use GET", {"Allow": "GET"})
    if not (_has(headers.get("upgrade", ""), "websocket") and _has(headers.get("connection", ""), "upgrade")):
        raise HttpError(426, "This is a WebSocket endpoint: connect with wss:// or ws://", {"Upgrade": "websocket"})
    if headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "This server speaks WebSocket version 13", {"Sec-WebSocket-Version": "13"})
    key = headers.get("sec-websocket-key", "")
    try:
        is_key = len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except ValueError:
        is_key = False
    if not is_key:
        raise HttpError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


@lru_cache(maxsize=64)
def _has(options: str, option: str) -> bool:
    return option in [each.strip().lower() for each in options.split(",")]
