"""Django in one file: a plain view that broadcasts, and the authorisation endpoint. Run it: python django_orders.py"""

import os
import secrets
from dataclasses import dataclass
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from smartlink.broadcasting import (
    BroadcastEvent,
    ChannelAuthorizer,
    ChannelRules,
    Member,
    PrivateChannel,
    SocketIdWsgiMiddleware,
    SyncBroadcaster,
)

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY=secrets.token_hex(), ALLOWED_HOSTS=["127.0.0.1"])
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402 - Django must be set up first

from smartlink.broadcasting.integrations.django import broadcasting_urls  # noqa: E402

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


def user_of(request: HttpRequest) -> int | None:
    """Who is asking. Leave it out of `broadcasting_urls` to have Django's own signed-in user."""
    token: str = request.headers.get("authorization", "")
    return int(token) if token.isdigit() else None


def ship(request: HttpRequest, order_id: int) -> JsonResponse:
    # With the ORM: transaction.on_commit(lambda: broadcaster.send(...)).
    broadcaster.send(OrderShipped(order_id, owner_id=7), to_others=True)
    return JsonResponse({"shipped": order_id})


authorizer: ChannelAuthorizer[int] = ChannelAuthorizer.from_settings(rules, lambda user: Member(user))
urlpatterns = [
    path("broadcasting/", include(broadcasting_urls(authorizer, user_of))),
    path("orders/<int:order_id>/ship", ship),
]
application = SocketIdWsgiMiddleware(WSGIHandler())

if __name__ == "__main__":
    make_server("127.0.0.1", int(os.environ.get("PORT", "9000")), application).serve_forever()
