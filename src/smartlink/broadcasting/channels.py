"""Channels as value objects: the class is the kind, `str()` the name on the wire.

    str(PrivateChannel("chat.1.2")) == "private-chat.1.2"

The class adds the prefix. A name that already has one is an error: a mistake such as a public
`Channel("private-chat.1.2")` would otherwise go unnoticed until a client fails to subscribe.

A name may have placeholders, which an event's fields fill: `PrivateChannel("orders.{order_id}")`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import ClassVar, Self
from uuid import UUID

from smartlink.broadcasting.errors import InvalidChannel
from smartlink.protocol.names import MAX_CHANNEL_LENGTH, ChannelKind, is_valid_channel, kind_of

__all__ = [
    "CacheChannel",
    "Channel",
    "EncryptedPrivateCacheChannel",
    "EncryptedPrivateChannel",
    "PresenceCacheChannel",
    "PresenceChannel",
    "PrivateCacheChannel",
    "PrivateChannel",
    "channel_of",
    "name_without_prefix",
]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PREFIXES = ("private-", "presence-", "cache-")


@dataclass(frozen=True, slots=True, repr=False)
class Channel:
    """A public channel: anyone with the app key may subscribe.

    `name` has no prefix: ASCII letters, digits and `-_=@,.;`, 1 to 200 with the prefix, and placeholders such as
    `{order_id}`. Raises InvalidChannel for an invalid name, or one with the prefix of another kind.
    """

    prefix: ClassVar[str] = ""
    kind: ClassVar[ChannelKind] = ChannelKind.PUBLIC

    name: str
    wire_name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire_name", self._checked_wire_name())

    def _checked_wire_name(self) -> str:
        own = type(self).__name__
        name: object = self.name
        if not isinstance(name, str) or not name:
            raise InvalidChannel(f"{own} needs a name of at least one character, not {name!r}")
        if name.startswith(_PREFIXES) or (self.kind is ChannelKind.ENCRYPTED and name.startswith("encrypted-")):
            raise InvalidChannel(
                f"{own}({name[:60]!r}): leave the prefix out; the class adds it (private-: PrivateChannel, "
                "presence-: PresenceChannel, private-encrypted-: EncryptedPrivateChannel; cache-: the class with Cache)"
            )
        wire_name = self.prefix + name
        checked = _PLACEHOLDER.sub("0", wire_name) if "{" in name else wire_name
        if not is_valid_channel(checked):
            raise InvalidChannel(
                f"{own}({name[:60]!r}): a channel name has at most {MAX_CHANNEL_LENGTH} characters, prefix "
                "included, of ASCII letters, digits and -_=@,.;"
            )
        if kind_of(checked) is not self.kind:
            raise InvalidChannel(f"{own}({name[:60]!r}) would be {wire_name[:80]!r}, which is of another kind")
        return wire_name

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names in braces, in order; empty for a channel that can be sent to."""
        return tuple(_PLACEHOLDER.findall(self.name)) if "{" in self.name else ()

    def filled_by(self, event: object) -> Self:
        """Return the channel with each placeholder replaced by the attribute of `event` with its name.

        A value is a string, an int, a UUID, or an enum member with such a value. Raises InvalidChannel for anything
        else, and for a missing attribute.
        """
        if "{" not in self.name:
            return self
        return type(self)(_PLACEHOLDER.sub(lambda found: _filling(self, found[1], event), self.name))

    def __str__(self) -> str:
        return self.wire_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class PrivateChannel(Channel):
    """A channel whose subscribers must be authorized: `private-{name}`."""

    __slots__ = ()
    prefix = "private-"
    kind = ChannelKind.PRIVATE


class PresenceChannel(Channel):
    """A private channel whose subscribers see each other: `presence-{name}`."""

    __slots__ = ()
    prefix = "presence-"
    kind = ChannelKind.PRESENCE


class EncryptedPrivateChannel(Channel):
    """A private channel whose payloads the server cannot read: `private-encrypted-{name}`."""

    __slots__ = ()
    prefix = "private-encrypted-"
    kind = ChannelKind.ENCRYPTED


class CacheChannel(Channel):
    """A public channel that sends its last event to new subscribers: `cache-{name}`."""

    __slots__ = ()
    prefix = "cache-"


class PrivateCacheChannel(PrivateChannel):
    """A private channel that sends its last event to new subscribers: `private-cache-{name}`."""

    __slots__ = ()
    prefix = "private-cache-"


class PresenceCacheChannel(PresenceChannel):
    """A presence channel that sends its last event to new subscribers: `presence-cache-{name}`."""

    __slots__ = ()
    prefix = "presence-cache-"


class EncryptedPrivateCacheChannel(EncryptedPrivateChannel):
    """An encrypted channel that sends its last event to new subscribers: `private-encrypted-cache-{name}`."""

    __slots__ = ()
    prefix = "private-encrypted-cache-"


def _filling(channel: Channel, placeholder: str, event: object) -> str:
    value = getattr(event, placeholder, None)
    if isinstance(value, enum.Enum):
        value = value.value
    if not isinstance(value, str | int | UUID) or isinstance(value, bool) or value == "":
        raise InvalidChannel(
            f"{channel!r}: {{{placeholder}}} of {type(event).__name__} is {value!r:.60}; use a string, an int or a UUID"
        )
    return str(value)


_PREFIXED = sorted(
    (
        PrivateChannel,
        PresenceChannel,
        EncryptedPrivateChannel,
        CacheChannel,
        PrivateCacheChannel,
        PresenceCacheChannel,
        EncryptedPrivateCacheChannel,
    ),
    key=lambda kind: len(kind.prefix),
    reverse=True,
)


def channel_of(wire_name: str) -> Channel:
    """Return the channel with this name on the wire. Raises InvalidChannel."""
    for kind in _PREFIXED:
        if wire_name.startswith(kind.prefix):
            return kind(wire_name[len(kind.prefix) :])
    return Channel(wire_name)


def name_without_prefix(wire_name: str) -> str:
    """Return a channel's name without prefix: `chat.1` for `private-encrypted-cache-chat.1`."""
    for kind in _PREFIXED:
        if wire_name.startswith(kind.prefix):
            return wire_name[len(kind.prefix) :]
    return wire_name
