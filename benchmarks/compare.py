"""Compares this checkout with another one, in one run: what fan-out, publications, connections and joins cost.

Both servers stay up and take turns, so that other load on the machine counts for both alike; `memory` starts fresh
ones. All rows but two are CPU time: `full_speed` is elapsed time, `memory` kilobytes.

With `--before-workers` and this checkout as `--before`, two numbers of workers are compared. One worker has core 0
to itself, several share both cores with the load client.

usage: benchmarks/compare.py --before /path/to/another/checkout [--rounds 5] [--workers 1] [--before-workers 1] [NAME …]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from crowd import Crowd, Publisher, cpu_s
from run import HERE, SMARTLINK, children, compile_tools, free_port, load, running

SOURCES = HERE.parent / "src"
Measure = Callable[[int, list[int]], float]


def delivery(port: int, pids: list[int]) -> float:
    """An event to one of a thousand subscribers, at 50 events a second."""
    return _delivered(load(port, pids, clients=1_000, messages=200, rate=50, payload=200))["cpu_s_per_M"] / 1e6


def full_speed(port: int, pids: list[int]) -> float:
    """The time that a delivery takes to a thousand subscribers, as fast as publications are answered."""
    return 1 / _delivered(load(port, pids, clients=1_000, messages=2_000, rate=0, payload=200))["deliv_per_s"]


def busy(port: int, pids: list[int]) -> float:
    """A delivery to a thousand subscribers, as fast as publications are answered."""
    return _delivered(load(port, pids, clients=1_000, messages=2_000, rate=0, payload=200))["cpu_s_per_M"] / 1e6


def batch(port: int, pids: list[int]) -> float:
    """A delivery to a thousand subscribers, ten events in each call."""
    crowd, publisher = Crowd(port), Publisher(port)
    crowd.connect(1_000, lambda _: ["bench"])
    before = cpu_s(pids)
    for number in range(1, 31):
        publisher.publish_batch("bench", ["@@" + "a" * 198] * 10)
        crowd.drain(number * 10_000)
    spent = cpu_s(pids) - before
    crowd.close()
    return spent / crowd.marks


def publish(port: int, pids: list[int]) -> float:
    """A signed publication that nobody hears, four calls at a time."""
    got = load(port, pids, clients=0, messages=5_000, rate=0, payload=200)
    return float(got["server_cpu_s"] / got["http_ok"])


def handshake(port: int, pids: list[int]) -> float:
    """A handshake and a subscription to a public channel."""
    return _connect(port, pids, 1_000, "public")


def join(port: int, pids: list[int]) -> float:
    """A handshake and a join of a presence channel that grows from nobody to 500."""
    return _connect(port, pids, 500, "presence")


def memory(port: int, pids: list[int]) -> float:
    """Kilobytes for an idle connection with one subscription, of 5,000, in millionths."""
    return _delivered(load(port, pids, clients=5_000, messages=3, rate=1, payload=200))["rss_kb_per_conn"] / 1e6


def _delivered(got: dict[str, Any]) -> dict[str, Any]:
    if not got["all"]:
        raise SystemExit(f"not everything was delivered: {got}")
    return got


def _connect(port: int, pids: list[int], clients: int, kind: str) -> float:
    got = load(port, pids, clients=clients, messages=1, rate=1, payload=200, settle_ms=0, channel_type=kind)
    if got["ready"] != clients:
        raise SystemExit(f"only {got['ready']} of {clients} clients are in")
    return float(got["cpu_ms_per_conn"] / 1_000)


MEASURES: dict[str, Measure] = {
    each.__name__: each for each in (delivery, full_speed, busy, batch, publish, handshake, join, memory)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--before", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--before-workers", type=int, help="as many as --workers, if not given")
    options = parser.parse_args()
    workers = (options.before_workers or options.workers, options.workers)
    compile_tools()
    print(f"{'':<12}{'before':>12}{'after':>12}{'after/before':>14}  us, kB; median of {options.rounds}")
    names = options.names or list(MEASURES)
    with pair(options.before, workers) as servers:
        for name in names:
            if name != memory.__name__:
                for server in servers:
                    MEASURES[name](*server)
                report(name, [[MEASURES[name](*server) for server in servers] for _ in range(options.rounds)])
    if memory.__name__ in names:
        rounds = []
        for _ in range(options.rounds):
            with pair(options.before, workers) as servers:
                rounds.append([memory(*server) for server in servers])
        report(memory.__name__, rounds)


@contextmanager
def pair(before: Path, workers: tuple[int, int]) -> Iterator[list[tuple[int, list[int]]]]:
    """A server of each checkout, with so many workers: its port and its processes."""
    ports, own = (free_port(), free_port()), os.environ.get("PYTHONPATH")
    with ExitStack() as stack:
        servers = []
        for port, sources, count in zip(ports, (before / "src", SOURCES), workers, strict=True):
            os.environ["PYTHONPATH"] = str(sources)
            command = [SMARTLINK, "reverb", "start", "--workers", str(count)]
            pid = stack.enter_context(running(command, port, pinned=count == 1))
            # The port is open before the workers have started.
            wanted = 1 if count == 1 else 1 + count
            await_that(lambda pid=pid, wanted=wanted: len(children(pid)) == wanted)
            servers.append((port, children(pid)))
        if own is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = own
        yield servers


def await_that(is_true: Callable[[], bool]) -> None:
    """Return when `is_true()` is; SystemExit if it is not in 15 s."""
    until = time.monotonic() + 15
    while not is_true():
        if time.monotonic() > until:
            raise SystemExit("the workers have not started")
        time.sleep(0.05)


def report(name: str, rounds: list[list[float]]) -> None:
    old, new = (statistics.median(column) * 1e6 for column in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    print(f"{name:<12}{old:>12.2f}{new:>12.2f}{ratio:>14.2f}", flush=True)


if __name__ == "__main__":
    main()
