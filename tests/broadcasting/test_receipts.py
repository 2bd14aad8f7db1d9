"""Receipts: events that ask for them carry that through the outbox, and the application is told who received what."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from broadcasting.front_door import settings_for
from broadcasting.outbox_database import OutboxDatabase
from kit.client import Client, connected
from kit.pusher_service import PusherService
from kit.realtime import KEY, SECRET, an_app, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    BroadcastEvent,
    BroadcastNow,
    BroadcastSettings,
    Delivery,
    Envelope,
    PrivateChannel,
)
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.testing import FakeBroadcaster, FakeDriver, recorded_broadcasts
from smartlink.broadcasting.webhooks import EventDelivered, WebhookReceiver
from smartlink.protocol.signing import sign_channel, sign_webhook
from smartlink.server.apps.base import WebhookTarget


@dataclass(frozen=True)
class Said(BroadcastEvent):
    n: int
    channel = PrivateChannel("room")
    broadcast_receipts = True


@dataclass(frozen=True)
class Moved(BroadcastEvent):
    n: int
    channel = PrivateChannel("room")


@dataclass(frozen=True)
class Typed(BroadcastNow):
    channel = PrivateChannel("room")
    broadcast_receipts = True


def driver_for(service: PusherService, *, is_smartlink: bool) -> PusherDriver:
    own = (service.app_id, service.key, service.secret)
    return PusherDriver(*own, host="127.0.0.1", port=service.port, scheme="http", is_smartlink=is_smartlink)


async def subscribe(client: Client, user: str) -> None:
    data = json.dumps({"user_id": user})
    auth = sign_channel(KEY, SECRET, client.socket_id, "private-room", data)
    client.send("pusher:subscribe", {"channel": "private-room", "auth": auth, "channel_data": data})
    await client.expect("pusher_internal:subscription_succeeded")


async def handle_all(client: Client) -> None:
    """Answer the next ping, as a page does that has handled every event before it."""
    while True:
        opcode, payload = await client.frame()
        if opcode == 1 and json.loads(payload)["event"] == "pusher:ping":
            client.send("pusher:pong", {})
            return


async def test_the_application_is_told_who_received_a_recorded_event(database: OutboxDatabase) -> None:
    async with receiver() as target:
        app = an_app(webhooks=(WebhookTarget(target.url, events=("event_delivered",)),))
        async with (
            realtime_server(app) as server,
            connected(server.port, session="a-session-token-of-the-tests") as client,
            Broadcaster.from_settings(settings_for(server.port)) as broadcaster,
        ):
            await subscribe(client, "7")
            await database.record(*broadcaster.pack(Moved(1)), *broadcaster.pack(Said(2)))
            [said] = await database.record(*broadcaster.pack(Moved(3), receipts=True))
            await database.relay(broadcaster.driver).run_once()
            await handle_all(client)
            await eventually(lambda: len(target.events) >= 2)

    told: list[EventDelivered] = []
    webhooks = WebhookReceiver({KEY: SECRET})
    webhooks.on(EventDelivered)(told.append)
    for post in target.posts:
        body = json.dumps(post).encode()
        await webhooks.handle(webhooks.receive(body, key=KEY, signature=sign_webhook(SECRET, body)))
    assert [(each.channel, each.event_id, each.user_id) for each in told] == [
        ("private-room", said - 1, "7"),
        ("private-room", said, "7"),
    ]


async def test_the_outbox_keeps_what_was_asked_for_and_the_call_carries_it(
    database: OutboxDatabase, service: PusherService
) -> None:
    broadcaster = FakeBroadcaster()
    await database.record(*broadcaster.pack(Said(1)))
    await database.record(
        *broadcaster.pack(Said(2), receipts=False),
        *broadcaster.pack(Moved(3), receipts=True),
        *broadcaster.pack(Moved(4)),
    )
    async with database.sessions() as session:
        recorded = await recorded_broadcasts(session, database.tables)
    recorded.assert_broadcast(Said, receipts=True, times=1)
    recorded.assert_broadcast(Said, receipts=False, times=1)
    with pytest.raises(
        AssertionError, match=r"Moved with receipts 2 times, found 1.*Moved on private-room with receipts"
    ):
        recorded.assert_broadcast(Moved, receipts=True, times=2)

    driver = driver_for(service, is_smartlink=True)
    await database.relay(driver).run_once()

    assert [event.get("receipts") for event in service.taken] == [True, None, True, None]
    assert all(event["id"] for event in service.taken)
    await driver.aclose()


async def test_a_server_that_reports_no_receipts_still_gets_the_event_and_a_warning(
    database: OutboxDatabase, service: PusherService, caplog: pytest.LogCaptureFixture
) -> None:
    driver = driver_for(service, is_smartlink=True)
    with caplog.at_level(logging.WARNING, "smartlink.broadcasting"):
        for number in range(3):
            await driver.send([Envelope("private-room", "E", f'{{"n":{number}}}', event_id=str(number), receipts=True)])

    assert len(service.taken) == 3
    assert [record.message for record in caplog.records] == [
        f"http://127.0.0.1:{service.port} reports no receipts: only a SmartLink server can; the events are sent without"
    ]
    await driver.aclose()


async def test_only_smartlink_servers_are_asked_for_receipts(service: PusherService) -> None:
    driver = driver_for(service, is_smartlink=False)

    await driver.send([Envelope("private-room", "E", "{}", event_id="1", receipts=True)])

    assert set(service.taken[0]) == {"name", "channel", "data"}
    assert not driver.reports_receipts
    await driver.aclose()


@pytest.mark.parametrize(
    "settings",
    [
        {"driver": "pusher", "pusher_app_id": "1", "pusher_app_key": "k", "pusher_app_secret": "s"},
        {"driver": "ably", "ably_key": "app.key:secret"},
        {"driver": "redis"},
        {"driver": "log"},
        {"driver": "null"},
    ],
    ids=lambda settings: str(settings["driver"]),
)
async def test_a_driver_that_cannot_report_receipts_says_so_at_the_call(settings: dict[str, Any]) -> None:
    async with Broadcaster.from_settings(BroadcastSettings(_env_file=None, **settings)) as broadcaster:
        with pytest.raises(BroadcastConfigError, match=f"driver {settings['driver']} does not support receipts"):
            broadcaster.pack(Said(1))
        assert broadcaster.pack(Said(1), receipts=False)


async def test_receipts_need_a_record_that_gives_the_event_its_id() -> None:
    broadcaster = FakeBroadcaster()

    for send in (
        lambda: broadcaster.send(Said(1)),
        lambda: broadcaster.private("room").receipts().send(),
    ):
        with pytest.raises(BroadcastConfigError, match="announce it, as a durable event"):
            await send()
    with pytest.raises(BroadcastConfigError, match="Typed asks for receipts"):
        broadcaster.pack(Typed())
    [envelope] = broadcaster.pack(broadcaster.private("room").receipts().event)
    assert (envelope.receipts, envelope.delivery) == (True, Delivery.DURABLE)


async def test_tables_of_an_older_version_are_explained(database: OutboxDatabase) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE recorded_events DROP COLUMN receipts"))

    with pytest.raises(DBAPIError) as raised:
        await database.record(Envelope("private-room", "E", "{}"))

    assert "recorded_events lacks the column receipts" in raised.value.__notes__[0]


async def test_a_fake_driver_keeps_them() -> None:
    driver = FakeDriver()
    broadcaster = Broadcaster(driver)
    await broadcaster.send_envelopes(broadcaster.pack(Said(1)))

    assert driver.sent[0].receipts
