"""The entry point: needs nothing installed, so that a missing extra is told in words."""

from __future__ import annotations

import sys

__all__ = ["main"]


_EXTRAS = {"reverb": "server", "webhooks": "server", "apps": "server", "event": "server"}
"""What a command needs; those neither here nor in `_PORTALS` (`serve`, `doctor`) need everything."""
_PORTALS = ("app", "worker", "db", "failed", "channels", "user", "seed")


def _extra(arguments: list[str]) -> str:
    command = next((each for each in arguments if not each.startswith("-")), "")
    return "portal" if command in _PORTALS else _EXTRAS.get(command, "all")


def main() -> None:
    """Run the command line; without what it needs, say which extra brings it."""
    try:
        from smartlink.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("smartlink"):
            raise
        print(  # noqa: T201 — this is the command line
            f"This needs {error.name}: pip install 'smartlink-realtime[{_extra(sys.argv[1:])}]'.",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
