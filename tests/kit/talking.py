"""What people and publishers do with a deployment: sign in and talk in a browser, write over the API, listen, publish."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from typing import Self

import httpx2
from playwright.async_api import Browser, Locator, Page, expect
from websockets.asyncio.client import ClientConnection, connect

from kit.chromium import LIMIT_MS
from kit.deployment import KEY, SECRET, Deployment
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.protocol.signing import signed_query

__all__ = ["Writer", "connected", "heard", "message", "publish", "say", "sign_in", "socket"]

PACE_S = 0.7
"""Below the limit of 20 messages in 10 s that a user has."""


def message(page: Page, text: str) -> Locator:
    return page.get_by_role("log").get_by_role("listitem").filter(has_text=text)


def connected(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Conversations").get_by_text("Connected", exact=True)


async def say(page: Page, text: str) -> None:
    writing = page.get_by_role("textbox", name=re.compile("^Message to"))
    await writing.fill(text)
    await writing.press("Enter")


async def sign_in(browser: Browser, deployed: Deployment, name: str) -> Page:
    context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    page.set_default_timeout(LIMIT_MS)
    await page.goto(deployed.url)
    await page.get_by_test_id("login-email").fill(f"{name}@example.com")
    await page.get_by_test_id("login-password").fill("password")
    await page.get_by_test_id("login-submit").click()
    await expect(connected(page)).to_be_visible(timeout=LIMIT_MS)
    return page


class Writer:
    """Says one numbered message after the other through the proxy, as Admin; keeps what was answered."""

    def __init__(self, deployed: Deployment, subject: str = "Number", *, waits_for_the_api: bool = False) -> None:
        self.subject = subject
        self._waits_for_the_api = waits_for_the_api
        self.written: list[str] = []
        self.answers: set[int] = set()
        self._client = httpx2.AsyncClient(base_url=deployed.url, verify=deployed.trusting(), timeout=LIMIT_S)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        answer = await self._client.post("/api/login", json={"email": "admin@example.com", "password": "password"})
        self._client.headers["authorization"] = f"Bearer {answer.json()['token']}"
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._client.aclose()

    async def said_more(self, count: int) -> None:
        """Wait until so many more have been written."""
        now = len(self.written)
        await eventually(lambda: len(self.written) >= now + count, what="the API goes on answering")

    async def _posted(self, text: str) -> int:
        """The status; requests that fail are sent again with the same key, as the pages do."""
        key = {"Idempotency-Key": secrets.token_hex(8)}
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                answer = await self._client.post("/api/chat/messages", json={"message": text}, headers=key)
                if not (self._waits_for_the_api and answer.status_code in (502, 503, 504)):
                    return answer.status_code
            except httpx2.TransportError:
                pass
            assert time.monotonic() < limit, f"not sent: {text}"
            await asyncio.sleep(0.1)

    async def _write(self) -> None:
        while True:
            text = f"{self.subject} {len(self.written):03}."
            begun = time.monotonic()
            self.answers.add(await self._posted(text))
            self.written.append(text)
            await asyncio.sleep(max(0.0, PACE_S - (time.monotonic() - begun)))


def socket(deployed: Deployment) -> connect:
    address = f"wss://127.0.0.1:{deployed.port}/app/{KEY}?protocol=7"
    return connect(address, ssl=deployed.trusting(), origin=deployed.url, ping_interval=None)


async def heard(client: ClientConnection, event: str) -> dict[str, object]:
    """The next frame of this name."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            frame: dict[str, object] = json.loads(await client.recv())
            if frame["event"] == event:
                return frame


async def publish(deployed: Deployment, text: str) -> None:
    """Through the inner door."""
    body = json.dumps({"name": "news", "channels": ["news"], "data": json.dumps(text)}).encode()
    key = secrets.token_hex(8)

    async def was_taken() -> bool:
        path = "/apps/77/events"
        query = signed_query(KEY, SECRET, "POST", path, body, timestamp=int(time.time()))
        async with httpx2.AsyncClient(timeout=LIMIT_S) as client:
            answer = await client.post(
                f"http://127.0.0.1:{deployed.inside_port}{path}?{query}", content=body,
                headers={"Content-Type": "application/json", "Idempotency-Key": key},
            )  # fmt: skip
        return answer.status_code == 200

    await eventually_told(was_taken, what="a publication is taken")
