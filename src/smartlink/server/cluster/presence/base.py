"""The port `PresenceStore` and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smartlink.protocol.session import PresenceMember

__all__ = ["Arrival", "Change", "ChannelCount", "ChannelState", "Departure", "OnChange", "PresenceStore"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a join changed, and how many connections are on the channel now."""

    is_first_on_channel: bool
    is_first_of_user: bool
    subscriptions: int
    is_number: bool | None = None
    """The form in which the user's id was told first, where that is another than the one who joins has."""
    version: int = field(default=0, compare=False)
    """See `ChannelState`."""
    members: tuple[PresenceMember, ...] = field(default=(), compare=False)
    """Who is there as of this very join, when it was a member's."""


@dataclass(frozen=True, slots=True)
class Departure:
    """What a leave changed, and how many connections are left on the channel."""

    is_last_on_channel: bool
    is_last_of_user: bool
    subscriptions: int
    version: int = field(default=0, compare=False)
    """See `ChannelState`."""


@dataclass(frozen=True, slots=True)
class ChannelState:
    """Who is on a channel at one moment: how many connections, and which members.

    Of presence channels and of users' own, each coming or going of a user has a number, higher than those before it.
    `version` is the last one that this state shows: what has it, or a lower one, is known to who knows the state. 0
    stands for: not known, as while other nodes cannot be reached.
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
    """What changed on a channel without a join or leave of this node: another node died, or was reached again.

    Exactly one node of the cluster is told of each, and announces it. With nothing else set it is the number of
    connections that changed, on a channel whose subscribers are told of it.
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

    Promises, tried on every engine by tests/conformance/test_roster.py: counts and members are of the whole cluster;
    each user is listed once however many connections, with the id and info told first; first and last are told exactly
    once; joining twice with one socket id, or leaving without being there, changes nothing and is neither first nor
    last; states and changes are numbered in one order (`ChannelState`); a dead node's entries vanish within 10 s, and
    one node is told so. While other nodes cannot be reached, answers are of this node alone; nothing raises and nothing
    waits for long; afterwards the node's entries are put right.
    """

    async def start(self, on_change: OnChange) -> None:
        """Begin; `on_change` is a plain function and must not raise."""

    async def join(self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None) -> Arrival: ...

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure: ...

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        """Members in order of arrival; empty for a channel nobody is on."""

    async def state(self, app_id: str, channel: str) -> ChannelState: ...

    async def count(self, app_id: str, channel: str) -> ChannelCount: ...

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        """Occupied channels whose names start with `prefix`."""

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> PresenceMember | None:
        """Have a member told of with this `user_info` (JSON) from now on, as long as they are there.

        Returns the member as they were told of before; None when they are not there.
        """

    def note(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> None:
        """A node has told this of a member: what this node answers by itself must not be older. Plain."""

    def report_connections(self, app_id: str, connections: int) -> None:
        """How many connections this node has now. Told to the others at once."""

    def connections_elsewhere(self, app_id: str) -> int:
        """How many connections the other nodes have, as last heard from them."""

    async def count_elsewhere(self, app_id: str) -> int:
        """The same, asked for now."""

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        """Whether one more connection fits beside the `here` of this node, where all together may have `most`.

        Of those who ask nodes over Redis at the same moment no more than fit get a place; workers hear of each other's
        a turn of the loop later. To be reported in the same step.
        """

    async def nodes(self) -> int:
        """How many nodes are alive, this one included."""

    async def stop(self) -> None:
        """Take this node's entries out; others hear of it as of a leave."""
