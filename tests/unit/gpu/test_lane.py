"""A lane with hostile and failing workers: real processes that keep no rule but the descriptors' order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from gpu.arena import Arena
from gpu.errors import FaultCode, KernelFault, KernelNotReady
from gpu.events import BatchDone, EventKind, KernelEvent
from gpu.lane import Lane
from gpu.limits import PoolLimits
from gpu.plan import WorkerPlan
from gpu.process import WorkerProcess
from tests.kernels import SCALE, Answer, make_plan, rows_of, write_bundle

PRELUDE = """
import os, socket, struct, sys, time
link = socket.socket(fileno=int(sys.argv[3]))
def say(kind, slot=0, code=0, text=0, batch=0, nanoseconds=0):
    link.send(struct.pack("<IIIIQQ", kind, slot, code, text, batch, nanoseconds))
READY, FAILED, DONE, FAULT = 1, 2, 3, 4
def order():
    return struct.unpack("<IIQ", link.recv(64))
"""
QUICK = PoolLimits(slots=2, min_pause_s=0.01, max_pause_s=0.05, restart_wait_s=5, busy_wait_s=0.2)


class Rig:
    """A lane whose workers run `code`, and what it told."""

    def __init__(self, folder: Path, code: str, limits: PoolLimits, **keys: float) -> None:
        bundle = write_bundle(folder, "scale", SCALE, {"max_batch": 1, "deadline_ms": 5000, **keys})
        self.events: list[KernelEvent] = []
        self.batches: list[BatchDone] = []
        self.spawned = 0
        self._code = PRELUDE + code
        self.lane = Lane(
            bundle,
            plan=make_plan(bundle),
            limits=limits,
            on_event=self.events.append,
            on_batch=self.batches.append,
            spawn=self._spawn,
        )

    def _spawn(self, plan: WorkerPlan, arena: Arena) -> WorkerProcess:
        self.spawned += 1
        return WorkerProcess.spawn(plan, arena, program=("-P", "-c", self._code))

    async def fault(self) -> KernelFault:
        """Submit a row; return the fault it ends in."""
        answer = Answer()
        await self.lane.submit(rows_of(1), answer.done)
        result = await answer.get()
        assert isinstance(result, KernelFault)
        return result

    async def until(self, kind: EventKind, count: int = 1) -> list[KernelEvent]:
        with trio.fail_after(20):
            while True:
                found = [event for event in self.events if event.kind is kind]
                if len(found) >= count:
                    return found
                await trio.sleep(0.005)


@asynccontextmanager
async def hostile(
    folder: Path, code: str, *, limits: PoolLimits = QUICK, **keys: float
) -> AsyncIterator[Rig]:
    rig = Rig(folder, code, limits, **keys)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.lane.run)
        yield rig
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("slot, n, batch = order(); say(DONE, slot=slot, batch=batch + 1)", "does not run"),
        ("slot, n, batch = order(); say(DONE, slot=slot + 1, batch=batch)", "does not run"),
        ("slot, n, batch = order(); say(READY, slot=slot, batch=batch)", "`READY` while it runs"),
        ("slot, n, batch = order(); say(99, slot=slot, batch=batch)", "unknown kind 99"),
        ("slot, n, batch = order(); say(FAULT, slot, 1, 2**20, batch)", "a text of 1048576 bytes"),
        ("slot, n, batch = order(); say(DONE, slot, 0, 0, batch, 2**63)", "a batch of"),
        ("order(); link.send(b'?')", "a message of 1 bytes"),
        ("order(); link.send(b'x' * 5000)", "a message of"),
        ("slot, n, batch = order(); say(DONE, slot, batch=batch); say(DONE, slot, batch=batch)", None),
    ],
)  # fmt: skip
async def test_worker_that_breaks_the_protocol_is_ended_and_its_batch_fails(
    tmp_path: Path, code: str, words: str | None
) -> None:
    async with hostile(tmp_path, f"say(READY); {code}; time.sleep(60)") as rig:
        if words is None:  # the batch is answered by the first of two, the second breaks the rules
            await rig.lane.submit(rows_of(1), Answer().done)
            (event, *_) = await rig.until(EventKind.FAULT)
            assert "broke the protocol" in event.reason
            return
        fault = await rig.fault()
        assert fault.code is FaultCode.PROTOCOL
        assert "its worker broke the protocol" in fault.reason
        assert words in fault.reason
        await rig.until(EventKind.READY, count=2)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("say(DONE); time.sleep(60)", "`DONE` before it was ready"),
        ("os._exit(7)", "it ended with status 7"),
        ("raise SystemExit", "its worker died"),
    ],
)
async def test_worker_that_never_gets_ready_is_tried_again_after_a_growing_pause(
    tmp_path: Path, code: str, words: str
) -> None:
    async with hostile(tmp_path, code) as rig:
        faults = await rig.until(EventKind.FAULT, count=4)
        assert words in faults[0].reason
        pauses = [event.retry_s for event in faults[:4]]
        assert pauses == [0.01, 0.02, 0.04, 0.05], "bounded"
        assert not rig.lane.ready
        assert words in rig.lane.why


async def test_lying_clock_is_believed_only_as_far_as_it_can_be_true(tmp_path: Path) -> None:
    code = "say(READY); slot, n, batch = order(); say(DONE, slot, batch=batch, nanoseconds=10**14); time.sleep(60)"
    async with hostile(tmp_path, code) as rig:
        answer = Answer()
        await rig.lane.submit(rows_of(1), answer.done)
        await answer.get()
        assert rig.lane.stats.kernel_seconds < 20
        (done,) = rig.batches
        assert done.kernel_seconds <= done.total_seconds


async def test_silent_worker_misses_its_start(tmp_path: Path) -> None:
    limits = PoolLimits(slots=2, start_s=0.2, min_pause_s=0.01)
    async with hostile(tmp_path, "time.sleep(60)", limits=limits) as rig:
        (event, *_) = await rig.until(EventKind.FAULT)
        assert event.reason == "its worker was not ready within 0.2 s"


async def test_worker_that_takes_orders_but_never_answers_is_killed_at_the_deadline(
    tmp_path: Path,
) -> None:
    async with hostile(tmp_path, "say(READY); time.sleep(60)", deadline_ms=200) as rig:
        fault = await rig.fault()
        assert fault.code is FaultCode.DEADLINE
        assert fault.reason == "it did not end within its deadline of 0.2 s"


async def test_callers_wait_for_a_worker_no_longer_than_the_limit(tmp_path: Path) -> None:
    limits = PoolLimits(slots=2, restart_wait_s=0.1, min_pause_s=0.01, max_pause_s=0.02)
    async with hostile(tmp_path, "time.sleep(0.3); os._exit(1)", limits=limits) as rig:
        fault = await rig.fault()
        assert fault.code is FaultCode.NOT_RESTARTED
        with pytest.raises(KernelNotReady):
            rig.lane.try_submit(rows_of(1), Answer().done)
        assert rig.lane.snapshot().queued == 0


@pytest.mark.parametrize(("code", "retry"), [(2, None), (1, 0.05), (0, 0.05)])
async def test_source_that_does_not_compile_is_not_tried_again_but_a_machine_may_be_mended(
    tmp_path: Path, code: int, retry: float | None
) -> None:
    async with hostile(tmp_path, f"say(FAILED, code={code}); os._exit(3)") as rig:
        (event, *_) = await rig.until(EventKind.NOT_READY)
        assert event.retry_s == retry
        with pytest.raises(KernelNotReady):
            await rig.lane.submit(rows_of(1), Answer().done)
        if retry is None:
            await trio.sleep(0.2)
            assert rig.spawned == 1
        else:
            await rig.until(EventKind.NOT_READY, count=2)


async def test_system_without_room_for_a_process_is_tried_again(tmp_path: Path) -> None:
    async with hostile(tmp_path, "say(READY); time.sleep(60)") as rig:
        await rig.until(EventKind.READY)

    def refuse(plan: WorkerPlan, arena: Arena) -> WorkerProcess:
        raise OSError(11, "Resource temporarily unavailable")

    (tmp_path / "other").mkdir()
    other = Rig(tmp_path / "other", "", QUICK)
    other.lane._spawn = partial(refuse)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.lane.run)
        faults = await other.until(EventKind.FAULT, count=2)
        assert "no worker can be started: Resource temporarily" in faults[0].reason
        nursery.cancel_scope.cancel()


async def test_lane_says_what_it_does(tmp_path: Path) -> None:
    async with hostile(tmp_path, "say(READY); time.sleep(60)") as rig:
        await rig.until(EventKind.READY)
        assert repr(rig.lane) == "Lane(scale, ready, 0 queued)"
