"""Ending a user's connections voids earlier signatures on every node, and affects no one else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.client import Client, connected
from kit.engines import Between
from kit.realtime import KEY, SECRET, an_app, call, realtime_server
from kit.waiting import eventually
from kit.xhr import XhrClient
from smartlink.protocol.signing import sign_channel, sign_user
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import Control
from smartlink.server.core.revocations import Revocations, Verdict
from smartlink.server.run.lifecycle import RealtimeServer

CHANNELS = ("private-orders", "private-encrypted-orders", "presence-room")


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[RealtimeServer, RealtimeServer, Between]]:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as one,
        realtime_server(engines=between.engines()) as two,
    ):
        yield one, two, between
        assert one.metrics.internal_errors == two.metrics.internal_errors == 0


def authorized(socket_id: str, channel: str, user_id: Any = "7") -> dict[str, str]:
    """What a client sends that was authorized as the user."""
    channel_data = json.dumps({"user_id": user_id})
    auth = sign_channel(KEY, SECRET, socket_id, channel, channel_data)
    return {"channel": channel, "auth": auth, "channel_data": channel_data}


async def end(
    server: RealtimeServer, user_id: str, verb: str = "terminate_connections", app: str = "/apps/1001"
) -> None:
    answer = await call(server.port, "POST", f"{app}/users/{user_id}/{verb}", b"{}")
    assert (answer.status_code, answer.json()) == (200, {})


async def refusal(client: Client) -> dict[str, Any]:
    data: dict[str, Any] | str = (await client.expect("pusher:subscription_error"))["data"]
    return json.loads(data) if isinstance(data, str) else data


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("user_id", ["7", 7])
async def test_signatures_made_before_a_termination_are_void(channel: str, user_id: Any) -> None:
    async with two_nodes() as (one, two, _), connected(one.port) as old, connected(one.port) as other:
        await end(two, "7")
        old.send("pusher:subscribe", authorized(old.socket_id, channel, user_id))

        told = await refusal(old)
        assert (told["type"], told["status"]) == ("AuthError", 401)
        # Others on that socket, others beside it, and the user on a new one are unaffected.
        old.send("pusher:subscribe", authorized(old.socket_id, channel, "8"))
        await old.expect("pusher_internal:subscription_succeeded")
        other.send("pusher:subscribe", authorized(other.socket_id, "presence-b", "8"))
        await other.expect("pusher_internal:subscription_succeeded")
        async with connected(one.port) as new:
            new.send("pusher:subscribe", authorized(new.socket_id, channel, user_id))
            await new.expect("pusher_internal:subscription_succeeded")


async def test_a_refused_signature_leaves_nothing_behind() -> None:
    async with two_nodes() as (one, two, _), connected(one.port) as old:
        await end(two, "7")
        for channel in CHANNELS:
            old.send("pusher:subscribe", authorized(old.socket_id, channel))
            await refusal(old)

        assert await one.node.presence.channels("1001") == {}
        assert one.node.hub.of_user("1001", "7") == []
        await end(two, "7")
        assert await old.is_quiet()


async def test_signing_in_with_an_earlier_signature_ends_the_connection() -> None:
    async with two_nodes() as (one, two, _), connected(one.port) as old:
        user_data = json.dumps({"id": "7"})
        await end(two, "7")
        auth = sign_user(KEY, SECRET, old.socket_id, user_data)
        old.send("pusher:signin", {"auth": auth, "user_data": user_data})

        assert (await old.closed()).code == 4009
        assert await one.node.presence.channels("1001", "#user-") == {}
        async with connected(one.port) as new:
            await new.sign_in("7")


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_subscription_in_progress_is_refused(channel: str) -> None:
    async with two_nodes() as (one, two, between), connected(one.port) as old:
        between.joining.shut()
        old.send("pusher:subscribe", authorized(old.socket_id, channel))
        await eventually(lambda: between.joining.waiting == 1)
        await end(two, "7")
        between.joining.open()

        assert (await refusal(old))["status"] == 401
        assert await old.is_quiet()
        assert await one.node.presence.channels("1001") == {}


async def test_a_sign_in_in_progress_is_ended() -> None:
    async with two_nodes() as (one, two, between), connected(one.port) as old:
        user_data = json.dumps({"id": "7"})
        between.joining.shut()
        auth = sign_user(KEY, SECRET, old.socket_id, user_data)
        old.send("pusher:signin", {"auth": auth, "user_data": user_data})
        await eventually(lambda: between.joining.waiting == 1)
        await end(two, "7")
        between.joining.open()

        assert (await old.closed()).code == 4009
        assert await one.node.presence.channels("1001") == {}


async def test_revocation_applies_to_http_sessions_too() -> None:
    async with two_nodes() as (one, two, _), XhrClient(one.port) as old:
        await end(two, "7")
        await old.send("pusher:subscribe", authorized(old.socket_id, "presence-room"))

        await old.expect("pusher:subscription_error")


async def test_the_user_of_another_application_is_unaffected() -> None:
    other = App(id="2", key="other-key", secret="other-secret")
    async with realtime_server(an_app(), other) as server, connected(server.port) as old:
        async with connected(server.port, key="other-key") as _:
            answer = await call(
                server.port,
                "POST",
                "/apps/2/users/7/terminate_connections",
                b"{}",
                key="other-key",
                secret="other-secret",
            )
            assert answer.status_code == 200
            old.send("pusher:subscribe", authorized(old.socket_id, "presence-room"))

            await old.expect("pusher_internal:subscription_succeeded")


@pytest.mark.parametrize("app", ["/apps/1001", ""])
async def test_force_reconnect_makes_a_users_clients_reconnect(app: str) -> None:
    async with two_nodes() as (one, two, _), connected(one.port) as signed_in, connected(two.port) as member:
        async with connected(one.port) as other, connected(one.port) as old:
            await signed_in.sign_in("7")
            await member.subscribe("presence-room", {"user_id": "7"})
            await other.subscribe("presence-room", {"user_id": "8"})
            await end(two, "7", "force_reconnect", app)

            assert (await signed_in.closed()).code == 4200
            assert (await member.closed()).code == 4200
            await other.expect("pusher_internal:member_removed")
            assert await other.is_quiet()
            old.send("pusher:subscribe", authorized(old.socket_id, "private-orders"))
            assert (await refusal(old))["status"] == 401
            assert (await old.closed()).code == 4200
        async with connected(one.port) as new:
            await new.sign_in("7")


async def test_force_reconnect_needs_a_signed_post(server: RealtimeServer) -> None:
    path = "/apps/1001/users/7/force_reconnect"
    assert (await call(server.port, "GET", path)).status_code == 405
    assert (await call(server.port, "POST", path, b"{}", secret="guess")).status_code == 401
    assert (await call(server.port, "POST", "/apps/1001/users//force_reconnect", b"{}")).status_code == 400
    assert (await call(server.port, "POST", "/apps/1001/users/7/force", b"{}")).status_code == 404


async def test_after_missed_controls_all_users_connections_must_reauthorize(
    server: RealtimeServer,
) -> None:
    async with connected(server.port) as user, connected(server.port) as nobody, connected(server.port) as old:
        await user.subscribe("private-orders")
        await user.sign_in("7")
        await nobody.subscribe("chat")
        server.node.deliver(Control("", "missed", ""))

        assert (await user.closed()).code == 4200
        assert await nobody.is_quiet()
        old.send("pusher:subscribe", authorized(old.socket_id, "presence-room"))
        await old.expect("pusher:subscription_error")
        assert (await old.closed()).code == 4200


def test_a_revocation_is_forgotten_with_the_last_older_connection() -> None:
    revocations = Revocations()
    first = revocations.now
    revocations.revoke("1", "7", Verdict.VOID, first)
    second = revocations.now
    assert revocations.verdict("1", "7", first) is Verdict.VOID
    assert revocations.verdict("1", "7", second) is Verdict.VALID
    assert revocations.verdict("2", "7", first) is Verdict.VALID

    revocations.revoke("1", "8", Verdict.VOID, second)
    assert list(revocations._apps["1"].subjects) == ["8"]
    revocations.revoke("1", "9", Verdict.VOID, None)
    assert revocations._apps == {}


def test_beyond_the_limit_of_revocations_older_connections_are_stale() -> None:
    revocations = Revocations(max_subjects=2)
    old = revocations.now
    for user_id in ("1", "2", "3"):
        revocations.revoke("1", user_id, Verdict.VOID, old)
    new = revocations.now

    assert revocations.verdict("1", "1", old) is Verdict.STALE
    assert revocations.verdict("1", "of nobody", old) is Verdict.STALE
    assert revocations.verdict("1", "2", old) is Verdict.VOID
    assert revocations.verdict("1", "of nobody", new) is Verdict.VALID
    assert len(revocations._apps["1"].subjects) == 2
