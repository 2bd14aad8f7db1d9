"""Two applications on one server with the same channel names and users are isolated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from kit.two_tenants import ONE, TWO, Stage, stage
from smartlink.protocol.signing import sign_user


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as it:
        yield it


async def test_events_reach_their_own_tenant_only(scene: Stage) -> None:
    for app, other in ((ONE, TWO), (TWO, ONE)):
        await scene.api.publish(app, "chat", "mine")

        assert (await scene.watching[app.id].receive())["event"] == "mine"
        assert await scene.watching[other.id].is_quiet()


async def test_client_events_reach_their_own_tenant_only(scene: Stage) -> None:
    async with scene.client(ONE, "private-room") as client:
        client.send("client-x", {}, channel="private-room")

        assert (await scene.watching[ONE.id].receive())["event"] == "client-x"
        assert await scene.watching[TWO.id].is_quiet()


async def test_a_socket_id_of_another_tenant_excludes_nobody(scene: Stage) -> None:
    other = scene.watching[TWO.id]
    await scene.api.publish(ONE, "chat", "mine", socket_id=other.socket_id)

    assert (await scene.watching[ONE.id].receive())["event"] == "mine"
    assert await other.is_quiet()


async def test_members_and_counts_are_per_tenant(scene: Stage) -> None:
    async with scene.client(ONE) as client:
        await scene.join(client, ONE, "presence-room", "7")
        await scene.watching[ONE.id].expect("pusher_internal:member_added")
        await scene.join(client, ONE, "presence-only", "7")

        for app, users, connections in ((ONE, ["bystander", "7"], 2), (TWO, ["bystander"], 1)):
            path = f"/apps/{app.id}"
            _, answer = await scene.api.call(app, "GET", f"{path}/channels/presence-room/users")
            assert sorted(user["id"] for user in answer["users"]) == sorted(users)
            info = {"info": "user_count,subscription_count"}
            _, answer = await scene.api.call(app, "GET", f"{path}/channels/presence-room", params=info)
            assert answer == {"occupied": True, "user_count": len(users), "subscription_count": len(users)}
            _, answer = await scene.api.call(app, "GET", f"{path}/connections")
            assert answer == {"connections": connections}
            _, answer = await scene.api.call(app, "GET", f"{path}/channels")
            assert ("presence-only" in answer["channels"]) is (app is ONE)
        assert await scene.watching[TWO.id].is_quiet()


async def test_users_are_terminated_in_their_own_tenant_only(scene: Stage) -> None:
    status, _ = await scene.api.call(ONE, "POST", f"/apps/{ONE.id}/users/bystander/terminate_connections", b"{}")

    assert status == 200
    assert (await scene.watching[ONE.id].closed()).code == 4009
    assert await scene.watching[TWO.id].is_quiet()


async def test_signed_in_users_are_reached_in_their_own_tenant_only(scene: Stage) -> None:
    async with scene.client(ONE) as one, scene.client(TWO) as two:
        for client, app in ((one, ONE), (two, TWO)):
            await scene.sign_in(client, app, "1")
            client.send("pusher:subscribe", {"channel": "#server-to-user-1"})
            await client.expect("pusher_internal:subscription_succeeded")
        await scene.api.publish(ONE, "#server-to-user-1", "mine")
        await scene.api.call(ONE, "POST", f"/apps/{ONE.id}/users/1/terminate_connections", b"{}")

        assert (await one.receive())["event"] == "mine"
        assert (await one.closed()).code == 4009
        assert await two.is_quiet()


async def test_watchlists_cover_their_own_tenants_users_only(scene: Stage) -> None:
    async with scene.client(ONE) as one, scene.client(TWO) as two:
        user_data = json.dumps({"id": "1", "watchlist": ["2"]})
        one.send(
            "pusher:signin", {"auth": sign_user(ONE.key, ONE.secret, one.socket_id, user_data), "user_data": user_data}
        )
        await one.expect("pusher:signin_success")
        one.send("pusher:ping", {})
        while (await one.receive())["event"] != "pusher:pong":
            pass
        await scene.sign_in(two, TWO, "2")

        assert await one.is_quiet()


@pytest.mark.parametrize(
    "path", ["events", "batch_events", "channels", "channels/chat", "connections", "users/1/terminate_connections"]
)
async def test_one_tenants_signature_is_invalid_for_another(scene: Stage, path: str) -> None:
    method = "POST" if path.endswith(("events", "terminate_connections")) else "GET"
    body = b'{"name":"e","channel":"chat","data":""}' if method == "POST" else b""

    status, answer = await scene.api.call(ONE, method, f"/apps/{TWO.id}/{path}", body)

    assert status == 401, answer
    assert await scene.watching[TWO.id].is_quiet()


async def test_cached_events_are_per_tenant(scene: Stage) -> None:
    await scene.api.publish(ONE, "cache-a", "mine")
    async with scene.client(TWO, "cache-a") as two, scene.client(ONE, "cache-a") as one:
        assert (await one.receive())["event"] == "mine"
        assert (await two.receive())["event"] == "pusher:cache_miss"


async def test_idempotency_keys_are_per_tenant(scene: Stage) -> None:
    for app in (ONE, TWO):
        assert (await scene.api.publish(app, "chat", "mine", id="same"))[0] == 200
        assert (await scene.watching[app.id].receive())["event"] == "mine"


async def test_limits_are_counted_per_tenant(scene: Stage) -> None:
    assert scene.server.node.connections(ONE) == scene.server.node.connections(TWO) == 1
    async with scene.client(ONE), scene.client(ONE):
        assert (scene.server.node.connections(ONE), scene.server.node.connections(TWO)) == (3, 1)
