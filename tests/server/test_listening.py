"""What came on a channel while a connection was on its way onto it, beside the state that it is told."""

from __future__ import annotations

import pytest

from smartlink.protocol import encoding
from smartlink.server.listening import without_known

STATE = encoding.presence_state([("1", b"{}"), (2, b"{}")])
EVENT = encoding.event("e", "presence-a", "{}")


def added(user_id: str) -> bytes:
    return encoding.member_added("presence-a", user_id, b'{"name":"Ana"}')


def removed(user_id: str) -> bytes:
    return encoding.member_removed("presence-a", user_id)


@pytest.mark.parametrize(
    ("frames", "news"),
    [
        ([], []),
        ([EVENT], [EVENT]),
        ([added("1"), EVENT], [EVENT]),
        ([added("3"), EVENT], [added("3"), EVENT]),
        ([removed("3")], []),
        ([removed("1")], [removed("1")]),
        ([removed("1"), added("1")], []),
        ([added("3"), removed("3")], []),
        ([added("1"), removed("1"), added("3")], [added("1"), removed("1"), added("3")]),
    ],
)
def test_what_the_state_shows_already_is_no_news(frames: list[bytes], news: list[bytes]) -> None:
    assert without_known(frames, STATE) == news


def test_other_channels_have_no_members() -> None:
    assert without_known([EVENT], b"{}") == [EVENT]
