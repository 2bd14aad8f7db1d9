"""The five services behind the proxy, two users in real browsers, and failures."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from kit.chromium import LIMIT_MS, chromium
from kit.deployment import Deployment
from kit.scrolling import arrives, read_back_to
from kit.talking import Writer, connected, say, sign_in

pytestmark = [pytest.mark.deploy, pytest.mark.browser, pytest.mark.timeout(420)]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


async def test_a_day_of_the_five_services(deployed: Deployment, browser: Browser) -> None:
    ana, ben = await sign_in(browser, deployed, "ana"), await sign_in(browser, deployed, "ben")
    for cookie in await ana.context.cookies():
        assert cookie["secure"], cookie["name"]
    async with Writer(deployed) as writer:
        await say(ana, "Hello from Ana")
        await arrives(ben, "Hello from Ana")
        await say(ben, "Hello from Ben")
        await arrives(ana, "Hello from Ben")

        # One realtime node is gone without a word, and comes back later.
        deployed.nodes[0].kill()
        await writer.said_more(6)
        for page in (ana, ben):
            await expect(connected(page)).to_be_visible(timeout=LIMIT_MS)
        await say(ana, "After the kill")
        await arrives(ben, "After the kill")
        deployed.nodes[0].start()
        await asyncio.to_thread(deployed.wait_until_up)

        # The other one is told to end, in the midst of traffic.
        deployed.nodes[1].signal(signal.SIGTERM)
        assert await asyncio.to_thread(deployed.nodes[1].wait) == 0
        await writer.said_more(4)
        for page in (ana, ben):
            await expect(connected(page)).to_be_visible(timeout=LIMIT_MS)
        deployed.nodes[1].start()
        await asyncio.to_thread(deployed.wait_until_up)
        await say(ben, "After the drain")
        await arrives(ana, "After the drain")

        # Redis begins anew, empty.
        deployed.redis.kill()
        await writer.said_more(5)
        await asyncio.to_thread(deployed.redis.start)
        await writer.said_more(5)
        await say(ana, "After Redis")
        await arrives(ben, "After Redis")

    assert writer.answers == {201}
    for page in (ana, ben):
        await arrives(page, writer.written[-1])
        assert [one for one in await read_back_to(page, writer.written[0]) if one in writer.written] == writer.written
    assert "Traceback" not in deployed.app.said
