"""What the broker needs of a store, and what it does without one.

`broker.store.Store` keeps everything on disk. `Volatile` keeps nothing: without a store no session outlives its
connection, so what an acknowledgement promises ends with it, and a retained message lives as long as this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from broker.store_schema import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from broker.records import (
        DelayedRecord,
        MessageRecord,
        QueuedRecord,
        RetainedRecord,
        SessionRecord,
        SubscriptionRecord,
    )


class Durability(Protocol):
    """Records what must outlive the process; each call is cheap and part of the batch being collected."""

    @property
    def failing(self) -> str:
        """Why nothing can be written at present; empty when it can."""
        ...

    def put_session(self, record: SessionRecord) -> None:
        """Insert or replace a session."""
        ...

    def drop_session(self, session_id: int) -> None:
        """Remove a session and all it has."""
        ...

    def put_subscription(self, record: SubscriptionRecord) -> None:
        """Insert or replace a subscription."""
        ...

    def drop_subscription(self, session_id: int, filter_: str) -> None:
        """Remove a subscription."""
        ...

    def put_message(self, record: MessageRecord) -> None:
        """Insert a message."""
        ...

    def drop_message(self, message_id: int) -> None:
        """Remove a message that nothing refers to any more."""
        ...

    def put_queued(self, record: QueuedRecord) -> None:
        """Insert messages into a session's queue."""
        ...

    def drop_queued(self, session_id: int, sequence: int) -> None:
        """Remove the row of a session's queue that begins with `sequence`."""
        ...

    def settle(self, session_id: int, below: int) -> None:
        """Note that all messages of a session with lower numbers are finished."""
        ...

    def put_released(self, session_id: int, sequences: Sequence[int]) -> None:
        """Note that the PUBREC of these messages came."""
        ...

    def put_received(self, session_id: int, packet_ids: Sequence[int]) -> None:
        """Note QoS 2 messages taken from a client."""
        ...

    def drop_received(self, session_id: int, packet_ids: Sequence[int]) -> None:
        """Note that they were released."""
        ...

    def put_retained(self, record: RetainedRecord) -> None:
        """Insert or replace the retained message of a topic."""
        ...

    def drop_retained(self, topic: str) -> None:
        """Remove the retained message of a topic."""
        ...

    def put_delayed(self, record: DelayedRecord) -> None:
        """Insert a message to be published later."""
        ...

    def drop_delayed(self, message_id: int) -> None:
        """Note that it was published."""
        ...

    def when_durable(self, callback: Callable[[bool], None]) -> None:
        """Call back once all that was recorded so far is on disk (True), or cannot be written now (False)."""
        ...

    async def fetch(
        self, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
    ) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
        """Read what is on disk of a session's queue, see `broker.store_fetch`.

        Raises:
            StoreError: it cannot be read.
        """
        ...


class Volatile(Durability):
    """No store: nothing is recorded, and everything is as durable as it will ever be."""

    @property
    @override
    def failing(self) -> str:
        return ""

    @override
    def put_session(self, record: SessionRecord) -> None: ...

    @override
    def drop_session(self, session_id: int) -> None: ...

    @override
    def put_subscription(self, record: SubscriptionRecord) -> None: ...

    @override
    def drop_subscription(self, session_id: int, filter_: str) -> None: ...

    @override
    def put_message(self, record: MessageRecord) -> None: ...

    @override
    def drop_message(self, message_id: int) -> None: ...

    @override
    def put_queued(self, record: QueuedRecord) -> None: ...

    @override
    def drop_queued(self, session_id: int, sequence: int) -> None: ...

    @override
    def settle(self, session_id: int, below: int) -> None: ...

    @override
    def put_released(self, session_id: int, sequences: Sequence[int]) -> None: ...

    @override
    def put_received(self, session_id: int, packet_ids: Sequence[int]) -> None: ...

    @override
    def drop_received(self, session_id: int, packet_ids: Sequence[int]) -> None: ...

    @override
    def put_retained(self, record: RetainedRecord) -> None: ...

    @override
    def drop_retained(self, topic: str) -> None: ...

    @override
    def put_delayed(self, record: DelayedRecord) -> None: ...

    @override
    def drop_delayed(self, message_id: int) -> None: ...

    @override
    def when_durable(self, callback: Callable[[bool], None]) -> None:
        callback(True)  # noqa: FBT003  a callback's one fact

    @override
    async def fetch(
        self, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
    ) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
        raise StoreUnusable("nothing is kept without a `[store]`")
