"""Flask with SQLAlchemy: events are recorded with the change, and sent after it. Run it: python flask_orders.py

Needs aiosqlite. This process sends what it records; with workers of their own, pass relay=False: docs/howto/outbox.md.
"""

import os

from flask import Flask, request
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, sessionmaker

from smartlink.broadcasting import BroadcastEvent, Broadcasting, PrivateChannel


class Base(DeclarativeBase):
    pass


engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///orders.db"))
sessions = sessionmaker(engine)
broadcasting = Broadcasting.from_env(base=Base, engine=engine)


class OrderShipped(BroadcastEvent):
    order_id: int
    owner_id: int
    channel = PrivateChannel("orders.{owner_id}")


@broadcasting.private("orders.{owner_id}")
def own_orders(user: int, owner_id: int) -> bool:
    return user == owner_id


def current_user() -> int | None:
    token = request.headers.get("authorization", "")
    return int(token) if token.isdigit() else None


app = Flask(__name__)
broadcasting.install(app, user=current_user)


@app.post("/orders/<int:order_id>/ship")
def ship(order_id: int) -> dict[str, int]:
    with sessions.begin() as session:
        # The change of the order belongs in here, too.
        broadcasting.announce(session, OrderShipped(order_id=order_id, owner_id=7), to_others=True)
    return {"shipped": order_id}


if __name__ == "__main__":
    Base.metadata.create_all(engine)  # migrations, in an application that lasts
    app.run(port=int(os.environ.get("PORT", "9000")))
