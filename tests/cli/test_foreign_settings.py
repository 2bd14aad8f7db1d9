"""Commands name settings of another application, or wrong addresses, before anything fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kit import processes
from kit.ports import free_port
from kit.receiver import receiver
from kit.reverb import reverb
from kit.serve import SMARTLINK
from kit.waiting import eventually
from smartlink.portal.migrations import HEAD

LARAVEL = """
APP_NAME=Laravel
APP_ENV=local
APP_KEY=base64:c21hcnRsaW5rc21hcnRsaW5rc21hcnRsaW5rc21hcnQ=
APP_URL=http://localhost
DB_CONNECTION=mysql
DB_HOST=127.0.0.1
DB_PORT=3306
DB_DATABASE=laravel
DB_USERNAME=root
DB_PASSWORD=
BROADCAST_CONNECTION=reverb
REDIS_PASSWORD=null
REVERB_APP_ID=770077
REVERB_APP_KEY=key-of-the-laravel-application
REVERB_APP_SECRET=a-secret-of-the-laravel-application
REVERB_HOST=localhost
REVERB_PORT={port}
REVERB_SERVER_PORT={port}
REVERB_SCHEME=http
VITE_REVERB_HOST="${{REVERB_HOST}}"
VITE_REVERB_PORT="${{REVERB_PORT}}"
"""


def run(folder: Path, *words: str, **settings: str) -> tuple[int, str]:
    """The exit code and all that was said; nothing of the test's own environment counts."""
    done = processes.run(
        [SMARTLINK, *words], cwd=folder, env={"PATH": os.environ["PATH"]} | settings, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def laravel(tmp_path: Path) -> Path:
    (tmp_path / ".env").write_text(LARAVEL.format(port=free_port()))
    return tmp_path


def test_commands_without_a_database_work_beside_laravels_settings(laravel: Path) -> None:
    with reverb(laravel, "--workers", "1", **from_file(laravel)):
        assert run(laravel, "reverb", "status")[0] == 0
        assert run(laravel, "event", "trigger", "orders", "App\\Events\\Shipped", "{}")[0] == 0
        code, said = run(laravel, "doctor", "--json", "--only", "settings,keys,database,ports,webhooks,realtime,proxy")
    assert run(laravel, "channels", "list")[0] == 0
    assert run(laravel, "apps", "list")[0] == 0

    report = json.loads(said)
    states = {each["check"]: each["state"] for each in report["checks"]}
    [database] = [each["said"] for each in report["checks"] if each["check"] == "database"]
    assert (code, states["settings"], states["database"], states["realtime"]) == (0, "fine", "skipped", "fine"), said
    assert "DB_CONNECTION=mysql" in database
    assert "DATABASE_URL=" in database


def from_file(folder: Path) -> dict[str, str]:
    """What `.env` says of the port, for a server that the kit would put on one of its own."""
    lines = (folder / ".env").read_text().splitlines()
    return {name.lower(): value for name, _, value in (line.partition("=") for line in lines) if name.endswith("_PORT")}


@pytest.mark.parametrize("words", [("serve",), ("app", "start"), ("worker", "start"), ("db", "upgrade")])
def test_commands_that_need_a_database_name_the_setting(laravel: Path, words: tuple[str, ...]) -> None:
    code, said = run(laravel, *words)

    assert code == 2
    assert "DB_CONNECTION=mysql" in said
    assert "DATABASE_URL=sqlite:///" in said


def test_database_url_takes_precedence_over_laravels_settings(laravel: Path) -> None:
    assert run(laravel, "db", "upgrade", DATABASE_URL="sqlite:///own.db") == (0, f"The database is at {HEAD}\n")


@pytest.mark.parametrize("words", [("worker", "start"), ("worker", "start", "--once"), ("app", "start")])
def test_without_the_portals_tables_its_commands_say_so_and_change_nothing(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    code, said = run(tmp_path, *words, APP_PORT=str(free_port()))

    assert code == 1
    assert "smartlink db upgrade" in said
    assert "docs/howto/outbox.md" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "does"),
    [
        ("http://127.0.0.1:9/hook", "add 127.0.0.1:9 to REVERB_WEBHOOK_ALLOWED_HOSTS"),
        ("https://10.1.2.3/hook", "add 10.1.2.3:443 to REVERB_WEBHOOK_ALLOWED_HOSTS"),
        ("http://93.184.216.34/hook", "use https, or set REVERB_WEBHOOK_ALLOW_HTTP=true"),
    ],
)
async def test_a_refused_webhook_address_is_reported_at_startup_and_by_doctor(
    tmp_path: Path, url: str, does: str
) -> None:
    with reverb(tmp_path, "--workers", "1", reverb_webhook_url=url) as server:
        await eventually(lambda: "webhook address refused" in server.said)
        assert does in server.said

    code, said = run(tmp_path, "doctor", "--only", "webhooks", REVERB_WEBHOOK_URL=url)
    assert code == 1
    assert does in said


async def test_setting_the_named_variable_is_enough(tmp_path: Path) -> None:
    async with receiver() as target:
        allowed = f"127.0.0.1:{target.port}"
        code, said = run(
            tmp_path,
            "doctor",
            "--only",
            "webhooks",
            REVERB_WEBHOOK_URL=target.url,
            REVERB_WEBHOOK_ALLOWED_HOSTS=allowed,
        )

    assert (code, "1 address allowed" in said) == (0, True), said


def test_publishers_find_the_server_by_its_port_setting(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "1") as server:
        port = str(server.port)
        assert run(tmp_path, "reverb", "status", REVERB_SERVER_PORT=port)[0] == 0
        assert run(tmp_path, "event", "trigger", "a", "b", REVERB_SERVER_PORT=port)[0] == 0

        left = {"REVERB_SERVER_PORT": port, "REVERB_PORT": str(free_port())}
        for words in (("reverb", "status"), ("doctor", "--only", "realtime")):
            code, said = run(tmp_path, *words, **left)
            assert code == 1
            assert f"REVERB_PORT={port}" in said


def test_a_server_warns_that_publishers_use_another_port(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "1", reverb_port=free_port()) as server:
        assert f"set REVERB_PORT={server.port}" in server.said


def test_commands_take_keys_from_the_apps_file_or_table(tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    block = '[[apps]]\nid = "{0}"\nkey = "key-{0}"\nsecret = "a-secret-that-is-long-{0}"\n'
    file.write_text(block.format("one") + block.format("two"))
    with reverb(tmp_path, "--workers", "1", reverb_apps_file="apps.toml") as server:
        where = {"REVERB_APPS_FILE": "apps.toml", "REVERB_SERVER_PORT": str(server.port)}
        for words in (("status",), ("status", "--app", "two")):
            assert run(tmp_path, "reverb", *words, **where)[0] == 0
        assert run(tmp_path, "doctor", "--only", "keys,realtime", **where)[0] == 0
        for words in ((), ("--app", "two")):
            code, said = run(tmp_path, "event", "trigger", "a", "b", *words, **where)
            assert code == 0, said
        for words in (("reverb", "status"), ("event", "trigger", "a", "b")):
            code, said = run(tmp_path, *words, "--app", "three", **where)
            assert code == 2
            assert "smartlink apps list" in said
