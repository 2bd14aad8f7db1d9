"""The proxy in front of two nodes and the portal: routing, limits and headers."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from kit.deployment import KEY, SECRET, Deployment
from kit.talking import heard, publish, socket
from kit.waiting import LIMIT_S
from smartlink.protocol.signing import signed_query

pytestmark = pytest.mark.timeout(240)
ONCE = ("content-security-policy", "x-content-type-options", "referrer-policy", "strict-transport-security")


async def test_the_proxy_routes_everything(deployed: Deployment) -> None:
    async with httpx2.AsyncClient(base_url=deployed.url, verify=deployed.trusting(), timeout=LIMIT_S) as client:
        await check_what_passes(client)
        await check_what_stays_inside(client, deployed)
        await check_signing_in(client)
        await check_sockets(deployed)


async def check_what_passes(client: httpx2.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    for name in ONCE:
        assert len(page.headers.get_list(name)) == 1, name
    assert "content-encoding" not in page.headers
    place = (await client.get("/api/realtime")).json()
    assert (place["port"], place["scheme"]) == (client.base_url.port, "https")
    asset = page.text.partition('src="/assets/')[2].partition('"')[0]
    first = await client.get(f"/assets/{asset}", headers={"Accept-Encoding": "gzip"})
    again = await client.get(f"/assets/{asset}", headers={"Accept-Encoding": "gzip"})
    assert first.status_code == again.status_code == 200
    assert first.headers["content-encoding"] == "gzip"
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
    too_large = await client.post("/api/login", content=b"x" * 200_000, headers={"Content-Type": "application/json"})
    assert too_large.status_code == 413


async def check_what_stays_inside(client: httpx2.AsyncClient, deployed: Deployment) -> None:
    for path in ("/webhooks/realtime", "/metrics", "/apps/77/channels", "/apps", "/users/1/terminate_connections", "/up",
                 "/%77ebhooks/realtime", "/x/../webhooks/realtime"):  # fmt: skip
        for method in ("GET", "POST"):
            answer = await client.request(method, path)
            assert (answer.status_code, "nginx" in answer.text) == (404, True), path
    async with httpx2.AsyncClient() as plain:
        moved = await plain.get(f"http://127.0.0.1:{deployed.plain_port}/chat?x=1")
        assert (moved.status_code, moved.headers["location"]) == (308, f"{deployed.url}/chat?x=1")
        inside = f"http://127.0.0.1:{deployed.inside_port}"
        query = signed_query(KEY, SECRET, "GET", "/apps/77/status", timestamp=int(asyncio.get_running_loop().time()))
        assert (await plain.get(f"{inside}/apps/77/status?{query}")).status_code == 401  # reached, and a wrong clock
        assert (await plain.get(f"{inside}/api/realtime")).status_code == 404


async def check_signing_in(client: httpx2.AsyncClient) -> None:
    origin = str(client.base_url).rstrip("/")
    form = {"email": "ana@example.com", "password": "password"}
    answer = await client.post("/api/session", json=form, headers={"Origin": origin})
    assert answer.status_code in (200, 201), answer.text
    for cookie in answer.headers.get_list("set-cookie"):
        assert "Secure" in cookie


async def check_sockets(deployed: Deployment) -> None:
    """Both nodes get some; when one dies, whoever was there finds the other."""
    async with socket(deployed) as one, socket(deployed) as other:
        for client in (one, other):
            await heard(client, "pusher:connection_established")
            await client.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "news"}}))
            await heard(client, "pusher_internal:subscription_succeeded")
        await publish(deployed, "first")
        for client in (one, other):
            assert (await heard(client, "news"))["data"] == '"first"'

        deployed.nodes[0].kill()

        ended = []
        for client in (one, other):
            try:
                await asyncio.wait_for(client.wait_closed(), 2)
                ended.append(client)
            except TimeoutError:
                continue
        assert len(ended) == 1
        with pytest.raises(ConnectionClosed):
            await ended[0].recv()
    for _ in range(3):
        async with socket(deployed) as client:
            await heard(client, "pusher:connection_established")
            await client.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "news"}}))
            await heard(client, "pusher_internal:subscription_succeeded")
            await publish(deployed, "second")
            assert (await heard(client, "news"))["data"] == '"second"'
