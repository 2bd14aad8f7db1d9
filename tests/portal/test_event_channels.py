"""The channels of the portal's events."""

from __future__ import annotations

import datetime as dt

from smartlink.broadcasting import Channel, PrivateChannel
from smartlink.portal.chat.events import MessageRead, UserTyping
from smartlink.portal.chat.schemas import DirectMessageOut
from smartlink.portal.users.schemas import Profile

ANA, BEN = Profile(id=9, name="Ana"), Profile(id=10, name="Ben")


def test_it_broadcasts_on_the_correct_channel() -> None:
    event = UserTyping(ANA, typing=True)

    assert event.broadcast_on() == Channel("chat")


def test_it_broadcasts_on_the_correct_private_channel() -> None:
    now = dt.datetime.now(dt.UTC)
    message = DirectMessageOut(
        id=1,
        user_id=ANA.id,
        recipient_id=BEN.id,
        message="Hello",
        version=1,
        edited_at=None,
        deleted_at=None,
        is_read=True,
        read_at=now,
        delivered_at=now,
        created_at=now,
        updated_at=now,
        user=ANA,
        recipient=BEN,
    )

    event = MessageRead(message, BEN)

    assert event.broadcast_on() == PrivateChannel(f"user.{message.user_id}")


def test_the_two_ids_of_a_conversation_are_ordered_as_numbers() -> None:
    assert UserTyping(BEN, typing=True, recipient_id=ANA.id).broadcast_on() == PrivateChannel("chat.9.10")
