"""Under pressure live events are dropped before durable ones, and counted."""

from __future__ import annotations

import json

from kit.client import connected
from kit.realtime import call, realtime_server
from kit.waiting import eventually
from smartlink.server.core.fanout import MAX_LIVE_BACKLOG_BYTES


async def test_a_slow_subscriber_loses_live_events_but_no_durable_one() -> None:
    async with (
        realtime_server(reverb_app_ping_interval=600) as server,
        connected(server.port) as slow,
        connected(server.port) as quick,
        connected(server.port) as typist,
    ):
        for client in (slow, quick, typist):
            await client.subscribe("private-a")
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        behind = server.node.hub.connection("1001", slow.socket_id)
        assert behind is not None
        number = 0
        while behind.backlog <= MAX_LIVE_BACKLOG_BYTES and number < 2_000:
            body = {"name": "durable", "channel": "private-a", "data": str(number).ljust(10_000)}
            await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode())
            number += 1
        assert behind.backlog > MAX_LIVE_BACKLOG_BYTES
        assert server.rates.figures()['smartlink_backlogged_connections{app_id="1001"}'] == 1
        for _ in range(5):
            typist.send("client-typing", {}, channel="private-a")
        while server.metrics.live_dropped < 5:
            await typist.receive()
            typist.send("pusher:ping", {})
        for live in (True, False):
            body = {"name": "last", "channel": "private-a", "data": str(live), "live": live}
            await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode())
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]

        assert [int((await slow.expect("durable"))["data"]) for _ in range(number)] == list(range(number))
        assert (await slow.expect("last"))["data"] == "False"
        assert [int((await quick.expect("durable"))["data"]) for _ in range(number)] == list(range(number))
        for _ in range(5):
            await quick.expect("client-typing")
        assert [(await quick.expect("last"))["data"] for _ in range(2)] == ["True", "False"]
        assert server.metrics.live_dropped == 6
        assert server.metrics.slow_consumers == 0
        await eventually(
            lambda: server.rates.figures()['smartlink_backlogged_connections{app_id="1001"}'] == 0,
            what="no connection with a backlog",
        )
