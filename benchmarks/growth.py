"""How cost grows with subscribers and subscriptions: `python -m benchmarks.growth`, written to docs/growth.json and .svg.

*Theory of operation.* Over the wire the broker's CPU time is counted, by all its processes, for one delivered message;
in the process the tree of filters is asked for a topic it has no remembered route for, which a broker does once for a
topic. The targets take turns at each size.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns, process_time_ns

import msgspec

from benchmarks.blocks import BLOCK_BYTES, Shape
from benchmarks.machine import ROOT, BenchmarkError, Machine, describe_machine
from benchmarks.plot import Panel, Series, render_svg
from benchmarks.sampling import (
    Throughput,
    holding_subscriptions,
    measure_fan_out,
    measure_stream,
    sample_messages,
)
from benchmarks.targets import NAMES, Target, start_targets
from mqtt.topics import FilterTree

FILTERS_EACH = 1_000
"""Subscriptions of one client: as many as Stockade allows."""

FAN_BLOCK_BYTES = 16 * 1024
LOOKUPS = 20_000


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured.

    Attributes:
        subscribers: how many, of one topic.
        held: subscriptions of other clients, over the wire.
        in_process: subscriptions in the tree.
        deliveries: in a sample with many subscribers.
        messages: in a sample with many subscriptions.
    """

    subscribers: tuple[int, ...] = (1, 10, 100, 1_000)
    held: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    in_process: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    deliveries: int = 200_000
    messages: int = 100_000


QUICK = Sizes(
    subscribers=(1, 4), held=(10, 100), in_process=(100, 1_000), deliveries=10_000, messages=10_000
)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One figure.

    Attributes:
        measure: what grows.
        target: whose cost.
        size: how many.
        cost: microseconds over the wire, nanoseconds in the process; None when it was not to be had.
        why: it was not to be had.
    """

    measure: str
    target: str
    size: int
    cost: float | None
    why: str = ""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    date: str
    machine: Machine
    versions: dict[str, str]
    timed: dict[str, str]
    points: tuple[Point, ...]


FAN_OUT = "subscribers of one topic"
HELD = "subscriptions of others"
TREE = "subscriptions in the tree"
TIMED = {
    FAN_OUT: "broker CPU time by delivered messages, us; 100 B, QoS 0",
    HELD: (
        "broker CPU time by messages, us; 100 B, QoS 0, on 1,000 topics in turns to one "
        "subscriber, while other clients hold that many filters with wildcards"
    ),
    TREE: (
        f"CPU time of one `FilterTree.match`, ns, of {LOOKUPS:,} with different topics; one filter matches, half of "
        "the filters have a wildcard"
    ),
}


def tree_points(sizes: Sequence[int]) -> Iterator[Point]:
    """The tree of filters alone."""
    for size in sizes:
        _progress(f"{TREE}: {size:,}")
        tree: FilterTree[int] = FilterTree()
        began = perf_counter_ns()
        for number in range(size):
            tree.add(_filter(number), number, number)
        added = (perf_counter_ns() - began) / size
        yield Point(measure=TREE, target="match", size=size, cost=_match_ns(tree, size))
        yield Point(measure=TREE, target="add", size=size, cost=added)
        del tree
        gc.collect()


def _filter(number: int) -> str:
    site, last = number // 1000, "+" if number % 2 else "state"
    return f"plant/site-{site}/device-{number}/{last}"


def _match_ns(tree: FilterTree[int], size: int) -> float:
    step = max(1, size // LOOKUPS)
    topics = [f"plant/site-{n // 1000}/device-{n}/state" for n in range(0, size, step)][:LOOKUPS]
    repeats = -(-LOOKUPS // len(topics))
    match = tree.match
    gc.disable()
    began = process_time_ns()
    for _ in range(repeats):
        for topic in topics:
            match(topic)
    spent = process_time_ns() - began
    gc.enable()
    if any(len(match(topic)) != 1 for topic in topics[:100]):
        raise BenchmarkError("the tree found something else than the one filter")
    return spent / repeats / len(topics)


class _Wire:
    """Measures over the wire, each at each size for every target in turn."""

    def __init__(self, targets: Sequence[Target], sizes: Sizes) -> None:
        self._targets = targets
        self._sizes = sizes

    def fan_out(self) -> Iterator[Point]:
        shape = Shape(payload_bytes=100)

        def take(target: Target, size: int) -> Throughput:
            block_bytes = FAN_BLOCK_BYTES if size >= 100 else BLOCK_BYTES
            each = sample_messages(target, shape) * block_bytes // BLOCK_BYTES * size
            return measure_fan_out(
                target,
                max(1, self._sizes.deliveries // each),
                shape=shape,
                subscribers=size,
                block_bytes=block_bytes,
            )

        return self._points(FAN_OUT, self._sizes.subscribers, take)

    def held(self) -> Iterator[Point]:
        shape = Shape(payload_bytes=100, topics=1_000)

        def take(target: Target, size: int) -> Throughput:
            clients = max(1, size // FILTERS_EACH)
            blocks = max(1, self._sizes.messages // sample_messages(target, shape))
            with holding_subscriptions(target, clients, size // clients):
                measure_stream(target, 1, shape=shape)  # every topic has its route from here on
                return measure_stream(target, blocks, shape=shape)

        return self._points(HELD, self._sizes.held, take)

    def _points(
        self, measure: str, sizes: Sequence[int], take: Callable[[Target, int], Throughput]
    ) -> Iterator[Point]:
        for size in sizes:
            for target in self._targets:
                _progress(f"{measure}: {size:,}, {target.name}")
                cost, why = None, ""
                try:
                    cost = take(target, size).broker_cpu_us_per_message
                except BenchmarkError as error:
                    why = str(error)
                    _progress(f"not measured: {why}")
                yield Point(measure=measure, target=target.name, size=size, cost=cost, why=why)


def measure_growth(sizes: Sizes, targets: Sequence[Target]) -> list[Point]:
    """Everything, over the wire first."""
    wire = _Wire(targets, sizes)
    points = [*wire.fan_out(), *wire.held()]
    return [*points, *tree_points(sizes.in_process)]


def draw(growth: Growth) -> str:
    """The picture of a run."""
    return render_svg(
        [
            _panel(growth, FAN_OUT, "Subscribers of one topic", "CPU us a delivery"),
            _panel(growth, HELD, "Subscriptions that do not match", "CPU us a message"),
            _panel(growth, TREE, "The tree of filters, in the process", "ns an operation"),
        ]
    )


def _panel(growth: Growth, measure: str, title: str, y_label: str) -> Panel:
    mine = [point for point in growth.points if point.measure == measure]
    series = [
        Series(
            name=target,
            points=[(p.size, p.cost) for p in mine if p.target == target and p.cost],
        )
        for target in dict.fromkeys(point.target for point in mine)
    ]
    return Panel(title=title, x_label=measure, y_label=y_label, series=series)


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


class Options(argparse.Namespace):
    """The command line."""

    quick: bool
    only: str
    into: Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--only", choices=NAMES, default="", help="one broker")
    parser.add_argument("--into", type=Path, default=ROOT / "docs", help="folder of what it writes")
    options = parser.parse_args(namespace=Options())
    machine = describe_machine()
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stockade-growth-"))
            targets = start_targets(stack, Path(folder), options.only)
            points = measure_growth(QUICK if options.quick else Sizes(), targets)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    growth = Growth(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine,
        versions={target.name: target.version for target in targets},
        timed=TIMED,
        points=tuple(points),
    )
    encoded = msgspec.json.format(msgspec.json.encode(growth), indent=2)
    (options.into / "growth.json").write_bytes(encoded + b"\n")
    (options.into / "growth.svg").write_text(draw(growth))
    return 0


if __name__ == "__main__":
    sys.exit(main())
