"""A real Chromium, headless and without calls to Google."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

from kit.waiting import LIMIT_S

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHELL = "chromium-headless-shell"
"""The same without windows, which starts in half the time. It keeps no page that was left."""
LIMIT_MS = LIMIT_S * 1_000
"""How long pages may take to show what they must: for `expect` and as a page's default."""
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


@asynccontextmanager
async def chromium(*, keeps_left_pages: bool = False) -> AsyncIterator[Browser]:
    """Started and ended. Browsers keep a page that was left, to go back to it; Playwright switches that off."""
    binaries = BROWSERS if keeps_left_pages else (SHELL, *BROWSERS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, binaries)), None),
            args=ARGUMENTS,
            ignore_default_args=["--disable-back-forward-cache"] if keeps_left_pages else None,
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def frozen(browser: Browser) -> AsyncIterator[None]:
    """The browser's pages and its network stand still: without the latter it answers WebSocket pings for its pages."""
    devtools = await browser.new_browser_cdp_session()
    processes = (await devtools.send("SystemInfo.getProcessInfo"))["processInfo"]
    stopped = [int(one["id"]) for one in processes if one["type"] == "renderer" or "NetworkService" in one["type"]]
    assert len(stopped) >= 2
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
