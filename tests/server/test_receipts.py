"""Receipts: an application learns by webhook which users have an event for certain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.client import Client, connected
from kit.realtime import APP_ID, KEY, SECRET, an_app, call, realtime_server
from kit.receiver import Receiver, receiver
from kit.waiting import eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.apps.base import App, WebhookTarget
from smartlink.server.apps.policies import ChannelPolicy

TOKENS = [f"a-session-token-of-the-tests-{number}" for number in range(4)]


def app_for(target: Receiver, *policies: ChannelPolicy) -> App:
    return an_app(webhooks=(WebhookTarget(target.url, events=("event_delivered",)),), channels=policies)


async def publish(port: int, event_id: str | None, **more: Any) -> int:
    event = {"name": "news", "channel": "private-room", "data": "x", "id": event_id} | more
    return (await call(port, "POST", f"/apps/{APP_ID}/events", json.dumps(event).encode())).status_code


async def joined(client: Client, user_id: str) -> None:
    data = json.dumps({"user_id": user_id})
    auth = sign_channel(KEY, SECRET, client.socket_id, "private-room", data)
    client.send("pusher:subscribe", {"channel": "private-room", "auth": auth, "channel_data": data})
    await client.expect("pusher_internal:subscription_succeeded")


async def answer_barrier(client: Client) -> None:
    """Answer the next ping."""
    while True:
        opcode, payload = await client.frame()
        if opcode == 1 and json.loads(payload)["event"] == "pusher:ping":
            client.send("pusher:pong", {})
            return


def delivered(target: Receiver) -> list[tuple[str, str]]:
    return sorted((event["id"], event["user_id"]) for event in target.events)


async def test_each_user_is_reported_once_when_a_client_has_handled_the_event() -> None:
    async with receiver() as target, realtime_server(app_for(target)) as server:
        async with (
            connected(server.port, session=TOKENS[0]) as phone,
            connected(server.port, session=TOKENS[1]) as desktop,
            connected(server.port, session=TOKENS[2]) as other,
            connected(server.port) as without,
        ):
            for client, user_id in ((phone, "7"), (desktop, "7"), (other, "8"), (without, "9")):
                await joined(client, user_id)
            assert await publish(server.port, "m1", receipts=True) == 200
            assert await publish(server.port, "m2") == 200
            assert target.events == []
            for client in (phone, desktop, other):
                await answer_barrier(client)
            await eventually(lambda: len(target.events) >= 2)
            assert await publish(server.port, "m3", receipts=True) == 200
            await answer_barrier(other)
            await eventually(lambda: len(target.events) >= 3)

        assert delivered(target) == [("m1", "7"), ("m1", "8"), ("m3", "8")]
        assert target.events[0] | {"id": "", "user_id": ""} == {
            "name": "event_delivered", "channel": "private-room", "id": "", "user_id": "",
        }  # fmt: skip


async def test_what_was_missed_is_reported_when_it_was_replayed_and_handled() -> None:
    async with receiver() as target, realtime_server(app_for(target)) as server:
        async with connected(server.port, session=TOKENS[0]) as client:
            await joined(client, "7")
        await publish(server.port, "m1", receipts=True)
        async with connected(server.port, session=TOKENS[0]) as client:
            await joined(client, "7")
            await answer_barrier(client)
            await eventually(lambda: len(target.events) == 1)
        assert delivered(target) == [("m1", "7")]


async def test_the_sender_who_was_left_out_is_not_reported() -> None:
    async with receiver() as target, realtime_server(app_for(target)) as server:
        async with (
            connected(server.port, session=TOKENS[0]) as sender,
            connected(server.port, session=TOKENS[1]) as other,
        ):
            await joined(sender, "7")
            await joined(other, "8")
            await publish(server.port, "m1", receipts=True, socket_id=sender.socket_id)
            for client in (sender, other):
                await answer_barrier(client)
            await eventually(lambda: len(target.events) >= 1)
        assert delivered(target) == [("m1", "8")]


async def test_a_policy_asks_for_receipts_of_all_events_that_have_an_id() -> None:
    policy = ChannelPolicy("private-**", receipts=True)
    async with receiver() as target, realtime_server(app_for(target, policy)) as server:
        async with connected(server.port, session=TOKENS[0]) as client:
            await joined(client, "7")
            for event_id in ("m1", None, "m2"):
                assert await publish(server.port, event_id) == 200
            assert await publish(server.port, "m3", live=True) == 200
            await answer_barrier(client)
            await eventually(lambda: len(target.events) >= 2)
        assert delivered(target) == [("m1", "7"), ("m2", "7")]


@pytest.mark.parametrize("more", [{"id": None}, {"live": True}, {"receipts": "yes"}])
async def test_receipts_of_what_cannot_be_reported_are_refused(more: dict[str, Any]) -> None:
    async with receiver() as target, realtime_server(app_for(target)) as server:
        assert await publish(server.port, "m1", **({"receipts": True} | more)) == 400
