"""What is wrong, since when; and charts in rings of a fixed size."""

from __future__ import annotations

import pytest

from smartlink.server.observe.charts import EVERY_S, SERIES, SPANS, Charts
from smartlink.server.observe.diagnosis import WINDOW_S, Diagnosis

FINE = {"smartlink_workers_ready": 1.0}


@pytest.mark.parametrize(
    ("sample", "key"),
    [
        ("smartlink_workers_apart", "apart"),
        ("smartlink_redis_full", "redis_full"),
        ("smartlink_redis_evicts", "redis_evicts"),
        ("smartlink_tasks_died", "tasks_died"),
        ('smartlink_event_loop_lag_seconds{worker="7"}', "loop_lag"),
    ],
)
def test_a_state_is_found_with_the_time_it_began(sample: str, key: str) -> None:
    diagnosis = Diagnosis()

    assert diagnosis.take(100, FINE | {sample: 0}) == []
    assert [(found.key, found.since) for found in diagnosis.take(110, FINE | {sample: 1})] == [(key, 110)]
    assert [found.since for found in diagnosis.take(120, FINE | {sample: 1})] == [110]
    assert diagnosis.take(130, FINE | {sample: 0}) == []
    assert [found.since for found in diagnosis.take(140, FINE | {sample: 1})] == [140]


@pytest.mark.parametrize(
    ("sample", "key"),
    [
        ('smartlink_connections_refused_total{reason="over_capacity"}', "over_capacity"),
        ('smartlink_webhook_events_total{outcome="failed"}', "webhooks_failed"),
        ('smartlink_webhook_events_total{outcome="dropped"}', "webhooks_dropped"),
        ('smartlink_webhook_events_total{outcome="retried"}', "webhooks_retried"),
        ('smartlink_rate_limited_total{kind="http"}', "rate_limited"),
        ("smartlink_internal_errors_total", "internal_errors"),
        ("smartlink_slow_consumers_total", "slow_consumers"),
    ],
)
def test_what_is_counted_is_found_while_it_is_recent(sample: str, key: str) -> None:
    diagnosis = Diagnosis()
    diagnosis.take(0, FINE | {sample: 5})

    assert [found.key for found in diagnosis.take(10, FINE | {sample: 6})] == [key]
    for at in range(20, 10 + int(WINDOW_S), 10):
        assert [found.since for found in diagnosis.take(at, FINE | {sample: 6})] == [10]
    assert diagnosis.take(21 + WINDOW_S, FINE | {sample: 6}) == []


def test_problems_come_before_warnings_and_say_what_to_do() -> None:
    found = Diagnosis().take(1, {"smartlink_workers_ready": 0, "smartlink_redis_evicts": 1})

    assert [finding.level for finding in found] == ["problem", "warning"]
    assert all(finding.advice for finding in found)


def test_charts_keep_each_span_in_a_ring() -> None:
    charts = Charts()
    hour = 3_600 // EVERY_S

    for number in range(25 * hour):
        charts.take(number * EVERY_S, {"connections": number})

    for span in SPANS:
        points = charts.points(span)
        assert len(points) == 360
        assert points[-1][0] - points[0][0] <= 24 * 3_600
    assert [point[1] for point in charts.points("1h")[-2:]] == [25 * hour - 2, 25 * hour - 1]
    assert charts.points("6h")[-1][1] == 25 * hour - 3.5


def test_charts_show_counters_as_rates_and_the_worst_lag() -> None:
    charts = Charts()
    refused, lag = 'smartlink_connections_refused_total{reason="x"}', "smartlink_event_loop_lag_seconds"

    charts.take(0, {refused: 5, f'{lag}{{worker="1"}}': 0.1, f'{lag}{{worker="2"}}': 0.4})
    charts.take(10, {refused: 25})
    charts.take(20, {refused: 3})

    columns = [dict(zip(SERIES, point[1:], strict=True)) for point in charts.points("1h")]
    assert [column["refused_per_s"] for column in columns] == [0, 2, 0]
    assert columns[0]["loop_lag_s"] == 0.4
