"""The reference matches the docstrings, and every public name has one."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

from kit import processes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["reference", "api_reference"])
def test_the_reference_is_current(script: str) -> None:
    checked = processes.run(
        [sys.executable, f"scripts/{script}.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["", ".outbox", ".webhooks", ".testing", ".sessions", ".models", ".server_api"])
def test_every_public_name_is_described(name: str) -> None:
    module = importlib.import_module(f"smartlink.broadcasting{name}")
    undescribed = [
        public
        for public in module.__all__
        if (callable(value := getattr(module, public)) and inspect.getmodule(value) is not None) and not value.__doc__
    ]

    assert undescribed == []
