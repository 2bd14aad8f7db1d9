"""Checks for required packages before the library imports them, to report a missing extra."""

from __future__ import annotations

import importlib.util

__all__ = ["require"]


def require(*names: str) -> None:
    """Raise ModuleNotFoundError, with what to install, if any of the modules `names` is missing."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"smartlink.broadcasting needs {', '.join(missing)}: pip install 'smartlink-realtime[broadcasting]'",
            name=missing[0],
        )


require("httpx2", "pydantic_settings")  # The realtime server alone brings these, and the outbox asks for its own.
