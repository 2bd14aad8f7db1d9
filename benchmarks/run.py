"""Measures the realtime server against the floor on this machine and prints a table.

The load client (pload), the floor and ping.py come from the folder that LOAD_TOOLS names. Server and floor run in
turn on core 0, the load on core 1; figures are ratios within one run. Everything is on loopback and ends by itself.

usage: make bench            LOAD_TOOLS=/path/to/tools make bench            benchmarks/run.py SECTION …
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from crowd import Crowd, Publisher, cpu_s

from kit import processes
from kit.ports import free_port

HERE = Path(__file__).parent
TOOLS = Path(os.environ.get("LOAD_TOOLS", HERE.parent.parent / "shared" / "tools"))
BIN = HERE / "bin"
TIMEOUT_S = 120


def compile_tools() -> None:
    if not (TOOLS / "pload.c").exists():
        sys.exit(f"no pload.c in {TOOLS}: set LOAD_TOOLS to the folder with pload.c, floor.c and ping.py")
    BIN.mkdir(exist_ok=True)
    for name, libraries in (("pload", ["-lcrypto"]), ("floor", [])):
        source, target = TOOLS / f"{name}.c", BIN / name
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            processes.run(
                ["gcc", "-O2", "-w", "-o", str(target), str(source), *libraries], check=True, timeout=TIMEOUT_S
            )


@contextmanager
def running(command: list[str], port: int, *, pinned: bool = True) -> Iterator[int]:
    """A process, pinned to core 0, that listens on `port`; ended afterwards."""
    environment = os.environ | {
        "REVERB_SERVER_PORT": str(port),
        "REVERB_APP_MAX_CONNECTIONS": "100000",
        "NO_COLOR": "1",
        "REVERB_APP_PING_INTERVAL": "300",
    }
    process = processes.popen(
        ["taskset", "-c", "0" if pinned else "0,1", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 15
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(15)


def load(port: int, pids: list[int], **options: object) -> dict[str, Any]:
    """One run of pload on core 1; its last line."""
    command = ["taskset", "-c", "1", str(BIN / "pload"), "--port", str(port), "--app-id", "1001", "--json"]
    command += ["--server-pid", ",".join(map(str, pids))]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = processes.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("JSON "))
    return result


def ping_beside_load(port: int, pids: list[int]) -> dict[str, Any]:
    """The round trip of an unrelated client while 3,000 subscribers receive 8 messages a second."""
    command = ["taskset", "-c", "1", str(BIN / "pload"), "--port", str(port), "--app-id", "1001", "--json"]
    command += ["--clients", "3000", "--messages", "72", "--rate", "8", "--server-pid", str(pids[0])]
    busy = processes.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2.5)
    ping = [sys.executable, str(TOOLS / "ping.py"), str(port), "app-key", "6"]
    done = processes.run(["taskset", "-c", "1", *ping], capture_output=True, text=True, timeout=60, check=True)
    busy.wait(TIMEOUT_S)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


Row = tuple[str, str, str]
SMARTLINK = str(Path(sys.executable).with_name("smartlink"))


def children(pid: int) -> list[int]:
    """The process and those it started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in found)]


@contextmanager
def server(*options: str) -> Iterator[tuple[int, list[int]]]:
    """A fresh server; its port and its processes."""
    port = free_port()
    with running([SMARTLINK, "reverb", "start", *(options or ("--workers", "1"))], port) as pid:
        yield port, children(pid)


@contextmanager
def floor() -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    with running([str(BIN / "floor"), str(port)], port) as pid:
        yield port, [pid]


def fan_out() -> Iterator[Row]:
    """A thousand subscribers, one message at a time and at full speed, against the floor."""
    paced = {"clients": 1000, "messages": 200, "rate": 50, "payload": 200}
    full = {"clients": 1000, "messages": 2000, "rate": 0, "payload": 200}
    with floor() as (floor_port, floor_pids), server() as (port, pids):
        a, b = load(floor_port, floor_pids, **paced), load(port, pids, **paced)
        yield "CPU per delivery at 50/s, x floor", f"{b['cpu_s_per_M'] / a['cpu_s_per_M']:.2f}", "at most 1.25"
        yield "  us, floor and server", f"{a['cpu_s_per_M']:.2f} {b['cpu_s_per_M']:.2f}", ""
        yield "  all delivered", str(b["all"]), "True"
        yield "CPU per handshake and subscribe, us", f"{b['cpu_ms_per_conn'] * 1000:.0f}", "at most 110"
        a, b = load(floor_port, floor_pids, **full), load(port, pids, **full)
        yield "deliveries/s at full speed, x floor", f"{b['deliv_per_s'] / a['deliv_per_s']:.2f}", "at least 3.75"
        yield "  floor and server", f"{a['deliv_per_s']:.0f} {b['deliv_per_s']:.0f}", ""
        yield "  all delivered", str(b["all"]), "True"
        ping = ping_beside_load(port, pids)
        yield "unrelated ping beside 3,000 x 8/s, p99 ms", f"{ping['p99_ms']:.1f}", "at most 15"


def batches() -> Iterator[Row]:
    """Ten events in one call, a thousand subscribers."""
    with server() as (port, pids):
        crowd, publisher = Crowd(port), Publisher(port)
        crowd.connect(1000, lambda _: ["bench"])
        before = cpu_s(pids)
        for number in range(1, 51):
            publisher.publish_batch("bench", ["@@" + "a" * 198] * 10)
            crowd.drain(number * 10_000)
        spent = cpu_s(pids) - before
        yield "ten events in a batch, us CPU per delivery", f"{spent / crowd.marks * 1e6:.2f}", "at most 1.5"
        yield "  all delivered", str(crowd.marks == 500_000), "True"
        crowd.close()


def held() -> Iterator[Row]:
    """Memory of many subscribed connections."""
    for count in (10_000, 18_000):
        with server() as (port, pids):
            got = load(port, pids, clients=count, messages=3, rate=1, payload=200, max_wait_ms=60_000)
            yield f"{count} connections held", str(got["ready"]), str(count)
            yield "  kB each, idle and subscribed", f"{got['rss_kb_per_conn']:.2f}", "at most 1.0"
            yield "  all delivered", str(got["all"]), "True"


def publishing() -> Iterator[Row]:
    """Signed publishes that nobody hears."""
    with server() as (port, pids):
        got = load(port, pids, clients=0, messages=20_000, rate=0, payload=200)
        per_s = got["http_ok"] / got["server_cpu_s"]
        yield "signed publishes per CPU second, no subscribers", f"{per_s:.0f}", "at least 10000"


def presence() -> Iterator[Row]:
    """Joining a presence channel on which a thousand are."""
    with server() as (port, pids):
        got = load(port, pids, clients=1000, messages=1, rate=1, payload=200, channel_type="presence")
        yield "presence channel of 1,000, all in", str(got["ready"]), "1000"
        yield "  ms CPU per join, on the way there", f"{got['cpu_ms_per_conn']:.2f}", ""


def storm() -> Iterator[Row]:
    """Ten thousand connects at once."""
    with server() as (port, _pids):
        crowd = Crowd(port)
        took = crowd.connect(10_000, lambda _: ["bench"], at_once=10_000)
        yield "10,000 connects at once, s until all are in", f"{took:.1f}", "at most 15"
        yield "  in, lost", f"{crowd.subscribed} {crowd.lost}", "10000 0"
        crowd.close()


def scaling() -> Iterator[Row]:
    """Cost per delivery as channels and connections grow."""
    for per_connection in (1, 10, 100):
        with server() as (port, pids):
            names = [f"bench-{number}" for number in range(per_connection)]
            crowd, publisher = Crowd(port), Publisher(port)
            crowd.connect(1000, lambda _, names=names: names)  # type: ignore[misc]
            before = cpu_s(pids)
            for number in range(100):
                publisher.publish([names[number % per_connection]], "@@" + "a" * 198)
                crowd.drain((number + 1) * 1000)
            spent = cpu_s(pids) - before
            label = f"1,000 connections on {per_connection} channels each, us per delivery"
            yield label, f"{spent / crowd.marks * 1e6:.2f}", "does not grow"
            crowd.close()
    for count in (100, 1_000, 10_000):
        with server() as (port, pids):
            got = load(port, pids, clients=count, messages=200_000 // count, rate=200_000 / count / 4, payload=200)
            yield f"{count} connections, us per delivery", f"{got['cpu_s_per_M']:.2f}", "does not grow"


def workers() -> Iterator[Row]:
    """One and two workers; client and servers share two cores here."""
    for count in ("1", "2"):
        port = free_port()
        with running([SMARTLINK, "reverb", "start", "--workers", count], port, pinned=False) as pid:
            pids = children(pid)
            full = load(port, pids, clients=1000, messages=1000, rate=0, payload=200)
            yield f"{count} worker(s): deliveries/s at full speed", f"{full['deliv_per_s']:.0f}", ""
            yield "  all delivered", str(full["all"]), "True"
            paced = load(port, pids, clients=1000, messages=200, rate=50, payload=200)
            yield "  us CPU per delivery at 50/s, all processes", f"{paced['cpu_s_per_M']:.2f}", ""
            crowd, publisher = Crowd(port), Publisher(port)
            crowd.connect(500, lambda number: [f"bench-{number % 5}"])
            counted = json.loads(publisher.call("GET", "/apps/1001/connections"))["connections"]
            channel = json.loads(publisher.call("GET", "/apps/1001/channels/bench-3", info="subscription_count"))
            yield "  connections and subscriptions counted", f"{counted} {channel['subscription_count']}", "500 100"
            crowd.close()


SECTIONS = {part.__name__: part for part in (fan_out, batches, held, publishing, presence, storm, scaling, workers)}


def main() -> None:
    compile_tools()
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {sys.version.split()[0]}"
    )
    print(f"{machine}; loopback, server on core 0, load on core 1")
    for name in sys.argv[1:] or SECTIONS:
        print(f"[{name}]")
        for label, value, goal in SECTIONS[name]():
            print(f"{label:<58}{value:>18}  {goal}", flush=True)


if __name__ == "__main__":
    main()
