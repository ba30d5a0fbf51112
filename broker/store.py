"""What outlives the process: everything that is recorded, on disk by group commits.

*Rules of this file.*

- Recording is a few dictionary entries in Trio's thread. Encoding, sealing and the disk are a worker thread's.
- One transaction, and so one fsync, at a time. Whoever waits is told in the order in which they began to.
- INVARIANT: what was recorded is in the batch being collected, in the one being written, or on disk; a batch that could
  not be written comes back in front of what was collected meanwhile. So memory and disk never part for good.
- What fails is written again whole, from memory: nobody relies on an fsync that says yes after one that said no.

*Theory of operation.* `run` takes the batch and has it written; meanwhile the next one collects. With somebody waiting
it does so at once; rows nobody waits for (an acknowledgement by a subscriber, say) are left for LINGER_S to be written along
with others, because losing them only means that a message is sent again, which MQTT allows at QoS 1, and at QoS 2 is
told by what is on disk. Those who wait are called by a task of their own, so that the next commit is under way while
they are.

What `sync` promises of what was called durable:

- `always`: it is on the disk, if the disk does not lie.
- `interval`: it survives the end of this process, however that comes; when the machine stops, the last SYNC_S are lost.
- `never`: it survives the end of this process; when the machine stops, SQLite's file may be damaged as well.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio
from typing_extensions import override

from broker.store_batch import Batch
from broker.store_load import load
from broker.store_schema import StoreError, open_database
from broker.store_write import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from broker.records import (
        DelayedRecord,
        MessageRecord,
        QueuedRecord,
        RetainedRecord,
        Restored,
        SessionRecord,
        SubscriptionRecord,
    )
    from broker.store_schema import Database

__all__ = ["Store", "StoreError", "SyncMode"]

log: structlog.stdlib.BoundLogger = structlog.get_logger("stockade.broker.store")

T = TypeVar("T")

LINGER_S = (
    0.05  # rows nobody waits for wait for others: at 20 commits a second the disk is all but idle
)
RETRY_S = 0.5  # after a commit that failed
SYNC_S = 1.0  # `sync = interval`
CLOSE_S = 10.0  # for the last commit: a disk that takes longer takes for ever
CALLS_A_TURN = 64  # callbacks between two chances for other tasks: each may write to a socket


class SyncMode(StrEnum):
    """How durable what is called durable is; see the theory above."""

    ALWAYS = "always"
    INTERVAL = "interval"
    NEVER = "never"


_SYNCHRONOUS = {SyncMode.ALWAYS: "full", SyncMode.INTERVAL: "normal", SyncMode.NEVER: "off"}


class Store:
    """The broker's durable state. All methods but `open`, `load` and `close` belong to Trio's thread.

    *Resource handling*: holds a file and its lock from `open` until `run` ends, or `close`.

    Attributes:
        commits: transactions written.
        failed_commits: attempts that failed.
        written_rows: rows put and dropped by them.
    """

    def __init__(
        self,
        database: Database,
        *,
        sync: SyncMode,
        note_commit: Callable[[float, int], None],
    ) -> None:
        """Use an open file; see `open`."""
        self._database = database
        self._sync = sync
        self._note_commit = note_commit
        self._limiter = trio.CapacityLimiter(1)
        self._batch = Batch()
        self._writing: Batch | None = None
        self._recorded = trio.Event()
        self._wanted = trio.Event()
        self._ending = trio.Event()
        self._due: deque[tuple[Callable[[bool], None], bool]] = deque()
        self._has_due = trio.Event()
        self._closed = False
        self._failing = ""
        self._sync_failing = ""
        self._sync_at = float("inf")
        self.commits = 0
        self.failed_commits = 0
        self.written_rows = 0

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        key: bytes | None,
        sync: SyncMode,
        max_bytes: int,
        note_commit: Callable[[float, int], None] = lambda _seconds, _rows: None,
    ) -> Self:
        """Open a store, or make one. Blocks: the whole file is checked.

        Args:
            path: the file, its folder must exist.
            key: 32 bytes; None for a store that is not encrypted.
            sync: what durable means.
            max_bytes: size at which it counts as full; the log beside it may be some MiB more.
            note_commit: told seconds and rows of every commit.

        Raises:
            StoreError: it is damaged, foreign, in use, under another key, or open to others; says what to do.
        """
        database = open_database(path, key=key, synchronous=_SYNCHRONOUS[sync], max_bytes=max_bytes)
        return cls(database, sync=sync, note_commit=note_commit)

    @override
    def __repr__(self) -> str:
        state = "closed" if self._closed else self.failing or "sound"
        return (
            f"<Store {self._database.path} {self._sync} {state}, {self.pending_rows} rows pending>"
        )

    def load(self) -> Restored:
        """Return everything, verified; before anything is recorded. Blocks.

        Raises:
            StoreError: a row is not what was written, or SQLite refuses.
        """
        restored, repairs = load(self._database)
        if repairs:
            log.warning("store repaired", path=str(self._database.path), rows=repairs)
        return restored

    def close(self) -> None:
        """Close a store that `run` never ran for, or has ended for; what was recorded since is lost. Blocks."""
        self._closed = True
        self._database.connection.close()

    # ---- state ---------------------------------------------------------------------------------

    @property
    def failing(self) -> str:
        """Why the last commit failed; empty when it did not."""
        return self._failing or self._sync_failing

    @property
    def pending_rows(self) -> int:
        """Rows that are not on disk."""
        return self._batch.rows + (0 if self._writing is None else self._writing.rows)

    @property
    def pending_bytes(self) -> int:
        """What they take in memory, about."""
        return self._batch.bytes + (0 if self._writing is None else self._writing.bytes)

    # ---- recording -----------------------------------------------------------------------------

    def put_session(self, record: SessionRecord) -> None:
        """Insert or replace a session; not what belongs to it. An id that was dropped never comes back."""
        self._batch.put_session(record)
        self._recorded.set()

    def drop_session(self, session_id: int) -> None:
        """Drop a session and its subscriptions, queued, released and received rows."""
        self._batch.drop_session(session_id)
        self._recorded.set()

    def put_subscription(self, record: SubscriptionRecord) -> None:
        """Insert or replace a subscription."""
        self._batch.put_subscription(record)
        self._recorded.set()

    def drop_subscription(self, session_id: int, filter_: str) -> None:
        """Drop a subscription."""
        self._batch.drop_subscription(session_id, filter_)
        self._recorded.set()

    def put_message(self, record: MessageRecord) -> None:
        """Insert a message; its id was never used before."""
        self._batch.put_message(record)
        self._recorded.set()

    def drop_message(self, message_id: int) -> None:
        """Drop a message nothing refers to any more."""
        self._batch.drop_message(message_id)
        self._recorded.set()

    def put_queued(self, record: QueuedRecord) -> None:
        """Insert messages into a session's queue; a row with this key was dropped before."""
        self._batch.put_queued(record)
        self._recorded.set()

    def drop_queued(self, session_id: int, sequence: int) -> None:
        """Drop the row that begins with `sequence`."""
        self._batch.drop_queued(session_id, sequence)
        self._recorded.set()

    def settle(self, session_id: int, below: int) -> None:
        """Finish messages: queued rows that end at or below go, and released ones below; a row it cuts stays."""
        self._batch.settle(session_id, below)
        self._recorded.set()

    def put_released(self, session_id: int, sequences: Sequence[int]) -> None:
        """Note that the PUBREC of these messages came."""
        self._batch.put_released(session_id, sequences)
        self._recorded.set()

    def put_received(self, session_id: int, packet_ids: Sequence[int]) -> None:
        """Note QoS 2 messages taken from a client."""
        self._batch.put_received(session_id, packet_ids)
        self._recorded.set()

    def drop_received(self, session_id: int, packet_ids: Sequence[int]) -> None:
        """Note that they were released."""
        self._batch.drop_received(session_id, packet_ids)
        self._recorded.set()

    def put_retained(self, record: RetainedRecord) -> None:
        """Insert or replace the retained message of a topic."""
        self._batch.put_retained(record)
        self._recorded.set()

    def drop_retained(self, topic: str) -> None:
        """Drop the retained message of a topic."""
        self._batch.drop_retained(topic)
        self._recorded.set()

    def put_delayed(self, record: DelayedRecord) -> None:
        """Insert or replace a message to be published later."""
        self._batch.put_delayed(record)
        self._recorded.set()

    def drop_delayed(self, message_id: int) -> None:
        """Note that it was published."""
        self._batch.drop_delayed(message_id)
        self._recorded.set()

    # ---- waiting -------------------------------------------------------------------------------

    def when_durable(self, callback: Callable[[bool], None]) -> None:
        """Have a callback told once, in Trio's thread and in order, how what was recorded so far fares.

        True: it is on disk; with nothing pending that is said before this returns. False: it could not be written
        now; it stays collected and is tried again. After the end of `run`, False at once if something is pending.
        """
        if self._closed:
            callback(not self.pending_rows)
        elif self._batch.rows or self._batch.callbacks:
            self._batch.callbacks.append(callback)
            self._wanted.set()
        elif self._writing is not None:
            self._writing.callbacks.append(callback)
        elif self._due:
            self._due.append((callback, True))
        else:
            callback(True)  # noqa: FBT003  a callback's one fact

    async def flush(self) -> bool:
        """Wait for `when_durable`.

        Returns:
            Whether what was recorded before the call is on disk.
        """
        told, outcome = trio.Event(), [False]

        def note(durable: bool) -> None:  # noqa: FBT001  a callback's one fact
            outcome[0] = durable
            told.set()

        self.when_durable(note)
        await told.wait()
        return outcome[0]

    # ---- committing ----------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what is recorded, for the broker's life.

        *Cancellation*: commits what was recorded before, for at most CLOSE_S, and closes the store. Whoever still
        records must have ended, else what it records is lost.
        """
        last = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_until_ending, last)
                nursery.start_soon(self._call_back)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    last.deadline = trio.current_time() + CLOSE_S
                    self._ending.set()
                    self._recorded.set()
                    self._wanted.set()
        finally:
            self._closed = True
            self._call_the_rest()

    async def _commit_until_ending(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._commit_all()
            await self._in_thread(self._database.connection.close)
        if scope.cancelled_caught:
            log.error("store not closed: its disk does not answer", rows=self.pending_rows)

    async def _commit_all(self) -> None:
        while True:
            await self._wait_for_rows()
            while self._batch.rows or self._batch.callbacks:
                if await self._commit():
                    await self._sync_when_due()
                elif self._ending.is_set():
                    log.error("store not written at the end", rows=self.pending_rows)
                    return
                else:
                    with trio.move_on_after(RETRY_S):
                        await self._ending.wait()
                await self._linger()
            if self._ending.is_set():
                return
            await self._sync_when_due()

    async def _wait_for_rows(self) -> None:
        with trio.move_on_at(self._sync_at):
            await self._recorded.wait()
            await self._linger()

    async def _linger(self) -> None:
        if self._recorded.is_set():
            with trio.move_on_after(LINGER_S):
                await self._wanted.wait()

    async def _commit(self) -> bool:
        """Have the batch written and its callbacks called soon; whether it is on disk."""
        batch = self._take()
        begin = trio.current_time()
        error = await self._in_thread(self._write, batch) if batch.rows else None
        self._writing = None
        self._answer(batch, durable=error is None)
        if error is None:
            self._note_written(trio.current_time() - begin, batch.rows)
        else:
            self._take_back(batch, error)
        return error is None

    def _take(self) -> Batch:
        batch = self._writing = self._batch
        self._batch = Batch()
        if not self._ending.is_set():
            self._recorded = trio.Event()
            self._wanted = trio.Event()
        return batch

    def _write(self, batch: Batch) -> sqlite3.Error | None:
        """Runs in a worker thread."""
        try:
            write(self._database, batch)
        except sqlite3.Error as error:
            return error
        return None

    def _answer(self, batch: Batch, *, durable: bool) -> None:
        self._due.extend((callback, durable) for callback in batch.callbacks)
        batch.callbacks.clear()
        self._has_due.set()

    def _note_written(self, seconds: float, rows: int) -> None:
        if rows:
            self.commits += 1
            self.written_rows += rows
            self._note_commit(seconds, rows)
            if self._sync is SyncMode.INTERVAL:
                self._sync_at = min(self._sync_at, trio.current_time() + SYNC_S)
        if self._failing:
            self._failing = ""
            log.info("store writes again")

    def _take_back(self, batch: Batch, error: sqlite3.Error) -> None:
        self.failed_commits += 1
        if not self._failing:
            log.error("store cannot write", path=str(self._database.path), reason=str(error))
        self._failing = str(error)
        batch.absorb(self._batch)
        self._batch = batch
        self._recorded.set()
        if batch.callbacks:
            self._wanted.set()

    async def _in_thread(self, work: Callable[..., T], *values: object) -> T:
        return await trio.to_thread.run_sync(
            work, *values, abandon_on_cancel=True, limiter=self._limiter
        )

    # ---- `sync = interval` ---------------------------------------------------------------------

    async def _sync_when_due(self) -> None:
        if trio.current_time() < self._sync_at:
            return
        failure = await self._in_thread(self._sync_log)
        if failure and not self._sync_failing:
            log.error("store cannot sync", path=str(self._database.path), reason=failure)
        self._sync_failing = failure
        self._sync_at = trio.current_time() + RETRY_S if failure else float("inf")

    def _sync_log(self) -> str:
        """Runs in a worker thread; the reason why it failed, or nothing."""
        # SQLite's locks lie on the other file, so closing a descriptor of this one ends none (see store_schema).
        log_file = self._database.path.with_name(self._database.path.name + "-wal")
        try:
            handle = os.open(log_file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except FileNotFoundError:
            return ""  # nothing was written since it was emptied
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    # ---- calling -------------------------------------------------------------------------------

    async def _call_back(self) -> None:
        while True:
            await self._has_due.wait()
            self._has_due = trio.Event()
            while self._due:
                for _ in range(min(len(self._due), CALLS_A_TURN)):
                    callback, durable = self._due.popleft()
                    callback(durable)
                await trio.lowlevel.checkpoint()

    def _call_the_rest(self) -> None:
        for batch in (self._writing, self._batch):
            if batch is not None:
                self._answer(batch, durable=False)
        while self._due:
            callback, durable = self._due.popleft()
            callback(durable)
