"""Channels as applications see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

from smartlink.client.messages import Event, Gap, Member, MemberAdded, MemberRemoved, MemberUpdated
from smartlink.client.streams import DEFAULT_BUFFER, Stream
from smartlink.client.subscriptions import Subscription
from smartlink.protocol.names import ChannelKind

__all__ = ["Channel", "PresenceChannel", "Readable"]

T = TypeVar("T")
OnGap = Callable[[Gap], object]


class Readable:
    """What can be read: a channel, or a user."""

    def __init__(self, _subscription: Subscription) -> None:
        """Clients make them."""
        self._subscription = _subscription

    @overload
    def events(self, *names: str, buffer: int = ..., on_gap: OnGap) -> Stream[Event]: ...
    @overload
    def events(self, *names: str, buffer: int = ...) -> Stream[Event | Gap]: ...
    @overload
    def events(self, *kinds: type[T], buffer: int = ..., on_gap: OnGap) -> Stream[T]: ...
    @overload
    def events(self, *kinds: type[T], buffer: int = ...) -> Stream[T | Gap]: ...
    @overload
    def events(self, names: Mapping[str, type[T]], /, *, buffer: int = ..., on_gap: OnGap) -> Stream[T]: ...
    @overload
    def events(self, names: Mapping[str, type[T]], /, *, buffer: int = ...) -> Stream[T | Gap]: ...
    def events(self, *kinds: Any, buffer: int = DEFAULT_BUFFER, on_gap: OnGap | None = None) -> Stream[Any]:
        """Open a stream of events from now on: `async for event in channel.events(OrderShipped)`.

        Without arguments it has everything that is published, and client events. Names are wire names, as in
        `events("order.shipped", "client-typing")`. Classes are named as the broadcasting library names them, and
        payloads become their instances; `events({"order.shipped": OrderShipped})` names others. A payload that does
        not fit raises InvalidPayload, after which the stream can be read on.

        Where events are missing there is a `Gap`, unless `on_gap` is given, which is called with it instead. `buffer`
        is how many events wait for the reader; beyond that the oldest are dropped, and a Gap says how many. What had
        arrived before the channel's first stream is in that stream.
        """
        return self._subscription.open(kinds, buffer, on_gap)


class Channel(Readable):
    """A channel of a client, over all its connections. From `Client.subscribe` or `Client.channel`."""

    def __init__(
        self,
        _subscription: Subscription,
        send: Callable[[Subscription, str, Any], Awaitable[None]],
        leave: Callable[[Subscription], Awaitable[None]],
    ) -> None:
        """Clients make them."""
        super().__init__(_subscription)
        self._send = send
        self._leave = leave

    @property
    def name(self) -> str:
        """The full name, with its prefix."""
        return self._subscription.name

    @property
    def kind(self) -> ChannelKind:
        """Public, private, presence or encrypted."""
        return self._subscription.kind

    @property
    def is_subscribed(self) -> bool:
        """Whether events arrive at this moment; False while the connection is lost."""
        return self._subscription.is_subscribed

    @property
    def subscription_count(self) -> int | None:
        """How many connections are on the channel, if the server tells; not on presence channels."""
        return self._subscription.subscription_count

    async def ready(self) -> None:
        """Wait until subscribed, also after a lost connection. Raises SubscriptionFailed, ConnectionRefused."""
        await self._subscription.ready()

    async def whisper(self, name: str, data: Any = None) -> None:
        """Send a client event to the channel's other subscribers: `client-{name}`, not stored, at most once.

        `data` is anything with a form in JSON. Raises NotSubscribed while the connection is lost, ValueError on
        channels that take none, and TypeError for other data. A refusal by the server is passed to `on_error`.
        """
        await self._send(self._subscription, name, data)

    async def unsubscribe(self) -> None:
        """Leave the channel; its streams end."""
        await self._leave(self._subscription)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class PresenceChannel(Channel):
    """A channel whose subscribers see each other."""

    @property
    def members(self) -> Mapping[str, Member]:
        """Who is there, by id; as it was, while the connection is lost."""
        return MappingProxyType(self._subscription.members)

    @property
    def me(self) -> Member | None:
        """The client's own member, once it is subscribed."""
        return self._subscription.me

    def changes(self, buffer: int = DEFAULT_BUFFER) -> Stream[MemberAdded | MemberRemoved | MemberUpdated | Gap]:
        """Open a stream of who comes and goes from now on. After a reconnect it has what changed meanwhile.

        When it is not read fast enough, it has a Gap: look at `members` again.
        """
        return self._subscription.open_presence(buffer)
