"""Patterns of channel names: `*` stands for any text without a dot, `**` for any text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["covers", "matches"]

MAX_STEPS = 2_000
"""Steps after which `covers` gives up."""
_OTHER = "\x00"
"""Stands for every character that is in none of the patterns compared."""


@lru_cache(maxsize=10_000)
def _parts(pattern: str) -> tuple[str, ...]:
    """Split a pattern into wildcards and single characters."""
    parts = (part for part in re.split(r"(\*\*|\*)", pattern) if part)
    return tuple(each for part in parts for each in ([part] if part in ("*", "**") else part))


@lru_cache(maxsize=10_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    wild = {"**": ".*", "*": "[^.]*"}
    return re.compile("".join(wild.get(part) or re.escape(part) for part in _parts(pattern)) + r"\Z")


def matches(pattern: str, channel: str) -> bool:
    """Whether a pattern matches the whole name."""
    return _compiled(pattern).match(channel) is not None


def covers(patterns: Sequence[str], pattern: str) -> bool:
    """Whether every name that `pattern` matches is matched by one of `patterns`.

    False also when that would take too long to find out.
    """
    many = [_parts(each) for each in patterns]
    one = _parts(pattern)
    alphabet = {part for parts in (*many, one) for part in parts if part not in ("*", "**")} | {".", _OTHER}
    start = (_rested(one, {0}), tuple(_rested(each, {0}) for each in many))
    seen, todo = {start}, [start]
    while todo:
        if len(seen) > MAX_STEPS:
            return False
        state, states = todo.pop()
        if len(one) in state and not any(len(parts) in each for parts, each in zip(many, states, strict=True)):
            return False
        for character in alphabet:
            if after := _after(one, state, character):
                found = (after, tuple(_after(p, s, character) for p, s in zip(many, states, strict=True)))
                if found not in seen:
                    seen.add(found)
                    todo.append(found)
    return True


def _rested(parts: tuple[str, ...], places: set[int]) -> frozenset[int]:
    """Add the places that are reached because a wildcard may stand for nothing."""
    found = set(places)
    for place in sorted(places):
        while place < len(parts) and parts[place] in ("*", "**"):
            place += 1
            found.add(place)
    return frozenset(found)


def _after(parts: tuple[str, ...], places: frozenset[int], character: str) -> frozenset[int]:
    """Return the places in a pattern, from 0 to its end, after one more character of a name."""
    found: set[int] = set()
    for place in places:
        part = parts[place] if place < len(parts) else ""
        if part == "**" or (part == "*" and character != "."):
            found.add(place)
        elif part == character:
            found.add(place + 1)
    return _rested(parts, found)
