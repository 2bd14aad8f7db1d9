"""Unmodified pusher-js in a real Chromium with only the HTTP fallback, from a page of another origin."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from kit.chromium import LIMIT_MS, chromium
from kit.client import connected
from kit.realtime import KEY, SECRET, call, realtime_server
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.run.lifecycle import RealtimeServer

pytestmark = pytest.mark.browser
TRANSPORTS = pytest.mark.parametrize("transport", ["xhr_streaming", "xhr_polling"])
PUSHER_JS = Path(__file__).parents[2] / "frontend/node_modules/pusher-js/dist/web/pusher.js"
PAGE = """<!doctype html><script src="pusher.js"></script><script>
const heard = [];
function start(port, transport, path) {
  window.pusher = new Pusher("KEY", {
    cluster: "", wsHost: "127.0.0.1", httpHost: "127.0.0.1", httpPort: port, forceTLS: false, enableStats: false,
    enabledTransports: [transport], ...(path ? {httpPath: path} : {}),
    channelAuthorization: {customHandler: (params, done) =>
      sign(params.socketId, params.channelName).then((auth) => done(null, {auth}))},
  });
  pusher.connection.bind("state_change", ({current}) => heard.push(["state", current]));
  pusher.connection.bind("error", (error) => heard.push(["error", error?.data?.code ?? error?.error?.data?.code]));
}
function subscribe(name) {
  window.channel = pusher.subscribe(name);
  channel.bind_global((event, data) => heard.push([event, data]));
}
</script>"""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Serves the page and the library."""
    (tmp_path / "index.html").write_text(PAGE.replace("KEY", KEY))
    shutil.copy(PUSHER_JS, tmp_path / "pusher.js")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_address[1]}"
        files.shutdown()
        thread.join(LIMIT_S)


@pytest.fixture
async def page(origin: str) -> AsyncIterator[Page]:
    async with chromium() as browser:
        opened = await browser.new_page()
        opened.set_default_timeout(LIMIT_MS)
        await opened.expose_function("sign", lambda socket_id, name: sign_channel(KEY, SECRET, socket_id, name))
        await opened.goto(origin)
        yield opened


async def hears(page: Page, event: str, count: int = 1) -> list[Any]:
    """What the page was told with `event`, once that is `count` times."""
    await page.wait_for_function("([e, n]) => heard.filter((h) => h[0] === e).length >= n", arg=[event, count])
    told: list[Any] = await page.evaluate("(e) => heard.filter((h) => h[0] === e).map((h) => h[1])", event)
    return told


async def is_in_state(page: Page, state: str) -> None:
    await page.wait_for_function("(s) => pusher.connection.state === s", arg=state)


@TRANSPORTS
@pytest.mark.parametrize("path", ["", "/app-host"], ids=["default path", "path of its own"])
async def test_it_connects_subscribes_receives_and_sends(page: Page, transport: str, path: str) -> None:
    async with realtime_server(reverb_server_path=path) as server, connected(server.port) as other:
        await page.evaluate("([port, t, path]) => start(port, t, path)", [server.port, transport, path])
        await is_in_state(page, "connected")
        await page.evaluate("subscribe('private-room')")
        await hears(page, "pusher:subscription_succeeded")
        await other.subscribe("private-room")

        await page.evaluate("channel.trigger('client-typing', {n: 1})")
        assert (await other.expect("client-typing"))["data"] == {"n": 1}
        other.send("client-typing", {"n": 2}, channel="private-room")
        assert await hears(page, "client-typing") == [{"n": 2}]
        assert await page.evaluate("performance.getEntriesByType('resource').some((r) => r.name.includes('/xhr'))")


@TRANSPORTS
async def test_it_requests_a_new_stream_when_one_is_full_and_misses_nothing(page: Page, transport: str) -> None:
    async with realtime_server() as server:
        await page.evaluate("([port, t]) => start(port, t)", [server.port, transport])
        await is_in_state(page, "connected")
        await page.evaluate("subscribe('private-room')")
        await hears(page, "pusher:subscription_succeeded")
        for number in range(0, 400, 10):
            parts = [json.dumps({"n": n, "text": "ö😀" * 300}) for n in range(number, number + 10)]
            batch = [{"name": "part", "channel": "private-room", "data": part} for part in parts]
            answer = await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": batch}).encode())
            assert answer.status_code == 200
            # A page that is further behind than the server's backlog allows is closed as too slow.
            heard = await hears(page, "part", number + 10)

        assert [part["n"] for part in heard] == list(range(400))
        states = await page.evaluate("heard.filter((h) => h[0] === 'state').map((h) => h[1])")
        assert states == ["connected"]
        verb = transport.removesuffix("_polling")
        asked = await page.evaluate(
            "(v) => performance.getEntriesByType('resource').filter((r) => r.name.includes(`/${v}?`)).length", verb
        )
        assert asked >= 1  # the stream that is open is not counted yet
        assert len(server.node.hub) == 1


@TRANSPORTS
async def test_it_disconnects_when_the_page_closes(page: Page, transport: str) -> None:
    async with realtime_server() as server:
        await page.evaluate("([port, t]) => start(port, t)", [server.port, transport])
        await is_in_state(page, "connected")
        await page.goto("about:blank")

        await eventually(lambda: server.metrics.connections_closed == 1)


@TRANSPORTS
async def test_it_reconnects_after_the_server_closed_it(page: Page, transport: str) -> None:
    server: RealtimeServer
    async with realtime_server() as server:
        await page.evaluate("([port, t]) => start(port, t)", [server.port, transport])
        await is_in_state(page, "connected")
        await page.evaluate("subscribe('private-room')")
        await hears(page, "pusher:subscription_succeeded")
        for connection in server.node.hub:
            connection.close(4200, "Connect again")
        await hears(page, "pusher:subscription_succeeded", 2)


@TRANSPORTS
async def test_it_gives_up_on_a_wrong_key(page: Page, transport: str) -> None:
    async with realtime_server(reverb_app_key="another-key") as server:
        await page.evaluate("([port, t]) => start(port, t)", [server.port, transport])
        await is_in_state(page, "disconnected")

        assert 4001 in await hears(page, "error")
        assert server.metrics.connections_opened == 0
