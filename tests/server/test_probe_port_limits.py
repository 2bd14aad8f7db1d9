"""Open connections to the operators' port do not delay its probes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from kit.client import raw
from smartlink.server.observe.endpoint import MAX_AT_ONCE, ObserveEndpoint


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTT"], ids=["silent", "half a head"])
async def test_probes_are_answered_while_many_connections_are_silent(said: bytes) -> None:
    endpoint = ObserveEndpoint("127.0.0.1", 0, lambda: 1, dict)
    await endpoint.start()
    try:
        async with AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(raw(endpoint.port)) for _ in range(3 * MAX_AT_ONCE)]
            for client in silent:
                client.writer.write(said)
            for _ in range(5):
                probe = await stack.enter_async_context(raw(endpoint.port))
                probe.writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                async with asyncio.timeout(3):
                    assert (await probe.reader.read()).endswith(b"OK\n")
            async with asyncio.timeout(3):
                assert await silent[0].reader.read() == b""

            assert len(endpoint._open) <= MAX_AT_ONCE
    finally:
        await endpoint.stop()
