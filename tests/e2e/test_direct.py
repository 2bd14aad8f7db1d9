"""Direct conversations and search: receipts, counters in step, typing, opening results."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Locator, Page, WebSocketRoute, expect

from kit import client
from kit.callers import Callers
from kit.scrolling import read_back_to
from kit.serve import Smartlink
from kit.waiting import eventually, eventually_told

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


def message(page: Page, text: str) -> Locator:
    return page.get_by_role("log").get_by_role("listitem").filter(has_text=text)


def conversation(page: Page, name: str) -> Locator:
    return page.get_by_role("list", name="Direct messages").get_by_role("link").filter(has_text=name)


async def connected(page: Page) -> None:
    await expect(page.get_by_role("navigation", name="Conversations")).to_contain_text("Connected")


def badge(page: Page, of: str) -> Locator:
    return page.get_by_test_id(f"nav-{of}").locator(".badge")


async def write(call: Callers, sender: str, recipient_id: int, *said: str) -> None:
    for text in said:
        await call(sender, "POST", "/api/chat/messages/private", {"recipient_id": recipient_id, "message": text})


async def test_reading_in_one_browser_updates_all_other_pages(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    reader = await call.register("rita")
    writer = await call.register("walt")
    pages = [await sign_in("rita"), await sign_in("rita")]
    pages.append(await pages[0].context.new_page())
    await pages[2].goto(f"{smartlink.url}/wallet")
    await write(call, "walt", reader, "one", "two")
    for page in pages:
        await expect(badge(page, "chat")).to_have_text("2")
        await expect(badge(page, "bell")).to_have_text("2")
    walt = await sign_in("walt")
    await walt.goto(f"{smartlink.url}/direct/{reader}")
    # Sent or, once a page of hers has confirmed it, delivered.
    await expect(message(walt, "two").locator("[data-status=sent], [data-status=delivered]")).to_have_count(1)

    await pages[0].goto(f"{smartlink.url}/direct/{writer}")
    await expect(pages[0].get_by_role("log")).to_contain_text("New messages")

    for page in pages:
        await expect(badge(page, "chat")).to_have_count(0)
        await expect(badge(page, "bell")).to_have_count(0)
    receipt = message(walt, "two").locator("[data-status=read]")
    await expect(receipt).to_have_attribute("title", re.compile(r"^Read \d?\d:\d\d"))
    rows = await call("rita", "GET", "/api/notifications?unread=1")
    assert rows == []


async def test_a_message_is_sent_then_delivered_then_read(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    reader = await call.register("dora")
    writer = await call.register("dirk")
    dirk = await sign_in("dirk")
    await dirk.goto(f"{smartlink.url}/direct/{reader}")
    await connected(dirk)
    await write(call, "dirk", reader, "Are you there?")
    own = message(dirk, "Are you there?")
    await expect(own.locator("[data-status=sent]")).to_have_count(1)
    await expect(own).to_contain_text("Sent")

    # A device that receives and does not read: an application with a session.
    async with client.connected(smartlink.realtime_port, session="a-session-token-of-the-tests") as device:
        channel = f"private-user.{reader}"
        asked = {"socket_id": device.socket_id, "channel_name": channel}
        answer = await call("dora", "POST", "/broadcasting/auth", asked)
        device.send("pusher:subscribe", {"channel": channel} | answer)
        await device.expect("pusher_internal:subscription_succeeded")
        await write(call, "dirk", reader, "Now you are.")
        await handle_all(device)

        now = message(dirk, "Now you are.")
        receipt = now.locator("[data-status=delivered]")
        await expect(receipt).to_have_attribute("title", re.compile(r"^Delivered \d?\d:\d\d"))
        await expect(now).to_contain_text("Delivered")
        await expect(own.locator("[data-status=sent]")).to_have_count(1)

    await call("dora", "POST", f"/api/chat/messages/private/{writer}/read")
    for each in (own, now):
        await expect(each.locator("[data-status=read]")).to_have_count(1)
    await dirk.reload()
    await expect(message(dirk, "Now you are.").locator("[data-status=read]")).to_have_count(1)


async def handle_all(device: client.Client) -> None:
    """Answer the next ping, as a page does that has handled every event before it."""
    while True:
        opcode, payload = await device.frame()
        if opcode == 1 and json.loads(payload)["event"] == "pusher:ping":
            device.send("pusher:pong", {})
            return


async def test_messages_after_ones_own_newer_message_are_read_too(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    reader = await call.register("rolf")
    writer = await call.register("wilma")
    rolf = await (await sign_in("rolf")).context.new_page()
    late: list[Callable[[], None]] = []
    listens: list[str | bytes] = []

    def overtaken(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def carry(frame: str | bytes) -> None:
            if "PrivateMessageSent" in str(frame):
                late.append(lambda: socket.send(frame))
                return
            socket.send(frame)
            if "subscription_succeeded" in str(frame) and "private-chat" in str(frame):
                listens.append(frame)

        server.on_message(carry)

    await rolf.route_web_socket("**/app/**", overtaken)
    await rolf.goto(f"{smartlink.url}/direct/{writer}")
    await eventually(lambda: listens)
    await write(call, "wilma", reader, "Said first")
    await eventually(lambda: late)
    await rolf.get_by_test_id("composer-input").fill("Answered first")
    await rolf.get_by_test_id("composer-input").press("Enter")
    await expect(message(rolf, "Answered first").locator("[data-status=sent]")).to_have_count(1)
    late.pop()()
    await expect(message(rolf, "Said first")).to_have_count(1)

    async def is_read() -> bool:
        [first, _] = await call("wilma", "GET", f"/api/chat/messages/private/{reader}")
        return bool(first["is_read"])

    await eventually_told(is_read)


async def test_everything_can_be_marked_as_read(call: Callers, sign_in: SignIn) -> None:
    reader = await call.register("rosa")
    for writer in ("wim", "wes"):
        await call.register(writer)
        await write(call, writer, reader, f"from {writer}")
    rosa = await sign_in("rosa")
    await call("ben", "POST", "/api/chat/messages", {"message": "to everybody"})
    await expect(badge(rosa, "chat")).to_have_text(re.compile("[23]"))

    await rosa.get_by_test_id("read-everything").click()

    await expect(badge(rosa, "chat")).to_have_count(0)
    await expect(badge(rosa, "bell")).to_have_count(0)
    assert [row["unread_count"] for row in await call("rosa", "GET", "/api/chat/conversations")] == [0, 0]


async def test_typing_is_shown_only_to_its_recipient(sign_in: SignIn, smartlink: Smartlink) -> None:
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await ben.goto(f"{smartlink.url}/direct/1")
    await connected(ben)
    await ben.get_by_test_id("composer-input").press_sequentially("Hm")
    await expect(conversation(ana, "Ben")).to_contain_text("typing…")

    await ben.get_by_test_id("composer-input").fill("")
    await expect(conversation(ana, "Ben")).not_to_contain_text("typing…")
    await ana.goto(f"{smartlink.url}/direct/2")
    await connected(ana)
    # So long that it is said again: the first time may come before Ana's page listens.
    await ben.get_by_test_id("composer-input").press_sequentially("Well, let me think about that.", delay=200)
    await expect(ana.get_by_role("main").get_by_text("Ben is typing…")).to_have_count(1)


async def test_a_search_result_opens_at_its_place(call: Callers, sign_in: SignIn) -> None:
    await call.register("sam", "Sam")
    hundred = [f"sam{number}" for number in range(6)]
    for who in hundred:
        await call.register(who)
    await call("sam", "POST", "/api/chat/messages", {"message": 'The <b onclick="x">needle</b> is here'})
    for who in hundred:
        for number in range(18):
            await call(who, "POST", "/api/chat/messages", {"message": f"hay {who} {number}"})
    await call("ana", "POST", "/api/chat/read", {"last_read_id": 2**62})
    ana = await sign_in("ana")
    await expect(message(ana, "hay sam5 17")).to_have_count(1)
    assert await message(ana, "needle").count() == 0

    await ana.keyboard.press("Control+k")
    await ana.keyboard.type("NEED")
    results = ana.get_by_role("list", name="Search results")
    await expect(results.get_by_role("listitem")).to_have_count(1)
    await expect(results.locator("mark")).to_have_text("needle")
    await expect(results).to_contain_text('Sam: The <b onclick="x">needle</b> is here')
    await ana.keyboard.press("ArrowDown")
    await ana.keyboard.press("Enter")

    await expect(message(ana, "needle")).to_be_in_viewport()
    await expect(ana.get_by_test_id("message").filter(has_text="needle")).to_be_focused()
    await call("ben", "POST", "/api/chat/messages", {"message": "said meanwhile"})
    await ana.get_by_test_id("to-end").click()
    await expect(message(ana, "said meanwhile")).to_be_in_viewport()
    # Up again by scrolling: the whole room, without a gap.
    wanted = [row["message"] for row in await call("ana", "GET", "/api/chat/messages?limit=100")]
    assert await read_back_to(ana, wanted[0]) == wanted


async def test_a_search_shows_no_results_and_failures(sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    field = ana.get_by_test_id("search")
    results = ana.get_by_test_id("search-results")
    await field.fill("zzzyx")
    await expect(results).to_contain_text("No results for “zzzyx”.")
    await field.fill("!?")
    await expect(results).to_contain_text("Type a word to search for.")

    await ana.route("**/api/chat/search*", lambda route: route.fulfill(status=503, body="{}"))
    await field.fill("coffee")
    await expect(results).to_contain_text("Search failed.")
    await ana.unroute("**/api/chat/search*")
    await results.get_by_role("button", name="Try again").click()
    await expect(results.locator("mark")).to_have_text("Coffee")
    await field.press("Escape")
    await expect(conversation(ana, "Ben")).to_be_visible()


async def test_an_unknown_conversation_has_no_input(sign_in: SignIn, smartlink: Smartlink) -> None:
    ana = await sign_in("ana")
    for nobody in ("999999", "1"):
        await ana.goto(f"{smartlink.url}/direct/{nobody}")
        await expect(ana.get_by_role("heading", name="Conversation not found")).to_be_visible()
        await expect(ana.get_by_test_id("composer-input")).to_have_count(0)
    await ana.get_by_role("link", name="All conversations").click()

    await expect(ana.get_by_role("textbox", name="Message to General")).to_be_focused()
