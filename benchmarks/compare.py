"""Compares this checkout with another one: CPU time per publication, per connection and per join, in one run.

Both servers stay up, one worker each, and take turns, so that other load on the machine counts for both alike.

usage: benchmarks/compare.py --before /path/to/another/checkout [--rounds 5] [NAME …]
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path

from run import HERE, SMARTLINK, children, compile_tools, free_port, load, running

SOURCES = HERE.parent / "src"
Measure = Callable[[int, list[int]], float]


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


def _connect(port: int, pids: list[int], clients: int, kind: str) -> float:
    got = load(port, pids, clients=clients, messages=1, rate=1, payload=200, settle_ms=0, channel_type=kind)
    if got["ready"] != clients:
        raise SystemExit(f"only {got['ready']} of {clients} clients are in")
    return float(got["cpu_ms_per_conn"] / 1_000)


MEASURES: dict[str, Measure] = {each.__name__: each for each in (publish, handshake, join)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--before", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    compile_tools()
    command = [SMARTLINK, "reverb", "start", "--workers", "1"]
    ports = free_port(), free_port()
    os.environ["PYTHONPATH"] = str(options.before / "src")
    with running(command, ports[0]) as before:
        os.environ["PYTHONPATH"] = str(SOURCES)
        with running(command, ports[1]) as after:
            servers = [(ports[0], children(before)), (ports[1], children(after))]
            print(f"{'':<12}{'before, us':>12}{'after, us':>12}{'after/before':>14}  median of {options.rounds}")
            for name in options.names or MEASURES:
                measure = MEASURES[name]
                for port, pids in servers:
                    measure(port, pids)
                rounds = [[measure(port, pids) for port, pids in servers] for _ in range(options.rounds)]
                old, new = (statistics.median(column) * 1e6 for column in zip(*rounds, strict=True))
                ratio = statistics.median(b / a for a, b in rounds)
                print(f"{name:<12}{old:>12.1f}{new:>12.1f}{ratio:>14.2f}", flush=True)


if __name__ == "__main__":
    main()
