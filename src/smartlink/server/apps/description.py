"""Parses and validates the descriptions of apps in a file or database."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from smartlink.server.apps.base import App, AppsInvalid, WebhookTarget
from smartlink.server.apps.policies import ChannelPolicy
from smartlink.server.settings.config import is_webhook_url
from smartlink.server.settings.forms import (
    fault_of_allowed_origin,
    fault_of_event,
    fault_of_name,
    fault_of_origin,
    fault_of_pattern,
)

__all__ = ["app_from_description", "apps_from_descriptions", "policies_from_json"]

MAX_APPS = 100_000
_MAX_NUMBER: Final = 2**31 - 1

_RANGES: Final = {
    "id": (1, 64),
    "key": (1, 128),
    "secret": (1, 256),
    "max_message_bytes": (1, 16_777_216),
    "max_channel_length": (1, 200),
    "max_event_name_length": (1, 200),
    "max_event_bytes": (1, 16_777_216),
    "max_event_channels": (1, 10_000),
    "max_batch": (1, 1_000),
    "max_user_info_bytes": (2, 1_048_576),
    "ping_interval_s": (1, 3_600),
    "activity_timeout_s": (1, 3_600),
    "authorization_timeout_s": (1, 3_600),
    "cache_ttl_s": (1, 604_800),
    "pattern": (1, 200),
    "history": (1, 10_000),
    "history_ttl_s": (1, 604_800),
    "history_bytes": (1_024, 33_554_432),
    "conflate_ms": (10, 60_000),
    "presence_grace_s": (0, 300),
}
"""Lengths of texts and ranges of numbers; every other number is at least 1."""

_CLIENT_EVENTS: Final = ("none", "members", "all")
_FAULT_OF: Final[Mapping[str, Callable[[str], str | None]]] = {
    "id": fault_of_name,
    "key": fault_of_name,
    "allowed_origins": fault_of_allowed_origin,
    "cors_origins": fault_of_origin,
    "events": fault_of_event,
    "pattern": fault_of_pattern,
    "client_events": lambda value: None if value in _CLIENT_EVENTS else "must be none, members or all",
}
"""Further checks of a text, or of each text in a list."""


class _Fault(Exception):
    """What is wrong with one value, as a predicate to follow its name."""


def apps_from_descriptions(descriptions: object) -> list[App]:
    """Parse a list of descriptions. Raises AppsInvalid, with a line per error of each app."""
    if not isinstance(descriptions, Sequence) or isinstance(descriptions, str):
        raise AppsInvalid("apps must be a list: write each as [[apps]]")
    if len(descriptions) > MAX_APPS:
        raise AppsInvalid(f"{len(descriptions)} apps, more than {MAX_APPS}")
    apps: list[App] = []
    faults: list[str] = []
    for number, description in enumerate(descriptions, 1):
        try:
            apps.append(app_from_description(description, f"app number {number}"))
        except AppsInvalid as error:
            faults.append(str(error))
    if faults:
        raise AppsInvalid("\n".join(faults))
    return apps


def app_from_description(description: object, where: str) -> App:
    """Parse one app. Keys are the fields of `App`; omitted ones take their defaults. Raises AppsInvalid."""
    if not isinstance(description, Mapping):
        raise AppsInvalid(f"{where}: must be a table of keys and values")
    if isinstance(description.get("id"), str):
        where = f"app {description['id']!r}"
    values, faults = _values(App, description)
    if not faults:
        return App(**values)
    raise AppsInvalid("\n".join(f"{where}: {fault}" for fault in faults))


def policies_from_json(text: str) -> tuple[ChannelPolicy, ...]:
    """Parse the value of `REVERB_APP_CHANNELS`. Raises AppsInvalid."""
    try:
        return tuple(_tuple("channels", (ChannelPolicy, ...), msgspec.json.decode(text)))
    except (msgspec.DecodeError, RecursionError):
        raise AppsInvalid("REVERB_APP_CHANNELS: must be a JSON list of policies") from None
    except _Fault as fault:
        raise AppsInvalid(f"REVERB_APP_CHANNELS: {fault}") from None


def _values(
    record: type[App | WebhookTarget | ChannelPolicy], description: Mapping[Any, Any]
) -> tuple[dict[str, Any], list[str]]:
    types_of = get_type_hints(record)
    known = {field.name: field for field in fields(record)}
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in description.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            faults.append(f"{str(name)[:40]!r} is not a known key" + (f"; did you mean {near[0]!r}?" if near else ""))
            continue
        try:
            values[name] = _value(name, types_of[name], value)
        except _Fault as fault:
            faults.append(f"{name}: {fault}")
    faults += [
        f"{name}: is required"
        for name, field in known.items()
        if name not in description and field.default is MISSING and field.default_factory is MISSING
    ]
    return values, faults


def _value(name: str, wanted: Any, value: object) -> Any:
    if get_origin(wanted) in (Union, types.UnionType):
        if value is None:
            return None
        wanted = next(choice for choice in get_args(wanted) if choice is not type(None))
    if wanted is bool:
        if not isinstance(value, bool):
            raise _Fault("must be true or false")
        return value
    if wanted is int:
        return _number(name, value)
    if wanted is str:
        return _text(name, value)
    if get_origin(wanted) is tuple:
        return _tuple(name, get_args(wanted), value)
    raise TypeError(f"no rule for {name}: {wanted}")


def _number(name: str, value: object) -> int:
    low, high = _RANGES.get(name, (1, _MAX_NUMBER))
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _Fault(f"must be a whole number from {low} to {high}")
    return value


def _text(name: str, value: object) -> str:
    low, high = _RANGES.get(name, (1, 2_048))
    if not isinstance(value, str) or not low <= len(value) <= high:
        raise _Fault(f"must be a string of {low} to {high} characters")
    if not value.isprintable() or value != value.strip():
        raise _Fault("must not contain control characters or begin or end with a space")
    if name in _FAULT_OF and (fault := _FAULT_OF[name](value)) is not None:
        raise _Fault(fault)
    if name == "url":
        return _url(value)
    return value


def _tuple(name: str, parts: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _Fault("must be a list")
    if parts == (int, int):
        if len(value) != 2:
            raise _Fault("must be two numbers: count and seconds")
        return tuple(_number(name, part) for part in value)
    if parts[0] in (WebhookTarget, ChannelPolicy):
        return tuple(_record(parts[0], name, number, part) for number, part in enumerate(value, 1))
    return tuple(_text(name, part) for part in value)


def _record(record: type[WebhookTarget | ChannelPolicy], name: str, number: int, value: object) -> Any:
    if not isinstance(value, Mapping):
        raise _Fault(f"number {number} must be a table: write each as [[apps.{name}]]")
    values, faults = _values(record, value)
    if faults:
        raise _Fault(f"number {number}: {'; '.join(faults)}")
    return record(**values)


def _url(value: str) -> str:
    if not is_webhook_url(value):
        raise _Fault("must be http(s)://host/…, without credentials")
    return value
