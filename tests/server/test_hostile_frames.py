"""Invalid values in every field of every client frame: one refusal for the sender, no effect on others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from kit.client import Client
from kit.two_tenants import ONE, Stage, stage, subscription
from smartlink.protocol.signing import sign_user

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene() -> AsyncIterator[Stage]:
    async with stage() as it:
        yield it


MISSING = object()
WRONG_TYPES: dict[str, Any] = {
    "missing": MISSING, "null": None, "true": True, "zero": 0, "a number": 1, "a negative number": -1,
    "a fraction": 1.5, "a large number": 1 << 70, "an empty array": [], "an array of the right text": ["chat"],
    "an empty object": {}, "an object with the prototype": {"__proto__": {"channel": "chat"}},
}  # fmt: skip
NAMES: dict[str, str] = {
    "empty": "",
    "a blank": " ",
    "of 201 characters": "a" * 201,
    "of 5,000 characters": "a" * 5_000,
    "with a blank": "cha t",
    "with a blank before": " chat",
    "with a blank behind": "chat ",
    "with a newline behind": "chat\n",
    "with a newline before": "\nchat",
    "with CR LF": "chat\r\nX: y",
    "with a tab": "chat\t",
    "with NUL": "chat\0",
    "NUL alone": "\0",
    "with DEL": "chat\x7f",
    "with a slash": "a/b",
    "a path upwards": "../../etc/passwd",
    "with a backslash": "a\\b",
    "with a colon": "1.1:private-x",
    "with a hash": "#chat",
    "a user's own channel": "#server-to-user-1",
    "with a star": "*",
    "a pattern": "private-*",
    "with a question mark": "a?b",
    "with a percent escape": "%63hat",
    "with quotes": 'a"b',
    "with an apostrophe": "a'b",
    "as SQL": "x';DROP TABLE users;--",
    "as HTML": "<script>alert(1)</script>",
    "as a format": "{0.__class__}",
    "as a percent format": "%s%n%x",
    "as a template": "${7*7}",
    "as a Jinja template": "{{7*7}}",
    "in Cyrillic look-alikes": "сhat",
    "in full-width letters": "ｃｈａｔ",
    "with a zero-width space": "ch\u200bat",
    "with a right-to-left mark": "chat\u202e",
    "with a combining accent": "cháat",
    "with an emoji": "chat😀",
    "with a non-character": "chat\uffff",
    "in Arabic digits": "١٢٣",
    "with a byte order mark": "\ufeffchat",
    "private with a blank before": " private-x",
    "private with another dash": "private‑x",
}


def raw(event: Any, **fields: Any) -> str:
    envelope = {"event": event} | fields
    return json.dumps({name: value for name, value in envelope.items() if value is not MISSING})


def not_json() -> Iterator[tuple[str, str | bytes]]:
    yield "text: empty", ""
    yield "text: a blank", " "
    yield "text: a word", "hello"
    yield "text: HTTP", "GET / HTTP/1.1\r\n\r\n"
    yield "text: half an object", '{"event":"pusher:ping"'
    yield "text: an object and more", '{"event":"pusher:ping"} x'
    yield "text: two objects", '{"event":"pusher:ping"}{"event":"pusher:ping"}'
    yield "text: a comma too many", '{"event":"pusher:ping",}'
    yield "text: single quotes", "{'event':'pusher:ping'}"
    yield "text: comments", '{"event":"pusher:ping"/* */}'
    yield "text: a bare key", '{event:"pusher:ping"}'
    yield "text: a byte order mark", '\ufeff{"event":"pusher:ping"}'
    yield "text: NUL behind", '{"event":"pusher:ping"}\0'
    yield "text: NaN", '{"event":"pusher:ping","data":NaN}'
    yield "text: Infinity", '{"event":"pusher:ping","data":-Infinity}'
    yield "text: 1e400", '{"event":"pusher:ping","data":1e400}'
    yield "text: a number of 9,000 digits", '{"event":"pusher:ping","data":' + "9" * 9_000 + "}"
    yield "text: a leading zero", '{"event":"pusher:ping","data":01}'
    yield "text: hexadecimal", '{"event":"pusher:ping","data":0x1}'
    yield "text: a plain control character", '{"event":"pusher:ping","data":"\x01"}'
    yield "text: a lone high surrogate", '{"event":"pusher:ping","data":"\\ud800"}'
    yield "text: a lone low surrogate", '{"event":"pusher:ping","data":"\\udc00"}'
    yield "text: surrogates the wrong way round", '{"event":"pusher:ping","data":"\\udc00\\ud800"}'
    yield "text: half an escape", '{"event":"pusher:ping","data":"\\u12"}'
    yield "text: an unknown escape", '{"event":"pusher:ping","data":"\\x41"}'
    yield "text: 5,000 open arrays", "[" * 5_000
    yield "text: 5,000 open objects", '{"a":' * 2_000
    yield "text: 33 arrays in data", '{"event":"pusher:ping","data":' + "[" * 33 + "]" * 33 + "}"
    yield "text: 4,000 arrays in data", '{"event":"pusher:ping","data":' + "[" * 4_000 + "]" * 4_000 + "}"
    yield (
        "text: deep behind a bracket in a text",
        '{"event":"pusher:ping","x":"]]]]]","data":' + "[" * 33 + "]" * 33 + "}",
    )
    yield "text: closing brackets first", "]" * 100 + "[" * 100
    for name, value in {
        "null": "null",
        "true": "true",
        "a number": "1",
        "a text": '"pusher:ping"',
        "an array": "[]",
    }.items():
        yield f"text: {name} alone", value
    yield "text: an array of frames", '[{"event":"pusher:ping","data":{}}]'
    yield "text: UTF-16", '{"event":"pusher:ping"}'.encode("utf-16-le").decode("latin-1")
    yield "text: 10 KB of blanks", " " * 10_000
    yield "text: 10 KB of backslashes", '"' + "\\" * 10_000
    yield "text: 10 KB of quotes", '"' * 10_000


def wrong_fields() -> Iterator[tuple[str, str]]:
    for name, value in WRONG_TYPES.items():
        yield f"event is {name}", raw(value, data={})
        yield f"subscribe: data is {name}", raw("pusher:subscribe", data=value)
        yield (
            f"subscribe: channel is {name}",
            raw("pusher:subscribe", data={} if value is MISSING else {"channel": value}),
        )
        yield f"unsubscribe: data is {name}", raw("pusher:unsubscribe", data=value)
        yield (
            f"unsubscribe: channel is {name}",
            raw("pusher:unsubscribe", data={} if value is MISSING else {"channel": value}),
        )
        yield f"signin: data is {name}", raw("pusher:signin", data=value)
        for field in ("auth", "user_data"):
            data = {"auth": "app-key:" + "0" * 64, "user_data": '{"id":"1"}', field: value}
            yield (
                f"signin: {field} is {name}",
                raw("pusher:signin", data={k: v for k, v in data.items() if v is not MISSING}),
            )
        yield f"client event: channel is {name}", raw("client-x", channel=value, data={})
        if value is not MISSING and value is not None:
            yield f"subscribe: auth is {name}", raw("pusher:subscribe", data={"channel": "private-x", "auth": value})
            for channel in ("chat", "presence-x"):
                data = {"channel": channel, "auth": "", "channel_data": value}
                yield f"subscribe: channel_data of {channel} is {name}", raw("pusher:subscribe", data=data)
    for name, channel in NAMES.items():
        yield f"subscribe: channel {name}", raw("pusher:subscribe", data={"channel": channel})
        yield f"client event: channel {name}", raw("client-x", channel=channel, data={})
    for name, text in {
        "not JSON": "chat", "JSON of a text": '"chat"', "JSON of an array": "[]", "NaN": '{"channel":NaN}',
        "JSON inside JSON": json.dumps(json.dumps({"channel": "chat"})), "empty": "", "deep": "[" * 4_000,
    }.items():  # fmt: skip
        yield f"subscribe: data as text, {name}", raw("pusher:subscribe", data=text)


def wrong_events() -> Iterator[tuple[str, str]]:
    names = {
        "empty": "", "a blank": " ", "of 201 characters": "e" * 201, "unknown": "pusher:unknown", "without prefix": "typing",
        "the server's: member_added": "pusher_internal:member_added", "the server's: error": "pusher:error",
        "the server's: member_removed": "pusher_internal:member_removed",
        "the server's: subscription_succeeded": "pusher_internal:subscription_succeeded",
        "the server's, as applications see it": "pusher:subscription_succeeded",
        "the server's: greeting": "pusher:connection_established", "the server's: cache_miss": "pusher:cache_miss",
        "the server's: count": "pusher_internal:subscription_count", "the server's: watchlist": "pusher_internal:watchlist_events",
        "the server's: signin_success": "pusher:signin_success", "upper case": "PUSHER:PING", "a blank behind": "pusher:ping ",
        "a newline behind": "pusher:ping\n", "NUL behind": "pusher:ping\0", "a look-alike": "рusher:ping",
        "an attribute": "__class__", "the prototype": "__proto__", "a constructor": "constructor", "a format": "{0.__class__}",
        "client- alone": "client-", "client- in upper case": "Client-x", "client_ with underscore": "client_x",
        "client- with a newline": "client-x\n", "client- with NUL": "client-\0", "client- of 201 characters": "client-" + "x" * 194,
        "client- behind a blank": " client-x", "client- in look-alikes": "сlient-x", "a path": "../x",
    }  # fmt: skip
    for name, event in names.items():
        yield f"event {name}", raw(event, channel="private-room", data={})


REFUSED = dict([*not_json(), *wrong_fields(), *wrong_events()])


@pytest.mark.parametrize("name", REFUSED)
async def test_an_invalid_frame_is_refused_once(scene: Stage, name: str) -> None:
    text = REFUSED[name]
    async with scene.client(ONE, "private-room") as client:
        client.send_frame(1, text if isinstance(text, bytes) else text.encode())
        answer = await client.receive()

        assert answer["event"] in ("pusher:error", "pusher:subscription_error"), answer
        assert await client.is_quiet()
        assert len(scene.server.node.hub.connection(ONE.id, client.socket_id).session.channels) == 1  # type: ignore[union-attr]
    await scene.nobody_was_harmed()


TAKEN = {
    "ping with data": (raw("pusher:ping", data={"x": [1]}), "pusher:pong"),
    "ping without data": (raw("pusher:ping"), "pusher:pong"),
    "ping with more keys": (raw("pusher:ping", __proto__=1, channel=None), "pusher:pong"),
    "event given twice": ('{"event":"client-x","event":"pusher:ping"}', "pusher:pong"),
    "event in escapes": ('{"event":"pusher\\u003aping"}', "pusher:pong"),
    "32 arrays less the object": ('{"event":"pusher:ping","data":' + "[" * 31 + "]" * 31 + "}", "pusher:pong"),
    "brackets in a text are not depth": (raw("pusher:ping", data="[" * 5_000), "pusher:pong"),
    "blanks around": (' \r\n\t{"event" : "pusher:ping"} \n', "pusher:pong"),
    "public, auth null": (raw("pusher:subscribe", data={"channel": "a", "auth": None}), "subscribed"),
    "public, auth empty": (raw("pusher:subscribe", data={"channel": "a", "auth": ""}), "subscribed"),
    "public, auth wrong": (raw("pusher:subscribe", data={"channel": "a", "auth": "x:y"}), "subscribed"),
    "public, channel_data": (raw("pusher:subscribe", data={"channel": "a", "channel_data": "x"}), "subscribed"),
    "data as text": (raw("pusher:subscribe", data='{"channel":"a"}'), "subscribed"),
    "channel given twice": ('{"event":"pusher:subscribe","data":{"channel":"private-a","channel":"a"}}', "subscribed"),
    "200 characters": (raw("pusher:subscribe", data={"channel": "a" * 200}), "subscribed"),
    "every character": (raw("pusher:subscribe", data={"channel": "-aZ0_=@,.;"}), "subscribed"),
    "one character": (raw("pusher:subscribe", data={"channel": ";"}), "subscribed"),
    "__proto__": (raw("pusher:subscribe", data={"channel": "__proto__"}), "subscribed"),
    "constructor": (raw("pusher:subscribe", data={"channel": "constructor"}), "subscribed"),
    "__class__": (raw("pusher:subscribe", data={"channel": "__class__"}), "subscribed"),
    "privatefoo is public": (raw("pusher:subscribe", data={"channel": "privatefoo"}), "subscribed"),
    "presencefoo is public": (raw("pusher:subscribe", data={"channel": "presencefoo"}), "subscribed"),
    "Private-x is public": (raw("pusher:subscribe", data={"channel": "Private-x"}), "subscribed"),
    "PRESENCE-x is public": (raw("pusher:subscribe", data={"channel": "PRESENCE-x"}), "subscribed"),
    "x-private-x is public": (raw("pusher:subscribe", data={"channel": "x-private-x"}), "subscribed"),
    "pong": (raw("pusher:pong", data={}), None),
    "unsubscribe from what one is not on": (raw("pusher:unsubscribe", data={"channel": "chat"}), None),
    "unsubscribe from no channel's name": (raw("pusher:unsubscribe", data={"channel": "../\0"}), None),
}


@pytest.mark.parametrize("name", TAKEN)
async def test_unusual_but_valid_frames_are_accepted(scene: Stage, name: str) -> None:
    text, expected = TAKEN[name]
    async with scene.client() as client:
        client.send_text(text)
        if expected is not None:
            answer = await client.receive()
            assert answer["event"] == (
                "pusher_internal:subscription_succeeded" if expected == "subscribed" else expected
            )
        assert await client.is_quiet()
    await scene.nobody_was_harmed()


UNAUTHORIZED_KINDS = [
    "private-", "private-x", "private-private-x", "private-encrypted-x", "private-encrypted-", "private-cache-x",
    "private-encrypted-cache-x", "presence-", "presence-x", "presence-cache-x", "private-presence-x", "presence-private-x",
]  # fmt: skip


@pytest.mark.parametrize("channel", UNAUTHORIZED_KINDS)
async def test_each_channel_kind_with_a_prefix_needs_a_signature(scene: Stage, channel: str) -> None:
    async with scene.client() as client:
        for auth in ({}, {"auth": None}, {"auth": ""}, {"auth": ":"}, {"auth": f"{ONE.key}:"}):
            client.send("pusher:subscribe", {"channel": channel, "channel_data": '{"user_id":"1"}'} | auth)
            answer = await client.expect("pusher:subscription_error")
            assert (answer["channel"], answer["data"]["type"], answer["data"]["status"]) == (channel, "AuthError", 401)
    await scene.nobody_was_harmed()


BAD_MEMBERS: dict[str, str] = {
    "empty": "", "not JSON": "x", "null": "null", "a number": "1", "a text": '"7"', "an array": '["7"]', "nothing in it": "{}",
    "half": '{"user_id":"7"', "NaN": '{"user_id":NaN}', "deep": "[" * 2_000, "deep and whole": "[" * 900 + "]" * 900,
    "user_id null": '{"user_id":null}', "user_id true": '{"user_id":true}', "user_id an object": '{"user_id":{}}',
    "user_id an array": '{"user_id":["7"]}', "user_id a fraction": '{"user_id":7.5}', "user_id empty": '{"user_id":""}',
    "user_id 1e400": '{"user_id":1e400}', "user_id of 129 characters": json.dumps({"user_id": "7" * 129}),
    "user_id NUL": '{"user_id":"\\u0000"}', "user_id with a newline": '{"user_id":"7\\n"}',
    "user_id a lone surrogate": '{"user_id":"\\ud800"}', "user_info over 1 KB": json.dumps({"user_id": "7", "user_info": "x" * 1_100}),
    "user_info NaN": '{"user_id":"7","user_info":NaN}', "user_info deep": '{"user_id":"7","user_info":' + "[" * 900 + "]" * 900 + "}",
    "user_info of 400 arrays": '{"user_id":"7","user_info":' + "[" * 400 + "]" * 400 + "}",
    "a byte order mark": '\ufeff{"user_id":"7"}',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MEMBERS)
async def test_an_invalid_signed_member_is_refused(scene: Stage, name: str) -> None:
    """The application signs what its user wrote: a signature does not make it harmless."""
    async with scene.client() as client:
        client.send("pusher:subscribe", subscription(ONE, client.socket_id, "presence-room", BAD_MEMBERS[name]))
        answer = await client.expect("pusher:subscription_error")

        assert answer["data"]["status"] == 401
    await scene.nobody_was_harmed()


GOOD_IDS = {
    "__proto__",
    "constructor",
    "{0.__class__}",
    "a b",
    "ž",
    "😀",
    "1' OR '1'='1",
    "<b>",
    "../x",
    "null",
    "7" * 128,
}


@pytest.mark.parametrize("user_id", sorted(GOOD_IDS))
async def test_any_valid_user_id_is_kept_unchanged(scene: Stage, user_id: str) -> None:
    member = json.dumps({"user_id": user_id, "user_info": {"__proto__": {"x": 1}}})
    async with scene.client(ONE) as client:
        client.send("pusher:subscribe", subscription(ONE, client.socket_id, "presence-ids", member))
        state = json.loads((await client.expect("pusher_internal:subscription_succeeded"))["data"])["presence"]

        assert state == {"count": 1, "ids": [user_id], "hash": {user_id: {"__proto__": {"x": 1}}}}
        status, answer = await scene.api.call(ONE, "GET", f"/apps/{ONE.id}/channels/presence-ids/users")
        assert (status, answer) == (200, {"users": [{"id": user_id}]})
    await scene.nobody_was_harmed()


BAD_USERS: dict[str, str] = {
    "empty": "", "not JSON": "x", "null": "null", "a text": '"7"', "an array": "[]", "nothing in it": "{}", "id null": '{"id":null}',
    "id empty": '{"id":""}', "id an object": '{"id":{}}', "id true": '{"id":true}', "id NaN": '{"id":NaN}', "deep": "[" * 2_000,
    "id of 5,000 characters": json.dumps({"id": "7" * 5_000}), "id a lone surrogate": '{"id":"\\ud800"}',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_USERS)
async def test_an_invalid_signed_user_is_refused(scene: Stage, name: str) -> None:
    user_data = BAD_USERS[name]
    async with scene.client() as client:
        auth = sign_user(ONE.key, ONE.secret, client.socket_id, user_data)
        client.send("pusher:signin", {"auth": auth, "user_data": user_data})
        answer = await client.receive()

        assert answer["event"] == "pusher:error"
    await scene.nobody_was_harmed()


async def relayed(scene: Stage, client: Client, text: str) -> dict[str, Any]:
    client.send_text(text)
    return await scene.watching[ONE.id].receive()


FORGED = {
    "user_id": {"user_id": "boss"}, "socket_id": {"socket_id": "1.1"}, "event in data": {"data": {"event": "pusher:error"}},
    "user_id null": {"user_id": None}, "more keys": {"__proto__": {"user_id": "boss"}, "time": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
async def test_a_client_event_cannot_carry_forged_fields(scene: Stage, name: str) -> None:
    async with scene.client(ONE, "private-room") as client:
        fields = {"data": {"n": 1}} | FORGED[name]
        message = await relayed(scene, client, raw("client-x", channel="private-room", **fields))

        assert message == {"event": "client-x", "channel": "private-room", "data": fields["data"]}
    await scene.nobody_was_harmed()


DATA: dict[str, Any] = {
    "missing": MISSING, "null": None, "true": True, "a number": 1, "a text": "x", "a JSON text": '{"a":1}', "empty": "",
    "an array": [], "NUL": "\0", "line separators": "\u2028\u2029", "an emoji": "😀", "HTML": "</script><script>",
    "the prototype": {"__proto__": {"a": 1}}, "a format": "{0.__class__}", "31 arrays deep": json.loads("[" * 31 + "]" * 31),
    "an empty key": {"": ""}, "a large number": 1 << 60,
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
async def test_any_data_of_a_client_event_arrives_unchanged(scene: Stage, name: str) -> None:
    value = DATA[name]
    async with scene.client(ONE, "private-room") as client:
        message = await relayed(scene, client, raw("client-x", channel="private-room", data=value))

        assert message["data"] == (None if value is MISSING else value)
    await scene.nobody_was_harmed()


WHISPERS = [
    "chat",
    "private-other",
    "presence-other",
    "private-encrypted-room",
    "presence-room",
    "private-room-2",
    "private-Room",
]


@pytest.mark.parametrize("channel", WHISPERS)
async def test_a_client_event_on_an_unsubscribed_channel_reaches_nobody(scene: Stage, channel: str) -> None:
    async with scene.client() as client:
        client.send("client-x", {}, channel=channel)
        error = (await client.expect("pusher:error"))["data"]

        assert error["code"] == 4301
        assert await client.is_quiet()
    await scene.nobody_was_harmed()


async def test_ten_thousand_subscribes_and_unsubscribes_leave_nothing(scene: Stage) -> None:
    async with scene.client() as client:
        for _ in range(2_500):
            client.send("pusher:subscribe", {"channel": "flood"})
            client.send("pusher:unsubscribe", {"channel": "flood"})
            client.send("pusher:subscribe", {"channel": "private-flood"})
            client.send("pusher:unsubscribe", {"channel": "nowhere"})
        seen = [(await client.receive())["event"] for _ in range(5_000)]

        assert seen.count("pusher:subscription_error") == 2_500
        assert await client.is_quiet()
        assert scene.server.node.hub.channel(ONE.id, "flood") is None
    await scene.nobody_was_harmed()


async def test_ten_thousand_pings_are_answered(scene: Stage) -> None:
    async with scene.client() as client:
        for _ in range(5_000):
            client.send_frame(9, b"x")
            client.send_text('{"event":"pusher:ping"}')
        kinds = [(await client.frame())[0] for _ in range(10_000)]

        assert kinds == [10, 1] * 5_000
    await scene.nobody_was_harmed()
