"""Server frames as clients of protocol 7 expect them: data is JSON inside a JSON string."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartlink.protocol import encoding


def read(frame: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(frame)
    message["data"] = json.loads(message["data"])
    return message


def test_a_watchlist_omits_empty_lists() -> None:
    assert read(encoding.watchlist_events({"online": ["1", "ž"], "offline": []})) == {
        "event": "pusher_internal:watchlist_events",
        "data": {"events": [{"name": "online", "user_ids": ["1", "ž"]}]},
    }


def test_a_sign_in_is_confirmed_with_the_signed_text() -> None:
    text = '{ "id" : "1" }'

    assert read(encoding.signin_success(text)) == {"event": "pusher:signin_success", "data": {"user_data": text}}


def test_a_cache_miss_names_its_channel_and_carries_no_data() -> None:
    assert json.loads(encoding.cache_miss("cache-a")) == {"event": "pusher:cache_miss", "channel": "cache-a"}


def test_a_count_frame_can_be_decoded() -> None:
    frame = encoding.subscription_count("a", 5)

    assert read(frame) == {
        "event": "pusher_internal:subscription_count", "channel": "a", "data": {"subscription_count": 5},
    }  # fmt: skip
    assert encoding.subscription_count_in(frame) == 5


def test_member_and_user_frames_can_be_decoded() -> None:
    assert encoding.member_in(encoding.member_added("presence-a", "ž", b'{"a":1}')) == ("ž", True)
    assert encoding.member_in(encoding.member_removed("presence-a", "1")) == ("1", False)
    assert encoding.member_in(encoding.member_removed("presence-a", 1)) == ("1", False)
    assert encoding.watched_in(encoding.watchlist_events({"online": ["1"]})) == ("1", True)
    assert encoding.watched_in(encoding.watchlist_events({"offline": ["1"]})) == ("1", False)
    assert encoding.watched_in(encoding.watchlist_events({"online": ["1"], "offline": ["2"]})) is None
    assert encoding.member_in(encoding.event("pusher:x", "a", "{}")) is None
    assert encoding.member_in(b'{"event":"pusher_internal:member_added","data":"\xff"}') is None
    assert encoding.watched_in(b'{"event":"pusher_internal:watchlist_events","data":"{}"}') is None


@pytest.mark.parametrize(
    "other",
    [b"", encoding.event("e", "a", "{}"), encoding.subscription_count("a", 5)[:-9],
     b'{"event":"pusher_internal:subscription_count"}', b'{"event":"pusher_internal:subscription_count","data":"{}"}'],
)  # fmt: skip
def test_no_count_is_decoded_from_other_frames(other: bytes) -> None:
    assert encoding.subscription_count_in(other) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.text(max_size=5)))))
def test_a_kept_member_list_is_the_state_encoded_anew(changes: list[tuple[str, str | None]]) -> None:
    kept, members = encoding.MemberList(), dict[str, bytes]()
    for user_id, name in changes:
        if name is not None:
            members[user_id] = json.dumps({"name": name}, ensure_ascii=False).encode("utf-8", "replace")
            kept.put(user_id, user_id, members[user_id])
        elif members.pop(user_id, None) is not None:
            kept.remove(user_id)

        assert json.loads(kept.data()).encode() == encoding.presence_state(members.items())
        assert encoding.present_in(kept.data()) == members.keys()
