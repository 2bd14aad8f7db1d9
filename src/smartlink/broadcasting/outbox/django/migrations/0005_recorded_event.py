"""The model that the admin reads. Its table exists: nothing changes in the database."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc] # Django has no types
    """Adds `RecordedEvent` to the state."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("smartlink_outbox", "0004_trace")]
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="RecordedEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("channel", models.CharField(max_length=200)),
                ("name", models.CharField(max_length=200)),
                ("payload", models.TextField()),
                ("socket_id", models.CharField(max_length=64, null=True)),
                ("delivery", models.CharField(max_length=8)),
                (
                    "state",
                    models.CharField(
                        choices=[("pending", "pending"), ("sent", "sent"), ("failed", "failed")],
                        default="pending",
                        max_length=8,
                    ),
                ),
                ("queue", models.CharField(max_length=32)),
                ("attempts", models.IntegerField()),
                ("connection", models.CharField(max_length=64, null=True)),
                ("except_user", models.CharField(max_length=200, null=True)),
                ("receipts", models.BooleanField()),
                ("error", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
                ("sent_at", models.DateTimeField(null=True)),
            ],
            options={"db_table": "recorded_events", "managed": False},
        )
    ]
