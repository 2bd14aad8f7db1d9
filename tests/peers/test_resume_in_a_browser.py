"""Unmodified pusher-js with the JavaScript helper, as the portal serves it, in a real Chromium: over WebSockets and over
both transports of the HTTP fallback, a line that is cut and a tab that stands still cost nothing."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from kit.chromium import LIMIT_MS, chromium, frozen
from kit.far import FarAway
from kit.realtime import APP_ID, KEY, SECRET, call, realtime_server
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.run.lifecycle import RealtimeServer

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
PUSHER_JS = ROOT / "frontend/node_modules/pusher-js/dist/web/pusher.js"
HELPER = ROOT / "src/smartlink/portal/static/smartlink-echo.js"
CHANNELS = ["chat", "private-room"]
PAGE = """<!doctype html><script src="pusher.js"></script><script type="module">
import { resumable } from './smartlink-echo.js'
window.came = []
window.gaps = []
window.states = []
window.asked = 0
window.replayed = 0
window.start = (port, enabledTransports, channels) => {
  const pusher = new Pusher('KEY', resumable({
    cluster: '', wsHost: '127.0.0.1', wsPort: port, httpHost: '127.0.0.1', httpPort: port, forceTLS: false,
    enabledTransports,
    onGap: (channel, reload, reason) => {
      gaps.push([channel, reason])
      window.reload = reload
    },
    channelAuthorization: { customHandler: ({ socketId, channelName }, done) => {
      asked += 1
      sign(socketId, channelName).then((auth) => done(null, { auth }))
    } },
  }))
  pusher.connection.bind('state_change', ({ current }) => states.push(current))
  window.channels = channels.map((name) => {
    const channel = pusher.subscribe(name)
    channel.bind('news', ({ eventId }) => came.push([name, eventId]))
    channel.bind('pusher:resume_success', (data) => (replayed += data.replayed))
    return channel
  })
}
window.isReady = true
</script>"""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Serves the page and the two libraries."""
    (tmp_path / "index.html").write_text(PAGE.replace("KEY", KEY))
    for library in (PUSHER_JS, HELPER):
        shutil.copy(library, tmp_path / library.name)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_address[1]}"
        files.shutdown()
        thread.join(LIMIT_S)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@asynccontextmanager
async def page_on(browser: Browser, origin: str, port: int, *transports: str) -> AsyncIterator[Page]:
    page = await browser.new_page()
    page.set_default_timeout(LIMIT_MS)
    await page.expose_function("sign", lambda socket_id, name: sign_channel(KEY, SECRET, socket_id, name))
    await page.goto(origin)
    await page.wait_for_function("window.isReady")
    await page.evaluate("(given) => start(...given)", [port, transports, CHANNELS])
    await page.wait_for_function("channels.every((channel) => channel.subscribed)")
    yield page
    await page.close()


async def publish(port: int, *numbers: int) -> None:
    for number in numbers:
        event = {"name": "news", "channels": CHANNELS, "data": json.dumps({"eventId": number})}
        assert (await call(port, "POST", f"/apps/{APP_ID}/events", json.dumps(event).encode())).status_code == 200


async def until_came(page: Page, last: int) -> None:
    await page.wait_for_function(
        "([names, last]) => names.every((name) => came.some((one) => one[0] === name && one[1] === last))",
        arg=[CHANNELS, last],
    )


async def came_once_and_in_order(page: Page, count: int) -> None:
    came = await page.evaluate("came")
    for channel in CHANNELS:
        assert [number for name, number in came if name == channel] == list(range(count))
    assert await page.evaluate("gaps") == []
    assert await page.evaluate("asked") == 1, "for the private channel, the first time"


@asynccontextmanager
async def line_to(server: RealtimeServer) -> AsyncIterator[FarAway]:
    line = FarAway(0, server.port, 0.0)
    await line.start()
    yield line
    await line.close()


# pusher-js gives up on streaming for good when two streams were cut, and goes on with polling if it may.
@pytest.mark.parametrize("transports", [["ws"], ["xhr_streaming", "xhr_polling"], ["xhr_polling"]], ids="+".join)
async def test_a_cut_line_loses_and_doubles_nothing(browser: Browser, origin: str, transports: list[str]) -> None:
    async with (
        realtime_server() as server,
        line_to(server) as line,
        page_on(browser, origin, line.port, *transports) as page,
    ):
        for number in range(0, 30, 10):
            await publish(server.port, *range(number, number + 5))
            await until_came(page, number + 4)
            await line.cut()
            await publish(server.port, *range(number + 5, number + 10))
            await until_came(page, number + 9)

        await came_once_and_in_order(page, 30)
        assert await page.evaluate("replayed") >= 3 * 5 * len(CHANNELS)


async def test_a_tab_that_stood_still_loses_and_doubles_nothing(browser: Browser, origin: str) -> None:
    async with realtime_server(reverb_app_ping_interval=2) as server:
        async with page_on(browser, origin, server.port, "ws") as page:
            await publish(server.port, 0, 1)
            await until_came(page, 1)
            async with frozen(browser):
                await eventually(lambda: len(server.node.hub) == 0)
                await publish(server.port, 2, 3, 4)
            await until_came(page, 4)

            await came_once_and_in_order(page, 5)


async def test_a_server_that_forgot_the_session_is_a_gap(browser: Browser, origin: str) -> None:
    async with realtime_server() as first, line_to(first) as line:
        async with page_on(browser, origin, line.port, "ws") as page:
            async with realtime_server() as second:
                line.lead_to(second.port)
                await line.cut()
                await page.wait_for_function("gaps.length === 2")
                assert sorted(await page.evaluate("gaps")) == [[name, "unknown"] for name in CHANNELS]
                async with page.expect_navigation():
                    await page.evaluate("reload()")
