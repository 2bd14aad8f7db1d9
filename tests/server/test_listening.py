"""Publications that arrive while a connection is joining a channel, compared with the state it is sent."""

from __future__ import annotations

import pytest

from smartlink.protocol import encoding
from smartlink.server.core.listening import VersionedFrame, newer_frames

STATE = encoding.presence_state([("1", b"{}"), (2, b"{}")])
EVENT = encoding.event("e", "presence-a", "{}")


def added(user_id: str) -> bytes:
    return encoding.member_added("presence-a", user_id, b'{"name":"Ana"}')


def removed(user_id: str) -> bytes:
    return encoding.member_removed("presence-a", user_id)


@pytest.mark.parametrize(
    ("frames", "told"),
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
def test_changes_included_in_the_state_are_dropped(frames: list[bytes], told: list[bytes]) -> None:
    assert newer_frames([VersionedFrame(frame, 0) for frame in frames], STATE, 0) == told
    assert newer_frames([VersionedFrame(frame, 5) for frame in frames], STATE, 0) == told
    assert newer_frames([VersionedFrame(frame, 0) for frame in frames], STATE, 9) == told


def test_version_numbers_decide_if_present() -> None:
    frames = [(removed("1"), 4), (EVENT, 0), (added("2"), 6), (removed("2"), 7), (added("2"), 8), (added("3"), 5)]
    assert newer_frames([VersionedFrame(*each) for each in frames], STATE, 5) == [
        EVENT,
        added("2"),
        removed("2"),
        added("2"),
    ]


def test_non_presence_channels_keep_all_frames() -> None:
    assert newer_frames([VersionedFrame(EVENT, 0)], b"{}", 0) == [EVENT]
