"""The library with unmodified laravel-echo: the authorizations it signs, and the events it sends."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.ports import free_port
from kit.realtime import APP_ID, KEY, SECRET, realtime_server
from kit.waiting import LIMIT_S
from peers.test_node_clients import Echo, running
from smartlink.broadcasting import (
    Broadcaster,
    BroadcastingAuth,
    BroadcastNotification,
    ChannelAuthorizer,
    ChannelEncryption,
    ChannelRules,
    EncryptedPrivateChannel,
    Member,
    PrivateChannel,
)
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.models import BroadcastsChanges
from smartlink.broadcasting.outbox import Outbox, Relay, define_tables
from smartlink.broadcasting.sessions import SessionBroadcasts

OLD, NEW = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))


async def authenticate(scope: MutableMapping[str, Any]) -> int:
    return int(dict(scope["headers"])[b"authorization"])


class World:
    """A realtime server, an application with the endpoint, and a publisher."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.auth_port = free_port()
        self._driver = PusherDriver(
            APP_ID, KEY, SECRET, host="127.0.0.1", port=port, scheme="http", is_smartlink=True, name="reverb"
        )
        self.use_key(OLD)

    def use_key(self, key: str, *previous: str) -> None:
        encryption = ChannelEncryption(key, previous)
        rules = ChannelRules()
        rules.private("{model}.{rest}")(lambda user, model, rest: True)
        rules.private("App.Models.{name}.{key}")(lambda user, name, key: True)
        rules.private("vault")(lambda user: user == 7)
        authorizer: ChannelAuthorizer[int] = ChannelAuthorizer(
            rules, key=KEY, secret=SECRET, member_of=lambda user: Member(user), encryption=encryption
        )
        self._auth = BroadcastingAuth(authorizer, authenticate)
        self.broadcaster = Broadcaster(self._driver, encryption=encryption)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._auth(scope, receive, send)

    @asynccontextmanager
    async def echo(self, user: int = 7, *, together: bool = False) -> AsyncIterator[Echo]:
        endpoint = f"http://127.0.0.1:{self.auth_port}/broadcasting/auth"
        options = {"port": self.port, "endpoint": endpoint, "user": str(user), "together": together}
        async with running("library.mjs", **options) as client:
            await client.until("state", state="connected")
            yield client

    async def aclose(self) -> None:
        await self._driver.aclose()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with realtime_server() as server:
        world = World(server.port)
        app = uvicorn.Server(uvicorn.Config(world, port=world.auth_port, log_level="error", lifespan="off", ws="none"))
        serving = asyncio.create_task(app.serve())
        async with asyncio.timeout(LIMIT_S):
            while not app.started:
                await asyncio.sleep(0.01)
        yield world
        app.should_exit = True
        await serving
        await world.aclose()


async def test_echo_decrypts_the_librarys_encrypted_events(world: World) -> None:
    async with world.echo() as ana:
        ana.do("encrypted", channel="vault")
        await ana.until("subscribed")
        await world.broadcaster.on(EncryptedPrivateChannel("vault")).as_("opened").with_({"gold": "🥇"}).send()

        assert (await ana.until("event"))["data"] == {"gold": "🥇"}


async def test_after_a_key_rotation_a_subscriber_fetches_the_new_secret(world: World) -> None:
    async with world.echo() as ana:
        ana.do("encrypted", channel="vault")
        await ana.until("subscribed")
        world.use_key(NEW, OLD)
        await world.broadcaster.on(EncryptedPrivateChannel("vault")).as_("opened").with_({"gold": 7}).send()

        assert (await ana.until("event"))["data"] == {"gold": 7}


async def test_a_denied_user_gets_no_secret(world: World) -> None:
    async with world.echo(user=8) as eve:
        eve.do("encrypted", channel="vault")

        assert (await eve.until("refused"))["status"] == 403


async def test_echo_receives_notifications(world: World) -> None:
    async with world.echo() as ana:
        ana.do("private", channel="App.Models.User.7")
        await ana.until("subscribed")
        channel = PrivateChannel("App.Models.User.7")
        await world.broadcaster.send(BroadcastNotification(channel, "invoice.paid", {"amount": "1.50"}, id="n-1"))

        assert (await ana.until("notification"))["data"] == {"amount": "1.50", "id": "n-1", "type": "invoice.paid"}


async def test_many_channels_are_authorized_in_one_call(world: World) -> None:
    async with world.echo(user=8, together=True) as ben:
        for number in range(5):
            ben.do("private", channel=f"room.{number}")
        ben.do("encrypted", channel="vault")

        told: list[str] = []
        calls = 0
        while len(told) < 6:
            observation = await ben.next()
            calls += observation["what"] == "asked"
            told += [observation["channel"]] if observation["what"] in ("subscribed", "refused") else []
        assert sorted(told) == ["room.0", "room.1", "room.2", "room.3", "room.4", "vault"]
        assert calls < 6
        await world.broadcaster.private("room.3").as_("e").with_({"n": 3}).send()
        assert (await ben.until("event", channel="room.3"))["data"] == {"n": 3}


class Base(DeclarativeBase):
    pass


class Order(BroadcastsChanges, Base):
    __tablename__ = "orders"
    broadcast_fields = ("id", "status")

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")


tables = define_tables(Base.metadata)


async def test_echo_receives_model_changes_on_use_echo_models_channel(world: World, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'orders.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    SessionBroadcasts(world.broadcaster, Outbox(tables)).attach(sessions)
    relay = Relay(engine, tables, world.broadcaster.driver)

    async with world.echo() as ana:
        ana.do("private", channel="App.Models.Order.7")
        await ana.until("subscribed")
        async with sessions.begin() as session:
            session.add(Order(id=7))
        async with sessions.begin() as session:
            (await session.get_one(Order, 7)).status = "shipped"
        await relay.run_once()

        told = [await ana.until("event") for _ in range(2)]
        assert [each["event"] for each in told] == [".OrderCreated", ".OrderUpdated"]
        assert told[1]["data"]["model"] == {"id": 7, "status": "shipped"}
        assert told[0]["data"]["eventId"] < told[1]["data"]["eventId"]
    await engine.dispose()
