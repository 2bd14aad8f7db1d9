"""`Broadcasting` in FastAPI, with a real server, private channels, a database and an outage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Cookie, FastAPI, Header, HTTPException
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from broadcasting.front_door import Base, Order, OrderShipped, Typed, User, follow, settings_for
from kit.client import Client, connected
from kit.far import FarAway
from kit.ports import free_port
from kit.realtime import realtime_server
from kit.waiting import eventually
from smartlink.broadcasting import BroadcastConfigError, Broadcasting, InvalidChannel, Member, PrivateChannel
from smartlink.broadcasting.authorizer import AuthRequest
from smartlink.broadcasting.outbox import read_status
from smartlink.broadcasting.testing import fake_broadcasts


class UserWithKey:
    def __init__(self, pk: int) -> None:
        self.pk = pk


@dataclass(frozen=True)
class Shop:
    app: FastAPI
    broadcasting: Broadcasting
    sessions: async_sessionmaker[AsyncSession]
    engine: AsyncEngine
    client: httpx2.AsyncClient

    async def ask(self, path: str, form: Mapping[str, str], user: str) -> tuple[int, Any]:
        answer = await self.client.post(path, data=dict(form), headers={"authorization": user} if user else {})
        return answer.status_code, answer.json()

    async def ship(self, order: int, **more: Any) -> int:
        return (await self.client.post(f"/orders/{order}/ship", **more)).status_code


async def current_user(authorization: Annotated[str, Header()] = "") -> User:
    if not authorization.isdecimal():
        raise HTTPException(401)
    return User(int(authorization))


def build(broadcasting: Broadcasting, sessions: async_sessionmaker[AsyncSession]) -> FastAPI:
    @broadcasting.private("orders.{order_id}")
    async def may_follow(user: User, order_id: int) -> bool:
        return user.id == 7

    @broadcasting.presence("rooms.{room}")
    def may_enter(user: User, room: str) -> dict[str, str]:
        return {"name": f"User {user.id}"}

    app = FastAPI(lifespan=broadcasting.lifespan)
    broadcasting.install(app, user=current_user)

    @app.post("/orders/{order_id}/ship", status_code=204)
    async def ship(order_id: int, fails: bool = False) -> None:
        async with sessions.begin() as session:
            session.add(Order(id=order_id, state="shipped"))
            broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)
            if fails:
                raise HTTPException(409)

    @app.post("/orders/{order_id}/type")
    async def type_(order_id: int) -> bool:
        return await broadcasting.send_now(Typed(order_id=order_id), to_others=True)

    return app


@asynccontextmanager
async def open_shop(folder: Path, port: int, *, is_told_the_engine: bool = True) -> AsyncIterator[Shop]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'shop.db'}")
    sessions = async_sessionmaker(engine)
    broadcasting = Broadcasting(settings_for(port), base=Base, engine=engine if is_told_the_engine else None)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    app = build(broadcasting, sessions)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        yield Shop(app, broadcasting, sessions, engine, client)
    await engine.dispose()


@pytest.fixture(params=[True, False], ids=["engine given", "engine of the sessions"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Shop, Client, Client]]:
    """The shop, and two clients on the channel of order 5, of user 7."""
    async with (
        realtime_server() as server,
        open_shop(tmp_path, server.port, is_told_the_engine=request.param) as shop,
        connected(server.port) as one,
        connected(server.port) as other,
    ):
        for client in (one, other):
            await follow(client, shop.ask, "private-orders.5", "7")
        yield shop, one, other


async def test_what_is_announced_is_heard_after_the_commit_by_the_others(shop: tuple[Shop, Client, Client]) -> None:
    own, one, other = shop

    assert await own.ship(5, headers={"x-socket-id": one.socket_id}) == 204

    told = await other.expect("App\\Events\\OrderShipped")
    assert json.loads(told["data"]) == {"eventId": 1, "order_id": 5}
    assert await one.is_quiet()


async def test_a_rollback_sends_nothing(shop: tuple[Shop, Client, Client]) -> None:
    own, one, other = shop

    assert await own.ship(5, params={"fails": "true"}) == 409
    assert await own.ship(5) == 204

    for client in (one, other):
        assert json.loads((await client.expect("App\\Events\\OrderShipped"))["data"])["order_id"] == 5
        assert await client.is_quiet()


async def test_what_is_sent_now_is_heard_and_not_recorded(shop: tuple[Shop, Client, Client]) -> None:
    own, one, other = shop

    answer = await own.client.post("/orders/5/type", headers={"x-socket-id": one.socket_id})

    assert answer.json() is True
    assert json.loads((await other.expect("App\\Events\\Typed"))["data"]) == {"order_id": 5}
    assert await one.is_quiet()
    async with own.engine.connect() as connection:
        assert (await connection.execute(own.broadcasting.tables.recorded_events.select())).all() == []


async def test_plain_sessions_and_live_events_are_announced_too(
    shop: tuple[Shop, Client, Client], tmp_path: Path
) -> None:
    own, one, _ = shop
    async with own.sessions.begin() as session:
        own.broadcasting.announce(session, Typed(order_id=5))
    await one.expect("App\\Events\\Typed")

    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")

    def announce_in_a_plain_session() -> None:
        with sessionmaker(engine).begin() as plain:
            own.broadcasting.announce(plain, Typed(order_id=5))
            own.broadcasting.announce(plain, OrderShipped(order_id=5))
        with Session(engine) as plain:
            own.broadcasting.announce(plain, OrderShipped(order_id=5))

    await asyncio.to_thread(announce_in_a_plain_session)
    engine.dispose()
    # The relay and the thread that committed send at the same time.
    told = {(await one.receive())["event"] for _ in range(2)}
    assert told == {"App\\Events\\Typed", "App\\Events\\OrderShipped"}
    assert await one.is_quiet()


async def test_rules_decide_and_say_who_is_there(shop: tuple[Shop, Client, Client]) -> None:
    own, one, _ = shop
    form = {"socket_id": one.socket_id, "channel_name": "private-orders.5"}

    assert (await own.ask("/broadcasting/auth", form, "8"))[0] == 403
    assert (await own.ask("/broadcasting/auth", form, ""))[0] == 401
    subscribed = await follow(one, own.ask, "presence-rooms.a", "7")
    assert subscribed["presence"]["hash"] == {"7": {"name": "User 7"}}


async def test_an_outage_fails_no_request_and_the_event_arrives_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line_port = free_port()
    async with realtime_server() as server, open_shop(tmp_path, line_port) as shop, connected(server.port) as browser:
        await follow(browser, shop.ask, "private-orders.5", "7")
        assert await shop.ship(5) == 204
        assert (await shop.client.post("/orders/5/type")).json() is False
        assert "Typed was not sent: BroadcastUnavailable" in caplog.text
        assert (await read_status(shop.engine, shop.broadcasting.tables)).waiting == 1

        line = FarAway(line_port, server.port, 0)
        await line.start()
        heard = await browser.expect("App\\Events\\OrderShipped")
        assert await browser.is_quiet()
        await line.close()

    assert json.loads(heard["data"]) == {"eventId": 1, "order_id": 5}


async def test_an_application_starts_and_ends_more_than_once(tmp_path: Path) -> None:
    async with realtime_server() as server:
        for order in (5, 6):
            async with open_shop(tmp_path, server.port) as shop:
                for _ in range(2):
                    async with (
                        shop.app.router.lifespan_context(shop.app),
                        connected(server.port) as browser,
                    ):
                        await follow(browser, shop.ask, f"private-orders.{order}", "7")
                        assert await shop.broadcasting.send_now(Typed(order_id=order))
                        assert await asyncio.to_thread(shop.broadcasting.send_now_sync, Typed(order_id=order))
                        for _ in range(2):
                            await browser.expect("App\\Events\\Typed")


async def test_guards_are_dependencies_by_name(tmp_path: Path) -> None:
    broadcasting = Broadcasting(settings_for(1))

    @broadcasting.private("admin.{name}", guards=["admins"])
    def is_admin(user: str, name: str) -> bool:
        return user == name

    async def user_of_a_token(authorization: Annotated[str, Header()] = "") -> User | None:
        return User(int(authorization)) if authorization.isdecimal() else None

    def admin_of_a_cookie(admin: Annotated[str, Cookie()] = "") -> str | None:
        return admin or None

    app = FastAPI()
    broadcasting.install(app, user={"users": user_of_a_token, "admins": admin_of_a_cookie}, prefix="/realtime")
    form = {"socket_id": "1.2", "channel_name": "private-admin.ana"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client:
        statuses = [
            (await client.post("/realtime/auth", data=form, headers=headers)).status_code
            for headers in ({}, {"authorization": "7"}, {"cookie": "admin=ana"}, {"cookie": "admin=ben"})
        ]

    assert statuses == [401, 403, 200, 403]


def test_without_a_base_announcing_says_what_to_pass() -> None:
    broadcasting = Broadcasting(settings_for(1))

    with pytest.raises(BroadcastConfigError, match=r"from_env\(base=Base\)"):
        broadcasting.announce(Session(), OrderShipped(order_id=5))


async def test_a_relay_that_runs_nowhere_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    broadcasting = Broadcasting(settings_for(1), base=Base)
    worker_elsewhere = Broadcasting(settings_for(1), base=Base, relay=False)
    for each in (broadcasting, broadcasting, worker_elsewhere):
        with sessionmaker(engine).begin() as session:
            each.announce(session, OrderShipped(order_id=5))
    engine.dispose()

    assert caplog.text.count("no relay runs in this process") == 1


async def test_wrong_events_are_the_callers_and_raise() -> None:
    broadcasting = Broadcasting(settings_for(1))

    with pytest.raises(InvalidChannel):
        await broadcasting.send_now(Typed(order_id="a b"))  # type: ignore[arg-type]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_PORT", "7777")
    monkeypatch.setenv("BROADCAST_NAMESPACE", "none")
    broadcasting = Broadcasting.from_env()

    assert broadcasting.settings.reverb_port == 7777
    assert broadcasting.broadcaster.wire_name(Typed(order_id=1)) == "Typed"


@pytest.mark.parametrize("user", [User(7), 7, "7", Member(7, {}), UserWithKey(7)])
async def test_a_user_is_named_by_its_id(user: Any) -> None:
    broadcasting = Broadcasting(settings_for(1))
    broadcasting.private("a")(lambda user: True)
    question = AuthRequest("GET", "/auth", lambda: b"", query="socket_id=1.2&channel_name=private-a")

    answer = await broadcasting.authorizer.answer(question, {"default": lambda: user})

    assert json.loads(json.loads(answer.body)["channel_data"]) == {"user_id": "7"}


def test_an_application_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="FastAPI, Starlette and Flask, not object"):
        Broadcasting(settings_for(1)).install(object())


async def test_a_test_sees_what_is_sent_by_every_way(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1) as shop:
        with fake_broadcasts(shop.broadcasting) as broadcasts:
            await shop.ship(5, headers={"x-socket-id": "1.2"})
            await shop.broadcasting.send_now(Typed(order_id=5))
            await asyncio.to_thread(shop.broadcasting.send_now_sync, Typed(order_id=6))
            await eventually(lambda: len(broadcasts.sent) == 3)

    broadcasts.assert_broadcast(OrderShipped, on=PrivateChannel("orders.5"), to_others=True, times=1)
    broadcasts.assert_broadcast(Typed, times=2)
