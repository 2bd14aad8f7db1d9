"""What all tests share."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from kit.postgres import postgres_url
from kit.processes import end_with_parent
from kit.redis import shared_redis

__all__ = ["postgres_url", "shared_redis"]

HERE = str(Path(__file__).parent)

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # One of several pytest processes: what it started ends with it, and it with the one that started it.
        end_with_parent()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None]:
    """Let no test read the clock when it is imported: what it computes then is old when it runs."""
    true = time.time

    def refused() -> float:
        caller = sys._getframe(1)
        while caller is not None and caller.f_code.co_filename.startswith(HERE):
            if caller.f_code.co_name == "<module>":
                raise AssertionError(f"{caller.f_code.co_filename}:{caller.f_lineno} reads the clock at import")
            caller = caller.f_back
        return true()

    time.time = refused
    # What is collected lives to the end: looking through it for garbage, now or later, only costs.
    gc.disable()
    try:
        return (yield)
    finally:
        time.time = true
        gc.freeze()
        gc.enable()
