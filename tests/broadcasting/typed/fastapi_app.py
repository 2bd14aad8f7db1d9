"""What a newcomer writes for FastAPI. `# error: CODE` marks what a type checker must report, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from smartlink.broadcasting import (
    BroadcastEvent,
    Broadcasting,
    BroadcastNow,
    Grant,
    Member,
    PresenceChannel,
    PrivateChannel,
)
from smartlink.broadcasting.server_api import ServerApi, SyncServerApi


class Base(DeclarativeBase):
    pass


@dataclass(frozen=True)
class User:
    id: int
    orders: tuple[int, ...] = ()


class Room:
    pass


async def current_user() -> User:
    return User(7)


engine = create_async_engine("sqlite+aiosqlite:///shop.db")
sessions = async_sessionmaker(engine)
broadcasting = Broadcasting.from_env(base=Base, engine=engine, member_of=lambda user: Member(user.id))
by_metadata = Broadcasting.from_env(base=MetaData(), engine="sqlite:///shop.db", relay=False, embedded=True)


class OrderShipped(BroadcastEvent):
    order_id: int
    note: str = ""
    channel = PrivateChannel("orders.{order_id}")


class Typed(BroadcastNow):
    room: str
    channels = (PresenceChannel("rooms.{room}"), PrivateChannel("typing"))


@broadcasting.private("orders.{order_id}")
async def may_follow(user: User, order_id: int) -> bool:
    return order_id in user.orders


@broadcasting.presence("rooms.{room}")
def may_enter(user: User, room: str) -> dict[str, str] | None:
    return {"name": f"User {user.id}, {room}"}


@broadcasting.presence("halls.{hall}", guards=["admins"])
async def may_visit(user: User, hall: UUID) -> Member | bool:
    return Member(user.id)


@broadcasting.private("shows.{show}")
async def may_watch(user: User, show: int) -> Grant | bool:
    return Grant(expires_in=timedelta(hours=2)) if show in user.orders else False


@broadcasting.presence("shows.{show}")
def may_watch_together(user: User, show: int) -> Grant | None:
    return Grant(expires_in=7200, info={"name": f"User {user.id}, {show}"})


@broadcasting.private("doors.{door}")
class DoorRule:
    def join(self, user: User, door: str) -> bool:
        return bool(door)


async def load_room(pk: int) -> Room | None:
    return Room()


broadcasting.resolve(Room, load_room)
broadcasting.private("open")(lambda user: True)


@asynccontextmanager
async def own_lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with broadcasting.lifespan(app):
        yield


app = FastAPI(lifespan=broadcasting.lifespan)
other = FastAPI(lifespan=own_lifespan)
broadcasting.install(app, user=current_user)
broadcasting.install(other, user={"web": current_user, "admins": current_user}, prefix="/realtime")


@app.post("/orders/{order_id}/ship")
async def ship(order_id: int) -> bool:
    async with sessions.begin() as session:
        broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)
        broadcasting.announce(session, OrderShipped(order_id, note="late"), to_other_users=7)
    is_sent: bool = await broadcasting.send_now(Typed(room="a"), to_others=True)
    return is_sent and (await may_follow(User(7), order_id))


# What is wrong, and is said.


@broadcasting.private("a")  # error: type-var
def answers_with_text(user: User) -> str:
    return "yes"


Grant(expires_in="2h")  # error: arg-type


@broadcasting.presence("b")  # error: type-var
async def answers_with_a_user(user: User) -> User:
    return user


@broadcasting.private("c")  # error: type-var
def takes_no_user() -> bool:
    return True


@broadcasting.private  # error: arg-type
def has_no_pattern(user: User) -> bool:
    return True


async def mistakes() -> None:
    broadcasting.send_now(Typed(room="a"))  # error: unused-coroutine
    await broadcasting.send_now(Typed)  # error: arg-type
    await broadcasting.send_now(OrderShipped(order_id="7"))  # error: arg-type
    await broadcasting.send_now(OrderShipped())  # error: call-arg
    await broadcasting.send_now(OrderShipped(order_id=7, colour="red"))  # error: call-arg
    await broadcasting.send_now("OrderShipped")  # error: arg-type
    await broadcasting.send_now(OrderShipped(order_id=7), to_other=True)  # error: call-arg
    OrderShipped(7).order_id = 8  # error: misc
    async with sessions.begin() as session:
        broadcasting.announce(OrderShipped(order_id=7), session)  # error: arg-type
        broadcasting.announce(session, OrderShipped)  # error: arg-type
        broadcasting.announce(session)  # error: call-arg
        await broadcasting.announce(session, OrderShipped(7))  # error: misc, func-returns-value
    broadcasting.announce(sessions, OrderShipped(order_id=7))  # error: arg-type
    broadcasting.announce(engine, OrderShipped(order_id=7))  # error: arg-type
    broadcasting.install(other, user=User(7))  # error: arg-type
    broadcasting.install(other, current_user)  # error: call-arg
    FastAPI(lifespan=broadcasting.lifespan())  # error: arg-type
    Broadcasting.from_env(base=engine)  # error: arg-type
    Broadcasting.from_env(bse=Base)  # error: call-arg
    Broadcasting.from_env(base=Base, engine=sessions)  # error: arg-type
    Broadcasting.from_env(member_of=lambda user: user.name.upper() + 1, relay="no")  # error: arg-type
    PrivateChannel(7)  # error: arg-type
    may_follow(7, 7)  # error: arg-type, unused-coroutine


async def ask_the_server() -> None:
    async with ServerApi.from_settings(broadcasting.settings) as api:
        counted = await api.channels("presence-", info=["user_count"])
        await api.channels(info=["users"])  # error: list-item
        most: int = max(channel.user_count or 0 for channel in counted.values())
        most = (await api.members("presence-rooms.1"))[0].id  # error: assignment
        api.terminate(7)  # error: unused-coroutine
    with SyncServerApi.from_settings() as blocking:
        blocking.publish(PrivateChannel("typing"), "typed", {"room": most})
        blocking.history("typing", after="7")  # error: arg-type
