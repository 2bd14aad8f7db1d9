"""The user_info of members of presence channels, changed while they are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from smartlink.protocol import encoding
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Control, Publication
from smartlink.server.cluster.presence.base import PresenceStore
from smartlink.server.core.hub import Hub
from smartlink.server.runtime.eager import EagerTasks

__all__ = ["Infos"]


class Infos:
    """Changes the user_info of members, and announces it. `announce` publishes, on this node at least."""

    def __init__(
        self, hub: Hub, presence: PresenceStore, announce: Callable[[Publication], Awaitable[None]], tasks: EagerTasks
    ) -> None:
        self._hub = hub
        self._presence = presence
        self._announce = announce
        self._tasks = tasks

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> bool:
        """Give a member this `user_info` (JSON) from now on. Returns whether they are on the channel."""
        before = await self._presence.change(app_id, channel, user_id, user_info)
        if before is None:
            return False
        announced = before.user_info
        current: PresenceMember | None = replace(before, user_info=user_info)
        while current is not None and current.user_info != announced:
            frame = encoding.member_updated(channel, current.raw_id, current.user_info)
            await self._announce(Publication(app_id, channel, frame))
            announced = current.user_info
            # Two changes at once may be announced in the wrong order: the presence store has the last one.
            members = await self._presence.members(app_id, channel)
            current = next((member for member in members if member.user_id == user_id), None)
        return True

    def change_here(self, control: Control) -> None:
        """Change a user on every presence channel that their connections here are on; the first node announces it."""
        channels = {
            channel: None
            for connection in self._hub.of_user(control.app_id, control.target)
            for channel, member in connection.session.channels.items()
            if member is not None and member.user_id == control.target
        }
        for channel in channels:
            self._tasks.run(self.change(control.app_id, channel, control.target, control.data.encode()))
