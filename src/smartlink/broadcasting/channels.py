"""Channels as value objects: the class says the kind, `str()` gives the name on the wire.

    str(PrivateChannel("chat.1.2")) == "private-chat.1.2"

The class adds the prefix. A name that carries one already is refused rather than doubled or guessed at: a public
`Channel("private-chat.1.2")` is a mistake that nobody would see until a client subscribes in vain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from smartlink.broadcasting.errors import InvalidChannel
from smartlink.protocol.names import MAX_CHANNEL_LENGTH, ChannelKind, is_valid_channel, kind_of

__all__ = ["Channel", "EncryptedPrivateChannel", "PresenceChannel", "PrivateChannel"]

_PREFIXES = ("private-", "presence-")


@dataclass(frozen=True, slots=True, repr=False)
class Channel:
    """A public channel: anyone with the app key may subscribe.

    `name` is without prefix: 1 to 200 (prefix included) of ASCII letters, digits and `-_=@,.;`.
    Raises InvalidChannel when it is anything else, or starts with the prefix of another kind.
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
        if name.startswith(_PREFIXES):
            raise InvalidChannel(
                f"{own}({name[:60]!r}): leave the prefix out; the class adds it (private-: PrivateChannel, "
                "presence-: PresenceChannel, private-encrypted-: EncryptedPrivateChannel)"
            )
        wire_name = self.prefix + name
        if not is_valid_channel(wire_name):
            raise InvalidChannel(
                f"{own}({name[:60]!r}): a channel name has at most {MAX_CHANNEL_LENGTH} characters, prefix "
                "included, of ASCII letters, digits and -_=@,.;"
            )
        if kind_of(wire_name) is not self.kind:
            raise InvalidChannel(f"{own}({name[:60]!r}) would be {wire_name[:80]!r}, which is of another kind")
        return wire_name

    def __str__(self) -> str:
        return self.wire_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class PrivateChannel(Channel):
    """A channel whose subscribers a rule has let in: `private-{name}`."""

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
