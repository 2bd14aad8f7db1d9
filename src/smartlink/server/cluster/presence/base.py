"""The port `PresenceStore` and its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smartlink.protocol.session import PresenceMember

__all__ = ["Arrival", "Change", "ChannelCount", "ChannelState", "Departure", "OnChange", "PresenceStore"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """The effect of a join, and the number of connections on the channel after it."""

    is_first_on_channel: bool
    is_first_of_user: bool
    subscriptions: int
    is_number: bool | None = None
    """Whether the user's id was first announced as a number, if that differs from this join."""
    version: int = field(default=0, compare=False)
    """See `ChannelState`."""
    members: tuple[PresenceMember, ...] = field(default=(), compare=False)
    """The members as of this join, if it was a member's."""
    data: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    """The same encoded (`encoding.MemberList`), if the store keeps them so; to be called before anything else joins."""


@dataclass(frozen=True, slots=True)
class Departure:
    """The effect of a leave, and the number of connections left on the channel."""

    is_last_on_channel: bool
    is_last_of_user: bool
    subscriptions: int
    version: int = field(default=0, compare=False)
    """See `ChannelState`."""


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A snapshot of a channel: its number of connections and its members.

    On presence and user channels, each join or leave of a user has a number, higher than all before it. `version` is
    the last one included here: events with this or a lower number add nothing to the snapshot. 0 means unknown, as
    while other nodes are unreachable.
    """

    version: int
    subscriptions: int
    members: tuple[PresenceMember, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelCount:
    """Subscribed connections, and users on presence channels (0 elsewhere)."""

    subscriptions: int
    users: int


@dataclass(frozen=True, slots=True)
class Change:
    """A change on a channel without a join or leave on this node: another node died, or returned.

    Exactly one node of the cluster receives each change, and announces it. With no other field set, only the number of
    connections changed, on a channel that sends counts.
    """

    app_id: str
    channel: str
    added: tuple[PresenceMember, ...] = ()
    removed: tuple[PresenceMember, ...] = ()
    is_occupied: bool = False
    """The channel was empty before."""
    is_vacated: bool = False
    """The channel is empty now."""
    version: int = field(default=0, compare=False, repr=False)
    """See `ChannelState`."""


OnChange = Callable[[Change], None]


class PresenceStore(Protocol):
    """Who is on a channel, over all nodes.

    tests/conformance/test_presence.py checks these promises for every engine: counts and members cover the whole
    cluster; each user is listed once regardless of connections, with the id and info announced first; first and
    last are reported exactly once; joining twice with one socket id, or leaving without having joined, changes
    nothing and is neither first nor last; states and changes are numbered in one order (`ChannelState`); a dead
    node's entries vanish within 10 s, or when their grace is over, and one node is notified. While other nodes are
    unreachable, results cover this node alone, and nothing raises or blocks for long; afterwards the node's entries are
    reconciled.
    """

    async def start(self, on_change: OnChange) -> None:
        """Start; `on_change` is synchronous and must not raise."""

    async def join(
        self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None, grace_s: int = 0
    ) -> Arrival:
        """Enter a connection. If the node dies, a member stays `grace_s` seconds longer than its connection."""

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure: ...

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        """Members in order of arrival; empty if no one is on the channel."""

    async def state(self, app_id: str, channel: str) -> ChannelState: ...

    async def count(self, app_id: str, channel: str) -> ChannelCount: ...

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        """Occupied channels whose names start with `prefix`."""

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> PresenceMember | None:
        """Replace a member's `user_info` (JSON) for as long as they stay.

        Returns the member as it was before; None if they are not on the channel.
        """

    def note(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> None:
        """Store a member's info reported by another node, so that local answers are not older. Synchronous."""

    def report_connections(self, app_id: str, connections: int) -> None:
        """Set the number of connections of this node, and send it to the others at once."""

    def connections_elsewhere(self, app_id: str) -> int:
        """The number of connections on the other nodes, as last reported."""

    async def count_elsewhere(self, app_id: str) -> int:
        """The same, queried now."""

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        """Whether one more connection fits beside the `here` of this node, where the cluster may have `most`.

        Over Redis, concurrent requests never exceed the limit; workers learn of each other's a turn of the loop later.
        Report the connection in the same step.
        """

    async def nodes(self) -> int:
        """The number of live nodes, including this one."""

    async def stop(self) -> None:
        """Remove this node's entries; other nodes see them leave."""
