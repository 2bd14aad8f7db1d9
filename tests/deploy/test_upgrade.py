"""docs/howto/upgrade.md: an earlier version and this one side by side, on one database and one Redis, while people talk."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kit import processes
from kit.deployment import Deployment, deployment
from kit.postgres import fresh_database
from kit.readers import Reader, as_ana
from kit.redis import redis_server
from kit.serve import SMARTLINK
from kit.talking import Writer
from kit.waiting import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(420)]
ROOT = Path(__file__).parents[2]
EARLIER = "e1bbce1"
"""The commit that added revision 0010, the oldest version that can run beside this one."""


def installed(sources: Path, folder: Path) -> str:
    """Build a wheel of `sources` and install it with this environment's dependencies; the command."""
    processes.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=sources, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    # A line that is a folder is searched for modules, not for further .pth files: this checkout stays out.
    site = folder / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    processes.run(
        [str(Path(sys.executable).with_name("uv")), "pip", "install", "--no-deps", "--python", str(python), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    said = processes.run(
        [str(python), "-c", "import smartlink; print(smartlink.__file__)"], capture_output=True, text=True
    )
    assert str(folder) in said.stdout
    return str(python.with_name("smartlink"))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The earlier version's command."""
    folder = tmp_path_factory.mktemp("earlier")
    sources = folder / "sources"
    sources.mkdir()
    git = shutil.which("git") or "git"
    archive = processes.run([git, "-C", str(ROOT), "archive", EARLIER], capture_output=True)
    if archive.returncode:
        pytest.skip(f"{EARLIER} is not in this clone's history")
    processes.run(["tar", "-x", "-C", str(sources)], input=archive.stdout, check=True)
    return installed(sources, folder)


@pytest.fixture
def of_before(earlier: str, tmp_path: Path, postgres_url: str) -> Iterator[Deployment]:
    with (
        fresh_database(postgres_url) as database,
        redis_server() as redis,
        deployment(tmp_path, database, redis, program=earlier) as running,
    ):
        yield running


async def test_an_upgrade_node_by_node_loses_nothing(of_before: Deployment) -> None:
    deployed = of_before
    async with AsyncExitStack() as stack, Writer(deployed, waits_for_the_api=True) as writer:
        api = await stack.enter_async_context(as_ana(deployed))
        readers = [await stack.enter_async_context(Reader(deployed, api)) for _ in range(4)]
        await writer.said_more(3)

        # First the tables; the earlier version keeps working with them.
        deployed.program = SMARTLINK
        upgraded = await asyncio.to_thread(deployed.command, "db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        await writer.said_more(3)

        # Then the services, one after the other; the realtime nodes last.
        for service in (deployed.worker, deployed.app, *deployed.nodes):
            service.signal(signal.SIGTERM)
            assert await asyncio.to_thread(service.wait) == 0, service.said[-2000:]
            service.runs(SMARTLINK)
            service.start()
            await asyncio.to_thread(deployed.wait_until_up)
            await writer.said_more(3)

        for reader in readers:
            await eventually(lambda reader=reader: reader.has(writer.written[-1]), what="the last message arrives")

    assert writer.answers == {201}
    for reader in readers:
        reader.check(writer.written)
        assert set(reader.closes) <= {4200}
