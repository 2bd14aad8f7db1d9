"""Describes event classes and channel rules as an AsyncAPI 3 document.

Everything is read from the classes: names from `broadcast_as`, channels from `channel` and `channels`, payloads from
the fields, or from what an overridden `broadcast_with` is annotated to return.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from smartlink.broadcasting.authorization import ChannelRule, ChannelRules
from smartlink.broadcasting.channels import Channel
from smartlink.broadcasting.envelope import Delivery
from smartlink.broadcasting.events import BroadcastEvent, adapter_of, templates_of
from smartlink.protocol.names import ChannelKind

__all__ = ["DELIVERIES", "Described", "describe", "event_classes"]

REFERENCE = "#/components/schemas/{model}"
DELIVERIES: Mapping[Delivery, str] = {
    Delivery.DURABLE: "Recorded with its change, then sent at least once; repeats have the same `eventId`.",
    Delivery.LIVE: "Sent at once, at most once.",
    Delivery.STATE: "Recorded to keep its order, then sent at least once; clients that missed it query the state.",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PREFIXES = {ChannelKind.PRIVATE: "private-", ChannelKind.PRESENCE: "presence-"}
_SAMPLES: Mapping[object, str] = {"integer": "1", "uuid": "00000000-0000-0000-0000-000000000000"}
_EVENT_ID = {"type": "integer", "minimum": 1}


@dataclass(frozen=True, slots=True)
class Described:
    """An AsyncAPI document, and what it could not say: a line for each class or channel."""

    document: dict[str, Any]
    problems: list[str] = field(default_factory=list)


class _Sent(GenerateJsonSchema):
    """Payloads have every field, those with defaults too."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return super().field_is_required(field, total) if field["type"] == "typed-dict-field" else True


def event_classes(root: type[BroadcastEvent] = BroadcastEvent) -> list[type[BroadcastEvent]]:
    """Return the event classes of all imported modules that can be sent, without the library's own, by name."""
    found: dict[type[BroadcastEvent], None] = {}
    for kind in root.__subclasses__():
        found |= dict.fromkeys(event_classes(kind))
        is_own = kind.__module__.startswith("smartlink.broadcasting.")
        sends = bool(templates_of(kind)) or kind.broadcast_on is not BroadcastEvent.broadcast_on
        if sends and not is_own and not inspect.isabstract(kind) and "[" not in kind.__name__:
            found[kind] = None
    return sorted(found, key=lambda kind: (kind.__name__, kind.__module__))


def describe(
    kinds: Iterable[type[BroadcastEvent]],
    rules: ChannelRules | None = None,
    *,
    namespace: str = "App\\Events\\",
    title: str = "Events",
    version: str = "1.0.0",
) -> Described:
    """Describe event classes, and with `rules` who may listen. `namespace` is the broadcaster's."""
    problems: list[str] = []
    named: dict[str, tuple[type[BroadcastEvent], str]] = {}
    for kind in kinds:
        try:
            wire_name = kind.broadcast_name(namespace)
        except TypeError as error:
            problems.append(f"{kind.__name__} is left out: {error}")
            continue
        if (same := next((each for each, (_, name) in named.items() if name == wire_name), None)) is not None:
            problems.append(f"{kind.__module__}.{kind.__name__} is left out: {same} has the same name, {wire_name}")
            continue
        named[kind.__name__ if kind.__name__ not in named else wire_name] = kind, wire_name
    payloads, schemas = _payloads({key: kind for key, (kind, _) in named.items()}, problems)
    messages = {key: _message(kind, wire_name, payloads[key]) for key, (kind, wire_name) in named.items()}
    channels = _channels({key: kind for key, (kind, _) in named.items()}, rules, problems)
    return Described(_document(title, version, channels, messages, schemas), problems)


# Payloads


def _payloads(
    kinds: Mapping[str, type[BroadcastEvent]], problems: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the payload of each class, and the records that they refer to."""
    adapters: dict[str, TypeAdapter[Any]] = {}
    for key, kind in kinds.items():
        try:
            adapter = _adapter(kind)
            adapter.json_schema(mode="serialization")
        except (TypeError, NameError, PydanticUserError) as error:
            reason = str(error).partition("\n")[0]
            problems.append(f"what {kind.__name__} sends is not known: {reason}")
        else:
            adapters[key] = adapter
    found, definitions = TypeAdapter.json_schemas(
        [(key, "serialization", adapter) for key, adapter in adapters.items()],
        ref_template=REFERENCE, by_alias=False, schema_generator=_Sent,
    )  # fmt: skip
    schemas: dict[str, dict[str, Any]] = definitions.get("$defs", {})
    payloads = {key: _payload(kind, found.get((key, "serialization")), schemas) for key, kind in kinds.items()}
    used: set[str] = set()
    _note_used(payloads, schemas, used)
    return payloads, {name: schema for name, schema in sorted(schemas.items()) if name in used}


def _adapter(kind: type[BroadcastEvent]) -> TypeAdapter[Any]:
    if kind.broadcast_with is BroadcastEvent.broadcast_with:
        return adapter_of(kind)
    returned = get_type_hints(kind.broadcast_with).get("return")
    if not isinstance(returned, type) or not hasattr(returned, "__annotations__"):
        raise TypeError(
            f"{kind.__name__}.broadcast_with() is not annotated to return a TypedDict, dataclass or pydantic model"
        )
    return TypeAdapter(returned)


def _payload(
    kind: type[BroadcastEvent], schema: dict[str, Any] | None, schemas: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if schema is None:
        return {"type": "object", "properties": {}, "additionalProperties": True}
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    properties = {name: each for name, each in schema.get("properties", {}).items() if not name.startswith("_")}
    required = [name for name in schema.get("required", ()) if name in properties]
    if kind.delivery is Delivery.DURABLE:
        properties["eventId"] = _EVENT_ID  # not required: send_now records nothing
    return {"type": "object", "properties": properties, "required": required}


def _note_used(value: object, schemas: Mapping[str, dict[str, Any]], used: set[str]) -> None:
    if isinstance(value, Mapping):
        name = str(value.get("$ref", "")).rpartition("/")[2]
        if name in schemas and name not in used:
            used.add(name)
            _note_used(schemas[name], schemas, used)
        for each in value.values():
            _note_used(each, schemas, used)
    elif isinstance(value, list):
        for each in value:
            _note_used(each, schemas, used)


def _message(kind: type[BroadcastEvent], wire_name: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": wire_name,
        "title": kind.__name__,
        "summary": _summary(kind),
        "description": DELIVERIES[kind.delivery],
        "tags": [{"name": kind.delivery.value}],
        "payload": payload,
    }


def _summary(thing: object) -> str:
    """The first paragraph of a docstring that is its own; not that which dataclasses write."""
    own = vars(thing).get("__doc__") if isinstance(thing, type) else getattr(thing, "__doc__", None)
    text = inspect.cleandoc(own or "").split("\n\n")[0].replace("\n", " ")
    return "" if isinstance(thing, type) and text.startswith(f"{thing.__name__}(") else text


# Channels


def _channels(
    kinds: Mapping[str, type[BroadcastEvent]], rules: ChannelRules | None, problems: list[str]
) -> dict[str, dict[str, Any]]:
    channels: dict[str, dict[str, Any]] = {}
    unused = [] if rules is None else list(rules)
    for key, kind in kinds.items():
        if not templates_of(kind):
            problems.append(f"{kind.__name__} is on no channel here: its broadcast_on() decides for each event")
        for channel in templates_of(kind):
            types = _placeholders(channel, kind)
            address = next((each for each in channels if _form(each, types) == _form(channel.wire_name, types)), None)
            if address is None:
                address, rule = channel.wire_name, _rule_of(channel, types, rules)
                channels[address] = _channel(address, channel.kind, types, rule)
                unused = [each for each in unused if each is not rule]
                if rule is None and rules is not None and channel.kind.needs_authorization:
                    problems.append(f"no rule lets anybody listen to {address}")
            channels[address]["messages"][key] = {"$ref": f"#/components/messages/{key}"}
    for rule in unused:
        for kind_of_channel, prefix in _PREFIXES.items():
            if kind_of_channel in rule.kinds:
                address = prefix + rule.pattern.replace(":path}", "}")
                types = {name: _type_of(each.kind) for name, each in rule.placeholders.items()}
                if all(_form(each, types) != _form(address, types) for each in channels):
                    channels[address] = _channel(address, kind_of_channel, types, rule)
    return dict(sorted(channels.items()))


def _form(address: str, types: Mapping[str, str]) -> str:
    """An address without the names of its placeholders."""
    return _PLACEHOLDER.sub(lambda found: "{1}" if types.get(found[1]) == "integer" else "{x}", address)


def _placeholders(channel: Channel, kind: type[BroadcastEvent]) -> dict[str, str]:
    """The type of each placeholder: integer, uuid or string."""
    hints = get_type_hints(kind)
    return {name: _type_of(hints.get(name)) for name in channel.placeholders}


def _type_of(kind: object) -> str:
    if isinstance(kind, type) and issubclass(kind, int):
        return "integer"
    return "uuid" if getattr(kind, "__name__", "") == "UUID" else "string"


def _rule_of(channel: Channel, types: Mapping[str, str], rules: ChannelRules | None) -> ChannelRule | None:
    sample = _PLACEHOLDER.sub(lambda found: _SAMPLES.get(types[found[1]], "x"), channel.name)
    fitting = (rule for rule in rules or () if channel.kind in rule.kinds and rule.matches(sample) is not None)
    return next(fitting, None)


def _channel(address: str, kind: ChannelKind, types: Mapping[str, str], rule: ChannelRule | None) -> dict[str, Any]:
    who = (
        "Those whom a rule of the application allows."
        if kind.needs_authorization
        else "Everyone with the application's key."
    )
    if rule is not None and (said := _summary(rule.function)):
        who = said
    about = f"Subscribers: {who}"
    channel: dict[str, Any] = {"address": address, "title": address, "description": about, "messages": {}}
    if names := _PLACEHOLDER.findall(address):
        channel["parameters"] = {name: {"description": types[name], "x-type": types[name]} for name in names}
    return channel


def _document(
    title: str,
    version: str,
    channels: Mapping[str, dict[str, Any]],
    messages: dict[str, dict[str, Any]],
    schemas: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    keys = {address: re.sub(r"[{}]", "", address).replace(".", "_").replace("-", "_") for address in channels}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version,
            "description": "The events that clients receive over the Pusher protocol. `data` is the payload as JSON.",
        },
        "defaultContentType": "application/json",
        "channels": {keys[address]: channel for address, channel in channels.items()},
        "operations": {
            f"send_{keys[address]}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{keys[address]}"},
                "summary": f"Events on {address}",
            }
            for address in channels
        },
        "components": {"messages": messages, "schemas": schemas},
    }
