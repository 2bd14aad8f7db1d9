"""deploy/compose.yml as compose reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["compose", "interpolated", "seconds"]

FILE = Path(__file__).parents[2] / "deploy" / "compose.yml"


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}`, `${NAME:-default}`, `${NAME:?message}`, and `$$` for a dollar. Raises KeyError with the message."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, how, more = found[1], found[2], found[3]
        if values.get(name):
            return values[name]
        if how == ":?":
            raise KeyError(more)
        return more or ""

    return re.sub(r"\$\$|\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}", value, text)


def compose(values: Mapping[str, str]) -> dict[str, Any]:
    """The whole file, with what `deploy/.env` would give."""
    found: dict[str, Any] = yaml.safe_load(interpolated(FILE.read_text(), values))
    return found


def seconds(text: str) -> float:
    """`10s`, `5min`: the form of compose and of systemd."""
    number, unit = re.fullmatch(r"(\d+)(s|min|m|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "min": 60, "h": 3600}[unit]
