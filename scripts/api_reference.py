"""Writes what describes the portal's API for other programs. With --check only says whether it is current.

docs/reference/openapi.json   the REST API
docs/reference/asyncapi.json  the events
frontend/src/api/schema.ts    the REST API's records, for the pages
frontend/src/api/events.ts    the events' payloads, and the channels they are sent on, for the pages
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from smartlink.broadcasting.described import event_types, types
from smartlink.portal.asyncapi import document
from smartlink.portal.main import build
from smartlink.portal.shared.settings import PortalSettings

ROOT = Path(__file__).parents[1]
HEAD = "/** The records of the REST API, written from its description: `make reference`. */\n"
EVENTS_HEAD = "/** The events that clients receive, written from their description: `make reference`. */\n"


def files() -> dict[Path, str]:
    """Each file and what is to be in it."""
    portal = build(PortalSettings(_env_file=None, database_url="sqlite:///portal.db"))
    openapi = portal.app.openapi()
    asyncapi = document(portal.broadcaster)
    schemas = openapi["components"]["schemas"]
    return {
        ROOT / "docs/reference/openapi.json": _text(openapi),
        ROOT / "docs/reference/asyncapi.json": _text(asyncapi),
        ROOT / "frontend/src/api/schema.ts": f"{HEAD}\n{types(schemas)}",
        ROOT / "frontend/src/api/events.ts": EVENTS_HEAD + event_types(asyncapi, schemas, for_echo=False),
    }


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check the files."""
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not current: make reference", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
