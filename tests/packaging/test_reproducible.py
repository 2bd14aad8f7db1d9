"""The wheel is the same to the byte wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from kit import processes

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("src", "pyproject.toml", "README.md", "LICENSE", ".env.example")


def built_wheel(folder: Path, *, umask: int, modified: int, **environment: str) -> tuple[str, str]:
    """Build it from a copy of the sources; the wheel's name and digest."""
    folder.mkdir()
    for name in BUILT_FROM:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        os.utime(path, (modified, modified))
    processes.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=folder, env=dict(os.environ) | environment, check=True, capture_output=True, umask=umask,
    )  # fmt: skip
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.wheel
def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    one = built_wheel(tmp_path / "here", umask=0o022, modified=1_700_000_000, TZ="UTC", PYTHONHASHSEED="1", LC_ALL="C")
    other = built_wheel(
        tmp_path / "in-another-folder", umask=0o077, modified=1_234_567_890, TZ="Asia/Tokyo", PYTHONHASHSEED="2"
    )

    assert one == other
