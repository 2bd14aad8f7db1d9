"""How fast the portal answers from a crowded database: pages of 50 out of a million messages.

    python benchmarks/history.py [rows]

PostgreSQL is started here, on a free port. Requests go through the whole app, one at a time, without a socket. On a
machine that does other things too, look at the CPU time: the rest is waiting.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.filled_database import fill
from kit.portal import Person, World
from kit.postgres import cluster
from smartlink.portal import migrations

CALLS = 200


async def main(rows: int) -> None:
    with cluster() as url:
        await asyncio.to_thread(migrations.upgrade, url)
        world = World(url)
        ana = await world.person("Ana")
        await asyncio.to_thread(fill, url, ana.id, rows, only=("chat_messages",))
        asked = "SELECT user_id FROM chat_messages WHERE recipient_id = :a LIMIT 1"
        peer = (await world.rows(asked, a=ana.id))[0][0]
        for path in (
            "/api/chat/messages",
            f"/api/chat/messages?before={rows // 2}",
            f"/api/chat/messages/private/{peer}",
            "/api/chat/conversations",
            "/api/chat/search?q=word77",
        ):
            await _measure(ana, path, CALLS if "search" not in path else 20)
        await world.aclose()


async def _measure(person: Person, path: str, calls: int) -> None:
    took, cpu = [], time.process_time()
    for _ in range(calls):
        begun = time.perf_counter()
        answer = await person.get(path)
        took.append((time.perf_counter() - begun) * 1000)
        assert answer.status_code == 200, answer.text
    cpu_ms = (time.process_time() - cpu) * 1000 / calls
    took.sort()
    print(
        f"{path:45} p50 {statistics.median(took):6.1f} ms   p95 {took[int(len(took) * 0.95)]:6.1f} ms   "
        f"CPU of the app {cpu_ms:5.1f} ms   {len(answer.json())} records"
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
