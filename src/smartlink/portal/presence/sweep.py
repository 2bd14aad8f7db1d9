"""Asks the realtime server who is on `presence-chat`, and mends what webhooks that never came have left."""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import Any

import httpx2
import msgspec

from smartlink.broadcasting import BroadcastSettings
from smartlink.portal.presence.channels import CHAT_PRESENCE
from smartlink.portal.presence.service import Presence, user_id_of
from smartlink.protocol.signing import signed_query

__all__ = ["Sweep"]

log = logging.getLogger(__name__)


class Sweep:
    """One look at who is there."""

    def __init__(self, presence: Presence, settings: BroadcastSettings) -> None:
        self._presence = presence
        self._settings = settings

    async def run_once(self) -> bool:
        """Ask, and mend. False when the realtime server did not answer: then nothing is changed."""
        as_of = dt.datetime.now(dt.UTC)
        present = await self._present()
        if present is None:
            return False
        await self._presence.mend(present, as_of)
        return True

    async def _present(self) -> set[int] | None:
        own = self._settings
        path = f"/apps/{own.reverb_app_id}/channels/{CHAT_PRESENCE}/users"
        secret = own.reverb_app_secret.get_secret_value()
        query = signed_query(own.reverb_app_key, secret, "GET", path, timestamp=int(time.time()))
        url = f"{own.reverb_scheme}://{own.reverb_host}:{own.reverb_port}{path}?{query}"
        try:
            async with httpx2.AsyncClient(timeout=own.timeout_s, trust_env=False) as client:
                response = await client.get(url)
            response.raise_for_status()
            users: Any = msgspec.json.decode(response.content)["users"]
            ids = {user_id_of(user["id"]) for user in users}
        except (httpx2.HTTPError, msgspec.DecodeError, KeyError, TypeError) as error:
            log.warning("presence sweep: no answer from the realtime server (%s)", type(error).__name__)
            return None
        return {user_id for user_id in ids if user_id is not None}
