"""The pytest plugin, in runs of pytest of their own, as an application's developer has it."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from kit import processes

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "howto" / "testing.md"
APPLICATION = """
from dataclasses import dataclass

from fastapi import FastAPI
from smartlink.broadcasting import Broadcasting, BroadcastNow, PrivateChannel

broadcasting = Broadcasting.from_env()


@dataclass(frozen=True)
class User:
    id: int


class OrderShipped(BroadcastNow):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@broadcasting.private("orders.{order_id}")
def owns(user: User, order_id: int) -> bool:
    return user.id == order_id


app = FastAPI(lifespan=broadcasting.lifespan)
broadcasting.install(app, user=lambda: None)


@app.post("/orders/{order_id}/ship")
async def ship(order_id: int) -> bool:
    return await broadcasting.send_now(OrderShipped(order_id))
"""
INI = "[pytest]\nfilterwarnings = error\nsmartlink_broadcasting = myapp.main:broadcasting\n"


def run_of(folder: Path, tests: str, *plugins: str, ini: str = INI, conftest: str = "", **environment: str) -> str:
    """What pytest prints for `tests`."""
    (folder / "myapp").mkdir()
    (folder / "myapp" / "main.py").write_text(APPLICATION)
    (folder / "test_orders.py").write_text(tests)
    (folder / "conftest.py").write_text(conftest)
    (folder / "pytest.ini").write_text(ini)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "smartlink.pytest_plugin"]
    for plugin in plugins:
        command += ["-p", plugin]
    own = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""}
    ran = processes.run(command, cwd=folder, env=own | environment, capture_output=True, text=True, timeout=120)
    return str(ran.stdout + ran.stderr)


def test_the_package_registers_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]

    assert declared == {"smartlink": "smartlink.pytest_plugin"}


def test_it_costs_other_test_runs_no_imports() -> None:
    look = "import sys, pytest; before = set(sys.modules); import smartlink.pytest_plugin; print(*set(sys.modules) - before)"

    ran = processes.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)

    assert set(ran.stdout.split()) - {"pkgutil"} == {"smartlink", "smartlink.pytest_plugin"}


@pytest.mark.parametrize("driver", ["reverb", "log"])
def test_the_guides_tests_pass(tmp_path: Path, driver: str) -> None:
    [snippet] = re.findall(r"^```python\n# test_orders.py\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)

    said = run_of(
        tmp_path, snippet.replace("from httpx import", "from httpx2 import"), "pytest_asyncio.plugin",
        ini=INI + "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n", BROADCAST_DRIVER=driver,
    )  # fmt: skip

    assert "3 passed" in said


ANYIO = """
import pytest
from myapp.main import OrderShipped, User, broadcasting

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_it_is_heard(realtime):
    async with realtime.client_of(User(7)) as owner:
        orders = (await owner.subscribe("private-orders.7")).events(OrderShipped)
        assert await broadcasting.send_now(OrderShipped(7))
        assert await orders.get(timeout_s=30) == OrderShipped(7)
"""


def test_anyios_tests_can_use_it(tmp_path: Path) -> None:
    assert "1 passed" in run_of(tmp_path, ANYIO, "anyio.pytest_plugin")


RECORDING = """
import pytest
from myapp.main import OrderShipped, broadcasting


def test_what_is_sent_is_kept(broadcasts):
    assert broadcasting.send_now_sync(OrderShipped(7))
    broadcasts.assert_broadcast(OrderShipped, on="private-orders.7", times=1)


def test_each_test_has_its_own(broadcasts):
    broadcasts.assert_nothing_broadcast()
"""
OVERRIDING = """
import pytest
from myapp.main import broadcasting


@pytest.fixture
def smartlink_broadcasting():
    return broadcasting
"""


@pytest.mark.parametrize("how", ["named", "overridden"])
def test_broadcasts_are_recorded(tmp_path: Path, how: str) -> None:
    given = {"ini": INI} if how == "named" else {"ini": "[pytest]\n", "conftest": OVERRIDING}

    assert "2 passed" in run_of(tmp_path, RECORDING, **given)


@pytest.mark.parametrize(
    ("ini", "complaint"),
    [
        ("[pytest]\n", "set smartlink_broadcasting = myapp.main:broadcasting"),
        ("[pytest]\nsmartlink_broadcasting = myapp.main:nothing\n", "has no attribute 'nothing'"),
        ("[pytest]\nsmartlink_broadcasting = elsewhere:x\n", "No module named 'elsewhere'"),
        ("[pytest]\nsmartlink_broadcasting = a b\n", "it has the form myapp.main:broadcasting"),
    ],
)
def test_a_wrong_setting_is_explained(tmp_path: Path, ini: str, complaint: str) -> None:
    said = run_of(tmp_path, "def test_it(broadcasts): pass\n", ini=ini)

    assert "1 error" in said
    assert complaint in said


def test_a_missing_package_is_explained(tmp_path: Path) -> None:
    hide = "import sys\nsys.modules['websockets'] = None\n"

    said = run_of(tmp_path, "def test_it(realtime): pass\n", conftest=hide)

    assert "pip install 'smartlink-realtime[server,broadcasting,client]'" in said
