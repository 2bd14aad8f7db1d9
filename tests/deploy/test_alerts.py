"""Alert rules, their runbook and the dashboard agree with the metrics, and fire when and only when they should.

`make test-alerts` runs those that need Prometheus (Debian's package `prometheus`).
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit import processes
from kit.prometheus import RULES, needs_prometheus
from smartlink.portal.observe import METRICS as PORTAL_METRICS
from smartlink.server.observe.table import METRICS as SERVER_METRICS

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs/howto/runbook.md"
RUNBOOK_BASE = '{{ or $externalLabels.smartlink_runbook "docs/howto/runbook.md" }}'
DASHBOARD = ROOT / "deploy/grafana/smartlink.json"
KINDS = {metric.name: metric for metric in (*SERVER_METRICS, *PORTAL_METRICS)}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


NAMES = [rule["alert"] for rule in alerts()]


def check_metrics(expression: str) -> None:
    """Each metric exists, with the labels that are used, and a counter or histogram is used as one."""
    found = list(re.finditer(r"\b(smartlink_\w+?)(_bucket)?(?:\{([^}]*)\})?(\[[^]]+\])?(?=[^\w{\[]|$)", expression))
    assert found or re.search(r"\b(up|ALERTS)\{", expression), expression
    for name, bucket, labels, window in (match.groups() for match in found):
        metric = KINDS[name]
        assert (metric.kind == "histogram") is bool(bucket), expression
        assert window or metric.kind == "gauge", expression
        for label in re.findall(r"(\w+)\s*[=!]", labels or ""):
            assert label in (*metric.labels, "instance", "job"), expression


@pytest.mark.parametrize("rule", alerts(), ids=NAMES)
def test_an_alert_uses_metrics_that_exist_and_names_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    check_metrics(rule["expr"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOK_BASE}#{rule['alert'].lower()}"


def test_the_runbook_has_one_section_per_alert_in_order_that_says_what_to_do() -> None:
    _, *sections = RUNBOOK.read_text().split("\n## ")

    assert [section.partition("\n")[0] for section in sections] == NAMES
    for section in sections:
        assert re.findall(r"^- \*\*(.+?)\*\*: \S", section, re.MULTILINE) == ["Means", "Look at", "Do"]


def test_the_dashboard_queries_metrics_that_exist_and_its_panels_do_not_overlap() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    shown = [panel for panel in panels if panel["type"] != "row"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in shown} == {"stat", "timeseries"}
    for panel in shown:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            check_metrics(target["expr"])
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        assert (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"} <= variables
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            check_metrics(re.sub(r"label_values\((\w+), \w+\)", r"\1", variable["definition"]))


HEALTHY = {
    'up{job="smartlink-reverb",instance="a"}': "1x60",
    'smartlink_workers_ready{instance="a"}': "2x60",
    'smartlink_workers_apart{instance="a"}': "0x60",
    'smartlink_redis_full{instance="a"}': "0x60",
    'smartlink_redis_evicts{instance="a"}': "0x60",
    'smartlink_tasks_died{instance="a"}': "0x60",
    'smartlink_app_tasks_died{instance="b"}': "0x60",
    'smartlink_internal_errors_total{instance="a"}': "3x60",
    'smartlink_app_errors_total{instance="b"}': "3x60",
    'smartlink_redis_seconds_bucket{instance="a",le="0.1"}': "0+100x60",
    'smartlink_redis_seconds_bucket{instance="a",le="+Inf"}': "0+100x60",
    'smartlink_delivery_seconds_bucket{instance="a",le="0.1"}': "0+100x60",
    'smartlink_delivery_seconds_bucket{instance="a",le="+Inf"}': "0+100x60",
    'smartlink_event_loop_lag_seconds{instance="a",worker="1"}': "0.001x60",
    'smartlink_slow_consumers_total{instance="a"}': "0+0.1x60",
    'smartlink_connections{instance="a",app_id="1"}': "700x60",
    'smartlink_connections_limit{instance="a",app_id="1",worker="1"}': "1000x60",
    'smartlink_connections_refused_total{instance="a",reason="over_capacity"}': "5x60",
    'smartlink_open_descriptors{instance="a",worker="1"}': "700x60",
    'smartlink_descriptors_limit{instance="a",worker="1"}': "1000x60",
    'smartlink_rate_limited_total{instance="a",app_id="1",kind="message"}': "0+30x60",
    'smartlink_http_errors_total{instance="a",app_id="1",status="5xx"}': "0+0.1x60",
    'smartlink_http_calls_total{instance="a",app_id="1"}': "0+100x60",
    'smartlink_certificate_ends_timestamp_seconds{instance="a",worker="1"}': "2592000x60",
    'smartlink_webhook_oldest_seconds{instance="a",worker="1"}': "0.5x60",
    'smartlink_webhook_events_total{instance="a",outcome="failed"}': "4x60",
    'smartlink_webhook_queue_away{instance="a"}': "0x60",
    'smartlink_database_up{instance="b"}': "1x60",
    'smartlink_database_free_bytes{instance="b",file="x.db"}': "1000000000x60",
    'smartlink_outbox_oldest_seconds{instance="b",queue="default"}': "0.1x60",
    'smartlink_outbox_workers{instance="b"}': "1x60",
    'smartlink_outbox_set_aside{instance="b"}': "0x60",
    'smartlink_app_requests_total{instance="b",route="/x",status="2xx"}': "0+100x60",
    'smartlink_app_requests_total{instance="b",route="/x",status="5xx"}': "0+0.1x60",
}
"""Series of an installation on which no alert fires, a sample a minute."""

FAULTS: dict[str, dict[str, str]] = {
    "SmartLinkTargetDown": {'up{job="smartlink-reverb",instance="a"}': "0x60"},
    "SmartLinkNotReady": {'smartlink_workers_ready{instance="a"}': "0x60"},
    "SmartLinkRedisAway": {'smartlink_workers_apart{instance="a"}': "1x60"},
    "SmartLinkRedisFull": {'smartlink_redis_full{instance="a"}': "1x60"},
    "SmartLinkRedisEvicts": {'smartlink_redis_evicts{instance="a"}': "2x60"},
    "SmartLinkRedisSlow": {
        'smartlink_redis_seconds_bucket{instance="a",le="0.1"}': "0+90x60",
        'smartlink_redis_seconds_bucket{instance="a",le="1.0"}': "0+100x60",
    },
    "SmartLinkTaskDied": {'smartlink_app_tasks_died{instance="b"}': "1x60"},
    "SmartLinkInternalErrors": {'smartlink_internal_errors_total{instance="a"}': "0+1x60"},
    "SmartLinkDeliverySlow": {
        'smartlink_delivery_seconds_bucket{instance="a",le="0.1"}': "0+90x60",
        'smartlink_delivery_seconds_bucket{instance="a",le="1.0"}': "0+100x60",
    },
    "SmartLinkLoopLag": {'smartlink_event_loop_lag_seconds{instance="a",worker="1"}': "0.3x60"},
    "SmartLinkSlowConsumers": {'smartlink_slow_consumers_total{instance="a"}': "0+3x60"},
    "SmartLinkConnectionsNearLimit": {'smartlink_connections{instance="a",app_id="1"}': "801x60"},
    "SmartLinkConnectionsRefused": {
        'smartlink_connections_refused_total{instance="a",reason="over_capacity"}': "0+1x60"
    },
    "SmartLinkDescriptorsNearLimit": {'smartlink_open_descriptors{instance="a",worker="1"}': "801x60"},
    "SmartLinkTenantFloods": {'smartlink_rate_limited_total{instance="a",app_id="1",kind="message"}': "0+300x60"},
    "SmartLinkHttpErrors": {'smartlink_http_errors_total{instance="a",app_id="1",status="5xx"}': "0+5x60"},
    "SmartLinkCertificateEnds": {'smartlink_certificate_ends_timestamp_seconds{instance="a",worker="1"}': "864000x60"},
    "SmartLinkWebhooksOld": {'smartlink_webhook_oldest_seconds{instance="a",worker="1"}': "61x60"},
    "SmartLinkWebhooksFailed": {'smartlink_webhook_events_total{instance="a",outcome="failed"}': "0+1x60"},
    "SmartLinkWebhookQueueAway": {'smartlink_webhook_queue_away{instance="a"}': "1x60"},
    "SmartLinkDatabaseUnwritable": {'smartlink_database_up{instance="b"}': "0x60"},
    "SmartLinkDiskNearlyFull": {'smartlink_database_free_bytes{instance="b",file="x.db"}': "1000000x60"},
    "SmartLinkOutboxOld": {'smartlink_outbox_oldest_seconds{instance="b",queue="default"}': "31x60"},
    "SmartLinkNoWorker": {'smartlink_outbox_workers{instance="b"}': "0x60"},
    "SmartLinkEventsSetAside": {'smartlink_outbox_set_aside{instance="b"}': "1x60"},
    "SmartLinkAppErrors": {'smartlink_app_requests_total{instance="b",route="/x",status="5xx"}': "0+5x60"},
}
"""What differs from the healthy installation when an alert, and no other, fires."""


@needs_prometheus
def test_each_alert_fires_on_its_fault_and_on_no_other(tmp_path: Path) -> None:
    assert list(FAULTS) == NAMES
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    cases = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in (HEALTHY | fault).items()],
            "promql_expr_test": [
                {
                    "expr": firing,
                    "eval_time": "30m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
                }
            ],
        }
        for alert, fault in {"": {}, **FAULTS}.items()
    ]
    file = tmp_path / "rules_test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))

    for command in (["check", "rules", str(RULES)], ["test", "rules", str(file)]):
        told = processes.run(["promtool", *command], capture_output=True, text=True)
        assert told.returncode == 0, told.stdout + told.stderr


@needs_prometheus
@pytest.mark.parametrize("base", [None, "https://wiki.example.com/smartlink"])
def test_alerts_link_to_the_runbook_where_one_setting_says(tmp_path: Path, base: str | None) -> None:
    alert = "SmartLinkNoWorker"
    (rule,) = (each for each in alerts() if each["alert"] == alert)
    linked = f"{base or 'docs/howto/runbook.md'}#{alert.lower()}"
    case = {
        "interval": "1m",
        "external_labels": {} if base is None else {"smartlink_runbook": base},
        "input_series": [{"series": 'smartlink_outbox_workers{instance="b"}', "values": "0x60"}],
        "alert_rule_test": [
            {
                "eval_time": "30m",
                "alertname": alert,
                "exp_alerts": [
                    {
                        "exp_labels": rule["labels"],
                        "exp_annotations": rule["annotations"] | {"runbook_url": linked},
                    }
                ],
            }
        ],
    }
    file = tmp_path / "links_test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))

    told = processes.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)

    assert told.returncode == 0, told.stdout + told.stderr
