"""`GET /apps/{id}/status`: the server's state, over all its workers. Our own; Pusher has no such call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from smartlink.server.apps.base import App
from smartlink.server.core.health import Health
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpResponse
from smartlink.server.runtime.metrics import WEBHOOK_SAMPLES
from smartlink.server.runtime.rates import MachineOverview

__all__ = ["ABILITIES", "StatusEndpoint", "status"]

ABILITIES = ("except_user", "id", "live", "receipts", "revoke")
"""Event fields and calls supported beyond Pusher's API; publishers check before relying on them."""


@dataclass(frozen=True, slots=True)
class StatusEndpoint:
    """What the call reports. `uses_redis`: nodes are joined by Redis."""

    overview: MachineOverview
    version: str
    uses_redis: bool
    health: Health


async def status(node: Node, app: App, about: StatusEndpoint) -> HttpResponse:
    """Connections and channels are the app's, cluster-wide; rates and webhooks are this machine's, over all apps."""
    totals = await about.overview.totals()
    report = {
        "version": about.version,
        "abilities": ABILITIES,
        "connections": await node.count_connections(app),
        "channels": len(await node.presence.channels(app.id)),
        "nodes": await node.presence.nodes() if about.uses_redis else 1,
        "workers": totals.workers,
        "redis": about.health.redis,
        "problems": about.health.problems(),
        "warnings": about.health.warnings(),
        "uptime_s": int(totals.uptime_s),
        "descriptors": _descriptors(totals.figures),
    }
    rates = {name: round(value, 1) for name, value in totals.figures.items() if name.endswith("_per_s")}
    webhooks = {f"webhooks_{outcome}": int(totals.figures.get(name, 0)) for outcome, name in WEBHOOK_SAMPLES.items()}
    return HttpResponse(msgspec.json.encode(report | rates | webhooks))


def _descriptors(figures: Mapping[str, float]) -> dict[str, int]:
    """Return how many file descriptors are open, and how many may be, in the worker with the fewest left."""
    open_, limit = "smartlink_open_descriptors", "smartlink_descriptors_limit"
    found = [
        (figures[limit + name.removeprefix(open_)], used) for name, used in figures.items() if name.startswith(open_)
    ]
    most, used = min(found, key=lambda worker: worker[0] - worker[1])
    return {"open": int(used), "limit": int(most)}
