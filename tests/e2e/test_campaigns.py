"""Campaigns: created, edited by two users at once, viewed together, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Locator, Page, expect

from kit.callers import Callers
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]


@pytest.fixture(scope="module")
def smartlink(shared_smartlink: Smartlink) -> Smartlink:
    return shared_smartlink


def alert(page: Page, text: str) -> Locator:
    return page.get_by_role("alert").filter(has_text=text)


async def made(call: Callers, name: str, budget: str = "100") -> int:
    campaign_id: int = (await call("ana", "POST", "/api/campaigns", {"name": name, "budget": budget}))["id"]
    return campaign_id


async def test_invalid_input_is_shown_at_its_field_and_valid_input_creates_a_campaign(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/campaigns")
    await ana.get_by_test_id("campaign-new").click()
    form = ana.get_by_test_id("campaign-form")
    await form.get_by_label("Budget (EUR)").fill("-3")
    await form.get_by_test_id("campaign-save").click()
    await expect(alert(ana, "Enter a name.")).to_be_visible()
    await expect(alert(ana, "Enter an amount above zero")).to_be_visible()
    await form.get_by_label("Starts").fill("2031-05-02T10:00")
    await form.get_by_label("Ends").fill("2031-05-01T10:00")
    await form.get_by_label("Name").fill("Autumn fair")
    await form.get_by_label("Budget (EUR)").fill("99.5")
    await form.get_by_test_id("campaign-save").click()
    await expect(alert(ana, "The end must be after the start.")).to_be_visible()

    await form.get_by_label("Ends").fill("2031-05-03T10:00")
    await form.get_by_test_id("campaign-save").click()

    await expect(ana.get_by_role("heading", name="Autumn fair")).to_be_visible()
    newest = (await call("ana", "GET", "/api/campaigns"))[0]
    assert (newest["name"], newest["budget"], newest["status"]) == ("Autumn fair", "99.50", "draft")


async def test_two_viewers_see_each_other_and_each_others_changes(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    where = f"{smartlink.url}/campaigns/{await made(call, 'Looked at')}"
    ana, admin = await sign_in("ana"), await sign_in("admin")
    await ana.goto(where)
    await admin.goto(where)
    viewers = "Also viewing"
    await expect(ana.get_by_role("list", name=viewers)).to_contain_text("Admin")
    await expect(admin.get_by_role("list", name=viewers)).to_contain_text("Ana")

    await admin.get_by_test_id("activate").click()

    await expect(ana.get_by_test_id("campaign-status")).to_have_text("Active")
    await expect(ana.get_by_role("listitem").filter(has_text="Admin activated this campaign")).to_have_count(1)
    await expect(ana.get_by_test_id("nav-bell").locator(".badge")).to_be_visible()
    await admin.goto(f"{smartlink.url}/wallet")
    await expect(ana.get_by_role("list", name=viewers)).to_have_count(0)


async def test_a_conflicting_save_is_reported_and_loses_nothing(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    campaign_id = await made(call, "Contested")
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/campaigns/{campaign_id}")
    await ana.get_by_test_id("edit").click()
    await ana.get_by_label("Name").fill("Mine")
    await call("admin", "PUT", f"/api/campaigns/{campaign_id}/budget", {"budget": "777"})
    await expect(ana.get_by_text("This campaign changed while you were editing.")).to_be_visible()

    await ana.get_by_test_id("campaign-save").click()
    await expect(alert(ana, "Not saved: someone else changed this campaign.")).to_be_visible()
    assert (await call("ana", "GET", f"/api/campaigns/{campaign_id}"))["name"] == "Contested"

    await ana.get_by_role("button", name="Load latest version").click()
    await expect(alert(ana, "Not saved: someone else changed this campaign.")).to_have_count(0)
    await expect(ana.get_by_label("Budget (EUR)")).to_have_value("777.00")
    await ana.get_by_label("Name").fill("Ours")
    await ana.get_by_test_id("campaign-save").click()
    await expect(ana.get_by_role("heading", name="Ours")).to_be_visible()
    assert (await call("ana", "GET", f"/api/campaigns/{campaign_id}"))["budget"] == "777.00"


async def test_a_conflicting_save_can_overwrite_deliberately(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    campaign_id = await made(call, "Contested again")
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/campaigns/{campaign_id}")
    await ana.get_by_test_id("edit").click()
    await expect(ana.get_by_label("Name")).to_be_focused()
    await ana.get_by_label("Name").fill("Mine after all")
    await call("admin", "PUT", f"/api/campaigns/{campaign_id}/budget", {"budget": "777"})
    await ana.get_by_test_id("campaign-overwrite").click()

    await expect(ana.get_by_role("heading", name="Mine after all")).to_be_visible()
    await expect(ana.get_by_test_id("edit")).to_be_focused()
    row = await call("ana", "GET", f"/api/campaigns/{campaign_id}")
    assert (row["name"], row["budget"]) == ("Mine after all", "100.00")


async def test_a_list_filtered_by_status_follows_changes(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    campaign_id = await made(call, "On and off")
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/campaigns")
    await expect(ana.get_by_test_id("connection-state")).to_have_text("Connected")
    card = ana.get_by_test_id(f"campaign-{campaign_id}")
    await expect(card).to_be_visible()
    async with ana.expect_response("**/api/campaigns?*status=active*"):
        await ana.get_by_test_id("campaign-filter").select_option("active")
    await expect(card).to_have_count(0)

    await call("admin", "POST", f"/api/campaigns/{campaign_id}/activate")
    await expect(card).to_be_visible()
    await call("admin", "POST", f"/api/campaigns/{campaign_id}/deactivate")
    await expect(card).to_have_count(0)


async def test_a_deleted_campaign_disappears_in_the_other_tab(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    campaign_id = await made(call, "Short-lived")
    ana = await sign_in("ana")
    other, looking = await ana.context.new_page(), await ana.context.new_page()
    await other.goto(f"{smartlink.url}/campaigns")
    await expect(other.get_by_test_id(f"campaign-{campaign_id}")).to_be_visible()
    for page in (looking, ana):
        await page.goto(f"{smartlink.url}/campaigns/{campaign_id}")
        await expect(page.get_by_test_id("live-mark")).to_have_text("Live")
    await ana.get_by_test_id("delete").click()
    await ana.get_by_test_id("confirm").click()

    await expect(other.get_by_test_id(f"campaign-{campaign_id}")).to_have_count(0)
    await expect(looking.get_by_text("This campaign doesn't exist, or you don't have access to it.")).to_be_visible()
    await expect(ana.get_by_test_id("campaign-new")).to_be_visible()
    await ana.goto(f"{smartlink.url}/campaigns/{campaign_id}")
    await expect(ana.get_by_text("This campaign doesn't exist, or you don't have access to it.")).to_be_visible()


async def test_editing_a_deleted_campaign_shows_that_it_is_gone(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    campaign_id = await made(call, "Gone in between")
    admin = await sign_in("admin")
    await admin.goto(f"{smartlink.url}/campaigns/{campaign_id}")
    await expect(admin.get_by_test_id("live-mark")).to_have_text("Live")
    # A page that has just gone live loads the campaign once more, and would see by itself that it is gone.
    await admin.wait_for_load_state("networkidle")
    await call("ana", "DELETE", f"/api/campaigns/{campaign_id}")

    await admin.get_by_test_id("activate").click()

    await expect(admin.get_by_text("This campaign doesn't exist, or you don't have access to it.")).to_be_visible()


async def test_a_save_keeps_seconds_and_succeeds_if_the_activity_fails_to_load(
    call: Callers, sign_in: SignIn, smartlink: Smartlink
) -> None:
    campaign_id = await made(call, "Punctual")
    begins = "2031-05-02T10:00:42Z"
    await call("ana", "PATCH", f"/api/campaigns/{campaign_id}", {"starts_at": begins})
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/campaigns/{campaign_id}")
    await ana.get_by_test_id("edit").click()
    await ana.get_by_label("Name").fill("Punctual still")
    await ana.route("**/activity*", lambda route: route.fulfill(status=503, body="{}"))
    await ana.get_by_test_id("campaign-save").click()

    await expect(ana.get_by_role("heading", name="Punctual still")).to_be_visible()
    await expect(ana.get_by_test_id("edit")).to_be_focused()
    assert (await call("ana", "GET", f"/api/campaigns/{campaign_id}"))["starts_at"] == begins


async def test_names_are_shown_as_text(call: Callers, sign_in: SignIn, smartlink: Smartlink) -> None:
    name = '<img src=x onerror="window.hacked=1">'
    campaign_id = await made(call, name)
    await call("ana", "PATCH", f"/api/campaigns/{campaign_id}", {"description": f"<script>x</script>{name}"})
    ana = await sign_in("ana")
    await ana.goto(f"{smartlink.url}/campaigns")
    await expect(ana.get_by_test_id(f"campaign-{campaign_id}")).to_contain_text(name)
    await ana.get_by_test_id(f"campaign-{campaign_id}").click()

    await expect(ana.get_by_role("heading", name=name)).to_be_visible()
    await expect(ana.get_by_role("main")).to_contain_text("<script>x</script>")
    assert await ana.get_by_role("main").locator("img, script").count() == 0
    assert await ana.evaluate("window.hacked") is None
