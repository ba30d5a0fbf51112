"""A store in a few dictionaries: what is recorded is at once as durable as it will be, and can be looked at.

It keeps what the real store would give back after a restart; `tests/property/test_broker_store.py` proves the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import trio
from typing_extensions import override

from broker.durability import Volatile
from broker.records import (
    DelayedRecord,
    MessageRecord,
    QueuedRecord,
    Restored,
    RetainedRecord,
    SessionRecord,
    SubscriptionRecord,
)


class Rows(Volatile):
    """The tables, by key."""

    def __init__(self) -> None:
        self.sessions: dict[int, SessionRecord] = {}
        self.settled: dict[int, int] = {}
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord] = {}
        self.messages: dict[int, MessageRecord] = {}
        self.queued: dict[tuple[int, int], QueuedRecord] = {}
        self.released: set[tuple[int, int]] = set()
        self.received: set[tuple[int, int]] = set()
        self.retained: dict[str, RetainedRecord] = {}
        self.delayed: dict[int, DelayedRecord] = {}
        self.last_session_id = 0
        self.last_message_id = 0

    @classmethod
    def of(cls, restored: Restored) -> Rows:
        """The tables of a store that a start found so."""
        rows = cls()
        rows.sessions = {row.session_id: row for row in restored.sessions}
        rows.subscriptions = {(row.session_id, row.filter): row for row in restored.subscriptions}
        rows.messages = {row.message_id: row for row in restored.messages}
        rows.queued = {(row.session_id, row.sequence): row for row in restored.queued}
        rows.released, rows.received = set(restored.released), set(restored.received)
        rows.retained = {row.topic: row for row in restored.retained}
        rows.delayed = {row.message_id: row for row in restored.delayed}
        rows.last_session_id = restored.next_session_id - 1
        rows.last_message_id = restored.next_message_id - 1
        return rows

    def after_kill(self) -> Rows:
        """What is on disk at this moment; what is recorded from now on is not."""
        return self.of(self.restored())

    def restored(self) -> Restored:
        """What a start finds."""
        queued = [row for row in self.queued.values() if row.message_id in self.messages]
        needed = {row.message_id for row in queued} | {*self.delayed}
        needed |= {row.message_id for row in self.retained.values()}
        return Restored(
            sessions=tuple(self._session(row) for _, row in sorted(self.sessions.items())),
            subscriptions=tuple(row for _, row in sorted(self.subscriptions.items())),
            messages=tuple(row for key, row in sorted(self.messages.items()) if key in needed),
            queued=tuple(sorted(queued, key=lambda row: (row.session_id, row.sequence))),
            released=tuple(sorted(self.released)),
            received=tuple(sorted(self.received)),
            retained=tuple(row for _, row in sorted(self.retained.items())),
            delayed=tuple(row for _, row in sorted(self.delayed.items())),
            next_session_id=self.last_session_id + 1,
            next_message_id=self.last_message_id + 1,
        )

    @override
    async def fetch(
        self, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
    ) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
        await trio.lowlevel.checkpoint()
        rows = {each: self.queued[session_id, each] for each in sequences}
        return rows, {each: self.messages[each] for each in message_ids}

    def _session(self, row: SessionRecord) -> SessionRecord:
        below = max(row.settled_below, self.settled.get(row.session_id, 0))
        return replace(row, settled_below=below)

    @override
    def put_session(self, record: SessionRecord) -> None:
        self.sessions[record.session_id] = record
        self.last_session_id = max(self.last_session_id, record.session_id)

    @override
    def drop_session(self, session_id: int) -> None:
        del self.sessions[session_id]
        self.subscriptions = {k: v for k, v in self.subscriptions.items() if k[0] != session_id}
        self.queued = {k: v for k, v in self.queued.items() if k[0] != session_id}
        self.released = {pair for pair in self.released if pair[0] != session_id}
        self.received = {pair for pair in self.received if pair[0] != session_id}

    @override
    def put_subscription(self, record: SubscriptionRecord) -> None:
        self.subscriptions[record.session_id, record.filter] = record

    @override
    def drop_subscription(self, session_id: int, filter_: str) -> None:
        self.subscriptions.pop((session_id, filter_), None)

    @override
    def put_message(self, record: MessageRecord) -> None:
        assert record.message_id > self.last_message_id, "keys are never used again"
        self.messages[record.message_id] = record
        self.last_message_id = record.message_id

    @override
    def drop_message(self, message_id: int) -> None:
        del self.messages[message_id]

    @override
    def put_queued(self, record: QueuedRecord) -> None:
        self.queued[record.session_id, record.sequence] = record

    @override
    def drop_queued(self, session_id: int, sequence: int) -> None:
        self.queued.pop((session_id, sequence), None)

    @override
    def settle(self, session_id: int, below: int) -> None:
        self.settled[session_id] = below
        for key, row in list(self.queued.items()):
            if key[0] == session_id and row.sequence + row.count <= below:
                del self.queued[key]
        self.released = {
            pair for pair in self.released if pair[0] != session_id or pair[1] >= below
        }

    @override
    def put_released(self, session_id: int, sequences: Sequence[int]) -> None:
        self.released |= {(session_id, sequence) for sequence in sequences}

    @override
    def put_received(self, session_id: int, packet_ids: Sequence[int]) -> None:
        self.received |= {(session_id, packet_id) for packet_id in packet_ids}

    @override
    def drop_received(self, session_id: int, packet_ids: Sequence[int]) -> None:
        self.received -= {(session_id, packet_id) for packet_id in packet_ids}

    @override
    def put_retained(self, record: RetainedRecord) -> None:
        self.retained[record.topic] = record

    @override
    def drop_retained(self, topic: str) -> None:
        del self.retained[topic]

    @override
    def put_delayed(self, record: DelayedRecord) -> None:
        self.delayed[record.message_id] = record

    @override
    def drop_delayed(self, message_id: int) -> None:
        del self.delayed[message_id]
