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
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import structlog
import trio
from typing_extensions import override

from broker.faults import Faults
from broker.store_batch import Batch
from broker.store_fetch import fetch
from broker.store_load import load
from broker.store_open import open_database
from broker.store_recorder import Recorder
from broker.store_schema import StoreError, StoreUnusable
from broker.store_write import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Self

    from broker.records import MessageRecord, QueuedRecord, Restored
    from broker.store_schema import Database

__all__ = ["Store", "StoreError", "SyncMode"]

log: structlog.stdlib.BoundLogger = structlog.get_logger("stockade.broker.store")

T = TypeVar("T")
Values = TypeVarTuple("Values")

LINGER_S = 0.05  # for rows nobody waits for: at 20 commits a second the disk is all but idle
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


class Store(Recorder):
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
        faults: Faults | None = None,
    ) -> None:
        """Use an open file; see `open`."""
        super().__init__()
        self._faults = faults or Faults()
        self._database = database
        self._sync = sync
        self._note_commit = note_commit
        self._limiter = trio.CapacityLimiter(1)
        self._ending = trio.Event()
        self._has_due = trio.Event()
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
        faults: Faults | None = None,
    ) -> Self:
        """Open a store, or make one. Blocks: the whole file is checked.

        Args:
            path: the file, its folder must exist.
            key: 32 bytes; None for a store that is not encrypted.
            sync: what durable means.
            max_bytes: size at which it counts as full; the log beside it may add 64 MiB, and a very large commit.
            note_commit: told seconds and rows of every commit.
            faults: told of errors of those who are called back.

        Raises:
            StoreError: it is damaged, foreign, in use, under another key, or open to others; says what to do.
        """
        database = open_database(path, key=key, synchronous=_SYNCHRONOUS[sync], max_bytes=max_bytes)
        return cls(database, sync=sync, note_commit=note_commit, faults=faults)

    @override
    def __repr__(self) -> str:
        state = "closed" if self._closed else self.failing or "sound"
        return (
            f"<Store {self._database.path} {self._sync} {state}, {self.pending_rows} rows pending>"
        )

    def load(self, *, most: float = inf, most_bytes: float = inf) -> Restored:
        """Return everything, verified; before anything is recorded. Blocks.

        Args:
            most: messages of one queue that are to be in memory; what stands behind them is left here.
            most_bytes: of their packets.

        Raises:
            StoreError: a row is not what was written, or SQLite refuses.
        """
        restored, repairs = load(self._database, most=most, most_bytes=most_bytes)
        if repairs:
            log.warning("store repaired", path=str(self._database.path), rows=repairs)
        return restored

    def close(self) -> None:
        """Close a store that `run` never ran for, or has ended for; what was recorded since is lost. Blocks."""
        self._closed = True
        self._database.connection.close()

    async def fetch(
        self, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
    ) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
        """Read messages of a queue that are on disk, between two commits.

        Args:
            session_id: whose queue.
            sequences: the numbers that its rows begin with, at least one, in order.
            message_ids: which messages.

        Returns:
            the rows by the number they begin with, and the messages by their key.

        Raises:
            StoreError: the store is closed, damaged, or its disk does not answer.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise StoreUnusable("the store is closed")
        return await self._in_thread(
            fetch, self._database, session_id, sequences, tuple(message_ids)
        )

    # ---- state ---------------------------------------------------------------------------------

    @property
    def failing(self) -> str:
        """Why the last commit failed; empty when it did not."""
        return self._failing or self._sync_failing

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
        while not self._ending.is_set() or self._batch.waits:
            await self._wait_for_rows()
            await self._sync_when_due()
            if await self._commit():
                continue
            if self._ending.is_set():
                log.error("store not written at the end", rows=self.pending_rows)
                return
            with trio.move_on_after(RETRY_S):
                await self._ending.wait()

    async def _wait_for_rows(self) -> None:
        with trio.move_on_at(self._sync_at):
            await self._recorded.wait()
            with trio.move_on_after(LINGER_S):
                await self._wanted.wait()

    async def _commit(self) -> bool:
        """Have the batch written and its callbacks called soon; whether nothing failed."""
        if not self._recorded.is_set():
            return True  # woken only to sync
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

    async def _in_thread(self, work: Callable[[*Values], T], *values: *Values) -> T:
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
                    with self._faults.contained("tell that something is stored"):
                        callback(durable)
                await trio.lowlevel.checkpoint()

    def _call_the_rest(self) -> None:
        for batch in (self._writing, self._batch):
            if batch is not None:
                self._answer(batch, durable=False)
        while self._due:
            callback, durable = self._due.popleft()
            with self._faults.contained("tell that something is stored"):
                callback(durable)
