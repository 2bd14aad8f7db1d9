"""Prints frames for `--debug`: one line each, coloured on a terminal."""

from __future__ import annotations

import sys

__all__ = ["show_frame"]

_COLOURS = {"←": "\x1b[36m", "→": "\x1b[32m", "·": "\x1b[90m"}


def show_frame(line: str) -> None:
    """Print a line of `smartlink.server.net.tap` on standard error."""
    shown = _printable(line)
    if sys.stderr.isatty():
        shown = f"{_COLOURS.get(line[:1], '')}{shown}\x1b[0m"
    print(shown, file=sys.stderr, flush=True)  # noqa: T201 — this is the command line


def _printable(text: str) -> str:
    """Escape control characters: what a peer sends must not control the terminal."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
