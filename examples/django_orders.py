"""Django in one file: events are recorded with the change, and sent after it. Run it: python django_orders.py

Needs aiosqlite. This process sends what it records; with workers of their own, pass relay=False: docs/howto/outbox.md.
"""

import os
import secrets
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["smartlink.broadcasting.outbox.django"],
    MIDDLEWARE=["smartlink.broadcasting.integrations.django.socket_id_middleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "orders.db"}},
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402 - Django must be set up first

from smartlink.broadcasting import BroadcastEvent, PrivateChannel  # noqa: E402
from smartlink.broadcasting.integrations.django import DjangoBroadcasting  # noqa: E402

broadcasting = DjangoBroadcasting.from_env()


class OrderShipped(BroadcastEvent):
    order_id: int
    owner_id: int
    channel = PrivateChannel("orders.{owner_id}")


@broadcasting.private("orders.{owner_id}")
def own_orders(user: int, owner_id: int) -> bool:
    return user == owner_id


def user_of(request: HttpRequest) -> int | None:
    """Who is asking. Leave it out of `urls()` to have Django's own signed-in user."""
    token: str = request.headers.get("authorization", "")
    return int(token) if token.isdigit() else None


def ship(request: HttpRequest, order_id: int) -> JsonResponse:
    with transaction.atomic():
        # order.save() belongs in here, too.
        broadcasting.announce(OrderShipped(order_id=order_id, owner_id=7), to_others=True)
    return JsonResponse({"shipped": order_id})


urlpatterns = [
    path("broadcasting/", include(broadcasting.urls(user_of))),
    path("orders/<int:order_id>/ship", ship),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    make_server("127.0.0.1", int(os.environ.get("PORT", "9000")), WSGIHandler()).serve_forever()
