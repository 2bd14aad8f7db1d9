"""A real Prometheus with the shipped alert rules, which scrapes services under test."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from kit import processes
from kit.ports import free_port
from kit.services import Service
from kit.waiting import LIMIT_S, wait_until

__all__ = ["RULES", "Prometheus", "needs_prometheus", "prometheus"]

needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus: make test-alerts")
RULES = Path(__file__).parents[2] / "deploy/prometheus/rules.yml"


class Prometheus:
    """Scrapes every two seconds. Alerts do not wait for their `for`: `test_alerts` tries that."""

    def __init__(self, folder: Path, targets: Mapping[str, int]) -> None:
        self.port = free_port()
        rules = yaml.safe_load(RULES.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule.pop("for", None)
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()
        ]
        timing = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
        config = {"global": timing, "rule_files": ["rules.yml"], "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self.service = Service("prometheus", command, folder, {})

    def start(self) -> None:
        self.service.start()
        wait_until(self._is_ready, what=f"Prometheus: {self.service.log}")

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        answer = json.loads(self._get("/api/v1/alerts"))
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"}

    def value(self, expression: str) -> float | None:
        """What an instant query tells; None without a sample."""
        answer = json.loads(self._get(f"/api/v1/query?query={quote(expression)}"))
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, alert: str) -> None:
        wait_until(lambda: alert in self.firing(), what=f"the alert {alert}")

    def wait_for_end_of(self, alert: str, within_s: float = LIMIT_S) -> None:
        wait_until(lambda: alert not in self.firing(), what=f"the end of the alert {alert}", within_s=within_s)

    def _is_ready(self) -> bool:
        assert self.service.is_running, self.service.said
        try:
            return bool(self._get("/-/ready"))
        except OSError:
            return False

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=LIMIT_S) as answer:
            told: bytes = answer.read()
        return told


@contextmanager
def prometheus(folder: Path, **targets: int) -> Iterator[Prometheus]:
    """Running; `targets` are ports by job name, without `smartlink-`."""
    processes.needs_server("Prometheus")
    folder.mkdir()
    started = Prometheus(folder, {f"smartlink-{job}": port for job, port in targets.items()})
    try:
        started.start()
        yield started
    finally:
        started.service.end()
