"""One client over HTTP: messages arrive in requests, responses leave through an `XhrLink`."""

from __future__ import annotations

from typing import final

from smartlink.protocol.errors import Code
from smartlink.protocol.session import Session
from smartlink.server.apps.base import App
from smartlink.server.core.client import ClientConnection, ClientSettings
from smartlink.server.core.client_sessions import SessionToken
from smartlink.server.transports.fallback.link import Outlet, XhrLink

__all__ = ["XhrConnection"]


@final
class XhrConnection(ClientConnection):
    """A client over the HTTP fallback, from its first stream or poll to its end."""

    __slots__ = ("_silent_until", "_xhr")

    def __init__(
        self, link: XhrLink, app: App, session: Session, shared: ClientSettings, token: SessionToken | None = None
    ) -> None:
        super().__init__(link, app, session, shared, token)
        self._xhr = link
        self._silent_until = self.heard_at + 2 * app.ping_interval_s
        """By when it must have sent something (it is pinged before); 0 once it has."""
        link.handler = self

    def attach(self, outlet: Outlet) -> None:
        """The client requests output, which also shows that it is alive."""
        self.note_activity()
        self._xhr.attach(outlet)

    def take(self, messages: list[str]) -> None:
        """Handle the client's messages; an empty list asks whether the connection is alive."""
        self.note_activity()
        self._xhr.has_returned = True
        if messages:
            self._silent_until = 0.0
        else:
            self._xhr.confirm_alive()
        for text in messages:
            message = text.encode()
            if len(message) > self.app.max_message_bytes:
                self.close(Code.TOO_BIG, f"Message larger than {self.app.max_message_bytes} bytes")
            self.receive_text(message)

    def sweep(self, now: float) -> None:
        super().sweep(now)
        if self._silent_until and now >= self._silent_until:
            self.close(Code.NO_PONG, "No pong: the client never sent anything")
        self._xhr.sweep(now)
