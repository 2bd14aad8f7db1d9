"""An application's endpoint decides; when it cannot be asked, the client asks again."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from kit.ports import free_port
from kit.realtime import KEY, SECRET, realtime_server
from kit.subscribers import a_client, application
from smartlink.client import (
    Authorization,
    AuthorizationDenied,
    AuthorizationUnavailable,
    Endpoint,
    Own,
    SignInFailed,
    SubscriptionFailed,
)
from smartlink.protocol.signing import sign_channel, sign_user


def signed(body: str) -> tuple[int, bytes]:
    """What an application answers to a form."""
    form = {name: values[0] for name, values in parse_qs(body).items()}
    if "channel_name" not in form:
        user = json.dumps({"id": "7"})
        return 200, json.dumps({"auth": sign_user(KEY, SECRET, form["socket_id"], user), "user_data": user}).encode()
    return 200, json.dumps({"auth": sign_channel(KEY, SECRET, form["socket_id"], form["channel_name"])}).encode()


async def test_an_endpoint_is_asked_with_headers_and_parameters() -> None:
    async def headers() -> dict[str, str]:
        return {"Authorization": "Bearer t0ken"}

    async with realtime_server() as server, application() as app:
        app.answer = signed
        auth = Endpoint(app.url, app.url, headers=headers, params={"tenant": "acme"}, proxy=None)
        async with a_client(server.port, auth=auth) as client:
            await client.subscribe("private-chat")
            user = await client.sign_in()

        assert user.id == "7"
        asked = app.requests[0]
        assert asked.startswith("POST /broadcasting/auth HTTP/1.1")
        assert "authorization: bearer t0ken" in asked.lower()
        form = parse_qs(asked.rpartition("\r\n")[2])
        assert (form["channel_name"], form["tenant"]) == (["private-chat"], ["acme"])


async def test_an_endpoint_that_fails_is_asked_again_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smartlink.client.conversation.FIRST_S", 0.01)
    async with realtime_server() as server, application() as app:
        app.answer, app.answers = signed, [(503, b""), (500, b"oops"), (429, b"")]
        async with a_client(server.port, auth=Endpoint(app.url, proxy=None)) as client:
            await client.subscribe("private-chat")

        assert len(app.requests) == 4


@pytest.mark.parametrize(
    ("status", "content"), [(401, b""), (403, b"no"), (404, b""), (200, b"{}"), (200, b"<html>"), (302, b"")]
)
async def test_an_endpoint_that_says_no_or_nonsense_denies(status: int, content: bytes) -> None:
    async with realtime_server() as server, application() as app:
        app.answers = [(status, content)] * 2
        async with a_client(server.port, auth=Endpoint(app.url, app.url, proxy=None)) as client:
            with pytest.raises(SubscriptionFailed) as caught:
                await client.subscribe("private-chat")
            assert (caught.value.kind, caught.value.status) == ("Denied", None if status == 200 else status)
            with pytest.raises(SignInFailed):
                await client.sign_in()


async def test_an_endpoint_that_is_away_says_so() -> None:
    endpoint = Endpoint(f"http://127.0.0.1:{free_port()}/auth", proxy=None)

    with pytest.raises(AuthorizationUnavailable, match="cannot be asked"):
        await endpoint.channel("1.1", "private-chat")
    with pytest.raises(AuthorizationDenied, match="user_url"):
        await endpoint.user("1.1")


async def test_a_coroutine_of_ones_own_may_answer_with_a_record_or_a_mapping() -> None:
    async def record(socket_id: str, channel: str) -> Authorization:
        return Authorization(sign_channel(KEY, SECRET, socket_id, channel))

    async def mapping(socket_id: str, channel: str) -> dict[str, str]:
        return {"auth": sign_channel(KEY, SECRET, socket_id, channel)}

    async with realtime_server() as server:
        for auth in (record, mapping, Own(mapping)):
            async with a_client(server.port, auth=auth) as client:
                await client.subscribe("private-chat")


async def test_an_error_in_it_is_raised_to_the_caller() -> None:
    async def broken(socket_id: str, channel: str) -> Any:
        raise LookupError(channel)

    async with realtime_server() as server, a_client(server.port, auth=broken) as client:
        with pytest.raises(LookupError):
            await client.subscribe("private-chat")


async def test_a_sign_in_may_be_tried_again_after_a_refusal() -> None:
    async with realtime_server() as server, application() as app:
        app.answer, app.answers = signed, [(403, b"")]
        async with a_client(server.port, auth=Endpoint(app.url, app.url, proxy=None)) as client:
            with pytest.raises(SignInFailed):
                await client.sign_in()

            assert (await client.sign_in()).id == "7"


def test_secrets_are_not_shown() -> None:
    assert "shared" not in repr(Authorization("key:sig", None, "c2VjcmV0"))
