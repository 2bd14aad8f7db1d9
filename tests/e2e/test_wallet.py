"""The wallet: deposits, withdrawals, errors, the export, and a second tab."""

from __future__ import annotations

import csv
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, Route, expect

from kit.callers import Callers
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


def balance(page: Page) -> Locator:
    return page.get_by_test_id("balance")


def money(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text) + "$")


@pytest_asyncio.fixture(loop_scope="module")
async def wallet(smartlink: Smartlink, sign_in: SignIn) -> Page:
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/wallet")
    await expect(balance(ana)).to_be_visible()
    return ana


async def move(page: Page, amount: str, how: str) -> None:
    await page.get_by_test_id("amount").fill(amount)
    await page.get_by_test_id(how).click()


async def test_deposits_and_withdrawals_show_in_every_tab(call: Callers, wallet: Page, smartlink: Smartlink) -> None:
    other = await wallet.context.new_page()
    await other.goto(f"{smartlink.url}/wallet")
    before = float((await call("ana", "GET", "/api/wallet"))["balance"])
    await expect(balance(other)).to_have_text(money(f"{before:.2f}"))

    await move(wallet, "12,50", "deposit")
    for page in (wallet, other):
        await expect(balance(page)).to_have_text(money(f"{before + 12.5:.2f}"))
    await move(wallet, "2.5", "withdraw")
    for page in (wallet, other):
        await expect(balance(page)).to_have_text(money(f"{before + 10:.2f}"))
        await expect(page.locator("[data-testid^=transaction-] .what").first).to_have_text("Withdrawal")
    assert float((await call("ana", "GET", "/api/wallet"))["balance"]) == before + 10


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        ("", "Enter an amount above zero"),
        ("0", "Enter an amount above zero"),
        ("-5", "Enter an amount above zero"),
        ("1.234", "Enter an amount above zero"),
        ("<b>1</b>", "Enter an amount above zero"),
        ("99999999", "Insufficient balance."),
    ],
)
async def test_an_invalid_amount_is_shown_at_its_field(call: Callers, wallet: Page, amount: str, told: str) -> None:
    before = await call("ana", "GET", "/api/wallet")

    await move(wallet, amount, "withdraw")

    await expect(wallet.get_by_role("alert").filter(has_text=told)).to_be_visible()
    await expect(wallet.get_by_test_id("amount")).to_have_attribute("aria-invalid", "true")
    assert await call("ana", "GET", "/api/wallet") == before


async def test_the_export_contains_the_filtered_transactions(call: Callers, wallet: Page, tmp_path: Path) -> None:
    await wallet.get_by_test_id("filter-type").select_option("deposit")
    await expect(wallet.locator("[data-testid^=transaction-].withdrawal")).to_have_count(0)
    async with wallet.expect_download() as coming:
        await wallet.get_by_test_id("export").click()
    file = tmp_path / "transactions.csv"
    await (await coming.value).save_as(file)

    rows = list(csv.DictReader(file.read_text().splitlines()))
    wanted = await call("ana", "GET", "/api/wallet/transactions?type=deposit")
    assert [(row["id"], row["amount"], row["balance_after"]) for row in rows] == [
        (str(row["id"]), row["amount"], row["balance_after"]) for row in reversed(wanted)
    ]


async def test_an_invalid_date_range_is_shown_without_a_request(call: Callers, wallet: Page) -> None:
    asked: list[str] = []
    wallet.on("request", lambda request: asked.append(request.url))
    await wallet.get_by_label("To").fill("2026-01-01")
    await expect(wallet.get_by_text("No results.")).to_be_visible()
    await wallet.get_by_label("From").fill("2026-12-31")
    await expect(wallet.get_by_text("The end date is before the start date.")).to_be_visible()
    await expect(wallet.get_by_test_id("export")).to_have_count(0)

    before = float((await call("ana", "GET", "/api/wallet"))["balance"])
    await call("ana", "POST", "/api/wallet/deposits", {"amount": "1"})
    async with wallet.expect_response("**/api/wallet"):
        await expect(balance(wallet)).to_have_text(money(f"{before + 1:.2f}"))
    assert [url for url in asked if "since=2026-12-3" in url and "until=" in url] == []


async def test_older_transactions_match_the_filter_and_stay(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    await call.register("olga")
    for _ in range(53):
        await call("olga", "POST", "/api/wallet/deposits", {"amount": "2"})
    await call("olga", "POST", "/api/wallet/withdrawals", {"amount": "1"})
    olga = await sign_in("olga")
    await olga.goto(f"{smartlink.url}/wallet")
    rows = olga.locator("[data-testid^=transaction-]")
    older = olga.get_by_role("button", name="Load more")
    await expect(rows).to_have_count(50)

    # The older ones come late: by then the reader wants to see something else.
    held: list[Route] = []
    await olga.route(re.compile("/transactions.*before="), lambda route: held.append(route), times=1)
    await older.click()
    await olga.get_by_test_id("filter-type").select_option("withdrawal")
    await expect(rows).to_have_count(1)
    async with olga.expect_response(re.compile("before=")) as coming:
        await held[0].continue_()
    await (await coming.value).finished()
    await olga.evaluate("new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)))")
    assert await rows.count() == 1

    await olga.get_by_test_id("filter-type").select_option("")
    await older.click()
    await expect(rows).to_have_count(54)
    await call("olga", "POST", "/api/wallet/withdrawals", {"amount": "1"})
    await expect(rows).to_have_count(55)
