"""Pages in the browser's back/forward cache: leaving goes offline, returning comes back online."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from kit.callers import Callers
from kit.chromium import chromium
from kit.serve import Smartlink, running

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]
ANA = 1
NOTE_HOW_IT_COMES_BACK = """
addEventListener('pageshow', (event) => { window.cameBackWhole = event.persisted })
"""


@pytest.fixture(scope="module")
def smartlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smartlink]:
    """Silent clients are not ended here: a client that is gone has said so itself."""
    with running(tmp_path_factory.mktemp("smartlink"), reverb_app_ping_interval=3_600) as started:
        yield started


@pytest.fixture(scope="module")
def call(smartlink: Smartlink) -> Callers:
    return Callers(smartlink.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_browser() -> AsyncIterator[Browser]:
    async with chromium(keeps_left_pages=True) as started:
        yield started


async def test_leaving_for_another_site_goes_offline_and_returning_comes_back_online(
    smartlink: Smartlink, call: Callers, sign_in: SignIn
) -> None:
    ben, ana = await sign_in("ben"), await sign_in("ana")
    await ana.add_init_script(NOTE_HOW_IT_COMES_BACK)
    await ana.reload()
    seen_by_ben = ben.get_by_test_id(f"online-user-{ANA}")
    await expect(ana.get_by_test_id("connection-state").first).to_have_text("Connected")
    await expect(seen_by_ben).to_be_visible()

    await ana.goto(f"http://127.0.0.1:{smartlink.realtime_port}/up")
    await expect(seen_by_ben).to_have_count(0)
    await call("ben", "POST", "/api/chat/messages", {"message": "Said while Ana was elsewhere"})
    await ana.go_back(wait_until="commit")

    await expect(ana.get_by_role("log")).to_contain_text("Said while Ana was elsewhere")
    assert await ana.evaluate("window.cameBackWhole") is True
    await expect(seen_by_ben).to_be_visible()
    await call("ben", "POST", "/api/chat/messages", {"message": "Said when she was back"})
    await expect(ana.get_by_role("log")).to_contain_text("Said when she was back")


async def test_a_restored_page_notices_a_sign_in_as_another_account(smartlink: Smartlink, sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await ana.goto(f"http://127.0.0.1:{smartlink.realtime_port}/up")
    other = await ana.context.new_page()
    await ana.context.clear_cookies()
    await other.goto(smartlink.url)
    await other.get_by_test_id("login-email").fill("ben@example.com")
    await other.get_by_test_id("login-password").fill("password")
    await other.get_by_test_id("login-submit").click()
    await expect(other.get_by_test_id("account-menu")).to_contain_text("Ben")

    await ana.go_back(wait_until="commit")

    await expect(ana.get_by_test_id("account-menu")).to_contain_text("Ben")
