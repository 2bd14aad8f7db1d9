"""A frozen page, as after a computer's sleep: it is disconnected, and catches up on waking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from kit.callers import Callers
from kit.chromium import chromium, frozen
from kit.serve import Smartlink, running
from kit.waiting import eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ANA = 1
NOTE_CLOSES = """
window.closes = []
const Plain = WebSocket
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given)
    this.addEventListener('close', ({ code }) => window.closes.push(code))
  }
}
"""


@pytest.fixture
def smartlink(tmp_path: Path) -> Iterator[Smartlink]:
    """Silent clients are asked after 2 s and ended after 2 s more; by default after 15 s each."""
    with running(tmp_path, reverb_app_ping_interval=2) as started:
        yield started


async def page_of(browser: Browser, smartlink: Smartlink, who: str) -> Page:
    page = await (await browser.new_context(viewport={"width": 1280, "height": 800})).new_page()
    await page.add_init_script(NOTE_CLOSES)
    await page.goto(smartlink.url)
    await page.get_by_test_id("login-email").fill(f"{who}@example.com")
    await page.get_by_test_id("login-password").fill("password")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("connection-state").first).to_have_text("Connected")
    return page


async def test_a_frozen_page_is_disconnected_and_catches_up_on_waking(smartlink: Smartlink) -> None:
    call = Callers(smartlink.url)
    async with chromium() as anas, chromium() as bens:
        ana, ben = await page_of(anas, smartlink, "ana"), await page_of(bens, smartlink, "ben")
        seen_by_ben = ben.get_by_test_id(f"online-user-{ANA}")
        await expect(seen_by_ben).to_be_visible()

        async with frozen(anas):
            await expect(seen_by_ben).to_have_count(0)
            for number in range(3):
                await call("ben", "POST", "/api/chat/messages", {"message": f"Said to the frozen {number}"})

        async def shown() -> bool:
            texts = await ana.get_by_role("log").get_by_test_id("message-text").all_inner_texts()
            return texts[-3:] == [f"Said to the frozen {number}" for number in range(3)]

        await eventually_told(shown, what="what was said to the frozen page, once and in order")
        # 1006 where it slept longer than the server waits for the close to be answered.
        assert set(await ana.evaluate("window.closes")) <= {4201, 1006}
        assert await ana.evaluate("window.closes") != []
        await expect(seen_by_ben).to_be_visible()
