"""FastAPI with SQLAlchemy: events are recorded with the change, and sent after it. Run it: python fastapi_orders.py

Needs aiosqlite. The worker runs in this process; beside several processes it is one of its own: docs/howto/outbox.md.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from smartlink.broadcasting import (
    Broadcaster,
    BroadcastEvent,
    ChannelAuthorizer,
    ChannelRules,
    Member,
    PrivateChannel,
    SocketIdMiddleware,
)
from smartlink.broadcasting.integrations.fastapi import broadcasting_router
from smartlink.broadcasting.outbox import Outbox, Relay, define_tables
from smartlink.broadcasting.sessions import SessionBroadcasts


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int]
    state: Mapped[str] = mapped_column(default="new")


@dataclass(frozen=True)
class OrderShipped(BroadcastEvent):
    order_id: int
    owner_id: int

    def broadcast_on(self) -> PrivateChannel:
        return PrivateChannel(f"orders.{self.owner_id}")


engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///orders.db"))
sessions = async_sessionmaker(engine)
tables = define_tables(Base.metadata)
outbox = Outbox(tables)
broadcaster = Broadcaster.from_settings()
broadcasts = SessionBroadcasts(broadcaster, outbox)
broadcasts.attach(sessions)
rules = ChannelRules()


@rules.private("orders.{owner_id}")
def own_orders(user: int, owner_id: int) -> bool:
    return user == owner_id


async def current_user(authorization: Annotated[str, Header()] = "") -> int:
    if not authorization.isdecimal():
        raise HTTPException(401)
    return int(authorization)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    stop = asyncio.Event()
    relay = Relay(engine, tables, broadcaster.driver, wakeup=outbox.wakeup)
    async with broadcaster, asyncio.TaskGroup() as group:
        group.create_task(relay.run(stop))
        yield
        stop.set()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(SocketIdMiddleware)
authorizer: ChannelAuthorizer[int] = ChannelAuthorizer.from_settings(rules, lambda user: Member(user))
app.include_router(broadcasting_router(authorizer, current_user), prefix="/broadcasting")


@app.post("/orders", status_code=201)
async def place(user: Annotated[int, Depends(current_user)]) -> dict[str, int]:
    async with sessions.begin() as session:
        order = Order(owner_id=user)
        session.add(order)
        await session.flush()
        return {"id": order.id}


@app.post("/orders/{order_id}/ship")
async def ship(order_id: int) -> dict[str, int]:
    async with sessions.begin() as session:
        order = await session.get(Order, order_id)
        if order is None:
            raise HTTPException(404)
        order.state = "shipped"
        broadcasts.announce(session, OrderShipped(order.id, order.owner_id), to_others=True)
    return {"shipped": order_id}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "9000")), log_level="warning")
