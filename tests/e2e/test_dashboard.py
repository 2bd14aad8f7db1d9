"""The dashboard of the realtime server alone: its pages, what they do, and that they are accessible."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from kit.accessibility import AXE, AXE_RUN, DESK, NARROW, PHONE, STICKS_OUT, TABLET
from kit.chromium import LIMIT_MS
from kit.dashboard import HOSTILE, Dashboard, dashboard
from kit.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

PAGES = ["", "connections", "connection", "channels", "channels/presence-support", "channels/cache-prices", "console",
         "webhooks", "apps", "nodes", "audit"]  # fmt: skip
TOKEN = "t" * 24


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown() -> AsyncIterator[Dashboard]:
    async with dashboard() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def page(shown: Dashboard, browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport=DESK, base_url=shown.url, reduced_motion="reduce")
    context.set_default_timeout(LIMIT_MS)
    await context.add_init_script(path=AXE)
    opened = await context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
    yield opened
    await context.close()
    assert problems == []


async def open_page(page: Page, shown: Dashboard, name: str) -> None:
    path = f"connections/{shown.clients[0].socket_id}" if name == "connection" else name
    await page.goto(f"/#/{path}")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.locator(".bones")).to_have_count(0)


@pytest.mark.parametrize("name", PAGES)
async def test_every_page_is_accessible_and_fits_every_window(page: Page, shown: Dashboard, name: str) -> None:
    await open_page(page, shown, name)
    for size in (DESK, TABLET, PHONE, NARROW):
        await page.set_viewport_size(size)
        assert await page.evaluate(STICKS_OUT) == [], f"{size['width']} pixels"
        if size in (DESK, PHONE):
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                await expect(page.locator(f"html[data-theme={scheme}]")).to_have_count(1)
                assert await page.evaluate(AXE_RUN) == [], f"{size['width']} pixels, {scheme}"


async def test_the_overview_shows_health_first(page: Page, shown: Dashboard) -> None:
    await open_page(page, shown, "")

    await expect(page.get_by_test_id("health")).to_contain_text("Webhooks failed permanently")
    await expect(page.get_by_test_id("health")).to_contain_text("Since")
    await expect(page.get_by_test_id("card-Connections")).to_contain_text("3")


async def test_from_the_list_of_connections_to_one_and_its_frames(page: Page, shown: Dashboard) -> None:
    client = shown.clients[0]
    await open_page(page, shown, "connections")
    await expect(page.get_by_test_id("connections").get_by_role("row")).to_have_count(4)

    await page.get_by_role("link", name=client.socket_id).click()
    await expect(page.get_by_test_id("connection")).to_contain_text("js 8.4.0")
    await expect(page.get_by_test_id("live-mark")).to_have_text("Live")
    await shown.publish("private-orders.7", "Shipped", '{"parcel":1}')

    await expect(page.get_by_test_id("console")).to_contain_text('{"parcel":1}')
    await expect(page.get_by_test_id("console")).to_contain_text("Sent")


async def test_a_channel_shows_subscribers_and_its_last_event(page: Page, shown: Dashboard) -> None:
    await open_page(page, shown, "channels")
    await page.get_by_role("link", name="cache-prices").click()

    await expect(page.get_by_test_id("channel")).to_contain_text("public cache")
    await expect(page.get_by_text("PriceChanged")).to_be_visible()
    await expect(page.get_by_role("link", name=shown.clients[0].socket_id)).to_be_visible()


async def test_the_console_filters_pauses_and_sends(page: Page, shown: Dashboard) -> None:
    await open_page(page, shown, "console")
    await page.get_by_test_id("by-channel").fill("private-orders.*")
    await page.get_by_test_id("kind-publish").click()
    await expect(page.get_by_test_id("live-mark")).to_have_text("Live")
    # The filter takes effect when typing stops.
    await eventually(
        lambda: [watch.filter.channel for watch in shown.server.node.feed.watches.values()] == ["private-orders.*"]
    )
    await expect(page.get_by_test_id("live-mark")).to_have_text("Live")

    await page.get_by_label("To channel").fill("private-orders.7")
    await page.get_by_label("Event name").fill("Packed")
    await page.get_by_label("Data").fill('{"box":2}')
    await page.get_by_test_id("send").click()

    await expect(page.get_by_test_id("sent")).to_have_text("Sent to 1 subscription.")
    await expect(page.get_by_test_id("console")).to_contain_text('{"box":2}')
    event = await shown.clients[0].receive()
    while event["event"] != "Packed":
        event = await shown.clients[0].receive()

    await page.get_by_test_id("pause").click()
    await shown.publish("private-orders.7", "Later", "{}")
    await expect(page.get_by_test_id("resume")).to_contain_text("1 new")
    await expect(page.get_by_test_id("console")).not_to_contain_text("Later")
    await page.get_by_test_id("resume").click()
    await expect(page.get_by_test_id("console")).to_contain_text("Later")

    await open_page(page, shown, "audit")
    await expect(page.get_by_test_id("audit")).to_contain_text("Packed on private-orders.7")


async def test_hostile_names_are_shown_as_text(page: Page, shown: Dashboard) -> None:
    for name in ("", "channels/presence-support", "connections"):
        await open_page(page, shown, name)
        await page.wait_for_load_state("networkidle")
        assert await page.locator("img").count() == 0
        assert "owned" not in await page.title()
    await open_page(page, shown, "")
    await expect(page.get_by_role("log")).to_contain_text(HOSTILE)


async def test_the_nodes_and_the_apps_are_listed_without_secrets(page: Page, shown: Dashboard) -> None:
    await open_page(page, shown, "nodes")
    await expect(page.get_by_test_id("nodes").get_by_role("row")).to_have_count(2)
    await open_page(page, shown, "apps")
    await expect(page.get_by_text("app-key")).to_be_visible()
    assert "app-secret" not in await page.content()


async def test_failed_webhooks_are_replayed(page: Page, shown: Dashboard) -> None:
    await open_page(page, shown, "webhooks")
    await expect(page.get_by_test_id("batch")).to_have_count(1)
    shown.target.then = 200

    await page.get_by_test_id("retry").click()

    await expect(page.get_by_test_id("result")).to_have_text(re.compile("1 batch queued again"))
    await expect(page.get_by_test_id("batch")).to_have_count(0)
    shown.target.then = 500


async def test_with_a_token_nothing_is_shown_until_it_is_given(browser: Browser) -> None:
    async with dashboard(TOKEN) as locked:
        page = await browser.new_page(base_url=locked.url)
        await page.goto("/")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Operator token")
        await page.get_by_test_id("token").fill("wrong")
        await page.get_by_test_id("unlock").click()
        await expect(page.get_by_text("This token is not valid")).to_be_visible()
        await page.get_by_test_id("token").fill(TOKEN)
        await page.get_by_test_id("unlock").click()
        await expect(page.get_by_test_id("health")).to_be_visible()
