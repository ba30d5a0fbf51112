"""The measures of `make bench`, one function each; targets take turns in every round."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.machine import BenchmarkError
from benchmarks.results import Figure, Summary, percentile
from benchmarks.sampling import (
    Throughput,
    blocks_for,
    measure_ceiling,
    measure_kernel_calls,
    measure_round_trips,
    measure_throughput,
)
from benchmarks.targets import ALL_CORES, Target
from benchmarks.wire import Login, Shape
from mqtt.packets import Version

PAYLOADS = (16, 100, 1024)
ROUND_TRIPS = 3000
KERNEL_S = 2.0
LONE_CALLS = 500
CEILING_BLOCKS = 4000

THROUGHPUT_REGION = (
    "from the first bytes at the subscriber until it has the last message; one publisher and one "
    "subscriber in processes of their own, QoS 0, mutual TLS 1.3; first and last packet and all lengths verified"
)
CPU_REGION = (
    "user and system time of all processes of the broker, from the start signal to the last message"
)
TRIP_REGION = (
    f"from before the send to the last byte of the answer, one client publishing 100 B to its own "
    f"subscription, QoS 0, {ROUND_TRIPS} trips a sample after 300 to warm up"
)
KERNEL_REGION = (
    f"{KERNEL_S:g} s of calls of `zscore` (64 float32) with 2048 under way, from the first send to the last "
    "answer; every answer equal to numpy's"
)
LONE_REGION = f"from before the send to the answer, one call under way, {LONE_CALLS} a sample"


class Suite:
    """Collects figures over the rounds; a measure that fails is reported and the others go on."""

    def __init__(self, targets: Sequence[Target], *, rounds: int) -> None:
        self.figures: list[Figure] = []
        self.summaries: list[Summary] = []
        self.failures: list[str] = []
        self._targets = targets
        self._rounds = rounds

    def throughput(self, shape: Shape, name: str, unit: str) -> None:
        """Messages a second, and what a message costs the broker."""
        blocks: dict[str, int] = {}
        taken: dict[str, list[Throughput]] = {}

        def sample(target: Target) -> None:
            if target.name not in blocks:
                blocks[target.name] = blocks_for(target, shape)
            one = measure_throughput(target, shape, blocks[target.name])
            taken.setdefault(target.name, []).append(one)

        self._in_turns(name, sample)
        for target, samples in taken.items():
            rates = tuple(one.messages_per_s for one in samples)
            costs = tuple(one.broker_cpu_us_per_message for one in samples)
            self.figures += [
                Figure(
                    measure=name,
                    target=target,
                    unit=unit,
                    better="higher",
                    region=THROUGHPUT_REGION,
                    samples=rates,
                ),
                Figure(
                    measure=f"{name}: broker CPU",
                    target=target,
                    unit="us/message",
                    better="lower",
                    region=CPU_REGION,
                    samples=costs,
                ),
            ]

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
                trips=ROUND_TRIPS,
                broker_core=broker_core,
                client_core=client_core,
            )
            taken.setdefault(target.name, []).append(trips)

        self._in_turns(name, sample)
        for target, samples in taken.items():
            self.figures += _latencies(name, target, TRIP_REGION, samples)

    def kernel_calls(self) -> None:
        """Kernel requests a second, and the latency of a lone one; only Stockade has kernels."""
        rates: list[float] = []
        lone: list[list[int]] = []

        def sample(target: Target) -> None:
            if target.name == "stockade":
                called = measure_kernel_calls(target, seconds=KERNEL_S, lone_calls=LONE_CALLS)
                rates.append(called.answers / called.seconds)
                lone.append(called.lone_nanoseconds)

        self._in_turns("kernel requests", sample)
        if rates:
            requests = Figure(
                measure="kernel requests",
                target="stockade",
                unit="requests/s",
                better="higher",
                region=KERNEL_REGION,
                samples=tuple(rates),
            )
            self.figures += [
                requests,
                *_latencies("lone kernel call", "stockade", LONE_REGION, lone),
            ]

    def ceiling(self, login: Login, server: tuple[str, str]) -> None:
        """What the generator can do without a broker: it must be far above every broker's figure."""
        region = "as for messages, but publisher and subscriber talk to each other directly"
        for payload_bytes in PAYLOADS:
            shape = Shape(payload_bytes=payload_bytes)
            one = measure_ceiling(login, server, shape, CEILING_BLOCKS)
            ceiling = Figure(
                measure=f"ceiling, {payload_bytes} B",
                target="generator",
                unit="messages/s",
                better="higher",
                region=region,
                samples=(one.messages_per_s,),
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

    def _in_turns(self, name: str, sample: Callable[[Target], None]) -> None:
        broken: set[str] = set()
        for number in range(self._rounds):
            for target in self._targets:
                if target.name in broken:
                    continue
                _progress(f"{name}, round {number + 1} of {self._rounds}, {target.name}")
                try:
                    sample(target)
                except BenchmarkError as error:
                    broken.add(target.name)
                    self.failures.append(f"{name}, {target.name}: {error}")


def run_broker_measures(suite: Suite, *, quick: bool) -> None:
    for payload_bytes in (100,) if quick else PAYLOADS:
        shape = Shape(payload_bytes=payload_bytes)
        suite.throughput(shape, f"qos 0, {payload_bytes} B, one topic", "messages/s")
    for payload_bytes in (100,) if quick else PAYLOADS:
        shape = Shape(payload_bytes=payload_bytes, topics=2)
        suite.throughput(shape, f"qos 0, {payload_bytes} B, runs of one message", "runs/s")
    if not quick:
        shape = Shape(payload_bytes=100, version=Version.V311)
        suite.throughput(shape, "qos 0, 100 B, one topic, MQTT 3.1.1", "messages/s")
    suite.round_trips()
    suite.kernel_calls()


def _latencies(
    name: str, target: str, region: str, rounds: Sequence[Sequence[int]]
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
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
