"""Every configuration of deploy/proxy, in front of two nodes and the portal: routing, streaming, reloads."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from playwright.async_api import expect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from kit import processes
from kit.chromium import LIMIT_MS, chromium
from kit.deployment import KEY, Deployment, deployment
from kit.ports import free_port
from kit.postgres import fresh_database
from kit.proxies import PROXIES, HAProxy, Proxy
from kit.readers import Reader, as_ana
from kit.redis import redis_server
from kit.scrolling import arrives, read_back_to
from kit.talking import Writer, connected, heard, publish, say, sign_in
from kit.waiting import LIMIT_S, eventually, eventually_told

pytestmark = [pytest.mark.deploy, pytest.mark.browser, pytest.mark.timeout(600)]
SESSION = "0123456789abcdef-0123_456789"
APP = f"/app/{KEY}"
READERS = 20
LONGER_THAN_DEFAULTS_S = 65
"""nginx, lighttpd and Varnish close silent connections after 60 s by default."""


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Deployment]:
    """One deployment for all proxies, which take turns on the same ports. Its nodes send no pings."""
    with (
        fresh_database(postgres_url) as database,
        redis_server() as redis,
        deployment(tmp_path_factory.mktemp("standing"), database, redis, REVERB_APP_PING_INTERVAL="300",
                   REVERB_APP_ACTIVITY_TIMEOUT="300") as running,
    ):  # fmt: skip
        yield running


@pytest.fixture(scope="module", params=PROXIES, ids=lambda kind: kind.name)
def proxy(request: pytest.FixtureRequest, standing: Deployment) -> Proxy:
    return standing.put(request.param)


@asynccontextmanager
async def browsing(deployed: Deployment, address: str = "127.0.0.1") -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the public entry point, which comes from `address`."""
    transport = httpx2.AsyncHTTPTransport(verify=deployed.trusting(), local_address=address)
    async with httpx2.AsyncClient(base_url=deployed.url, transport=transport, timeout=LIMIT_S) as client:
        yield client


@asynccontextmanager
async def subscribed(deployed: Deployment, port: int, path: str = APP) -> AsyncIterator[ClientConnection]:
    """A socket through the proxy at `port`, subscribed to `news`."""
    address = f"wss://127.0.0.1:{port}{path}?protocol=7"
    async with connect(address, ssl=deployed.trusting(), origin=deployed.url, ping_interval=None) as client:
        await heard(client, "pusher:connection_established")
        await client.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "news"}}))
        await heard(client, "pusher_internal:subscription_succeeded")
        yield client


async def test_it_passes_pages_sockets_and_the_fallback(proxy: Proxy, standing: Deployment) -> None:
    async with browsing(standing) as client:
        page = await client.get("/")
        asset = page.text.partition('src="/assets/')[2].partition('"')[0]
        script = await client.get(f"/assets/{asset}", headers={"Accept-Encoding": "gzip"})
        too_large = await client.post("/api/login", content=b"x" * 200_000)
    async with subscribed(standing, standing.port) as socket:
        await publish(standing, proxy.name)
        assert (await heard(socket, "news"))["data"] == f'"{proxy.name}"'

    assert page.status_code == 200
    for name in ("content-security-policy", "x-content-type-options", "strict-transport-security"):
        assert len(page.headers.get_list(name)) == 1, name
    assert (script.status_code, script.headers["content-encoding"]) == (200, "gzip")
    assert too_large.status_code == 413
    async with httpx2.AsyncClient() as plain:
        moved = await plain.get(f"http://127.0.0.1:{standing.plain_port}/chat?x=1")
    assert (moved.status_code, moved.headers["location"]) == (308, f"{standing.url}/chat?x=1")


def test_doctor_passes_it(proxy: Proxy, standing: Deployment) -> None:
    done = processes.run(
        [standing.program, "doctor", "--json", "--only", "proxy"],
        cwd=standing.folder, env=standing.environment | {"SSL_CERT_FILE": str(standing.certificate)},
        capture_output=True, text=True,
    )  # fmt: skip

    states = {check["check"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert states == dict.fromkeys(("proxy", "clock", "upgrade", "sessions", "fallback"), "fine") | {
        "public certificate": "warning",  # the tests' ends tomorrow
        "idle": "skipped",
    }, f"{proxy.name}: {done.stdout}"


@pytest.mark.parametrize(
    "path", [f"/s/{SESSION}{APP}", f"/s/{SESSION}/pusher{APP}/1/abcdefgh/xhr", f"/pusher{APP}/info"]
)
async def test_it_forwards_every_path_of_the_realtime_server(path: str, proxy: Proxy, standing: Deployment) -> None:
    async with browsing(standing) as client, httpx2.AsyncClient() as direct:
        answer = await client.get(path)
        of_the_node = await direct.get(f"http://127.0.0.1:{standing.node_ports[0]}{path}")

    assert (answer.status_code, answer.text) == (of_the_node.status_code, of_the_node.text)


async def test_internal_paths_get_404_from_outside(proxy: Proxy, standing: Deployment) -> None:
    async with browsing(standing) as client:
        for path in ("/webhooks/realtime", "/metrics", "/apps/77/channels", "/apps", "/users/1/terminate_connections",
                     "/up", "/%77ebhooks/realtime", "/x/../webhooks/realtime"):  # fmt: skip
            for method in ("GET", "POST"):
                answer = await client.request(method, path)
                assert answer.status_code == 404, (method, path)
                assert "content-security-policy" not in answer.headers, "the application answered"
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{standing.inside_port}") as inside:
        assert (await inside.get("/apps/77/channels")).status_code == 401
        assert (await inside.get("/up")).status_code == 200
        assert (await inside.get("/api/realtime")).status_code == 404


async def test_the_client_address_cannot_be_forged(proxy: Proxy, standing: Deployment) -> None:
    form = {"email": f"{proxy.name}@example.com", "password": "wrong"}

    async def tries(address: str, number: int) -> int:
        forged = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
        async with browsing(standing, address) as client:
            return (await client.post("/api/login", json=form, headers=forged)).status_code

    statuses = [await tries("127.0.0.5", number) for number in range(11)]

    assert 429 not in statuses[:10]
    assert statuses[10] == 429
    assert await tries("127.0.0.6", 0) == statuses[0]


async def test_the_fallback_streams(proxy: Proxy, standing: Deployment) -> None:
    base = f"/pusher{APP}/123/{secrets.token_hex(4)}"
    headers = {"Origin": standing.url}
    async with browsing(standing) as client:
        async with client.stream("POST", f"{base}/xhr_streaming?protocol=7", headers=headers) as stream:
            assert stream.status_code == 200
            lines = stream.aiter_lines()

            async def message_named(event: str) -> str:
                async with asyncio.timeout(LIMIT_S):
                    async for line in lines:
                        for text in json.loads(line[1:]) if line[0] == "a" else []:
                            if json.loads(text)["event"] == event:
                                return str(text)
                raise AssertionError("the stream ended")

            await message_named("pusher:connection_established")
            subscribing = json.dumps({"event": "pusher:subscribe", "data": {"channel": "news"}})
            sent = await client.post(f"{base}/xhr_send", content=json.dumps([subscribing]), headers=headers)
            assert sent.status_code == 204
            await message_named("pusher_internal:subscription_succeeded")
            await publish(standing, "by the stream")
            assert "by the stream" in await message_named("news")


async def test_a_reload_under_load_loses_no_message(proxy: Proxy, standing: Deployment) -> None:
    async with chromium() as browser:
        ana, ben = await sign_in(browser, standing, "ana"), await sign_in(browser, standing, "ben")
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(as_ana(standing))
            readers = [await stack.enter_async_context(Reader(standing, api)) for _ in range(READERS)]
            writer = await stack.enter_async_context(Writer(standing, proxy.name))
            await say(ana, f"Hello through {proxy.name}")
            await arrives(ben, f"Hello through {proxy.name}")
            for _ in range(2):
                await writer.said_more(3)
                await asyncio.to_thread(proxy.reload)
            # Longer than old processes keep their sockets.
            await writer.said_more(20)
            for reader in readers:
                await eventually(lambda reader=reader: reader.has(writer.written[-1]), what="the last message arrives")

        assert writer.answers == {201}
        for reader in readers:
            reader.check(writer.written)
        for page in (ana, ben):
            await expect(connected(page)).to_be_visible(timeout=LIMIT_MS)
            await arrives(page, writer.written[-1])
            assert [
                one for one in await read_back_to(page, writer.written[0]) if one in writer.written
            ] == writer.written


async def test_browsers_open_sockets_over_the_pages_http2_connection(standing: Deployment) -> None:
    """RFC 8441: HAProxy offers it, and translates it to HTTP/1.1 for the nodes."""
    proxy = standing.put(HAProxy)
    async with chromium() as browser:
        page = await sign_in(browser, standing, "ana")
        await say(page, "Hello over HTTP/2")
        await arrives(page, "Hello over HTTP/2")
        await page.close()

    # A socket is logged when it ends.
    await eventually(lambda: f'{APP} HTTP/2.0"' in proxy.said, what="a socket over HTTP/2 in HAProxy's log")


async def test_clients_of_a_dead_node_reach_the_other(proxy: Proxy, standing: Deployment) -> None:
    standing.nodes[0].kill()
    try:

        async def is_served() -> bool:
            try:
                async with subscribed(standing, standing.port) as socket:
                    await publish(standing, "still there")
                    return bool((await heard(socket, "news"))["data"] == '"still there"')
            except (InvalidMessage, InvalidStatus):
                return proxy.tries_another_node and pytest.fail("a handshake failed")

        for _ in range(4):
            await eventually_told(is_served, what="the other node serves the client")
    finally:
        standing.nodes[0].start()
        await asyncio.to_thread(standing.wait_until_up)


async def test_silent_sockets_stay_open(standing: Deployment) -> None:
    """All proxies at once, in front of the same two nodes."""
    async with AsyncExitStack() as stack:
        sockets: dict[str, ClientConnection] = {}
        for kind in PROXIES:
            ports = {"port": free_port(), "plain_port": free_port(), "inside_port": free_port()}
            standby = kind(replace(standing.place, **ports))
            standby.start()
            stack.callback(standby.end)
            await eventually_told(lambda port=ports["inside_port"]: accepts(port), what=f"{kind.name} is up")
            sockets[kind.name] = await stack.enter_async_context(subscribed(standing, ports["port"]))

        await asyncio.sleep(LONGER_THAN_DEFAULTS_S)  # the silence under test

        await publish(standing, "after silence")
        for name, socket in sockets.items():
            assert (await heard(socket, "news"))["data"] == '"after silence"', name


async def accepts(port: int) -> bool:
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            return (await client.get("/up")).status_code == 200
    except httpx2.TransportError:
        return False
