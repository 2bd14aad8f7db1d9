"""Metrics are right, in Prometheus' format, and 0 again when all clients have left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kit.client import connected
from kit.realtime import call, realtime_server
from kit.waiting import LIMIT_S, eventually
from kit.xhr import XhrClient
from smartlink.prometheus import Histogram, sample_name
from smartlink.server.observe.endpoint import ObserveEndpoint
from smartlink.server.observe.exposition import render
from smartlink.server.observe.table import METRICS
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.runtime.metrics import counters_only, merge

REFERENCE = Path(__file__).parents[2] / "docs/reference/metrics.md"


@asynccontextmanager
async def observed(server: RealtimeServer) -> AsyncIterator[ObserveEndpoint]:
    endpoint = ObserveEndpoint("127.0.0.1", 0, lambda: server.port, server.rates.figures)
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.stop()


async def get(endpoint: ObserveEndpoint, path: str, method: str = "GET") -> httpx2.Response:
    async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=LIMIT_S) as client:
        return await client.request(method, f"http://127.0.0.1:{endpoint.port}{path}")


async def scrape(endpoint: ObserveEndpoint) -> dict[str, float]:
    """Every sample, as Prometheus' own parser reads it, by name and labels (without the worker)."""
    answer = await get(endpoint, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in ("worker", "port")}
            samples[sample_name(sample.name, **labels)] = sample.value
    return samples


async def test_metrics_are_right_and_return_to_0_when_all_have_left(server: RealtimeServer) -> None:
    app = '{app_id="1001"}'
    async with observed(server) as endpoint:
        async with connected(server.port) as ana, connected(server.port) as ben, XhrClient(server.port) as cem:
            for client in (ana, ben):
                await client.subscribe("room")
                await client.subscribe("private-room")
            await cem.subscribe("room")
            body = json.dumps({"name": "e", "channel": "room", "data": "hello"}).encode()
            await call(server.port, "POST", "/apps/1001/events", body)
            await call(server.port, "GET", "/apps/1001/channels", secret="wrong")
            for client in (ana, ben):
                await client.expect("e")
            await cem.expect("e")
            async with connected(server.port, query="protocol=99"):
                pass

            busy = await scrape(endpoint)
            assert busy[f"smartlink_connections{app}"] == busy[f"soketi_connected{app}"] == 3
            assert busy[f"smartlink_subscriptions{app}"] == 5
            assert busy[f"smartlink_channels{app}"] == 2
            assert busy[f"smartlink_messages_received_total{app}"] == 5
            # The parser adds `_total`, which Soketi's own name has not.
            assert busy[f"soketi_socket_received_bytes_total{app}"] > 100
            text = (await get(endpoint, "/metrics")).text
            assert f'\nsoketi_socket_received_bytes{{app_id="1001",port="{server.port}"}} ' in text
            assert busy[f"smartlink_publications_total{app}"] == 1
            assert busy["smartlink_deliveries_total"] == 3
            assert busy["smartlink_sent_bytes_total"] > 500
            assert busy["smartlink_fanout_seconds_count"] == 1
            assert busy["smartlink_publish_seconds_count"] == busy["smartlink_delivery_seconds_count"] == 1
            assert busy[f"smartlink_http_calls_total{app}"] == 1
            assert busy[f"smartlink_http_received_bytes_total{app}"] == len(body)
            assert busy['smartlink_http_requests_total{status="2xx"}'] == 1
            assert busy['smartlink_http_requests_total{status="4xx"}'] == 1
            assert busy['smartlink_http_errors_total{app_id="1001",status="4xx"}'] == 1
            assert busy[f"smartlink_http_seconds_count{app}"] == 1
            assert busy['smartlink_http_seconds_bucket{app_id="1001",le="+Inf"}'] == 1
            assert busy[f"smartlink_connections_limit{app}"] == 1_000
            assert busy["smartlink_descriptors_limit"] > busy["smartlink_open_descriptors"]
            assert busy["smartlink_cpu_seconds_total"] > 0
            assert busy['smartlink_connections_refused_total{reason="unsupported_protocol"}'] == 1
            assert busy["smartlink_workers_ready"] == 1
            assert busy["smartlink_workers_apart"] == 0
            assert busy["smartlink_resident_memory_bytes"] > 1_000_000
            assert busy["smartlink_open_descriptors"] > 3

        await eventually(lambda: server.metrics.connections_closed == 3)
        quiet = await scrape(endpoint)
        for name in ("smartlink_connections", "smartlink_subscriptions", "smartlink_channels", "soketi_connected"):
            assert quiet[name + app] == 0
        assert quiet[f"smartlink_connections_opened_total{app}"] == 3
        assert quiet[f"smartlink_connections_closed_total{app}"] == 3


async def test_reached_limits_are_counted() -> None:
    settings = {
        "reverb_app_client_events_per_second": 1,
        "reverb_app_rate_limiting_enabled": True,
        "reverb_app_rate_limit_max_attempts": 4,
    }
    async with realtime_server(**settings) as server, observed(server) as endpoint, connected(server.port) as client:
        await client.subscribe("private-a")
        for _ in range(5):
            client.send("client-a", {}, channel="private-a")
        for _ in range(4):
            await client.expect("pusher:error")

        samples = await scrape(endpoint)
        assert samples['smartlink_rate_limited_total{app_id="1001",kind="client_event"}'] == 2
        assert samples['smartlink_rate_limited_total{app_id="1001",kind="message"}'] == 2


async def test_health_and_readiness_differ(server: RealtimeServer) -> None:
    async with observed(server) as endpoint:
        assert (await get(endpoint, "/healthz")).status_code == 200
        assert (await get(endpoint, "/readyz")).status_code == 200
        server.is_ready = False
        assert (await get(endpoint, "/healthz")).status_code == 200
        assert (await get(endpoint, "/readyz")).status_code == 503
        server.is_ready = True
        memory = (await get(endpoint, "/usage")).json()["memory"]
        assert 0 < memory["used"] < memory["total"]
        assert (await get(endpoint, "/metrics", "HEAD")).text == ""
        assert (await get(endpoint, "/metrics", "POST")).status_code == 405
        assert (await get(endpoint, "/apps/1001/channels")).status_code == 404


@pytest.mark.parametrize("asked", [b"\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /metrics\r\n\r\n", b"x" * 20_000])
async def test_malformed_requests_to_the_metrics_port_are_harmless(server: RealtimeServer, asked: bytes) -> None:
    async with observed(server) as endpoint:
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(asked)
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionResetError):
                assert (await reader.read())[:12] in (b"HTTP/1.1 400", b"")
        writer.close()
        assert (await get(endpoint, "/healthz")).status_code == 200


def test_metrics_sum_over_workers_including_past_ones() -> None:
    one = {"smartlink_connections": 2, "smartlink_publications_total": 5, 'a_seconds_bucket{le="1.0"}': 1}
    two = {"smartlink_connections": 3, 'smartlink_nodes{worker="7"}': 1}

    assert merge((one, two))["smartlink_connections"] == 5
    assert merge((one, two))['smartlink_nodes{worker="7"}'] == 1
    assert counters_only(one) == {"smartlink_publications_total": 5, 'a_seconds_bucket{le="1.0"}': 1}


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram()
    for seconds in (0.0001, 0.003, 0.003, 60.0):
        histogram.observe(seconds)
    samples = histogram.samples("x_seconds")

    assert samples['x_seconds_bucket{le="0.0001"}'] == 1
    assert samples['x_seconds_bucket{le="0.005"}'] == 3
    assert samples['x_seconds_bucket{le="+Inf"}'] == samples["x_seconds_count"] == 4
    assert samples["x_seconds_sum"] == pytest.approx(60.0061)


def test_labels_cannot_break_the_format() -> None:
    name = sample_name("smartlink_connections", app_id='a"b\\c\nd')
    (family, *_) = text_string_to_metric_families(render({name: 1}, 8080))

    assert family.samples[0].labels["app_id"] == 'a"b\\c\nd'


async def test_every_exported_metric_is_in_the_table_and_the_reference(server: RealtimeServer) -> None:
    told = {name.partition("{")[0] for name in server.rates.figures() if name.startswith("smartlink_")}
    told = {name.rpartition("_")[0] if name.endswith(("_bucket", "_sum", "_count")) else name for name in told}
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels) or '–'} | {metric.meaning} "
        f"| {f'`{metric.soketi}`' if metric.soketi else '–'} |"
        for metric in METRICS
    ]
    of_server = REFERENCE.read_text().partition("## The portal and its workers")[0]
    listed = [line for line in of_server.splitlines() if line.startswith("| `smartlink_")]

    assert told <= {metric.name for metric in METRICS}
    assert listed == rows
