"""Writes what describes the portal's API for other programs. With --check only says whether it is current.

docs/reference/openapi.json   the REST API
docs/reference/asyncapi.json  the events
frontend/src/api/schema.ts    the REST API's records, for the pages
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smartlink.portal.asyncapi import document
from smartlink.portal.main import build
from smartlink.portal.shared.settings import PortalSettings

ROOT = Path(__file__).parents[1]
_PLAIN = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}
HEAD = "/** The records of the REST API, written from its description: `make reference`. */\n"


def files() -> dict[Path, str]:
    """Each file and what is to be in it."""
    portal = build(PortalSettings(_env_file=None, database_url="sqlite:///portal.db"))
    openapi = portal.app.openapi()
    return {
        ROOT / "docs/reference/openapi.json": _text(openapi),
        ROOT / "docs/reference/asyncapi.json": _text(document(portal.broadcaster)),
        ROOT / "frontend/src/api/schema.ts": types(openapi["components"]["schemas"]),
    }


def types(schemas: dict[str, dict[str, Any]]) -> str:
    """TypeScript for schemas: an interface for each object."""
    return "\n".join([HEAD, *("\n".join(_interface(name, schemas[name])) + "\n" for name in sorted(schemas))])


def _interface(name: str, schema: dict[str, Any]) -> Iterator[str]:
    if described := schema.get("description"):
        yield from _comment(described)
    yield f"export interface {name} {{"
    required = schema.get("required", ())
    for field, kind in schema.get("properties", {}).items():
        if described := kind.get("description"):
            yield from _comment(described, "  ")
        mark = "" if field in required else "?"
        yield f"  {field}{mark}: {_type(kind)}"
    yield "}"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    lines = text.splitlines()
    if len(lines) == 1:
        yield f"{indent}/** {text} */"
        return
    yield f"{indent}/**"
    yield from (f"{indent} * {line}".rstrip() for line in lines)
    yield f"{indent} */"


def _type(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        return str(kind["$ref"].rpartition("/")[2])
    if "enum" in kind or "const" in kind:
        return " | ".join(f"'{value}'" for value in kind.get("enum", [kind.get("const")]))
    if "anyOf" in kind:
        return " | ".join(dict.fromkeys(_type(each) for each in kind["anyOf"]))
    if kind.get("type") == "array":
        items = _type(kind["items"])
        return f"({items})[]" if " | " in items else f"{items}[]"
    if kind.get("type") == "object":
        values = kind.get("additionalProperties")
        return f"Record<string, {_type(values) if isinstance(values, dict) else 'unknown'}>"
    return _PLAIN.get(kind.get("type", ""), "unknown")


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
