"""What one does with a message, seen by two people: by pointer, by touch and by keyboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Locator, Page, expect

from kit.accessibility import AXE, AXE_RUN, PHONE
from kit.callers import Callers
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


def message(page: Page, text: str) -> Locator:
    return page.get_by_role("log").get_by_test_id("message").filter(has_text=text)


async def says(call: Callers, who: str, text: str) -> int:
    said = await call(who, "POST", "/api/chat/messages", {"message": text})
    message_id: int = said["id"]
    return message_id


async def long_press(page: Page, what: Locator) -> None:
    """Hold a finger on an element until something happens; it stays there."""
    box = await what.bounding_box()
    assert box is not None
    touch = await page.context.new_cdp_session(page)
    at = {"x": box["x"] + 20, "y": box["y"] + box["height"] / 2}
    await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
    await expect(page.get_by_test_id("message-menu")).to_be_visible()
    await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


async def axe_is_clean(page: Page) -> None:
    await page.evaluate(AXE.read_text())
    assert await page.evaluate(AXE_RUN) == []


async def test_an_edit_shows_on_all_pages_of_both(call: Callers, sign_in: SignIn) -> None:
    await call.register("abe")
    await call.register("bea")
    abe, other, bea = await sign_in("abe"), await sign_in("abe"), await sign_in("bea")
    await says(call, "abe", "We meet at fife.")
    await message(abe, "at fife").hover()

    await abe.get_by_test_id("tool-edit").click()
    field = abe.get_by_role("textbox", name="Message to General")
    await expect(field).to_have_value("We meet at fife.")
    await expect(field).to_be_focused()
    await axe_is_clean(abe)
    await field.fill("We meet at five.")
    await field.press("Enter")

    for page in (abe, other, bea):
        await expect(message(page, "We meet at five.").get_by_test_id("edited")).to_have_text("edited")
        await expect(message(page, "at fife")).to_have_count(0)
    await expect(abe.get_by_test_id("editing")).to_have_count(0)
    await expect(field).to_have_value("")


async def test_a_deleted_message_leaves_a_placeholder(call: Callers, sign_in: SignIn) -> None:
    await call.register("carl")
    await call.register("dana")
    carl, dana = await sign_in("carl"), await sign_in("dana")
    message_id = await says(call, "carl", "This is embarrassing.")
    await dana.get_by_test_id("search").fill("embarrassing")
    await expect(dana.get_by_test_id(f"found-{message_id}")).to_be_visible()
    own = message(carl, "embarrassing")
    await own.hover()
    await own.get_by_test_id("tool-more").click()
    await axe_is_clean(carl)
    await carl.get_by_test_id("menu-delete").click()
    await expect(carl.get_by_role("dialog", name="Delete this message?")).to_be_visible()
    await axe_is_clean(carl)

    await carl.get_by_test_id("confirm").click()

    row = f"[data-message='{message_id}']"
    await expect(carl.locator(row)).to_contain_text("You deleted this message.")
    await expect(dana.locator(row)).to_contain_text("This message was deleted.")
    await expect(dana.get_by_test_id(f"found-{message_id}")).to_have_count(0)
    await dana.get_by_test_id("search-end").click()
    for page in (carl, dana):
        await expect(page.get_by_text("embarrassing")).to_have_count(0)
        await page.reload()
        await expect(page.locator(row)).to_contain_text("deleted")
        await expect(page.get_by_text("embarrassing")).to_have_count(0)
    await axe_is_clean(dana)


async def test_what_changed_while_a_page_was_offline_shows_afterwards(call: Callers, sign_in: SignIn) -> None:
    await call.register("emil")
    await call.register("fay")
    fay = await sign_in("fay")
    edited, deleted = await says(call, "emil", "Old words of Emil"), await says(call, "emil", "Gone words of Emil")
    await expect(message(fay, "Gone words")).to_be_visible()
    await fay.context.set_offline(True)
    await expect(fay.get_by_test_id("connection-banner")).to_be_visible()

    await call("emil", "PATCH", f"/api/chat/messages/{edited}", {"message": "New words of Emil"})
    await call("emil", "DELETE", f"/api/chat/messages/{deleted}")
    await fay.context.set_offline(False)

    await expect(fay.locator(f"[data-message='{edited}']")).to_contain_text("New words of Emil")
    await expect(fay.locator(f"[data-message='{deleted}']")).to_contain_text("This message was deleted.")


async def test_the_keyboard_reaches_every_action(call: Callers, sign_in: SignIn) -> None:
    await call.register("gus")
    gus = await sign_in("gus")
    for text in ("First of Gus", "Second of Gus", "Third of Gus"):
        await says(call, "gus", text)
    await expect(message(gus, "Third of Gus")).to_be_visible()
    field = gus.get_by_role("textbox", name="Message to General")

    # From an empty field, the arrow up edits the last message; Escape brings the draft back.
    await field.press("ArrowUp")
    await expect(field).to_have_value("Third of Gus")
    await field.press("Escape")
    await expect(field).to_have_value("")

    await gus.get_by_role("log").focus()
    await gus.keyboard.press("ArrowUp")
    await expect(message(gus, "Third of Gus")).to_be_focused()
    await gus.keyboard.press("ArrowUp")
    await expect(message(gus, "Second of Gus")).to_be_focused()
    await axe_is_clean(gus)
    await gus.keyboard.press("Enter")
    await expect(gus.get_by_test_id("message-menu").get_by_role("menuitem").first).to_be_focused()
    await gus.keyboard.press("Escape")
    await expect(message(gus, "Second of Gus")).to_be_focused()
    await gus.keyboard.press("e")
    await expect(field).to_have_value("Second of Gus")
    await expect(field).to_be_focused()
    await field.press("Escape")

    await gus.get_by_role("log").focus()
    await gus.keyboard.press("ArrowUp")
    await gus.keyboard.press("Delete")
    await gus.get_by_test_id("confirm").press("Enter")
    await expect(message(gus, "Third of Gus")).to_have_count(0)
    await expect(message(gus, "You deleted this message.")).to_be_focused()


async def test_a_long_press_opens_the_actions_on_a_phone(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    peer = await call.register("hana")
    await call.register("ivo")
    desk = await sign_in("ivo")
    browser = desk.context.browser
    assert browser is not None
    state = await desk.context.storage_state()
    phone = await browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, storage_state=state)
    page = await phone.new_page()
    await page.goto(f"{smartlink.url}/direct/{peer}")
    await call("ivo", "POST", "/api/chat/messages/private", {"recipient_id": peer, "message": "Typed in a hury"})
    own = message(page, "Typed in a hury")
    await expect(own).to_be_visible()

    await long_press(page, own.get_by_test_id("message-text"))
    await axe_is_clean(page)
    await page.get_by_test_id("menu-edit").tap()
    await expect(page.get_by_test_id("composer-input")).to_have_value("Typed in a hury")
    await page.get_by_test_id("composer-input").fill("Typed in a hurry")
    await page.get_by_test_id("send").tap()

    await expect(message(page, "Typed in a hurry").get_by_test_id("edited")).to_be_visible()
    await desk.goto(f"{smartlink.url}/direct/{peer}")
    await expect(message(desk, "Typed in a hurry")).to_be_visible()


async def test_an_edit_that_lost_against_a_deletion_says_so(call: Callers, sign_in: SignIn) -> None:
    await call.register("jon")
    jon = await sign_in("jon")
    message_id = await says(call, "jon", "Soon gone")
    field = jon.get_by_role("textbox", name="Message to General")
    await field.fill("a draft")
    await message(jon, "Soon gone").hover()
    await jon.get_by_test_id("tool-edit").click()
    await expect(field).to_have_value("Soon gone")

    await call("jon", "DELETE", f"/api/chat/messages/{message_id}")

    await expect(jon.get_by_test_id("composer-problem")).to_have_text("The message you were editing was deleted.")
    await expect(field).to_have_value("a draft")


async def test_admins_see_earlier_texts(call: Callers, sign_in: SignIn) -> None:
    await call.register("kim")
    message_id = await says(call, "kim", "The first wording")
    await call("kim", "PATCH", f"/api/chat/messages/{message_id}", {"message": "The second wording"})
    admin = await sign_in("admin")
    shown = message(admin, "The second wording")
    await shown.hover()
    await shown.get_by_test_id("tool-more").click()

    await admin.get_by_test_id("menu-history").click()

    await expect(admin.get_by_test_id("versions")).to_contain_text("The first wording")
    await axe_is_clean(admin)
