"""Takes the measures of `make bench`: targets take turns in every round, and figures are collected."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.blocks import BLOCK_BYTES, Shape
from benchmarks.lag import Buckets, lag_percentile, together
from benchmarks.machine import BenchmarkError
from benchmarks.measures import Measure, amount_for
from benchmarks.plan import Plan
from benchmarks.results import Figure, Note, Summary, percentile
from benchmarks.sampling import (
    KERNEL_IN_FLIGHT,
    Throughput,
    measure_ceiling,
    measure_kernel_calls,
    measure_round_trips,
)
from benchmarks.streams import WARM_UP_TRIPS
from benchmarks.targets import ALL_CORES, Target
from benchmarks.wire import FeatureRefused, Login

CEILING_BYTES = 400_000_000
"""For a second of the generator alone; it moves more."""

LATENCY, KERNELS, LAG, GENERATOR = "latency", "kernels", "loop lag", "generator"

CPU_REGION = (
    "user and system time of all processes of the broker, from the start signal to the last message, "
    "by the messages that were delivered"
)
TRIP_REGION = (
    "from before the send to the last byte of the answer, one client publishing 100 B to its own subscription, "
    f"QoS 0, {{trips}} trips a sample after {WARM_UP_TRIPS} to warm up"
)
KERNEL_REGION = (
    f"{{seconds:g}} s of calls of `zscore` (64 float32) with {KERNEL_IN_FLIGHT} under way, from the first send to the "
    "last answer; every answer equal to numpy's"
)
LONE_REGION = "from before the send to the answer, one call under way, {calls} a sample"
LAG_REGION = (
    "how much later than asked stockade's event loop ran a task, which it measures ten times a second, by its own "
    "histogram read just before and just after the load of a sample: upper bound of the bucket"
)


class Suite:
    """Collects figures over the rounds; a measure that fails is reported and the others go on.

    Attributes:
        figures: what was measured.
        summaries: what was measured in this process.
        notes: what a target does not offer.
        failures: what went wrong.
    """

    def __init__(self, targets: Sequence[Target], durable: Sequence[Target], plan: Plan) -> None:
        """Start with nothing.

        Args:
            targets: the brokers.
            durable: those of the measures that need messages on disk.
            plan: how much to measure.
        """
        self.figures: list[Figure] = []
        self.summaries: list[Summary] = []
        self.notes: list[Note] = []
        self.failures: list[str] = []
        self._targets = targets
        self._durable = durable
        self._lags: list[Buckets] = []
        self.plan = plan

    def throughput(self, measure: Measure) -> None:
        """Messages a second, what a message costs the broker, and how late the loop was meanwhile."""
        amounts: dict[str, int] = {}
        taken: dict[str, list[Throughput]] = {}

        def sample(target: Target) -> None:
            if target.name not in amounts:
                amounts[target.name] = amount_for(measure, target, self.plan.sample_s)
            one = measure.take(target, amounts[target.name])
            taken.setdefault(target.name, []).append(one)

        self.in_turns(measure.name, measure.group, sample, durable=measure.durable)
        for target, samples in taken.items():
            self._add_throughput(measure, target, samples)
            self._add_lag(f"{measure.name}: loop lag, worst", [one.lag for one in samples], 1.0)
            self._lags += [one.lag for one in samples]

    def loop_lag(self) -> None:
        """The 99th percentile of the loop lag under all loads so far; one load alone has too few measurements."""
        self._add_lag("all of these loads together: loop lag p99", [together(self._lags)], 0.99)

    def _add_throughput(self, measure: Measure, target: str, samples: list[Throughput]) -> None:
        rates = Figure(
            measure=measure.name,
            target=target,
            unit=measure.unit,
            better="higher",
            region=measure.region,
            samples=tuple(one.messages_per_s for one in samples),
            group=measure.group,
        )
        costs = Figure(
            measure=f"{measure.name}: broker CPU",
            target=target,
            unit="us/message",
            better="lower",
            region=CPU_REGION,
            samples=tuple(one.broker_cpu_us_per_message for one in samples),
            group=measure.group,
        )
        self.figures += [rates, costs]

    def _add_lag(self, name: str, lags: Sequence[Buckets], share: float) -> None:
        """A sample for each span; nothing for a target that does not tell."""
        bounds = [bound for lag in lags if (bound := lag_percentile(lag, share)) is not None]
        if bounds:
            self.figures.append(
                Figure(
                    measure=name,
                    target="stockade",
                    unit="ms",
                    better="lower",
                    region=LAG_REGION,
                    samples=tuple(bound * 1e3 for bound in bounds),
                    group=LAG,
                )
            )

    def round_trips(self) -> None:
        """Ping-pong latency, with broker and client on a core each and on the same one."""
        first, last = min(ALL_CORES), max(ALL_CORES)
        if first != last:
            self._round_trips("ping-pong, two cores", broker_core=first, client_core=last)
        self._round_trips("ping-pong, one core", broker_core=first, client_core=first)

    def _round_trips(self, name: str, *, broker_core: int, client_core: int) -> None:
        taken: dict[str, list[list[int]]] = {}

        def sample(target: Target) -> None:
            trips = measure_round_trips(
                target,
                payload_bytes=100,
                trips=self.plan.trips,
                broker_core=broker_core,
                client_core=client_core,
            )
            taken.setdefault(target.name, []).append(trips)

        self.in_turns(name, LATENCY, sample)
        region = TRIP_REGION.format(trips=self.plan.trips)
        for target, samples in taken.items():
            self.figures += _latencies(name, target, LATENCY, region, samples)

    def kernel_calls(self) -> None:
        """Kernel requests a second, and the latency of a lone one; only Stockade has kernels."""
        plan = self.plan
        rates: list[float] = []
        lone: list[list[int]] = []

        def sample(target: Target) -> None:
            if target.name == "stockade":
                called = measure_kernel_calls(
                    target, seconds=plan.kernel_s, lone_calls=plan.lone_calls
                )
                rates.append(called.answers / called.seconds)
                lone.append(called.lone_nanoseconds)

        self.in_turns("kernel requests", KERNELS, sample)
        if rates:
            requests = Figure(
                measure="kernel requests",
                target="stockade",
                unit="requests/s",
                better="higher",
                region=KERNEL_REGION.format(seconds=plan.kernel_s),
                samples=tuple(rates),
                group=KERNELS,
            )
            region = LONE_REGION.format(calls=plan.lone_calls)
            name = "lone kernel call"
            self.figures += [requests, *_latencies(name, "stockade", KERNELS, region, lone)]

    def ceiling(self, login: Login, server: tuple[str, str]) -> None:
        """What the generator can do without a broker: it must be far above every broker's figure."""
        region = "as for messages, but publisher and subscriber talk to each other directly"
        for payload_bytes in self.plan.payloads:
            shape = Shape(payload_bytes=payload_bytes)
            blocks = max(4, round(CEILING_BYTES * self.plan.sample_s / BLOCK_BYTES))
            one = measure_ceiling(login, server, shape, blocks)
            ceiling = Figure(
                measure=f"ceiling, {payload_bytes} B",
                target="generator",
                unit="messages/s",
                better="higher",
                region=region,
                samples=(one.messages_per_s,),
                group=GENERATOR,
            )
            self.figures.append(ceiling)

    def in_process(self, module: str) -> None:
        """A benchmark that needs no broker: `module.measure()` gives `Figure`s, or what `Summary` can be read from."""
        if importlib.util.find_spec(module) is None:
            _progress(f"{module} is not there: not measured")
            return
        _progress(f"{module}.measure()")
        try:
            for each in importlib.import_module(module).measure():
                if isinstance(each, Figure):
                    self.figures.append(each)
                else:
                    self.summaries.append(msgspec.convert(each, Summary, from_attributes=True))
        except Exception as error:  # noqa: BLE001 - one broken benchmark must not cost the others
            self.failures.append(f"`{module}`: {type(error).__name__}: {error}")

    def in_turns(
        self,
        name: str,
        group: str,
        sample: Callable[[Target], None],
        *,
        durable: bool = False,
        rounds: int = 0,
    ) -> None:
        """Let every target take its turn in every round; one that refuses or fails is left out from then on."""
        out: set[str] = set()
        rounds = rounds or self.plan.rounds
        for number in range(rounds):
            for target in self._durable if durable else self._targets:
                if target.name in out:
                    continue
                _progress(f"{name}, round {number + 1} of {rounds}, {target.name}")
                try:
                    sample(target)
                except FeatureRefused as refused:
                    out.add(target.name)
                    note = Note(measure=name, target=target.name, why=str(refused), group=group)
                    self.notes.append(note)
                except BenchmarkError as error:
                    out.add(target.name)
                    self.failures.append(f"{name}, {target.name}: {error}")


def _latencies(
    name: str, target: str, group: str, region: str, rounds: Sequence[Sequence[int]]
) -> list[Figure]:
    """p50 and p99 of every round, microseconds, from nanoseconds."""
    return [
        Figure(
            measure=f"{name} {label}",
            target=target,
            unit="us",
            better="lower",
            region=region,
            samples=tuple(percentile(one, share) / 1e3 for one in rounds),
            group=group,
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
