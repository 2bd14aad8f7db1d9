"""Measures the realtime server against the floor on this machine and prints a table.

The load client (pload), the floor and ping.py come from the folder that LOAD_TOOLS names. Server and floor run in
turn on core 0, the load on core 1; figures are ratios within one run. Everything is on loopback and ends by itself.

usage: make bench            LOAD_TOOLS=/path/to/tools make bench
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
            subprocess.run(["gcc", "-O2", "-w", "-o", str(target), str(source), *libraries], check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A process pinned to core 0 that listens on `port`; ended afterwards."""
    environment = os.environ | {
        "REVERB_SERVER_PORT": str(port),
        "REVERB_APP_MAX_CONNECTIONS": "100000",
        "NO_COLOR": "1",
    }
    process = subprocess.Popen(
        ["taskset", "-c", "0", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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


def load(port: int, pid: int, **options: object) -> dict[str, Any]:
    """One run of pload on core 1; its last line."""
    command = ["taskset", "-c", "1", str(BIN / "pload"), "--port", str(port), "--app-id", "1001", "--json"]
    command += ["--server-pid", str(pid)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("JSON "))
    return result


def ping_beside_load(port: int, pid: int) -> dict[str, Any]:
    """The round trip of an unrelated client while 3,000 subscribers receive 8 messages a second."""
    command = ["taskset", "-c", "1", str(BIN / "pload"), "--port", str(port), "--app-id", "1001", "--json"]
    command += ["--clients", "3000", "--messages", "72", "--rate", "8", "--server-pid", str(pid)]
    busy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2.5)
    ping = [sys.executable, str(TOOLS / "ping.py"), str(port), "app-key", "6"]
    done = subprocess.run(["taskset", "-c", "1", *ping], capture_output=True, text=True, timeout=60, check=True)
    busy.wait(TIMEOUT_S)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    compile_tools()
    server_port, floor_port = free_port(), free_port()
    smartlink = str(Path(sys.executable).with_name("smartlink"))
    rows: list[tuple[str, str, str]] = []
    with (
        running([str(BIN / "floor"), str(floor_port)], floor_port) as floor,
        running([smartlink, "reverb", "start"], server_port) as server,
    ):
        paced = {"clients": 1000, "messages": 200, "rate": 50, "payload": 200}
        a, b = load(floor_port, floor, **paced), load(server_port, server, **paced)
        ratio = b["cpu_s_per_M"] / a["cpu_s_per_M"]
        rows.append(("CPU per delivery at 50/s, x floor", f"{ratio:.2f}", "at most 1.35"))
        rows.append(("  all delivered", str(b["all"]), "True"))
        rows.append(("memory per subscribed connection, kB", f"{b['rss_kb_per_conn']:.2f}", "at most 1.5"))
        rows.append(("CPU per handshake and subscribe, us", f"{b['cpu_ms_per_conn'] * 1000:.0f}", ""))
        full = {"clients": 1000, "messages": 2000, "rate": 0, "payload": 200}
        a, b = load(floor_port, floor, **full), load(server_port, server, **full)
        rows.append(("deliveries/s at full speed", f"{b['deliv_per_s']:.0f}", ""))
        rows.append(("  x floor", f"{b['deliv_per_s'] / a['deliv_per_s']:.2f}", "at least 2.9"))
        rows.append(("  all delivered", str(b["all"]), "True"))
        ping = ping_beside_load(server_port, server)
        rows.append(("unrelated ping beside 3,000 x 8/s, p99 ms", f"{ping['p99_ms']:.1f}", "at most 15"))
        held = load(server_port, server, clients=5000, messages=5, rate=5, payload=200)
        rows.append(("connections held", str(held["ready"]), "5000"))
        rows.append(("  kB each", f"{held['rss_kb_per_conn']:.2f}", ""))
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {sys.version.split()[0]}"
    )
    print(f"{machine}; loopback, server on core 0, load on core 1")
    for name, value, goal in rows:
        print(f"{name:<46}{value:>12}  {goal}")


if __name__ == "__main__":
    main()
