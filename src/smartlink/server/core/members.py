"""Members of presence channels who were announced as gone although they are here.

A user whose last connection leaves one node while their next one reaches another is announced as gone by the first and
as added by the second. All receive both in one order, but not necessarily the order in which they happened, and by
then the user may be somewhere else again: only the presence store knows.
"""

from __future__ import annotations

from collections.abc import Callable

from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import Publication, left_out
from smartlink.server.cluster.presence.base import PresenceStore
from smartlink.server.core.corrections import Corrections
from smartlink.server.core.hub import Hub
from smartlink.server.core.rechecker import Rechecker
from smartlink.server.runtime.eager import EagerTasks

__all__ = ["Members"]

_Key = tuple[str, str]


class Members:
    """Announces members again, on this node alone, if they are present but their leave was announced last.

    `deliver` sends to clients of this node alone; `is_connected` says whether the presence store reaches other nodes.
    """

    def __init__(
        self,
        hub: Hub,
        presence: PresenceStore,
        deliver: Callable[[Publication], None],
        is_connected: Callable[[], bool],
        tasks: EagerTasks,
        corrections: Corrections,
    ) -> None:
        self._hub = hub
        self._presence = presence
        self._deliver = deliver
        self._is_connected = is_connected
        self._tasks = tasks
        self._corrections = corrections
        self._rechecks: Rechecker[dict[str, int]] = Rechecker(self._recheck)
        """By channel: the users whose leave was announced last, each with its version."""
        self._queries: dict[_Key, list[dict[str, int]]] = {}
        """The same users while the presence store is queried: one entry per query under way."""

    def note(self, app_id: str, channel: str, user_id: str, version: int, *, has_come: bool) -> None:
        """Note what a node, perhaps this one, announced on the channel."""
        key = (app_id, channel)
        # This announcement is newer than the answer to any query under way.
        for users in self._queries.get(key, ()):
            users.pop(user_id, None)
        left = self._rechecks.get(key)
        if has_come:
            if left is not None:
                left.pop(user_id, None)
        elif self._hub.channel(app_id, channel) is not None:
            if left is None:
                left = self._rechecks.note(key, {})
            left[user_id] = version

    def stop(self) -> None:
        """Cancel what is scheduled."""
        self._rechecks.stop()

    def _recheck(self, key: _Key, left: dict[str, int]) -> None:
        if left and self._is_connected():
            self._queries.setdefault(key, []).append(left)
            self._tasks.run(self._reconcile(key, left))

    async def _reconcile(self, key: _Key, left: dict[str, int]) -> None:
        app_id, channel = key
        try:
            state = await self._presence.state(app_id, channel)
        finally:
            under_way = [query for query in self._queries.pop(key) if query is not left]
            if under_way:
                self._queries[key] = under_way
        present = [member for member in state.members if member.user_id in left]
        for member in present:
            frame = encoding.member_added(channel, member.raw_id, member.user_info)
            # With versions, the member's own connections did not receive the leave.
            own = left_out(None, member.user_id) if state.version else None
            # Nor did connections that know a newer state than the leave.
            self._deliver(Publication(app_id, channel, frame, own, version=left[member.user_id]))
        wrong = {member.user_id: left[member.user_id] for member in present}
        self._corrections.note(app_id, channel, wrong, state.version)
