"""Posts one webhook: to a checked address, within a time limit, reading little of the response."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2

from smartlink.server.webhooks.guard import Guard, TargetRefused

__all__ = ["Poster", "Posting"]

MAX_ANSWER_BYTES = 65_536


class Posting:
    """Posts to one address; keeps the connection while it lives."""

    def __init__(self, client: httpx2.AsyncClient, guard: Guard, timeout_s: float) -> None:
        self._client = client
        self._guard = guard
        self._timeout_s = timeout_s

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """Returns None if the receiver accepted it (2xx), else the reason. Redirects are not followed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                target = await self._guard.resolve(url)
                all_headers = {"Host": target.host_header, "Accept-Encoding": "identity", **headers}
                async with self._client.stream(
                    "POST", target.url, content=body, headers=all_headers, extensions={"sni_hostname": target.name}
                ) as answer:
                    read = 0
                    async for piece in answer.aiter_raw():
                        read += len(piece)
                        if read > MAX_ANSWER_BYTES:
                            break
        except TimeoutError:
            return f"no response within {self._timeout_s:g} s"
        except TargetRefused as refused:
            return f"refused: {refused}"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError) as error:
            return f"not reached: {type(error).__name__}"
        return None if answer.is_success else f"answered {answer.status_code}"


class Poster:
    """Creates postings, which ignore the environment (proxies, netrc)."""

    def __init__(self, guard: Guard, timeout_s: float) -> None:
        self._guard = guard
        self._tls: ssl.SSLContext | None = None
        self.timeout_s = timeout_s

    async def refuses(self, url: str) -> str | None:
        """Why `url` will never be posted to, and what would allow it; None if it may be, or if its name does not
        resolve.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._guard.resolve(url)
        except TargetRefused as refused:
            return str(refused)
        except (OSError, UnicodeError, TimeoutError):
            return None  # The name may resolve by the time there is something to post.
        return None

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[Posting]:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        client = httpx2.AsyncClient(
            verify=self._tls, timeout=self.timeout_s, follow_redirects=False, trust_env=False
        )  # fmt: skip
        async with client:
            yield Posting(client, self._guard, self.timeout_s)
