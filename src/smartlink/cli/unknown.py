"""Finds misspelt settings: variables that look like the realtime server's but would be ignored silently."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["OF_OTHERS", "find_unknown", "warn_of_unknown"]

PREFIX = "REVERB_"
OF_OTHERS = frozenset(
    {f"REVERB_{part}" for part in ("HOST", "PORT", "SCHEME", "PUBLIC_HOST", "PUBLIC_PORT", "PUBLIC_SCHEME")}
)
"""Variables with our prefix that publishers and pages read, not the server."""


def find_unknown(names: Iterable[str], known: Iterable[str]) -> Mapping[str, str | None]:
    """Return those of `names` that have our prefix and are not `known`, each with its closest match or None."""
    near_to = {name.removeprefix(PREFIX): name for name in known if name.startswith(PREFIX)}
    found: dict[str, str | None] = {}
    for name in sorted(names):
        rest = name.removeprefix(PREFIX)
        if rest != name and rest not in near_to:
            near = difflib.get_close_matches(rest, near_to, 1, 0.75)
            found[name] = near_to[near[0]] if near else None
    return found


def warn_of_unknown(env_file: Path = Path(".env")) -> None:
    """Log each unknown setting, without its value."""
    import structlog  # it imports rich, which takes as long as all else that a short command needs
    from dotenv import dotenv_values

    from smartlink.server.settings.config import ServerSettings

    given = {name.upper() for name in (*os.environ, *(dotenv_values(env_file) if env_file.is_file() else ()))}
    known = {name.upper() for name in ServerSettings.model_fields} | OF_OTHERS
    log = structlog.get_logger(__name__)
    for name, meant in find_unknown(given, known).items():
        log.warning("unknown setting", name=name, did_you_mean=meant)
