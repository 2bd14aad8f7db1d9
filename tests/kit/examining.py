"""`smartlink doctor` in the test's own process."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from typer.testing import CliRunner

from kit.ports import free_port
from smartlink.cli.doctor import command

__all__ = ["SECRET", "examined", "problems", "warnings"]

OURS = ("REVERB_", "APP_", "DB_", "DATABASE_", "REDIS_", "BROADCAST_")
SECRET = "a-secret-of-the-tests-that-is-long-enough"


def examined(folder: Path, *words: str, **settings: Any) -> tuple[int, list[dict[str, str]], str]:
    """Exit code, what was found, and all that was said. In this process: an interpreter for each would take its time."""
    own = {"APP_PORT": str(free_port()), "REVERB_SERVER_PORT": str(free_port()), "REVERB_PORT": str(free_port())}
    given = own | {name.upper(): str(value) for name, value in settings.items()}
    others = [name for name in os.environ if name.startswith(OURS)]
    app = typer.Typer()
    app.command()(command.doctor)
    # How this process logs stays as it is.
    with contextlib.chdir(folder), mock.patch.object(command, "configure"):
        done = CliRunner().invoke(app, ["--json", *words], env=dict.fromkeys(others) | given)
    assert isinstance(done.exception, SystemExit | None), done.exception
    report = json.loads(done.stdout)
    assert report["ok"] is (done.exit_code == 0)
    return done.exit_code, report["checks"], done.output


def problems(checks: list[dict[str, str]]) -> dict[str, str]:
    """By check: what was said and what to do, of all that failed."""
    return _told(checks, "failed")


def warnings(checks: list[dict[str, str]]) -> dict[str, str]:
    """The same of all that is a warning."""
    return _told(checks, "warning")


def _told(checks: list[dict[str, str]], state: str) -> dict[str, str]:
    return {check["check"]: f"{check['said']}: {check['fix']}" for check in checks if check["state"] == state}
