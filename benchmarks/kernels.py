"""What a kernel costs through `KernelPool`, without broker or TLS, beside numpy in the same process.

`python -m benchmarks.kernels [--backend cpu|cuda]` prints the table; `measure()` returns it. For every size of a
submit: a lone call (submit to `done`), a stream of calls (`IN_FLIGHT_RECORDS` under way), and numpy computing the same
z-scores. All three run in every round, so a busy machine is busy for all of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import get_args

import msgspec
import numpy as np
import numpy.typing as npt
import trio

from benchmarks.machine import BUSY_LOAD, BenchmarkError, describe_machine
from gpu.batches import Payloads
from gpu.bundle import load_bundle, shipped_bundle
from gpu.errors import KernelFault
from gpu.plan import Backend
from gpu.pool import KernelPool
from gpu.toolchain import Toolchain

ROUNDS = 15
LONE_CALLS = 60
"""Lone calls a round: 900 samples a line, so that a 99th percentile means something."""

STREAM_RECORDS = 20_000
"""Records a stream carries in one round."""

IN_FLIGHT_RECORDS = 2048
"""Two of the kernel's largest batches: one fills while one runs."""

SIZES = (1, 16, 64, 256, 1024)
KERNEL = "zscore"
TOLERANCE = 1e-6
BUILD_S = 120.0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. Times are microseconds.

    Attributes:
        records: in one submit.
        lone_p50_us: a lone call, from submit to `done`.
        lone_p99_us: the same.
        stream_us: per record of a stream, median of the rounds.
        stream_p10_us: the same, tenth percentile.
        stream_p90_us: the same, ninetieth percentile.
        device_us: per record of a stream, what the worker measured around the kernel.
        overhead_us: median of (stream - device) of the rounds.
        numpy_us: per record, numpy in this process, same size, median of the rounds.
        batch: mean records in a batch of the stream.
    """

    records: int
    lone_p50_us: float
    lone_p99_us: float
    stream_us: float
    stream_p10_us: float
    stream_p90_us: float
    device_us: float
    overhead_us: float
    numpy_us: float
    batch: float


class _Size:
    """The samples of one size."""

    def __init__(self, pool: KernelPool, records: int) -> None:
        self._pool = pool
        rng = np.random.default_rng(records)
        self._windows = rng.normal(10, 3, (records, 64)).astype(np.float32)
        self._payloads = self._windows.view(np.uint8)
        self._expected = zscores(self._windows)
        self._records = records
        self._wrong = ""
        self._left = 0
        self._finished = trio.Event()
        self._lone: list[float] = []
        self._stream: list[float] = []
        self._device: list[float] = []
        self._numpy: list[float] = []
        self._batches: list[float] = []

    async def round(self) -> None:
        for _ in range(LONE_CALLS):
            self._lone.append(await self._timed(1, in_flight=1))
        before = self._pool.stats[KERNEL]
        calls = max(8, STREAM_RECORDS // self._records)
        spent = await self._timed(calls, in_flight=max(2, IN_FLIGHT_RECORDS // self._records))
        after = self._pool.stats[KERNEL]
        done = calls * self._records
        self._stream.append(spent / done)
        self._device.append((after.kernel_seconds - before.kernel_seconds) * 1e6 / done)
        self._batches.append(done / (after.batches - before.batches))
        start = perf_counter_ns()
        repeats = max(1, 256 // self._records)
        for _ in range(repeats):
            zscores(self._windows)
        self._numpy.append((perf_counter_ns() - start) / 1e3 / repeats / self._records)

    async def _timed(self, calls: int, *, in_flight: int) -> float:
        """Return microseconds for `calls` submits, at most `in_flight` unanswered."""
        self._left = calls
        self._finished = trio.Event()
        room = trio.Semaphore(in_flight)

        def done(result: Payloads | KernelFault) -> None:
            self._check(result)
            room.release()
            self._left -= 1
            if not self._left:
                self._finished.set()

        start = perf_counter_ns()
        for _ in range(calls):
            await room.acquire()
            if not self._pool.try_submit(KERNEL, self._payloads, done):
                await self._pool.submit(KERNEL, self._payloads, done)
        await self._finished.wait()
        spent = (perf_counter_ns() - start) / 1e3
        if self._wrong:
            raise BenchmarkError(self._wrong)
        return spent

    def _check(self, result: Payloads | KernelFault) -> None:
        """One record of every answer is compared with numpy: all of them would be timed as dispatch."""
        if isinstance(result, KernelFault):
            self._wrong = str(result)
        elif abs(float(result[-1].view(np.float32)[-1]) - self._expected[-1, -1]) > TOLERANCE:
            self._wrong = "the kernel's answer is not numpy's"

    def figure(self) -> Figure:
        overhead = [
            stream - device for stream, device in zip(self._stream, self._device, strict=True)
        ]
        return Figure(
            records=self._records,
            lone_p50_us=statistics.median(self._lone),
            lone_p99_us=statistics.quantiles(self._lone, n=100)[98],
            stream_us=statistics.median(self._stream),
            stream_p10_us=statistics.quantiles(self._stream, n=10)[0],
            stream_p90_us=statistics.quantiles(self._stream, n=10)[8],
            device_us=statistics.median(self._device),
            overhead_us=statistics.median(overhead),
            numpy_us=statistics.median(self._numpy),
            batch=statistics.mean(self._batches),
        )


def zscores(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What the kernel computes, by numpy."""
    wide = windows.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    scores: npt.NDArray[np.float64] = centred / wide.std(axis=1, keepdims=True)
    return scores


async def measure(backend: Backend, cache: Path) -> tuple[str, list[Figure]]:
    """Run all rounds; return the device and a line for every size."""
    said: list[str] = []
    pool = KernelPool(
        [load_bundle(shipped_bundle(KERNEL))],
        toolchain=Toolchain(cache_dir=cache),
        backend=backend,
        on_event=lambda event: said.append(event.reason),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        with trio.fail_after(BUILD_S):
            await pool.settled()
        if not pool.ready(KERNEL):
            raise BenchmarkError(pool.why(KERNEL))
        for records in SIZES:
            await _Size(pool, records).round()  # warms up and does not count
        sizes = [_Size(pool, records) for records in SIZES]
        for _ in range(ROUNDS):
            for size in sizes:
                await size.round()
        figures = [size.figure() for size in sizes]
        nursery.cancel_scope.cancel()
    return said[0], figures


def main() -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=get_args(Backend), default="cpu")
    backend: Backend = parser.parse_args().backend
    machine = describe_machine()
    print(
        f"{machine.cpu}, {machine.cores} cores, Python {machine.python}, Linux {machine.kernel},"
        f" commit {machine.commit[:12]}{' with changes' if machine.dirty else ''},"
        f" load before {machine.load_before}"
    )
    if machine.load_before > BUSY_LOAD * machine.cores:
        print("the machine is busy: these figures mean little")
    with tempfile.TemporaryDirectory() as folder:
        try:
            device, figures = trio.run(measure, backend, Path(folder) / "cache")
        except* BenchmarkError as errors:
            sys.exit(str(errors.exceptions[0]))
    print(
        f"`{KERNEL}` {device}; {ROUNDS} rounds, a warm-up before; wall-clock time. Timed region: lone call: submit to"
        f" `done`, {LONE_CALLS} a round; stream: first submit to last `done` of {STREAM_RECORDS:,} records,"
        f" {IN_FLIGHT_RECORDS} under way; numpy: the same z-scores in this process\n"
    )
    print(
        "records   lone p50   lone p99 |  records/s   us/record     p10     p90 |  device  overhead"
        "   numpy | mean batch"
    )
    for row in figures:
        print(
            f"{row.records:7} {row.lone_p50_us:7.0f} us {row.lone_p99_us:7.0f} us |"
            f" {1e6 / row.stream_us:10,.0f} {row.stream_us:11.2f} {row.stream_p10_us:7.2f} {row.stream_p90_us:7.2f} |"
            f" {row.device_us:7.2f} {row.overhead_us:9.2f} {row.numpy_us:7.2f} | {row.batch:10.0f}"
        )


if __name__ == "__main__":
    main()
