"""Two people, two real browsers, one chat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from kit.serve import Smartlink
from kit.waiting import LIMIT_S, eventually, eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


def message(page: Page, text: str) -> Locator:
    return page.get_by_role("log").get_by_role("listitem").filter(has_text=text)


def composer(page: Page) -> Locator:
    return page.get_by_role("textbox", name=re.compile("^Message to"))


def conversation(page: Page, name: str) -> Locator:
    return page.get_by_role("list", name="Direct messages").get_by_role("link").filter(has_text=name)


def online(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=re.compile("^Online")).get_by_role("listitem").filter(has_text=name)


async def say(page: Page, text: str) -> None:
    await composer(page).fill(text)
    await composer(page).press("Enter")


async def api(smartlink: Smartlink, method: str, path: str, body: Any = None, token: str = "") -> Any:
    request = urllib.request.Request(
        smartlink.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
    )

    def call() -> Any:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return json.loads(answer.read())

    return await asyncio.to_thread(call)


async def token_of(smartlink: Smartlink, name: str) -> str:
    answer = await api(smartlink, "POST", "/api/login", {"email": f"{name}@example.com", "password": "password"})
    token: str = answer["token"]
    return token


async def test_a_message_appears_once_in_both_browsers(sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await say(ana, "Hello from Ana")

    await expect(message(ben, "Hello from Ana")).to_have_count(1)
    await expect(message(ana, "Hello from Ana")).to_have_count(1)
    await say(ben, "Hello back")
    await expect(message(ana, "Hello back")).to_have_count(1)


async def test_typing_is_shown_and_ends_with_the_message(sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await composer(ana).press_sequentially("Thinking")

    await expect(ben.get_by_role("main").get_by_text("Ana is typing…")).to_have_count(1)
    await composer(ana).press("Enter")
    await expect(message(ben, "Thinking")).to_have_count(1)
    await expect(ben.get_by_role("main").get_by_text("Ana is typing…")).to_have_count(0)


async def test_text_is_shown_as_text(sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await say(ana, '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> javascript:alert(1)')

    await expect(message(ben, "<img src=x")).to_have_count(1)
    assert await message(ben, "<img src=x").locator("img, script, a").count() == 0
    assert await ben.evaluate("window.hacked") is None


async def test_links_are_safe(sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await say(ana, "look at https://example.com/a?b=1 please")

    link = message(ben, "look at").locator("a")
    await expect(link).to_have_attribute("href", "https://example.com/a?b=1")
    await expect(link).to_have_attribute("rel", "noopener noreferrer")


async def test_a_direct_message_reaches_its_reader_and_its_receipt_the_writer(sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await conversation(ana, "Ben").click()
    await say(ana, "Only for Ben")
    await expect(message(ana, "Only for Ben")).to_have_count(1)

    await expect(conversation(ben, "Ana")).to_contain_text("Only for Ben")
    await conversation(ben, "Ana").click()
    await expect(message(ben, "Only for Ben")).to_have_count(1)
    await expect(message(ana, "Only for Ben")).to_contain_text("Read")
    await ben.get_by_role("link", name=re.compile("^General")).click()
    await expect(message(ben, "Only for Ben")).to_have_count(0)


async def test_the_online_list_follows_joins_and_leaves(sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await expect(online(ana, "Ben")).to_be_visible()
    await ben.context.close()

    await expect(online(ana, "Ben")).to_have_count(0)


async def test_after_being_offline_messages_arrive_once_and_drafts_are_sent(
    smartlink: Smartlink, sign_in: SignIn
) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    token = await token_of(smartlink, "ben")
    await ana.context.set_offline(True)
    await say(ana, "Written in a tunnel")
    for number in range(3):
        await api(smartlink, "POST", "/api/chat/messages", {"message": f"While you were away {number}"}, token)
    await expect(message(ben, "While you were away 2")).to_have_count(1)
    assert await message(ana, "While you were away 2").count() == 0
    await ana.context.set_offline(False)

    for number in range(3):
        await expect(message(ana, f"While you were away {number}")).to_have_count(1)
    await expect(message(ben, "Written in a tunnel")).to_have_count(1)
    await expect(message(ana, "Written in a tunnel")).to_have_count(1)


async def test_the_chat_continues_after_a_restart(smartlink: Smartlink, sign_in: SignIn) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    assert await asyncio.to_thread(smartlink.stop) == 0
    await expect(ana.get_by_role("navigation", name="Conversations")).not_to_contain_text("Connected")
    await asyncio.to_thread(smartlink.start)
    token = await token_of(smartlink, "admin")
    await api(smartlink, "POST", "/api/chat/messages", {"message": "Back again"}, token)

    for page in (ana, ben):
        # pusher-js waits longer and longer while nobody listens; the reader need not.
        retry = page.get_by_role("button", name="Retry now")
        # It may be back before there is anything to click.
        with contextlib.suppress(PlaywrightTimeout):
            await retry.click(timeout=2_000)
        await expect(message(page, "Back again")).to_have_count(1)
    await say(ana, "We are back")
    await expect(message(ben, "We are back")).to_have_count(1)


async def test_scrolling_up_loads_history_without_a_jump(smartlink: Smartlink, sign_in: SignIn) -> None:
    token = await token_of(smartlink, "admin")
    ben = await token_of(smartlink, "ben")
    for number in range(36):
        await api(smartlink, "POST", "/api/chat/messages", {"message": f"Entry {number}."}, (token, ben)[number % 2])
    # Otherwise the room opens at the first unread message.
    reader = await token_of(smartlink, "ana")
    await api(smartlink, "POST", "/api/chat/read", {"last_read_id": 2**62}, reader)
    ana = await sign_in("ana")
    await expect(message(ana, "Entry 35.")).to_be_in_viewport()
    log, first = ana.get_by_role("log"), message(ana, "Entry 0.")

    async def is_at_the_first() -> bool:
        # Only what is near the view is rendered: what is older than this test's messages would be, at the very top.
        await log.evaluate("element => element.scrollBy(0, -element.clientHeight / 2)")
        return await first.count() == 1

    await eventually_told(is_at_the_first)


async def test_the_chat_works_with_the_keyboard_alone(sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    writing = composer(ana)
    await writing.focus()
    await ana.keyboard.type("one")
    await ana.keyboard.press("Shift+Enter")
    await ana.keyboard.type("two")
    await expect(writing).to_have_value("one\ntwo")
    await ana.keyboard.press("Enter")

    await expect(writing).to_have_value("")
    await expect(message(ana, "two")).to_have_count(1)


async def test_a_draft_survives_a_reload(sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await composer(ana).fill("half a thou")
    await ana.reload()

    await expect(composer(ana)).to_have_value("half a thou")


async def test_wrong_credentials_show_an_error(smartlink: Smartlink, browser: Any) -> None:
    page = await browser.new_page()
    await page.goto(smartlink.url)
    await page.get_by_test_id("login-email").fill("ana@example.com")
    await page.get_by_test_id("login-password").fill("wrong password")
    await page.get_by_test_id("login-submit").click()

    await expect(page.get_by_test_id("login-error")).to_be_visible()


async def test_a_page_names_its_user_to_the_realtime_server_on_every_connection(
    smartlink: Smartlink, browser: Any
) -> None:
    page = await browser.new_page()
    signed_in: list[str] = []

    def listen(socket: Any) -> None:
        socket.on("framereceived", lambda frame: "signin_success" in frame and signed_in.append(frame))

    page.on("websocket", listen)
    await page.goto(smartlink.url)
    await page.get_by_test_id("login-email").fill("ana@example.com")
    await page.get_by_test_id("login-password").fill("password")
    await page.get_by_test_id("login-submit").click()
    await eventually(lambda: len(signed_in) == 1)
    assert json.loads(json.loads(json.loads(signed_in[0])["data"])["user_data"])["id"] == "1"

    await page.reload()
    await eventually(lambda: len(signed_in) == 2)
