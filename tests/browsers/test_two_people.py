"""Two users of the portal, one in Firefox and one in WebKit, then the other way round."""

from __future__ import annotations

import asyncio
import uuid

import httpx2
import pytest

from browsers.conftest import Two
from browsers.window import ENTER, Window
from kit.serve import Smartlink

pytestmark = [pytest.mark.other_browsers, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

COMPOSER = "[data-testid=composer-input]"
MESSAGE = "[data-testid=message]"
STATE = "[data-testid=connection-state]"


def unheard(words: str) -> str:
    """These words, as nobody said them yet: the system is one for all tests."""
    return f"{words} {uuid.uuid4().hex[:6]}"


async def at(window: Window, smartlink: Smartlink, path: str) -> None:
    await window.open(smartlink.url + path)
    await window.sees(STATE, "Connected")


async def has_read_everything(smartlink: Smartlink, name: str) -> None:
    async with httpx2.AsyncClient(base_url=smartlink.url, trust_env=False) as http:
        answer = await http.post("/api/login", json={"email": f"{name}@example.com", "password": "password"})
        bearer = {"Authorization": f"Bearer {answer.json()['token']}"}
        answer = await http.post("/api/notifications/read", headers=bearer)
        answer.raise_for_status()


async def say(window: Window, text: str) -> None:
    await window.write(COMPOSER, text + ENTER)


async def test_a_message_appears_once_in_both_pages(two: Two, smartlink: Smartlink) -> None:
    for window in (two.ana, two.ben):
        await at(window, smartlink, "/general")
    for writer, reader in ((two.ana, two.ben), (two.ben, two.ana)):
        text = unheard("Grüße 👋")
        await say(writer, text)

        await reader.sees(MESSAGE, text, times=1)
        await writer.sees(MESSAGE, text, times=1)
        await writer.sees(f"{MESSAGE} [data-status=sent], {MESSAGE} [data-status=read]")


async def test_typing_is_shown(two: Two, smartlink: Smartlink) -> None:
    for window in (two.ana, two.ben):
        await at(window, smartlink, "/general")
    await two.ana.write(COMPOSER, "Thinking")

    await two.ben.sees("[data-testid=typing]", "Ana is typing")
    await two.ana.press(ENTER)
    await two.ben.sees("[data-testid=typing]", "Ana is typing", times=0)


async def test_a_direct_message_gets_a_read_receipt(two: Two, smartlink: Smartlink) -> None:
    await at(two.ana, smartlink, "/general")
    await at(two.ben, smartlink, "/general")
    await two.ana.click("[data-testid^=online-user-] button")
    await two.ana.sees("h1", "Ben")
    text = unheard("Only for Ben")
    await say(two.ana, text)
    await two.ana.sees(MESSAGE, text, times=1)

    await two.ben.sees("[data-testid^=conversation-]", text)
    await two.ben.click("[data-testid^=conversation-]")
    await two.ben.sees(MESSAGE, text, times=1)
    await two.ana.sees(f"{MESSAGE}:last-of-type", "Read")


async def test_the_badge_counts_unread_notifications(two: Two, smartlink: Smartlink) -> None:
    await has_read_everything(smartlink, "ana")
    await at(two.ana, smartlink, "/wallet")
    await at(two.ben, smartlink, "/general")
    await two.ben.click("[data-testid^=conversation-]")
    await two.ben.sees("h1", "Ana")
    await say(two.ben, unheard("Look at this"))

    await two.ana.sees("[data-testid=nav-bell] .badge", "1")
    await two.ana.sees("[data-testid=toast]", "Look at this")


async def test_a_deposit_changes_the_balance(two: Two, smartlink: Smartlink) -> None:
    await at(two.ana, smartlink, "/wallet")
    balance = "document.querySelector('[data-testid=balance]').textContent"
    await two.ana.sees("[data-testid=balance]")
    before = await two.ana.evaluate(balance)
    movements = await two.ana.evaluate("document.querySelectorAll('[data-testid^=transaction-]').length")
    await two.ana.write("[data-testid=amount]", "12.34")
    await two.ana.click("[data-testid=deposit]")

    await two.ana.sees("[data-testid^=transaction-]", times=movements + 1)
    assert await two.ana.evaluate(balance) != before


async def test_the_chat_continues_after_a_restart(two: Two, smartlink: Smartlink) -> None:
    for window in (two.ana, two.ben):
        await at(window, smartlink, "/general")
    assert await asyncio.to_thread(smartlink.stop) == 0
    for window in (two.ana, two.ben):
        await window.sees(STATE, "Connected", times=0)
    await asyncio.to_thread(smartlink.start)

    for window in (two.ana, two.ben):
        await window.sees(STATE, "Connected")
    text = unheard("We are back")
    await say(two.ana, text)
    await two.ben.sees(MESSAGE, text, times=1)
    await two.ana.sees(MESSAGE, text, times=1)
