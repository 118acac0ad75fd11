"""Samples in the families that the catalogue declares.

Invariant: a sample of a metric that the catalogue does not know, or with other labels than it says,
cannot be made.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ..broker.buckets import BUCKETS
from ..broker.histograms import Histogram
from .catalogue import CATALOGUE, COUNTER, GAUGE, HISTOGRAM


class Families:
    """The families of one scrape, filled sample by sample."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())

    def gauge(self, short: str, value: float, **labels: str) -> None:
        """Add a sample of a gauge."""
        family = cast("GaugeMetricFamily", self._family(short, GAUGE, labels))
        family.add_metric(_values(short, labels), value)

    def counter(self, short: str, value: float, **labels: str) -> None:
        """Add a sample of a counter."""
        family = cast("CounterMetricFamily", self._family(short, COUNTER, labels))
        family.add_metric(_values(short, labels), value)

    def histogram(self, short: str, what: str, found: Histogram, **labels: str) -> None:
        """Add a histogram; Prometheus wants its buckets cumulative."""
        family = cast("HistogramMetricFamily", self._family(short, HISTOGRAM, labels))
        buckets, below = [], 0
        bounds = [*(f"{float(bound)}" for bound in BUCKETS[what].bounds), "+Inf"]
        for bound, count in zip(bounds, found.counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(_values(short, labels), buckets, found.sum)

    def _family(self, short: str, of_type: str, labels: Mapping[str, str]) -> Metric:
        metric = CATALOGUE[short]
        if metric.type != of_type or set(metric.labels) != set(labels):
            raise ValueError(f"{short} is a {metric.type} with labels {list(metric.labels)}")
        if short not in self._families:
            made = {
                GAUGE: GaugeMetricFamily,
                COUNTER: CounterMetricFamily,
                HISTOGRAM: HistogramMetricFamily,
            }[of_type]
            self._families[short] = made(metric.family, metric.meaning, labels=metric.labels)
        return self._families[short]


def together(told: Iterable[Families]) -> Iterator[Metric]:
    """Yield the families of several sources; what two of them tell of is one family."""
    merged: dict[str, Metric] = {}
    for families in told:
        for family in families:
            if family.name in merged:
                merged[family.name].samples.extend(family.samples)
            else:
                merged[family.name] = copy.copy(family)
                merged[family.name].samples = list(family.samples)  # a cached one stays as it is
    yield from merged.values()


def _values(short: str, labels: Mapping[str, str]) -> list[str]:
    return [labels[name] for name in CATALOGUE[short].labels]
