"""Asks the realtime server who is on `presence-chat`, and mends what webhooks that never came have left."""

from __future__ import annotations

import datetime as dt
import logging

from smartlink.portal.presence.channels import CHAT_PRESENCE
from smartlink.portal.presence.service import Presence, user_id_of
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway

__all__ = ["Sweep"]

log = logging.getLogger(__name__)


class Sweep:
    """One look at who is there."""

    def __init__(self, presence: Presence, realtime: RealtimeApi) -> None:
        self._presence = presence
        self._realtime = realtime

    async def run_once(self) -> bool:
        """Ask, and mend. False when the realtime server did not answer: then nothing is changed."""
        as_of = dt.datetime.now(dt.UTC)
        try:
            present = await self._realtime.present(CHAT_PRESENCE)
        except RealtimeAway as error:
            log.warning("presence sweep: no answer from the realtime server (%s)", error)
            return False
        ids = {user_id_of(user_id) for user_id in present}
        await self._presence.mend({user_id for user_id in ids if user_id is not None}, as_of)
        return True
