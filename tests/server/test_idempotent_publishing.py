"""A repeated publish is executed once: by Idempotency-Key, and by event id."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from kit.client import Client, connected
from kit.engines import Between
from kit.realtime import an_app, call, realtime_server
from kit.waiting import eventually
from smartlink.server.run.lifecycle import RealtimeServer

EVENT = {"name": "e", "channel": "chat", "data": "1"}


async def post(server: RealtimeServer, body: Any, path: str = "events", **headers: str) -> httpx2.Response:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(server.port, "POST", f"/apps/1001/{path}", text, headers=names)


async def received(client: Client) -> list[str]:
    """The data of all events that are on their way."""
    client.send("pusher:ping", {})
    data: list[str] = []
    while (message := await client.receive())["event"] != "pusher:pong":
        data.append(message["data"])
    return data


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("events", EVENT | {"info": "subscription_count"}),
        ("batch_events", {"batch": [EVENT | {"info": "subscription_count"}]}),
    ],
)
async def test_a_call_with_the_same_key_gets_the_same_response_and_is_delivered_once(
    server: RealtimeServer, path: str, body: Any
) -> None:
    async with connected(server.port) as client, connected(server.port) as another:
        await client.subscribe("chat")
        first = await post(server, body, path, Idempotency_Key="k" * 200)
        await another.subscribe("chat")
        again = await post(server, body, path, Idempotency_Key="k" * 200)
        other = await post(server, body, path, Idempotency_Key="other")

        assert (first.status_code, first.json()) == (again.status_code, again.json())
        assert other.json() != first.json()
        assert await received(client) == ["1", "1"]


async def test_apps_do_not_share_idempotency_keys() -> None:
    async with (
        realtime_server(an_app(), type(an_app())("2", "key2", "secret2")) as server,
        connected(server.port, key="key2") as client,
    ):
        await client.subscribe("chat")
        await post(server, EVENT | {"id": "1"}, Idempotency_Key="k")
        body = json.dumps(EVENT | {"id": "1"}).encode()
        for _ in range(2):
            await call(
                server.port, "POST", "/apps/2/events", body,
                key="key2", secret="secret2", headers={"Idempotency-Key": "k"},
            )  # fmt: skip

        assert await received(client) == ["1"]


@pytest.mark.parametrize("key", ["", "k" * 201, "a b", "a\tb", "ž"])
async def test_an_invalid_key_is_refused(server: RealtimeServer, key: str) -> None:
    text = json.dumps(EVENT).encode()
    headers = {b"Idempotency-Key": key.encode()}
    answer = await call(server.port, "POST", "/apps/1001/events", text, headers=headers)  # type: ignore[arg-type]

    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["error"]


async def test_a_refused_call_is_not_stored(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        refused = await post(server, EVENT | {"name": ""}, Idempotency_Key="k")
        carried_out = await post(server, EVENT, Idempotency_Key="k")

        assert (refused.status_code, carried_out.status_code) == (400, 200)
        assert await received(client) == ["1"]


async def test_a_repeat_during_the_first_call_gets_409() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, connected(server.port) as client:
        await client.subscribe("chat")
        between.claiming.shut()
        by_key = asyncio.create_task(post(server, EVENT, Idempotency_Key="k"))
        by_id = asyncio.create_task(post(server, EVENT | {"id": "1", "data": "2"}))
        await eventually(lambda: between.claiming.waiting == 2)
        repeats = [await post(server, EVENT, Idempotency_Key="k"), await post(server, EVENT | {"id": "1"})]
        between.claiming.open()

        assert [(answer.status_code, answer.headers["Retry-After"]) for answer in repeats] == [(409, "1")] * 2
        assert [(await call).status_code for call in (by_key, by_id)] == [200, 200]
        assert sorted(await received(client)) == ["1", "2"]


async def test_an_events_id_is_unique_per_channel_on_all_nodes() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as one,
        realtime_server(engines=between.engines()) as two,
        connected(one.port) as client,
    ):
        await client.subscribe("chat")
        await client.subscribe("news")
        await post(one, EVENT | {"id": "1"})
        await post(two, EVENT | {"id": "1", "data": "again"})
        await post(two, EVENT | {"id": "2", "data": "2"})
        batch = [EVENT | {"id": "3", "data": "3"}, EVENT | {"id": "2"}, EVENT | {"id": "3"}, EVENT | {"data": "4"}]
        answer = await post(one, {"batch": batch}, "batch_events")
        await post(two, {"name": "e", "channels": ["chat", "news"], "data": "news only", "id": "1"})

        assert answer.status_code == 200
        assert await received(client) == ["1", "2", "3", "4", "news only"]


@pytest.mark.parametrize("more", [{"id": ""}, {"id": "i" * 201}, {"id": 1}, {"live": "yes"}, {"live": 1}])
async def test_an_invalid_id_or_live_flag_is_refused(server: RealtimeServer, more: dict[str, Any]) -> None:
    answer = await post(server, EVENT | more)
    batch = await post(server, {"batch": [EVENT, EVENT | more]}, "batch_events")

    assert (answer.status_code, batch.status_code) == (400, 400)


async def test_a_repeat_delivers_what_failed_while_nodes_were_disconnected() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, connected(server.port) as client:
        await client.subscribe("chat")
        nodes = between.nodes
        publish, failing = nodes[0].publish, 0

        async def publish_one(publication: Any) -> None:
            nonlocal failing
            failing += 1
            between.is_away = failing == 2
            await publish(publication)

        nodes[0].publish = publish_one  # type: ignore[method-assign]
        batch = {"batch": [EVENT | {"id": str(n), "data": str(n)} for n in range(3)]}
        failed = await post(server, batch, "batch_events", Idempotency_Key="k")
        between.is_away = False
        repeated = await post(server, batch, "batch_events", Idempotency_Key="k")

        assert (failed.status_code, failed.headers["Retry-After"], repeated.status_code) == (503, "1", 200)
        assert await received(client) == ["0", "1", "2"]
