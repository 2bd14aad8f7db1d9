"""Client messages and the session's reaction: hostile text by generation, rules by example."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.protocol.messages import (
    ClientEventMessage,
    Malformed,
    Ping,
    Pong,
    SubscribeMessage,
    UnsubscribeMessage,
    decode,
)
from smartlink.protocol.names import ChannelKind, is_valid_channel, is_valid_event_name, is_valid_socket_id, kind_of
from smartlink.protocol.session import Answered, Join, Leave, PresenceMember, Send, Session, SessionRules, Whisper
from smartlink.protocol.signing import sign_channel

RULES = SessionRules(key="key", secret="secret")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.sampled_from(
    ["pusher:subscribe", "pusher:unsubscribe", "pusher:ping", "pusher:pong", "pusher:signin", "client-a", "client-",
     "pusher_internal:member_added", "pusher:connection_established", "x"]
)  # fmt: skip
FRAMES = st.fixed_dictionaries(
    {},
    optional={
        "event": EVENTS | JSON,
        "channel": st.sampled_from(["chat", "private-a", "presence-a"]) | JSON,
        "data": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "channel": st.sampled_from(["chat", "private-a", "presence-a", "private-encrypted-a"]) | JSON,
                "auth": st.sampled_from(["", "key:", "key:" + "0" * 64]) | JSON,
                "channel_data": st.sampled_from(['{"user_id":"1"}', "{", "[]"]) | JSON,
            },
        ),
    },
)


def session(**rules: Any) -> Session:
    return Session("1.1", SessionRules(key="key", secret="secret", **rules))


def say(event: str, data: Any = None, **more: Any) -> str:
    return json.dumps({"event": event, "data": data} | more)


def subscribe(channel: str, data: str | None = None, socket_id: str = "1.1") -> str:
    fields: dict[str, Any] = {"channel": channel, "auth": sign_channel("key", "secret", socket_id, channel, data)}
    return say("pusher:subscribe", fields | ({} if data is None else {"channel_data": data}))


def sent(effects: tuple[Any, ...]) -> dict[str, Any]:
    (effect,) = effects
    assert isinstance(effect, Send)
    frame: dict[str, Any] = json.loads(effect.frame)
    return frame


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_decode_never_raises(text: bytes | str) -> None:
    decode(text)


@settings(max_examples=400)
@given(st.lists(FRAMES, max_size=6))
def test_a_session_never_raises_and_opens_nothing_unsigned(frames: list[Any]) -> None:
    talking = session()
    for frame in frames:
        for effect in talking.receive(json.dumps(frame)):
            if isinstance(effect, Join):
                assert kind_of(effect.channel) is ChannelKind.PUBLIC
                assert is_valid_channel(effect.channel)
                talking.joined(effect.channel, effect.member)
            elif isinstance(effect, Send):
                json.loads(effect.frame)
            else:
                assert isinstance(effect, Leave | Answered)


@pytest.mark.parametrize("text", ["[" * 5_000, '{"a":' * 5_000, '"' + "\\u005b" * 100, b"\xff", b"\x80abc", "\ud800"])
def test_deep_and_broken_text_is_malformed(text: str | bytes) -> None:
    assert isinstance(decode(text), Malformed)


def test_request_data_may_be_an_object_or_a_string() -> None:
    assert decode(say("pusher:subscribe", {"channel": "chat"})) == SubscribeMessage("chat")
    assert decode(say("pusher:subscribe", '{"channel":"chat","auth":""}')) == SubscribeMessage("chat", "")
    assert decode(say("pusher:unsubscribe", {"channel": "chat"})) == UnsubscribeMessage("chat")
    assert decode(say("pusher:ping", {})) == decode(say("pusher:ping", "{}")) == Ping()
    assert decode(say("pusher:pong")) == Pong()
    assert decode(say("client-a", [1], channel="private-a")) == ClientEventMessage("client-a", "private-a", "[1]")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chat", ChannelKind.PUBLIC), ("private", ChannelKind.PUBLIC), ("presence", ChannelKind.PUBLIC),
        ("Private-a", ChannelKind.PUBLIC), ("privatea", ChannelKind.PUBLIC), ("private-a", ChannelKind.PRIVATE),
        ("private-", ChannelKind.PRIVATE), ("private-encrypted-a", ChannelKind.ENCRYPTED),
        ("private-encrypteda", ChannelKind.PRIVATE), ("presence-a", ChannelKind.PRESENCE),
    ],
)  # fmt: skip
def test_channel_prefixes_are_matched_in_full(name: str, kind: ChannelKind) -> None:
    assert kind_of(name) is kind


def test_names_have_length_limits() -> None:
    assert is_valid_channel("a" * 200)
    assert not is_valid_channel("a" * 201)
    assert is_valid_event_name("n" * 200)
    assert not is_valid_event_name("n" * 201)
    assert not is_valid_event_name("a\n")
    assert is_valid_socket_id("1.2")
    assert not is_valid_socket_id(None)


def test_the_greeting_is_doubly_encoded() -> None:
    frame = json.loads(session(activity_timeout_s=17).opened().frame)

    assert frame["event"] == "pusher:connection_established"
    assert json.loads(frame["data"]) == {"socket_id": "1.1", "activity_timeout": 17}


def test_joining_a_public_channel_is_confirmed() -> None:
    talking = session()
    assert talking.receive(say("pusher:subscribe", {"channel": "chat", "auth": ""})) == (Join("chat"),)

    frame = json.loads(talking.joined("chat", None).frame)
    assert frame == {"event": "pusher_internal:subscription_succeeded", "channel": "chat", "data": "{}"}


def test_valid_signatures_open_private_and_presence_channels() -> None:
    data = '{"user_id":7,"user_info":{"name":"Ána"}}'

    assert session().receive(subscribe("private-a")) == (Join("private-a"),)
    assert session().receive(subscribe("private-a", "{}")) == (Join("private-a"),)
    assert session().receive(subscribe("presence-a", data)) == (
        Join("presence-a", PresenceMember("7", '{"name":"Ána"}'.encode(), is_number=True)),
    )


def test_another_sockets_signature_opens_nothing() -> None:
    frame = sent(session().receive(subscribe("private-a", socket_id="1.2")))

    assert frame["event"] == "pusher:subscription_error"
    assert frame["channel"] == "private-a"
    assert (frame["data"]["type"], frame["data"]["status"]) == ("AuthError", 401)


def test_a_presence_signature_is_invalid_for_other_data() -> None:
    request = json.loads(subscribe("presence-a", '{"user_id":"1"}'))
    request["data"]["channel_data"] = '{"user_id":"2"}'

    assert sent(session().receive(json.dumps(request)))["event"] == "pusher:subscription_error"


def test_the_number_of_channels_can_be_limited() -> None:
    talking = session(max_channels=1)
    talking.joined("one", None)

    assert sent(talking.receive(say("pusher:subscribe", {"channel": "two"})))["data"]["type"] == "LimitReached"
    assert talking.receive(say("pusher:subscribe", {"channel": "one"})) == (Join("one"),)


def test_leaving_returns_the_member_once() -> None:
    talking = session()
    talking.joined("presence-a", PresenceMember("1"))

    assert talking.receive(say("pusher:unsubscribe", {"channel": "presence-a"})) == (
        Leave("presence-a", PresenceMember("1")),
    )
    assert talking.receive(say("pusher:unsubscribe", {"channel": "presence-a"})) == ()


def test_a_client_event_carries_the_true_sender() -> None:
    talking = session()
    talking.joined("presence-a", PresenceMember("1"))
    talking.joined("private-a", None)

    (whisper,) = talking.receive(say("client-x", {"a": 1}, channel="presence-a", user_id="2"))
    assert isinstance(whisper, Whisper)
    assert json.loads(whisper.frame) == {
        "event": "client-x", "channel": "presence-a", "data": {"a": 1}, "user_id": "1",
    }  # fmt: skip
    (whisper,) = talking.receive(say("client-x", channel="private-a"))
    assert isinstance(whisper, Whisper)
    assert json.loads(whisper.frame) == {"event": "client-x", "channel": "private-a", "data": None}


@pytest.mark.parametrize("channel", ["chat", "private-other", "private-encrypted-a", "a b"])
def test_a_client_event_on_another_channel_is_refused_and_the_session_continues(channel: str) -> None:
    talking = session()
    for joined in ("chat", "private-encrypted-a"):
        talking.joined(joined, None)

    frame = sent(talking.receive(say("client-x", channel=channel)))
    assert (frame["data"]["code"], frame["channel"]) == (Code.CLIENT_EVENT_REFUSED, channel)
    assert sent(talking.receive(say("pusher:ping")))["event"] == "pusher:pong"


@pytest.mark.parametrize("event", ["client-", "client-" + "x" * 300, "client-a\n"])
def test_an_invalid_client_event_is_refused_with_the_usual_error(event: str) -> None:
    frame = sent(session().receive(say(event, channel="private-a")))

    assert (frame["data"]["code"], frame["channel"]) == (Code.CLIENT_EVENT_REFUSED, "private-a")


def test_a_client_event_without_a_channel_is_refused_with_the_usual_error() -> None:
    assert sent(session().receive(say("client-a")))["data"]["code"] == Code.CLIENT_EVENT_REFUSED


@pytest.mark.parametrize("fault", [{"auth": 1}, {"channel_data": {}}])
def test_an_error_about_a_subscription_names_the_channel(fault: dict[str, Any]) -> None:
    frame = sent(session().receive(say("pusher:subscribe", {"channel": "c" * 300} | fault)))

    assert (frame["event"], frame["channel"], frame["data"]["code"]) == ("pusher:error", "c" * 200, None)


def test_client_events_can_be_disabled() -> None:
    talking = session(accepts_client_events=False)
    talking.joined("private-a", None)

    assert sent(talking.receive(say("client-x", channel="private-a")))["event"] == "pusher:error"


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=20).filter(str.isprintable), JSON), max_size=5, unique_by=lambda m: m[0]
    )
)
def test_presence_state_lists_every_member(members: list[tuple[str, Any]]) -> None:
    infos = [(user_id, json.dumps(info, allow_nan=True).encode()) for user_id, info in members]
    infos = [(u, i) for u, i in infos if b"NaN" not in i and b"Infinity" not in i]

    frame = json.loads(encoding.subscription_succeeded("presence-a", encoding.presence_state(infos)))
    state = json.loads(frame["data"])["presence"]
    assert state["count"] == len(infos)
    assert state["ids"] == [user_id for user_id, _ in infos]
    assert state["hash"] == {user_id: json.loads(info) for user_id, info in infos}


def test_the_servers_frames_have_the_documented_shapes() -> None:
    assert json.loads(encoding.member_added("presence-a", "1", b'{"n":1}')) == {
        "event": "pusher_internal:member_added", "channel": "presence-a", "data": '{"user_id":"1","user_info":{"n":1}}',
    }  # fmt: skip
    assert json.loads(encoding.member_removed("presence-a", "1")) == {
        "event": "pusher_internal:member_removed", "channel": "presence-a", "data": '{"user_id":"1"}',
    }  # fmt: skip
    assert json.loads(encoding.event('e"', "chat", "ž{}")) == {"event": 'e"', "channel": "chat", "data": "ž{}"}
    error = {"code": 4301, "message": "m"}
    assert json.loads(encoding.error("m", 4301)) == {"event": "pusher:error", "data": error}
    assert json.loads(encoding.error("m", 4301, "a")) == {"event": "pusher:error", "channel": "a", "data": error}
