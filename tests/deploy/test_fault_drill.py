"""A drill: of each fault the alert fires, `/up` or the doctor names it, and the runbook's step mends it.

Real processes and a real Prometheus with the shipped rules: `make test-alerts`.
"""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.prometheus import Prometheus, needs_prometheus, prometheus
from kit.redis import redis_server
from kit.reverb import reverb
from kit.serve import SMARTLINK, Smartlink
from kit.waiting import LIMIT_S, wait_until

pytestmark = [pytest.mark.deploy, needs_prometheus, pytest.mark.timeout(420)]

FLOOD_ENDS_S = 150.0
"""A rate over one minute must pass."""


def up(port: int) -> tuple[int, str]:
    """The status and text of `/up`."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/up", timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def read(port: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as answer:
        told: bytes = answer.read()
    return told


def doctor(folder: Path, environment: dict[str, str], check: str) -> list[dict[str, str]]:
    """The findings of one check that are not fine."""
    told = processes.run(
        [SMARTLINK, "doctor", "--json", "--only", check], cwd=folder, env=environment, capture_output=True, text=True
    )
    found: list[dict[str, str]] = json.loads(told.stdout)["checks"]
    return [finding for finding in found if finding["state"] in ("warning", "failed")]


@contextmanager
def whole_system(folder: Path, **settings: Any) -> Iterator[tuple[Smartlink, Prometheus]]:
    """`smartlink serve`, watched."""
    home = folder / "home"
    home.mkdir()
    ports = {"reverb": free_port(), "app": free_port()}
    system = Smartlink(
        home,
        reverb_metrics_enabled="true",
        reverb_metrics_port=ports["reverb"],
        app_metrics_port=ports["app"],
        reverb_server_runtime_dir=home / "run",
        **settings,
    )
    system.start()
    try:
        with prometheus(folder / "watch", **ports) as watch:
            wait_until(lambda: watch.value("min(up)") == 1, what="a scrape of both")
            assert watch.firing() == set()
            yield system, watch
    finally:
        system.stop()


def test_the_database_is_locked(tmp_path: Path) -> None:
    with whole_system(tmp_path) as (system, watch):
        lock = sqlite3.connect(system.folder / "smartlink.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")

        watch.wait_for("SmartLinkDatabaseUnwritable")
        assert up(system.app_port) == (503, json.dumps({"message": UNWRITABLE}, separators=(",", ":")))
        (found,) = doctor(system.folder, system.environment, "database")
        assert found["said"] == UNWRITABLE

        lock.close()  # the runbook: end the program that holds the lock
        watch.wait_for_end_of("SmartLinkDatabaseUnwritable")
        assert up(system.app_port)[0] == 200


UNWRITABLE = "The database does not accept writes: database is locked."


def test_the_disk_is_full(tmp_path: Path) -> None:
    with whole_system(tmp_path) as (system, watch):
        assert system.process is not None
        soft, hard = resource.prlimit(system.process.pid, resource.RLIMIT_FSIZE)
        # As a full disk does, it refuses what would make a file larger; what is open stays readable.
        size = max(file.stat().st_size for file in (system.log, system.folder / "smartlink.db-shm"))
        (system.folder / "smartlink.db-wal").stat()
        resource.prlimit(system.process.pid, resource.RLIMIT_FSIZE, (size + 1, hard))

        watch.wait_for("SmartLinkDatabaseUnwritable")
        status, told = up(system.app_port)
        assert status == 503
        assert "The database does not accept writes" in told

        resource.prlimit(system.process.pid, resource.RLIMIT_FSIZE, (soft, hard))  # the runbook: free disk space
        watch.wait_for_end_of("SmartLinkDatabaseUnwritable")
        assert up(system.app_port)[0] == 200


def test_a_worker_is_poisoned(tmp_path: Path) -> None:
    with whole_system(tmp_path) as (system, watch):
        with sqlite3.connect(system.folder / "smartlink.db") as database:
            database.execute(
                "INSERT INTO recorded_events (channel, name, payload, delivery, part, created_at) "
                "VALUES ('not a channel!', 'poison', '{}', 'state', 0, strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
            )
        database.close()

        watch.wait_for("SmartLinkEventsSetAside")
        (found,) = doctor(system.folder, system.environment, "database")
        assert found["said"] == "1 set aside, not sent"

        told = processes.run([SMARTLINK, "failed", "list"], cwd=system.folder, env=system.environment, capture_output=True, text=True)  # fmt: skip
        assert "not a channel!" in told.stdout
        command = [SMARTLINK, "failed", "forget", "all"]
        processes.run(command, cwd=system.folder, env=system.environment, check=True, capture_output=True)
        watch.wait_for_end_of("SmartLinkEventsSetAside")
        assert doctor(system.folder, system.environment, "database") == []


def test_redis_is_away(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "home"
    folder.mkdir()
    with (
        redis_server() as redis,
        reverb(
            folder,
            reverb_scaling_enabled="true",
            redis_url=redis.url,
            reverb_server_workers=1,
            reverb_metrics_enabled="true",
            reverb_metrics_port=port,
        ) as server,
        prometheus(tmp_path / "watch", reverb=port) as watch,
    ):
        wait_until(lambda: watch.value("smartlink_workers_apart") == 0, what="a scrape")
        redis.kill()

        watch.wait_for("SmartLinkRedisAway")
        status, told = up(server.port)
        assert status == 200
        assert "Other nodes are unreachable: Redis is unreachable" in told
        (found,) = doctor(folder, server.environment, "redis")
        assert found["said"].startswith("cannot be reached")

        redis.start()  # the runbook: start Redis
        watch.wait_for_end_of("SmartLinkRedisAway")
        assert up(server.port) == (200, '{"health":"OK"}')


def certify(folder: Path, days: int) -> None:
    """Write a certificate for 127.0.0.1 that lasts so many days."""
    processes.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", str(days), "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


def test_the_certificate_is_about_to_end(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "home"
    folder.mkdir()
    certify(folder, 3)
    with (
        reverb(
            folder,
            reverb_server_tls_cert=folder / "cert.pem",
            reverb_server_tls_key=folder / "key.pem",
            reverb_server_workers=1,
            reverb_metrics_enabled="true",
            reverb_metrics_port=port,
        ) as server,
        prometheus(tmp_path / "watch", reverb=port) as watch,
    ):
        watch.wait_for("SmartLinkCertificateEnds")
        (found,) = doctor(folder, server.environment, "certificate")
        assert found["said"].endswith("cert.pem ends in 2 days")

        certify(folder, 90)  # the runbook: renew it, then send SIGHUP
        server.signal(signal.SIGHUP)
        watch.wait_for_end_of("SmartLinkCertificateEnds")
        assert doctor(folder, server.environment, "certificate") == []


async def test_a_tenant_floods(tmp_path: Path) -> None:
    limits = {
        "reverb_app_rate_limiting_enabled": "true",
        "reverb_app_rate_limit_max_attempts": 10,
        "reverb_app_rate_limit_decay_seconds": 60,
    }
    with whole_system(tmp_path, **limits) as (system, watch):
        async with connected(system.realtime_port) as client:
            for _ in range(1_000):
                client.send("pusher:ping", {})
            while (await client.receive())["event"] != "pusher:error":
                pass
            watch.wait_for("SmartLinkTenantFloods")
            assert watch.value('max(smartlink_rate_limited_total{app_id="1001",kind="message"})') >= 900
            overview = json.loads(read(system.environment["REVERB_METRICS_PORT"], "/api/overview"))
            assert [each["key"] for each in overview["findings"]] == ["rate_limited"]
        # The runbook: end the connection; nobody else was affected.
        assert up(system.realtime_port)[0] == 200
        watch.wait_for_end_of("SmartLinkTenantFloods", FLOOD_ENDS_S)
