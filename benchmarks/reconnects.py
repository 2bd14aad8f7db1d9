"""What a storm of reconnects costs the application: how often its endpoint is asked, with the JavaScript helper and
without.

    python benchmarks/reconnects.py [--clients 2000]

Unmodified pusher-js in one Node process, each client on two private channels. The server closes all connections with
4200, which makes pusher-js reconnect at once. Needs the packages of tests/peers/node and the helper (`make pages`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit import processes
from kit.realtime import KEY, SECRET, realtime_server

NODE = Path(__file__).parents[1] / "tests" / "peers" / "node"
LIMIT_S = 240


async def storm(clients: int, *, helped: bool) -> str:
    """Let all clients reconnect at once, and say what it took."""
    async with realtime_server(reverb_app_max_connections=clients) as server:
        options = {"port": server.port, "key": KEY, "secret": SECRET, "clients": clients, "helped": helped}
        process = await processes.spawn(
            "node", "storm.mjs", json.dumps(options), cwd=NODE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        async def asked_until(subscribed: int) -> int:
            assert process.stdout is not None
            while line := await process.stdout.readline():
                counts = json.loads(line)
                if counts["subscribed"] >= subscribed:
                    return int(counts["asked"])
            raise RuntimeError("the clients ended")

        before = await asked_until(2 * clients)
        began_at = time.monotonic()
        for connection in tuple(server.node.hub):
            connection.close(4200, "Reconnect")
        after = await asked_until(4 * clients)
        took = time.monotonic() - began_at
        process.stdin.close()
        await process.wait()
    how = "with the helper" if helped else "wsPath alone"
    return f"{how}: {after - before:,} authorizations for {2 * clients:,} channels; all subscribed after {took:.1f} s"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=2_000)
    given = parser.parse_args()
    for helped in (True, False):
        async with asyncio.timeout(LIMIT_S):
            print(await storm(given.clients, helped=helped), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
