"""The sessions of clients over HTTP, on this node and on others.

Each request of a session may reach a different node. The first node reached owns the session; the presence store
records that it has an owner, and controls go to all nodes, of which the owner acts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import msgspec

from smartlink.protocol.errors import Code
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import Control
from smartlink.server.core.client import ClientSettings
from smartlink.server.core.client_sessions import SessionToken
from smartlink.server.net.requests import HttpError, HttpRequest, ResponseStream
from smartlink.server.runtime.limits import AddressRate
from smartlink.server.transports.admission import client_of, new_session, refusal
from smartlink.server.transports.fallback.connection import XhrConnection
from smartlink.server.transports.fallback.link import XhrLink
from smartlink.server.transports.fallback.outlets import (
    ATTACH,
    LOST,
    LocalOutlet,
    RemoteOutlet,
    RemoteStream,
    end_remote_stream,
    session_channel,
)

__all__ = ["INPUT", "SessionRefused", "Sessions", "UnknownSession"]

INPUT = "xhr_input"
_messages = msgspec.json.Decoder(list[str]).decode


class UnknownSession(Exception):
    """No node has this session."""


class SessionRefused(Exception):
    """The client may not connect; it receives the code and the reason."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _LocalSession:
    """A session owned by this node."""

    __slots__ = ("connection", "link")

    def __init__(self, link: XhrLink, connection: XhrConnection) -> None:
        self.link = link
        self.connection = connection


class _PendingSession:
    """A session being registered in the presence store; its input waits."""

    __slots__ = ("controls", "is_over")

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self.controls: list[Control] = []


class Sessions:
    """Finds the connection that a request belongs to, here or on another node, or creates it."""

    def __init__(
        self, shared: ClientSettings, is_ready: Callable[[], bool], address_rate: AddressRate | None = None
    ) -> None:
        self._address_rate = address_rate
        self._shared = shared
        self._is_ready = is_ready
        self._node = shared.node
        self._local: dict[tuple[str, str], _LocalSession] = {}
        self._pending: dict[tuple[str, str], _PendingSession] = {}
        for action in (INPUT, ATTACH, LOST):
            shared.node.on_control(action, self._on_control)

    def __len__(self) -> int:
        return len(self._local)

    async def open(
        self,
        app: App,
        session: str,
        request: HttpRequest,
        stream: ResponseStream,
        token: SessionToken | None = None,
        *,
        is_poll: bool,
    ) -> None:
        """Send the session's output through `stream`; a new session begins, which resumes what `token` names.

        Raises SessionRefused, HttpError while stopping, or BrokerUnavailable if another node has it and is unreachable.
        """
        local = await self._find(app, session)
        if local is None and not await self._is_elsewhere(app, session):
            local = await self._find(app, session)
            if local is None and await self._begin(app, session, request, stream, token, is_poll=is_poll):
                return
        if local is not None:
            local.connection.attach(LocalOutlet(stream, local.link, is_poll=is_poll))
        elif not stream.is_lost:
            stream_id = secrets.token_hex(8)
            await RemoteStream(self._shared, app.id, session, stream_id, stream).open(is_poll=is_poll)

    async def has(self, app: App, session: str) -> bool:
        """Whether some node has the session."""
        return (app.id, session) in self._local or await self._is_elsewhere(app, session)

    async def send(self, app: App, session: str, messages: list[str]) -> None:
        """Forward a client's messages. Raises UnknownSession, or BrokerUnavailable."""
        local = await self._find(app, session)
        if local is not None:
            local.connection.take(messages)
        elif await self._is_elsewhere(app, session):
            await self._node.tell(Control(app.id, INPUT, session, msgspec.json.encode(messages).decode()))
        else:
            raise UnknownSession

    async def _find(self, app: App, session: str) -> _LocalSession | None:
        """The session if it is here, or has just begun here."""
        while (pending := self._pending.get((app.id, session))) is not None:
            await pending.is_over.wait()
        return self._local.get((app.id, session))

    async def _is_elsewhere(self, app: App, session: str) -> bool:
        return (await self._node.presence.count(app.id, session_channel(session))).subscriptions > 0

    async def _begin(
        self,
        app: App,
        session: str,
        request: HttpRequest,
        stream: ResponseStream,
        token: SessionToken | None,
        *,
        is_poll: bool,
    ) -> bool:
        """Begin a session; False if another node was faster, or the client is gone."""
        if not self._is_ready():
            raise HttpError(503, "Shutting down: reconnect", {"Retry-After": "1"})
        rate = self._address_rate
        if rate is not None and not rate.take(request.client_address, self._shared.sweeper.now()):
            raise SessionRefused(Code.OVER_CAPACITY, "Too many connections at once from this address")
        self._check(app, request)
        pending = self._pending[app.id, session] = _PendingSession()
        try:
            local = await self._register(app, session, request, stream, token)
            if local is not None:
                local.connection.attach(LocalOutlet(stream, local.link, is_poll=is_poll))
            return local is not None
        finally:
            del self._pending[app.id, session]
            pending.is_over.set()
            for control in pending.controls:
                self._dispatch(control)
                if (app.id, session) not in self._local and control.action == ATTACH:
                    self._node.tasks.run(end_remote_stream(self._node, app.id, _stream_id(control)))

    async def _register(
        self, app: App, session: str, request: HttpRequest, stream: ResponseStream, token: SessionToken | None
    ) -> _LocalSession | None:
        """Register the session in the presence store, then begin it."""
        state = new_session(app)
        arrival = await self._node.presence.join(app.id, session_channel(session), state.socket_id, None)
        if not arrival.is_first_on_channel or stream.is_lost:
            await self._node.presence.leave(app.id, session_channel(session), state.socket_id)
            return None
        try:
            # While this waited for the presence store, others may have used up the capacity.
            self._check(app, request)
        except SessionRefused:
            await self._node.presence.leave(app.id, session_channel(session), state.socket_id)
            raise

        def forget() -> None:
            del self._local[app.id, session]
            self._node.tasks.run(self._node.presence.leave(app.id, session_channel(session), state.socket_id))

        link = XhrLink(stream.peer, self._shared.sweeper.now, forget)
        connection = XhrConnection(link, app, state, self._shared, token)
        local = self._local[app.id, session] = _LocalSession(link, connection)
        local.connection.start(request.client_address, client_of(request.query))
        return local

    def _check(self, app: App, request: HttpRequest) -> None:
        """Raises SessionRefused."""
        refused = refusal(self._node, self._shared.addresses, app, request)
        if refused is not None:
            raise SessionRefused(*refused)

    # Controls of other nodes

    def _on_control(self, control: Control) -> None:
        pending = self._pending.get((control.app_id, control.target))
        if pending is not None:
            pending.controls.append(control)
        else:
            self._dispatch(control)

    def _dispatch(self, control: Control) -> None:
        local = self._local.get((control.app_id, control.target))
        if local is None:
            return
        if control.action == INPUT:
            self._on_input(local, control)
        elif control.action == ATTACH:
            self._on_attach(local, control)
        else:
            self._on_lost(local, control)

    def _on_input(self, local: _LocalSession, control: Control) -> None:
        try:
            messages = _messages(control.data)
        except msgspec.DecodeError:
            self._node.metrics.bus_messages_dropped += 1
        else:
            local.connection.take(messages)

    def _on_attach(self, local: _LocalSession, control: Control) -> None:
        is_poll = control.data.startswith("poll ")
        local.connection.attach(
            RemoteOutlet(self._node, control.app_id, _stream_id(control), local.link, is_poll=is_poll)
        )

    def _on_lost(self, local: _LocalSession, control: Control) -> None:
        outlet = local.link.outlet
        if isinstance(outlet, RemoteOutlet) and outlet.stream == control.data:
            outlet.is_lost = True
            local.link.lost(outlet)


def _stream_id(control: Control) -> str:
    return control.data.partition(" ")[2]
