"""A page of documentation about events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smartlink.broadcasting.described.typescript import type_of

__all__ = ["page"]


def page(document: Mapping[str, Any]) -> str:
    """Return Markdown: who may listen to which channel, what is sent on it, and the fields of each event."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    components = document["components"]
    messages = components["messages"]
    yield from (f"# {document['info']['title']}", "", "## Channels", "")
    yield from ("| channel | subscribers | events |", "| --- | --- | --- |")
    for channel in document["channels"].values():
        names = ", ".join(f"`{messages[key]['name']}`" for key in channel["messages"]) or "client events only"
        who = channel["description"].removeprefix("Subscribers: ")
        yield f"| `{channel['address']}` | {_cell(who)} | {names} |"
    yield from ("", "## Events")
    for message in messages.values():
        yield from ("", f"### `{message['name']}`", "")
        yield " ".join(text for text in (message["summary"], message["description"]) if text)
        yield from _fields(message["payload"])
    if components["schemas"]:
        yield from ("", "## Records")
    for name, schema in components["schemas"].items():
        yield from ("", f"### `{name}`")
        if "properties" in schema:
            yield from _fields(schema)
        else:
            yield from ("", f"`{type_of(schema)}`")


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    if not schema.get("properties"):
        return
    yield from ("", "| field | type | |", "| --- | --- | --- |")
    required = schema.get("required", ())
    for name, kind in schema["properties"].items():
        notes = [kind.get("description", ""), "" if name in required else "may be absent", kind.get("format", "")]
        yield f"| `{name}` | `{_cell(type_of(kind))}` | {_cell('; '.join(note for note in notes if note))} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
