"""A trace goes from the request that announced an event over outbox and publishing to the fan-out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from broadcasting.outbox_database import envelope, open_database, relaying
from kit.client import connected
from kit.realtime import KEY, SECRET, call, realtime_server
from kit.waiting import eventually
from smartlink import tracing
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.envelope import Delivery
from smartlink.server.run.lifecycle import RealtimeServer

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The finished spans, kept in memory by the SDK."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The global provider can be set only once per process; a test must be able to take it back.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def names(spans: Any, trace_id: int) -> list[str]:
    return [span.name for span in spans.get_finished_spans() if span.context.trace_id == trace_id]


def driver_to(server: RealtimeServer) -> PusherDriver:
    return PusherDriver(
        "1001", KEY, SECRET, host="127.0.0.1", port=server.port, scheme="http", timeout_s=5, is_smartlink=True
    )


async def test_a_trace_goes_from_the_announcing_request_to_the_fan_out(spans: Any, tmp_path: Path) -> None:
    async with (
        realtime_server() as server,
        connected(server.port) as client,
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database,
    ):
        await client.subscribe("private-a")
        with trace.get_tracer("app").start_as_current_span("POST /orders") as request:
            await database.record(envelope(1))
        async with relaying(database, driver_to(server)):
            await client.expect("App\\Events\\E")
            trace_id = request.get_span_context().trace_id
            await eventually(lambda: len(names(spans, trace_id)) == 4)

    finished = {span.name: span for span in spans.get_finished_spans()}
    chain = ["POST /orders", "smartlink publish", "POST batch_events", "smartlink fan-out"]
    for parent, child in pairwise(chain):
        assert finished[child].parent.span_id == finished[parent].context.span_id
    assert finished["smartlink fan-out"].attributes == {"app_id": "1001", "channel": "private-a", "receivers": 1}


async def test_a_call_with_events_of_several_traces_links_to_each(spans: Any, tmp_path: Path) -> None:
    async with (
        realtime_server() as server,
        open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database,
    ):
        requests = []
        for number in range(2):
            with trace.get_tracer("app").start_as_current_span(f"request {number}") as request:
                await database.record(envelope(number, delivery=Delivery.STATE))
                requests.append(request.get_span_context().span_id)
        async with relaying(database, driver_to(server)) as [relay]:
            await eventually(lambda: relay.sent == 2)

    links = [
        link.context.span_id
        for span in spans.get_finished_spans()
        if span.name == "smartlink publish"
        for link in span.links
    ]
    assert sorted(links) == sorted(requests)


async def test_a_trace_reaches_the_fan_out_of_other_nodes(spans: Any) -> None:
    from kit.redis import redis_server

    with redis_server() as redis:
        both = {"reverb_scaling_enabled": True, "redis_url": redis.url}
        async with realtime_server(**both) as one, realtime_server(**both) as two, connected(two.port) as client:
            await client.subscribe("room")
            body = json.dumps({"name": "e", "channel": "room", "data": ""}).encode()
            await call(one.port, "POST", "/apps/1001/events", body, headers={"traceparent": TRACEPARENT})
            await client.expect("e")
            await eventually(
                lambda: names(spans, 0x0AF7651916CD43DD8448EB211C80319C) == ["POST events", "smartlink fan-out"]
            )


@pytest.mark.parametrize("header", ["", "00-x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff" * 100])
async def test_an_invalid_traceparent_is_ignored(spans: Any, header: str) -> None:
    async with realtime_server() as server:
        body = json.dumps({"name": "e", "channel": "room", "data": ""}).encode()
        answer = await call(server.port, "POST", "/apps/1001/events", body, headers={"traceparent": header})

    assert answer.status_code == 200
    assert spans.get_finished_spans() == ()


async def test_without_an_sdk_nothing_is_recorded_or_sent(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database:
        await database.record(envelope(1))

        assert not tracing.is_on()
        assert await database.column("trace") == [None]
