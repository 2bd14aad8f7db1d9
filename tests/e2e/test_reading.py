"""Reading and writing at size: where reading begins, what is counted, what is rendered, and that nothing moves."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial

import pytest
from playwright.async_api import Locator, Page, expect

from kit.callers import Callers
from kit.serve import Smartlink
from kit.waiting import eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]
MOST_NODES = 400


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


def written(smartlink: Smartlink, author: int, recipient: int | None, count: int) -> list[int]:
    """Messages that were there before anybody looked; their ids."""
    with closing(sqlite3.connect(smartlink.folder / "smartlink.db", timeout=30)) as database, database:
        before = database.execute("SELECT max(id) FROM chat_messages").fetchone()[0]
        database.executemany(
            "INSERT INTO chat_messages (user_id, recipient_id, message, is_read, created_at, updated_at) "
            "VALUES (?, ?, ?, false, '2026-03-01 09:00:00', '2026-03-01 09:00:00')",
            [(author, recipient, f"line {number} of {count}") for number in range(1, count + 1)],
        )
    return list(range(before + 1, before + count + 1))


def log_of(page: Page) -> Locator:
    return page.get_by_role("log")


async def nodes(page: Page) -> int:
    found: int = await log_of(page).evaluate("log => log.querySelectorAll('*').length")
    return found


async def begins_with(page: Page, wanted: str) -> bool:
    """Whether this message follows the line above new messages, which is in view."""
    await expect(page.locator("[data-new]")).to_be_in_viewport()
    text: str = await page.locator("[data-new]").evaluate(
        """line => [...document.querySelectorAll('[data-message]')]
        .map((one) => ({ top: one.getBoundingClientRect().top, text: one.querySelector('.words').innerText }))
        .filter(({ top }) => top > line.getBoundingClientRect().top)
        .sort((one, other) => one.top - other.top)[0].text"""
    )
    return text == wanted


async def to_end(page: Page) -> None:
    await page.get_by_test_id("to-end").click()
    await expect(page.get_by_test_id("to-end")).to_be_hidden()


async def test_a_conversation_opens_at_the_first_of_many_unread(
    smartlink: Smartlink, sign_in: SignIn, call: Callers
) -> None:
    ben = (await call("ben", "GET", "/api/user"))["id"]
    ana = (await call("ana", "GET", "/api/user"))["id"]
    await call("ana", "GET", "/api/chat/unread")
    written(smartlink, ben, ana, 120)
    written(smartlink, ben, None, 130)
    page = await sign_in("ana")
    badge = page.get_by_test_id("nav-chat").locator(".badge")

    await eventually_told(partial(begins_with, page, "line 1 of 130"))
    assert await nodes(page) <= MOST_NODES
    # Another device begins where this one has read to, which is not the end.
    other = await sign_in("ana")
    await expect(other.locator("[data-new]")).to_be_in_viewport()
    await expect(badge).to_have_text("99+")

    await page.get_by_test_id(f"conversation-{ben}").click()
    await eventually_told(partial(begins_with, page, "Sure, send it over."))
    await expect(page.get_by_test_id("to-end")).to_contain_text(re.compile(r"99\+ new|\d\d new"))
    await to_end(page)
    for one in (page, other):
        await expect(one.get_by_test_id(f"conversation-{ben}").locator(".count")).to_be_hidden()
    assert (await call("ana", "GET", "/api/chat/conversations"))[0]["unread_count"] == 0

    await page.get_by_test_id("room-general").click()
    await to_end(page)
    for one in (page, other):
        await expect(one.get_by_test_id("nav-chat").locator(".badge")).to_be_hidden()
        await expect(one).to_have_title(re.compile(r"General"))

    await page.get_by_test_id("mark-unread").click()
    await expect(other.get_by_test_id("room-general").locator(".count")).to_contain_text("1 unread")


async def test_nothing_moves_under_a_reader_further_up(smartlink: Smartlink, sign_in: SignIn, call: Callers) -> None:
    page = await sign_in("ana")
    await log_of(page).hover()
    for _ in range(6):
        await page.mouse.wheel(0, -900)
        await page.wait_for_timeout(120)
    before = await in_view(page)

    for number in range(12):
        await call("ben", "POST", "/api/chat/messages", {"message": f"meanwhile {number}"})
    await expect(page.get_by_test_id("to-end")).to_have_text("12 new")

    assert await in_view(page) == before
    assert await nodes(page) <= MOST_NODES
    await to_end(page)
    await expect(log_of(page)).to_contain_text("meanwhile 11")


async def in_view(page: Page) -> list[tuple[str, int]]:
    """The messages in view and where they stand."""
    await page.wait_for_timeout(300)
    found = await log_of(page).evaluate(
        """log => [...log.querySelectorAll('[data-message]')]
        .map((one) => [one.dataset.message, Math.round(one.getBoundingClientRect().top)])
        .filter(([, top]) => top > 60 && top < 650)"""
    )
    return [(str(name), int(top)) for name, top in found]
