from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.realtime import realtime_server
from smartlink.server.lifecycle import RealtimeServer


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running
        assert running.metrics.internal_errors == 0
