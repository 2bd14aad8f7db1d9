"""The five services behind the proxy, two users in real browsers, and failures."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator
from typing import Self

import httpx2
import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from kit.chromium import LIMIT_MS
from kit.deployment import Deployment
from kit.waiting import LIMIT_S, eventually

pytestmark = [pytest.mark.deploy, pytest.mark.browser, pytest.mark.timeout(420)]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
PACE_S = 0.7
"""Below the limit of 20 messages in 10 s that a user has."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        await started.close()


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

    def __init__(self, deployed: Deployment) -> None:
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

    async def _write(self) -> None:
        while True:
            text = f"Number {len(self.written):03}."
            begun = time.monotonic()
            answer = await self._client.post("/api/chat/messages", json={"message": text})
            self.answers.add(answer.status_code)
            self.written.append(text)
            await asyncio.sleep(max(0.0, PACE_S - (time.monotonic() - begun)))


async def test_a_day_of_the_five_services(deployed: Deployment, browser: Browser) -> None:
    ana, ben = await sign_in(browser, deployed, "ana"), await sign_in(browser, deployed, "ben")
    for cookie in await ana.context.cookies():
        assert cookie["secure"], cookie["name"]
    async with Writer(deployed) as writer:
        await say(ana, "Hello from Ana")
        await expect(message(ben, "Hello from Ana")).to_have_count(1)
        await say(ben, "Hello from Ben")
        await expect(message(ana, "Hello from Ben")).to_have_count(1)

        # One realtime node is gone without a word, and comes back later.
        deployed.nodes[0].kill()
        await writer.said_more(6)
        for page in (ana, ben):
            await expect(connected(page)).to_be_visible(timeout=LIMIT_MS)
        await say(ana, "After the kill")
        await expect(message(ben, "After the kill")).to_have_count(1, timeout=LIMIT_MS)
        deployed.nodes[0].start()
        await asyncio.to_thread(deployed.wait_until_up)

        # The other one is told to end, in the midst of traffic.
        deployed.nodes[1].signal(signal.SIGTERM)
        assert await asyncio.to_thread(deployed.nodes[1].wait) == 0
        await writer.said_more(4)
        for page in (ana, ben):
            await expect(connected(page)).to_be_visible(timeout=LIMIT_MS)
        deployed.nodes[1].start()
        await asyncio.to_thread(deployed.wait_until_up)
        await say(ben, "After the drain")
        await expect(message(ana, "After the drain")).to_have_count(1, timeout=LIMIT_MS)

        # Redis begins anew, empty.
        deployed.redis.kill()
        await writer.said_more(5)
        await asyncio.to_thread(deployed.redis.start)
        await writer.said_more(5)
        await say(ana, "After Redis")
        await expect(message(ben, "After Redis")).to_have_count(1, timeout=LIMIT_MS)

    assert writer.answers == {201}
    for page in (ana, ben):
        await expect(message(page, writer.written[-1])).to_have_count(1, timeout=LIMIT_MS)
        await expect(message(page, "Number ")).to_have_count(len(writer.written), timeout=LIMIT_MS)
        shown = re.findall(r"Number \d{3}\.", await page.get_by_role("log").inner_text())
        assert shown == writer.written
    assert "Traceback" not in deployed.app.said
