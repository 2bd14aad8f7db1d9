"""The front door of each framework on each database, in real processes: nothing lost, nothing undone, nothing doubled."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import create_engine, text

from broadcasting.front_door import Base, follow
from broadcasting.shops import SHOPS
from kit import processes
from kit.client import Client, connected
from kit.far import FarAway
from kit.ports import free_port
from kit.postgres import fresh_database
from kit.realtime import realtime_server
from kit.waiting import LIMIT_S, eventually_told
from smartlink.broadcasting.outbox import define_tables
from smartlink.server.run.lifecycle import RealtimeServer

TESTS = Path(__file__).parents[1]
SHIPPED, TYPED = "App\\Events\\OrderShipped", "App\\Events\\Typed"

define_tables(Base.metadata)


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


def with_tables(url: str) -> str:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    engine.dispose()
    return url


@pytest.fixture
def on_postgresql(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield with_tables(url)


class Shop:
    """A shop's process, and what its visitors do."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def ask(self, path: str, form: Mapping[str, str], user: str) -> tuple[int, Any]:
        answer = await self._client.post(path, data=dict(form), headers={"authorization": user} if user else {})
        return answer.status_code, answer.json()

    async def post(self, path: str, sender: Client | None = None) -> httpx2.Response:
        return await self._client.post(path, headers={} if sender is None else {"x-socket-id": sender.socket_id})


@asynccontextmanager
async def running(framework: str, url: str, realtime_port: int, folder: Path) -> AsyncIterator[Shop]:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "BROADCAST_"))} | {
        "REVERB_PORT": str(realtime_port), "BROADCAST_TIMEOUT": "1", "PYTHONPATH": str(TESTS),
    }  # fmt: skip
    process = await processes.spawn(
        sys.executable, "-m", "broadcasting.shops", framework, url, str(port), cwd=folder, env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False, timeout=LIMIT_S
        ) as client:

            async def answers() -> bool:
                assert process.returncode is None, (await process.stderr.read()).decode()  # type: ignore[union-attr]
                try:
                    await client.get("/")
                except httpx2.ConnectError:
                    return False
                return True

            await eventually_told(answers)
            yield Shop(client)
    finally:
        if process.returncode is None:
            process.terminate()
        _, complained = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert b"Traceback" not in complained, complained.decode()


async def heard(client: Client, count: int) -> list[tuple[str, Any]]:
    """The next events, in the order they arrive."""
    told = [await client.receive() for _ in range(count)]
    return [(each["event"], json.loads(each["data"])) for each in told]


@pytest.mark.parametrize(
    ("framework", "database"),
    [*((framework, "postgresql") for framework in SHOPS), ("starlette", "sqlite"), ("django", "sqlite")],
)
async def test_commits_are_sent_rollbacks_are_not_and_outages_only_delay(
    framework: str, database: str, server: RealtimeServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        url = with_tables(f"sqlite:///{tmp_path / 'shop.db'}")
    else:
        url = request.getfixturevalue("on_postgresql")
    line = FarAway(free_port(), server.port, 0)
    async with (
        running(framework, url, line.port, tmp_path) as shop,
        connected(server.port) as one,
        connected(server.port) as other,
    ):
        for client in (one, other):
            await follow(client, shop.ask, "private-orders.5", "7")
        form = {"socket_id": one.socket_id, "channel_name": "private-orders.5"}
        assert [(await shop.ask("/broadcasting/auth", form, user))[0] for user in ("8", "")] == [403, 401]

        # Away: no request fails, and the durable event waits.
        assert (await shop.post("/orders/5/ship")).status_code == 200
        assert (await shop.post("/orders/5/type")).json() == {"sent": False}
        await line.start()
        [(name, data)] = await heard(other, 1)
        assert (name, data["order_id"]) == (SHIPPED, 5)
        assert await one.receive()

        # Back: a rollback sends nothing, a commit reaches all but its sender.
        assert (await shop.post("/orders/6/ship?live=1&fails=1")).status_code == 409
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as connection:
            assert connection.execute(text("SELECT id FROM orders")).scalars().all() == [5]
        engine.dispose()
        await follow(other, shop.ask, "private-orders.6", "7")
        await follow(one, shop.ask, "private-orders.6", "7")
        assert (await shop.post("/orders/6/ship?live=1", one)).status_code == 200
        found = dict(await heard(other, 2))
        assert found[TYPED] == {"order_id": 6}
        assert found[SHIPPED] == {"eventId": found[SHIPPED]["eventId"], "order_id": 6}
        assert (await shop.post("/orders/6/type", one)).json() == {"sent": True}
        assert await heard(other, 1) == [(TYPED, {"order_id": 6})]
        assert await one.is_quiet()
        assert await other.is_quiet()
    await line.close()


@pytest.mark.parametrize("framework", ["fastapi", "flask", "django"])
async def test_two_processes_send_each_event_once(
    framework: str, on_postgresql: str, server: RealtimeServer, tmp_path: Path
) -> None:
    async with (
        running(framework, on_postgresql, server.port, tmp_path) as first,
        running(framework, on_postgresql, server.port, tmp_path) as second,
        connected(server.port) as browser,
    ):
        for order in range(1, 13):
            await follow(browser, first.ask, f"private-orders.{order}", "7")
        ships = (each.post(f"/orders/{order}/ship?live=1") for order, each in enumerate([first, second] * 6, 1))
        assert {answer.status_code for answer in await asyncio.gather(*ships)} == {200}
        told = await heard(browser, 24)
        assert await browser.is_quiet()

    for kind in (SHIPPED, TYPED):
        assert sorted(data["order_id"] for name, data in told if name == kind) == list(range(1, 13))
    assert len({data["eventId"] for name, data in told if name == SHIPPED}) == 12
