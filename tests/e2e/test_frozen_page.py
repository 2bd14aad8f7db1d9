"""A page that the browser froze, as browsers do to tabs in the background."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from kit.callers import Callers
from kit.serve import Smartlink, running
from kit.waiting import eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SignIn = Callable[[str], Awaitable[Page]]
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


async def test_a_frozen_page_is_sent_away_and_closes_its_gap_when_it_wakes(
    smartlink: Smartlink, sign_in: SignIn
) -> None:
    call = Callers(smartlink.url)
    ben, ana = await sign_in("ben"), await sign_in("ana")
    await ana.add_init_script(NOTE_CLOSES)
    await ana.reload()
    seen_by_ben = ben.get_by_test_id(f"online-user-{ANA}")
    await expect(ana.get_by_test_id("connection-state").first).to_have_text("Connected")
    await expect(seen_by_ben).to_be_visible()
    devtools = await ana.context.new_cdp_session(ana)

    await devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    await expect(seen_by_ben).to_have_count(0)
    for number in range(3):
        await call("ben", "POST", "/api/chat/messages", {"message": f"Said to the frozen {number}"})
    await devtools.send("Page.setWebLifecycleState", {"state": "active"})

    async def shown() -> bool:
        texts = await ana.get_by_role("log").get_by_test_id("message-text").all_inner_texts()
        return texts[-3:] == [f"Said to the frozen {number}" for number in range(3)]

    await eventually_told(shown, what="what was said to the frozen page, once and in order")
    assert set(await ana.evaluate("window.closes")) == {4201}
    await expect(seen_by_ben).to_be_visible()
