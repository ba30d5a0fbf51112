"""What was measured, as data: the record of one run of `make bench`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from benchmarks.machine import Machine


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of one target: a sample a round.

    Attributes:
        measure: what, e.g. `qos 0, 100 B, one topic`.
        target: whose: `stockade`, `mosquitto`, `nats`, `generator`.
        unit: of every sample.
        better: `higher` or `lower`.
        region: what lies between the two readings of the clock.
        samples: in the order in which they were taken.
        group: under which the report shows it; empty in records older than groups.
    """

    measure: str
    target: str
    unit: str
    better: Literal["higher", "lower"]
    region: str
    samples: tuple[float, ...]
    group: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A measure taken in the process itself, already reduced; nanoseconds of one operation.

    Attributes:
        name: what.
        timed: what lies between the two readings of the clock.
        operations: in one sample.
        samples: how many.
        median_ns: of the samples.
        p10_ns: their tenth percentile.
        p90_ns: their ninetieth.
    """

    name: str
    timed: str
    operations: int
    samples: int
    median_ns: float
    p10_ns: float
    p90_ns: float


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A measure that a target does not offer, and why: no failure, and no figure."""

    measure: str
    target: str
    why: str
    group: str = ""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One target by another.

    Attributes:
        median: the ratio of the medians.
        low: the lowest ratio of two samples of one round.
        high: the highest.
    """

    median: float
    low: float
    high: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the benchmarks."""

    date: str
    machine: Machine
    rounds: int
    versions: dict[str, str]
    settings: dict[str, str]
    figures: tuple[Figure, ...]
    summaries: tuple[Summary, ...]
    load_after: float
    failures: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def find(self, measure: str, target: str) -> Figure | None:
        for figure in self.figures:
            if (figure.measure, figure.target) == (measure, target):
                return figure
        return None

    def ratio(self, measure: str, target: str, yardstick: str) -> Ratio | None:
        """`target` by `yardstick`; None if either was not measured."""
        ours, theirs = self.find(measure, target), self.find(measure, yardstick)
        if ours is None or theirs is None or not all(theirs.samples):
            return None
        rounds = [a / b for a, b in zip(ours.samples, theirs.samples, strict=False)]
        return Ratio(median=ours.median / theirs.median, low=min(rounds), high=max(rounds))


def percentile(values: Sequence[int], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie: nearest rank."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
