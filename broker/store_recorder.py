"""What the broker tells the store, and who waits for it: the batch being collected and the callbacks.

*Rules of this file*: everything here happens in Trio's thread, at once, in the order of the calls. A callback is called
once; one that began to wait earlier is called earlier.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from broker.store_batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.records import (
        DelayedRecord,
        MessageRecord,
        QueuedRecord,
        RetainedRecord,
        SessionRecord,
        SubscriptionRecord,
    )


class Recorder:
    """Collects a batch; a subclass writes it."""

    def __init__(self) -> None:
        """Start with nothing recorded."""
        self._batch = Batch()
        self._writing: Batch | None = None
        self._due: deque[tuple[Callable[[bool], None], bool]] = deque()
        self._recorded = trio.Event()
        self._wanted = trio.Event()
        self._closed = False

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
        now; it stays collected and is tried again. After the end of `run` nobody is told of what is pending: it will
        never be written, and whoever tries again at each False would do so for ever.
        """
        if self._closed:
            if not self.pending_rows:
                callback(True)  # noqa: FBT003  a callback's one fact
        elif self._batch.waits:
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
        if self._closed and self.pending_rows:
            await trio.lowlevel.checkpoint()
            return False
        told, outcome = trio.Event(), [False]

        def note(durable: bool) -> None:  # noqa: FBT001  a callback's one fact
            outcome[0] = durable
            told.set()

        self.when_durable(note)
        await told.wait()
        return outcome[0]
