"""Samples and histograms, and Prometheus' text format 0.0.4. Source: Prometheus, "Exposition formats"."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

__all__ = ["CONTENT_TYPE", "Histogram", "Metric", "Samples", "by_family", "lines", "of_metric", "render", "sample_name"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Samples: TypeAlias = dict[str, float]
"""Values by sample name, including labels: `smartlink_connections{app_id="1"}`. All can be added up: those that cannot
have the worker as a label.
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `soketi` is an alias under which it is also exported, with the port as a label."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    soketi: str | None = None


def sample_name(name: str, **labels: str) -> str:
    """A sample's name with its labels, in the exposition format."""
    if not labels:
        return name
    escaped = {
        key: value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for key, value in labels.items()
    }
    pairs = ",".join(f'{key}="{value}"' for key, value in escaped.items())
    return f"{name}{{{pairs}}}"


@final
class Histogram:
    """A histogram of durations in seconds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
    COARSE = (0.005, 0.025, 0.1, 0.5, 2.5)
    """For histograms of which there are many: one per application or route."""
    SLOW = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0)
    """For what may wait."""

    def __init__(self, bounds: tuple[float, ...] = BOUNDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def __bool__(self) -> bool:
        return any(self._counts)

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def samples(self, name: str, **labels: str) -> Samples:
        """Cumulative buckets, sum and count."""
        found: Samples = {}
        below = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            found[sample_name(f"{name}_bucket", **labels, le=bound)] = below
        found[sample_name(f"{name}_sum", **labels)] = self._sum
        found[sample_name(f"{name}_count", **labels)] = below
        return found


def render(metrics: Iterable[Metric], samples: Mapping[str, float]) -> str:
    """Render the samples of `metrics`, in the table's order. Metrics without labels are 0 if they have no sample."""
    families = by_family(samples)
    text = [line for metric in metrics for line in lines(metric.name, metric, of_metric(metric, families))]
    return "\n".join(text) + "\n"


def of_metric(metric: Metric, families: Mapping[str, Samples]) -> Samples:
    """The samples of a metric; 0 if it has no labels and no sample."""
    found = families.get(metric.name, {})
    return {metric.name: 0} if not found and not metric.labels else found


def by_family(samples: Mapping[str, float]) -> dict[str, Samples]:
    """The samples by the metric they belong to."""
    families: dict[str, Samples] = {}
    for name, value in samples.items():
        families.setdefault(_family(name), {})[name] = value
    return families


def lines(name: str, metric: Metric, samples: Mapping[str, float]) -> Iterator[str]:
    """The lines of one metric under a name."""
    yield f"# HELP {name} {metric.meaning}"
    yield f"# TYPE {name} {metric.kind}"
    for sample, value in samples.items():
        # Print all digits: a rounded counter would appear to stand still.
        yield f"{sample} {int(value) if value == int(value) else value!r}"


def _family(name: str) -> str:
    base = name.partition("{")[0]
    if base.endswith(("_seconds_bucket", "_seconds_sum", "_seconds_count")):
        return base.rpartition("_")[0]
    return base
