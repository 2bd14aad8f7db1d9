"""An application built with `Broadcasting` against unmodified pusher-js and laravel-echo in Node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import uvicorn
from fastapi import FastAPI, Header
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from kit.ports import free_port
from kit.realtime import realtime_server
from kit.waiting import eventually
from peers.test_node_clients import Echo, running
from smartlink.broadcasting import BroadcastEvent, Broadcasting, BroadcastSettings, PrivateChannel


class Base(DeclarativeBase):
    pass


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@dataclass(frozen=True)
class User:
    id: int


def current_user(authorization: Annotated[str, Header()] = "") -> User | None:
    return User(int(authorization)) if authorization.isdecimal() else None


@dataclass(frozen=True)
class World:
    realtime_port: int
    application: str

    def client(self, kind: str, user: int) -> AbstractAsyncContextManager[Echo]:
        return running(
            "front_door.mjs", port=self.realtime_port, application=self.application, user=str(user), client=kind
        )


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with realtime_server() as realtime:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
        sessions = async_sessionmaker(engine)
        settings = BroadcastSettings(_env_file=None, reverb_port=realtime.port)
        broadcasting = Broadcasting(settings, base=Base, engine=engine)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

        @broadcasting.private("orders.{order_id}")
        async def may_follow(user: User, order_id: int) -> bool:
            return user.id < 9

        @broadcasting.presence("rooms.{room}")
        async def may_enter(user: User, room: str) -> dict[str, object]:
            return {"id": user.id, "name": f"User {user.id}"}

        app = FastAPI(lifespan=broadcasting.lifespan)
        broadcasting.install(app, user=current_user)

        @app.post("/orders/{order_id}/ship")
        async def ship(order_id: int) -> None:
            async with sessions.begin() as session:
                broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)

        @app.post("/orders/{order_id}/hurry")
        async def hurry(order_id: int) -> bool:
            return await broadcasting.send_now(OrderShipped(order_id=order_id), to_others=True)

        async with serving(app) as application:
            yield World(realtime.port, application)
        await engine.dispose()


@pytest.mark.parametrize("kind", ["pusher", "echo"])
async def test_events_reach_all_but_the_page_that_caused_them(world: World, kind: str) -> None:
    async with world.client(kind, 7) as ana, world.client(kind, 8) as ben:
        for client in (ana, ben):
            await client.connected()
            client.do("private", channel="orders.5")
            await client.until("subscribed")

        for path in ("/orders/5/ship", "/orders/5/hurry"):
            ana.do("post", path=path)
            assert (await ana.until("posted"))["status"] == 200
            told = (await ben.until("event"))["data"]
            assert told["order_id"] == 5
        ben.do("post", path="/orders/5/ship")

        # Had Ana heard what she caused herself, it would come first.
        assert (await ana.until("event"))["data"] == {"eventId": 2, "order_id": 5}


@pytest.mark.parametrize("kind", ["pusher", "echo"])
async def test_members_see_each_other_as_the_rule_describes_them(world: World, kind: str) -> None:
    async with world.client(kind, 7) as ana, world.client(kind, 8) as ben:
        for client in (ana, ben):
            await client.connected()
        ana.do("presence", channel="rooms.a")
        assert (await ana.until("here"))["members"] == [{"id": 7, "name": "User 7"}]
        ben.do("presence", channel="rooms.a")

        assert (await ana.until("joining"))["member"] == {"id": 8, "name": "User 8"}
        assert len((await ben.until("here"))["members"]) == 2


@pytest.mark.parametrize("kind", ["pusher", "echo"])
async def test_a_denied_user_is_told_the_status(world: World, kind: str) -> None:
    async with world.client(kind, 9) as eve:
        await eve.connected()
        eve.do("private", channel="orders.5")

        assert (await eve.until("refused"))["status"] == 403
