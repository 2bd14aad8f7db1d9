"""What the services cost while nobody is connected: CPU by the kernel's accounting, in percent of one core.

Starts everything in one process (`smartlink serve`) and each service alone, on SQLite; with `--postgres` also on
PostgreSQL, where workers are woken by NOTIFY. All idle at the same time, each in its own process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.ports import free_port
from kit.postgres import cluster, fresh_database
from kit.redis import redis_server
from kit.serve import SMARTLINK
from kit.services import Service
from kit.waiting import LIMIT_S

LIMIT_ALL, LIMIT_PART = 0.5, 0.3
SETTLE_S, SETTLED_PERCENT, MAX_SETTLE_S = 5.0, 8.0, 180.0
FIRST_RUNS_S = 45.0
"""The first run of each job compiles its statements; that of the hourly one comes after 30 s."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, of a process and its children. Source: proc_pid_stat(5)."""
    total = 0.0
    for one in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return total


def switches(pid: int) -> int:
    """How often the process woke: its threads' voluntary context switches."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            lines = status.read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    return total


def service(name: str, folder: Path, environment: Mapping[str, str], *words: str) -> Service:
    own = folder / name.replace(" ", "-")
    own.mkdir()
    return Service(name, [SMARTLINK, *words], own, environment)


def settings(folder: Path, database: str, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_", "DB_", "REDIS_"))}
    port = str(free_port())
    return kept | {
        "DATABASE_URL": database,
        "APP_PORT": str(free_port()),
        "REVERB_SERVER_PORT": port,
        "REVERB_PORT": port,
        "REVERB_METRICS_PORT": str(free_port()),
        "REVERB_SERVER_RUNTIME_DIR": str(folder),
        "REVERB_WEBHOOK_QUEUE": "memory",
        **more,
    }


def services(folder: Path, database: str, redis: str, label: str) -> list[Service]:
    alone, shared, nodes = folder / f"{label}-all", folder / f"{label}-parts", folder / f"{label}-redis"
    for each in (alone, shared, nodes):
        each.mkdir()
    own = f"sqlite+aiosqlite:///{alone}/smartlink.db"
    parts = settings(shared, database)
    found = [
        service("serve", alone, settings(alone, own), "serve", "--demo"),
        service("reverb, one worker", shared, parts | {"REVERB_SERVER_WORKERS": "1"}, "reverb", "start"),
        service("app", shared, parts, "app", "start"),
        service("worker", shared, parts, "worker", "start"),
    ]
    scaled = {"REVERB_SCALING_ENABLED": "true", "REDIS_URL": redis, "REVERB_SERVER_WORKERS": "1"}
    del parts["REVERB_WEBHOOK_QUEUE"]
    more = settings(nodes, database, **scaled)
    more["REVERB_WEBHOOK_QUEUE"] = redis
    found.append(service("reverb, with Redis", nodes, more, "reverb", "start"))
    return found


def settle(running: list[Service]) -> None:
    """Wait until all have started: until none uses much for a while."""
    until = time.monotonic() + MAX_SETTLE_S
    while time.monotonic() < until:
        before = [cpu_s(each.pid) for each in running]
        time.sleep(SETTLE_S)
        used = [cpu_s(each.pid) - at for each, at in zip(running, before, strict=True)]
        if all(before) and max(used) < SETTLE_S * SETTLED_PERCENT / 100:
            return
    sys.exit("the services do not come to rest")


def measure(running: list[Service], seconds: float) -> bool:
    """Print what each used; return whether all are within their limits."""
    settle(running)
    time.sleep(FIRST_RUNS_S)
    for each in running:
        assert each.is_running, f"{each.name} ended:\n{each.said[-2000:]}"
    before = {each: (cpu_s(each.pid), switches(each.pid), time.monotonic()) for each in running}
    time.sleep(seconds)
    is_fine = True
    for each, (cpu, woke, at) in before.items():
        elapsed = time.monotonic() - at
        percent = 100 * (cpu_s(each.pid) - cpu) / elapsed
        limit = LIMIT_ALL if each.name == "serve" else LIMIT_PART
        is_fine = is_fine and percent <= limit
        per_s = (switches(each.pid) - woke) / elapsed
        print(f"{each.name:<20} {percent:5.2f} % of a core (at most {limit}), {per_s:5.1f} wake-ups a second")
    return is_fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--postgres", action="store_true", help="keep the parts' data in PostgreSQL")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(redis_server())
        database = f"sqlite+aiosqlite:///{folder}/parts.db"
        if options.postgres:
            database = stack.enter_context(fresh_database(stack.enter_context(cluster())))
        running = services(folder, database, redis.url, "idle")
        prepare = service("prepare", folder, settings(folder, database), "db", "upgrade")
        prepare.start()
        assert prepare.wait(LIMIT_S) == 0, prepare.said
        for each in running:
            stack.callback(each.end)
            each.start()
        return 0 if measure(running, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
