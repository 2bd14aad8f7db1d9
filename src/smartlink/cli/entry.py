"""The entry point. Imports nothing outside the standard library, so that it can report a missing extra."""

from __future__ import annotations

import sys

__all__ = ["main"]


_EXTRAS = {
    "reverb": "server",
    "webhooks": "server",
    "apps": "server",
    "event": "server",
    "tail": "server",
    "explain": "server",
    "bench": "server",
    "listen": "client,cli",
    "events": "broadcasting,cli",
}
"""The extra each command needs; those neither here nor in `_PORTALS` (`serve`, `doctor`) need all of them."""
_PORTALS = ("app", "worker", "db", "failed", "channels", "user", "seed")


def _extra(arguments: list[str]) -> str:
    command = next((each for each in arguments if not each.startswith("-")), "")
    return "portal" if command in _PORTALS else _EXTRAS.get(command, "all")


def main() -> None:
    """Run the command line. If a dependency is missing, say which extra installs it, and exit with 1."""
    try:
        from smartlink.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("smartlink"):
            raise
        print(  # noqa: T201 — this is the command line
            f"This command needs {error.name}: pip install 'smartlink-realtime[{_extra(sys.argv[1:])}]'.",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
