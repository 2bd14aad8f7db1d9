"""The port `Roster` and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from smartlink.protocol.session import Member

__all__ = ["Arrival", "ChannelCount", "Departure", "Roster"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a join changed."""

    is_first_on_channel: bool
    is_first_of_user: bool


@dataclass(frozen=True, slots=True)
class Departure:
    """What a leave changed."""

    is_last_on_channel: bool
    is_last_of_user: bool


@dataclass(frozen=True, slots=True)
class ChannelCount:
    """Subscribed connections, and users on presence channels (0 elsewhere)."""

    subscriptions: int
    users: int


class Roster(Protocol):
    """Who is on a channel, over all nodes.

    Promises, tried on every engine by tests/conformance/test_roster.py: counts and members are of the whole cluster;
    each user is listed once however many connections; first and last are told exactly once; joining twice with one
    socket id, or leaving without being there, changes nothing and is neither first nor last; a dead node's entries
    vanish within one lease.
    """

    async def join(self, app_id: str, channel: str, socket_id: str, member: Member | None) -> Arrival: ...

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure: ...

    async def members(self, app_id: str, channel: str) -> Sequence[Member]:
        """Members in order of arrival; empty for a channel nobody is on."""

    async def count(self, app_id: str, channel: str) -> ChannelCount: ...

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        """Occupied channels whose names start with `prefix`."""

    async def refresh(self) -> None:
        """Renew this node's lease."""
