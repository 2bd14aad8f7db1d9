"""FastAPI with SQLAlchemy: events are recorded with the change, and sent after it. Run it: python fastapi_orders.py

Needs aiosqlite. This process sends what it records; with workers of their own, pass relay=False: docs/howto/outbox.md.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from smartlink.broadcasting import BroadcastEvent, Broadcasting, PrivateChannel


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int]
    state: Mapped[str] = mapped_column(default="new")


engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///orders.db"))
sessions = async_sessionmaker(engine)
broadcasting = Broadcasting.from_env(base=Base, engine=engine)


class OrderShipped(BroadcastEvent):
    order_id: int
    owner_id: int
    channel = PrivateChannel("orders.{owner_id}")


@broadcasting.private("orders.{owner_id}")
def own_orders(user: int, owner_id: int) -> bool:
    return user == owner_id


async def current_user(authorization: Annotated[str, Header()] = "") -> int:
    if not authorization.isdecimal():
        raise HTTPException(401)
    return int(authorization)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)  # migrations, in an application that lasts
    async with broadcasting.lifespan():
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
broadcasting.install(app, user=current_user)


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
        broadcasting.announce(session, OrderShipped(order_id=order.id, owner_id=order.owner_id), to_others=True)
    return {"shipped": order_id}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "9000")), log_level="warning")
