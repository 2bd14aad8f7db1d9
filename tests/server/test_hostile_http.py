"""Invalid values in every field of the HTTP API's bodies: a 4xx for the sender, no effect on others."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.two_tenants import ONE, Stage, stage
from smartlink.protocol.signing import signed_query

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS, BATCH = f"/apps/{ONE.id}/events", f"/apps/{ONE.id}/batch_events"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene() -> AsyncIterator[Stage]:
    async with stage() as it:
        yield it


MISSING = object()
WRONG: dict[str, Any] = {
    "missing": MISSING, "null": None, "true": True, "a number": 1, "a fraction": 1.5, "an array": [1], "an object": {"a": 1}
}  # fmt: skip
NO_CHANNELS: dict[str, str] = {
    "empty": "", "a blank": " ", "of 201": "a" * 201, "a newline behind": "chat\n", "NUL": "a\0", "a slash": "a/b", "a star": "*",
    "a colon": "a:b", "a hash": "#chat", "another server's": "#server-to-user-", "look-alike": "сhat", "an emoji": "😀",
    "a path": "../x", "SQL": "';--", "HTML": "<b>", "a format": "{0}", "full-width": "ｃｈａｔ", "a blank behind": "chat ",
}  # fmt: skip
NO_NAMES: dict[str, str] = {
    "empty": "", "of 201": "n" * 201, "NUL": "a\0", "a newline": "a\n", "DEL": "a\x7f", "an escape": "\x1b[31m",
    "pusher:": "pusher:error", "pusher: alone": "pusher:", "pusher_internal:": "pusher_internal:member_added",
    "the greeting": "pusher:connection_established", "a subscription": "pusher_internal:subscription_succeeded",
}  # fmt: skip
NO_SOCKETS: dict[str, str] = {
    "empty": "", "a word": "me", "one number": "1", "three numbers": "1.1.1", "a newline behind": "1.1\n", "NUL": "1.1\0",
    "a blank": " 1.1", "Arabic digits": "١.١", "negative": "-1.1", "exponent": "1e5.1", "a channel behind": "1.1:private-x",
    "a call before": "POST\n/apps/1/events\n", "of 5,000 digits": "1." + "1" * 5_000, "no digits": ".", "SQL": "1.1' OR '1",
}  # fmt: skip


def event(**changed: Any) -> dict[str, Any]:
    base = {"name": "forged", "channel": "chat", "data": "{}"}
    return {name: value for name, value in (base | changed).items() if value is not MISSING}


def bad_events() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in WRONG.items():
        yield f"name {name}", event(name=value)
        yield f"data {name}", event(data=value)
        yield f"channel {name}", event(channel=value)
        if value is not MISSING and value is not None:
            yield f"socket_id {name}", event(socket_id=value)
            yield f"info {name}", event(info=value)
    for name, channel in NO_CHANNELS.items():
        yield f"channel {name}", event(channel=channel)
    for name, text in NO_NAMES.items():
        yield f"name {name}", event(name=text)
    for name, socket_id in NO_SOCKETS.items():
        yield f"socket_id {name}", event(socket_id=socket_id)
    yield "info unknown", event(info="password")
    yield "info in a list", event(info="subscription_count,,")
    yield "info a prototype", event(info="__proto__")


def bad_texts() -> Iterator[tuple[str, bytes]]:
    whole = json.dumps(event()).encode()
    yield "nothing", b""
    yield "a blank", b" "
    yield "a word", b"forged"
    yield "half", whole[:-1]
    yield "twice", whole * 2
    yield "a byte order mark", b"\xef\xbb\xbf" + whole
    yield "UTF-16", whole.decode().encode("utf-16")
    yield "not UTF-8", whole.replace(b"forged", b"f\xff")
    yield "a surrogate in UTF-8", whole.replace(b"forged", b"f\xed\xa0\x80")
    yield "a lone surrogate", whole.replace(b"forged", b"f\\ud800")
    yield "NUL behind", whole + b"\0"
    yield "NaN", whole.replace(b'"{}"', b"NaN")
    yield "1e400", whole.replace(b'"{}"', b"1e400")
    yield "100,000 arrays", b"[" * 100_000
    yield "100,000 objects", b'{"a":' * 40_000
    yield "100,000 newlines", b"\n" * 100_000
    yield "form data", b"name=forged&channel=chat&data=x"
    yield "XML", b"<event><name>forged</name></event>"
    yield "a pickle", b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00\x8c\x06forged\x94."
    yield "PHP, serialised", b'O:8:"stdClass":1:{s:4:"name";s:6:"forged";}'
    for name, text in {
        "null": b"null",
        "true": b"true",
        "a number": b"1",
        "a text": b'"x"',
        "an array": b"[]",
        "an object": b"{}",
    }.items():
        yield f"{name} alone", text


BODIES: dict[str, tuple[str, bytes]] = {}
for _name, _event in bad_events():
    BODIES[f"event: {_name}"] = EVENTS, json.dumps(_event).encode()
    BODIES[f"batch: {_name}"] = BATCH, json.dumps({"batch": [event(channel="chat"), _event]}).encode()
for _name, _text in bad_texts():
    BODIES[f"event: {_name}"] = EVENTS, _text
    BODIES[f"batch: {_name}"] = BATCH, _text
for _name, _value in WRONG.items():
    BODIES[f"channels {_name}"] = EVENTS, json.dumps(event(channel=MISSING, channels=_value)).encode()
    BODIES[f"batch of {_name}"] = BATCH, json.dumps({} if _value is MISSING else {"batch": _value}).encode()
    if _value is not MISSING:
        BODIES[f"channels with {_name}"] = (
            EVENTS,
            json.dumps(event(channel=MISSING, channels=["chat", _value])).encode(),
        )
        BODIES[f"batch with {_name}"] = BATCH, json.dumps({"batch": [event(), _value]}).encode()
BODIES |= {
    "no channels": (EVENTS, json.dumps(event(channel=MISSING, channels=[])).encode()),
    "101 channels": (EVENTS, json.dumps(event(channels=[f"c{n}" for n in range(101)])).encode()),
    "a good and a bad channel": (EVENTS, json.dumps(event(channels=["chat", "a b"])).encode()),
    "batch of none": (BATCH, b'{"batch":[]}'),
    "batch of 11": (BATCH, json.dumps({"batch": [event()] * 11}).encode()),
    "batch with channels": (BATCH, json.dumps({"batch": [event(channel=MISSING, channels=["chat"])]}).encode()),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_400_and_publishes_nothing(scene: Stage, name: str) -> None:
    path, body = BODIES[name]

    status, answer = await scene.api.call(ONE, "POST", path, body)

    assert status == 400, answer
    assert set(answer) == {"error"}
    await scene.nobody_was_harmed()


TOO_LARGE: dict[str, tuple[str, bytes]] = {
    "10,241 bytes": (EVENTS, json.dumps(event(data="x" * 10_241)).encode()),
    "10,242 bytes in two-byte letters": (EVENTS, json.dumps(event(data="ž" * 5_121)).encode()),
    "10,244 bytes in emoji": (EVENTS, json.dumps(event(data="😀" * 2_561), ensure_ascii=False).encode()),
    "the second of a batch": (BATCH, json.dumps({"batch": [event(), event(data="x" * 10_241)]}).encode()),
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_too_much_data_is_413_with_size_and_limit(scene: Stage, name: str) -> None:
    path, body = TOO_LARGE[name]

    status, answer = await scene.api.call(ONE, "POST", path, body)

    assert status == 413
    assert "10240" in answer["error"]
    await scene.nobody_was_harmed()


ODD: dict[str, dict[str, Any]] = {
    "data empty": event(data=""), "data no JSON": event(data="<b>"), "data NUL": event(data="\0"), "data 10,240 bytes": event(data="x" * 10_240),
    "data 2,560 emoji": event(data="😀" * 2_560), "name of 200": event(name="n" * 200), "name in letters": event(name="žluť"),
    "name like a prototype": event(name="__proto__"), "name like a client event": event(name="client-x"),
    "socket_id of nobody": event(socket_id="1.1"), "socket_id null": event(socket_id=None), "more keys": event(__proto__={}, x=1),
    "info null": event(info=None), "info empty": event(info=""), "channels null": event(channels=None),
    "a channel given twice": event(channel=MISSING, channels=["chat", "chat"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
async def test_an_unusual_but_valid_event_arrives_once_unchanged(scene: Stage, name: str) -> None:
    status, _ = await scene.api.call(ONE, "POST", EVENTS, json.dumps(ODD[name]).encode())

    assert status == 200
    message = await scene.watching[ONE.id].receive()
    assert (message["event"], message["data"]) == (ODD[name]["name"], ODD[name]["data"])
    await scene.nobody_was_harmed()


QUERIES: dict[str, tuple[str, dict[str, str], int]] = {
    "user_count without prefix": ("/channels", {"info": "user_count"}, 400),
    "user_count with another prefix": ("/channels", {"info": "user_count", "filter_by_prefix": "private-"}, 400),
    "user_count with half a prefix": ("/channels", {"info": "user_count", "filter_by_prefix": "presence"}, 400),
    "info unknown": ("/channels", {"info": "password"}, 400),
    "info unknown on one": ("/channels/chat", {"info": "__class__"}, 400),
    "user_count of a public channel": ("/channels/chat", {"info": "user_count"}, 400),
    "user_count of a private channel": ("/channels/private-room", {"info": "user_count"}, 400),
    "cache of no cache channel": ("/channels/chat", {"info": "cache"}, 400),
    "prefix of nothing there": ("/channels", {"filter_by_prefix": "nothing-"}, 200),
    "prefix a pattern": ("/channels", {"filter_by_prefix": ".*"}, 200),
    "prefix SQL": ("/channels", {"filter_by_prefix": "%' OR '1'='1"}, 200),
    "prefix NUL": ("/channels", {"filter_by_prefix": "\0"}, 200),
    "prefix of 5,000": ("/channels", {"filter_by_prefix": "a" * 5_000}, 200),
    "prefix of app 2": ("/channels", {"filter_by_prefix": "1002"}, 200),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_is_answered_or_refused(scene: Stage, name: str) -> None:
    path, params, status = QUERIES[name]

    answer = await scene.api.call(ONE, "GET", f"/apps/{ONE.id}{path}", params=params)

    assert answer[0] == status, answer
    if status == 200:
        assert answer[1] == {"channels": {}}
    await scene.nobody_was_harmed()


HEADERS: dict[str, tuple[dict[str, str], int]] = {
    "no JSON by its type": ({"Content-Type": "text/plain"}, 200),
    "a packed body": ({"Content-Encoding": "gzip"}, 200),
    "a method beside": ({"X-HTTP-Method-Override": "DELETE"}, 200),
    "another path beside": ({"X-Original-URL": "/apps/1002/events", "X-Rewrite-URL": "/admin"}, 200),
    "a forged address": ({"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}, 200),
    "an origin": ({"Origin": "https://evil.example"}, 200),
    "ranges": ({"Range": "bytes=0-1,2-3"}, 200),
    "an idempotency key of 201": ({"Idempotency-Key": "k" * 201}, 400),
    "an idempotency key with a blank": ({"Idempotency-Key": "a b"}, 400),
    "an idempotency key, empty": ({"Idempotency-Key": ""}, 400),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_unusual_headers_are_harmless(scene: Stage, name: str) -> None:
    headers, status = HEADERS[name]
    body = json.dumps(event(channel="elsewhere")).encode()
    query = signed_query(ONE.key, ONE.secret, "POST", EVENTS, body, timestamp=int(time.time()))

    assert (await scene.api.send("POST", f"{EVENTS}?{query}", body, headers))[0] == status
    await scene.nobody_was_harmed()


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from(["name", "data", "channel", "channels", "socket_id", "info", "id", "live", "batch", "x"])


async def test_no_generated_body_causes_a_5xx(scene: Stage) -> None:
    bodies: list[bytes] = []

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    @given(
        body=st.binary(max_size=60)
        | st.dictionaries(_FIELDS, _VALUES, max_size=6).map(lambda value: json.dumps(value).encode())
    )
    def collect(body: bytes) -> None:
        bodies.append(body)

    collect()
    for body in bodies:
        for path in (EVENTS, BATCH):
            status, answer = await scene.api.call(ONE, "POST", path, body)
            assert status in (200, 400, 413), (body, answer)
    await scene.nobody_was_harmed()
