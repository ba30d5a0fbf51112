"""Records of the store that read as sentences in a test, and a store that runs while a test does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from acl.model import PrincipalKind
from broker.records import (
    DelayedRecord,
    MessageRecord,
    QueuedRecord,
    RetainedRecord,
    SessionRecord,
    SubscriptionRecord,
    WillRecord,
)
from broker.store import Store, SyncMode
from mqtt.packets import Version

KEY = bytes(range(32))
ROOM = 1 << 30
DATA = b"0\x06\x00\x01tpay"


def a_session(
    session_id: int = 1,
    *,
    client_id: str = "client",
    settled_below: int = 1,
    ended_at: float | None = None,
    will: WillRecord | None = None,
) -> SessionRecord:
    return SessionRecord(
        session_id=session_id,
        principal="sensor",
        principal_kind=PrincipalKind.SERVICE,
        client_id=client_id,
        expiry_s=3_600,
        ended_at=ended_at,
        settled_below=settled_below,
        next_sequence=settled_below,
        will=will,
    )


def a_subscription(
    session_id: int = 1, filter_: str = "a/#", *, identifier: int | None = None
) -> SubscriptionRecord:
    return SubscriptionRecord(
        session_id=session_id,
        filter=filter_,
        qos=1,
        no_local=False,
        retain_as_published=True,
        identifier=identifier,
    )


def a_message(message_id: int = 1, *, data: bytes = DATA, count: int = 1) -> MessageRecord:
    return MessageRecord(
        message_id=message_id,
        data=data * count,
        count=count,
        version=Version.V5,
        received_at=1_000.5,
        expires_at=None,
        publisher="maker",
        publisher_kind=PrincipalKind.USER,
    )


def a_queued(
    session_id: int = 1,
    sequence: int = 1,
    *,
    count: int = 1,
    message_id: int = 1,
    first: int = 0,
    group: str = "",
) -> QueuedRecord:
    return QueuedRecord(
        session_id=session_id,
        sequence=sequence,
        count=count,
        message_id=message_id,
        first=first,
        qos=2,
        retain=False,
        identifiers=(7, 268_435_455),
        group=group,
    )


def a_retained(topic: str = "a/b", message_id: int = 1) -> RetainedRecord:
    return RetainedRecord(topic=topic, message_id=message_id)


def a_delayed(message_id: int = 1, due_at: float = 2_000.25) -> DelayedRecord:
    return DelayedRecord(message_id=message_id, due_at=due_at)


def open_store(
    path: Path,
    *,
    key: bytes | None = KEY,
    sync: SyncMode = SyncMode.NEVER,
    max_bytes: int = ROOM,
    note_commit: Callable[[float, int], None] = lambda _seconds, _rows: None,
) -> Store:
    return Store.open(path, key=key, sync=sync, max_bytes=max_bytes, note_commit=note_commit)


@asynccontextmanager
async def running(store: Store) -> AsyncGenerator[Store]:
    """Have the store commit while the body runs; at its end the store is closed."""
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()
