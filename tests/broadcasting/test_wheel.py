"""The wheel with `[broadcasting]` installs nothing of the server or the portal."""

from __future__ import annotations

import json
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from kit import processes

ROOT = Path(__file__).parents[2]
LOOK = """
import json, sys
import smartlink.broadcasting, smartlink.broadcasting.outbox, smartlink.broadcasting.testing
import smartlink.broadcasting.webhooks
from smartlink.broadcasting import Broadcaster, BroadcastSettings, Channel, ChannelEncryption, SyncBroadcaster
settings = BroadcastSettings(_env_file=None, driver="log")
with SyncBroadcaster.from_settings(settings) as broadcaster:
    broadcaster.on(Channel("news")).as_("e").send()
complaints = []
for needs in (dict(driver="redis"), dict(encryption_master_key="a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")):
    try:
        Broadcaster.from_settings(BroadcastSettings(_env_file=None, **needs))
    except Exception as error:
        complaints.append(f"{type(error).__name__}: {error}")
print(json.dumps({"modules": sorted(sys.modules), "complaints": complaints}))
"""


@pytest.mark.wheel
@pytest.mark.timeout(300)
def test_the_library_alone_installs_nothing_of_server_and_portal(tmp_path: Path) -> None:
    processes.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert packed.read("smartlink/.env.example") == (ROOT / ".env.example").read_bytes()
        helper = packed.read("smartlink/portal/static/smartlink-echo.js")
        assert helper == (ROOT / "clients/js/dist/echo.js").read_bytes()
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # The same releases as everywhere else; without hashes, which a wheel just built has none of.
    locked = [
        line.split(" \\")[0].split(" ;")[0]
        for line in (ROOT / "requirements" / "run.txt").read_text().splitlines()
        if "==" in line
    ]
    (tmp_path / "locked.txt").write_text("\n".join(locked))
    processes.run(
        [*install, "-c", str(tmp_path / "locked.txt"), f"smartlink-realtime[broadcasting] @ {wheel.as_uri()}"],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip

    looked = processes.run([str(python), "-c", LOOK], cwd=tmp_path, env={"PATH": ""}, check=True, capture_output=True)

    told = json.loads(looked.stdout)
    modules = set(told["modules"])
    unwanted = {"smartlink.server", "smartlink.portal", "smartlink.cli", "fastapi", "starlette", "uvicorn", "uvloop"}
    unwanted |= {"django", "flask", "redis", "nacl", "alembic", "typer", "httptools", "asyncpg"}
    assert unwanted & modules == set()
    assert {name.split(".")[1] for name in modules if name.startswith("smartlink.")} == {
        "background", "broadcasting", "lost", "prometheus", "protocol", "safety", "tracing"
    }  # fmt: skip
    assert ["[redis]" in told["complaints"][0], "[encryption]" in told["complaints"][1]] == [True, True]
