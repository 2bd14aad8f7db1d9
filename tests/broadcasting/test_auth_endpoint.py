"""The authorization endpoint that Echo calls: it signs what rules allow, and never a malformed request."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, MutableMapping
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from kit.asgi import connect_websocket
from smartlink.broadcasting import (
    BroadcastConfigError,
    BroadcastingAuth,
    ChannelAuthorizer,
    ChannelEncryption,
    ChannelRules,
    Member,
    RequestRefused,
)
from smartlink.broadcasting.authorizer import AuthRequest

KEY, SECRET = "the-key", "the-secret"
SOCKET = "123.456"


async def authenticate(scope: MutableMapping[str, Any]) -> int | None:
    token = dict(scope["headers"]).get(b"authorization", b"").decode()
    if token == "expired":
        raise RequestRefused(419, "CSRF token mismatch.")
    return int(token) if token else None


def build(*, name_user_on_private: bool = True, encryption: ChannelEncryption | None = None) -> BroadcastingAuth[int]:
    rules = ChannelRules()

    @rules.private("user.{user_id}")
    def own(user: int, user_id: int) -> bool:
        return user == user_id

    @rules.presence("chat")
    def everybody(user: int) -> bool:
        return True

    @rules.presence("game")
    def players(user: int) -> dict[str, object]:
        return {"score": 3}

    authorizer = ChannelAuthorizer(
        rules,
        key=KEY,
        secret=SECRET,
        member_of=lambda user: Member(user, {"id": user, "name": "Ána"}),
        name_user_on_private=name_user_on_private,
        encryption=encryption,
    )
    return BroadcastingAuth(authorizer, authenticate)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(build())
    async with httpx2.AsyncClient(transport=transport, base_url="http://app", headers={"authorization": "7"}) as client:
        yield client


def signed(text: str) -> str:
    return f"{KEY}:{hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"


async def test_a_private_authorization_is_signed_and_names_the_user(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/broadcasting/auth", data={"socket_id": SOCKET, "channel_name": "private-user.7"})

    data = '{"user_id":"7"}'
    assert answer.status_code == 200
    assert answer.json() == {"auth": signed(f"{SOCKET}:private-user.7:{data}"), "channel_data": data}
    assert answer.headers["cache-control"] == "no-store"


async def test_naming_the_user_on_private_channels_is_optional() -> None:
    transport = httpx2.ASGITransport(build(name_user_on_private=False))
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        answer = await client.post(
            "/broadcasting/auth",
            json={"socket_id": SOCKET, "channel_name": "private-user.7"},
            headers={"authorization": "7"},
        )

    assert answer.json() == {"auth": signed(f"{SOCKET}:private-user.7")}


async def test_a_presence_authorization_carries_the_member(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/broadcasting/auth", json={"socket_id": SOCKET, "channel_name": "presence-chat"})

    data = '{"user_id":"7","user_info":{"id":7,"name":"Ána"}}'
    assert answer.json() == {"auth": signed(f"{SOCKET}:presence-chat:{data}"), "channel_data": data}


async def test_a_rule_may_choose_the_member_info(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/broadcasting/auth", json={"socket_id": SOCKET, "channel_name": "presence-game"})

    assert json.loads(answer.json()["channel_data"]) == {"user_id": "7", "user_info": {"score": 3}}


async def test_a_user_is_signed_in(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/broadcasting/user-auth", data={"socket_id": SOCKET})

    data = '{"id":"7","user_info":{"id":7,"name":"Ána"}}'
    assert answer.json() == {"auth": signed(f"{SOCKET}::user::{data}"), "user_data": data}


@pytest.mark.parametrize("endpoint", ["auth", "user-auth"])
async def test_nothing_is_signed_without_a_socket_id(client: httpx2.AsyncClient, endpoint: str) -> None:
    answer = await client.post(f"/broadcasting/{endpoint}", data={"channel_name": "private-user.7"})

    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize("channel", ["private-user.8", "private-user.07", "presence-user.7", "chat", "private-x"])
async def test_a_channel_that_no_rule_allows_is_forbidden(client: httpx2.AsyncClient, channel: str) -> None:
    answer = await client.post("/broadcasting/auth", data={"socket_id": SOCKET, "channel_name": channel})

    assert answer.status_code == 403
    assert list(answer.json()) == ["message"]


@pytest.mark.parametrize("endpoint", ["auth", "user-auth"])
async def test_an_unauthenticated_user_gets_401(client: httpx2.AsyncClient, endpoint: str) -> None:
    answer = await client.post(f"/broadcasting/{endpoint}", data={"socket_id": SOCKET}, headers={"authorization": ""})

    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthenticated."})


async def test_the_application_may_choose_status_and_message_of_a_refusal(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/broadcasting/auth", headers={"authorization": "expired"})

    assert (answer.status_code, answer.json()) == (419, {"message": "CSRF token mismatch."})


async def test_only_get_and_post_to_the_two_endpoints_are_accepted(client: httpx2.AsyncClient) -> None:
    assert (await client.put("/broadcasting/auth")).status_code == 405
    assert (await client.put("/broadcasting/auth")).headers["allow"] == "GET, POST"
    assert (await client.post("/broadcasting/other")).status_code == 404
    assert (await client.post("/broadcasting")).status_code == 404


async def submit(
    client: httpx2.AsyncClient, endpoint: str, fields: dict[str, str], *, as_json: bool
) -> httpx2.Response:
    if as_json:
        return await client.post(f"/broadcasting/{endpoint}", json=fields)
    return await client.post(f"/broadcasting/{endpoint}", data=fields)


BAD_SOCKETS: list[object] = [
    "1.1:private-x",
    "POST\n/apps/1/events\nauth_key=x",
    "1.1\n",
    "\n1.1",
    "١.١",
    "１.１",
    "1.1 ",
    "1",
    "1.",
    ".1",
    "1.1.1",
    "-1.1",
    "1.1\x00",
    "",
    "9" * 40_000 + ".1",
    "__proto__",
    "{0.__class__}",
]
BAD_CHANNELS: list[object] = [
    "private-user.7\n",
    "private-user.7\nx",
    "private-user.7:x",
    "private-user.7\x00",
    "private-user.７",
    "private-" + "x" * 193,
    "private-user 7",
    "",
    "#server-to-user-7",
]
NOT_TEXT: list[object] = [None, 1, 1.1, True, [SOCKET], {"a": SOCKET}, []]


@pytest.mark.parametrize("endpoint", ["auth", "user-auth"])
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("socket_id", BAD_SOCKETS)
async def test_a_malformed_socket_id_is_never_signed(
    client: httpx2.AsyncClient, endpoint: str, as_json: bool, socket_id: str
) -> None:
    fields = {"socket_id": socket_id, "channel_name": "private-user.7"}
    answer = await submit(client, endpoint, fields, as_json=as_json)

    assert answer.status_code == 422
    assert "auth" not in answer.json()


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("channel", BAD_CHANNELS)
async def test_a_malformed_channel_is_never_signed(client: httpx2.AsyncClient, as_json: bool, channel: str) -> None:
    fields = {"socket_id": SOCKET, "channel_name": channel}
    answer = await submit(client, "auth", fields, as_json=as_json)

    assert answer.status_code == 403
    assert "auth" not in answer.json()


@pytest.mark.parametrize("value", NOT_TEXT)
async def test_a_channel_that_is_not_a_string_is_never_signed(client: httpx2.AsyncClient, value: object) -> None:
    bad_socket = await client.post("/broadcasting/auth", json={"socket_id": value, "channel_name": "private-user.7"})
    bad_channel = await client.post("/broadcasting/auth", json={"socket_id": SOCKET, "channel_name": value})

    assert (bad_socket.status_code, bad_channel.status_code) == (422, 403)
    assert "auth" not in bad_socket.json()
    assert "auth" not in bad_channel.json()


@pytest.mark.parametrize(
    "body",
    [
        [("socket_id[]", SOCKET), ("channel_name", "private-user.7")],
        [("socket_id[0]", SOCKET), ("channel_name", "private-user.7")],
        [("socket_id", SOCKET), ("socket_id", "1.1"), ("channel_name", "private-user.7")],
        [("socket_id", SOCKET), ("channel_name[]", "private-user.7"), ("channel_name", "private-user.7")],
        [("socket_id", SOCKET), ("channel_name", "private-user.7"), ("channel_name", "presence-chat")],
        [("socket_id", SOCKET)],
    ],
)
async def test_a_form_with_a_repeated_or_list_field_is_never_signed(
    client: httpx2.AsyncClient, body: list[tuple[str, str]]
) -> None:
    answer = await client.post(
        "/broadcasting/auth",
        content=urlencode(body).encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )

    assert answer.status_code in (403, 422)
    assert "auth" not in answer.json()


@pytest.mark.parametrize("channel", ["private-user.7", "presence-chat"])
@pytest.mark.parametrize("endpoint", ["auth", "user-auth"])
async def test_a_body_of_a_megabyte_is_too_large(client: httpx2.AsyncClient, endpoint: str, channel: str) -> None:
    answer = await client.post(
        f"/broadcasting/{endpoint}", json={"socket_id": "1" * 1_000_000 + ".1", "channel_name": channel}
    )

    assert answer.status_code == 413
    assert "auth" not in answer.json()


async def test_a_body_without_content_length_is_limited_too(client: httpx2.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    answer = await client.post("/broadcasting/auth", content=endless())

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"[1]", 400),
        ("application/json", b"null", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 60_000, 400),
        ("application/json", b'{"socket_id":"\\ud800"}', 400),
        ("application/x-www-form-urlencoded", b"socket_id=%ff", 400),
        ("application/x-www-form-urlencoded", "socket_id=١".encode(), 400),
        ("application/x-www-form-urlencoded", b"a=1&" * 200, 400),
        ("application/x-www-form-urlencoded", b"", 403),
        ("", b"", 403),
        ("multipart/form-data", b"--x--", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nhello\r\n--x--", 400),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n', 400),
        ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data\r\n\r\n1\r\n--x--", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n' * 201 + b"--x--",
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x--", 403),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="channel_name"; filename="a"\r\n\r\n1\r\n--x--',
            403,
        ),
        ("text/plain", b"hello", 415),
        ("application/json; charset=utf-8", b"{}", 403),
    ],
)
async def test_an_unreadable_body_is_a_client_error(
    client: httpx2.AsyncClient, content_type: str, body: bytes, status: int
) -> None:
    answer = await client.post("/broadcasting/auth", content=body, headers={"content-type": content_type})

    assert answer.status_code == status
    assert "auth" not in answer.json()


async def test_it_works_below_any_mount_path() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/app/broadcasting", build())])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client:
        answer = await client.post(
            "/app/broadcasting/auth",
            data={"socket_id": SOCKET, "channel_name": "private-user.7"},
            headers={"authorization": "7"},
        )

    assert answer.status_code == 200


async def test_get_is_answered_like_post(client: httpx2.AsyncClient) -> None:
    fields = {"socket_id": SOCKET, "channel_name": "private-user.7"}
    asked = await client.get("/broadcasting/auth", params=fields)
    posted = await client.post("/broadcasting/auth", data=fields)

    assert asked.status_code == 200
    assert asked.json() == posted.json()
    assert (await client.get("/broadcasting/auth", params=fields | {"socket_id": "1.1\n"})).status_code == 422


async def test_many_channels_are_authorized_in_one_call(client: httpx2.AsyncClient) -> None:
    names = ["private-user.7", "presence-chat", "private-user.8", "chat", "private-x\n"]
    as_json = await client.post("/broadcasting/auth", json={"socket_id": SOCKET, "channels": names})
    as_form = await client.post("/broadcasting/auth", data={"socket_id": SOCKET, "channel_name[]": names})

    assert as_json.status_code == 200
    assert as_json.json() == as_form.json()
    channels = as_json.json()["channels"]
    assert {name: answer["status"] for name, answer in channels.items()} == dict(
        zip(names, [200, 200, 403, 403, 403], strict=True)
    )
    for name in ("private-user.7", "presence-chat"):
        one = await client.post("/broadcasting/auth", json={"socket_id": SOCKET, "channel_name": name})
        assert channels[name]["data"] == one.json()
    assert "auth" not in channels["private-user.8"]["data"]


@pytest.mark.parametrize(
    "channels", [[], "private-user.7", {"a": 1}, [1], ["private-user.7", None], ["private-user.7"] * 101]
)
async def test_an_invalid_list_of_names_is_refused_as_a_whole(client: httpx2.AsyncClient, channels: object) -> None:
    answer = await client.post("/broadcasting/auth", json={"socket_id": SOCKET, "channels": channels})

    assert answer.status_code == 422


async def test_many_channels_for_a_malformed_socket_are_never_signed(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/broadcasting/auth", json={"socket_id": "1.1:x", "channels": ["private-user.7"]})

    assert answer.status_code == 422
    assert "channels" not in answer.json()


async def test_an_encrypted_channel_is_authorized_with_its_secret() -> None:
    encryption = ChannelEncryption("a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    transport = httpx2.ASGITransport(build(encryption=encryption))
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        answer = await client.post(
            "/broadcasting/auth",
            json={"socket_id": SOCKET, "channel_name": "private-encrypted-user.7"},
            headers={"authorization": "7"},
        )

    data = '{"user_id":"7"}'
    assert answer.json() == {
        "auth": signed(f"{SOCKET}:private-encrypted-user.7:{data}"),
        "channel_data": data,
        "shared_secret": encryption.shared_secret("private-encrypted-user.7"),
    }


async def test_without_a_master_key_encrypted_channels_are_denied(client: httpx2.AsyncClient) -> None:
    fields = {"socket_id": SOCKET, "channel_name": "private-encrypted-user.7"}

    assert (await client.post("/broadcasting/auth", json=fields)).status_code == 403


class TestGuards:
    """Two ways to be known; an admin's rule is for the admins' guard alone."""

    @pytest.fixture
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        rules = ChannelRules()

        @rules.private("orders.{order_id}", guards=["admin"])
        def any_order(user: int, order_id: int) -> bool:
            return True

        @rules.private("orders.{order_id}")
        def own_order(user: int, order_id: int) -> bool:
            return user == order_id

        async def admin(scope: MutableMapping[str, Any]) -> int | None:
            return int(dict(scope["headers"]).get(b"x-admin", b"0")) or None

        authorizer = ChannelAuthorizer(rules, key=KEY, secret=SECRET, member_of=lambda user: Member(user))
        app = BroadcastingAuth(authorizer, {"web": authenticate, "admin": admin})
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client:
            yield client

    @pytest.mark.parametrize(
        ("headers", "order", "status", "user"),
        [
            ({"authorization": "7"}, 7, 200, "7"),
            ({"authorization": "7"}, 8, 403, None),
            ({"authorization": "7", "x-admin": "1"}, 8, 200, "1"),
            ({"x-admin": "1"}, 8, 200, "1"),
            ({}, 8, 401, None),
        ],
    )
    async def test_a_rule_sees_the_user_of_its_guard(
        self, client: httpx2.AsyncClient, headers: dict[str, str], order: int, status: int, user: str | None
    ) -> None:
        fields = {"socket_id": SOCKET, "channel_name": f"private-orders.{order}"}
        answer = await client.post("/broadcasting/auth", json=fields, headers=headers)

        assert answer.status_code == status
        if user is not None:
            assert json.loads(answer.json()["channel_data"]) == {"user_id": user}


@pytest.mark.parametrize("query", ["channel_name[]=\udcff&socket_id=1.2", "socket_id=1.2&channel_name=private-\xfc"])
def test_a_query_with_raw_bytes_is_a_client_error(query: str) -> None:
    authorizer = ChannelAuthorizer(ChannelRules(), key=KEY, secret=SECRET, member_of=lambda user: Member(user))
    question = AuthRequest("GET", "/broadcasting/auth", lambda: b"", query=query)

    assert authorizer.answer_sync(question, {"default": lambda: 7}).status == 400


async def test_a_websocket_is_refused() -> None:
    assert await connect_websocket(build()) == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(("key", "secret"), [("", SECRET), (KEY, "")])
def test_an_authorizer_without_a_secret_is_refused(key: str, secret: str) -> None:
    with pytest.raises(BroadcastConfigError, match="is empty"):
        ChannelAuthorizer(ChannelRules(), key=key, secret=secret, member_of=lambda user: Member(user))
