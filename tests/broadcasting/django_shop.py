"""A Django project whose models broadcast their changes, with the admin: `python django_shop.py URL` checks all of it.

What it does not do as it should it raises; the tests run it on each database.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import django
import pytest
from django.apps import AppConfig
from django.conf import settings
from django.core.management import call_command

URL = urlsplit(sys.argv[1])
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": URL.path[1:]}
POSTGRESQL = {
    "ENGINE": "django.db.backends.postgresql", "NAME": URL.path[1:],
    "HOST": URL.hostname, "PORT": URL.port, "USER": URL.username,
}  # fmt: skip
DATABASE = SQLITE if URL.scheme == "sqlite" else POSTGRESQL


class ShopConfig(AppConfig):  # type: ignore[misc]
    name = "__main__"
    label = "shop"
    path = os.path.dirname(__file__)  # noqa: PTH120 - as Django has it


settings.configure(
    DATABASES={"default": DATABASE, "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "smartlink.broadcasting.outbox.django",
        "__main__.ShopConfig",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    ROOT_URLCONF="__main__",
    SECRET_KEY="for tests",
    ALLOWED_HOSTS=["testserver"],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib import admin  # noqa: E402 - Django's order
from django.contrib.auth.models import Permission, User  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.db import connection, connections, models, transaction  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

from smartlink.broadcasting import BroadcastConfigError, BroadcastSettings, Channel, Delivery  # noqa: E402
from smartlink.broadcasting.integrations.django import DjangoBroadcasting  # noqa: E402
from smartlink.broadcasting.integrations.django_models import BroadcastsChanges  # noqa: E402
from smartlink.broadcasting.outbox.django.models import RecordedEvent  # noqa: E402
from smartlink.broadcasting.testing import fake_broadcasts, recorded_broadcasts_django  # noqa: E402

urlpatterns = [path("admin/", admin.site.urls)]


class Order(BroadcastsChanges, models.Model):  # type: ignore[misc]
    broadcast_fields = ("id", "status", "total")
    status = models.CharField(max_length=20, default="new")
    total = models.DecimalField(max_digits=8, decimal_places=2, default=1)

    class Meta:
        app_label = "shop"


class Cursor(BroadcastsChanges, models.Model):  # type: ignore[misc]
    broadcast_fields = ("id", "x")
    broadcast_changes = ("updated",)
    broadcast_delivery = Delivery.LIVE
    x = models.IntegerField(default=0)

    class Meta:
        app_label = "shop"

    def broadcast_on(self, change: str) -> Channel:
        return Channel("cursors")


class Quiet(models.Model):  # type: ignore[misc]
    class Meta:
        app_label = "shop"


def ids(model: str) -> list[str]:
    return sorted(found.id for found in run_checks() if model in str(found.obj))


def check_the_checks() -> None:
    class Nameless(BroadcastsChanges, models.Model):  # type: ignore[misc]
        class Meta:
            app_label = "shop"

    class Misnamed(BroadcastsChanges, models.Model):  # type: ignore[misc]
        broadcast_fields = ("id", "statsu", "owner_id")
        owner = models.ForeignKey(Order, on_delete=models.CASCADE)

        class Meta:
            app_label = "shop"

    assert ids("Order") == ids("Cursor") == []
    assert ids("Nameless") == ["smartlink_outbox.E001"]
    assert ids("Misnamed") == ["smartlink_outbox.E002"]
    own = [
        found.id for found in run_checks(include_deployment_checks=True) if found.id.startswith("smartlink_outbox.W")
    ]
    assert own == ["smartlink_outbox.W003"]
    os.environ["REVERB_PORT"] = "no port"
    assert "smartlink_outbox.E003" in [found.id for found in run_checks(include_deployment_checks=True)]
    del os.environ["REVERB_PORT"]


def check_the_changes() -> None:
    broadcasting = DjangoBroadcasting(BroadcastSettings(driver="null"), relay=False)
    broadcasting.announce_model_changes()
    broadcasting.announce_model_changes()  # again, as when a module is imported twice
    order = Order.objects.create(total="2.50")
    order.status = "shipped"
    order.save()
    with transaction.atomic():
        Order.objects.create(status="rolled back")
        transaction.set_rollback(True)
    Quiet.objects.create()
    Order.objects.filter(pk=order.pk).update(status="unseen")
    key = order.pk
    order.delete()
    recorded = recorded_broadcasts_django()
    found = [(each.name.rpartition("\\")[2], each.channel, json.loads(each.payload)) for each in recorded.sent]
    on = f"private-App.Models.Order.{key}"
    assert found == [
        ("OrderCreated", on, {"model": {"id": key, "status": "new", "total": "2.50"}}),
        ("OrderUpdated", on, {"model": {"id": key, "status": "shipped", "total": "2.50"}}),
        ("OrderDeleted", on, {"model": key}),
    ], found
    with fake_broadcasts(broadcasting) as live:
        cursor = Cursor.objects.create()
        live.assert_nothing_broadcast()
        cursor.x = 5
        cursor.save()
    [envelope] = live.sent
    assert (envelope.channel, json.loads(envelope.payload)) == ("cursors", {"model": {"id": cursor.pk, "x": 5}})
    with pytest.raises(BroadcastConfigError, match="using='other'"):
        Order(status="elsewhere").save(using="other")


def page(client: Client, url: str, **form: Any) -> str:
    answer = client.post(url, form, follow=True) if form else client.get(url)
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def user(name: str, *permissions: str) -> Client:
    made = User.objects.create_user(name, password=name, is_staff=True)
    made.user_permissions.set(Permission.objects.filter(codename__in=[f"{each}_recordedevent" for each in permissions]))
    client = Client()
    client.force_login(made)
    return client


def check_the_admin() -> None:
    first, second, third = RecordedEvent.objects.order_by("id")
    failed = RecordedEvent.objects.filter(pk__in=[first.pk, second.pk])
    assert failed.update(state="failed", error="the service refused it") == 2
    url, chosen = "/admin/smartlink_outbox/recordedevent/", [first.pk, second.pk, third.pk]
    viewer, operator = user("viewer", "view"), user("operator", "change", "delete")
    assert user("nobody").get(url).status_code == 403
    assert "OrderCreated" in page(viewer, url)
    assert "the service refused it" in page(viewer, f"{url}{first.pk}/change/")
    page(viewer, url, action="retry", _selected_action=chosen)
    assert RecordedEvent.objects.filter(state="failed").count() == 2
    for forbidden in ("add/", f"{first.pk}/delete/"):
        assert operator.get(url + forbidden).status_code == 403
    assert operator.post(f"{url}{first.pk}/change/", {"name": "forged"}).status_code == 403
    said = page(operator, url, action="retry", _selected_action=[first.pk, third.pk])
    assert "1 failed event will be sent again" in said
    newest = RecordedEvent.objects.order_by("id").last()
    assert (newest.name, newest.payload, newest.state) == (first.name, first.payload, "pending")
    assert newest.pk > third.pk
    assert not RecordedEvent.objects.filter(pk=first.pk).exists()
    assert "1 failed event forgotten" in page(operator, url, action="forget", _selected_action=chosen)
    assert "None of these has failed" in page(operator, url, action="forget", _selected_action=[third.pk])
    assert RecordedEvent.objects.count() == 2


call_command("migrate", verbosity=0)
call_command("makemigrations", "smartlink_outbox", check_changes=True, verbosity=0)
with connection.schema_editor() as editor:
    for kind in (Order, Cursor, Quiet):
        editor.create_model(kind)
with connections["other"].schema_editor() as editor:
    editor.create_model(Order)
check_the_changes()
check_the_admin()
check_the_checks()
print("as it should")  # noqa: T201 - its answer
