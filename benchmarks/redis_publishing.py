"""What a publication over Redis costs: CPU time of the node and of Redis, on one channel and on ever new ones.

    python benchmarks/redis_publishing.py [--events 5000] [--rounds 5]
    PYTHONPATH=…/another/checkout/src python benchmarks/redis_publishing.py     # to compare

Redis is started here, on a free port. 50 publications are on their way at a time. Redis gives each new stream 4 kB, so
that an application with a budget of 32 MiB is over it beyond about 6,000 new channels.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.redis import RedisServer, redis_server
from smartlink.server.cluster.brokers.base import Publication, Retention
from smartlink.server.cluster.brokers.redis import RedisBroker
from smartlink.server.cluster.brokers.redis_scripts import BROKER_SCRIPTS
from smartlink.server.cluster.redis.commands import RedisCommands
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.settings.redis_address import parse_url

AT_ONCE = 50


def redis_cpu_s(redis: RedisServer) -> float:
    """The CPU time that Redis has used."""
    told: Any = redis.call("INFO", "cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


async def measure(redis: RedisServer, channels: int, events: int) -> tuple[float, float]:
    """CPU time per publication in seconds, of this process and of Redis."""
    commands, names = RedisCommands(parse_url(redis.url), BROKER_SCRIPTS), Names(f"bench-{time.time_ns()}")
    broker = RedisBroker(commands, names, Metrics())
    await broker.start(lambda _: None)
    frame = b'{"event":"e","channel":"c","data":"%b"}' % (b"x" * 300)
    own, of_redis = time.process_time(), redis_cpu_s(redis)
    for start in range(0, events, AT_ONCE):
        await asyncio.gather(
            *(
                broker.publish(Publication("1", f"chat-{number % channels}", frame, retention=Retention()))
                for number in range(start, start + AT_ONCE)
            )
        )
    found = (time.process_time() - own) / events, (redis_cpu_s(redis) - of_redis) / events
    await broker.stop()
    return found


async def main(events: int, rounds: int) -> None:
    with redis_server() as redis:
        for name, channels in (
            ("one channel", 1),
            ("1,000 channels", 1_000),
            ("new channels", events),
            ("over budget", 3 * events),
        ):
            found = [await measure(redis, channels, max(channels, events)) for _ in range(rounds)]
            own, of_redis = (statistics.median(part) * 1e6 for part in zip(*found, strict=True))
            print(f"{name:15} node {own:6.1f} us, Redis {of_redis:6.1f} us per publication", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.events, given.rounds))
