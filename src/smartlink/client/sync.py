"""The client for code without an event loop: the same, with a thread of its own that runs one.

with SyncClient("ws://127.0.0.1:8080", "app-key") as client:
    for event in client.subscribe("chat").events():
        print(event)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from smartlink.client.channels import Channel, OnGap, PresenceChannel, Readable
from smartlink.client.client import Client, ConnectionState
from smartlink.client.errors import ClientClosed
from smartlink.client.messages import Event, Gap, Member, MemberAdded, MemberRemoved, MemberUpdated, Watched
from smartlink.client.streams import DEFAULT_BUFFER, Stream
from smartlink.client.users import User
from smartlink.protocol.names import ChannelKind

__all__ = ["SyncChannel", "SyncClient", "SyncPresenceChannel", "SyncReadable", "SyncStream", "SyncUser"]

T = TypeVar("T")
CLOSE_S = 10.0


class _LoopThread:
    """An event loop in a thread, which ends with the process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smartlink client", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """False in a forked child, which has no such thread, and once it has ended."""
        return self._pid == os.getpid() and self._thread.is_alive() and not self._loop.is_closed()

    def begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `work` there. Raises ClientClosed, and RuntimeError from the thread itself."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("on_state and on_error run in the client's thread, and must not wait for the client")
        if not self.is_here:
            work.close()
            raise ClientClosed("the client's thread has ended, or this process is a fork: make a new client")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Wait for what `work` returns or raises; TimeoutError if it takes longer, and then it is cancelled."""
        future = self.begin(work)
        try:
            return future.result(timeout_s)
        except BaseException:  # KeyboardInterrupt, too
            future.cancel()
            raise

    def end(self) -> None:
        """Stop the loop and wait for the thread."""
        if self.is_here:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class SyncStream(Generic[T]):
    """What arrives, in order: `for item in stream`. As `Stream`; from one thread at a time.

    The iteration may be interrupted, by KeyboardInterrupt or a timeout, and goes on without a loss.
    """

    def __init__(self, _thread: _LoopThread, stream: Stream[T], on_gap: OnGap | None) -> None:
        """Channels make them."""
        self._thread = _thread
        self._stream = stream
        self._on_gap = on_gap
        self._batch: deque[T] = deque()
        self._pending: concurrent.futures.Future[list[T]] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self.get()

    def get(self, timeout_s: float | None = None) -> T:
        """Return the next item. Raises TimeoutError, StopIteration at the end, and as `Stream` does."""
        while True:
            if not self._batch:
                self._fetch(timeout_s)
            item = self._batch.popleft()
            if not (isinstance(item, Gap) and self._on_gap is not None):
                return item
            self._on_gap(item)

    def close(self) -> None:
        """Stop receiving, and forget what waits."""
        self._batch.clear()
        self._thread.call(_call(self._stream.close))

    def _fetch(self, timeout_s: float | None) -> None:
        if self._pending is None:
            self._pending = self._thread.begin(self._stream.batch())
        elif not self._thread.is_here:
            raise ClientClosed("the client's thread has ended, or this process is a fork: make a new client")
        # An interruption leaves it pending, and what it brings is had next time.
        done, _ = concurrent.futures.wait([self._pending], timeout_s)
        if not done:
            raise TimeoutError(f"nothing within {timeout_s} s")
        pending, self._pending = self._pending, None
        batch = pending.result()
        if not batch:
            raise StopIteration
        self._batch.extend(batch)


class SyncReadable:
    """What can be read: a channel, or a user. As `Readable`."""

    def __init__(self, _thread: _LoopThread, readable: Readable) -> None:
        """Clients make them."""
        self._thread = _thread
        self._readable = readable

    @overload
    def events(self, *names: str, buffer: int = ..., on_gap: OnGap) -> SyncStream[Event]: ...
    @overload
    def events(self, *names: str, buffer: int = ...) -> SyncStream[Event | Gap]: ...
    @overload
    def events(self, *kinds: type[T], buffer: int = ..., on_gap: OnGap) -> SyncStream[T]: ...
    @overload
    def events(self, *kinds: type[T], buffer: int = ...) -> SyncStream[T | Gap]: ...
    @overload
    def events(self, names: Mapping[str, type[T]], /, *, buffer: int = ..., on_gap: OnGap) -> SyncStream[T]: ...
    @overload
    def events(self, names: Mapping[str, type[T]], /, *, buffer: int = ...) -> SyncStream[T | Gap]: ...
    def events(self, *kinds: Any, buffer: int = DEFAULT_BUFFER, on_gap: OnGap | None = None) -> SyncStream[Any]:
        """Open a stream of events from now on, as `Channel.events`; `on_gap` is called by the reading thread."""
        stream: Stream[Any] = self._thread.call(_call(self._readable.events, *kinds, buffer=buffer))
        return SyncStream(self._thread, stream, on_gap)


class SyncChannel(SyncReadable):
    """A channel of a SyncClient. As `Channel`."""

    def __init__(self, _thread: _LoopThread, channel: Channel) -> None:
        """Clients make them."""
        super().__init__(_thread, channel)
        self._channel = channel

    @property
    def name(self) -> str:
        """The full name, with its prefix."""
        return self._channel.name

    @property
    def kind(self) -> ChannelKind:
        """Public, private, presence or encrypted."""
        return self._channel.kind

    @property
    def is_subscribed(self) -> bool:
        """Whether events arrive at this moment; False while the connection is lost."""
        return self._channel.is_subscribed

    @property
    def subscription_count(self) -> int | None:
        """How many connections are on the channel, if the server tells; not on presence channels."""
        return self._channel.subscription_count

    def ready(self, timeout_s: float | None = None) -> None:
        """Wait until subscribed. Raises TimeoutError, SubscriptionFailed, ConnectionRefused."""
        self._thread.call(self._channel.ready(), timeout_s)

    def whisper(self, name: str, data: Any = None) -> None:
        """Send a client event to the channel's other subscribers. As `Channel.whisper`."""
        self._thread.call(self._channel.whisper(name, data))

    def unsubscribe(self) -> None:
        """Leave the channel; its streams end."""
        self._thread.call(self._channel.unsubscribe())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class SyncPresenceChannel(SyncChannel):
    """A channel whose subscribers see each other. As `PresenceChannel`."""

    _channel: PresenceChannel

    @property
    def members(self) -> Mapping[str, Member]:
        """Who is there at this moment, by id."""
        return dict(self._channel.members)

    @property
    def me(self) -> Member | None:
        """The client's own member, once it is subscribed."""
        return self._channel.me

    def changes(self, buffer: int = DEFAULT_BUFFER) -> SyncStream[MemberAdded | MemberRemoved | MemberUpdated | Gap]:
        """Open a stream of who comes and goes from now on. As `PresenceChannel.changes`."""
        stream = self._thread.call(_call(self._channel.changes, buffer))
        return SyncStream(self._thread, stream, None)


class SyncUser(SyncReadable):
    """The signed-in user. As `User`."""

    def __init__(self, _thread: _LoopThread, user: User) -> None:
        """Clients make them."""
        super().__init__(_thread, user)
        self._user = user

    @property
    def id(self) -> str:
        """The user's id, as text."""
        return self._user.id

    @property
    def online(self) -> frozenset[str]:
        """The watched users that are online, by id."""
        return self._user.online

    def watchlist(self, buffer: int = DEFAULT_BUFFER) -> SyncStream[Watched | Gap]:
        """Open a stream of watched users that come online or go offline from now on."""
        return SyncStream(self._thread, self._thread.call(_call(self._user.watchlist, buffer)), None)


class SyncClient:
    """A client without an event loop of the caller's. Its arguments and errors are those of `Client`.

    Its thread may be shared by all threads of the process, but not by a forked child. Authorizers, `on_state` and
    `on_error` run in that thread, and must not call the client. Waiting calls take `timeout_s`, in seconds, and raise
    TimeoutError.
    """

    def __init__(self, url: str, key: str, **options: Any) -> None:
        self._client = Client(url, key, **options)
        self._thread: _LoopThread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to connect; `with` does it."""
        if self._thread is None:
            self._thread = _LoopThread()
        self._thread.call(_call(self._client.start))

    def close(self) -> None:
        """Say goodbye and end the thread. Harmless when repeated, and in a forked child."""
        if self._thread is not None and self._thread.is_here:
            try:
                self._thread.call(self._client.close(), CLOSE_S)
            finally:
                self._thread.end()

    @property
    def state(self) -> ConnectionState:
        """What the connection is doing."""
        return self._client.state

    @property
    def socket_id(self) -> str | None:
        """The connection's id; None while there is no connection."""
        return self._client.socket_id

    def connected(self, timeout_s: float | None = None) -> None:
        """Wait for a connection. Raises TimeoutError, ConnectionRefused, ClientClosed."""
        self._here.call(self._client.connected(), timeout_s)

    def channel(self, name: str) -> SyncChannel:
        """Return a channel and begin to subscribe, without waiting. As `Client.channel`."""
        return self._wrapped(self._here.call(_call(self._client.channel, name)))

    def subscribe(self, name: str, timeout_s: float | None = None) -> SyncChannel:
        """Return a channel once it is subscribed. As `Client.subscribe`; raises TimeoutError, too."""
        return self._wrapped(self._here.call(self._client.subscribe(name), timeout_s))

    def presence(self, name: str, timeout_s: float | None = None) -> SyncPresenceChannel:
        """Return a presence channel once it is subscribed. As `Client.presence`; raises TimeoutError, too."""
        return SyncPresenceChannel(self._here, self._here.call(self._client.presence(name), timeout_s))

    def sign_in(self, timeout_s: float | None = None) -> SyncUser:
        """Sign the user in and return the user. As `Client.sign_in`; raises TimeoutError, too."""
        return SyncUser(self._here, self._here.call(self._client.sign_in(), timeout_s))

    @property
    def _here(self) -> _LoopThread:
        if self._thread is None:
            raise ClientClosed("start the client first: with SyncClient(...) as client")
        return self._thread

    def _wrapped(self, channel: Channel) -> SyncChannel:
        if isinstance(channel, PresenceChannel):
            return SyncPresenceChannel(self._here, channel)
        return SyncChannel(self._here, channel)


async def _call(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a plain function in the loop's thread, where the client's state is."""
    return function(*arguments, **options)
