"""What was recorded and is not on disk: the rows of the next commit, by key.

*Rules of this file*: no I/O. What is put and dropped again before it was written leaves nothing behind, as most messages
do whose subscriber answers at once. What is written in the end does not depend on where the calls were cut into batches.

*Theory of operation.* For each table there is a map from key to record; None stands for a row to be dropped. A
message or a queued row that is put is new: its key is not on disk, unless it was dropped in this very batch. So
dropping it takes the put away and nothing more (INVARIANT: a key in `replaced` may be on disk, every other put of a
queued row is not). Finishing a session's messages only notes a number: `puts` and the SQL leave out or remove what
lies below it. A session that was dropped takes everything of its own with it and never comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from broker.records import (
        DelayedRecord,
        MessageRecord,
        QueuedRecord,
        RetainedRecord,
        SessionRecord,
        SubscriptionRecord,
    )

ROW_BYTES = (
    512  # about what a record costs in memory beside its data; for the bound, not for accounts
)

Pair = tuple[int, int]


class Batch:
    """The rows of one commit.

    Attributes:
        sessions: rows to write.
        dropped_sessions: rows to drop, and all that belongs to them.
        settled: for a session, the number below which everything is finished.
        subscriptions: by session and filter.
        messages: by id.
        queued: by session and sequence.
        replaced: keys of `queued` that may be on disk although they are put.
        released: session and sequence.
        received: by session and packet id, whether it is put.
        retained: by topic.
        delayed: by message id.
        callbacks: told how it went, in this order.
        data_bytes: of the messages to write.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.sessions: dict[int, SessionRecord] = {}
        self.dropped_sessions: set[int] = set()
        self.settled: dict[int, int] = {}
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord | None] = {}
        self.messages: dict[int, MessageRecord | None] = {}
        self.queued: dict[Pair, QueuedRecord | None] = {}
        self.replaced: set[Pair] = set()
        self.released: set[Pair] = set()
        self.received: dict[Pair, bool] = {}
        self.retained: dict[str, RetainedRecord | None] = {}
        self.delayed: dict[int, DelayedRecord | None] = {}
        self.callbacks: list[Callable[[bool], None]] = []
        self.data_bytes = 0

    @override
    def __repr__(self) -> str:
        return f"<Batch of {self.rows} rows, {len(self.callbacks)} wait>"

    @property
    def rows(self) -> int:
        """How many rows it touches, about."""
        return (
            len(self.sessions)
            + len(self.dropped_sessions)
            + len(self.settled)
            + len(self.subscriptions)
            + len(self.messages)
            + len(self.queued)
            + len(self.released)
            + len(self.received)
            + len(self.retained)
            + len(self.delayed)
        )

    @property
    def waits(self) -> bool:
        """Whether there is something to write or somebody to tell."""
        return bool(self.rows or self.callbacks)

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        return self.data_bytes + self.rows * ROW_BYTES

    # ---- sessions ------------------------------------------------------------------------------

    def put_session(self, record: SessionRecord) -> None:
        """Insert or replace a row; not its children."""
        if self.alive(record.session_id):
            self.sessions[record.session_id] = record

    def drop_session(self, session_id: int) -> None:
        """Drop it and everything of its own."""
        self.sessions.pop(session_id, None)
        self.settled.pop(session_id, None)
        self.dropped_sessions.add(session_id)

    def put_subscription(self, record: SubscriptionRecord) -> None:
        """Insert or replace."""
        self.subscriptions[record.session_id, record.filter] = record

    def drop_subscription(self, session_id: int, filter_: str) -> None:
        """Drop, if it is there."""
        self.subscriptions[session_id, filter_] = None

    # ---- messages ------------------------------------------------------------------------------

    def put_message(self, record: MessageRecord) -> None:
        """Insert; its id was never used."""
        self.messages[record.message_id] = record
        self.data_bytes += len(record.data)

    def drop_message(self, message_id: int) -> None:
        """Drop, if it is there."""
        pending = self.messages.pop(message_id, None)
        if pending is None:
            self.messages[message_id] = None
        else:
            self.data_bytes -= len(pending.data)

    def put_retained(self, record: RetainedRecord) -> None:
        """Insert or replace."""
        self.retained[record.topic] = record

    def drop_retained(self, topic: str) -> None:
        """Drop, if it is there."""
        self.retained[topic] = None

    def put_delayed(self, record: DelayedRecord) -> None:
        """Insert or replace."""
        self.delayed[record.message_id] = record

    def drop_delayed(self, message_id: int) -> None:
        """Drop, if it is there."""
        self.delayed[message_id] = None

    # ---- queues --------------------------------------------------------------------------------

    def put_queued(self, record: QueuedRecord) -> None:
        """Insert; its key was never used, or was dropped before."""
        key = record.session_id, record.sequence
        if key in self.queued and self.queued[key] is None:
            self.replaced.add(key)
        self.queued[key] = record

    def drop_queued(self, session_id: int, sequence: int) -> None:
        """Drop, if it is there."""
        key = session_id, sequence
        if self.queued.pop(key, None) is None or key in self.replaced:
            self.replaced.discard(key)
            self.queued[key] = None

    def settle(self, session_id: int, below: int) -> None:
        """Finish everything of a session below a number."""
        if self.alive(session_id):
            self.settled[session_id] = max(self.settled.get(session_id, 0), below)

    def put_released(self, session_id: int, sequences: Iterable[int]) -> None:
        """Insert."""
        self.released.update([(session_id, sequence) for sequence in sequences])

    def put_received(self, session_id: int, packet_ids: Iterable[int]) -> None:
        """Insert."""
        self.received.update([((session_id, packet_id), True) for packet_id in packet_ids])

    def drop_received(self, session_id: int, packet_ids: Iterable[int]) -> None:
        """Drop, if they are there."""
        self.received.update([((session_id, packet_id), False) for packet_id in packet_ids])

    # ---- reading -------------------------------------------------------------------------------

    def alive(self, session_id: int) -> bool:
        """Whether rows of this session are worth writing."""
        return session_id not in self.dropped_sessions

    def queued_puts(self) -> Iterator[QueuedRecord]:
        """The queued rows to write: not those that are finished already."""
        for record in self.queued.values():
            if record is not None and not self._finished(record):
                yield record

    def queued_drops(self) -> Iterator[Pair]:
        """The queued rows to drop by their key."""
        for key, record in self.queued.items():
            if record is None or (key in self.replaced and self._finished(record)):
                yield key

    def released_puts(self) -> Iterator[Pair]:
        """The released rows to write."""
        for session_id, sequence in self.released:
            if self.alive(session_id) and sequence >= self.settled.get(session_id, 0):
                yield session_id, sequence

    def _finished(self, record: QueuedRecord) -> bool:
        session_id = record.session_id
        end = record.sequence + record.count
        return not self.alive(session_id) or end <= self.settled.get(session_id, 0)

    # ---- one after the other -------------------------------------------------------------------

    def absorb(self, later: Batch) -> None:
        """Take in what was recorded after this one, as if it had been recorded here; not the callbacks' turn."""
        for session_id in later.dropped_sessions:
            self.drop_session(session_id)
        self._absorb_sessions(later)
        self._absorb_messages(later)
        self._absorb_queues(later)
        self.callbacks += later.callbacks

    def _absorb_sessions(self, later: Batch) -> None:
        for record in later.sessions.values():
            self.put_session(record)
        for session_id, below in later.settled.items():
            self.settle(session_id, below)
        self.subscriptions.update(later.subscriptions)

    def _absorb_messages(self, later: Batch) -> None:
        for message_id, message in later.messages.items():
            if message is None:
                self.drop_message(message_id)
            else:
                self.put_message(message)
        self.retained.update(later.retained)
        self.delayed.update(later.delayed)

    def _absorb_queues(self, later: Batch) -> None:
        for key, record in later.queued.items():
            if record is None or key in later.replaced:
                self.drop_queued(*key)
            if record is not None:
                self.put_queued(record)
        self.released |= later.released
        self.received.update(later.received)
