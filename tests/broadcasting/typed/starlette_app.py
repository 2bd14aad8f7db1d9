"""What a newcomer writes for Starlette. `# error: CODE` marks what a type checker must report, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from smartlink.broadcasting import BroadcastEvent, Broadcasting, PrivateChannel


class Base(DeclarativeBase):
    pass


@dataclass(frozen=True)
class User:
    id: int


engine = create_engine("sqlite:///shop.db")
broadcasting = Broadcasting.from_env(base=Base, engine=engine)


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@broadcasting.private("orders.{order_id}")
def may_follow(user: User, order_id: int) -> bool:
    return user.id == order_id


def current_user(request: Request) -> User | None:
    return User(7) if request.headers.get("authorization") else None


def ship(request: Request) -> JSONResponse:
    order_id: int = request.path_params["order_id"]
    with Session(engine) as session, session.begin():
        broadcasting.announce(session, OrderShipped(order_id=order_id), to_others=True)
    return JSONResponse({"sent": broadcasting.send_now_sync(OrderShipped(order_id=order_id))})


app = Starlette(routes=[Route("/orders/{order_id:int}/ship", ship)], lifespan=broadcasting.lifespan)
broadcasting.install(app, user=current_user)

# What is wrong, and is said.

broadcasting.send_now_sync(OrderShipped)  # error: arg-type
broadcasting.send_now_sync(OrderShipped(order_id=None))  # error: arg-type
broadcasting.install(app, user="current_user")  # error: arg-type
Starlette(lifespan=broadcasting.lifespan())  # error: arg-type
broadcasting.private("orders", guards="admins", guard="admins")(may_follow)  # error: call-arg
