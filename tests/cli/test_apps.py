"""`smartlink apps …`, and a server whose apps change while it runs."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from pathlib import Path

import pytest

from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S, eventually

APP = '[[apps]]\nid = "1001"\nkey = "app-key"\nsecret = "app-secret"\n'


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_"))} | more


def smartlink(folder: Path, *words: str, **more: str) -> tuple[int, str]:
    done = processes.run([SMARTLINK, *words], cwd=folder, env=environment(**more), capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_file_is_checked_listed_and_added_to(tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    file.write_text(APP)
    in_use = {"REVERB_APPS_FILE": "apps.toml"}

    code, block = smartlink(tmp_path, "apps", "new", "--id", "second", **in_use)
    assert (code, tomllib.loads(block)["apps"][0]["id"]) == (0, "second")
    file.write_text(f"{APP}\n{block}")
    assert smartlink(tmp_path, "apps", "check", **in_use) == (0, "2 applications, all valid\n")
    code, listed = smartlink(tmp_path, "apps", "list", "--json", **in_use)
    assert code == 0
    assert "second" in listed
    assert "app-secret" not in listed
    file.write_text(APP.replace("key =", "kye ="))
    assert smartlink(tmp_path, "apps", "check", "apps.toml") == (
        2,
        "apps.toml: app '1001': 'kye' is not a known key; did you mean 'key'?\napps.toml: app '1001': key: is required\n",
    )


def test_policies_of_channels_are_explained_and_listed(tmp_path: Path) -> None:
    policies = """
[[apps.channels]]
pattern = "private-prices.*"
history = 200
conflate_ms = 250

[[apps.channels]]
pattern = "private-prices.eur"
webhooks = false
"""
    (tmp_path / "apps.toml").write_text(APP + policies)
    code, said = smartlink(tmp_path, "apps", "check", "apps.toml")
    assert code == 0
    assert said == (
        "1 application, valid\n"
        "1001: the first of these policies that matches a channel holds on it\n"
        "  private-prices.*    keeps 200 events for 120 s, at most 1048576 bytes, "
        "sends each subscriber at most one event per name in 250 ms\n"
        "  private-prices.eur  sends no webhooks\n"
        "                      never holds: private-prices.* comes first and matches the same channels\n"
    )
    code, listed = smartlink(tmp_path, "apps", "list", "--json", REVERB_APPS_FILE="apps.toml")
    assert code == 0
    shown = json.loads(listed)[0]["channels"]
    assert [(each["pattern"], each["conflate_ms"], each["webhooks"]) for each in shown] == [
        ("private-prices.*", 250, True), ("private-prices.eur", None, False),
    ]  # fmt: skip
    (tmp_path / "apps.toml").write_text(APP + policies.replace("250", "1"))
    code, said = smartlink(tmp_path, "apps", "check", "apps.toml")
    assert code == 2
    assert "channels: number 1: conflate_ms: must be a whole number from 10 to 60000" in said


def test_an_apps_database_is_created_and_added_to(tmp_path: Path) -> None:
    in_use = {"REVERB_APPS_DATABASE_URL": "sqlite:///apps.db"}
    code, said = smartlink(tmp_path, "apps", "list", **in_use)
    assert (code, "smartlink apps install" in said) == (2, True)

    assert smartlink(tmp_path, "apps", "install", **in_use)[0] == 0
    assert smartlink(tmp_path, "apps", "new", "--id", "first", **in_use)[0] == 0
    code, said = smartlink(tmp_path, "apps", "new", "--id", "first", **in_use)
    assert (code, said) == (2, "An app with this id or key already exists\n")
    assert "first" in smartlink(tmp_path, "apps", "list", **in_use)[1]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"REVERB_APPS_FILE": "nowhere.toml"}, "nowhere.toml cannot be read"),
        ({"REVERB_APPS_FILE": "a", "REVERB_APPS_DATABASE_URL": "sqlite:///b"}, "not both"),
        ({"REVERB_APPS_DATABASE_URL": "sqlite:///b.db"}, "smartlink apps install"),
        ({"REVERB_WEBHOOK_QUEUE": "elsewhere"}, "must be memory, sqlite:///path, redis, or redis://"),
        (
            {"REVERB_WEBHOOK_QUEUE": "sqlite:////proc/x/y.db", "REVERB_WEBHOOK_URL": "https://a.test/"},
            "See REVERB_WEBHOOK_QUEUE",
        ),
    ],
)
def test_a_server_without_usable_apps_says_so(tmp_path: Path, settings: dict[str, str], told: str) -> None:
    code, said = smartlink(tmp_path, "reverb", "start", REVERB_SERVER_PORT=str(free_port()), **settings)
    assert code in (1, 2)
    assert told in said


async def test_sighup_reloads_the_apps(tmp_path: Path) -> None:
    file, port = tmp_path / "apps.toml", free_port()
    file.write_text(APP)
    log = (tmp_path / "log").open("wb")
    server = processes.popen(
        [SMARTLINK, "reverb", "start"],
        cwd=tmp_path,
        env=environment(REVERB_APPS_FILE="apps.toml", REVERB_SERVER_PORT=str(port)),
        stdout=log,
        stderr=log,
    )
    try:
        await eventually(lambda: b"Realtime server" in (tmp_path / "log").read_bytes())
        async with connected(port) as ana:
            file.write_text(APP + "is_enabled = false\n")
            server.send_signal(signal.SIGHUP)
            assert (await ana.closed()).code == 4003
    finally:
        server.terminate()
        assert server.wait(LIMIT_S) == 0
        log.close()
