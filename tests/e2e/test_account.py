"""The account page: name, e-mail, password, tokens, and signing out everywhere."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from kit.callers import Callers
from kit.serve import Smartlink
from kit.waiting import LIMIT_S

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


async def open_account(page: Page) -> None:
    await page.get_by_test_id("account-menu").click()
    await page.get_by_test_id("account-open").click()
    await expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def problem(page: Page, text: str) -> Locator:
    return page.get_by_role("alert").filter(has_text=text)


async def test_an_account_is_created_once_even_if_the_response_is_lost(browser: Browser, smartlink: Smartlink) -> None:
    page = await browser.new_page()

    async def lost(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/api/register", lost, times=1)
    await page.goto(f"{smartlink.url}/register")
    await page.get_by_test_id("login-name").fill("Ruth")
    await page.get_by_test_id("login-email").fill("ana@example.com")
    await page.get_by_test_id("login-password").fill("somebody else")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("login-error")).to_be_visible()
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_text("The email has already been taken.")).to_be_visible()

    await page.route("**/api/register", lost, times=1)
    await page.get_by_test_id("login-email").fill("ruth@example.com")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("login-error")).to_be_visible()
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("account-menu")).to_contain_text("Ruth")
    await page.context.clear_cookies()

    async with page.expect_response("**/api/logout"):
        await page.goto(f"{smartlink.url}/register")
        await page.get_by_test_id("login-name").fill("Rita")
        await page.get_by_test_id("login-email").fill("rita@example.com")
        await page.get_by_test_id("login-password").fill("password")
        await page.get_by_test_id("login-submit").click()
        await open_account(page)
    await page.reload()
    await expect(page.get_by_text("No tokens yet.")).to_be_visible()


async def test_name_and_email_can_be_changed_and_errors_are_shown(call: Callers, sign_in: SignIn) -> None:
    await call.register("nora", "Nora")
    nora = await sign_in("nora")
    await open_account(nora)
    await nora.get_by_test_id("profile-name").fill("  ")
    await nora.get_by_test_id("profile-save").click()
    await expect(problem(nora, "Enter the name others will see.")).to_be_visible()
    await nora.get_by_test_id("profile-name").fill("Nora <b>B</b>")
    await nora.get_by_test_id("profile-email").fill("ana@example.com")
    await nora.get_by_test_id("profile-save").click()
    await expect(problem(nora, "Enter your password to change your email.")).to_be_visible()
    await nora.get_by_test_id("profile-password").fill("not this one")
    await nora.get_by_test_id("profile-save").click()
    await expect(problem(nora, "The current password is incorrect.")).to_be_visible()
    await nora.get_by_test_id("profile-password").fill("password")
    await nora.get_by_test_id("profile-save").click()
    await expect(problem(nora, "The email has already been taken.")).to_be_visible()

    await nora.get_by_test_id("profile-email").fill("Nora.B@example.com")
    await nora.get_by_test_id("profile-save").click()

    await expect(nora.get_by_test_id("profile-form")).to_contain_text("Saved.")
    await expect(nora.get_by_test_id("account-menu")).to_contain_text("Nora <b>B</b>")
    now = await call("nora", "GET", "/api/user")
    assert (now["name"], now["email"]) == ("Nora <b>B</b>", "nora.b@example.com")


async def test_a_new_name_is_seen_by_others_at_once_and_after_a_gap(call: Callers, sign_in: SignIn) -> None:
    nils = await call.register("nils", "Nils")
    await call("nils", "POST", "/api/chat/messages", {"message": "Hello from the north"})
    await call("nils", "POST", "/api/chat/messages/private", {"recipient_id": 1, "message": "Only for Ana"})
    await sign_in("nils")
    ana = await sign_in("ana")
    said = ana.get_by_role("log").get_by_role("listitem").filter(has_text="Hello from the north")
    conversation = ana.get_by_test_id(f"conversation-{nils}")
    await expect(said).to_contain_text("Nils")
    await expect(conversation).to_contain_text("Nils")

    await call("nils", "PATCH", "/api/user", {"name": "Klaus"})
    for shown in (said, conversation):
        await expect(shown).to_contain_text("Klaus")

    await ana.context.set_offline(True)
    await expect(ana.get_by_test_id("connection-banner")).to_be_visible()
    await call("nils", "PATCH", "/api/user", {"name": "Otto"})
    await ana.context.set_offline(False)
    for shown in (said, conversation):
        await expect(shown).to_contain_text("Otto")
    ben = await sign_in("ben")
    for page in (ana, ben):
        await expect(page.get_by_test_id(f"online-user-{nils}")).to_contain_text("Otto")


async def test_a_new_password_ends_other_sessions_and_this_page_reconnects(call: Callers, sign_in: SignIn) -> None:
    await call.register("pam")
    here, there = await sign_in("pam"), await sign_in("pam")
    await open_account(here)
    for current, wanted, again, told in (
        ("", "long enough", "long enough", "Enter your current password."),
        ("password", "short", "short", "Use at least 8 characters."),
        ("password", "long enough", "long enougg", "The passwords don't match."),
        ("wrong one", "long enough", "long enough", "The current password is incorrect."),
    ):
        await here.get_by_test_id("password-current").fill(current)
        await here.get_by_test_id("password-new").fill(wanted)
        await here.get_by_test_id("password-again").fill(again)
        await here.get_by_test_id("password-save").click()
        await expect(problem(here, told)).to_be_visible()

    await here.get_by_test_id("password-current").fill("password")
    await here.get_by_test_id("password-save").click()

    await expect(here.get_by_text("Password changed. You were signed out everywhere else.")).to_be_visible()
    await expect(there.get_by_text("Your session has expired.")).to_be_visible()
    await expect(here.get_by_test_id("connection-state")).to_have_text("Connected")
    await here.get_by_test_id("nav-chat").click()
    await call("ben", "POST", "/api/chat/messages", {"message": "Pam, still there?"})
    await expect(here.get_by_role("log")).to_contain_text("Pam, still there?")


async def test_a_token_is_shown_once_works_and_is_revoked(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    await call.register("tess")
    tess = await sign_in("tess")
    await tess.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await open_account(tess)
    await tess.get_by_test_id("token-create").click()
    await expect(problem(tess, "Enter a name, such as the app that will use it.")).to_be_visible()
    await tess.get_by_test_id("token-name").fill("<i>robot</i>")
    await tess.get_by_test_id("token-until").fill("2020-01-01")
    await tess.get_by_test_id("token-create").click()
    await expect(problem(tess, "Choose a date in the future.")).to_be_visible()
    await tess.get_by_test_id("token-until").fill("2051-01-01")
    await tess.get_by_test_id("token-create").click()

    await tess.get_by_test_id("token-copy").click()
    await expect(tess.get_by_test_id("token-copy")).to_contain_text("Copied")
    secret = await tess.evaluate("navigator.clipboard.readText()")
    assert secret == await tess.get_by_test_id("token-secret").input_value()
    assert _status(smartlink, secret) == 200
    row = tess.get_by_role("list", name="Personal tokens").get_by_role("listitem").filter(has_text="<i>robot</i>")
    await expect(row).to_contain_text("Expires")
    await tess.reload()
    await expect(row).to_have_count(1)
    await expect(tess.get_by_test_id("token-secret")).to_have_count(0)

    await row.get_by_test_id("token-revoke").click()
    await tess.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(row.get_by_test_id("token-revoke")).to_be_focused()
    assert _status(smartlink, secret) == 200
    await row.get_by_test_id("token-revoke").click()
    await tess.get_by_test_id("confirm").click()
    await expect(row).to_have_count(0)
    assert _status(smartlink, secret) == 401


async def test_signing_out_everywhere_ends_every_browser(call: Callers, sign_in: SignIn) -> None:
    await call.register("otto")
    here, there = await sign_in("otto"), await sign_in("otto")
    await open_account(here)
    await here.get_by_test_id("everywhere").click()
    await here.get_by_test_id("confirm").click()

    for page in (here, there):
        await expect(page.get_by_role("heading", name="Sign in to SmartLink")).to_be_visible()


async def test_a_failed_sign_out_is_reported(sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await ana.context.set_offline(True)
    await ana.get_by_test_id("account-menu").click()
    await ana.get_by_test_id("sign-out").click()
    told = ana.get_by_test_id("sign-out-problem")
    await expect(told).to_contain_text("You're still signed in.")
    await ana.context.set_offline(False)
    await told.get_by_role("button", name="Try again").click()

    await expect(ana.get_by_role("heading", name="Sign in to SmartLink")).to_be_visible()


async def test_the_chosen_appearance_survives_a_reload(sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await open_account(ana)
    await ana.get_by_label("Dark", exact=True).check()
    await ana.reload()

    await expect(ana.locator("html")).to_have_attribute("data-theme", re.compile("dark"))
    await expect(ana.get_by_label("Dark", exact=True)).to_be_checked()


def _status(smartlink: Smartlink, token: str) -> int:
    request = urllib.request.Request(f"{smartlink.url}/api/user", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
