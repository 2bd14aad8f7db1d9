"""Names on the wire: channels and their kinds, events, socket ids, and their maximum lengths.

Source: Pusher Channels, "Channel naming conventions" and "Events"; limits are those of its hosted service.
"""

from __future__ import annotations

import enum
import re

__all__ = [
    "MAX_CHANNEL_LENGTH",
    "MAX_EVENT_NAME_LENGTH",
    "MAX_USER_ID_LENGTH",
    "ChannelKind",
    "is_cache",
    "is_client_event",
    "is_counted",
    "is_internal",
    "is_reserved_event",
    "is_user_channel",
    "is_valid_channel",
    "is_valid_event_name",
    "is_valid_socket_id",
    "is_valid_user_id",
    "kind_of",
    "signed_in_channel",
    "signed_in_user",
    "user_channel",
]

MAX_CHANNEL_LENGTH = 200
MAX_EVENT_NAME_LENGTH = 200
MAX_SOCKET_ID_LENGTH = 64
MAX_USER_ID_LENGTH = 128

# `\Z`, never `$`, which also matches before a trailing newline. ASCII digits only: `\d` matches other scripts.
_CHANNEL = re.compile(r"[-a-zA-Z0-9_=@,.;]{1,200}\Z")
_SOCKET_ID = re.compile(r"[0-9]{1,32}\.[0-9]{1,31}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_USER_CHANNEL = "#server-to-user-"
_SIGNED_IN = "#user-"
_CACHE = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")


class ChannelKind(enum.Enum):
    """The kind given by a channel's prefix: who may subscribe, and what members see."""

    PUBLIC = "public"
    PRIVATE = "private"
    PRESENCE = "presence"
    ENCRYPTED = "encrypted"

    @property
    def needs_authorization(self) -> bool:
        return self is not ChannelKind.PUBLIC

    @property
    def takes_client_events(self) -> bool:
        """Client events are allowed on private and presence channels, and on public ones if the application allows it.

        The server cannot read encrypted ones.
        """
        return self is ChannelKind.PRIVATE or self is ChannelKind.PRESENCE


def is_valid_channel(name: object) -> bool:
    """Whether `name` is 1 to 200 of the characters allowed in channel names. For kinds see `kind_of`."""
    return isinstance(name, str) and _CHANNEL.match(name) is not None


def kind_of(channel: str) -> ChannelKind:
    """The kind of a channel. Prefixes include the dash and are case-sensitive."""
    if channel.startswith("private-"):
        if channel.startswith("private-encrypted-"):
            return ChannelKind.ENCRYPTED
        return ChannelKind.PRIVATE
    if channel.startswith("presence-"):
        return ChannelKind.PRESENCE
    return ChannelKind.PUBLIC


def is_cache(channel: str) -> bool:
    """Whether a channel keeps its last event for later subscribers."""
    return channel.startswith(_CACHE)


def user_channel(user_id: str) -> str:
    """The channel on which a signed-in user receives what is sent to them alone."""
    return _USER_CHANNEL + user_id


def is_user_channel(name: str) -> bool:
    """Whether `name` is a `user_channel`: the one kind outside the channel grammar that publishers may use."""
    return name.startswith(_USER_CHANNEL) and is_valid_user_id(name[len(_USER_CHANNEL) :])


def signed_in_channel(user_id: str) -> str:
    """The internal channel of all connections signed in as a user; clients never see it."""
    return _SIGNED_IN + user_id


def signed_in_user(channel: str) -> str | None:
    """The user of a `signed_in_channel`; None for any other channel."""
    return channel[len(_SIGNED_IN) :] if channel.startswith(_SIGNED_IN) else None


def is_internal(channel: str) -> bool:
    """Whether a channel is internal: never listed, never reported in webhooks."""
    return channel.startswith("#")


def is_counted(channel: str) -> bool:
    """Whether subscribers of a channel can be sent their count; on presence channels they know it."""
    return not is_internal(channel) and kind_of(channel) is not ChannelKind.PRESENCE


def is_valid_user_id(user_id: object) -> bool:
    """Whether `user_id` is a string of 1 to 128 characters without control characters."""
    return isinstance(user_id, str) and 0 < len(user_id) <= MAX_USER_ID_LENGTH and not _CONTROL.search(user_id)


def is_valid_socket_id(text: object) -> bool:
    """Whether `text` has the form `digits.digits`. Check this before signing or excluding anything with it."""
    return isinstance(text, str) and _SOCKET_ID.match(text) is not None


def is_valid_event_name(name: object) -> bool:
    """Whether a publisher may use `name`: 1 to 200 characters without control characters."""
    return isinstance(name, str) and 0 < len(name) <= MAX_EVENT_NAME_LENGTH and not _CONTROL.search(name)


def is_client_event(name: str) -> bool:
    """Whether clients may send events called `name` to each other."""
    return name.startswith("client-") and len(name) > len("client-")


def is_reserved_event(name: str) -> bool:
    """Whether only the server may send `name`; it is never relayed."""
    return name.startswith(("pusher:", "pusher_internal:"))
