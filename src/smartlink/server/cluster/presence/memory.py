"""The presence store of a single node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from smartlink.protocol.encoding import MemberList
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.presence.base import Arrival, ChannelCount, ChannelState, Departure, OnChange

__all__ = ["MemoryPresence"]


_NONE: Final[dict[Any, Any]] = {}
"""Shared by channels without members. Never modified."""


class _Channel:
    __slots__ = ("_list", "sockets", "tabs", "users")

    def __init__(self) -> None:
        self.sockets: dict[str, PresenceMember | None] = {}
        self.users: dict[str, PresenceMember] = _NONE
        self.tabs: dict[str, int] = _NONE
        """Number of connections by user."""
        self._list: MemberList | None = None
        """The members encoded, since somebody asked for them."""

    def put(self, member: PresenceMember) -> None:
        """Add or replace a member."""
        self.users[member.user_id] = member
        if self._list is not None:
            self._list.put(member.user_id, member.raw_id, member.user_info)

    def remove(self, user_id: str) -> None:
        """Remove a member."""
        del self.users[user_id]
        if self._list is not None:
            self._list.remove(user_id)

    def data(self) -> bytes:
        """The members encoded."""
        if self._list is None:
            self._list = MemberList()
            for member in self.users.values():
                self._list.put(member.user_id, member.raw_id, member.user_info)
        return self._list.data()


_NOBODY = ChannelCount(0, 0)


class MemoryPresence:
    """A `PresenceStore` within one process. A channel exists while it is occupied."""

    def __init__(self) -> None:
        self._apps: dict[str, dict[str, _Channel]] = {}
        self._version = 0
        """Number of joins and leaves so far, on all channels."""

    async def start(self, on_change: OnChange) -> None:
        """Nothing changes except by `join` and `leave`."""

    async def join(
        self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None, grace_s: int = 0
    ) -> Arrival:
        channels = self._apps.setdefault(app_id, {})
        entry = channels.get(channel)
        if entry is None:
            entry = channels[channel] = _Channel()
        if socket_id in entry.sockets:
            members = self._members(entry, member)
            return Arrival(False, False, len(entry.sockets), None, self._version, members, entry.data)
        is_first_on_channel = not entry.sockets
        entry.sockets[socket_id] = member
        if member is None:
            self._version += is_first_on_channel
            return Arrival(is_first_on_channel, False, len(entry.sockets), version=self._version)
        if entry.tabs is _NONE:
            entry.tabs, entry.users = {}, {}
        tabs = entry.tabs[member.user_id] = entry.tabs.get(member.user_id, 0) + 1
        known = entry.users.get(member.user_id)
        if known is None:
            entry.put(known := member)
        is_number = None if known.is_number is member.is_number else known.is_number
        self._version += tabs == 1
        members = self._members(entry, member)
        is_first = tabs == 1
        return Arrival(is_first_on_channel, is_first, len(entry.sockets), is_number, self._version, members, entry.data)

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure:
        channels = self._apps.get(app_id, {})
        entry = channels.get(channel)
        if entry is None or socket_id not in entry.sockets:
            return Departure(False, False, 0 if entry is None else len(entry.sockets))
        member = entry.sockets.pop(socket_id)
        is_last_of_user = False
        if member is not None:
            entry.tabs[member.user_id] -= 1
            is_last_of_user = entry.tabs[member.user_id] == 0
            if is_last_of_user:
                del entry.tabs[member.user_id]
                entry.remove(member.user_id)
        self._version += is_last_of_user or not entry.sockets
        if entry.sockets:
            return Departure(False, is_last_of_user, len(entry.sockets), self._version)
        del channels[channel]
        if not channels:
            del self._apps[app_id]
        return Departure(True, is_last_of_user, 0, self._version)

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        entry = self._apps.get(app_id, {}).get(channel)
        return () if entry is None else tuple(entry.users.values())

    async def state(self, app_id: str, channel: str) -> ChannelState:
        return ChannelState(self._version, *self.here(app_id, channel))

    async def count(self, app_id: str, channel: str) -> ChannelCount:
        entry = self._apps.get(app_id, {}).get(channel)
        return _NOBODY if entry is None else ChannelCount(len(entry.sockets), len(entry.users))

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        return {
            name: ChannelCount(len(entry.sockets), len(entry.users))
            for name, entry in self._apps.get(app_id, {}).items()
            if name.startswith(prefix)
        }

    @staticmethod
    def _members(entry: _Channel, joining: PresenceMember | None) -> tuple[PresenceMember, ...]:
        return () if joining is None else tuple(entry.users.values())

    def here(self, app_id: str, channel: str) -> tuple[int, tuple[PresenceMember, ...]]:
        """Connections and members of a channel, synchronously."""
        entry = self._apps.get(app_id, {}).get(channel)
        return (0, ()) if entry is None else (len(entry.sockets), tuple(entry.users.values()))

    def user_of(self, app_id: str, channel: str, socket_id: str) -> str | None:
        """The user of a connection; None if it has none or is not on the channel."""
        entry = self._apps.get(app_id, {}).get(channel)
        member = None if entry is None else entry.sockets.get(socket_id)
        return None if member is None else member.user_id

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> PresenceMember | None:
        entry = self._apps.get(app_id, {}).get(channel)
        known = None if entry is None else entry.users.get(user_id)
        if known is not None:
            self.update_member(app_id, channel, replace(known, user_info=user_info))
        return known

    def note(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> None:
        """Nothing to do: no other node changes this store."""

    def update_member(self, app_id: str, channel: str, member: PresenceMember) -> bool:
        """Replace the record of a user who is on the channel. Returns whether they are."""
        entry = self._apps.get(app_id, {}).get(channel)
        if entry is None or member.user_id not in entry.users:
            return False
        entry.put(member)
        return True

    def occupied(self) -> list[tuple[str, str]]:
        """App and name of every occupied channel, synchronously."""
        return [(app_id, name) for app_id, channels in self._apps.items() for name in channels]

    def report_connections(self, app_id: str, connections: int) -> None:
        """No other node to inform."""

    def connections_elsewhere(self, app_id: str) -> int:
        return 0

    async def count_elsewhere(self, app_id: str) -> int:
        return self.connections_elsewhere(app_id)

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        return here + self.connections_elsewhere(app_id) < most

    async def nodes(self) -> int:
        return 1

    async def stop(self) -> None:
        self._apps.clear()
