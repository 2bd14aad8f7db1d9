"""Pages with 400 ms of latency: nothing waits without need, and nothing appears twice."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from kit.callers import Callers
from kit.far import FarAway
from kit.ports import free_port
from kit.serve import Smartlink

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]
ONE_WAY_S = 0.2


@dataclass(frozen=True, slots=True)
class Lines:
    """The two ways to the system, for pages and for events."""

    pages: FarAway
    events: FarAway


@pytest_asyncio.fixture(loop_scope="module")
async def lines(tmp_path: Path) -> AsyncIterator[tuple[Smartlink, Lines]]:
    port = free_port()
    running = Smartlink(tmp_path, reverb_public_host="127.0.0.1", reverb_public_port=port)
    running.start()
    far = Lines(FarAway(free_port(), running.app_port, ONE_WAY_S), FarAway(port, running.realtime_port, ONE_WAY_S))
    await far.pages.start()
    await far.events.start()
    yield running, far
    await far.events.close()
    await far.pages.close()
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def smartlink(lines: tuple[Smartlink, Lines]) -> Smartlink:
    """The system as it is seen from far away."""
    running, far = lines
    running.url = f"http://127.0.0.1:{far.pages.port}"
    return running


def message(page: Page, text: str) -> Locator:
    return page.get_by_role("log").get_by_role("listitem").filter(has_text=text)


def composer(page: Page) -> Locator:
    return page.get_by_role("textbox", name=re.compile("^Message to"))


async def test_a_sent_message_shows_at_once_and_arrives_once(lines: tuple[Smartlink, Lines], sign_in: SignIn) -> None:
    _, far = lines
    ana, ben = await sign_in("ana"), await sign_in("ben")
    await composer(ana).press_sequentially("From the other side of the world")
    await expect(ben.get_by_role("main").get_by_text("Ana is typing…")).to_have_count(1)

    far.pages.hold()
    await composer(ana).press("Enter")
    await expect(composer(ana)).to_have_value("")
    await expect(message(ana, "From the other side")).to_have_count(1)
    assert await message(ben, "From the other side").count() == 0
    far.pages.release()

    for page in (ana, ben):
        await expect(message(page, "From the other side")).to_have_count(1)
    await expect(message(ana, "From the other side").locator("[data-status=sent]")).to_have_count(1)
    await expect(ben.get_by_role("main").get_by_text("Ana is typing…")).to_have_count(0)


async def test_a_cut_connection_resumes_without_missed_events(lines: tuple[Smartlink, Lines], sign_in: SignIn) -> None:
    running, far = lines
    near = Callers(f"http://127.0.0.1:{running.app_port}")
    ana = await sign_in("ana")
    await far.events.cut()
    await near("ben", "POST", "/api/chat/messages", {"message": "Said while nobody heard"})

    await expect(message(ana, "Said while nobody heard")).to_have_count(1)
    await expect(ana.get_by_role("navigation", name="Conversations")).to_contain_text("Connected")
    await near("ben", "POST", "/api/chat/messages", {"message": "Heard again"})
    await expect(message(ana, "Heard again")).to_have_count(1)
    await expect(message(ana, "Said while nobody heard")).to_have_count(1)
