"""What a newcomer gets wrong at the front door is refused where it is written, with the cure in the message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from broadcasting.front_door import OrderShipped, User, settings_for
from kit.waiting import eventually
from smartlink.broadcasting import BroadcastConfigError, BroadcastEvent, Broadcasting, PrivateChannel
from smartlink.broadcasting.authorizer import AuthRequest


class Base(DeclarativeBase):
    pass


@pytest.fixture
def broadcasting() -> Broadcasting:
    return Broadcasting(settings_for(1), base=Base)


def test_a_rule_without_a_pattern(broadcasting: Broadcasting) -> None:
    with pytest.raises(TypeError, match="needs a pattern first"):

        @broadcasting.private  # type: ignore[arg-type] # what the test is about
        def may_follow(user: User) -> bool:
            return True


def test_guards_that_are_one_text(broadcasting: Broadcasting) -> None:
    with pytest.raises(TypeError, match=r"guards=\['admin'\]"):
        broadcasting.private("audit", guards="admin")


def test_a_rule_that_is_not_a_function(broadcasting: Broadcasting) -> None:
    with pytest.raises(TypeError, match="method join, not 7"):
        broadcasting.private("audit")(7)  # type: ignore[type-var] # what the test is about


def test_rules_that_do_not_match_their_pattern(broadcasting: Broadcasting) -> None:
    with pytest.raises(ValueError, match=r"takes \(user, order_id\), but .* takes \(user, number\)"):
        broadcasting.private("orders.{order_id}")(lambda user, number: True)
    with pytest.raises(ValueError, match="leave the prefix out"):
        broadcasting.private("private-orders")(lambda user: True)


def test_a_member_of_that_returns_an_id() -> None:
    broadcasting = Broadcasting(settings_for(1), member_of=lambda user: user.id)
    broadcasting.presence("lobby")(lambda user: True)
    question = AuthRequest("GET", "/auth", lambda: b"", query="socket_id=1.2&channel_name=presence-lobby")

    with pytest.raises(TypeError, match="member_of gave int; give a Member"):
        broadcasting.authorizer.answer_sync(question, {"default": lambda: User(7)})


async def test_why_a_subscription_is_denied_is_in_the_log(
    broadcasting: Broadcasting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "smartlink.broadcasting")
    app = FastAPI()
    broadcasting.install(app, user=lambda: User(7))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client:
        form = {"socket_id": "1.2", "channel_name": "private-orders.7"}
        assert (await client.post("/broadcasting/auth", data=form)).status_code == 403

    assert "private-orders.7 is denied: no rule matches" in caplog.text


def test_a_channel_that_is_a_field() -> None:
    with pytest.raises(TypeError, match="channel: ClassVar = "):

        class Annotated(BroadcastEvent):
            order_id: int
            channel: PrivateChannel = PrivateChannel("orders.{order_id}")

    class OfTheClass(BroadcastEvent):
        order_id: int
        channel: ClassVar = PrivateChannel("orders.{order_id}")

    assert OfTheClass(7).broadcast_with() == {"order_id": 7}


def test_an_event_without_a_channel() -> None:
    class Nowhere(BroadcastEvent):
        order_id: int

    with pytest.raises(TypeError, match=r"Nowhere has no channel: set channel = PrivateChannel\(\.\.\.\)"):
        Nowhere(7)


@pytest.mark.parametrize("wrong", [7, "Base", create_engine("sqlite://")], ids=["number", "text", "engine"])
def test_a_base_without_tables(wrong: Any) -> None:
    with pytest.raises(BroadcastConfigError, match="base is your declarative base or its MetaData"):
        Broadcasting(settings_for(1), base=wrong)


def test_an_engine_without_a_base() -> None:
    with pytest.raises(BroadcastConfigError, match=r"from_env\(base=Base\)"):
        Broadcasting(settings_for(1), engine="sqlite:///shop.db")


def test_something_other_than_a_session(broadcasting: Broadcasting) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        for wrong in (engine, connection, sessionmaker(engine), OrderShipped(order_id=7), None):
            with pytest.raises(TypeError, match=f"session of SQLAlchemy first.*not {type(wrong).__name__}"):
                broadcasting.announce(wrong, OrderShipped(order_id=7))  # type: ignore[arg-type] # as above


def test_an_event_that_is_a_class(broadcasting: Broadcasting) -> None:
    with Session(create_engine("sqlite://")) as session, pytest.raises(TypeError, match="is not an event"):
        broadcasting.announce(session, OrderShipped)  # type: ignore[arg-type] # what the test is about


@pytest.mark.parametrize("app", [FastAPI, lambda: Flask("shop")], ids=["fastapi", "flask"])
@pytest.mark.parametrize("wrong", [User(7), "current_user", {}, {"web": User(7)}])
def test_a_user_that_is_not_a_function(broadcasting: Broadcasting, app: Callable[[], Any], wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"install\(user=\.\.\.\) takes the function"):
        broadcasting.install(app(), user=wrong)


def test_rules_without_endpoints(broadcasting: Broadcasting, caplog: pytest.LogCaptureFixture) -> None:
    broadcasting.install(FastAPI())
    assert caplog.text == ""
    broadcasting.private("audit")(lambda user: True)
    broadcasting.install(FastAPI())

    assert "install(app, user=...) is missing" in caplog.text


async def test_a_blocking_send_in_an_event_loop(broadcasting: Broadcasting) -> None:
    with pytest.raises(RuntimeError, match=r"use `await send_now"):
        broadcasting.send_now_sync(OrderShipped(order_id=7))


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("shop.db", "looks like postgresql://user@host/shop"),
        ("sqlite://", "use a file"),
        ("mysql://127.0.0.1/shop", "not mysql"),
        (create_async_engine("sqlite+aiosqlite://"), "use a file"),
    ],
    ids=["no URL", "in memory", "MySQL", "in memory, async"],
)
async def test_a_database_that_the_relay_cannot_use_stops_the_start(engine: Any, said: str) -> None:
    app = FastAPI(lifespan=Broadcasting(settings_for(1), base=Base, engine=engine).lifespan)

    with pytest.raises(BroadcastConfigError, match=said):
        async with app.router.lifespan_context(app):
            pytest.fail("it serves")


async def test_a_relay_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    broadcasting = Broadcasting(settings_for(1), base=Base, engine="postgresql+psycopg://127.0.0.1/shop")

    with pytest.raises(BroadcastConfigError, match="pip install asyncpg"):
        async with broadcasting.lifespan():
            pytest.fail("it serves")


async def test_a_thread_that_cannot_relay_says_why_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broadcasting = Broadcasting(settings_for(1), base=Base, engine="sqlite://")
    app = Flask("shop")
    broadcasting.install(app)
    app.test_client().get("/")

    await eventually(lambda: "the relay has stopped, recorded events wait: the relay needs its own" in caplog.text)
    assert "Traceback" not in caplog.text


async def test_tables_that_are_missing_are_named_by_what_records_and_by_the_relay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    broadcasting = Broadcasting(settings_for(1), base=Base, engine=engine)

    async with broadcasting.lifespan():
        with Session(engine) as session:
            broadcasting.announce(session, OrderShipped(order_id=7))
            with pytest.raises(OperationalError) as caught:
                session.commit()
        await eventually(lambda: "scheduled job prune failed" in caplog.text)
    engine.dispose()

    assert "Broadcasting(base=...)" in caught.value.__notes__[0]
    assert "INSERT" not in caplog.text
