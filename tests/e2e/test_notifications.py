"""Live notifications: toasts, badges, other tabs, and text that is never interpreted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from playwright.async_api import Locator, Page, Route, expect

from kit.callers import Callers
from kit.serve import Smartlink
from kit.waiting import eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


INERT = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'

ASKED = """
window.asked = 0
window.Notification = class { static permission = 'default'
  static async requestPermission() { window.asked += 1; return (Notification.permission = 'granted') } }
"""

#: A page that is in the background once it is told so; what the browser shows for it, and what it takes back.
IN_THE_BACKGROUND = """
window.told = []
window.Notification = class { static permission = 'granted'
  constructor(title, { body }) { this.words = `${title}: ${body}`; window.told.push(this.words) }
  close() { window.told = window.told.filter((words) => words !== this.words) } }
Object.defineProperty(document, 'hidden', { get: () => window.isBehind === true })
"""


def badge(page: Page) -> Locator:
    return page.get_by_test_id("nav-bell").locator(".badge")


def toast(page: Page, text: str) -> Locator:
    return page.get_by_test_id("toast").filter(has_text=text)


async def unread(call: Callers, who: str) -> int:
    return len(await call(who, "GET", "/api/notifications?unread=1"))


async def all_read(call: Callers, who: str) -> bool:
    """The page shows it before the answer is there."""
    return await unread(call, who) == 0


async def test_a_change_of_ones_campaign_shows_a_toast_that_links_to_it(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    ana = await sign_in("ana")
    before = await unread(call, "ana")
    await ana.goto(f"{smartlink.url}/wallet")
    await expect(badge(ana)).to_have_text(str(before))

    await call("admin", "POST", "/api/campaigns/2/activate")

    await expect(toast(ana, "Summer newsletter")).to_contain_text("Admin activated this campaign")
    await expect(badge(ana)).to_have_text(str(before + 1))
    await toast(ana, "Summer newsletter").get_by_role("button").first.click()
    await expect(ana.get_by_test_id("campaign-status")).to_have_text("Active")
    await expect(badge(ana)).to_have_text(str(before))


async def test_a_toast_stays_while_hovered_or_focused(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    ana = await (await sign_in("ana")).context.new_page()
    await ana.clock.install()
    await ana.goto(f"{smartlink.url}/campaigns")
    await expect(ana.get_by_test_id("connection-state")).to_have_text("Connected")
    await call("ana", "POST", "/api/wallet/deposits", {"amount": "3"})
    await toast(ana, "Deposit received").hover()

    await ana.clock.fast_forward(10_000)
    await expect(toast(ana, "Deposit received")).to_be_visible()
    await ana.mouse.move(5, 700)
    await ana.clock.fast_forward(7_000)
    await expect(toast(ana, "Deposit received")).to_have_count(0)


async def test_marking_all_as_read_updates_every_tab(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    ana = await sign_in("ana")
    other = await ana.context.new_page()
    for page in (ana, other):
        await page.goto(f"{smartlink.url}/notifications")
    await call("ana", "POST", "/api/wallet/deposits", {"amount": "1"})
    for page in (ana, other):
        await expect(badge(page)).to_have_text(str(await unread(call, "ana")))

    await ana.get_by_test_id("read-all").click()

    for page in (ana, other):
        await expect(badge(page)).to_have_count(0)
        await expect(page.get_by_role("region", name="New")).to_have_count(0)
    await eventually_told(partial(all_read, call, "ana"))


async def test_other_users_names_and_texts_are_shown_as_text(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    await call.register("eve", f"Eve {INERT}")
    made = await call("ana", "POST", "/api/campaigns", {"name": f"Sale {INERT}", "budget": "5"})
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/notifications")
    await expect(ana.get_by_test_id("connection-state")).to_have_text("Connected")

    await call("eve", "POST", "/api/chat/messages/private", {"recipient_id": 1, "message": f"Hello {INERT}"})
    await call("admin", "POST", f"/api/campaigns/{made['id']}/activate")

    for words in ("Hello <img", "Sale <img"):
        row = ana.get_by_role("listitem").filter(has_text=words)
        await expect(row).to_have_count(1)
        for place in (row, toast(ana, words)):
            assert await place.locator("img, script").count() == 0
    assert await ana.evaluate("window.hacked") is None


async def test_notification_permission_is_requested_only_after_a_click(sign_in: SignIn, smartlink: Smartlink) -> None:
    ana = await (await sign_in("ana")).context.new_page()
    await ana.add_init_script(ASKED)
    await ana.goto(f"{smartlink.url}/notifications")
    allow = ana.get_by_role("button", name="Notify me")
    await expect(allow).to_be_visible()
    assert await ana.evaluate("window.asked") == 0

    await allow.click()

    await expect(allow).to_have_count(0)
    assert await ana.evaluate("window.asked") == 1


async def test_browser_notifications_appear_only_if_no_visible_page_shows_them(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    hugo = await call.register("hugo")
    context = (await sign_in("hugo")).context
    await context.pages[0].close()
    behind, before = await context.new_page(), await context.new_page()
    for page in (behind, before):
        await page.add_init_script(IN_THE_BACKGROUND)
        await page.goto(f"{smartlink.url}/campaigns")
        await expect(page.get_by_test_id("connection-state")).to_have_text("Connected")
    await behind.evaluate("window.isBehind = true")

    await call("hugo", "POST", "/api/wallet/deposits", {"amount": "1"})
    await expect(toast(before, "€1.00")).to_be_visible()
    await expect(toast(behind, "€1.00")).to_be_visible()
    await before.evaluate("window.isBehind = true")
    await call("ben", "POST", "/api/chat/messages/private", {"recipient_id": hugo, "message": "Anybody?"})
    for page in (behind, before):
        await page.wait_for_function("() => window.told.length > 0")
        assert await page.evaluate("window.told") == ["Ben: Anybody?"]

    await before.evaluate("window.isBehind = false")
    await before.goto(f"{smartlink.url}/direct/2")
    await behind.wait_for_function("() => window.told.length === 0")


async def test_a_list_that_fails_to_load_says_so_and_can_be_retried(sign_in: SignIn, smartlink: Smartlink) -> None:
    ana = await (await sign_in("ana")).context.new_page()
    # Without a connection, since the page also loads the list again when it connects.
    await ana.route(re.compile("/api/realtime"), lambda route: route.abort())
    await ana.route(re.compile("/api/notifications"), lambda route: route.fulfill(status=503, body="{}"))
    await ana.goto(f"{smartlink.url}/notifications")
    await expect(ana.get_by_text("Couldn't load your notifications.")).to_be_visible()

    await ana.unroute(re.compile("/api/notifications"))
    await ana.get_by_role("button", name="Try again").click()
    await expect(
        ana.get_by_role("main").get_by_role("listitem").filter(has_text="Deposit received").first
    ).to_be_visible()


async def test_a_notification_that_arrives_during_loading_is_in_the_list(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    await call.register("lea")
    lea = await (await sign_in("lea")).context.new_page()
    listens = asyncio.Event()

    def heard(frame: str | bytes) -> None:
        if "subscription_succeeded" in str(frame) and "private-user" in str(frame):
            listens.set()

    async def overtaken(route: Route) -> None:
        answer = await route.fetch()
        await listens.wait()
        await call("lea", "POST", "/api/wallet/deposits", {"amount": "9"})
        await expect(toast(lea, "€9.00")).to_be_visible()
        await route.fulfill(response=answer)

    lea.on("websocket", lambda socket: socket.on("framereceived", heard))
    await lea.route(re.compile("/api/notifications"), overtaken, times=1)
    async with lea.expect_response(re.compile("/api/notifications")):
        await lea.goto(f"{smartlink.url}/notifications")

    await expect(lea.get_by_role("region", name="New").get_by_role("listitem")).to_have_count(1)
    await expect(badge(lea)).to_have_text("1")
    await expect(toast(lea, "€9.00")).to_have_count(1)


async def test_older_notifications_load_on_request_and_failures_are_shown(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    await call.register("mona")
    for _ in range(52):
        await call("mona", "POST", "/api/wallet/deposits", {"amount": "1"})
    mona = await sign_in("mona")
    await mona.goto(f"{smartlink.url}/notifications")
    rows = mona.get_by_role("region", name="New").get_by_role("listitem")
    older = mona.get_by_role("button", name="Load more")
    await expect(rows).to_have_count(50)

    await mona.route(re.compile("before="), lambda route: route.fulfill(status=503, body="{}"), times=1)
    await older.click()
    await expect(mona.get_by_role("alert").filter(has_text="busy or restarting")).to_be_visible()
    await older.click()

    await expect(rows).to_have_count(52)
    await expect(mona.get_by_role("main").get_by_role("alert")).to_have_count(0)


async def test_focus_moves_to_the_next_notification_after_reading_one(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    await call.register("kay")
    for amount in ("1", "2"):
        await call("kay", "POST", "/api/wallet/deposits", {"amount": amount})
    kay = await sign_in("kay")
    await kay.goto(f"{smartlink.url}/notifications")
    buttons = kay.get_by_role("button", name="Mark as read: Deposit received")
    await expect(buttons).to_have_count(2)
    await buttons.first.focus()
    await kay.keyboard.press("Enter")
    await expect(buttons).to_have_count(1)
    await expect(buttons).to_be_focused()
    await kay.keyboard.press("Enter")
    await expect(buttons).to_have_count(0)

    assert await kay.evaluate("document.activeElement !== document.body")
    await eventually_told(partial(all_read, call, "kay"))
