"""The server's commands need only the `[server]` extra, and `listen` only `[client,cli]`."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from kit import processes

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SCRIPT = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = ["smartlink", *{arguments!r}]
from smartlink.cli.entry import main
main()
"""


def named(extras: list[str]) -> set[str]:
    texts = [text for extra in extras for text in EXTRAS[extra]]
    return {re.split(r"[\[<>=;]", text)[0] for text in texts} - {"smartlink-realtime"}


def absent(*extras: str) -> list[str]:
    """The modules that a machine with these extras alone does not have."""
    others = named(list(EXTRAS)) - named(list(extras))
    return [top for top, brought_by in packages_distributions().items() if brought_by[0].lower() in others]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["reverb", "install"], 0, "Wrote REVERB_APP_ID"),
        (["reverb", "status"], 1, "nothing answers"),
        (["apps", "list"], 0, "1001"),
        (["event", "trigger", "news", "hello"], 1, "Not sent"),
        (["doctor", "--only", "settings"], 0, "settings"),
        (["tail", "--url", "http://127.0.0.1:1"], 3, "smartlink reverb start"),
        (["explain", "news", "--url", "http://127.0.0.1:1"], 3, "smartlink reverb start"),
        (["bench", "--connections", "1"], 1, "No connection opened"),
        (["channels", "list"], 1, "pip install 'smartlink-realtime[portal]'"),
        (["serve"], 1, "pip install 'smartlink-realtime[all]'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_servers_commands_need_only_the_server_extra(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    missing = absent("cli", "server")
    assert {"sqlalchemy", "fastapi", "uvicorn", "alembic"} <= set(missing)
    script = SCRIPT.format(absent=missing, arguments=arguments)

    done = processes.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"REVERB_PORT": "1"}, capture_output=True, text=True
    )

    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("script", "extras"),
    [
        (SCRIPT.replace("{arguments!r}", '["listen", "not a channel"]'), ("cli", "client")),
        ("import sys; sys.modules.update(dict.fromkeys({absent!r})); import smartlink.client", ("client",)),
    ],
)
def test_the_client_and_its_command_need_nothing_else(script: str, extras: tuple[str, ...], tmp_path: Path) -> None:
    missing = absent(*extras)
    assert {"sqlalchemy", "pydantic_settings", "redis"} <= set(missing)

    done = processes.run(
        [sys.executable, "-c", script.format(absent=missing)], cwd=tmp_path, env={}, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) in ((1, "not a channel name: 'not a channel'\n"), (0, "")), done.stderr
