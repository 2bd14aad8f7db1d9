"""A deployment for each test: real PostgreSQL, Redis and nginx, services in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.deployment import Deployment, deployment
from kit.postgres import fresh_database
from kit.redis import redis_server


@pytest.fixture
def deployed(tmp_path: Path, postgres_url: str) -> Iterator[Deployment]:
    with (
        fresh_database(postgres_url) as database,
        redis_server() as redis,
        deployment(tmp_path, database, redis) as running,
    ):
        yield running
