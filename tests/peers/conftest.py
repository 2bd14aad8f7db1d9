"""The npm packages that peers are, installed once from their lock file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    if not (NODE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, capture_output=True, timeout=110)
