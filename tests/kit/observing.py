"""What the operators' port of a server would answer."""

from __future__ import annotations

import httpx2

from kit.waiting import LIMIT_S
from smartlink.server.observe.endpoint import ObserveEndpoint
from smartlink.server.run.lifecycle import RealtimeServer

__all__ = ["observed"]


async def observed(server: RealtimeServer, path: str) -> tuple[int, str]:
    """Ask an endpoint of its own for the server's figures. Returns status and body."""
    endpoint = ObserveEndpoint("127.0.0.1", 0, lambda: server.port, server.rates.figures)
    await endpoint.start()
    try:
        async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=LIMIT_S) as client:
            answer = await client.get(f"http://127.0.0.1:{endpoint.port}{path}")
    finally:
        await endpoint.stop()
    return answer.status_code, answer.text
