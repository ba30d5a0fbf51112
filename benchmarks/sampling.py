"""One sample: start the generator's processes against one broker, let them run once, collect the result."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from benchmarks.kernel_calls import Called, KernelCaller
from benchmarks.load import PingPong, Publisher, Received, Role, Sink, Stream, Subscriber, Trips
from benchmarks.machine import ROOT, BenchmarkError
from benchmarks.targets import Target
from benchmarks.wire import Login, Shape, build_block

SAMPLE_DEADLINE_S = 30.0
"""After this a sample has failed; they are laid out for `SAMPLE_S`."""

SAMPLE_S = 1.5
"""How long the timed region of a throughput sample should last: bounded well below 4 s."""

KERNEL_SAMPLES = 64  # float32 in a window of `zscore`
KERNEL_IN_FLIGHT = 2048
"""Requests under way: two of the kernel's largest batches, one filling while one runs."""

CALIBRATION_S = 0.1
MAX_BLOCKS = 20_000  # some 2.6 GB


class SampleFailed(BenchmarkError):  # noqa: N818 - says what happened
    """A process of the generator failed; the message has its last words."""


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """One sample.

    Attributes:
        messages_per_s: over the timed region: first bytes at the subscriber to its last message.
        messages: in that region.
        seconds: its length.
        wire_mb_per_s: MQTT bytes, 1e6 a second.
        broker_cpu_us_per_message: user and system time of the broker's processes; 0 if unknown.
    """

    messages_per_s: float
    messages: int
    seconds: float
    wire_mb_per_s: float
    broker_cpu_us_per_message: float = 0.0


def measure_throughput(target: Target, shape: Shape, blocks: int) -> Throughput:
    """Publish `blocks` blocks and measure at the subscriber."""
    stream = Stream(shape=shape, blocks=blocks)
    subscriber = Subscriber(login=target.login, topic_filter="bench/#", stream=stream)
    publisher = Publisher(login=target.login, stream=stream)
    with _running(subscriber) as receiving:
        _await_line(receiving)
        with _running(publisher) as sending:
            _await_line(sending)
            before = target.cpu_seconds()
            _go(sending)
            received = msgspec.json.decode(_await_line(receiving), type=Received)
            return _throughput(received, target.cpu_seconds() - before)


def measure_ceiling(login: Login, server: tuple[str, str], shape: Shape, blocks: int) -> Throughput:
    """The same without a broker: what the generator can do at most on this machine."""
    stream = Stream(shape=shape, blocks=blocks)
    cert, key = server
    sink = Sink(cert=cert, key=key, ca=login.ca, stream=stream)
    with _running(sink) as receiving:
        port = int(_await_line(receiving))
        there = msgspec.structs.replace(login, host="127.0.0.1", port=port)
        publisher = Publisher(login=there, stream=stream, bare=True)
        with _running(publisher) as sending:
            _await_line(sending)
            _go(sending)
            return _throughput(msgspec.json.decode(_await_line(receiving), type=Received), 0.0)


def measure_round_trips(
    target: Target, *, payload_bytes: int, trips: int, broker_core: int, client_core: int
) -> list[int]:
    """Round trips of one client through the broker, nanoseconds.

    Both are kept on a core each (or on one): left alone, they land on one core or on two by chance, and
    waking a sleeping core takes several times what a broker takes.
    """
    role = PingPong(
        login=target.login,
        topic="bench/ping",
        payload_bytes=payload_bytes,
        trips=trips,
    )
    with _running(role) as process, target.on_cores(frozenset({broker_core})):
        _await_line(process)
        os.sched_setaffinity(process.pid, {client_core})
        _go(process)
        return msgspec.json.decode(_await_line(process), type=Trips).nanoseconds


def measure_kernel_calls(target: Target, *, seconds: float, lone_calls: int) -> Called:
    """Calls of the sample kernel by the client `sensor`, pipelined and then one at a time."""
    role = KernelCaller(
        login=target.logins["sensor"],
        results_topic="results/sensor/bench",
        samples=KERNEL_SAMPLES,
        in_flight=KERNEL_IN_FLIGHT,
        seconds=seconds,
        lone_calls=lone_calls,
    )
    with _running(role) as process:
        return msgspec.json.decode(_await_line(process), type=Called)


def blocks_for(target: Target, shape: Shape) -> int:
    """How many blocks take this broker about `SAMPLE_S`, by two short samples."""
    packets = build_block(shape).count
    blocks = 16
    for seconds in (CALIBRATION_S, SAMPLE_S):
        rate = measure_throughput(target, shape, blocks).messages_per_s
        blocks = max(4, min(MAX_BLOCKS, round(rate * seconds / packets)))
    return blocks


def _throughput(received: Received, cpu_seconds: float) -> Throughput:
    return Throughput(
        messages_per_s=received.messages / received.seconds,
        messages=received.messages,
        seconds=received.seconds,
        wire_mb_per_s=received.wire_bytes / received.seconds / 1e6,
        broker_cpu_us_per_message=cpu_seconds / received.messages * 1e6,
    )


@contextmanager
def _running(role: Role) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", msgspec.json.encode(role).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
        with suppress(BrokenPipeError):
            process.communicate(timeout=SAMPLE_DEADLINE_S)  # closes its input, which ends it
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _await_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(SAMPLE_DEADLINE_S):
            raise SampleFailed(f"no result within {SAMPLE_DEADLINE_S:.0f} s")
    line = process.stdout.readline()
    if not line:
        _, words = process.communicate(timeout=SAMPLE_DEADLINE_S)
        raise SampleFailed(
            words.strip().splitlines()[-1] if words.strip() else "the generator died"
        )
    return line
