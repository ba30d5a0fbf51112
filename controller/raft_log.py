"""The consensus log on PySyncObj: submit, barrier, ticks, snapshots.

Rules of this file:
- Fail-stop. An exception out of a tick ends `run`: the engine moves its commit index before it asks the journal to
  make it durable, so ticking on after a failed write would acknowledge what is not on disk.
- One task ticks; submitting only queues and wakes it. No thread, no lock.

Theory of operation. `submit` queues a command; the next tick appends it to the journal, which is fsynced once for all
commands of the tick; the tick after it commits, applies and calls back. With one member the commit rule is satisfied by
the member itself; with peers the same loop waits for them, and the fsync at the end of a tick is the barrier behind
which their messages leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import structlog
import trio
from typing_extensions import override

from controller.consensus import LogStatus, Role
from controller.errors import ConsensusFailed, ControllerError, NotCommitted, OutcomeUnknown
from controller.journal import Journal
from controller.raft import ALONE, SURELY_NOT_APPLIED, Engine, verify_entries
from controller.recovery import reconcile
from controller.snapshot import SnapshotStore, read_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.commands import Result
    from controller.consensus import StateMachine
    from controller.datadir import DataDirectory
    from controller.raft import Callback, RaftTiming

# One command: a rule is under 10 KiB; the bootstrap policy is the largest. Far below the batch size, so that the
# engine never splits one entry over several messages.
MAX_COMMAND_BYTES = 256 << 10
# Commands waiting for an outcome; more are refused. At 3 ms a commit this is a queue of well under a second.
MAX_PENDING_COMMANDS = 1024
# Ticks after one wake-up while entries wait for their commit: append, commit and apply need two.
MAX_TICKS_PER_WAKE = 4
# Pause between ticks until the first election is over, in seconds.
_ELECTION_TICK_S = 0.01
# The same while commands wait for their outcome.
_BUSY_TICK_S = 0.001


class _Waiter:
    """One submitted command and what became of it."""

    __slots__ = ("done", "reason", "result")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: object = None
        self.reason: int | None = None

    def resolve(self, result: object, reason: int) -> None:
        self.result, self.reason = result, reason
        self.done.set()

    def verify_applied(self) -> object:
        """Return the result, or raise what is known about the outcome."""
        if self.reason == 0:
            return self.result
        if self.reason in SURELY_NOT_APPLIED:
            raise NotCommitted(
                f"the command was not applied: {SURELY_NOT_APPLIED[self.reason]}; try again"
            )
        raise OutcomeUnknown(
            "no confirmation in time; repeat with the same request id to learn the outcome"
        )


class RaftLog:
    """A consensus log on PySyncObj; today with one member.

    Resource handling: holds journal and engine until `close`, which `run` calls when it ends.
    """

    def __init__(
        self,
        directory: DataDirectory,
        *,
        node_id: str,
        machine: StateMachine,
        timer: Callable[[], float],
        on_sync: Callable[[float], None] = lambda _seconds: None,
        timing: RaftTiming = ALONE,
    ) -> None:
        """Open journal and snapshot, and make them agree.

        Args:
            directory: the locked data directory.
            node_id: this member's id; storage of another member is refused.
            machine: what committed commands drive; it must be empty.
            timer: a monotonic clock in seconds.
            on_sync: called with the seconds of every fsync of the journal.
            timing: periods, deadlines and the size that causes a snapshot.

        Raises:
            StorageDamaged: what is on disk is damaged or incomplete; says what to do.
            ConsensusFailed: the library is not the reviewed one.
        """
        self._node_id = node_id
        self._timing = timing
        self._timer = timer
        self._log = structlog.get_logger("stockade.controller.raft")
        self._role = Role.FOLLOWER
        self._wake = trio.Event()
        self._waiting: set[_Waiter] = set()
        self._next_snapshot = timer()
        self._closed = False
        snapshot = read_snapshot(directory.snapshot_path)
        self._journal = Journal(
            directory.journal_path, node_id=node_id, timer=timer, on_sync=on_sync
        )
        try:
            verify_entries(self._journal)
            self.replayed = reconcile(self._journal, snapshot, node_id=node_id)
            self._snapshots = SnapshotStore(
                directory.snapshot_path,
                machine,
                node_id=node_id,
                index=0 if snapshot is None else snapshot.last[1],
            )
            self._journal.before_compact = self._snapshots.make_durable
            self._engine = Engine(
                node_id=node_id,
                journal=self._journal,
                snapshots=self._snapshots,
                snapshot_path=directory.snapshot_path,
                machine=machine,
                timing=timing,
                max_pending=MAX_PENDING_COMMANDS,
                on_role=self._on_role,
            )
        except BaseException:
            self._journal.close()
            raise

    def _on_role(self, role: int) -> None:
        self._role = (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)[role]

    # --- commands ----------------------------------------------------------------------------------------------

    async def submit(self, command: bytes) -> Result:
        """Replicate a command and wait until it is committed, on disk and applied here.

        Cancellation: the command may be applied nevertheless.

        Raises:
            NotCommitted: it was surely not applied.
            OutcomeUnknown: it may have been; repeat it with the same request id.
        """
        if len(command) > MAX_COMMAND_BYTES:
            raise NotCommitted(f"the command has {len(command)} bytes, at most {MAX_COMMAND_BYTES}")
        return cast(
            "Result", await self._commit(lambda done: self._engine.replicate(command, done))
        )

    async def barrier(self) -> None:
        """Wait until everything acknowledged before this call is applied here: one replicated no-op.

        Raises:
            NotCommitted, OutcomeUnknown: this member could not prove it in time.
        """
        await self._commit(self._engine.replicate_no_op)

    async def _commit(self, enqueue: Callable[[Callback], None]) -> object:
        if self._closed:
            raise NotCommitted("this member is shutting down")
        if len(self._waiting) >= MAX_PENDING_COMMANDS:
            raise NotCommitted(f"{MAX_PENDING_COMMANDS} commands are waiting already; try again")
        waiter = _Waiter()
        self._waiting.add(waiter)
        try:
            enqueue(waiter.resolve)
            self._wake.set()
            with trio.move_on_after(self._timing.submit_deadline_s):
                await waiter.done.wait()
        finally:
            self._waiting.discard(waiter)
        return waiter.verify_applied()

    # --- the ticker --------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive the engine until cancelled; started when the state is known to be complete.

        Raises:
            JournalBroken: writing failed.
            ConsensusFailed: the engine failed.
        """
        complete: _Waiter | None = None
        announced = False
        try:
            while True:
                self._tick()
                if complete is None and self._role is Role.LEADER:
                    complete = _Waiter()
                    self._engine.replicate_no_op(complete.resolve)
                    self._wake.set()
                if complete is not None and not announced and complete.done.is_set():
                    complete.verify_applied()
                    announced = True
                    task_status.started()
                with trio.move_on_after(self._pause(announced=announced)):
                    await self._wake.wait()
                self._wake = trio.Event()
        finally:
            self.close()

    def _pause(self, *, announced: bool) -> float:
        """Return how long to sleep when nobody wakes us: short during the first election and while somebody waits.

        A tick appends for `heartbeat_s` at most, so a burst may need more than one wake-up.
        """
        if any(not waiter.done.is_set() for waiter in self._waiting):
            return _BUSY_TICK_S
        return self._timing.tick_s if announced else min(self._timing.tick_s, _ELECTION_TICK_S)

    def _tick(self) -> None:
        """Append what was submitted, make it durable, commit and apply it."""
        try:
            for _ in range(MAX_TICKS_PER_WAKE):
                self._engine.tick()
                self._journal.sync()
                self._snapshots.verify_loaded()
                if self._engine.applied_index >= self._journal[-1][1]:
                    break
            self._compact()
        except ControllerError:
            raise
        except Exception as error:
            raise ConsensusFailed(
                f"the consensus engine failed ({error!r}): start the controller again"
            ) from error

    def _compact(self) -> None:
        """Write a snapshot when the journal has grown, and cut the journal at once."""
        grown = len(self._journal) > self._timing.compact_entries
        if (
            not (grown or self._journal.bytes > self._timing.compact_bytes)
            or self._timer() < self._next_snapshot
        ):
            return
        start, before = self._timer(), len(self._journal)
        self._engine.compact()
        self._journal.sync()
        if self._snapshots.failed is not None:
            self._log.error("snapshot failed", error=str(self._snapshots.failed), entries=before)
            self._snapshots.failed = None
            self._next_snapshot = self._timer() + self._timing.snapshot_retry_s
            return
        self._log.info(
            "snapshot written",
            index=self._snapshots.index,
            bytes=self._snapshots.bytes_written,
            entries_dropped=before - len(self._journal),
            seconds=round(self._timer() - start, 4),
        )

    def status(self) -> LogStatus:
        """Return a look at the log; never waits."""
        engine = self._engine
        return LogStatus(
            node_id=self._node_id,
            members=(self._node_id,),
            role=self._role,
            leader=engine.leader,
            term=engine.term,
            commit_index=engine.commit_index,
            applied_index=engine.applied_index,
            first_index=self._journal[0][1],
            last_index=self._journal[-1][1],
            snapshot_index=self._snapshots.index,
            syncs=self._journal.syncs,
            pending=len(self._waiting),
            instance=self._journal.instance,
        )

    def close(self) -> None:
        """End: whoever waits learns that the outcome is unknown; the journal is synced and closed."""
        if self._closed:
            return
        self._closed = True
        for waiter in self._waiting:
            waiter.done.set()
        self._engine.destroy()

    @override
    def __repr__(self) -> str:
        return f"<RaftLog {self._node_id} {self._role} {self._journal!r}>"
