"""Where the tests that kill find their databases and Redis, and how they wait less."""

from __future__ import annotations

import pytest

from broadcasting.conftest import database as database
from broadcasting.conftest import outbox_postgres_url as outbox_postgres_url
from smartlink.server.cluster.brokers import redis as broker
from smartlink.server.cluster.presence import redis as presence
from smartlink.server.cluster.redis import commands, connect, pubsub


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits of the Redis engines a few times shorter, in proportion; the true ones are tried by one test each."""
    for module in (connect, commands):
        monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(pubsub, "SILENCE_S", 0.8)
    monkeypatch.setattr(broker, "BEAT_EVERY_S", 0.2)
    monkeypatch.setattr(presence, "BEAT_EVERY_S", 0.2)
    monkeypatch.setattr(presence, "LEASE_MS", 1_500)
    monkeypatch.setattr(presence, "STALL_MS", 600)
    monkeypatch.setattr(presence, "SETTLE_S", 0.6)
    for module in (commands, broker):
        monkeypatch.setattr(module, "LAST_BACKOFF_S", 0.2)
