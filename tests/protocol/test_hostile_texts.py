"""Generated frames: the session never raises, and what it relays is JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from smartlink.protocol.messages import ClientEventMessage, decode
from smartlink.protocol.session import Session, SessionRules

_KEYS = st.sampled_from(["event", "data", "channel", "auth", "channel_data", "user_id", "user_data", "", "__proto__"])
_EVENTS = st.sampled_from(
    ["pusher:subscribe", "pusher:unsubscribe", "pusher:ping", "pusher:pong", "pusher:signin", "client-x"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=30) | _EVENTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
_TEXTS = (
    st.binary(max_size=200)
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda event, rest: json.dumps({"event": event} | rest).encode(),
        _EVENTS,
        st.dictionaries(_KEYS, _JSON, max_size=4),
    )
)
_LIMITS = settings(max_examples=150)


@_LIMITS
@given(texts=st.lists(_TEXTS, max_size=5))
def test_no_text_makes_a_session_raise(texts: list[bytes]) -> None:
    session = Session("1.1", SessionRules(key="k", secret="s"))
    for text in texts:
        for effect in session.receive(text):
            assert effect is not None
    assert session.channels == {}


@_LIMITS
@given(value=_JSON)
def test_a_relayed_client_event_is_one_json_value(value: Any) -> None:
    frame = decode(json.dumps({"event": "client-x", "channel": "private-a", "data": value}).encode())
    if isinstance(frame, ClientEventMessage):
        json.loads(frame.data)
        assert "\n" not in frame.data
