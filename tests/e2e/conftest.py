"""Real browsers against the whole system as `smartlink serve` starts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from kit.callers import Callers
from kit.chromium import LIMIT_MS, chromium
from kit.serve import Smartlink, running

expect.set_options(timeout=LIMIT_MS)

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture
def smartlink(tmp_path: Path) -> Iterator[Smartlink]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared_smartlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smartlink]:
    """One system for all tests of a module, which names it `smartlink`."""
    with running(tmp_path_factory.mktemp("smartlink")) as started:
        yield started


@pytest.fixture(scope="module")
def call(shared_smartlink: Smartlink) -> Callers:
    """The API of the shared system."""
    return Callers(shared_smartlink.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_browser() -> AsyncIterator[Browser]:
    """One browser for all tests of a module."""
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def browser(shared_browser: Browser) -> AsyncIterator[Browser]:
    """A browser without contexts: those that a test opens are closed with it."""
    yield shared_browser
    for context in shared_browser.contexts:
        await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def sign_in(smartlink: Smartlink, browser: Browser) -> AsyncIterator[SignIn]:
    """Opens a browser of its own for a person and signs them in; nothing may be written to its console as error."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    async def open_as(name: str) -> Page:
        context = await browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(LIMIT_MS)
        contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: problems.append(f"{name}: {error}"))
        await page.goto(smartlink.url)
        await page.get_by_test_id("login-email").fill(f"{name}@example.com")
        await page.get_by_test_id("login-password").fill("password")
        await page.get_by_test_id("login-submit").click()
        await expect(page.get_by_role("textbox", name="Message to General")).to_be_visible()
        await expect(page.get_by_role("navigation", name="Conversations")).to_contain_text("Connected")
        return page

    yield open_as
    for context in contexts:
        await context.close()
    assert problems == []
