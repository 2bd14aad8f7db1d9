"""A Django project in one file: `python django_project.py DATABASE_URL` migrates, records, and prints what it did.

With more words it is the project's `manage.py`.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command, execute_from_command_line
from django.db import connection, transaction

from smartlink.broadcasting import Envelope


def database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path[1:]}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
    }


settings.configure(
    DATABASES={"default": database(sys.argv[1])}, INSTALLED_APPS=["smartlink.broadcasting.outbox.django"], USE_TZ=True
)
django.setup()
if len(sys.argv) > 2:
    execute_from_command_line(["manage.py", *sys.argv[2:]])
    sys.exit()

from smartlink.broadcasting.outbox.django import DjangoOutbox  # noqa: E402 - Django's order
from smartlink.broadcasting.testing import recorded_broadcasts_django  # noqa: E402 - Django's order

call_command("migrate", "smartlink_outbox", verbosity=0)
call_command("migrate", "smartlink_outbox", "zero", verbosity=0)
call_command("migrate", "smartlink_outbox", verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE orders (number integer)")

outbox = DjangoOutbox()
rung: list[str] = []


class Bell:
    def ring(self, queues: set[str]) -> None:
        rung.extend(sorted(queues))


def order(number: int, *, fails: bool = False) -> list[int]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (%s)", [number])
        ids = outbox.record([Envelope("private-orders", "OrderShipped", f'{{"n":{number},"text":"100%s é"}}')])
        if fails:
            raise ValueError(number)
    return ids


outbox._bell = Bell()  # type: ignore[assignment]
ids = order(1)
try:
    order(2, fails=True)
except ValueError:
    rolled_back_rings = len(rung)
ids += outbox.record([Envelope("private-orders", "OrderShipped", f'{{"n":{n}}}', queue="high") for n in (3, 4)])
recorded_broadcasts_django().assert_broadcast("OrderShipped", on="private-orders", times=3)
recorded_broadcasts_django().assert_not_broadcast("OrderCancelled")
with connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM orders")
    orders = cursor.fetchone()[0]
print(json.dumps({"ids": ids, "orders": orders, "rung": rung, "rings_after_rollback": rolled_back_rings}))  # noqa: T201 - its answer
