"""Metrics of the portal and its worker are right, in Prometheus' format, and listed in the reference."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from kit.portal import World
from kit.waiting import eventually, eventually_told
from smartlink.portal.observe import METRICS
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.prometheus import sample_name

REFERENCE = Path(__file__).parents[2] / "docs/reference/metrics.md"


async def scrape(world: World) -> dict[str, float]:
    transport = httpx2.ASGITransport(app=world.portal.observer.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://metrics.test") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample_name(sample.name, **sample.labels): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_route(world: World) -> None:
    ana = await world.person()
    before = await scrape(world)
    for path in ("/api/user", "/api/chat/messages/private/999999", "/no/such/page"):
        await ana.get(path)
    samples = await scrape(world)

    def more(name: str, **labels: str) -> float:
        sample = sample_name(name, **labels)
        return samples.get(sample, 0) - before.get(sample, 0)

    assert more("smartlink_app_requests_total", route="/api/user", status="2xx") == 1
    assert more("smartlink_app_requests_total", route="other", status="4xx") == 1
    assert more("smartlink_app_request_seconds_count", route="/api/user") == 1
    assert not [name for name in samples if "999999" in name]


async def test_events_that_wait_and_their_age_are_told_until_they_are_sent(world: World) -> None:
    ana = await world.person()
    await ana.post("/api/chat/messages", {"message": "Hello"})
    waiting = await scrape(world)

    assert waiting["smartlink_database_up"] == 1
    assert waiting['smartlink_outbox_waiting{queue="default"}'] >= 1
    assert waiting['smartlink_outbox_oldest_seconds{queue="default"}'] > 0
    assert waiting["smartlink_outbox_workers"] == 0

    stop = asyncio.Event()
    working = asyncio.create_task(world.portal.work(stop))
    observer = world.portal.observer
    await eventually(lambda: observer.relay is not None and observer.relay.sent >= 1)

    async def is_marked() -> bool:
        return (await scrape(world))['smartlink_outbox_waiting{queue="default"}'] == 0

    await eventually_told(is_marked)
    sent = await scrape(world)
    stop.set()
    await working
    assert sent["smartlink_outbox_workers"] == 1
    assert sent["smartlink_outbox_sent_total"] == sent["smartlink_outbox_lag_seconds_count"] >= 1
    assert sent['smartlink_outbox_oldest_seconds{queue="default"}'] == 0


async def test_a_database_that_is_away_is_a_sample_and_no_error(world: World) -> None:
    async def away() -> list[str]:
        raise DatabaseAway("away")

    world.portal.health.check = away  # type: ignore[method-assign]

    assert (await scrape(world))["smartlink_database_up"] == 0


async def test_every_metric_is_in_the_table_and_the_reference(world: World) -> None:
    told = {
        re.sub(r"_(bucket|sum|count)$", "", name.partition("{")[0]) for name in await world.portal.observer.samples()
    }
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels) or '–'} | {metric.meaning} |"
        for metric in METRICS
    ]
    of_portal = REFERENCE.read_text().partition("## The portal and its workers")[2]
    listed = [line for line in of_portal.splitlines() if line.startswith("| `smartlink_")]

    assert told <= {metric.name for metric in METRICS}
    assert listed == rows
