"""The operators' endpoint of a server in the test's own loop, and a client of its API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from kit.waiting import LIMIT_S
from smartlink.server.observe.access import Access
from smartlink.server.observe.api import OperatorApi
from smartlink.server.observe.endpoint import ObserveEndpoint
from smartlink.server.observe.operators import Operators
from smartlink.server.run.lifecycle import RealtimeServer


class OperatorClient:
    """Calls the API at a port."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.headers = dict(headers or {})

    async def request(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None, **query: str
    ) -> httpx2.Response:
        sent = self.headers | dict(headers or {})
        async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=LIMIT_S) as client:
            url = f"http://127.0.0.1:{self.port}/api/{path}"
            if body is None:
                return await client.request(method, url, params=query, headers=sent)
            return await client.request(method, url, params=query, json=body, headers=sent)

    async def get(self, path: str, **query: str) -> Any:
        """The answer's body, which must be a success."""
        answer = await self.request("GET", path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def console(self, **query: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The lines of a console, once it watches."""
        async with (
            httpx2.AsyncClient(verify=False, trust_env=False, timeout=LIMIT_S) as client,
            client.stream(
                "GET", f"http://127.0.0.1:{self.port}/api/console", params=query, headers=self.headers
            ) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            lines = answer.aiter_lines()
            async for line in lines:
                if line.startswith(": watching"):
                    break

            async def entries() -> AsyncIterator[dict[str, Any]]:
                async for line in lines:
                    if line.startswith("data: "):
                        batch = json.loads(line.removeprefix("data: "))
                        for entry in batch["entries"]:
                            yield entry | {"node": batch["node"]}
                        if batch["dropped"]:
                            yield {"kind": "dropped", "count": batch["dropped"]}

            yield entries()


@asynccontextmanager
async def operated(
    server: RealtimeServer,
    token: str | None = None,
    app_tokens: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[OperatorClient]:
    """Serve operators of a server; `host` is where the endpoint believes to listen."""
    operators = Operators(server.agent, server.rates.figures)
    api = OperatorApi(operators, Access(host, token, app_tokens or {}), "1.0")
    endpoint = ObserveEndpoint("127.0.0.1", 0, lambda: server.port, server.rates.figures, api)
    await endpoint.start()
    operators.start()
    try:
        yield OperatorClient(endpoint.port)
    finally:
        await operators.stop()
        await endpoint.stop()
