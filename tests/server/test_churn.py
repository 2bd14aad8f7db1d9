"""After any number of joins and leaves, nothing is kept of ended connections."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest

from kit.churn import CHANNELS, Churn
from kit.two_tenants import ONE, Stage, stage
from kit.waiting import eventually
from smartlink.server.core.client import ClientConnection

SOAK_S = float(os.environ.get("SMARTLINK_SOAK_SECONDS", "0"))


async def nothing_is_left(scene: Stage) -> None:
    server = scene.server
    for client in scene.watching.values():
        client.writer.transport.abort()
    await eventually(lambda: len(server.node.hub) == 0, what="connections in the hub")
    await eventually(lambda: server.metrics.connections_opened == server.metrics.connections_closed)
    for app_id in ("1001", "1002"):
        tenant = server.node.hub.tenant(app_id)
        assert (tenant.connections, tenant.channels) == ({}, {})
        assert not await server.node.presence.channels(app_id, "")
    assert server.node.connections(ONE) == 0
    for channel in CHANNELS:
        assert not await server.node.presence.members(ONE.id, channel)
    assert not server.node.tasks._tasks

    # What lingers is looked after until its peer is gone; the publishers' connections end with their clients.
    scene.api.close()
    await eventually(lambda: not server._sweeper._others, what="lingering connections")
    await eventually(lambda: not server._poller.links, what="links")  # type: ignore[union-attr]
    gc.collect()
    assert [thing for thing in gc.get_objects() if isinstance(thing, ClientConnection)] == []


async def test_nothing_is_kept_of_connections_that_ended() -> None:
    async with stage() as scene:
        churn = Churn(scene.server.port, for_s=2)
        await churn.run()

        assert churn.visits > churn.workers
        await nothing_is_left(scene)


def resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(not SOAK_S, reason="takes minutes: make soak")
@pytest.mark.timeout(SOAK_S * 2 + 120)
async def test_memory_does_not_grow_during_a_soak(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the slope of the resident memory after a warm-up; clients run in the same process and count, too."""
    async with stage() as scene:
        await Churn(scene.server.port, for_s=SOAK_S / 4).run()
        samples: list[tuple[float, int]] = []
        visits, began = 0, time.monotonic()
        for _ in range(12):
            churn = Churn(scene.server.port, for_s=SOAK_S / 16)
            await churn.run()
            visits += churn.visits
            gc.collect()
            samples.append((time.monotonic() - began, resident_kib()))
        mean_t = sum(t for t, _ in samples) / len(samples)
        mean_r = sum(r for _, r in samples) / len(samples)
        slope = sum((t - mean_t) * (r - mean_r) for t, r in samples) / sum((t - mean_t) ** 2 for t, _ in samples)
        with capsys.disabled():
            print(  # noqa: T201 — the report that `make soak` is for
                f"\nsoak: {visits} visits in {samples[-1][0]:.0f} s, {samples[0][1]} to {samples[-1][1]} KiB resident, "
                f"slope {slope * 3600 / 1024:.2f} MiB/h, {slope * samples[-1][0] / visits * 1024:.0f} bytes a visit"
            )

        assert slope * samples[-1][0] / visits < 0.2, "more than 200 bytes stay of each visit"
        await nothing_is_left(scene)
