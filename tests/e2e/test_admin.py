"""The admin pages in one browser, other users in theirs."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]
SCRIPT = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"


@pytest_asyncio.fixture(loop_scope="module")
async def admin(sign_in: SignIn) -> Page:
    page = await sign_in("admin")
    await page.get_by_role("link", name="Admin", exact=True).click()
    await expect(page.get_by_test_id("live-mark")).to_have_text("Live")
    return page


async def to(page: Page, tab: str) -> None:
    await page.get_by_role("navigation", name="Admin pages").get_by_role("link", name=re.compile(f"^{tab}")).click()


async def say(page: Page, text: str) -> None:
    writing = page.get_by_role("textbox", name="Message to General")
    await writing.fill(text)
    await writing.press("Enter")


def said(page: Page, text: str) -> Locator:
    return page.get_by_role("log").get_by_role("listitem").filter(has_text=text)


def line(page: Page, text: str) -> Locator:
    return page.get_by_test_id("console").get_by_role("listitem").filter(has_text=text)


def user(page: Page, name: str) -> Locator:
    return page.get_by_role("list", name="Users").get_by_role("listitem").filter(has_text=f"{name}@example.com")


def message(text: str, number: int = 900_000) -> str:
    at = "2026-01-01T00:00:00Z"
    record = {
        "id": number, "user_id": 3, "recipient_id": None, "message": text, "is_read": False, "read_at": None,
        "created_at": at, "updated_at": at, "user": {"id": 3, "name": "Admin"},
    }  # fmt: skip
    return json.dumps({"message": record})


def fail(smartlink: Smartlink, payload: str, name: str = "App\\Events\\MessageSent") -> int:
    """Put an event into the database that was refused; its id."""
    with contextlib.closing(sqlite3.connect(smartlink.folder / "smartlink.db", timeout=10)) as database, database:
        added = database.execute(
            "INSERT INTO recorded_events (channel, name, payload, delivery, state, attempts, error, created_at)"
            " VALUES ('chat', ?, ?, 'durable', 'failed', 1, '413: too large', '2026-01-01 00:00:00')",
            (name, payload),
        )
        assert added.lastrowid is not None
        return added.lastrowid


async def send_by_hand(page: Page, channel: str, event: str, data: str) -> None:
    await page.get_by_label("Channel").fill(channel)
    await page.get_by_label("Event", exact=True).fill(event)
    await page.get_by_label("Data (JSON)").fill(data)
    await page.get_by_test_id("event-send").click()


async def test_figures_and_the_console_update_live(admin: Page, sign_in: SignIn) -> None:
    connections = admin.get_by_test_id("figure-connections").get_by_role("definition").first
    await expect(connections).to_have_text("1")
    ana = await sign_in("ana")
    await expect(connections).to_have_text("2")
    await expect(admin.locator(".uplot")).to_have_count(4)

    await to(admin, "Console")
    await say(ana, "nothing of this is shown to admins")
    await expect(line(admin, "MessageSent")).to_have_count(1)
    await expect(line(admin, "Join").first).to_be_visible()
    assert await admin.get_by_text("nothing of this").count() == 0

    await admin.get_by_test_id("pause").click()
    await say(ana, "while the console is paused")
    await expect(admin.get_by_test_id("resume")).to_contain_text("new")
    await expect(line(admin, "MessageSent")).to_have_count(1)
    await admin.get_by_test_id("resume").click()
    await expect(line(admin, "MessageSent")).to_have_count(2)
    await admin.get_by_test_id("kind-join").click()
    await expect(line(admin, "MessageSent")).to_have_count(0)
    await admin.get_by_test_id("kind-join").click()
    await admin.get_by_test_id("console-text").fill("messagesent")
    await expect(admin.get_by_test_id("console").get_by_role("listitem")).to_have_count(2)

    await to(admin, "Connections")
    await expect(admin.get_by_test_id("people").get_by_role("row").filter(has_text="Ana")).to_contain_text("presence-")
    await to(admin, "Events")
    await admin.get_by_test_id("events-channel").fill("chat")
    await expect(admin.get_by_role("list", name="Recorded events").get_by_role("listitem").first).to_contain_text(
        "Sent"
    )


async def test_figures_are_marked_stale_without_updates(admin: Page) -> None:
    await expect(admin.get_by_test_id("figure-connections")).to_contain_text("1")
    await admin.context.set_offline(True)
    await expect(admin.get_by_test_id("live-mark")).to_have_text("Stale")
    await expect(admin.get_by_test_id("stale")).to_be_visible()
    await admin.context.set_offline(False)
    await expect(admin.get_by_test_id("live-mark")).to_have_text("Live")


async def test_a_blocked_user_is_signed_out_at_once_and_cannot_return(admin: Page, sign_in: SignIn) -> None:
    ben = await sign_in("ben")
    await to(admin, "Users")
    await admin.get_by_test_id("user-search").fill("BEN@")
    await expect(admin.get_by_role("list", name="Users").get_by_role("listitem")).to_have_count(1)
    await user(admin, "ben").get_by_test_id("block").click()
    dialog = admin.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await dialog.get_by_test_id("confirm").click()

    await expect(ben.get_by_test_id("login-submit")).to_be_visible()
    await expect(user(admin, "ben")).to_contain_text("Blocked")
    await expect(user(admin, "ben").get_by_test_id("unblock")).to_be_focused()
    await ben.get_by_test_id("login-email").fill("ben@example.com")
    await ben.get_by_test_id("login-password").fill("password")
    await ben.get_by_test_id("login-submit").click()
    await expect(ben.get_by_test_id("login-error")).to_be_visible()

    await user(admin, "ben").get_by_test_id("unblock").click()
    await expect(user(admin, "ben").get_by_test_id("block")).to_be_focused()
    await ben.get_by_test_id("login-submit").click()
    await expect(ben.get_by_role("textbox", name="Message to General")).to_be_visible()
    await to(admin, "Audit log")
    await expect(admin.get_by_test_id("audit").get_by_role("listitem").last).to_contain_text("blocked user")


async def test_a_disconnected_user_reconnects_automatically(admin: Page, sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await to(admin, "Users")
    async with ana.expect_websocket():
        await user(admin, "ana").get_by_test_id("disconnect").click()
    await expect(user(admin, "ana")).to_contain_text("Disconnected")
    await expect(ana.get_by_role("navigation", name="Conversations")).to_contain_text("Connected")

    await to(admin, "Console")
    await send_by_hand(admin, "chat", "App\\Events\\MessageSent", message("Heard after coming back"))
    await expect(said(ana, "Heard after coming back")).to_have_count(1)


async def test_a_demoted_admin_loses_the_pages_at_once(admin: Page, sign_in: SignIn) -> None:
    await to(admin, "Users")
    await user(admin, "ana").get_by_test_id("set-admin").click()
    await admin.get_by_test_id("confirm").click()
    await expect(user(admin, "ana").get_by_text("Admin", exact=True)).to_be_visible()
    ana = await sign_in("ana")
    await ana.get_by_test_id("nav-admin").click()
    await expect(ana.get_by_test_id("live-mark")).to_have_text("Live")

    await user(admin, "ana").get_by_test_id("set-admin").click()
    await admin.get_by_test_id("confirm").click()
    await expect(ana.get_by_test_id("nav-admin")).to_have_count(0)
    await expect(ana).not_to_have_url(re.compile("/admin"))


async def test_a_test_event_arrives_and_an_invalid_one_is_refused(admin: Page, sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await to(admin, "Console")
    await send_by_hand(admin, "chat", "App\\Events\\MessageSent", '{\n  "message": 1\n  "x": 2\n}')
    await expect(admin.get_by_test_id("event-data-error")).to_contain_text("Line 3, column 3")
    await expect(admin.get_by_label("Data (JSON)")).to_be_focused()
    await expect(admin.get_by_test_id("event-result")).to_have_text("")
    await send_by_hand(admin, "no such channel", "x", "{}")
    await expect(admin.get_by_role("alert").filter(has_text="characters")).to_be_visible()

    await send_by_hand(admin, "chat", "App\\Events\\MessageSent", message("By hand"))
    await expect(admin.get_by_test_id("event-result")).to_contain_text("Sent to chat")
    await expect(said(ana, "By hand")).to_have_count(1)
    await expect(line(admin, "MessageSent")).to_have_count(1)


async def test_a_failed_job_can_be_retried_or_deleted(smartlink: Smartlink, admin: Page, sign_in: SignIn) -> None:
    ana = await sign_in("ana")
    await to(admin, "Failed jobs")
    await expect(admin.get_by_text("No failed jobs.")).to_be_visible()
    failed = [fail(smartlink, message(f"Second try {number}", 900_000 + number)) for number in range(3)]
    # The figures tell of them, and the list follows.
    jobs = [admin.get_by_test_id(f"job-{job}") for job in failed]
    await expect(jobs[0]).to_contain_text("413")

    await jobs[0].get_by_test_id("retry").click()
    await expect(jobs[0]).to_have_count(0)
    await expect(said(ana, "Second try 0")).to_have_count(1)
    await jobs[1].get_by_test_id("forget").click()
    await admin.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(jobs[1]).to_be_visible()
    await jobs[1].get_by_test_id("forget").click()
    await admin.get_by_test_id("confirm").click()
    await expect(jobs[1]).to_have_count(0)
    await admin.get_by_test_id("retry-all").click()
    await admin.get_by_test_id("confirm").click()
    await expect(jobs[2]).to_have_count(0)
    await expect(said(ana, "Second try 2")).to_have_count(1)
    assert await said(ana, "Second try 1").count() == 0


async def test_other_users_cannot_see_the_admin_pages(sign_in: SignIn, smartlink: Smartlink) -> None:
    ana = await sign_in("ana")
    await expect(ana.get_by_test_id("nav-wallet")).to_be_visible()
    assert await ana.get_by_test_id("nav-admin").count() == 0
    await ana.goto(f"{smartlink.url}/admin/users")

    await expect(ana.get_by_role("navigation", name="Conversations")).to_be_visible()
    await expect(ana).to_have_url(re.compile("/(general)?$"))


async def test_user_input_is_shown_as_text(smartlink: Smartlink, admin: Page) -> None:
    await to(admin, "Console")
    await send_by_hand(admin, "chat", SCRIPT, json.dumps({SCRIPT: SCRIPT}))
    await expect(line(admin, SCRIPT).first).to_be_visible()
    await to(admin, "Events")
    written = admin.get_by_role("list", name="Recorded events").get_by_role("listitem").filter(has_text=SCRIPT).first
    await written.get_by_role("group").or_(written.locator("summary")).first.click()
    await expect(written.get_by_role("region")).to_contain_text(SCRIPT)
    await to(admin, "Audit log")
    await expect(admin.get_by_test_id("audit")).to_contain_text(SCRIPT)
    fail(smartlink, json.dumps(SCRIPT), SCRIPT)
    await to(admin, "Failed jobs")
    await expect(admin.get_by_role("list", name="Failed jobs")).to_contain_text(SCRIPT)

    assert await admin.locator("main img, main script").count() == 0
    assert await admin.evaluate("window.hacked") is None
