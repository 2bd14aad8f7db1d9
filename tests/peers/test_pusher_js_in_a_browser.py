"""The browser build of pusher-js, unmodified, in a real Chromium."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from kit.chromium import chromium
from kit.client import connected
from kit.realtime import APP_ID, KEY, SECRET, call, realtime_server
from kit.waiting import LIMIT_S
from smartlink.broadcasting import Broadcaster, ChannelEncryption, EncryptedPrivateChannel
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.protocol.errors import Code
from smartlink.protocol.signing import sign_channel

pytestmark = pytest.mark.browser

WEB_BUILDS = Path(__file__).parent / "node" / "node_modules" / "pusher-js" / "dist" / "web"
PUSHER_JS = WEB_BUILDS / "pusher.js"
CLIENT = """
(port) => {
  window.pusher = new Pusher('app-key', {
    wsHost: '127.0.0.1', wsPort: port, forceTLS: false, enabledTransports: ['ws'], cluster: 'none',
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => sign(socketId, channelName).then((auth) => done(null, auth)),
    },
  })
  pusher.connection.bind('state_change', ({ current }) => tell({ what: 'state', state: current }))
  pusher.connection.bind('error', (error) => tell({ what: 'error', code: error?.data?.code ?? error?.error?.data?.code ?? null }))
  window.listen = (name) => {
    const channel = pusher.subscribe(name)
    channel.bind('pusher:subscription_succeeded', (members) =>
      tell({ what: 'subscribed', channel: name, count: members?.count ?? null, me: members?.me ?? null }))
    channel.bind('pusher:error', ({ code }) => tell({ what: 'refused event', channel: name, code }))
    channel.bind('pusher:subscription_error', ({ status, type }) => tell({ what: 'refused', channel: name, status, type }))
    channel.bind('pusher:member_added', (member) => tell({ what: 'joined', id: member.id, info: member.info }))
    channel.bind('pusher:member_removed', (member) => tell({ what: 'left', id: member.id }))
    channel.bind('greeting', (data, meta) => tell({ what: 'event', channel: name, data, by: meta?.user_id ?? null }))
    channel.bind('client-typing', (data, meta) => tell({ what: 'typing', data, by: meta?.user_id ?? null }))
  }
}
"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


class Page:
    """A page with pusher-js in it, and what it told."""

    def __init__(self, page: Any, encryption: ChannelEncryption | None = None) -> None:
        self._page = page
        self.encryption = encryption
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def open(self, port: int, user_id: str) -> None:
        def sign(socket_id: str, channel: str) -> dict[str, str]:
            if channel == "private-forbidden":
                return {"auth": f"{KEY}:{'0' * 64}"}
            if not channel.startswith("presence-"):
                auth = {"auth": sign_channel(KEY, SECRET, socket_id, channel)}
                secret = {} if self.encryption is None else {"shared_secret": self.encryption.shared_secret(channel)}
                return auth | secret
            member = json.dumps({"user_id": user_id, "user_info": {"name": f"<{user_id}>"}})
            return {"auth": sign_channel(KEY, SECRET, socket_id, channel, member), "channel_data": member}

        await self._page.expose_function("tell", self._told.put_nowait)
        await self._page.expose_function("sign", sign)
        build = PUSHER_JS if self.encryption is None else WEB_BUILDS / "pusher-with-encryption.js"
        await self._page.add_script_tag(path=build)
        await self.run(f"({CLIENT})({port})")

    async def run(self, script: str) -> None:
        await self._page.evaluate(script)

    async def until(self, what: str, **more: Any) -> dict[str, Any]:
        """The next observation of this kind; others are passed over."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                told = await self._told.get()
                if told["what"] == what and more.items() <= told.items():
                    return told

    async def listen(self, channel: str) -> dict[str, Any]:
        await self.run(f"listen({channel!r})")
        return await self.until("subscribed", channel=channel)


@asynccontextmanager
async def page(
    browser: Browser, port: int, user_id: str, encryption: ChannelEncryption | None = None
) -> AsyncIterator[Page]:
    context = await browser.new_context()
    it = Page(await context.new_page(), encryption)
    await it.open(port, user_id)
    yield it
    await context.close()


async def publish(port: int, channel: str, data: Any) -> None:
    body = json.dumps({"name": "greeting", "channel": channel, "data": json.dumps(data)}).encode()
    assert (await call(port, "POST", "/apps/1001/events", body)).status_code == 200


async def test_channels_members_client_events_refusals_and_leaves_work(browser: Browser) -> None:
    async with (
        realtime_server() as server,
        page(browser, server.port, "ana") as ana,
        page(browser, server.port, "ben") as ben,
    ):
        for one in (ana, ben):
            await one.until("state", state="connected")
            await one.listen("chat")
            await one.listen("private-room")
        assert await ana.listen("presence-room") == {
            "what": "subscribed", "channel": "presence-room", "count": 1, "me": {"id": "ana", "info": {"name": "<ana>"}}
        }  # fmt: skip
        assert (await ben.listen("presence-room"))["count"] == 2
        assert await ana.until("joined") == {"what": "joined", "id": "ben", "info": {"name": "<ben>"}}

        await publish(server.port, "chat", {"text": "žluť 😀"})
        for one in (ana, ben):
            assert (await one.until("event"))["data"] == {"text": "žluť 😀"}
        await ana.run("pusher.channel('private-room').trigger('client-typing', {n: 1})")
        assert await ben.until("typing") == {"what": "typing", "data": {"n": 1}, "by": None}
        await ana.run("pusher.channel('presence-room').trigger('client-typing', {n: 2})")
        assert await ben.until("typing") == {"what": "typing", "data": {"n": 2}, "by": "ana"}

        await ana.run("listen('private-forbidden')")
        assert await ana.until("refused") == {
            "what": "refused", "channel": "private-forbidden", "status": 401, "type": "AuthError"
        }  # fmt: skip
        await ana.run("pusher.channel('private-room').trigger('client-' + 'x'.repeat(300), {})")
        assert (await ana.until("error"))["code"] == 4301
        assert await ana.until("refused event") == {"what": "refused event", "channel": "private-room", "code": 4301}

        await ben.run("pusher.unsubscribe('chat'); pusher.unsubscribe('presence-room')")
        assert await ana.until("left") == {"what": "left", "id": "ben"}
        await publish(server.port, "chat", 1)
        await publish(server.port, "private-room", 2)
        assert (await ben.until("event"))["data"] == 2


async def test_it_reconnects_at_once_when_asked_to(browser: Browser) -> None:
    async with realtime_server() as server, page(browser, server.port, "ana") as ana:
        await ana.until("state", state="connected")
        await ana.listen("private-room")
        for connection in list(server.node.hub):
            connection.close(Code.RECONNECT, "Connect again")
        await ana.until("state", state="connected")
        await ana.until("subscribed", channel="private-room")
        await publish(server.port, "private-room", "again")

        assert (await ana.until("event"))["data"] == "again"


async def test_a_terminated_client_does_not_reconnect(browser: Browser) -> None:
    async with realtime_server() as server, page(browser, server.port, "ana") as ana:
        await ana.until("state", state="connected")
        await ana.listen("presence-room")
        await call(server.port, "POST", "/apps/1001/users/ana/terminate_connections", b"{}")

        assert (await ana.until("error"))["code"] == 4009
        await ana.until("state", state="disconnected")
        assert server.node.connections(server.node._apps.by_id("1001")) == 0  # type: ignore[arg-type]


async def test_over_capacity_it_waits_and_reconnects(browser: Browser) -> None:
    async with realtime_server(reverb_app_max_connections=1) as server, AsyncExitStack() as stack:
        async with connected(server.port):
            ana = await stack.enter_async_context(page(browser, server.port, "ana"))
            assert (await ana.until("error"))["code"] == 4100
        await ana.until("state", state="connected")


async def test_the_encryption_build_decrypts_the_librarys_events_also_after_a_key_rotation(
    browser: Browser,
) -> None:
    old, new = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))
    async with realtime_server() as server, page(browser, server.port, "ana", ChannelEncryption(old)) as ana:
        driver = PusherDriver(APP_ID, KEY, SECRET, host="127.0.0.1", port=server.port, scheme="http")
        vault = EncryptedPrivateChannel("vault")
        await ana.until("state", state="connected")
        await ana.listen("private-encrypted-vault")

        first = Broadcaster(driver, encryption=ChannelEncryption(old))
        await first.on(vault).as_("greeting").with_({"gold": "🥇"}).send()
        assert (await ana.until("event"))["data"] == {"gold": "🥇"}

        ana.encryption = ChannelEncryption(new, (old,))
        second = Broadcaster(driver, encryption=ana.encryption)
        await second.on(vault).as_("greeting").with_({"silver": "🥈"}).send()
        assert (await ana.until("event"))["data"] == {"silver": "🥈"}
        await driver.aclose()
