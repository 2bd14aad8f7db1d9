"""The client: one connection to a realtime server, kept for good.

async with Client("ws://127.0.0.1:8080", "app-key") as client:
    channel = await client.subscribe("chat")
    async for event in channel.events():
        print(event)
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, cast

from smartlink.background import ended
from smartlink.client import frames
from smartlink.client.authorization import Authorizer, Own, OwnChannel
from smartlink.client.channels import Channel, PresenceChannel
from smartlink.client.conversation import Conversation, ServerError, Shared
from smartlink.client.errors import ClientClosed, ConnectionRefused, NotSubscribed
from smartlink.client.link import Address, Limits, Link, LinkEnded
from smartlink.client.reconnecting import FIRST_S, LAST_S, End, Reconnecting
from smartlink.client.sessions import ClientSession
from smartlink.client.subscriptions import Subscription
from smartlink.client.typed import DEFAULT_NAMESPACE
from smartlink.client.users import User
from smartlink.protocol.errors import Code
from smartlink.protocol.names import ChannelKind, is_client_event, is_valid_channel, is_valid_event_name
from smartlink.throttle import Throttle

__all__ = ["Client", "ConnectionState"]

log = logging.getLogger("smartlink.client")


class ConnectionState(enum.StrEnum):
    """What a client's connection is doing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """The connection was lost; it comes back after a pause."""
    REFUSED = "refused"
    """It does not come back."""
    CLOSED = "closed"


class Client:
    """A client of SmartLink's realtime server, or of Pusher, Reverb and others that speak its protocol.

    `url` is the server's address (`ws://`, `wss://`, with a path prefix if there is one), `key` the application's key.

    `auth` authorizes private and presence channels and sign-in: an `Endpoint`, a `Secret`, an `Own`, or a coroutine
    function of `(socket_id, channel)`. With `session` the server sends again what was missed over a lost connection;
    only SmartLink's server can, so set it False for others. `namespace` stands before the names of event classes, as
    in the publisher's settings. `headers` are sent with the handshake, `tls` is for `wss://`, `proxy` an address
    (`http://`, `socks5://`), None for no proxy, or True for the environment's. `unix_socket` is the path of a socket
    that is connected to instead of the host in `url`.

    The server is asked for a sign of life after `activity_timeout_s` seconds without one (or less, if it says so), and
    the connection ends when none comes within `pong_timeout_s`. Frames may have `max_frame_bytes`. `reconnect_s` are
    the first and the longest pause before a client comes back, in seconds. `on_error` is called with each
    `ServerError`, `on_state` with each new `ConnectionState`; both must not block.

    Belongs to the event loop it was started in. Raises ValueError for a malformed address.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        auth: Authorizer | OwnChannel | None = None,
        session: bool = True,
        namespace: str = DEFAULT_NAMESPACE,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | Literal[True] | None = True,
        unix_socket: str | None = None,
        open_timeout_s: float = 10.0,
        activity_timeout_s: float = 120.0,
        pong_timeout_s: float = 30.0,
        max_frame_bytes: int = 16 * 1024 * 1024,
        reconnect_s: tuple[float, float] = (FIRST_S, LAST_S),
        on_error: Callable[[ServerError], object] | None = None,
        on_state: Callable[[ConnectionState], object] | None = None,
    ) -> None:
        self._address = Address(url, key, dict(headers or {}), tls, proxy, unix_socket)
        self._limits = Limits(open_timeout_s, activity_timeout_s, pong_timeout_s, max_frame_bytes)
        authorizer = cast("Authorizer", auth) if hasattr(auth, "channel") else Own(auth)
        self._shared = Shared(authorizer, ClientSession(is_kept=session), namespace, on_error)
        self._reconnecting = Reconnecting(*reconnect_s)
        self._on_state = on_state
        self._throttle = Throttle()
        self._state = ConnectionState.CLOSED
        self._conversation: Conversation | None = None
        self._is_connected = asyncio.Event()
        self._error: BaseException | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_over = False

    # Its life

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to connect, in the running loop; `async with` does it. Raises ClientClosed after `close`."""
        if self._is_over:
            raise ClientClosed("a client cannot be started again: make a new one")
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name="smartlink client")
            self._running.add_done_callback(self._on_done)

    async def close(self) -> None:
        """Say goodbye and end: streams end, waiting calls raise ClientClosed. Harmless when repeated."""
        self._is_over = True
        await ended(self._running)
        self._finish(None)
        self._change(ConnectionState.CLOSED)
        await self._shared.authorizer.aclose()

    @property
    def state(self) -> ConnectionState:
        """What the connection is doing."""
        return self._state

    @property
    def socket_id(self) -> str | None:
        """The connection's id, as publishers exclude it with `X-Socket-ID`; None while there is no connection."""
        return None if self._conversation is None else self._conversation.socket_id

    async def connected(self) -> None:
        """Wait for a connection. Raises ConnectionRefused, ClientClosed."""
        await self._is_connected.wait()
        self._check()

    # Channels and user

    def channel(self, name: str) -> Channel:
        """Return a channel by its full name, and begin to subscribe, without waiting: open streams first, then wait
        for `ready`, and they have everything.

        A channel that the client is on already is the same one. Raises ValueError for a malformed name, ClientClosed.
        """
        if not is_valid_channel(name):
            raise ValueError(f"not a channel name: {name[:60]!r}")
        if self._running is None:
            raise ClientClosed("start the client first: async with Client(...) as client")
        self._check()
        subscription = self._shared.subscriptions.get(name)
        if subscription is None:
            subscription = self._shared.subscriptions[name] = Subscription(name, self._shared.namespace)
            if self._conversation is not None:
                self._conversation.subscribe(subscription)
        kind = PresenceChannel if subscription.kind is ChannelKind.PRESENCE else Channel
        return kind(subscription, self._whisper, self._leave)

    async def subscribe(self, name: str) -> Channel:
        """Return a channel by its full name, once it is subscribed; waits for the connection if need be.

        Raises SubscriptionFailed, ConnectionRefused, ClientClosed; ValueError for a malformed name.
        """
        channel = self.channel(name)
        await channel.ready()
        return channel

    async def presence(self, name: str) -> PresenceChannel:
        """Return a presence channel by its full name, once it is subscribed. Raises as `subscribe` does."""
        channel = await self.subscribe(name)
        if not isinstance(channel, PresenceChannel):
            raise ValueError(f"not a presence channel: {name!r}; their names begin with presence-")
        return channel

    async def sign_in(self) -> User:
        """Sign the user in, now and on each later connection, and return the user.

        Raises SignInFailed, ConnectionRefused, ClientClosed.
        """
        if self._running is None:
            raise ClientClosed("start the client first: async with Client(...) as client")
        self._check()
        sign_in = self._shared.sign_in
        if not sign_in.is_wanted:
            sign_in.wanted()
            if self._conversation is not None:
                self._conversation.sign_in()
        await sign_in.ready()
        assert sign_in.subscription is not None  # noqa: S101 - it is ready
        return User(sign_in.subscription, sign_in)

    async def _whisper(self, subscription: Subscription, name: str, data: Any) -> None:
        event = name if is_client_event(name) else f"client-{name}"
        if not is_valid_event_name(event):
            raise ValueError(f"not an event's name: {name[:60]!r}")
        if subscription.kind is ChannelKind.ENCRYPTED:
            raise ValueError("encrypted channels take no client events: the server cannot read them")
        text = frames.client_event(event, subscription.name, data)
        if self._conversation is None or not subscription.is_subscribed:
            raise NotSubscribed(f"not subscribed to {subscription.name} at this moment")
        try:
            await self._conversation.send(text)
        except LinkEnded as error:
            raise NotSubscribed(f"the connection was lost: {error}") from error

    async def _leave(self, subscription: Subscription) -> None:
        if self._shared.subscriptions.get(subscription.name) is not subscription:
            return
        del self._shared.subscriptions[subscription.name]
        subscription.end()
        if self._conversation is not None:
            with contextlib.suppress(LinkEnded):  # The next connection does not subscribe to it.
                await self._conversation.send(frames.unsubscribe(subscription.name))

    # The connection

    async def _run(self) -> None:
        loop, was_connected = asyncio.get_running_loop(), False
        while True:
            self._change(ConnectionState.CONNECTING)
            began_at = loop.time()
            try:
                link = await Link.open(self._address, self._shared.session.path, self._limits)
            except LinkEnded as failed:
                # What is wrong from the start is a mistake; later it is a server that is being changed.
                end, lasted_s = failed.end, 0.0
                if was_connected and end.is_final:
                    end = End(end.code, end.reason)
            else:
                was_connected = True
                end = await self._converse(link)
                lasted_s = loop.time() - began_at
            if end.code == Code.TOO_BIG:
                self._shared.session.renew()
            pause_s = self._reconnecting.pause_s(end, lasted_s)
            if pause_s is None:
                self._finish(ConnectionRefused(end.reason, end.code))
                self._change(ConnectionState.REFUSED)
                return
            if self._throttle.allows():
                code = "" if end.code is None else f" ({end.code})"
                log.warning("no connection to %s, coming back: %s%s", self._address.url, end.reason, code)
            self._change(ConnectionState.WAITING)
            await asyncio.sleep(pause_s)

    async def _converse(self, link: Link) -> End:
        self._shared.session.connected()
        self._conversation = Conversation(self._shared, link)
        self._is_connected.set()
        self._change(ConnectionState.CONNECTED)
        try:
            return await self._conversation.run()
        finally:
            self._conversation = None
            if not self._is_over:
                self._is_connected.clear()
            try:
                await link.close()
            finally:
                link.abort()

    def _change(self, state: ConnectionState) -> None:
        if state is not self._state:
            self._state = state
            if self._on_state is not None:
                self._on_state(state)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_over:
            raise ClientClosed("the client was closed")

    def _on_done(self, running: asyncio.Task[None]) -> None:
        """End with the error that ended the work, which nobody awaits."""
        if not running.cancelled() and (error := running.exception()) is not None:
            log.error("the client has ended by an error", exc_info=error)
            self._finish(error)
            self._change(ConnectionState.REFUSED)

    def _finish(self, error: BaseException | None) -> None:
        """End everything that waits or reads, with `error` if there is one."""
        if self._error is None:
            self._error = error
        for subscription in self._shared.subscriptions.values():
            subscription.end(error)
        self._shared.sign_in.end(error)
        self._is_connected.set()
