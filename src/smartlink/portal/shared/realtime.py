"""The realtime server's HTTP API, as the portal uses it beside publishing: who is where, and ending connections.

The portal knows the server over the wire only, so any Pusher-compatible one will do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from smartlink.broadcasting import BroadcastSettings
from smartlink.protocol.addresses import netloc
from smartlink.protocol.signing import signed_query

__all__ = ["RealtimeApi", "RealtimeAway"]

log = logging.getLogger(__name__)

MAX_ENDING = 1_000
RETRY_FOR_S = 60.0


class RealtimeAway(Exception):
    """The realtime server did not answer, or not as it should."""


class RealtimeApi:
    """Signed calls. One connection is kept and used again."""

    def __init__(self, settings: BroadcastSettings) -> None:
        self._settings = settings
        self._client: httpx2.AsyncClient | None = None
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        """Whose connections are to be ended once more: they may have come since the call that is under way."""

    async def get(self, path: str, **params: str) -> Any:
        """`GET /apps/{id}{path}`, decoded. Raises RealtimeAway."""
        return await self._call("GET", path, b"", params)

    async def present(self, channel: str) -> list[str]:
        """The ids of the users on a presence channel. Raises RealtimeAway."""
        answer = await self.get(f"/channels/{quote(channel, safe='')}/users")
        try:
            return [str(user["id"]) for user in answer["users"]]
        except (KeyError, TypeError) as error:
            raise RealtimeAway("an answer that is none") from error

    async def terminate(self, user_id: int) -> None:
        """End all connections of a user. Raises RealtimeAway."""
        await self._call("POST", f"/users/{user_id}/terminate_connections", b"{}", {})

    def end_connections(self, user_id: int) -> None:
        """As `terminate`, without waiting; tried again for a minute while the server is away."""
        if user_id in self._ending:
            self._again.add(user_id)
            return
        if len(self._ending) >= MAX_ENDING:
            log.error("connections of user %d were not ended: too many others are to be", user_id)
            return
        task = asyncio.get_running_loop().create_task(self._end(user_id), name="end connections")
        self._ending[user_id] = task
        task.add_done_callback(lambda ended: self._forget(user_id, ended))

    async def ended(self) -> None:
        """Wait until nothing of `end_connections` is under way."""
        while self._ending:
            await asyncio.wait(tuple(self._ending.values()))

    async def aclose(self) -> None:
        """Stop and close."""
        for task in tuple(self._ending.values()):
            task.cancel()
        await asyncio.gather(*self._ending.values(), return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _end(self, user_id: int) -> None:
        give_up, pause_s = time.monotonic() + RETRY_FOR_S, 0.2
        while True:
            self._again.discard(user_id)
            try:
                await self.terminate(user_id)
            except RealtimeAway as error:
                if time.monotonic() > give_up:
                    log.error("connections of user %d were not ended: %s", user_id, error)
                    self._again.discard(user_id)
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
            else:
                if user_id not in self._again:
                    break
        # In the same step: what comes before the task's callbacks run begins another one.
        del self._ending[user_id]

    def _forget(self, user_id: int, ended: asyncio.Task[None]) -> None:
        if self._ending.get(user_id) is ended:
            del self._ending[user_id]

    async def _call(self, method: str, path: str, body: bytes, params: dict[str, str]) -> Any:
        own = self._settings
        whole = f"/apps/{own.reverb_app_id}{path}"
        secret = own.reverb_app_secret.get_secret_value()
        query = signed_query(own.reverb_app_key, secret, method, whole, body, timestamp=int(time.time()), params=params)
        url = f"{own.reverb_scheme}://{netloc(own.reverb_host, own.reverb_port)}{whole}?{query}"
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=own.timeout_s, trust_env=False)
        try:
            response = await self._client.request(method, url, content=body)
            response.raise_for_status()
            return msgspec.json.decode(response.content)
        except httpx2.HTTPStatusError as error:
            raise RealtimeAway(f"it answered {error.response.status_code}") from error
        except (httpx2.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RealtimeAway(type(error).__name__) from error
