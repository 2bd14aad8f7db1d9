"""Two accounts in one browser: a page shows one account and never acts for another."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from kit.callers import Callers
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

BEN = 2


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


async def sign_in_here(page: Page, who: str) -> None:
    await page.get_by_test_id("login-email").fill(f"{who}@example.com")
    await page.get_by_test_id("login-password").fill("password")
    await page.get_by_test_id("login-submit").click()


async def shows(page: Page, name: str) -> None:
    await expect(page.get_by_test_id("account-menu")).to_contain_text(name)


async def connected(page: Page) -> None:
    await expect(page.get_by_test_id("connection-state").first).to_have_text("Connected")


async def apart(browser: Browser) -> BrowserContext:
    """A browser whose tabs do not hear of each other, nor by what a page reports by itself while it is looked at."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    await context.add_init_script("delete window.BroadcastChannel")
    await context.route("**/api/chat/read", lambda route: route.abort())
    return context


async def test_a_sign_in_as_another_account_updates_the_other_tab(browser: Browser, smartlink: Smartlink) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    first, second = await context.new_page(), await context.new_page()
    for page in (first, second):
        await page.goto(smartlink.url)
    await sign_in_here(first, "ben")
    await shows(first, "Ben")
    await expect(second.get_by_test_id("signed-in-elsewhere")).to_contain_text("Ben just signed in on another tab.")

    await sign_in_here(second, "admin")

    await shows(second, "Admin")
    await expect(first.get_by_test_id("switched")).to_contain_text("You are now signed in as Admin instead of Ben.")
    await shows(first, "Admin")
    await first.get_by_role("button", name="OK").click()
    await expect(first.get_by_test_id("switched")).to_have_count(0)
    await context.close()


async def test_a_tab_at_the_sign_in_form_picks_up_another_tabs_session(browser: Browser, smartlink: Smartlink) -> None:
    context = await browser.new_context()
    first, second = await context.new_page(), await context.new_page()
    for page in (first, second):
        await page.goto(f"{smartlink.url}/wallet")
    await sign_in_here(first, "ben")
    await second.get_by_role("button", name="Continue as Ben").click()

    await shows(second, "Ben")
    await expect(second.get_by_role("heading", name="Wallet")).to_be_visible()
    await context.close()


@pytest.mark.parametrize("what", ["draft", "message"])
async def test_one_accounts_input_is_never_shown_or_sent_as_anothers(
    browser: Browser, smartlink: Smartlink, call: Callers, what: str
) -> None:
    who, text = f"bill-{what}", f"Written by Bill, a {what}"
    await call.register(who, "Bill")
    context = await apart(browser)
    first, second = await context.new_page(), await context.new_page()
    for page in (first, second):
        await page.goto(smartlink.url)
    await sign_in_here(first, who)
    await connected(first)
    await sign_in_here(second, "admin")
    await shows(second, "Admin")
    await shows(first, "Bill")
    if what == "message":
        # Else the first key tells the page already.
        await first.route("**/api/chat/typing", lambda route: route.abort())

    await first.get_by_test_id("composer-input").fill(text)
    if what == "message":
        await first.get_by_test_id("composer-input").press("Enter")

    await expect(first.get_by_test_id("switched")).to_contain_text("signed in as Admin instead of Bill")
    await shows(first, "Admin")
    await expect(first.get_by_role("log").get_by_role("listitem").first).to_be_visible()
    await expect(first.get_by_text(text)).to_have_count(0)
    assert await first.get_by_test_id("composer-input").input_value() == ""
    assert text not in [row["message"] for row in await call("ben", "GET", "/api/chat/messages")]

    await first.get_by_test_id("account-menu").click()
    await first.get_by_test_id("sign-out").click()
    await sign_in_here(first, who)
    await shows(first, "Bill")
    if what == "draft":
        await expect(first.get_by_test_id("composer-input")).to_have_value(text)
        await context.close()
        return
    mine = first.get_by_role("log").get_by_role("listitem").filter(has_text=text)
    await expect(mine.locator("[data-status=sent]")).to_have_count(1)
    sent = [row for row in await call("ben", "GET", "/api/chat/messages") if row["message"] == text]
    assert [row["user"]["name"] for row in sent] == ["Bill"]
    await context.close()


@pytest.mark.parametrize("act", ["deposit", "export"])
async def test_transactions_apply_only_to_the_account_on_the_page(
    browser: Browser, smartlink: Smartlink, call: Callers, act: str
) -> None:
    before = await call("admin", "GET", "/api/wallet")
    context = await apart(browser)
    first, second = await context.new_page(), await context.new_page()
    await first.goto(f"{smartlink.url}/wallet")
    await sign_in_here(first, "ben")
    await connected(first)
    await expect(first.get_by_test_id("balance")).to_be_visible()
    asked: list[str] = []

    async def only_what_is_tried(route: Route) -> None:
        """What the page asks by itself would tell it already."""
        if re.search(r"/deposits|\.csv", route.request.url):
            asked.append(route.request.url)
        await (route.continue_() if asked else route.abort())

    await first.route(re.compile("/(api|broadcasting)/"), only_what_is_tried)
    await context.clear_cookies()
    await second.goto(smartlink.url)
    await sign_in_here(second, "admin")
    await shows(second, "Admin")
    files: list[object] = []
    first.on("download", lambda download: files.append(download))

    await first.get_by_test_id("amount").fill("12.50")
    await first.get_by_test_id(act).click()

    await expect(first.get_by_test_id("switched")).to_contain_text("signed in as Admin instead of Ben")
    assert await call("admin", "GET", "/api/wallet") == before
    assert files == []
    await context.close()


async def test_signing_out_ends_only_the_session_of_the_account_on_the_page(
    browser: Browser, smartlink: Smartlink
) -> None:
    context = await apart(browser)
    first, second = await context.new_page(), await context.new_page()
    for page in (first, second):
        await page.goto(smartlink.url)
    await sign_in_here(first, "ben")
    await shows(first, "Ben")
    await sign_in_here(second, "admin")
    await shows(second, "Admin")

    await first.get_by_test_id("account-menu").click()
    await first.get_by_test_id("sign-out").click()

    await shows(first, "Admin")
    await second.reload()
    await shows(second, "Admin")
    await context.close()


async def test_a_reconnecting_page_does_not_subscribe_as_another_account(
    browser: Browser, smartlink: Smartlink, call: Callers
) -> None:
    context = await apart(browser)
    first, second = await context.new_page(), await context.new_page()
    for page in (first, second):
        await page.goto(smartlink.url)
    await sign_in_here(first, "ben")
    await connected(first)
    await sign_in_here(second, "admin")
    await shows(second, "Admin")

    await call("admin", "POST", f"/api/admin/users/{BEN}/disconnect")

    await expect(first.get_by_test_id("switched")).to_contain_text("signed in as Admin instead of Ben")
    await context.close()


async def test_after_a_session_ended_tabs_follow_the_same_account_only(
    browser: Browser, smartlink: Smartlink, call: Callers
) -> None:
    await call.register("bea", "Bea")
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    first, second = await context.new_page(), await context.new_page()
    await first.goto(f"{smartlink.url}/wallet")
    await sign_in_here(first, "bea")
    await connected(first)
    await second.goto(f"{smartlink.url}/campaigns")
    await connected(second)
    await call("bea", "POST", "/api/logout/everywhere")
    for page in (first, second):
        await expect(page.get_by_text("Your session has expired.")).to_be_visible()

    await sign_in_here(first, "bea")
    await expect(first.get_by_role("heading", name="Wallet")).to_be_visible()
    await expect(second.get_by_role("heading", name="Campaigns")).to_be_visible()
    await connected(first)
    await connected(second)

    await first.get_by_test_id("account-menu").click()
    await first.get_by_test_id("sign-out").click()
    await sign_in_here(first, "admin")
    await second.get_by_role("button", name="Continue as Admin").click()
    for page in (first, second):
        await shows(page, "Admin")
        # Where the former account was is nowhere for this one.
        await expect(page.get_by_role("textbox", name="Message to General")).to_be_visible()
    await context.close()
