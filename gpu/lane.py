"""One kernel in the broker: its queue, its worker process, and what happens when that process fails.

Theory of operation: `run` is a succession of lives. A life starts a worker, waits until it is ready, then hands it
batches (at most `DEPTH` at a time) and waits for reports, until the worker dies, breaks the protocol or misses
the deadline. Then the batch it was running fails, those behind it go back to the queue for the next life, and after
a growing pause the next life begins. Submits copy rows straight into shared memory and start a batch themselves when
one is due, so that a message needs no task switch on its way to the worker.

Rules of this file: whatever a worker says is compared with what it was told; nothing here raises because of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Final, NoReturn, assert_never

import trio
from typing_extensions import override

from gpu.arena import Arena, ArenaLayout
from gpu.batches import Batches, Done, Payloads, Segment, Slot, Ticket
from gpu.bundle import KernelBundle
from gpu.errors import FaultCode, KernelBusy, KernelFault, KernelNotReady, WorkerBroken
from gpu.events import BatchDone, EventKind, KernelEvent
from gpu.limits import PoolLimits
from gpu.messages import FailureCode, Report, ReportKind
from gpu.plan import WorkerPlan
from gpu.process import Ending, WorkerProcess
from gpu.stats import KernelStats

__all__ = ["DEPTH", "BatchDone", "EventKind", "KernelEvent", "Lane"]

DEPTH: Final = 2  # batches at the worker: one running, one that it starts without asking


class _Retry(Enum):
    SOON = auto()  # the next worker may do better
    LATER = auto()  # only if somebody changes this machine
    NEVER = auto()  # the source would have to change


class _LifeOver(Exception):  # noqa: N818  how a life ends, not an error
    """A worker's life ended; `code` and `reason` are for its callers."""

    def __init__(self, code: FaultCode, reason: str, retry: _Retry = _Retry.SOON) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retry = retry


class Lane:
    """One kernel's way through the broker.

    Args:
        bundle: the kernel.
        plan: what its workers are told.
        limits: bounds.
        on_event: told what happens; must not raise.
        on_batch: told about every batch that succeeded; must not raise.
        spawn: starts a worker.
    """

    def __init__(
        self,
        bundle: KernelBundle,
        *,
        plan: WorkerPlan,
        limits: PoolLimits,
        on_event: Callable[[KernelEvent], None],
        on_batch: Callable[[BatchDone], None],
        spawn: Callable[[WorkerPlan, Arena], WorkerProcess] = WorkerProcess.spawn,
    ) -> None:
        self.bundle = bundle
        self.stats = KernelStats()
        self.settled = trio.Event()
        self._plan = plan
        self._limits = limits
        self._on_event = on_event
        self._on_batch = on_batch
        self._spawn = spawn
        self._new_queue()
        self._process: WorkerProcess | None = None  # only while it is ready
        self._wait: trio.CancelScope | None = (
            None  # of the wait for a report, whose deadline submits shorten
        )
        self._turn = trio.Lock()  # submits that wait for room, in order
        self._room = trio.lowlevel.ParkingLot()
        self._why = "it is starting"
        self._refuse = False  # no worker is expected soon: submits fail instead of waiting
        self._up, self._down = trio.Event(), trio.Event()
        self._down.set()

    @override
    def __repr__(self) -> str:
        return f"Lane({self.bundle.name}, {self._why or 'ready'}, {self._batches.queued} queued)"

    def _new_queue(self) -> None:
        plan = self._plan
        layout = ArenaLayout(
            in_bytes=plan.in_bytes,
            out_bytes=plan.out_bytes,
            max_batch=plan.max_batch,
            slots=plan.slots,
        )
        self._arena = Arena.create(layout, name=plan.kernel)
        self._batches = Batches(self._arena, max_delay_s=self.bundle.max_delay_s)

    @property
    def ready(self) -> bool:
        """Does a worker take batches?"""
        return self._process is not None

    @property
    def why(self) -> str:
        """Why there is no worker; empty when there is one."""
        return self._why

    def snapshot(self) -> KernelStats:
        """Return the counters as they are now."""
        return replace(self.stats, queued=self._batches.queued)

    # ---- submits ------------------------------------------------------------------------------------------------

    def try_submit(self, payloads: Payloads, done: Done) -> bool:
        """Take all rows now, or none.

        Raises:
            KernelNotReady: no worker is expected soon.
        """
        self._verify_expected()
        if self._turn.locked() or self._batches.room < len(payloads):
            return False
        self._put(Ticket(len(payloads), done), payloads, 0)
        return True

    async def submit(self, payloads: Payloads, done: Done) -> None:
        """Take all rows, waiting for room when there is none.

        Raises:
            KernelBusy: there was no room in time.
            KernelNotReady: no worker is expected soon.

        Cancellation: `done` is then never called.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.try_submit(payloads, done):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        if self._turn.statistics().tasks_waiting >= self._limits.max_waiting_submits:
            self.stats.busy += 1
            raise KernelBusy(f"kernel `{self.bundle.name}` has too many callers in its queue")
        ticket = Ticket(len(payloads), done)
        try:
            with trio.fail_after(self._limits.busy_wait_s):
                async with self._turn:
                    await self._put_all(ticket, payloads)
        except trio.TooSlowError as error:
            ticket.abandon()
            self.stats.busy += 1
            raise KernelBusy(
                f"kernel `{self.bundle.name}` had no room for {self._limits.busy_wait_s} s"
            ) from error
        except BaseException:
            ticket.abandon()
            raise

    async def _put_all(self, ticket: Ticket, payloads: Payloads) -> None:
        taken = self._put(ticket, payloads, 0)
        while taken < len(payloads):
            await self._room.park()
            self._verify_expected()
            taken += self._put(ticket, payloads, taken)

    def _verify_expected(self) -> None:
        if self._refuse:
            raise KernelNotReady(f"kernel `{self.bundle.name}` is not ready: {self._why}")

    def _put(self, ticket: Ticket, payloads: Payloads, start: int) -> int:
        now = trio.current_time()
        taken = self._batches.put(ticket, payloads, start, now)
        self._dispatch(now)
        return taken

    # ---- batches ------------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """Hand over what is due, and see to it that the rest is handed over when it is."""
        process = self._process
        if process is None:
            return
        while self._batches.running < DEPTH and (slot := self._batches.take(now)):
            try:
                process.send(slot.order())
            except WorkerBroken:
                return  # it is gone: `_serve` sees the end of its socket next
        if self._wait is not None:
            self._wait.deadline = self._deadline()

    def _deadline(self) -> float:
        head = self._batches.head
        close_at = self._batches.close_at if self._batches.running < DEPTH else math.inf
        return min(head.started_at + self.bundle.deadline_s if head else math.inf, close_at)

    def _deliver(self, slot: Slot, nanoseconds: int) -> None:
        now = trio.current_time()
        # A worker's own measure is believed as far as it can be true.
        seconds = min(nanoseconds / 1e9, max(0.0, now - slot.started_at))
        self.stats.add_batch(slot.rows, seconds)
        self._on_batch(
            BatchDone(
                kernel=self.bundle.name,
                records=slot.rows,
                kernel_seconds=seconds,
                total_seconds=now - slot.opened_at,
            )
        )
        for segment in self._batches.finish(now):
            self._guarded(segment, slot.outputs[segment.at : segment.at + segment.count])
        self._batches.release()
        self._room.unpark_all()

    def _guarded(self, segment: Segment, outputs: Payloads) -> None:
        try:
            segment.ticket.deliver(segment.row, outputs)
        except Exception as error:  # noqa: BLE001  one caller's bug must not cost the batch's other callers their answers
            self._callback_failed(error)

    def _callback_failed(self, error: Exception) -> None:
        reason = f"a caller's callback raised {error!r}"
        self._tell(EventKind.CALLBACK_FAILED, reason)

    def _fail(self, tickets: list[Ticket], code: FaultCode, reason: str) -> None:
        fault = KernelFault(self.bundle.name, code, reason)
        for ticket in tickets:
            try:
                ticket.fail(fault)
            except Exception as error:  # noqa: BLE001  as above
                self._callback_failed(error)
        self._room.unpark_all()

    # ---- lives --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._refuse_when_long_down)
                await self._live_on()
        finally:
            self._why, self._refuse = "the broker is stopping", True
            self._fail(self._batches.drain(), FaultCode.STOPPED, self._why)
            self._arena.close()

    async def _live_on(self) -> None:
        pause_s = 0.0
        while pause_s < math.inf:
            await trio.sleep(pause_s)
            before = self.stats.batches
            over, ending = await self._live()
            pause_s = self._pause_after(over, pause_s, worked=self.stats.batches > before)
            self._mourn(over, ending, pause_s)
        await trio.sleep_forever()

    def _pause_after(self, over: _LifeOver, pause_s: float, *, worked: bool) -> float:
        limits = self._limits
        match over.retry:
            case _Retry.NEVER:
                return math.inf
            case _Retry.LATER:
                return limits.max_pause_s
            case _Retry.SOON:
                return (
                    limits.min_pause_s
                    if worked
                    else min(max(2 * pause_s, limits.min_pause_s), limits.max_pause_s)
                )
            case _:
                assert_never(over.retry)

    async def _live(self) -> tuple[_LifeOver, Ending]:
        try:
            process = self._spawn(self._plan, self._arena)
        except OSError as error:
            reason = f"no worker can be started: {error.strerror}"
            return _LifeOver(FaultCode.WORKER_DIED, reason), Ending(how="it never began")
        try:
            over = await self._life_of(process)
        except BaseException:
            process.kill()
            await process.end()
            raise
        return over, await process.end()

    async def _life_of(self, process: WorkerProcess) -> _LifeOver:
        try:
            await self._begin(process)
            await self._serve(process)
        except _LifeOver as over:
            return over
        except WorkerBroken as error:
            process.kill()
            return _LifeOver(FaultCode.PROTOCOL, f"its worker broke the protocol: {error}")
        except EOFError:
            return _LifeOver(FaultCode.WORKER_DIED, "its worker died")
        finally:
            self._process = None
            self._why = self._why or "its worker is being replaced"

    async def _begin(self, process: WorkerProcess) -> None:
        """Wait until the worker has built and loaded the kernel."""
        report: Report | None = None
        with trio.move_on_after(self._limits.start_s):
            while (report := process.receive()) is None:
                await process.wait_report()
        if report is None:
            process.kill()
            reason = f"its worker was not ready within {self._limits.start_s} s"
            raise _LifeOver(FaultCode.NOT_RESTARTED, reason)
        text = self._arena.read_text(report.text_bytes)
        if report.kind is ReportKind.FAILED:
            raise _LifeOver(FaultCode.NOT_RESTARTED, text, _retry_of(report.code))
        if report.kind is not ReportKind.READY:
            raise WorkerBroken(f"`{report.kind.name}` before it was ready")
        self._rise(process, text)

    def _rise(self, process: WorkerProcess, device: str) -> None:
        self._process = process
        self._why, self._refuse = "", False
        self._down = trio.Event()
        self._up.set()
        self.stats.starts += 1
        self.settled.set()
        self._tell(EventKind.READY, f"on {device}")
        self._dispatch(trio.current_time())

    async def _serve(self, process: WorkerProcess) -> NoReturn:
        """Take reports until the life is over, which is always said by an exception."""
        while True:
            with trio.CancelScope(deadline=self._deadline()) as self._wait:
                await process.wait_report()
            self._wait = None
            while (report := process.receive()) is not None:
                self._take_report(report)
            now = trio.current_time()
            head = self._batches.head
            if head is not None and now >= head.started_at + self.bundle.deadline_s:
                process.kill()
                raise _LifeOver(
                    FaultCode.DEADLINE,
                    f"it did not end within its deadline of {self.bundle.deadline_s} s",
                )
            self._dispatch(now)

    def _take_report(self, report: Report) -> None:
        head = self._batches.head
        if head is None or (report.slot, report.batch) != (head.index, head.batch):
            raise WorkerBroken("a report about a batch that it does not run")
        match report.kind:
            case ReportKind.DONE:
                self._deliver(head, report.nanoseconds)
            case ReportKind.FAULT:
                raise _LifeOver(FaultCode.of(report.code), self._arena.read_text(report.text_bytes))
            case ReportKind.READY | ReportKind.FAILED:
                raise WorkerBroken(f"`{report.kind.name}` while it runs a batch")
            case _:
                assert_never(report.kind)

    def _mourn(self, over: _LifeOver, ending: Ending, pause_s: float) -> None:
        """The worker is gone: its batch fails, the batches behind it stay in the queue."""
        reason = over.reason
        if over.code is FaultCode.WORKER_DIED and ending.how:
            reason = f"{reason}: {ending.how}"
        self._why = reason
        self.stats.faults += 1
        self._up = trio.Event()
        self._down.set()
        self.settled.set()
        kind = EventKind.FAULT if over.retry is _Retry.SOON else EventKind.NOT_READY
        retry_s = pause_s if math.isfinite(pause_s) else None
        self._tell(kind, reason, printed=ending.printed, retry_s=retry_s)
        self._fail(self._batches.fail_head(), over.code, reason)
        self._batches.give_back()
        if over.retry is not _Retry.SOON:
            self._refuse_callers()
        if not ending.reaped:  # a process that cannot be killed may still write into this memory
            self._fail(self._batches.drain(), FaultCode.WORKER_DIED, reason)
            self._arena.close()
            self._new_queue()

    async def _refuse_when_long_down(self) -> None:
        while True:
            await self._down.wait()
            with trio.move_on_after(self._limits.restart_wait_s) as patience:
                await self._up.wait()
            if patience.cancelled_caught and not self.ready:
                self._refuse_callers()
                await self._up.wait()

    def _refuse_callers(self) -> None:
        self._refuse = True
        self._fail(self._batches.drain(), FaultCode.NOT_RESTARTED, self._why)

    def _tell(
        self, kind: EventKind, reason: str, *, printed: str = "", retry_s: float | None = None
    ) -> None:
        self._on_event(
            KernelEvent(
                kind=kind,
                kernel=self.bundle.name,
                reason=reason,
                printed=printed,
                retry_s=retry_s,
            )
        )


def _retry_of(code: int) -> _Retry:
    return _Retry.NEVER if code == FailureCode.COMPILE_FAILED else _Retry.LATER
