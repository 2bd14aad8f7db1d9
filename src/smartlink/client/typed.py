"""Events as classes: which wire name a class has, and how a payload becomes one of its instances.

A class is one of the broadcasting library's events, which know both themselves; a pydantic model; or anything msgspec
reads: a dataclass, a TypedDict, a `msgspec.Struct`. Neither library is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from smartlink.client.errors import InvalidPayload
from smartlink.client.messages import Event, Gap

__all__ = ["DEFAULT_NAMESPACE", "converter", "named"]

DEFAULT_NAMESPACE = "App\\Events\\"
"""What the broadcasting library, and Laravel, put before the name of an event's class."""


def named(kinds: tuple[Any, ...], namespace: str) -> dict[str, Any]:
    """Return what each wire name is to become: a class, or None for a plain `Event`; empty for everything.

    `kinds` are wire names, classes, and mappings of wire names to classes. Raises TypeError for anything else.
    """
    found: dict[str, Any] = {}
    for kind in kinds:
        if isinstance(kind, str):
            found[kind] = None
        elif isinstance(kind, Mapping):
            found |= kind
        elif isinstance(kind, type):
            found[_wire_name(kind, namespace)] = kind
        else:
            raise TypeError(f"events() takes names, classes, or a mapping of names to classes, not {kind!r:.80}")
    return found


def _wire_name(kind: type, namespace: str) -> str:
    own: Callable[[str], str] | None = getattr(kind, "broadcast_name", None)
    return namespace + kind.__name__ if own is None else own(namespace)


def converter(kinds: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return what turns a received event into an instance of its class. It raises InvalidPayload."""
    readers = {name: _reader(kind) for name, kind in kinds.items() if kind is not None}
    if not readers:
        return _as_it_is

    def convert(item: Event | Gap) -> Any:
        read = None if isinstance(item, Gap) else readers.get(item.name)
        if read is None:
            return item
        assert isinstance(item, Event)  # noqa: S101 - gaps have no reader
        try:
            return read(item.text)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            raise InvalidPayload(f"{item.name} on {item.channel}: {error}", item) from error

    return convert


def _as_it_is(item: Any) -> Any:
    return item


def _reader(kind: Any) -> Callable[[str], Any]:
    for own in ("broadcast_from", "model_validate_json"):
        read: Callable[[str], Any] | None = getattr(kind, own, None)
        if read is not None:
            return read
    return msgspec.json.Decoder(kind).decode
