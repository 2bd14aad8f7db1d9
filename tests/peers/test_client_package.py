"""The npm package of the JavaScript helper: what is packed, how small it is, and that it can be installed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kit import processes

PACKAGE = Path(__file__).parents[2] / "clients" / "js"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project into which the packed package was installed, from its file alone."""
    project = tmp_path_factory.mktemp("project")
    packed = processes.run(
        ["npm", "pack", "--json", "--pack-destination", str(project)],
        cwd=PACKAGE, check=True, capture_output=True, text=True,
    )  # fmt: skip
    [package] = json.loads(packed.stdout)
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    processes.run(
        ["npm", "install", "--offline", "--no-audit", "--no-fund", f"./{package['filename']}"],
        cwd=project, check=True, capture_output=True,
    )  # fmt: skip
    return project


def test_one_file_with_types_is_packed(installed: Path) -> None:
    package = installed / "node_modules" / "@smartlink" / "echo"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert files == {"LICENSE", "README.md", "dist/echo.d.ts", "dist/echo.js", "package.json"}
    assert len(gzip.compress((package / "dist/echo.js").read_bytes())) < 2_000
    described = json.loads((package / "package.json").read_text())
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & described.keys()


def test_without_pusher_js_it_says_what_to_do(installed: Path) -> None:
    script = "import { resumable } from '@smartlink/echo'; try { resumable({}) } catch (e) { console.log(e.message) }"
    said = processes.run(
        ["node", "--input-type=module", "-e", script], cwd=installed, check=True, capture_output=True, text=True
    )
    assert (
        said.stdout.strip()
        == "resumable() needs pusher-js: pass it as { Pusher }, as in import Pusher from 'pusher-js'"
    )


def test_the_license_is_the_projects() -> None:
    assert (PACKAGE / "LICENSE").read_bytes() == (PACKAGE.parents[1] / "LICENSE").read_bytes()
