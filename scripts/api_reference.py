"""Writes what describes the portal's API for other programs. With --check only says whether it is current.

docs/reference/openapi.json   the REST API
docs/reference/asyncapi.json  the events
frontend/src/api/schema.ts    the REST API's records, for the pages
frontend/src/api/events.ts    the events' payloads, and the channels they are sent on, for the pages
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from smartlink.portal.asyncapi import document
from smartlink.portal.main import build
from smartlink.portal.shared.settings import PortalSettings

ROOT = Path(__file__).parents[1]
_PLAIN = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}
HEAD = "/** The records of the REST API, written from its description: `make reference`. */\n"
EVENTS_HEAD = "/** The events that clients receive, written from their description: `make reference`. */\n"
NAMESPACE = "App\\Events\\"


def files() -> dict[Path, str]:
    """Each file and what is to be in it."""
    portal = build(PortalSettings(_env_file=None, database_url="sqlite:///portal.db"))
    openapi = portal.app.openapi()
    asyncapi = document(portal.broadcaster)
    schemas = openapi["components"]["schemas"]
    return {
        ROOT / "docs/reference/openapi.json": _text(openapi),
        ROOT / "docs/reference/asyncapi.json": _text(asyncapi),
        ROOT / "frontend/src/api/schema.ts": types(schemas),
        ROOT / "frontend/src/api/events.ts": event_types(asyncapi, schemas),
    }


def types(schemas: dict[str, dict[str, Any]]) -> str:
    """TypeScript for schemas: an interface for each object."""
    return "\n".join([HEAD, *_declarations(schemas)])


def event_types(asyncapi: dict[str, Any], known: dict[str, dict[str, Any]]) -> str:
    """TypeScript for events. Records that are `known` by the same name and shape are imported from `schema.ts`."""
    messages = asyncapi["components"]["messages"]
    own = {
        name: schema
        for name, schema in asyncapi["components"]["schemas"].items()
        if name not in known or _declaration(name, schema) != _declaration(name, known[name])
    }
    payloads = [
        line
        for message in messages.values()
        for line in (
            *_comment(message["summary"], "  "),
            f"  {_quoted(_listened(message['name']))}: {{",
            *(f"  {line}" for line in _fields(message["payload"])),
            "  }",
        )
    ]
    channels = [
        line
        for channel in asyncapi["channels"].values()
        for line in (
            *_comment(f"{channel['title']}. {channel['description']}", "  "),
            f"  {_pattern(channel['address'])}: {_names(messages[name] for name in channel['messages'])}",
        )
    ]
    durable = _names(message for message in messages.values() if {"name": "durable"} in message["tags"])
    body = "\n".join(
        (
            *_declarations(own),
            "/** The payload of each event, by the name that Echo listens for. */",
            "export interface EventPayloads {",
            *payloads,
            "}",
            "",
            "/** The names of the events on each channel. */",
            "export interface ChannelEvents {",
            *channels,
            "}",
            "",
            "/** Recorded events: `GET /api/events` has those that a client missed. */",
            f"export type DurableEvent = {durable}",
            "",
        )
    )
    used = json.dumps([own, *(message["payload"] for message in messages.values())])
    imported = sorted(set(re.findall(r'"#/components/schemas/(\w+)"', used)) - set(own))
    return f"{EVENTS_HEAD}import type {{ {', '.join(imported)} }} from './schema'\n\n{body}"


def _listened(wire_name: str) -> str:
    return wire_name.removeprefix(NAMESPACE) if wire_name.startswith(NAMESPACE) else f".{wire_name}"


def _names(messages: Iterable[dict[str, Any]]) -> str:
    return " | ".join(f"'{_escaped(_listened(message['name']))}'" for message in messages) or "never"


def _pattern(address: str) -> str:
    template = re.sub(r"{\w+}", "${number}", address)
    return f"[channel: `{template}`]" if template != address else _quoted(address)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f"'{_escaped(name)}'"


def _escaped(name: str) -> str:
    return name.replace("\\", r"\\")


def _declarations(schemas: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name in sorted(schemas):
        yield "\n".join(_declaration(name, schemas[name])) + "\n"


def _declaration(name: str, schema: dict[str, Any]) -> list[str]:
    comment = _comment(schema["description"]) if "description" in schema else ()
    if "oneOf" in schema:
        return [*comment, f"export type {name} = {_type(schema)}"]
    return [*comment, f"export interface {name} {{", *_fields(schema), "}"]


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    for field, kind in schema.get("properties", {}).items():
        if described := kind.get("description"):
            yield from _comment(described, "  ")
        mark = "" if field in required else "?"
        yield f"  {field}{mark}: {_type(kind)}"


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
    if either := kind.get("anyOf") or kind.get("oneOf"):
        return " | ".join(dict.fromkeys(_type(each) for each in either))
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
