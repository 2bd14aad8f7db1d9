"""A client of the realtime server's HTTP API, for what the portal needs besides publishing.

The portal knows the server only through this API, so any Pusher-compatible one will do.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from smartlink.broadcasting import BroadcastSettings
from smartlink.protocol.addresses import netloc
from smartlink.protocol.signing import signed_query

__all__ = ["RealtimeApi", "RealtimeAway"]


class RealtimeAway(Exception):
    """The realtime server did not answer, or answered unexpectedly."""


class RealtimeApi:
    """Makes signed calls over one reused connection."""

    def __init__(self, settings: BroadcastSettings) -> None:
        self._settings = settings
        self._client: httpx2.AsyncClient | None = None

    async def get(self, path: str, **params: str) -> Any:
        """Return the decoded answer to `GET /apps/{id}{path}`. Raises RealtimeAway."""
        return await self._call("GET", path, b"", params)

    async def present(self, channel: str) -> list[str]:
        """Return the ids of the users on a presence channel. Raises RealtimeAway."""
        answer = await self.get(f"/channels/{quote(channel, safe='')}/users")
        try:
            return [str(user["id"]) for user in answer["users"]]
        except (KeyError, TypeError) as error:
            raise RealtimeAway("unexpected answer") from error

    async def terminate(self, user_id: int) -> None:
        """End all connections of a user. Raises RealtimeAway."""
        await self._call("POST", f"/users/{user_id}/terminate_connections", b"{}", {})

    async def change_info(self, user_id: int, info: dict[str, object]) -> None:
        """Change the `user_info` that new subscribers of presence channels see, while the user is connected.

        Raises RealtimeAway.
        """
        await self._call("POST", f"/users/{user_id}/info", msgspec.json.encode({"user_info": info}), {})

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    async def _call(self, method: str, path: str, body: bytes, params: dict[str, str]) -> Any:
        own = self._settings
        whole = f"/apps/{own.reverb_app_id}{path}"
        secret = own.reverb_app_secret.get_secret_value()
        query = signed_query(own.reverb_app_key, secret, method, whole, body, timestamp=int(time.time()), params=params)
        url = f"{own.reverb_scheme}://{netloc(own.reverb_host, own.reverb_port)}{whole}?{query}"
        if self._client is None:
            tls = httpx2.create_ssl_context() if own.reverb_scheme == "https" else False
            self._client = httpx2.AsyncClient(timeout=own.timeout_s, verify=tls, trust_env=False)
        try:
            response = await self._client.request(method, url, content=body)
            response.raise_for_status()
            return msgspec.json.decode(response.content)
        except httpx2.HTTPStatusError as error:
            raise RealtimeAway(f"it answered {error.response.status_code}") from error
        except (httpx2.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RealtimeAway(type(error).__name__) from error
