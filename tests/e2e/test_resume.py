"""After a lost connection the realtime server sends pages what they missed; they ask the portal only if it cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Page, Request, expect

from kit.callers import Callers
from kit.far import FarAway
from kit.ports import free_port
from kit.serve import Smartlink
from kit.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SignIn = Callable[[str], Awaitable[Page]]
EVENTS, AUTHORIZATION = "/api/events", "/broadcasting/auth"


@pytest_asyncio.fixture(loop_scope="module")
async def line(smartlink: Smartlink) -> AsyncIterator[FarAway]:
    """The way to the realtime server, which can be cut."""
    line = FarAway(int(smartlink.environment["REVERB_PUBLIC_PORT"]), smartlink.realtime_port, 0.0)
    await line.start()
    yield line
    await line.close()


@pytest.fixture
def smartlink(tmp_path: Path) -> Smartlink:
    return Smartlink(tmp_path, reverb_public_host="127.0.0.1", reverb_public_port=free_port())


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _started(smartlink: Smartlink) -> AsyncIterator[None]:
    smartlink.start()
    yield
    assert smartlink.stop() == 0
    assert "Traceback" not in smartlink.log.read_text()


async def settled(page: Page) -> list[str]:
    """Wait until the page has loaded, then return the paths that it asks for from now on."""
    await page.wait_for_load_state("networkidle")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(urlsplit(request.url).path)

    page.on("request", note)
    return asked


async def is_shown(page: Page, text: str) -> None:
    await expect(page.get_by_role("log").get_by_role("listitem").filter(has_text=text)).to_have_count(1)


async def test_a_resumed_page_asks_the_portal_for_nothing(smartlink: Smartlink, line: FarAway, sign_in: SignIn) -> None:
    call = Callers(smartlink.url)
    ana = await sign_in("ana")
    await ana.clock.install()
    asked = await settled(ana)
    for number in range(2):
        await line.cut()
        await call("ben", "POST", "/api/chat/messages", {"message": f"Missed {number}"})
        await is_shown(ana, f"Missed {number}")
    # Whatever the page would still ask for later, it asks for now.
    await ana.clock.fast_forward(10_000)
    await call("ben", "POST", "/api/chat/messages", {"message": "Heard"})
    await is_shown(ana, "Heard")

    for number in range(2):
        await is_shown(ana, f"Missed {number}")
    assert {EVENTS, AUTHORIZATION} & set(asked) == set(), asked


async def test_a_page_asks_the_portal_when_the_server_knows_it_no_more(
    smartlink: Smartlink, line: FarAway, sign_in: SignIn
) -> None:
    ana = await sign_in("ana")
    asked = await settled(ana)
    await line.close()
    smartlink.stop()
    smartlink.start()
    await Callers(smartlink.url)("ben", "POST", "/api/chat/messages", {"message": "Said after the restart"})
    await line.start()

    await is_shown(ana, "Said after the restart")
    await eventually(lambda: EVENTS in asked)
