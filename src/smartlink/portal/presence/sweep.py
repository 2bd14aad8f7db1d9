"""Asks the realtime server who is on `presence-chat`, to correct what lost webhooks have left behind."""

from __future__ import annotations

import datetime as dt
import logging

from smartlink.portal.presence.channels import CHAT_PRESENCE
from smartlink.portal.presence.service import Presence, user_id_of
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway

__all__ = ["Sweep"]

log = logging.getLogger(__name__)


class Sweep:
    """Compares stored presence with the realtime server's."""

    def __init__(self, presence: Presence, realtime: RealtimeApi) -> None:
        self._presence = presence
        self._realtime = realtime

    async def run_once(self) -> bool:
        """Correct the stored presence. Returns False, and changes nothing, if the realtime server does not answer."""
        as_of = dt.datetime.now(dt.UTC)
        try:
            present = await self._realtime.present(CHAT_PRESENCE)
        except RealtimeAway as error:
            log.warning("presence sweep skipped: no answer from the realtime server (%s)", error)
            return False
        ids = {user_id_of(user_id) for user_id in present}
        await self._presence.correct({user_id for user_id in ids if user_id is not None}, as_of)
        return True
