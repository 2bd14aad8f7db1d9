"""TypeScript for schemas and events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["event_types", "type_of", "types"]

_PLACEHOLDER = re.compile(r"{(\w+)}")
_PLAIN = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}
_ECHO = (
    ("PublicChannels", "", "Echo.channel"),
    ("PrivateChannels", "private-", "Echo.private"),
    ("EncryptedChannels", "private-encrypted-", "Echo.encryptedPrivate"),
    ("PresenceChannels", "presence-", "Echo.join"),
)
_LONGEST_FIRST = sorted(_ECHO, key=lambda each: len(each[1]), reverse=True)
_LISTEN = """/**
 * A hook or function that listens, with the channels and payloads of these events:
 * `const listen = useEcho as unknown as Listen<PrivateChannels>`.
 */
export type Listen<Channels> = <
  Name extends keyof Channels & string,
  Event extends Channels[Name] & keyof EventPayloads,
>(
  channel: Name,
  event: Event | Event[],
  callback: (payload: EventPayloads[Event]) => void,
) => unknown
"""


def types(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return TypeScript for schemas: an interface for each object."""
    return "\n".join(_declarations(schemas))


def event_types(
    document: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    namespace: str = "App\\Events\\",
    for_echo: bool = True,
) -> str:
    """Return TypeScript for the events of an AsyncAPI document, under the names that Echo listens for.

    `namespace` is the broadcaster's, and Echo's. Records that are `known` by the same name and shape are imported from
    `./schema`. `for_echo` adds the channels by Echo's names, without prefixes, and what makes hooks typed.
    """
    known = known or {}
    messages = document["components"]["messages"]
    echo_names = {key: _listened(message["name"], namespace) for key, message in messages.items()}
    own = {
        name: schema
        for name, schema in document["components"]["schemas"].items()
        if name not in known or _declaration(name, schema) != _declaration(name, known[name])
    }
    payloads = [
        line
        for key, message in messages.items()
        for line in (
            *_comment(message["summary"], "  "),
            f"  {_quoted(echo_names[key])}: {{",
            *(f"  {line}" for line in _fields(message["payload"])),
            *(["    [name: string]: unknown"] if _is_unknown(message["payload"]) else []),
            "  }",
        )
    ]
    durable = _names(echo_names[key] for key, message in messages.items() if {"name": "durable"} in message["tags"])
    channels = list(document["channels"].values())
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
            *_channel_lines(channels, echo_names),
            "}",
            "",
            "/** Recorded events: those with an `eventId`. */",
            f"export type DurableEvent = {durable}",
            "",
            *(_echo_lines(channels, echo_names) if for_echo else ()),
        )
    )
    used = json.dumps([own, *(message["payload"] for message in messages.values())])
    imported = sorted(set(re.findall(r'"#/components/schemas/(\w+)"', used)) - set(own))
    return f"import type {{ {', '.join(imported)} }} from './schema'\n\n{body}" if imported else body


def _is_unknown(payload: Mapping[str, Any]) -> bool:
    return payload.get("additionalProperties") is True and not payload["properties"]


def _channel_lines(
    channels: Sequence[Mapping[str, Any]], echo_names: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    for channel in channels:
        is_named = channel["title"] != channel["address"]
        yield from _comment(
            f"{channel['title']}. {channel['description']}" if is_named else channel["description"], "  "
        )
        pattern = _pattern(channel["address"].removeprefix(prefix), channel.get("parameters", {}))
        # TypeScript wants a pattern to allow what narrower ones allow.
        covered = [each for each in channels if _matcher(channel).fullmatch(_sample(each))]
        names = dict.fromkeys(echo_names[name] for each in covered for name in each["messages"])
        yield f"  {pattern}: {_names(names)}"


def _sample(channel: Mapping[str, Any]) -> str:
    kinds = channel.get("parameters", {})
    return _PLACEHOLDER.sub(
        lambda found: "1" if kinds[found[1]].get("x-type") == "integer" else "x", channel["address"]
    )


def _matcher(channel: Mapping[str, Any]) -> re.Pattern[str]:
    """What a template of TypeScript matches: `${string}` anything, dots too."""
    kinds, (first, *rest) = channel.get("parameters", {}), _PLACEHOLDER.split(channel["address"])
    parts = [re.escape(first)]
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        parts.append("[0-9]+" if kinds[name].get("x-type") == "integer" else ".*")
        parts.append(re.escape(text))
    return re.compile("".join(parts))


def _echo_lines(channels: Sequence[Mapping[str, Any]], echo_names: Mapping[str, str]) -> Iterator[str]:
    for name, prefix, method in _ECHO:
        of_kind = [channel for channel in channels if _prefix_of(channel["address"]) == prefix]
        yield from (f"/** Channels of `{method}`: the names of their events. */", f"export interface {name} {{")
        yield from _channel_lines(of_kind, echo_names, prefix)
        yield from ("}", "")
    yield _LISTEN


def _prefix_of(address: str) -> str:
    return next(prefix for _, prefix, _ in _LONGEST_FIRST if address.startswith(prefix))


def _listened(wire_name: str, namespace: str) -> str:
    """The name by which Echo listens: without the namespace, or behind a dot."""
    if namespace and wire_name.startswith(namespace):
        return wire_name.removeprefix(namespace)
    return f".{wire_name}"


def _names(names: Iterable[str]) -> str:
    return " | ".join(f"'{_escaped(name)}'" for name in names) or "never"


def _pattern(address: str, parameters: Mapping[str, Mapping[str, Any]]) -> str:
    def kind(found: re.Match[str]) -> str:
        return "${number}" if parameters[found[1]].get("x-type") == "integer" else "${string}"

    template = _PLACEHOLDER.sub(kind, address)
    return f"[channel: `{template}`]" if template != address else _quoted(address)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f"'{_escaped(name)}'"


def _escaped(name: str) -> str:
    return name.replace("\\", r"\\").replace("'", r"\'")


def _declarations(schemas: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in sorted(schemas):
        yield "\n".join(_declaration(name, schemas[name])) + "\n"


def _declaration(name: str, schema: Mapping[str, Any]) -> list[str]:
    comment = _comment(schema["description"]) if "description" in schema else ()
    if "properties" not in schema:
        return [*comment, f"export type {name} = {type_of(schema)}"]
    return [*comment, f"export interface {name} {{", *_fields(schema), "}"]


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    for field, kind in schema.get("properties", {}).items():
        if described := kind.get("description"):
            yield from _comment(described, "  ")
        mark = "" if field in required else "?"
        yield f"  {_quoted(field)}{mark}: {type_of(kind)}"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    lines = text.replace("*/", "* /").splitlines()
    if not lines:
        return
    if len(lines) == 1:
        yield f"{indent}/** {text} */"
        return
    yield f"{indent}/**"
    yield from (f"{indent} * {line}".rstrip() for line in lines)
    yield f"{indent} */"


def _literal(value: object) -> str:
    return f"'{_escaped(value)}'" if isinstance(value, str) else json.dumps(value)


def type_of(kind: Mapping[str, Any]) -> str:
    """Return the TypeScript of a schema, in one line."""
    if "$ref" in kind:
        return str(kind["$ref"].rpartition("/")[2])
    if "enum" in kind or "const" in kind:
        return " | ".join(_literal(value) for value in kind.get("enum", [kind.get("const")]))
    if either := kind.get("anyOf") or kind.get("oneOf"):
        return " | ".join(dict.fromkeys(type_of(each) for each in either))
    if kind.get("type") == "array":
        if "prefixItems" in kind:
            return f"[{', '.join(map(type_of, kind['prefixItems']))}]"
        items = type_of(kind.get("items", {}))
        return f"({items})[]" if " | " in items else f"{items}[]"
    if kind.get("type") == "object":
        values = kind.get("additionalProperties")
        return f"Record<string, {type_of(values) if isinstance(values, dict) else 'unknown'}>"
    return _PLAIN.get(kind.get("type", ""), "unknown")
