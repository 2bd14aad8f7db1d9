"""Samples in Prometheus' text format 0.0.4. Source: Prometheus, "Exposition formats"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from smartlink.server.observe.table import METRICS, Metric
from smartlink.server.runtime.metrics import Samples

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(samples: Mapping[str, float], port: int) -> str:
    """Render all metrics of the table, and Soketi's aliases where they exist; `port` is their label."""
    families: dict[str, Samples] = {}
    for name, value in samples.items():
        families.setdefault(_family(name), {})[name] = value
    lines: list[str] = []
    for metric in METRICS:
        found = families.get(metric.name, {})
        if not found and not metric.labels:
            found = {metric.name: 0}
        lines += _lines(metric.name, metric, found)
        if metric.soketi is not None:
            alias = {_as_soketi(name, metric, port): value for name, value in found.items()}
            lines += _lines(metric.soketi, metric, alias)
    return "\n".join(lines) + "\n"


def _family(name: str) -> str:
    base = name.partition("{")[0]
    if base.endswith(("_seconds_bucket", "_seconds_sum", "_seconds_count")):
        return base.rpartition("_")[0]
    return base


def _lines(name: str, metric: Metric, samples: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {metric.meaning}"
    yield f"# TYPE {name} {metric.kind}"
    for sample, value in samples.items():
        # Print all digits: a rounded counter would appear to stand still.
        yield f"{sample} {int(value) if value == int(value) else value!r}"


def _as_soketi(name: str, metric: Metric, port: int) -> str:
    _, _, labels = name.partition("{")
    own = f'port="{port}"'
    return f"{metric.soketi}{{{labels.removesuffix('}')},{own}}}" if labels else f"{metric.soketi}{{{own}}}"
