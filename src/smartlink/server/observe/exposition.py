"""All metrics of the table as text, and Soketi's aliases."""

from __future__ import annotations

from collections.abc import Mapping

from smartlink.prometheus import Metric, by_family, lines, of_metric
from smartlink.server.observe.table import METRICS

__all__ = ["render"]


def render(samples: Mapping[str, float], port: int) -> str:
    """Render all metrics of the table, and Soketi's aliases where they exist; `port` is their label."""
    families = by_family(samples)
    text: list[str] = []
    for metric in METRICS:
        found = of_metric(metric, families)
        text += lines(metric.name, metric, found)
        if metric.soketi is not None:
            alias = {_as_soketi(name, metric, port): value for name, value in found.items()}
            text += lines(metric.soketi, metric, alias)
    return "\n".join(text) + "\n"


def _as_soketi(name: str, metric: Metric, port: int) -> str:
    _, _, labels = name.partition("{")
    own = f'port="{port}"'
    return f"{metric.soketi}{{{labels.removesuffix('}')},{own}}}" if labels else f"{metric.soketi}{{{own}}}"
