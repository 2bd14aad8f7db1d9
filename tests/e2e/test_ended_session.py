"""When a session ends, drafts are restored for their account, and shown to no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from playwright.async_api import Locator, Page, Route, expect

from kit.callers import Callers
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]
WORDS = "All of it,\npasted at once"


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


@dataclass(frozen=True)
class Form:
    """Where something is written, what, and what then asks the server."""

    path: str
    field: str
    written: str
    asks: str | None
    """What asks the server; None where writing itself does."""
    opens: str | None = None
    is_for_admins: bool = False


FORMS = {
    "general chat": Form("/general", "#composer", WORDS, asks=None),
    "direct": Form("/direct/2", "#composer", WORDS, asks=None),
    "new campaign": Form("/campaigns", "#campaign-description", WORDS, "campaign-save", opens="campaign-new"),
    "campaign": Form("/campaigns/3", "#campaign-description", WORDS, "campaign-save", "edit", is_for_admins=True),
    "profile": Form("/account", "#profile-name", "Another name", "profile-save"),
    "token": Form("/account", "#token-name", "robot", "token-create"),
    "wallet": Form("/wallet", "#amount", "12.50", "deposit"),
    "test event": Form("/admin/console", "#event-data", '{"a": 1}', "event-send", is_for_admins=True),
}


async def write(page: Page, form: Form) -> Locator:
    """Open the form and write into it."""
    field = page.locator(form.field)
    if form.opens is not None:
        await page.get_by_test_id(form.opens).click()
    if form.opens == "campaign-new":
        await page.locator("#campaign-name").fill("Summer")
        await page.locator("#campaign-budget").fill("5")
    if form.field == "#event-data":
        await page.locator("#event-channel").fill("chat")
        await page.locator("#event-name").fill("Something")
    await field.fill(form.written)
    return field


async def sign_in_here(page: Page, who: str) -> None:
    await page.get_by_test_id("login-email").fill(f"{who}@example.com")
    await page.get_by_test_id("login-password").fill("password")
    await page.get_by_test_id("login-submit").click()


async def connected(page: Page) -> None:
    await expect(page.get_by_test_id("connection-state").first).to_have_text("Connected")


@pytest.mark.parametrize("name", FORMS)
async def test_a_draft_is_restored_after_signing_in_again(
    smartlink: Smartlink, call: Callers, sign_in: SignIn, name: str
) -> None:
    form = FORMS[name]
    who = "admin" if form.is_for_admins else name.replace(" ", "-")
    if not form.is_for_admins:
        await call.register(who, "Kim")
    page = await sign_in(who)
    await page.goto(smartlink.url + form.path)
    await connected(page)

    async def end_with_a_change(route: Route) -> None:
        if route.request.method != "GET":
            await page.context.clear_cookies()
        await route.continue_()

    await page.route("**/api/**", end_with_a_change)
    field = await write(page, form)
    if form.asks is not None:
        await page.get_by_test_id(form.asks).click()
    await expect(page.get_by_text("Your session has expired.")).to_be_visible()
    await page.unroute_all()

    await sign_in_here(page, who)

    await expect(field).to_have_value(form.written)
    assert page.url == smartlink.url + form.path


@pytest.mark.parametrize("name", ["general chat", "new campaign"])
async def test_one_accounts_draft_is_not_shown_to_another(
    smartlink: Smartlink, call: Callers, sign_in: SignIn, name: str
) -> None:
    form, who = FORMS[name], f"lou-{name.replace(' ', '-')}"
    await call.register(who, "Lou")
    page = await sign_in(who)
    await page.goto(smartlink.url + form.path)
    await connected(page)
    field = await write(page, form)
    await call(who, "POST", "/api/logout/everywhere")
    await expect(page.get_by_text("Your session has expired.")).to_be_visible()

    await sign_in_here(page, "ben")
    await expect(page.get_by_test_id("account-menu")).to_contain_text("Ben")
    await page.goto(smartlink.url + form.path)
    await connected(page)
    if form.opens is None:
        await expect(field).to_have_value("")
    else:
        await expect(field).to_have_count(0)
    await page.get_by_test_id("account-menu").click()
    await page.get_by_test_id("sign-out").click()
    await sign_in_here(page, who)
    await expect(page.get_by_test_id("account-menu")).to_contain_text("Lou")
    await page.goto(smartlink.url + form.path)

    await expect(field).to_have_value(form.written)
    if form.opens is not None:
        await page.get_by_role("button", name="Cancel").click()
        await page.reload()
        await connected(page)
        await expect(field).to_have_count(0)
