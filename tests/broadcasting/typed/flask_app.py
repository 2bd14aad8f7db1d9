"""What a newcomer writes for Flask. `# error: CODE` marks what a type checker must report, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, request
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, registry, scoped_session, sessionmaker

from smartlink.broadcasting import BroadcastEvent, Broadcasting, BroadcastSettings, PrivateChannel


class Base(DeclarativeBase):
    pass


@dataclass(frozen=True)
class User:
    id: int


engine = create_engine("sqlite:///shop.db")
sessions = scoped_session(sessionmaker(engine))
settings = BroadcastSettings(driver="log", reverb_host="realtime.internal")
broadcasting = Broadcasting(settings, base=Base, engine=engine)
by_registry = Broadcasting(base=registry(), engine=engine)


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@broadcasting.private("orders.{order_id}")
def may_follow(user: User, order_id: int) -> bool:
    return user.id == order_id


def current_user() -> User | None:
    return User(7) if request.headers.get("authorization") else None


app = Flask(__name__)
broadcasting.install(app, user=current_user)


@app.post("/orders/<int:order_id>/ship")
def ship(order_id: int) -> dict[str, bool]:
    broadcasting.announce(sessions, OrderShipped(order_id=order_id), to_others=True)
    sessions.commit()
    return {"sent": broadcasting.send_now_sync(OrderShipped(order_id=order_id), to_others=True)}


# What is wrong, and is said.

BroadcastSettings(reverb_post=8080)  # error: call-arg
Broadcasting(Base)  # error: arg-type
broadcasting.announce(OrderShipped(order_id=7))  # error: arg-type, call-arg
broadcasting.install(app, user=None, prefix=7)  # error: arg-type
broadcasting.aclose()  # error: unused-coroutine
