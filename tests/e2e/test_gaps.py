"""After a disconnect, each page shows the state that the API returns."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Page, expect

from kit.callers import Callers
from kit.serve import Smartlink
from kit.waiting import eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


@dataclass(frozen=True)
class Case:
    """A page, what changes while it is away, and how to read from it what the API says."""

    path: str
    change: Callable[[Callers], Awaitable[None]]
    shown: Callable[[Page], Awaitable[list[str]]]
    wanted: Callable[[Callers], Awaitable[list[str]]]


ANA, BEN = 1, 2


async def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in await page.locator(selector).all_inner_texts()]


async def say_to_all(call: Callers) -> None:
    for number in range(3):
        await call("ben", "POST", "/api/chat/messages", {"message": f"Meanwhile {number}"})


async def messages_shown(page: Page) -> list[str]:
    return await texts(page, "[role=log] [data-testid=message-text]")


async def say_to_ana(call: Callers) -> None:
    for number in range(2):
        await call("ben", "POST", "/api/chat/messages/private", {"recipient_id": ANA, "message": f"Only you {number}"})


async def be_noticed(call: Callers) -> None:
    await say_to_ana(call)
    [newest, *_] = await call("ana", "GET", "/api/notifications?unread=1")
    await call("ana", "POST", f"/api/notifications/{newest['id']}/read")


async def notifications_shown(page: Page) -> list[str]:
    rows = await page.locator("[data-testid^=notification-]").evaluate_all(
        "els => els.map(el => [el.querySelector('.text').innerText, el.classList.contains('unread')])"
    )
    return [f"{text} {'new' if is_unread else 'read'}" for text, is_unread in rows]


async def notifications_wanted(call: Callers) -> list[str]:
    rows = await call("ana", "GET", "/api/notifications")
    ordered = sorted(rows, key=lambda row: row["read_at"] is not None)
    return [f"{_told(row)} {'new' if row['read_at'] is None else 'read'}" for row in ordered]


def _told(row: dict[str, Any]) -> str:
    data = row["data"]
    if row["type"] == "private_message":
        return str(data["excerpt"])
    if row["type"] == "campaign_changed":
        return f"{data['by']['name']} activated this campaign"
    sign = "+" if row["type"] == "deposit" else "−"
    return f"{sign}€{float(data['amount']):,.2f}, balance €{float(data['balance']):,.2f}"


async def change_the_list(call: Callers) -> None:
    made = await call("ana", "POST", "/api/campaigns", {"name": "Made meanwhile", "budget": "10"})
    gone = await call("ana", "POST", "/api/campaigns", {"name": "Gone at once", "budget": "10"})
    await call("ana", "DELETE", f"/api/campaigns/{gone['id']}")
    await call("ana", "PATCH", "/api/campaigns/2", {"name": f"Renamed beside {made['id']}", "budget": "11.50"})


async def campaigns_shown(page: Page) -> list[str]:
    # In one look: a card may go between two.
    names, budgets = "el => el.querySelector('.name').innerText", "el => el.querySelector('.budget').innerText"
    cards = await page.locator("a[data-testid^=campaign-]").evaluate_all(
        f"els => els.map(el => [({names})(el), ({budgets})(el)])"
    )
    return [f"{name} {_digits(budget)}" for name, budget in cards]


async def change_one(call: Callers) -> None:
    await call("ana", "PUT", "/api/campaigns/1/budget", {"budget": "1234.50"})
    await call("ana", "POST", "/api/campaigns/1/deactivate")


async def campaign_shown(page: Page) -> list[str]:
    status = await page.get_by_test_id("campaign-status").inner_text()
    budget = await page.get_by_test_id("campaign-budget").inner_text()
    return [status, _digits(budget), str(await page.locator(".feed > li").count())]


async def campaign_wanted(call: Callers) -> list[str]:
    row = await call("ana", "GET", "/api/campaigns/1")
    status = {"draft": "Draft", "active": "Active", "inactive": "Stopped"}[row["status"]]
    return [status, row["budget"], str(len(await call("ana", "GET", "/api/campaigns/1/activity")))]


async def move_money(call: Callers) -> None:
    await call("ana", "POST", "/api/wallet/deposits", {"amount": "10.10"})
    await call("ana", "POST", "/api/wallet/withdrawals", {"amount": "0.20"})


async def wallet_shown(page: Page) -> list[str]:
    balance = await page.get_by_test_id("balance").inner_text()
    return [_digits(balance), *map(_digits, await texts(page, "[data-testid^=transaction-] .sum"))]


async def wallet_wanted(call: Callers) -> list[str]:
    rows = await call("ana", "GET", "/api/wallet/transactions")
    return [(await call("ana", "GET", "/api/wallet"))["balance"], *(row["amount"] for row in rows)]


def _digits(money: str) -> str:
    return re.sub(r"[^0-9.]", "", money)


def listed(path: str, words: Callable[[dict[str, Any]], str]) -> Callable[[Callers], Awaitable[list[str]]]:
    async def wanted(call: Callers) -> list[str]:
        return [words(row) for row in await call("ana", "GET", path)]

    return wanted


def _message(row: dict[str, Any]) -> str:
    return str(row["message"])


CASES = {
    "general chat": Case("/general", say_to_all, messages_shown, listed("/api/chat/messages", _message)),
    "direct": Case(f"/direct/{BEN}", say_to_ana, messages_shown, listed(f"/api/chat/messages/private/{BEN}", _message)),
    "campaigns": Case(
        "/campaigns", change_the_list, campaigns_shown, listed("/api/campaigns", lambda r: f"{r['name']} {r['budget']}")
    ),
    "one campaign": Case("/campaigns/1", change_one, campaign_shown, campaign_wanted),
    "wallet": Case("/wallet", move_money, wallet_shown, wallet_wanted),
    "notifications": Case("/notifications", be_noticed, notifications_shown, notifications_wanted),
}


@pytest.mark.parametrize("name", CASES)
async def test_events_during_a_disconnect_are_shown_afterwards(
    smartlink: Smartlink, call: Callers, sign_in: SignIn, name: str
) -> None:
    case = CASES[name]
    ana = await sign_in("ana")
    await ana.goto(smartlink.url + case.path)

    async def agrees() -> bool:
        return await case.shown(ana) == await case.wanted(call)

    await expect(ana.get_by_test_id("connection-state").first).to_have_text("Connected")
    await eventually_told(agrees, what="the page as loaded")
    before = await case.shown(ana)

    await ana.context.set_offline(True)
    await expect(ana.get_by_test_id("connection-banner")).to_be_visible()
    await case.change(call)
    assert await case.shown(ana) == before
    assert not await agrees()
    await ana.context.set_offline(False)

    await eventually_told(agrees, what=f"{await case.shown(ana)} is {await case.wanted(call)}")


async def test_pages_opened_during_an_outage_say_so_and_load_afterwards(smartlink: Smartlink, sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await ana.wait_for_load_state("networkidle")
    await ana.context.set_offline(True)
    await expect(ana.get_by_test_id("connection-banner")).to_contain_text(
        "Messages will be sent when you're back online."
    )

    await ana.get_by_test_id("nav-wallet").click()
    await expect(ana.get_by_text("Couldn't load your wallet.")).to_be_visible()
    await expect(ana.get_by_test_id("connection-banner")).to_contain_text("What you see may be out of date.")
    await ana.context.set_offline(False)
    await expect(ana.get_by_test_id("balance")).to_be_visible()

    await ana.context.set_offline(True)
    await expect(ana.get_by_test_id("connection-banner")).to_be_visible()
    await ana.get_by_test_id("nav-campaign").click()
    await expect(ana.get_by_text("Couldn't load campaigns.")).to_be_visible()
    await ana.context.set_offline(False)
    await expect(ana.get_by_test_id("campaign-1")).to_be_visible()


async def test_a_failed_action_is_shown_until_it_can_be_retried(
    smartlink: Smartlink, sign_in: SignIn, call: Callers
) -> None:
    await call.register("noah")
    await call("noah", "POST", "/api/wallet/deposits", {"amount": "5"})
    mine = (await call("noah", "POST", "/api/campaigns", {"name": "Mine", "budget": "5"}))["id"]
    noah = await sign_in("noah")
    campaign = await noah.context.new_page()
    await noah.goto(f"{smartlink.url}/notifications")
    await campaign.goto(f"{smartlink.url}/campaigns/{mine}")
    for page in (noah, campaign):
        await expect(page.get_by_test_id("connection-state")).to_have_text("Connected")
    await noah.context.set_offline(True)
    await noah.get_by_role("button", name="Mark as read").click()
    await expect(noah.get_by_role("alert").filter(has_text="Couldn't update your notifications.")).to_be_visible()
    await expect(noah.get_by_role("region", name="New").get_by_role("listitem")).to_have_count(1)
    await expect(noah.get_by_test_id("nav-bell").locator(".badge")).to_have_text("1")
    await campaign.get_by_test_id("activate").click()
    await expect(campaign.get_by_role("alert").filter(has_text="Can't reach SmartLink")).to_be_visible()
    await noah.context.set_offline(False)

    for page in (noah, campaign):
        await expect(page.get_by_role("main").get_by_role("alert")).to_have_count(0)
    await noah.get_by_role("button", name="Mark as read").click()
    await expect(noah.get_by_test_id("nav-bell").locator(".badge")).to_have_count(0)


async def test_a_chat_opened_during_an_outage_loads_afterwards(sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await expect(ana.get_by_test_id(f"conversation-{BEN}")).to_be_visible()
    await ana.context.set_offline(True)
    await ana.get_by_test_id(f"conversation-{BEN}").click()
    await expect(ana.get_by_role("heading", name="Couldn't load messages")).to_be_visible()
    await ana.context.set_offline(False)

    await expect(ana.get_by_role("log").get_by_role("listitem").first).to_be_visible()


async def test_a_page_whose_scripts_fail_to_load_says_so_and_opens_later(smartlink: Smartlink, sign_in: SignIn) -> None:
    admin = await sign_in("admin")
    await admin.context.set_offline(True)
    await admin.get_by_test_id("nav-admin").click()
    lost = admin.get_by_test_id("page-lost")
    await expect(lost).to_contain_text("Couldn't open this page.")
    await lost.get_by_role("button", name="Try again").click()
    await expect(lost).to_contain_text("Still can't reach SmartLink.")
    await admin.context.set_offline(False)
    await lost.get_by_role("button", name="Try again").click()

    await expect(admin.get_by_test_id("figure-connections")).to_be_visible()


async def test_admin_lists_opened_during_an_outage_load_afterwards(smartlink: Smartlink, sign_in: SignIn) -> None:
    admin = await sign_in("admin")
    await admin.goto(f"{smartlink.url}/admin")
    await admin.wait_for_load_state("networkidle")
    await admin.context.set_offline(True)
    await admin.get_by_role("link", name="Users").click()
    await expect(admin.get_by_role("alert").filter(has_text="Can't reach SmartLink")).to_be_visible()
    await admin.context.set_offline(False)

    await expect(admin.get_by_test_id(f"user-{ANA}")).to_be_visible()
