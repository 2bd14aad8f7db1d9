"""The entry point: needs nothing installed, so that a missing extra is told in words."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without what it needs, say which extra brings it."""
    try:
        from smartlink.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("smartlink"):
            raise
        print(  # noqa: T201 — this is the command line
            f"This needs {error.name}: pip install 'smartlink-realtime[all]', or the extra for this part.",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
