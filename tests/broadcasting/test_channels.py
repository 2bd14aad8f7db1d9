"""Channels: the class sets the kind, and names are validated."""

from __future__ import annotations

import pytest

from smartlink.broadcasting import (
    Channel,
    EncryptedPrivateChannel,
    InvalidChannel,
    PresenceChannel,
    PrivateChannel,
)

KINDS = [Channel, PrivateChannel, PresenceChannel, EncryptedPrivateChannel]


def test_the_class_adds_the_prefix() -> None:
    assert str(Channel("chat")) == "chat"
    assert str(PrivateChannel("chat.1.2")) == "private-chat.1.2"
    assert str(PresenceChannel("chat")) == "presence-chat"
    assert str(EncryptedPrivateChannel("vault")) == "private-encrypted-vault"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["private-chat", "presence-chat", "private-encrypted-chat", "private-"])
def test_a_name_with_a_prefix_is_refused(kind: type[Channel], name: str) -> None:
    with pytest.raises(InvalidChannel, match="leave the prefix out"):
        kind(name)


def test_a_partial_prefix_is_refused_too() -> None:
    with pytest.raises(InvalidChannel, match="leave the prefix out"):
        EncryptedPrivateChannel("encrypted-vault")


def test_a_name_that_would_change_the_kind_is_refused() -> None:
    with pytest.raises(InvalidChannel, match="another kind"):
        PrivateChannel("encrypted-vault")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "a\n", "a\x00", "chаt", "１", "*", "#server-to-user-1", "x" * 201, None, 7]
)
def test_a_malformed_name_is_refused(kind: type[Channel], name: str) -> None:
    with pytest.raises(InvalidChannel):
        kind(name)


def test_the_prefix_counts_towards_the_length() -> None:
    assert len(str(PrivateChannel("x" * 192))) == 200

    with pytest.raises(InvalidChannel, match="200 characters"):
        PrivateChannel("x" * 193)


def test_channels_are_values() -> None:
    channel = PrivateChannel("chat.1.2")

    assert channel == PrivateChannel("chat.1.2")
    assert len({channel, PrivateChannel("chat.1.2"), PresenceChannel("chat.1.2"), Channel("chat.1.2")}) == 3
    assert repr(channel) == "PrivateChannel('chat.1.2')"
    with pytest.raises(AttributeError):
        channel.name = "other"  # type: ignore[misc]
