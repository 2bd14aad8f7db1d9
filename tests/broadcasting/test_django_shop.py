"""Django's models, admin and system checks, in a project of their own on each database."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import processes
from kit.postgres import fresh_database

SHOP = Path(__file__).with_name("django_shop.py")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shop.db'}"
    else:
        with fresh_database(request.getfixturevalue("postgres_url")) as url:
            yield url


def test_changes_admin_and_checks(empty_url: str, tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REVERB_", "BROADCAST_"))}

    ran = processes.run(
        [sys.executable, str(SHOP), empty_url], cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120
    )

    assert (ran.stdout, ran.returncode) == ("as it should\n", 0), ran.stderr
