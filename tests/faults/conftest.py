"""The outbox's databases, for tests that kill."""

from __future__ import annotations

from broadcasting.conftest import database as database
from broadcasting.conftest import outbox_postgres_url as outbox_postgres_url
from broadcasting.conftest import postgres_url as postgres_url
