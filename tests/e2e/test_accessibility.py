"""Every page in both themes, on desktop and phone: axe-core, keyboard use and narrow screens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from kit.accessibility import AXE, AXE_RUN, DESK, NARROW, PHONE, STICKS_OUT, TABLET
from kit.callers import Callers
from kit.chromium import chromium
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

#: Path, and whose page it is (None: of nobody who is signed in). A new page is one line here.
PAGES: list[tuple[str, str | None]] = [
    ("/sign-in", None),
    ("/register", None),
    ("/general", "ana"),
    ("/direct/2", "ana"),
    ("/notifications", "ana"),
    ("/campaigns", "ana"),
    ("/campaigns/1", "ana"),
    ("/wallet", "ana"),
    ("/account", "ana"),
    ("/admin", "admin"),
    ("/admin/users", "admin"),
    ("/admin/connections", "admin"),
    ("/admin/console", "admin"),
    ("/admin/events", "admin"),
    ("/admin/failed-jobs", "admin"),
    ("/admin/audit", "admin"),
]

Open = Callable[[Page], Awaitable[None]]


def clicks(*names: str) -> Open:
    """Click what has these test ids, one after the other."""

    async def act(page: Page) -> None:
        for name in names:
            await page.get_by_test_id(name).first.click()

    return act


def fills(name: str, text: str, then: str | None = None) -> Open:
    """Write a text, and click."""

    async def act(page: Page) -> None:
        await page.get_by_test_id(name).fill(text)
        if then is not None:
            await page.get_by_test_id(then).click()

    return act


async def first_event(page: Page) -> None:
    await page.locator("summary").first.click()


async def sends_an_event(page: Page) -> None:
    await page.get_by_label("Channel").fill("chat")
    await page.get_by_label("Event", exact=True).fill("Tried")
    await page.get_by_test_id("event-data").fill("{}")  # what was written before is kept
    await page.get_by_test_id("event-send").click()


async def goes_offline(page: Page) -> None:
    await page.context.set_offline(True)


#: What is opened on a page: the page, whose it is, how, and what is seen then.
STATES: dict[str, tuple[str, str | None, Open, str]] = {
    "sign in refused": ("/sign-in", None, clicks("login-submit"), ".field-error"),
    "registration refused": ("/register", None, clicks("login-submit"), ".field-error"),
    "menu": ("/general", "ana", clicks("account-menu"), "[role=menu]"),
    "search": ("/general", "ana", fills("search", "morning"), "[data-testid^=found-]"),
    "search without result": ("/general", "ana", fills("search", "zzzz"), ".results .note:has-text('No results')"),
    "too long a message": ("/general", "ana", fills("composer-input", "x" * 1001), ".over[data-testid=counter]"),
    "nobody": ("/direct/999999", "ana", clicks(), "h2:has-text('Conversation not found')"),
    "offline": ("/wallet", "ana", goes_offline, "[data-testid=connection-banner]"),
    "offline chat": ("/general", "ana", goes_offline, "[data-testid=connection-banner]"),
    "new campaign refused": ("/campaigns", "ana", clicks("campaign-new", "campaign-save"), ".field-error"),
    "edited campaign": ("/campaigns/1", "ana", clicks("edit"), "form"),
    "campaign about to go": ("/campaigns/1", "ana", clicks("delete"), "dialog[open]"),
    "wrong amount": ("/wallet", "ana", fills("amount", "1e9", "deposit"), ".field-error:not(:empty)"),
    "account refused": ("/account", "ana", clicks("password-save", "token-create"), ".field-error"),
    "token made": ("/account", "ana", fills("token-name", "W" * 90, "token-create"), "[data-testid=token-made]"),
    "token about to go": ("/account", "ana", clicks("token-revoke"), "dialog[open]"),
    "sessions about to end": ("/account", "ana", clicks("everywhere"), "dialog[open]"),
    "user about to be blocked": ("/admin/users", "admin", clicks("block"), "dialog[open]"),
    "no such user": ("/admin/users", "admin", fills("user-search", "zzzz"), ".blank"),
    "event with wrong JSON": ("/admin/console", "admin", fills("event-data", "{"), ".field-error .text-button"),
    "event refused": ("/admin/console", "admin", clicks("event-send"), ".field-error:not(:empty)"),
    "console with lines": ("/admin/console", "admin", sends_an_event, "[data-testid=console] li"),
    "console filtered": ("/admin/console", "admin", clicks("kind-error", "pause"), "[data-testid=resume]"),
    "event unfolded": ("/admin/events", "admin", first_event, "details[open] pre, details[open] .more"),
}

LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 6
SAID = [
    LONG_WORD,
    "שלום לכולם, מה שלומכם היום? אני כותב מימין לשמאל.",
    "🎉🎉🎉",
    "A sentence that goes on and on. " * 31,
    f"https://example.com/{'path' * 40}?query={'q' * 60}",
]
LONG_NAME = "Maximiliana-Konstantina von und zu Oberunterhausenberg " * 2

SETTLED = """() => document.querySelectorAll('.bones').length === 0 &&
  [...document.querySelectorAll('[data-testid=connection-state]')].every((one) => one.textContent.includes('Connected'))"""

#: What Tab must reach, each marked with its number; one radio or tab of a group stands for all.
TABBABLE = """() => {
  const all = [...document.querySelectorAll('a[href], button, input, select, textarea, [tabindex="0"]')]
    .filter((one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility({ visibilityProperty: true }) && one.type !== 'radio')
  all.forEach((one, index) => (one.dataset.tab = index))
  return all.map((one) => one.outerHTML.slice(0, 90))
}"""

#: The number of what has the focus, and whether one sees that it has.
FOCUSED = """async () => {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
  const one = document.activeElement
  const draws = (it) => it && (getComputedStyle(it).outlineStyle !== 'none' || getComputedStyle(it).boxShadow !== 'none')
  const { top, bottom, left, right } = one.getBoundingClientRect()
  const isInView = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth
  return [one.dataset.tab ?? null, one === document.body || (isInView && (draws(one) || draws(one.parentElement))), one.outerHTML.slice(0, 90)]
}"""


#: Everything is tried on one page before the next is opened.
each_page = pytest.mark.parametrize(("path", "whose"), PAGES, scope="module")


async def fill(call: Callers) -> None:
    """Say and make what strains a layout: long words, long names, right to left, emoji, a thousand characters."""
    await call.register("long", LONG_NAME[:100])
    for text in SAID:
        for who in ("long", "ana"):
            await call(who, "POST", "/api/chat/messages", {"message": text})
        await call("ben", "POST", "/api/chat/messages/private", {"recipient_id": 1, "message": text})
    await call("long", "POST", "/api/chat/messages/private", {"recipient_id": 1, "message": LONG_WORD})
    campaign = {"name": LONG_WORD[:100], "budget": "1", "description": LONG_WORD}
    await call("ana", "POST", "/api/campaigns", campaign)
    await call("ana", "POST", "/api/wallet/deposits", {"amount": "9999.99"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(shared_smartlink: Smartlink, call: Callers) -> AsyncIterator[dict[str | None, Page]]:
    """A page of Ana, one of the administrator, one of nobody."""
    await fill(call)
    opened: dict[str | None, Page] = {}
    async with chromium() as browser:
        for name in ("ana", "admin", None):
            context = await browser.new_context(viewport=DESK, reduced_motion="reduce", base_url=shared_smartlink.url)
            await context.add_init_script(path=AXE)
            opened[name] = page = await context.new_page()
            if name is not None:
                await page.goto("/")
                await page.get_by_test_id("login-email").fill(f"{name}@example.com")
                await page.get_by_test_id("login-password").fill("password")
                await page.get_by_test_id("login-submit").click()
                await expect(page.get_by_test_id("connection-state")).to_contain_text("Connected")
        yield opened


async def opened(pages: dict[str | None, Page], path: str, whose: str | None) -> Page:
    page = pages[whose]
    await page.set_viewport_size(DESK)
    await page.emulate_media(color_scheme="light")
    if not page.url.endswith(path):
        await page.goto(path)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await page.wait_for_function(SETTLED)
    assert page.url.endswith(path), f"{path} leads to {page.url}"
    return page


@each_page
async def test_pages_have_no_serious_violation(pages: dict[str | None, Page], path: str, whose: str | None) -> None:
    page = await opened(pages, path, whose)
    for size in (DESK, PHONE):
        await page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await expect(page.locator(f"html[data-theme={scheme}]")).to_have_count(1)
            assert await page.evaluate(AXE_RUN) == [], f"{size['width']} pixels, {scheme}"


@pytest.mark.parametrize("name", STATES)
async def test_opened_menus_and_dialogs_have_no_violation_or_overflow(pages: dict[str | None, Page], name: str) -> None:
    path, whose, act, seen = STATES[name]
    page = await opened(pages, path, whose)
    try:
        await act(page)
        await expect(page.locator(seen).first).to_be_attached()
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await expect(page.locator(f"html[data-theme={scheme}]")).to_have_count(1)
            for size in (DESK, PHONE):
                await page.set_viewport_size(size)
                assert await page.evaluate(AXE_RUN) == [], f"{size['width']} pixels, {scheme}"
        for size in (DESK, TABLET, PHONE, NARROW):
            await page.set_viewport_size(size)
            assert await page.evaluate(STICKS_OUT) == [], f"{size['width']} pixels"
    finally:
        await page.context.set_offline(False)
        await page.goto("about:blank")


@pytest.mark.parametrize(
    ("path", "whose", "opener"),
    [
        ("/campaigns/1", "ana", "delete"),
        ("/account", "ana", "everywhere"),
        ("/account", "ana", "token-revoke"),
        ("/admin/users", "admin", "block"),
    ],
)
async def test_a_dialog_keeps_the_focus_and_returns_it(
    pages: dict[str | None, Page], path: str, whose: str, opener: str
) -> None:
    page = await opened(pages, path, whose)
    button = page.get_by_test_id(opener).first
    await button.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    for _ in range(3):
        await page.keyboard.press("Tab")
        assert await page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    await page.keyboard.press("Escape")

    await expect(dialog).to_have_count(0)
    await expect(button).to_be_focused()


async def test_navigation_labels_are_not_cut_off_on_the_narrowest_page(pages: dict[str | None, Page]) -> None:
    page = await opened(pages, "/admin/users", "admin")
    await page.set_viewport_size(NARROW)
    cut = "els => els.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent)"
    assert await page.locator("nav[aria-label=Main] .place .name").evaluate_all(cut) == []


async def test_a_long_name_takes_one_line_of_the_room(pages: dict[str | None, Page]) -> None:
    page = await opened(pages, "/general", "ana")
    # Nobody's draft of before.
    await page.get_by_test_id("composer-input").fill("")
    line = await page.evaluate("document.querySelector('#composer').offsetHeight")
    await page.get_by_role("list", name="Direct messages").get_by_role("link", name="Maximiliana").click()
    await page.set_viewport_size(PHONE)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Maximiliana")

    assert await page.evaluate("document.querySelector('#composer').offsetHeight") == line


@each_page
async def test_pages_have_no_horizontal_overflow(pages: dict[str | None, Page], path: str, whose: str | None) -> None:
    page = await opened(pages, path, whose)
    for size in (DESK, TABLET, PHONE, NARROW):
        await page.set_viewport_size(size)
        assert await page.evaluate(STICKS_OUT) == [], f"{size['width']} pixels"


@each_page
async def test_tab_reaches_everything_and_shows_where_it_is(
    pages: dict[str | None, Page], path: str, whose: str | None
) -> None:
    page = await opened(pages, path, whose)
    await page.evaluate("document.activeElement.blur()")
    everything: list[str] = await page.evaluate(TABBABLE)
    reached: set[str] = set()
    for _ in range(2 * len(everything) + 8):
        await page.keyboard.press("Tab")
        number, is_shown, words = await page.evaluate(FOCUSED)
        assert is_shown, f"focus is not seen on {words}"
        reached |= {number} - {None}
        if len(reached) == len(everything):
            break
    # What went away meanwhile need not be reached, as the way down once one is there.
    stayed = await page.evaluate("[...document.querySelectorAll('[data-tab]')].map((one) => one.dataset.tab)")
    assert [everything[int(number)] for number in stayed if number not in reached] == []


async def test_f6_cycles_through_regions_and_escape_closes_the_menu(pages: dict[str | None, Page]) -> None:
    page = await opened(pages, "/general", "ana")
    seen = []
    for _ in range(4):
        await page.keyboard.press("F6")
        seen.append(await page.evaluate("document.activeElement.closest('[data-region]')?.getAttribute('aria-label')"))
    assert sorted(seen) == ["Conversations", "Main", "Messages in General", "Write a message"]

    menu = page.get_by_test_id("account-menu")
    await menu.press("Enter")
    await expect(page.get_by_role("menu")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("menu")).to_have_count(0)
    await expect(menu).to_be_focused()


async def test_escape_closes_popups(call: Callers, pages: dict[str | None, Page]) -> None:
    page = await opened(pages, "/wallet", "ana")
    await call("ben", "POST", "/api/chat/messages/private", {"recipient_id": 1, "message": "Are you there?"})
    await expect(page.get_by_test_id("toast")).to_contain_text("Are you there?")
    assert await page.evaluate(AXE_RUN) == []
    await page.keyboard.press("Escape")

    await expect(page.get_by_test_id("toast")).to_have_count(0)
