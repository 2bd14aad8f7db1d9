"""The state of one channel over all connections: who reads it, who is on it, and what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from smartlink.client.authorization import Authorization
from smartlink.client.encryption import opened
from smartlink.client.errors import ClientClosed, SubscriptionFailed
from smartlink.client.frames import fields_of
from smartlink.client.messages import Event, Gap, Member, MemberAdded, MemberRemoved, MemberUpdated
from smartlink.client.sessions import Ticket
from smartlink.client.streams import DEFAULT_BUFFER, Fan, Stream, as_it_is
from smartlink.client.typed import converter, named
from smartlink.protocol.names import ChannelKind, kind_of

__all__ = ["Subscription", "failed"]


class Subscription:
    """One channel. Its client tells it what happens; channels of the public interface read it."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.ticket: Ticket | None = None
        self.shared_secret: str | None = None
        self.is_subscribed = False
        self.was_subscribed = False
        """On an earlier connection, or earlier on this one: what was missed since is owed to the readers."""
        self.awaits_resume = False
        """Subscribed again; whether everything missed is sent again has still to be told."""
        self.error: BaseException | None = None
        self.is_over = False
        self.members: dict[str, Member] = {}
        self.my_id: str | None = None
        self.subscription_count: int | None = None
        self.sealed: list[Event] = []
        """Encrypted events that wait for a new secret."""
        self.asked_at = 0.0
        """When a new secret was last asked for, by the loop's clock."""
        self._namespace = namespace
        self._settled = asyncio.Event()
        self._by_name: dict[str, Fan] = {}
        self._of_all = Fan()
        self._of_presence = Fan()
        self._early: Stream[Any] | None = Stream(name, DEFAULT_BUFFER, as_it_is, None)
        """What arrives before the first stream is opened waits for it."""

    # For readers

    def open(self, kinds: tuple[Any, ...], buffer: int, on_gap: Callable[[Gap], object] | None) -> Stream[Any]:
        """Open a stream of events; of all published ones and client events, if no `kinds` are given."""
        wanted = named(kinds, self._namespace)
        stream: Stream[Any] = Stream(self.name, buffer, converter(wanted), on_gap)
        for name in wanted:
            self._by_name.setdefault(name, Fan()).add(stream)
        if not wanted:
            self._of_all.add(stream)
        early, self._early = self._early, None
        if early is not None:
            items, dropped = early.take_all()
            stream.put_all([each for each in items if _is_wanted(each, wanted)], dropped)
        self._end_if_over(stream)
        return stream

    def open_presence(self, buffer: int) -> Stream[Any]:
        """Open a stream of members' changes."""
        stream: Stream[Any] = Stream(self.name, buffer, as_it_is, None)
        self._of_presence.add(stream)
        self._end_if_over(stream)
        return stream

    async def ready(self) -> None:
        """Wait until subscribed. Raises SubscriptionFailed, and what ended the client."""
        await self._settled.wait()
        if self.error is not None:
            raise self.error
        if self.is_over:
            raise ClientClosed(f"{self.name} was left, or the client closed")

    @property
    def me(self) -> Member | None:
        """The client's own member."""
        return None if self.my_id is None else self.members.get(self.my_id)

    # For the client

    def authorized(self, authorization: Authorization) -> None:
        """Note what the application answered."""
        if authorization.shared_secret is not None:
            self.shared_secret = authorization.shared_secret
        if self.kind is ChannelKind.PRESENCE and authorization.channel_data is not None:
            self.my_id = _text(fields_of(authorization.channel_data).get("user_id"))

    def joined(self, data: Any) -> None:
        """Note that the subscription succeeded."""
        self.is_subscribed = self.was_subscribed = True
        if self.kind is ChannelKind.PRESENCE:
            self._meet(_members(fields_of(data)))
        self._settled.set()

    def lost(self) -> None:
        """Note that the connection has ended."""
        self.is_subscribed = self.awaits_resume = False
        if not self.is_over:
            self._settled.clear()

    def end(self, error: BaseException | None = None) -> None:
        """End it for good: left, or refused with `error`."""
        if self.is_over:
            return
        self.is_over, self.error, self.is_subscribed = True, error, False
        for stream in (*self._event_streams(), *self._of_presence):
            stream.end(error)
        self._settled.set()

    def receive(self, event: Event) -> None:
        """Pass an event to those who read it."""
        if (readers := self._by_name.get(event.name)) is not None:
            readers.put(event)
        if not event.name.startswith("pusher:"):
            self._of_all.put(event)
            if self._early is not None:
                self._early.put(event)

    def receive_sealed(self, event: Event) -> bool:
        """Open an encrypted event and pass it on; False if the secret does not open it. Others pass as they are."""
        sealed = event.data
        if not (isinstance(sealed, dict) and "ciphertext" in sealed):
            self.receive(event)
            return True
        text = None if self.shared_secret is None else opened(self.shared_secret, sealed)
        if text is None:
            return False
        self.receive(Event(event.name, event.channel, text, event.user_id))
        return True

    def gap(self, reason: str, missed: int | None = None) -> None:
        """Tell the readers that something is missing here."""
        gap = Gap(self.name, reason, missed)
        if self._early is not None:
            self._early.put(gap)
        for stream in self._event_streams():
            stream.put(gap)

    def member_added(self, data: Any) -> None:
        """Note a newcomer."""
        if (member := _member(fields_of(data))) is not None:
            self.members[member.id] = member
            self._of_presence.put(MemberAdded(member))

    def member_updated(self, data: Any) -> None:
        """Note what has changed about a member."""
        if (member := _member(fields_of(data))) is not None:
            self.members[member.id] = member
            self._of_presence.put(MemberUpdated(member))

    def member_removed(self, data: Any) -> None:
        """Note a leave."""
        user_id = _text(fields_of(data).get("user_id"))
        if user_id is not None and (member := self.members.pop(user_id, None)) is not None:
            self._of_presence.put(MemberRemoved(member))

    def _meet(self, now: dict[str, Member]) -> None:
        """Take over who is there, telling what has changed since the connection was lost."""
        before, self.members = self.members, now
        for user_id, member in before.items():
            if user_id not in now:
                self._of_presence.put(MemberRemoved(member))
        for user_id, member in now.items():
            if user_id not in before:
                self._of_presence.put(MemberAdded(member))
            elif before[user_id] != member:
                self._of_presence.put(MemberUpdated(member))

    def _event_streams(self) -> Iterable[Stream[Any]]:
        fans = (self._of_all, *self._by_name.values())
        return {id(stream): stream for fan in fans for stream in fan}.values()

    def _end_if_over(self, stream: Stream[Any]) -> None:
        if self.is_over:
            stream.end(self.error)


def _is_wanted(item: Any, wanted: dict[str, Any]) -> bool:
    return not wanted or isinstance(item, Gap) or item.name in wanted


def _text(value: Any) -> str | None:
    """An id as text, whichever way it was written."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _member(fields: dict[str, Any]) -> Member | None:
    user_id, info = _text(fields.get("user_id")), fields.get("user_info")
    return None if user_id is None else Member(user_id, info if isinstance(info, dict) else {})


def _members(fields: dict[str, Any]) -> dict[str, Member]:
    presence = fields.get("presence")
    shown = presence.get("hash") if isinstance(presence, dict) else None
    if not isinstance(shown, dict):
        return {}
    return {user_id: Member(user_id, info if isinstance(info, dict) else {}) for user_id, info in shown.items()}


def failed(channel: str, fields: dict[str, Any]) -> SubscriptionFailed:
    """Return the error in a `pusher:subscription_error`."""
    status = fields.get("status")
    return SubscriptionFailed(
        channel,
        str(fields.get("type", "AuthError")),
        str(fields.get("error", "the server gave no reason")),
        status if isinstance(status, int) else None,
    )
