"""Flask in one file: a view that broadcasts, and the authorisation endpoint. Run it: python flask_orders.py"""

import os
from dataclasses import dataclass

from flask import Flask, request

from smartlink.broadcasting import (
    BroadcastEvent,
    ChannelAuthorizer,
    ChannelRules,
    Member,
    PrivateChannel,
    SocketIdWsgiMiddleware,
    SyncBroadcaster,
)
from smartlink.broadcasting.integrations.flask import broadcasting_blueprint

app = Flask(__name__)
broadcaster = SyncBroadcaster.from_settings()
rules = ChannelRules()


@dataclass(frozen=True)
class OrderShipped(BroadcastEvent):
    order_id: int
    owner_id: int

    def broadcast_on(self) -> PrivateChannel:
        return PrivateChannel(f"orders.{self.owner_id}")


@rules.private("orders.{owner_id}")
def own_orders(user: int, owner_id: int) -> bool:
    return user == owner_id


def current_user() -> int | None:
    token = request.headers.get("authorization", "")
    return int(token) if token.isdigit() else None


@app.post("/orders/<int:order_id>/ship")
def ship(order_id: int) -> dict[str, int]:
    broadcaster.send(OrderShipped(order_id, owner_id=7), to_others=True)
    return {"shipped": order_id}


authorizer: ChannelAuthorizer[int] = ChannelAuthorizer.from_settings(rules, lambda user: Member(user))
app.register_blueprint(broadcasting_blueprint(authorizer, current_user), url_prefix="/broadcasting")
app.wsgi_app = SocketIdWsgiMiddleware(app.wsgi_app)  # type: ignore[method-assign]

if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "9000")))
