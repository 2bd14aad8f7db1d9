"""Subscriptions end when their authorization expires or is taken back; signatures made before are void."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from kit.client import Client, connected
from kit.cluster import cluster
from kit.realtime import APP_ID, KEY, SECRET, call, realtime_server
from smartlink.protocol.signing import sign_channel
from smartlink.server.core.grants import MIN_TIDIED

TOKEN = "a-session-token-of-the-tests"


async def revoke(port: int, body: dict[str, Any], channel: str = "private-room") -> int:
    answer = await call(port, "POST", f"/apps/{APP_ID}/channels/{channel}/revoke", json.dumps(body).encode())
    return answer.status_code


async def publish(port: int, number: int, channel: str) -> None:
    body = json.dumps({"name": "news", "channel": channel, "data": str(number)}).encode()
    assert (await call(port, "POST", f"/apps/{APP_ID}/events", body)).status_code == 200


def subscribe(client: Client, channel: str, data: dict[str, Any] | None = None, signed_for: str | None = None) -> None:
    """Ask for a channel, signed for this socket or a former one."""
    text = None if data is None else json.dumps(data)
    auth = sign_channel(KEY, SECRET, signed_for or client.socket_id, channel, text)
    client.send("pusher:subscribe", {"channel": channel, "auth": auth} | ({"channel_data": text} if text else {}))


async def joined(client: Client, channel: str, data: dict[str, Any] | None = None) -> None:
    subscribe(client, channel, data)
    answer = await client.expect("pusher_internal:subscription_succeeded")
    assert answer["channel"] == channel


async def refusal(client: Client) -> tuple[str, int, str]:
    answer = await client.expect("pusher:subscription_error")
    return answer["data"]["type"], answer["data"]["status"], answer["data"]["error"]


@pytest.mark.parametrize("channel", ["private-room", "presence-room"])
async def test_a_subscription_ends_when_its_authorization_expires(channel: str) -> None:
    async with realtime_server() as server, connected(server.port) as client, connected(server.port) as other:
        await joined(other, channel, {"user_id": "8"})
        await joined(client, channel, {"user_id": "7", "expires_at": time.time() + 0.5})
        if channel == "presence-room":
            await other.expect("pusher_internal:member_added")

        assert (await refusal(client))[:2] == ("Expired", 401)
        await publish(server.port, 0, channel)
        assert await client.is_quiet()
        if channel == "presence-room":
            await other.expect("pusher_internal:member_removed")
        await other.expect("news")


async def test_an_authorization_that_has_expired_subscribes_nobody() -> None:
    async with realtime_server() as server, connected(server.port) as client:
        subscribe(client, "private-room", {"expires_at": time.time() - 1})
        assert (await refusal(client))[:2] == ("Expired", 401)
        assert await client.is_quiet()


@pytest.mark.parametrize("expires_at", ["soon", True, -1, [1], {"at": 1}, 1e300])
async def test_an_expiry_that_is_no_time_is_refused(expires_at: Any) -> None:
    async with realtime_server() as server, connected(server.port) as client:
        subscribe(client, "private-room", {"expires_at": expires_at})
        kind, status, message = await refusal(client)
        assert (kind, status) == ("AuthError", 401)
        assert "expires_at" in message


async def test_leaving_before_the_expiry_or_without_one_is_no_error() -> None:
    async with realtime_server() as server, connected(server.port) as client:
        await joined(client, "private-room", {"expires_at": time.time() + 0.3})
        client.send("pusher:unsubscribe", {"channel": "private-room"})
        await joined(client, "private-room", {"expires_at": None})
        await joined(client, "private-other", {"expires_at": time.time() + 0.5})
        assert (await refusal(client))[0] == "Expired"
        await publish(server.port, 1, "private-room")
        await client.expect("news")


@pytest.mark.parametrize(
    "whom",
    [{"user_id": "7"}, {"user_id": 7}, {"socket_id": "its own"}, {"all": True}],
    ids=lambda whom: next(iter(whom)),
)
async def test_whoever_is_revoked_leaves_on_all_nodes_and_is_told_why(whom: dict[str, Any]) -> None:
    async with cluster(2) as nodes:
        one, two = nodes.nodes
        async with connected(one.port) as client, connected(two.port) as other:
            await joined(client, "private-room", {"user_id": "7"})
            await joined(client, "private-other", {"user_id": "7"})
            await joined(other, "private-room", {"user_id": "8"})
            if "socket_id" in whom:
                whom = {"socket_id": client.socket_id}

            assert await revoke(two.port, whom | {"reason": "Lost the campaign"}) == 200

            assert await refusal(client) == ("Revoked", 403, "Lost the campaign")
            await publish(two.port, 0, "private-room")
            await publish(two.port, 1, "private-other")
            assert (await client.expect("news"))["channel"] == "private-other"
            if "all" in whom:
                assert (await refusal(other))[0] == "Revoked"
            else:
                await other.expect("news")
            # The signature made before is void on this socket.
            subscribe(client, "private-room", {"user_id": "7"})
            assert (await refusal(client))[:2] == ("AuthError", 401)
        async with connected(one.port) as client:
            await joined(client, "private-room", {"user_id": "7"})


async def test_a_user_loses_all_channels_and_keeps_the_connection() -> None:
    async with realtime_server() as server, connected(server.port) as client, connected(server.port) as other:
        await joined(client, "private-room", {"user_id": "7"})
        await joined(client, "presence-room", {"user_id": "7"})
        await joined(client, "private-of-nobody")
        await client.subscribe("open")
        await joined(other, "private-room", {"user_id": "8"})

        answer = await call(server.port, "POST", f"/apps/{APP_ID}/users/7/revoke")

        assert answer.status_code == 200
        assert {(await refusal(client))[2] for _ in range(2)} == {"Access revoked"}
        for number, channel in enumerate(("private-room", "presence-room", "private-of-nobody", "open")):
            await publish(server.port, number, channel)
        assert [(await client.expect("news"))["channel"] for _ in range(2)] == ["private-of-nobody", "open"]
        await other.expect("news")


async def test_who_signed_in_is_that_user_on_channels_whose_signature_names_nobody() -> None:
    async with realtime_server() as server, connected(server.port) as client:
        await client.sign_in("7")
        await joined(client, "private-room")
        assert await revoke(server.port, {"user_id": "7"}) == 200
        assert (await refusal(client))[0] == "Revoked"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"all":false}', b'{"all":true,"user_id":"7"}', b'{"user_id":""}', b'{"user_id":["7"]}',
     b'{"user_id":null}', b'{"socket_id":null}',
     b'{"socket_id":"x"}', b'{"socket_id":7}', b'{"all":true,"reason":7}', b'{"all":true,"reason":""}',
     b'{"all":true,"reason":"' + b"x" * 201 + b'"}'],
)  # fmt: skip
async def test_a_body_that_names_not_just_one_is_400_and_revokes_nothing(body: bytes) -> None:
    async with realtime_server() as server, connected(server.port) as client:
        await joined(client, "private-room", {"user_id": "7"})
        answer = await call(server.port, "POST", f"/apps/{APP_ID}/channels/private-room/revoke", body)
        assert answer.status_code == 400
        assert await client.is_quiet()


async def test_a_public_channel_cannot_be_revoked() -> None:
    async with realtime_server() as server:
        assert await revoke(server.port, {"all": True}, "open") == 400


@pytest.mark.parametrize("how", ["channel", "user", "terminate"])
async def test_a_session_that_was_away_forgets_a_channel_that_was_revoked(how: str) -> None:
    async with realtime_server() as server:
        for channel in ("private-room", "private-other"):
            async with connected(server.port, session=TOKEN) as client:
                former = client.socket_id
                await joined(client, channel, {"user_id": "7"})
        if how == "channel":
            assert await revoke(server.port, {"user_id": "7"}) == 200
        else:
            verb = "revoke" if how == "user" else "terminate_connections"
            assert (await call(server.port, "POST", f"/apps/{APP_ID}/users/7/{verb}")).status_code == 200
        await publish(server.port, 0, "private-room")
        async with connected(server.port, session=TOKEN) as client:
            subscribe(client, "private-room", {"user_id": "7"}, signed_for=former)
            assert (await refusal(client))[:2] == ("AuthError", 401)
            await joined(client, "private-room", {"user_id": "7"})
            assert await client.is_quiet(), "nothing of the time without the right is replayed"
            subscribe(client, "private-other", {"user_id": "7"}, signed_for=former)
            if how == "channel":
                await client.expect("pusher_internal:subscription_succeeded")
            else:
                assert (await refusal(client))[:2] == ("AuthError", 401)


@pytest.mark.parametrize("how", ["channel", "user", "terminate", "socket"])
async def test_a_ticket_is_void_after_revocation_when_only_the_former_socket_was_signed_in(how: str) -> None:
    async with realtime_server() as server:
        async with connected(server.port, session=TOKEN) as client:
            former = client.socket_id
            await client.sign_in("7")
            await joined(client, "private-room")
        if how in ("channel", "socket"):
            assert await revoke(server.port, {"user_id": "7"} if how == "channel" else {"socket_id": former}) == 200
        else:
            verb = "revoke" if how == "user" else "terminate_connections"
            assert (await call(server.port, "POST", f"/apps/{APP_ID}/users/7/{verb}")).status_code == 200
        await publish(server.port, 0, "private-room")
        async with connected(server.port, session=TOKEN) as client:
            subscribe(client, "private-room", signed_for=former)
            assert (await refusal(client))[:2] == ("AuthError", 401)
            await joined(client, "private-room")
            assert json.loads((await client.expect("pusher:resume_failed"))["data"]) == {"reason": "gap"}
            assert await client.is_quiet(), "nothing of the time without the right is replayed"


async def test_another_user_of_the_same_page_gets_nothing_of_the_one_before() -> None:
    async with realtime_server() as server:
        async with connected(server.port, session=TOKEN) as client:
            former = client.socket_id
            await client.sign_in("7")
            await joined(client, "private-room")
        await publish(server.port, 0, "private-room")
        async with connected(server.port, session=TOKEN) as client:
            await client.sign_in("8")
            subscribe(client, "private-room", signed_for=former)
            assert (await refusal(client))[:2] == ("AuthError", 401)
            await joined(client, "private-room")
            await client.expect("pusher:resume_failed")
            assert await client.is_quiet()


async def test_a_ticket_holds_before_the_user_has_signed_in_again() -> None:
    async with realtime_server() as server:
        async with connected(server.port, session=TOKEN) as client:
            former = client.socket_id
            await client.sign_in("7")
            await joined(client, "private-room")
        for _ in range(2):
            async with connected(server.port, session=TOKEN) as client:
                subscribe(client, "private-room", signed_for=former)
                await client.expect("pusher_internal:subscription_succeeded")
                await client.expect("pusher:resume_success")


async def test_expiries_of_subscriptions_that_ended_are_not_kept() -> None:
    async with realtime_server() as server, connected(server.port) as client:
        data = {"expires_at": time.time() + 86_400}
        for _ in range(MIN_TIDIED + 10):
            await joined(client, "private-room", data)
            client.send("pusher:unsubscribe", {"channel": "private-room"})
        assert len(server.node._grants._due) < 20


async def test_the_expiry_of_an_earlier_subscription_in_the_same_turn_does_not_count() -> None:
    async with realtime_server() as server, connected(server.port) as client:
        await joined(client, "presence-room", {"user_id": "7", "expires_at": time.time() + 0.5})
        client.send("pusher:unsubscribe", {"channel": "presence-room"})
        subscribe(client, "presence-room", {"user_id": "7"})
        await client.expect("pusher_internal:subscription_succeeded")
        await joined(client, "private-other", {"expires_at": time.time() + 1})
        assert (await client.expect("pusher:subscription_error"))["channel"] == "private-other"
