"""`Broadcasting` in Starlette and Flask, with a real server, private channels and a database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flask import Flask
from flask import request as flask_request
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broadcasting.front_door import Base, Order, OrderShipped, Typed, User, encoded, follow, settings_for
from kit import processes
from kit.client import connected
from kit.far import FarAway
from kit.ports import free_port
from kit.realtime import realtime_server
from kit.waiting import LIMIT_S
from smartlink.broadcasting import Broadcasting
from smartlink.server.run.lifecycle import RealtimeServer


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


class FlaskShop:
    """Called as a WSGI server calls it, in threads."""

    def __init__(self, folder: Path, port: int) -> None:
        self.engine = create_engine(f"sqlite:///{folder / 'shop.db'}")
        self.sessions = sessionmaker(self.engine)
        self.broadcasting = Broadcasting(settings_for(port), base=Base, engine=self.engine)
        Base.metadata.create_all(self.engine)
        self.app = Flask(__name__)

        @self.broadcasting.private("orders.{order_id}")
        def may_follow(user: User, order_id: int) -> bool:
            return user.id == 7

        def current_user() -> User | None:
            token = flask_request.headers.get("authorization", "")
            return User(int(token)) if token.isdecimal() else None

        self.broadcasting.install(self.app, user=current_user)

        @self.app.post("/orders/<int:order_id>/ship")
        def ship(order_id: int) -> Any:
            with self.sessions.begin() as session:
                session.add(Order(id=order_id, state="shipped"))
                self.broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)
                if flask_request.args.get("fails"):
                    session.rollback()
                    return {}, 409
            return {}

        @self.app.post("/orders/<int:order_id>/type")
        def type_(order_id: int) -> Any:
            return {"sent": self.broadcasting.send_now_sync(Typed(order_id=order_id), to_others=True)}

    async def post(self, path: str, form: Mapping[str, str] | None = None, **headers: str) -> tuple[int, Any]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        client = self.app.test_client()
        answer = await asyncio.to_thread(client.post, path, data=dict(form or {}), headers=sent)
        return answer.status_code, answer.json

    async def ask(self, path: str, form: Mapping[str, str], user: str) -> tuple[int, Any]:
        return await self.post(path, form, authorization=user)

    async def close(self) -> None:
        await asyncio.to_thread(self.broadcasting.close)
        self.engine.dispose()


async def test_flask_announces_sends_and_decides_who_may_listen(tmp_path: Path, server: RealtimeServer) -> None:
    shop = FlaskShop(tmp_path, server.port)
    async with connected(server.port) as one, connected(server.port) as other:
        for client in (one, other):
            await follow(client, shop.ask, "private-orders.5", "7")
        form = {"socket_id": one.socket_id, "channel_name": "private-orders.5"}
        assert (await shop.ask("/broadcasting/auth", form, "8"))[0] == 403

        assert (await shop.post("/orders/5/ship?fails=1"))[0] == 409
        assert (await shop.post("/orders/5/ship", x_socket_id=one.socket_id))[0] == 200
        told = await other.expect("App\\Events\\OrderShipped")
        assert json.loads(told["data"])["order_id"] == 5
        assert await one.is_quiet()
        assert await other.is_quiet()

        assert await shop.post("/orders/5/type", x_socket_id=one.socket_id) == (200, {"sent": True})
        await other.expect("App\\Events\\Typed")
        assert await one.is_quiet()
    await shop.close()


async def test_an_outage_fails_no_request_of_flask_and_the_event_arrives_later(
    tmp_path: Path, server: RealtimeServer
) -> None:
    line_port = free_port()
    before, shop = FlaskShop(tmp_path, line_port), FlaskShop(tmp_path, line_port)
    async with connected(server.port) as browser:
        await follow(browser, shop.ask, "private-orders.5", "7")
        assert (await before.post("/orders/5/ship"))[0] == 200
        assert await before.post("/orders/5/type") == (200, {"sent": False})
        await before.close()  # What it recorded is the next process's to send, from its first request on.

        line = FarAway(line_port, server.port, 0)
        await line.start()
        heard = await browser.expect("App\\Events\\OrderShipped")
        await line.close()
    await shop.close()

    assert json.loads(heard["data"]) == {"eventId": 1, "order_id": 5}


@pytest.mark.parametrize("is_async", [True, False])
async def test_starlette_announces_and_decides_who_may_listen(
    tmp_path: Path, server: RealtimeServer, is_async: bool
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    sessions = async_sessionmaker(engine)
    broadcasting = Broadcasting(settings_for(server.port), base=Base, engine=engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    @broadcasting.private("orders.{order_id}")
    async def may_follow(user: User, order_id: int) -> bool:
        return user.id == 7

    def current_user(request: Request) -> User | None:
        token = request.headers.get("authorization", "")
        if token == "revoked":
            raise HTTPException(419)
        return User(int(token)) if token.isdecimal() else None

    async def current_user_async(request: Request) -> User | None:
        return current_user(request)

    async def ship(request: Request) -> JSONResponse:
        async with sessions.begin() as session:
            broadcasting.announce(session, OrderShipped(order_id=request.path_params["order_id"]), to_others=True)
        return JSONResponse({})

    app = Starlette(
        routes=[Route("/orders/{order_id:int}/ship", ship, methods=["POST"])], lifespan=broadcasting.lifespan
    )
    broadcasting.install(app, user=current_user_async if is_async else current_user)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client,
        connected(server.port) as one,
        connected(server.port) as other,
    ):

        async def ask(path: str, form: Mapping[str, str], user: str) -> tuple[int, Any]:
            answer = await client.post(path, content=encoded(form), headers={"authorization": user})
            return answer.status_code, answer.json() if answer.status_code < 300 else None

        for browser in (one, other):
            await follow(browser, ask, "private-orders.5", "7")
        form = {"socket_id": one.socket_id, "channel_name": "private-orders.5"}
        assert [(await ask("/broadcasting/auth", form, user))[0] for user in ("8", "", "revoked")] == [403, 401, 419]

        await client.post("/orders/5/ship", headers={"x-socket-id": one.socket_id})
        assert json.loads((await other.expect("App\\Events\\OrderShipped"))["data"])["order_id"] == 5
        assert await one.is_quiet()
    await engine.dispose()


APPLICATION = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase
from smartlink.broadcasting import BroadcastEvent, Broadcasting, Channel

class Base(DeclarativeBase):
    pass

class Said(BroadcastEvent):
    n: int
    channel = Channel("chat")

engine = create_engine("sqlite:///shop.db")
broadcasting = Broadcasting.from_env(base=Base, engine=engine, relay=False)
lonely = Broadcasting.from_env()
"""


async def test_a_worker_of_ones_own_sends_what_an_application_recorded(tmp_path: Path, server: RealtimeServer) -> None:
    (tmp_path / "shop.py").write_text(
        f"{APPLICATION}\nif __name__ == '__main__':\n"
        "    from sqlalchemy.orm import Session\n    Base.metadata.create_all(engine)\n"
        "    with Session(engine) as session, session.begin():\n        broadcasting.announce(session, Said(n=1))\n"
    )
    environment = os.environ | {"REVERB_PORT": str(server.port)}

    async def run(*words: str) -> asyncio.subprocess.Process:
        return await processes.spawn(
            sys.executable, *words, cwd=tmp_path, env=environment, stderr=asyncio.subprocess.PIPE
        )

    async def end(process: asyncio.subprocess.Process) -> tuple[int | None, bytes]:
        _, complained = await asyncio.wait_for(process.communicate(), LIMIT_S)
        return process.returncode, complained

    async with connected(server.port) as browser:
        await browser.subscribe("chat")
        assert await end(await run("shop.py")) == (0, b"")
        worker = await run("-m", "smartlink.broadcasting", "shop:broadcasting", "--queue", "default")
        assert json.loads((await browser.expect("App\\Events\\Said"))["data"]) == {"eventId": 1, "n": 1}
        worker.send_signal(signal.SIGTERM)
        assert (await end(worker))[0] == 0
        assert (await end(await run("-m", "smartlink.broadcasting", "shop:broadcasting", "--stop-when-empty")))[0] == 0
        for wrong, said in (("shop", b"module:name"), ("shop:Base", b"not a Broadcasting"), ("shop:lonely", b"base")):
            code, complained = await end(await run("-m", "smartlink.broadcasting", wrong))
            assert (code, said in complained, b"Traceback" in complained) == (1, True, False)
