"""`smartlink doctor`: checks, faults and advice. tests/deploy examines a whole deployment."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
from pathlib import Path
from unittest import mock

import pytest
import redis as redis_client

from kit import processes
from kit.examining import SECRET, examined, problems, warnings
from kit.pgbouncer import pgbouncer
from kit.postgres import fresh_database
from kit.realtime import KEY, realtime_server
from kit.realtime import SECRET as SECRET_OF_SERVER
from kit.redis import redis_server
from kit.serve import SMARTLINK, Smartlink
from smartlink.cli import main
from smartlink.cli.doctor import configuration, realtime
from smartlink.portal import migrations
from smartlink.portal.shared.settings import PortalSettings


def test_doctor_passes_a_running_installation_and_skips_foreign_parts(tmp_path: Path) -> None:
    running = Smartlink(
        tmp_path,
        reverb_app_secret=SECRET,
        reverb_app_key="of-the-test",
        reverb_app_allowed_origins="https://elsewhere.test",
    )
    running.start()
    try:
        done = processes.run(
            [SMARTLINK, "doctor"], cwd=tmp_path, env=running.environment, capture_output=True, text=True
        )
        theirs = {"reverb_port": running.realtime_port, "reverb_app_key": "of-the-test"}
        code, checks, _ = examined(tmp_path, "--only", "realtime", **theirs)
        _, of_origin, _ = examined(tmp_path, "--only", "realtime", **theirs, app_url="https://portal.test")
        _, of_key, _ = examined(tmp_path, "--only", "realtime", **theirs | {"reverb_app_key": "another"})
    finally:
        running.stop()

    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    for said in ("SQLite, revision", "an event arrived after", "SmartLink answers there", "worker: running"):
        assert said in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert code == 1
    assert "REVERB_APP_SECRET" in problems(checks)["realtime"]
    assert "4009 This origin may not connect to the application: add APP_URL to" in problems(of_origin)["realtime"]
    assert "4001 No application has this key: set REVERB_APP_KEY to" in problems(of_key)["realtime"]


def test_doctor_reports_stopped_parts_and_what_to_do(tmp_path: Path) -> None:
    code, checks, _ = examined(tmp_path)

    assert code == 1
    told = problems(checks)
    assert told.keys() == {"database", "realtime"}
    assert told["database"] == "it has no tables: smartlink db upgrade"
    assert "smartlink reverb start" in told["realtime"]


@pytest.mark.parametrize(
    ("settings", "check", "told"),
    [
        ({"reverb_app_ping_interval": "often"}, "settings", "REVERB_APP_PING_INTERVAL"),
        ({"app_host": "0.0.0.0"}, "settings", "REVERB_APP_SECRET is a sample"),
        ({"database_url": "oracle://x"}, "settings", "DATABASE_URL"),
        ({"database_url": f"postgresql://u:{SECRET}@127.0.0.1:1/x"}, "database", "unavailable"),
        ({"broadcast_encryption_master_key": "short"}, "keys", "32 bytes in base64"),
        ({"redis_url": f"redis://:{SECRET}@127.0.0.1:1/0"}, "redis", "cannot be reached"),
        ({"app_url": "https://127.0.0.1:1"}, "proxy", "cannot be reached"),
    ],
)
def test_doctor_reports_each_fault_on_a_line_without_secrets(
    tmp_path: Path, settings: dict[str, str], check: str, told: str
) -> None:
    code, checks, said = examined(tmp_path, **settings)

    assert code == 1
    assert told in problems(checks)[check]
    assert SECRET not in said


def test_unbuilt_pages_are_reported_by_doctor_and_at_startup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(tmp_path, "--only", "pages")[0] == 0
    monkeypatch.setattr("smartlink.portal.pages.STATIC", tmp_path)

    code, checks, _ = examined(tmp_path, "--only", "pages")

    assert code == 1
    assert problems(checks)["pages"].endswith("build them: make pages")
    told = main._missing_pages()
    assert told is not None
    assert told.endswith("Build them: make pages")


def test_a_port_used_by_another_program_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        code, checks, _ = examined(tmp_path, "--only", "ports", app_port=port)

    assert code == 1
    assert "in use by another program" in problems(checks)["ports"]


def test_doctor_checks_redis(tmp_path: Path) -> None:
    with redis_server("--maxmemory-policy", "allkeys-lru") as redis:
        code, checks, _ = examined(tmp_path, "--only", "redis", redis_url=redis.url)

    assert code == 0
    assert [check["state"] for check in checks if check["check"] == "redis"] == ["fine", "warning"]
    assert [check["state"] for check in checks if check["check"] == "clock"] == ["fine"]


def test_a_nearly_full_redis_is_reported(tmp_path: Path) -> None:
    with redis_server() as redis:
        with redis_client.Redis.from_url(redis.url) as client:
            # Written by the server itself: a large command would count as used memory for a moment.
            client.eval("for i = 1, 8000 do redis.call('SET', 'other' .. i, string.rep('x', 1000)) end", 0)
            used = client.info("memory")["used_memory"]
            client.config_set("maxmemory", int(used * 1.05))
        code, checks, _ = examined(tmp_path, "--only", "redis", redis_url=redis.url)

    assert code == 0
    assert "nearly full" in warnings(checks)["redis"]
    assert "raise its maxmemory" in warnings(checks)["redis"]


def test_a_pooler_in_transaction_mode_is_named(tmp_path: Path, postgres_url: str) -> None:
    with fresh_database(postgres_url) as url, pgbouncer(url) as pooled:
        migrations.upgrade(PortalSettings(_env_file=None, database_url=url).url)
        _, without, _ = examined(tmp_path, "--only", "database", database_url=pooled)
        code, checks, _ = examined(tmp_path, "--only", "database", database_url=pooled, db_pgbouncer="true")

    assert "DB_PGBOUNCER=true" in problems(without)["database"]
    assert code == 0
    assert checks[0]["said"].startswith("PostgreSQL behind PgBouncer, revision")


def test_a_wrong_redis_password_is_reported_as_such(tmp_path: Path) -> None:
    with redis_server(password="right") as redis:
        code, checks, _ = examined(tmp_path, "--only", "redis", redis_url=redis.url.replace("//", "//:wrong@"))

    assert code == 1
    assert "REDIS_PASSWORD" in problems(checks)["redis"]


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    done = processes.run([SMARTLINK, "doctor", "--only", "weather"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 2
    assert "choose from settings, keys" in done.stderr


async def test_a_server_alone_is_examined_without_the_portal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "has_portal", lambda: False)
    (tmp_path / ".env").write_text(
        "DB_CONNECTION=mysql\nAPP_URL=http://localhost\nREDIS_HOST=127.0.0.1\nREDIS_PORT=1\n"
    )
    async with realtime_server() as running:
        where = {"reverb_port": running.port, "reverb_app_key": KEY, "reverb_app_secret": SECRET_OF_SERVER}
        code, checks, _ = await asyncio.to_thread(examined, tmp_path, **where, reverb_server_port=running.port)

    assert code == 0, checks
    assert [check["check"] for check in checks if check["state"] == "skipped"] == [
        "pages", "database", "redis", "certificate", "webhooks", "proxy"
    ]  # fmt: skip
    assert {"an event arrived" in check["said"] for check in checks if check["check"] == "realtime"} == {True}
    (descriptors,) = [check for check in checks if check["check"] == "open descriptors"]
    used, limit = map(int, re.findall(r"(\d+) of (\d+) are open", descriptors["said"])[0])
    assert descriptors["state"] == "fine"
    assert 0 < used < limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def test_a_server_that_runs_out_of_descriptors_is_reported(tmp_path: Path) -> None:
    async with realtime_server() as running:
        where = {"reverb_port": running.port, "reverb_app_key": KEY, "reverb_app_secret": SECRET_OF_SERVER}
        with mock.patch.object(realtime, "_MOST_OPEN", 0.0):
            _, checks, _ = await asyncio.to_thread(examined, tmp_path, "--only", "descriptors", **where)

    assert "or add a node" in warnings(checks)["open descriptors"]
