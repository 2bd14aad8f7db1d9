"""Signatures that are replayed, swapped, truncated or altered; and almost correctly signed API calls."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from kit.client import Client
from kit.two_tenants import ONE, TWO, Stage, stage
from smartlink.protocol.signing import body_md5, sign_channel, sign_request, sign_user
from smartlink.server.apps.base import App

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene() -> AsyncIterator[Stage]:
    async with stage() as it:
        yield it


def signed(socket_id: str, channel: str, channel_data: str | None = None, app: App = ONE) -> str:
    return sign_channel(app.key, app.secret, socket_id, channel, channel_data)


SEVEN, EIGHT = '{"user_id":"7"}', '{"user_id":"8"}'
Subscription = Callable[[Client, Client], dict[str, Any]]


def private(change: Callable[[str], str]) -> Subscription:
    """A right signature for private-x, changed."""
    return lambda me, other: {"channel": "private-x", "auth": change(signed(me.socket_id, "private-x"))}


def presence(
    auth_data: str | None, sent_data: str | None, channel: str = "presence-x", signed_for: str = "presence-x"
) -> Subscription:
    def build(me: Client, other: Client) -> dict[str, Any]:
        data: dict[str, Any] = {"channel": channel, "auth": signed(me.socket_id, signed_for, auth_data)}
        return data if sent_data is None else data | {"channel_data": sent_data}

    return build


FORGED: dict[str, Subscription] = {
    # Replays
    "socket A's on socket B": lambda me, other: {"channel": "private-x", "auth": signed(other.socket_id, "private-x")},
    "channel X's on channel Y": lambda me, other: {"channel": "private-y", "auth": signed(me.socket_id, "private-x")},
    "channel private-x's on private-X": lambda me, other: {"channel": "private-X", "auth": signed(me.socket_id, "private-x")},
    "app 2's key and secret": lambda me, other: {"channel": "private-x", "auth": signed(me.socket_id, "private-x", app=TWO)},
    "app 2's secret under app 1's key": lambda me, other: {
        "channel": "private-x", "auth": sign_channel(ONE.key, TWO.secret, me.socket_id, "private-x")
    },
    "app 2's key with app 1's secret": lambda me, other: {
        "channel": "private-x", "auth": sign_channel(TWO.key, ONE.secret, me.socket_id, "private-x")
    },
    "app 2's socket": lambda me, other: {"channel": "private-x", "auth": signed("1.1", "private-x")},
    "private's on presence": presence(None, SEVEN, "presence-x", "private-x"),
    "private's on its encrypted namesake": lambda me, other: {
        "channel": "private-encrypted-x", "auth": signed(me.socket_id, "private-x")
    },
    "private's on its cache": lambda me, other: {"channel": "private-cache-x", "auth": signed(me.socket_id, "private-x")},
    "presence's on private": presence(SEVEN, SEVEN, "private-x", "presence-x"),
    "member 7's for member 8": presence(SEVEN, EIGHT),
    "a member without a signed one": presence(None, SEVEN),
    "a signed member left out": presence(SEVEN, None),
    "a member in other words": presence(SEVEN, '{"user_id": "7"}'),
    "a member with a blank behind": presence(SEVEN, SEVEN + " "),
    "a member with more in it": presence(SEVEN, '{"user_id":"7","user_info":{"admin":true}}'),
    "a member in escapes": presence(SEVEN, '{"user_id":"\\u0037"}'),
    "private with channel_data not signed": lambda me, other: {
        "channel": "private-x", "auth": signed(me.socket_id, "private-x"), "channel_data": "{}"
    },
    "private with signed channel_data left out": lambda me, other: {
        "channel": "private-x", "auth": signed(me.socket_id, "private-x", "{}")
    },
    "presence signed without data, none sent": presence(None, None),
    "a sign-in's": lambda me, other: {"channel": "private-x", "auth": sign_user(ONE.key, ONE.secret, me.socket_id, "private-x")},
    "channel and data swapped about the colon": lambda me, other: {
        "channel": "private-x", "auth": signed(me.socket_id, "private-x", "y"), "channel_data": "y:"
    },
    # Dressed up
    "upper case": private(lambda auth: auth.partition(":")[0] + ":" + auth.partition(":")[2].upper()),
    "63 digits": private(lambda auth: auth[:-1]),
    "65 digits": private(lambda auth: auth + "0"),
    "a newline behind": private(lambda auth: auth + "\n"),
    "NUL behind": private(lambda auth: auth + "\0"),
    "a blank behind": private(lambda auth: auth + " "),
    "a blank before": private(lambda auth: " " + auth),
    "no key": private(lambda auth: auth.partition(":")[2]),
    "an empty key": private(lambda auth: ":" + auth.partition(":")[2]),
    "the key in upper case": private(lambda auth: auth.replace("app-key", "APP-KEY")),
    "another key": private(lambda auth: auth.replace("app-key", "nobody")),
    "the key twice": private(lambda auth: "app-key:" + auth),
    "two signatures": private(lambda auth: auth + "," + auth),
    "no signature": private(lambda auth: "app-key:"),
    "nothing": private(lambda auth: ""),
    "a colon": private(lambda auth: ":"),
    "zeros": private(lambda auth: "app-key:" + "0" * 64),
    "no hexadecimal": private(lambda auth: "app-key:" + "z" * 64),
    "the first digit changed": private(lambda auth: auth[:8] + ("0" if auth[8] != "0" else "1") + auth[9:]),
    "the last digit changed": private(lambda auth: auth[:-1] + ("0" if auth[-1] != "0" else "1")),
    "full-width digits": private(lambda auth: auth.translate({48 + n: 0xFF10 + n for n in range(10)})),
    "in Cyrillic look-alikes": private(lambda auth: auth.replace("a", "а").replace("c", "с").replace("e", "е")),
    "base64": private(lambda auth: "app-key:" + __import__("base64").b64encode(bytes.fromhex(auth[8:])).decode()),
    "4,000 digits": private(lambda auth: auth + "0" * 4_000),
    "the empty secret": lambda me, other: {"channel": "private-x", "auth": sign_channel(ONE.key, "", me.socket_id, "private-x")},
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_signature_opens_no_channel(scene: Stage, name: str) -> None:
    async with scene.client() as me, scene.client() as other:
        data = FORGED[name](me, other)
        me.send("pusher:subscribe", data)
        answer = await me.expect("pusher:subscription_error")

        assert (answer["channel"], answer["data"]["type"], answer["data"]["status"]) == (
            data["channel"],
            "AuthError",
            401,
        )
        assert scene.server.node.hub.channel(ONE.id, data["channel"]) is None
        listed = await scene.api.call(
            ONE, "GET", f"/apps/{ONE.id}/channels", params={"filter_by_prefix": data["channel"]}
        )
        assert listed == (200, {"channels": {}})
    await scene.nobody_was_harmed()


SIGN_INS: dict[str, Callable[[Client, Client], dict[str, Any]]] = {
    "socket A's on socket B": lambda me, other: {"auth": sign_user(ONE.key, ONE.secret, other.socket_id, '{"id":"1"}')},
    "another user's": lambda me, other: {"auth": sign_user(ONE.key, ONE.secret, me.socket_id, '{"id":"2"}')},
    "app 2's": lambda me, other: {"auth": sign_user(TWO.key, TWO.secret, me.socket_id, '{"id":"1"}')},
    "app 2's secret under app 1's key": lambda me, other: {
        "auth": sign_user(ONE.key, TWO.secret, me.socket_id, '{"id":"1"}')
    },
    "a channel's": lambda me, other: {"auth": signed(me.socket_id, "private-x")},
    "upper case": lambda me, other: {"auth": sign_user(ONE.key, ONE.secret, me.socket_id, '{"id":"1"}').upper()},
    "a newline behind": lambda me, other: {"auth": sign_user(ONE.key, ONE.secret, me.socket_id, '{"id":"1"}') + "\n"},
    "nothing": lambda me, other: {"auth": ""},
}


@pytest.mark.parametrize("name", SIGN_INS)
async def test_a_forged_sign_in_is_refused_and_no_user_channel_opens(scene: Stage, name: str) -> None:
    async with scene.client() as me, scene.client() as other:
        me.send("pusher:signin", {"user_data": '{"id":"1"}'} | SIGN_INS[name](me, other))
        assert (await me.receive())["event"] == "pusher:error"
    async with scene.client() as me:
        me.send("pusher:subscribe", {"channel": "#server-to-user-1", "auth": ""})
        assert (await me.receive())["event"] == "pusher:subscription_error"
    await scene.nobody_was_harmed()


async def test_a_user_cannot_subscribe_to_another_users_channel(scene: Stage) -> None:
    async with scene.client() as me:
        await scene.sign_in(me, ONE, "1")
        for channel in (
            "#server-to-user-2",
            "#server-to-user-",
            "#server-to-user-1 ",
            "#server-to-user-１",
            "#Server-to-user-1",
        ):
            me.send("pusher:subscribe", {"channel": channel, "auth": signed(me.socket_id, "private-x")})
            assert (await me.receive())["event"] == "pusher:subscription_error"
        me.send("pusher:subscribe", {"channel": "#server-to-user-1"})
        await me.expect("pusher_internal:subscription_succeeded")
    await scene.nobody_was_harmed()


# The HTTP API

PATH = f"/apps/{ONE.id}/events"
EVENT = b'{"name":"forged","channel":"chat","data":"{}"}'


def parameters(**changed: str | None) -> dict[str, str]:
    base: dict[str, str | None] = {
        "auth_key": ONE.key, "auth_timestamp": str(int(time.time())), "auth_version": "1.0", "body_md5": body_md5(EVENT)
    }  # fmt: skip
    return {name: value for name, value in (base | changed).items() if value is not None}


def query(params: dict[str, str], *, secret: str = ONE.secret, method: str = "POST", path: str = PATH) -> str:
    signature = sign_request(secret, method, path, params.items())
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in (params | {"auth_signature": signature}).items())


def off(seconds: int) -> dict[str, str]:
    return parameters(auth_timestamp=str(int(time.time()) + seconds))


def signature_changed(change: Callable[[str], str]) -> Callable[[], str]:
    def build() -> str:
        head, _, signature = query(parameters()).rpartition("=")
        return f"{head}={quote(change(signature))}"

    return build


UNSIGNED: dict[str, tuple[Callable[[], str], int]] = {
    "nothing": (lambda: "", 401),
    "timestamp 601 s ago": (lambda: query(off(-601)), 401),
    "timestamp in 602 s": (lambda: query(off(602)), 401),
    "timestamp of 1970": (lambda: query(parameters(auth_timestamp="0")), 401),
    "timestamp missing": (lambda: query(parameters(auth_timestamp=None)), 401),
    "timestamp empty": (lambda: query(parameters(auth_timestamp="")), 401),
    "timestamp in ms": (lambda: query(parameters(auth_timestamp=str(int(time.time() * 1000)))), 401),
    "timestamp with fraction": (lambda: query(parameters(auth_timestamp=f"{time.time():.3f}")), 401),
    "timestamp 1e9": (lambda: query(parameters(auth_timestamp="1e9")), 401),
    "timestamp negative": (lambda: query(parameters(auth_timestamp=f"-{int(time.time())}")), 401),
    "timestamp with plus": (lambda: query(parameters(auth_timestamp=f"+{int(time.time())}")), 401),
    "timestamp with blank": (lambda: query(parameters(auth_timestamp=f" {int(time.time())}")), 401),
    "timestamp with newline": (lambda: query(parameters(auth_timestamp=f"{int(time.time())}\n")), 401),
    "timestamp with underscore": (lambda: query(parameters(auth_timestamp="1_700_000_000")), 401),
    "timestamp in Arabic digits": (
        lambda: query(parameters(auth_timestamp=str(int(time.time())).translate({48 + n: 0x660 + n for n in range(10)}))), 401
    ),
    "timestamp in superscript": (lambda: query(parameters(auth_timestamp="²")), 401),
    "timestamp of 5,000 digits": (lambda: query(parameters(auth_timestamp="9" * 5_000)), 401),
    "timestamp NaN": (lambda: query(parameters(auth_timestamp="nan")), 401),
    "timestamp inf": (lambda: query(parameters(auth_timestamp="inf")), 401),
    "timestamp hexadecimal": (lambda: query(parameters(auth_timestamp=hex(int(time.time())))), 401),
    "version 2.0": (lambda: query(parameters(auth_version="2.0")), 401),
    "version 1": (lambda: query(parameters(auth_version="1")), 401),
    "version missing": (lambda: query(parameters(auth_version=None)), 401),
    "key missing": (lambda: query(parameters(auth_key=None)), 401),
    "key empty": (lambda: query(parameters(auth_key="")), 401),
    "key unknown": (lambda: query(parameters(auth_key="nobody")), 401),
    "key in upper case": (lambda: query(parameters(auth_key="APP-KEY")), 401),
    "key with newline": (lambda: query(parameters(auth_key="app-key\n")), 401),
    "key in other letters": (lambda: query(parameters(auth_key="ключ")), 401),
    "app 2's key beside app 1's signature": (lambda: query(parameters(auth_key=TWO.key)), 401),
    "app 2's key and signature": (lambda: query(parameters(auth_key=TWO.key), secret=TWO.secret), 401),
    "app 2's signature": (lambda: query(parameters(), secret=TWO.secret), 401),
    "the empty secret": (lambda: query(parameters(), secret=""), 401),
    "the key as secret": (lambda: query(parameters(), secret=ONE.key), 401),
    "md5 missing": (lambda: query(parameters(body_md5=None)), 401),
    "md5 empty": (lambda: query(parameters(body_md5="")), 401),
    "md5 of the empty body": (lambda: query(parameters(body_md5=body_md5(b""))), 401),
    "md5 of another body": (lambda: query(parameters(body_md5=body_md5(EVENT + b" "))), 401),
    "md5 in upper case": (lambda: query(parameters(body_md5=body_md5(EVENT).upper())), 401),
    "md5 cut": (lambda: query(parameters(body_md5=body_md5(EVENT)[:-1])), 401),
    "md5 with newline": (lambda: query(parameters(body_md5=body_md5(EVENT) + "\n")), 401),
    "signature of GET": (lambda: query(parameters(), method="GET"), 401),
    "signature of post in lower case": (lambda: query(parameters(), method="post"), 401),
    "signature of batch_events": (lambda: query(parameters(), path=f"/apps/{ONE.id}/batch_events"), 401),
    "signature of app 2's path": (lambda: query(parameters(), path=f"/apps/{TWO.id}/events"), 401),
    "signature of the path with a slash": (lambda: query(parameters(), path=PATH + "/"), 401),
    "signature of fewer parameters": (lambda: query(parameters()) + "&info=user_count", 401),
    "signature of more parameters": (lambda: query(parameters(info="x")).replace("info=x&", ""), 401),
    "signature of a channel": (
        lambda: query(parameters()).rpartition("=")[0] + "=" + signed("1.1", "private-x").partition(":")[2], 401
    ),
    "signature missing": (lambda: query(parameters()).rpartition("&")[0], 401),
    "signature empty": (signature_changed(lambda _: ""), 401),
    "signature in upper case": (signature_changed(str.upper), 401),
    "signature cut": (signature_changed(lambda s: s[:-1]), 401),
    "signature longer": (signature_changed(lambda s: s + "0"), 401),
    "signature with newline": (signature_changed(lambda s: s + "\n"), 401),
    "signature with NUL": (signature_changed(lambda s: s + "\0"), 401),
    "signature with the key": (signature_changed(lambda s: f"{ONE.key}:{s}"), 401),
    "signature not ASCII": (signature_changed(lambda s: "ž" + s[1:]), 401),
    "signature not UTF-8": (lambda: query(parameters()).rpartition("=")[0] + "=%ff%fe", 401),
    "signature a lone surrogate": (lambda: query(parameters()).rpartition("=")[0] + "=%ed%a0%80", 401),
    "signature twice": (lambda: query(parameters()) + "&auth_signature=" + "0" * 64, 400),
    "key twice": (lambda: query(parameters()) + "&auth_key=app-key", 400),
    "timestamp twice": (lambda: f"auth_timestamp={int(time.time())}&" + query(parameters()), 400),
    "version twice": (lambda: query(parameters()) + "&auth_version=1.0", 400),
    "md5 twice": (lambda: query(parameters()) + "&body_md5=x", 400),
    "signature in two cases": (lambda: query(parameters()) + "&AUTH_SIGNATURE=x", 400),
    "key in escapes, twice": (lambda: query(parameters()) + "&%61uth_key=x", 400),
    "1,000 parameters": (lambda: query(parameters()) + "".join(f"&p{n}=1" for n in range(1_000)), 400),
    "ampersands": (lambda: query(parameters()) + "&" * 60, 400),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSIGNED)
async def test_a_call_with_an_almost_valid_signature_is_refused(scene: Stage, name: str) -> None:
    build, status = UNSIGNED[name]

    answer = await scene.api.send("POST", f"{PATH}?{build()}", EVENT)

    assert answer[0] == status, answer
    assert isinstance(answer[1]["error"], str)
    assert ONE.secret not in json.dumps(answer)
    await scene.nobody_was_harmed()


SIGNED: dict[str, Callable[[], str]] = {
    "as it is": lambda: query(parameters()),
    "599 s ago": lambda: query(off(-598)),
    "in 599 s": lambda: query(off(599)),
    "parameters in another order": lambda: "&".join(reversed(query(parameters()).split("&"))),
    "names in upper case": lambda: query(parameters()).replace("auth_key", "AUTH_KEY"),
    "names in escapes": lambda: query(parameters()).replace("auth_key", "%61uth_key"),
    "a parameter of the caller's own": lambda: query(parameters(x="a b+c/ž&=")),
    "a blank as plus": lambda: query(parameters(x="a b")).replace("a%20b", "a+b"),
}


@pytest.mark.parametrize("name", SIGNED)
async def test_a_call_with_a_valid_signature_is_accepted(scene: Stage, name: str) -> None:
    assert await scene.api.send("POST", f"{PATH}?{SIGNED[name]()}", EVENT) == (200, {})

    assert (await scene.watching[ONE.id].receive())["event"] == "forged"
    await scene.nobody_was_harmed()


PATHS: dict[str, tuple[str, str, int]] = {
    "two slashes before": ("POST", f"/{PATH}", 404),
    "two slashes within": ("POST", f"/apps//{ONE.id}/events", 404),
    "a slash behind": ("POST", f"{PATH}/", 404),
    "a dot": ("POST", f"/apps/./{ONE.id}/events", 404),
    "two dots to app 2": ("POST", f"/apps/{ONE.id}/../{TWO.id}/events", 404),
    "two dots in escapes": ("POST", f"/apps/{ONE.id}/%2e%2e/{TWO.id}/events", 404),
    "a slash in escapes": ("POST", f"/apps/{ONE.id}%2fevents", 404),
    "upper case": ("POST", f"/APPS/{ONE.id}/events", 404),
    "an escape in the call": ("POST", f"/apps/{ONE.id}/%65vents", 404),
    "NUL in escapes": ("POST", f"/apps/{ONE.id}%00/events", 404),
    "a parameter in the path": ("POST", f"/apps/{ONE.id};x=1/events", 404),
    "no id": ("POST", "/apps//events", 404),
    "another id": ("POST", "/apps/9/events", 404),
    "the id as a fraction": ("POST", f"/apps/{ONE.id}.0/events", 404),
    "the id in Arabic digits": ("POST", "/apps/%d9%a1%d9%a0%d9%a0%d9%a1/events", 404),
    "the id not UTF-8": ("POST", "/apps/%ff/events", 404),
    "the id as SQL": ("POST", "/apps/1%20OR%201=1/events", 404),
    "the id as a prototype": ("POST", "/apps/__proto__/events", 404),
    "no call": ("POST", f"/apps/{ONE.id}", 404),
    "an unknown call": ("POST", f"/apps/{ONE.id}/event", 404),
    "deeper": ("POST", f"{PATH}/x", 404),
    "GET for POST": ("GET", PATH, 405),
    "PUT for POST": ("PUT", PATH, 405),
    "DELETE for POST": ("DELETE", PATH, 405),
    "HEAD for POST": ("HEAD", PATH, 405),
    "POST for GET": ("POST", f"/apps/{ONE.id}/channels", 405),
    "channel with a slash in escapes": ("GET", f"/apps/{ONE.id}/channels/a%2fb", 400),
    "channel with NUL": ("GET", f"/apps/{ONE.id}/channels/a%00", 400),
    "channel with a newline": ("GET", f"/apps/{ONE.id}/channels/a%0a", 400),
    "channel empty": ("GET", f"/apps/{ONE.id}/channels/", 400),
    "channel not UTF-8": ("GET", f"/apps/{ONE.id}/channels/%ff", 400),
    "channel of 201": ("GET", f"/apps/{ONE.id}/channels/{'a' * 201}", 400),
    "users of a public channel": ("GET", f"/apps/{ONE.id}/channels/chat/users", 400),
    "users of a private channel": ("GET", f"/apps/{ONE.id}/channels/private-room/users", 400),
    "users of presencefoo": ("GET", f"/apps/{ONE.id}/channels/presencefoo/users", 400),
    "user empty": ("POST", f"/apps/{ONE.id}/users//terminate_connections", 400),
    "user of 1,000 characters": ("POST", f"/apps/{ONE.id}/users/{'u' * 1_000}/terminate_connections", 400),
}


@pytest.mark.parametrize("name", PATHS)
async def test_an_invalid_path_is_a_client_error(scene: Stage, name: str) -> None:
    method, path, status = PATHS[name]
    body = EVENT if method in ("POST", "PUT") else b""

    answer = await scene.api.call(ONE, method, path, body)

    assert answer[0] == status, answer
    await scene.nobody_was_harmed()


async def test_a_call_repeated_byte_for_byte_is_executed_again(scene: Stage) -> None:
    """Pusher's own clients repeat so after a time-out; whoever wants it once sends an Idempotency-Key."""
    body = EVENT
    target = f"{PATH}?{query(parameters())}"
    for _ in range(2):
        assert await scene.api.send("POST", target, body) == (200, {})
        assert (await scene.watching[ONE.id].receive())["event"] == "forged"
    await scene.nobody_was_harmed()
