"""What `stockade demo` does: the whole path once, with real data, and a table of what happened.

The samples of this host's `/proc` counters go as MQTT requests over mutual TLS through the decision
caches and the controller into the CUDA kernel `zscore` and back; every answer is compared with
numpy. All figures of the table were measured in this run: by the client's side here, or read from
the broker's metrics page.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from certs.contexts import client_context
from cli.demo_report import render
from cli.failure import CommandFailed
from cli.folder import make_folder
from cli.ports import FREE
from cli.samples import WINDOW, stream, zscores
from cli.scrape import BrokerFigures, scrape
from cli.system import run_system
from client.connection import connect
from client.errors import KernelFailed, NoAnswer, PublishRefused
from client.kernel import RecordShape

if TYPE_CHECKING:
    import ssl
    from contextlib import AbstractAsyncContextManager

    from rich.console import Console

    from cli.ready import ClientFiles, Ready
    from cli.samples import Windows
    from client.connection import Client
    from client.kernel import KernelCall

MAX_STREAM_S = 60.0  # a quiet host moves few counters: the demo ends here even with fewer messages
CALL_S = 10.0  # seconds an answer may take; the first call may wait for the kernel to be compiled
# The system is ready once every kernel is, or is known not to be; this is for one that is just being replaced.
KERNEL_READY_S = 5.0
# The kernel computes in float32 in its own order, numpy in float64: see docs/kernels.md.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-4
REFUSED_TOPICS = ("telemetry/forged", "orders/forged")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened, as this side saw it.

    Attributes:
        sent: requests sent.
        answered: answers received.
        equal: answers equal to numpy within the tolerance.
        counters: `/proc` counters watched.
        seconds: from the first request to the last answer.
        call_seconds: seconds spent waiting for answers only, without sampling.
        seen_by_viewer: results the viewer was delivered.
        refusals: what the viewer was told when it tried to publish: topic, reason code, reason string.
        figures: the broker's own counts at the end.
    """

    sent: int = 0
    answered: int = 0
    equal: int = 0
    counters: int = 0
    seconds: float = 0.0
    call_seconds: float = 0.0
    seen_by_viewer: int = 0
    refusals: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])
    figures: BrokerFigures | None = None

    def complaint(self) -> str:
        """What went wrong; empty when all is as promised."""
        if self.answered != self.sent or not self.sent:
            return f"{self.sent} requests were sent but {self.answered} answers came"
        if self.equal != self.answered:
            return f"{self.answered - self.equal} of {self.answered} answers differ from numpy"
        if len(self.refusals) != len(REFUSED_TOPICS):
            return "the broker let the viewer publish, which the policy forbids"
        if not self.seen_by_viewer:
            return "the viewer, who may read results, was delivered none"
        return ""


async def demonstrate(root: Path, messages: int, console: Console) -> None:
    """Run a system in `root`, send `messages` windows through its kernel, print what happened.

    Args:
        root: the system's folder.
        messages: requests to send.
        console: where to show it.

    Raises:
        CommandFailed: something was not as promised; the message says what.
    """
    outcome = Outcome()

    async def body(ready: Ready) -> None:
        console.print(
            f"broker on {ready.broker.mqtts} and {ready.broker.wss}, "
            f"controller on {ready.controller.rpc}: running as two processes, mutual TLS only"
        )
        await _act(ready, outcome, messages, console)

    console.print("making a development PKI, starting a controller and a broker ...")
    await run_system(make_folder(root), bench=False, ports=FREE, body=body)
    console.print(render(outcome))
    if complaint := outcome.complaint():
        raise CommandFailed(complaint)


async def _act(ready: Ready, outcome: Outcome, messages: int, console: Console) -> None:
    host, _, port = ready.broker.mqtts.rpartition(":")
    async with (
        connect(
            host=host,
            port=int(port),
            context=_context(ready.clients["viewer"]),
            client_id="viewer-demo",
        ) as viewer,
        _connect_sensor(ready, "sensor-demo-1") as sensor,
        # The same device once more: its questions are answered by the broker's L2, not the controller.
        _connect_sensor(ready, "sensor-demo-2") as second,
        trio.open_nursery() as nursery,
    ):
        kernel = _kernel_of(sensor)
        await _wait_for_kernel(kernel)
        await viewer.subscribe("telemetry/#", "results/#")
        nursery.start_soon(_count_messages, viewer, outcome)
        await _stream((sensor, second), outcome, messages, console)
        for topic in REFUSED_TOPICS:
            await _try_forbidden(viewer, topic, outcome)
        outcome.figures = await scrape(ready)
        nursery.cancel_scope.cancel()


async def _count_messages(viewer: Client, outcome: Outcome) -> None:
    async for message in viewer.messages:
        if message.topic.startswith("results/"):
            outcome.seen_by_viewer += 1


async def _stream(
    sensors: tuple[Client, ...], outcome: Outcome, messages: int, console: Console
) -> None:
    """Send windows until `messages` were answered or `MAX_STREAM_S` passed; compare every answer."""
    turns = itertools.cycle(sensors)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    rounds = stream()
    started = trio.current_time()
    with progress:
        bar = progress.add_task("windows of /proc counters through kernel/zscore", total=messages)
        async for sampled in rounds:
            outcome.counters = sampled.counters
            windows = sampled.windows[: messages - outcome.sent]
            if len(windows):
                sensor = next(turns)
                await _call(_kernel_of(sensor), windows, outcome)
                await sensor.publish("telemetry/proc", windows[-1].tobytes())
            progress.update(bar, completed=outcome.answered)
            if outcome.sent >= messages or trio.current_time() - started > MAX_STREAM_S:
                break
    await rounds.aclose()
    outcome.seconds = trio.current_time() - started


async def _call(kernel: KernelCall, windows: Windows, outcome: Outcome) -> None:
    before = trio.current_time()
    outcome.sent += len(windows)
    answers = await kernel.many(windows)
    outcome.call_seconds += trio.current_time() - before
    outcome.answered += len(answers)
    close = np.isclose(
        answers, zscores(windows), rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE
    ).all(axis=1)
    outcome.equal += int(close.sum())


def _connect_sensor(ready: Ready, client_id: str) -> AbstractAsyncContextManager[Client]:
    host, _, port = ready.broker.mqtts.rpartition(":")
    return connect(
        host=host,
        port=int(port),
        context=_context(ready.clients["sensor"]),
        client_id=client_id,
        reply_prefix="results/sensor",
    )


def _kernel_of(sensor: Client) -> KernelCall:
    record = RecordShape(dtype="float32", shape=(WINDOW,))
    return sensor.kernel("zscore", takes=record, gives=record, deadline_s=CALL_S)


async def _wait_for_kernel(kernel: KernelCall) -> None:
    """The broker listens while the kernel is still being compiled; ask until it answers."""
    error = "it did not answer"
    with trio.move_on_after(KERNEL_READY_S):
        while True:
            try:
                await kernel(np.zeros(WINDOW, np.float32))
            except (KernelFailed, NoAnswer, PublishRefused) as failure:
                error = str(failure)
                await trio.sleep(0.2)
            else:
                return
    message = f"the kernel did not become ready within {KERNEL_READY_S:g} s: {error}"
    raise CommandFailed(message)


async def _try_forbidden(viewer: Client, topic: str, outcome: Outcome) -> None:
    try:
        await viewer.publish(topic, b"1", qos=1)
    except PublishRefused as refused:
        outcome.refusals.append((topic, int(refused.reason), refused.reason_string))


def _context(files: ClientFiles) -> ssl.SSLContext:
    return client_context(
        certificate=Path(files.cert), key=Path(files.key), ca=Path(files.ca), alpn=["mqtt"]
    )
