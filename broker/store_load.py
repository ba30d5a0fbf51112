"""Everything a store holds, verified and free of dangling references.

*Rules of this file*: a row that does not verify ends the start, because nobody knows what else is wrong. A row that verifies and
refers to nothing is repaired: a crash cannot leave one, an older version of the broker could. All packets are verified, one
message after the other, and only those that are needed in memory stay there.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, cast

from broker.records import Restored, SpilledRecord
from broker.store_batch import Batch
from broker.store_schema import damaged, refuse
from broker.store_seal import Encrypted, RowBroken
from broker.store_write import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from broker.records import MessageRecord, QueuedRecord, SessionRecord
    from broker.store_schema import Database

HELD_BYTES = (
    1 << 26
)  # of packets while it is not known which are needed; what is beyond and needed is read twice
NOT_HELD = b""  # no packet is empty

T = TypeVar("T")
Columns = TypeVarTuple("Columns")


def load(database: Database, *, most: float = inf, most_bytes: float = inf) -> tuple[Restored, int]:
    """Read everything; rows that refer to nothing are dropped on disk too. Blocks.

    Args:
        database: open.
        most: messages of one queue that are to be in memory; what stands behind them is left in the store.
        most_bytes: of their packets.

    Returns:
        What there is, and how many rows were repaired.

    Raises:
        StoreDamaged: a row is not what was written.
        StoreError: SQLite refuses.
    """
    try:
        found, sizes = _read(database)
        restored, repairs = repaired(found)
        if repairs.rows:
            write(database, repairs)
        _forget_lives(database)
        restored = _with_packets(database, with_heads(restored, sizes, most, most_bytes))
    except RowBroken as error:
        raise damaged(database.path, str(error)) from error
    except sqlite3.Error as error:
        refuse(database.path, error)
    return restored, repairs.rows


# ---- reading -----------------------------------------------------------------------------------

_ONE, _TAG = (int, bytes), (bytes, bytes)
_TWO, _THREE = (int, int, bytes), (int, int, int, bytes)


def _read(database: Database) -> tuple[Restored, dict[int, int]]:
    """All rows, most of a large store's messages without their packets; and how many bytes each of these has."""
    rows, meta = database.rows, database.meta
    settled = dict(_pairs(database, "settled"))
    sessions = [
        replace(each, settled_below=max(each.settled_below, settled.get(each.session_id, 0)))
        for each in _all(database, "session", _ONE, rows.open_session)
    ]
    messages: list[MessageRecord] = []
    sizes: dict[int, int] = {}
    held_bytes = 0
    for each in _each(database, "message", _ONE, rows.open_message):
        sizes[each.message_id] = len(each.data)
        held_bytes += len(each.data)
        messages.append(each if held_bytes <= HELD_BYTES else replace(each, data=NOT_HELD))
    subscriptions = _all(database, "subscription", (int, bytes, bytes), rows.open_subscription)
    retained = _all(database, "retained", _TAG, rows.open_retained)
    found = Restored(
        sessions=tuple(sessions),
        subscriptions=tuple(sorted(subscriptions, key=attrgetter("session_id", "filter"))),
        messages=tuple(messages),
        queued=tuple(_all(database, "queued", _THREE, rows.open_queued)),
        released=_pairs(database, "released"),
        received=_pairs(database, "received"),
        retained=tuple(sorted(retained, key=attrgetter("topic"))),
        delayed=tuple(_all(database, "delayed", _ONE, rows.open_delayed)),
        next_session_id=max([meta.next_session_id, *(s.session_id + 1 for s in sessions[-1:])]),
        next_message_id=max([meta.next_message_id, *(m.message_id + 1 for m in messages[-1:])]),
    )
    return found, sizes


def _with_packets(database: Database, restored: Restored) -> Restored:
    """Read again what was verified and not held."""
    messages = tuple(
        each if each.data is not NOT_HELD else _message(database, each.message_id)
        for each in restored.messages
    )
    return replace(restored, messages=messages)


def _message(database: Database, message_id: int) -> MessageRecord:
    (body,) = database.connection.execute(
        "select body from message where id = ?", (message_id,)
    ).fetchone()
    return database.rows.open_message(message_id, body)


def _all(
    database: Database, table: str, shape: tuple[type, ...], open_row: Callable[[*Columns], T]
) -> list[T]:
    return list(_each(database, table, shape, open_row))


def _each(
    database: Database, table: str, shape: tuple[type, ...], open_row: Callable[[*Columns], T]
) -> Iterator[T]:
    """Read a table in the order of its keys."""
    for row in database.connection.execute(f"select * from {table}"):  # noqa: S608  a literal of this file
        # SQLite has a type for each value, not for a column: a flipped bit can make another of it.
        if tuple(map(type, row)) != shape:
            raise RowBroken("a column has a type it should not have")
        yield open_row(*cast("tuple[*Columns]", row))


def _pairs(database: Database, table: str) -> tuple[tuple[int, int], ...]:
    return tuple(_all(database, table, _TWO, partial(database.rows.open_pair, table)))


def _forget_lives(database: Database) -> None:
    """Drop the salts of lives of which no row is left."""
    seal, connection = database.seal, database.connection
    if isinstance(seal, Encrypted):
        kept = {*seal.seen, seal.number}
        known: list[tuple[int]] = connection.execute("select number from life").fetchall()
        gone = [(number,) for (number,) in known if number not in kept]
        connection.execute("begin immediate")
        connection.executemany("delete from life where number = ?", gone)
        connection.execute("commit")


# ---- queues --------------------------------------------------------------------------------------


def with_heads(found: Restored, sizes: dict[int, int], most: float, most_bytes: float) -> Restored:
    """Leave what of each queue is more than memory shall hold in the store, and the messages only that refers to.

    What may have been sent, what is finished in part and what came by a shared subscription is needed in memory, and so is all
    before it.
    """
    sessions = {each.session_id: each for each in found.sessions}
    released = dict(found.released)  # the highest of each session: they come in order
    counts = {each.message_id: each.count for each in found.messages}
    queued: list[QueuedRecord] = []
    spilled: list[SpilledRecord] = []
    for session_id, rows in _by_session(found.queued).items():
        session = sessions[session_id]
        sent_below = max(released.get(session_id, -1) + 1, session.settled_below)
        if session.ended_at is not None:
            sent_below = max(sent_below, session.next_sequence)
        needed = max(
            (n + 1 for n, row in enumerate(rows) if row.group or row.sequence < sent_below),
            default=0,
        )
        messages = size_bytes = 0
        for number, row in enumerate(rows):
            row_bytes = row.count * sizes[row.message_id] // counts[row.message_id]
            messages += row.count
            size_bytes += row_bytes
            if number < needed or (messages <= most and size_bytes <= most_bytes):
                queued.append(row)
            else:
                spilled.append(
                    SpilledRecord(
                        session_id=session_id,
                        sequence=row.sequence,
                        count=row.count,
                        message_id=row.message_id,
                        size_bytes=row_bytes,
                        message_bytes=sizes[row.message_id],
                    )
                )
    if not spilled:
        return found
    here = {each.message_id for each in queued}
    here |= {each.message_id for each in found.retained}
    here |= {each.message_id for each in found.delayed}
    return replace(
        found,
        queued=tuple(queued),
        spilled=tuple(spilled),
        messages=tuple(each for each in found.messages if each.message_id in here),
    )


def _by_session(rows: Iterable[QueuedRecord]) -> dict[int, list[QueuedRecord]]:
    found: dict[int, list[QueuedRecord]] = {}
    for row in rows:
        found.setdefault(row.session_id, []).append(row)
    return found


# ---- repairing ---------------------------------------------------------------------------------


def repaired(found: Restored) -> tuple[Restored, Batch]:
    """Leave out what refers to nothing, and messages nothing refers to.

    Returns:
        What is left, and the rows to drop.
    """
    sessions = {each.session_id: each for each in found.sessions}
    messages = {each.message_id: each for each in found.messages}
    drops = Batch()
    for session_id in _owners(found) - set(sessions):
        drops.drop_session(session_id)
    queued = _sound_queue(found, sessions, messages, drops)
    retained = tuple(each for each in found.retained if each.message_id in messages)
    for orphan in set(found.retained) - set(retained):
        drops.drop_retained(orphan.topic)
    delayed = tuple(each for each in found.delayed if each.message_id in messages)
    for late in set(found.delayed) - set(delayed):
        drops.drop_delayed(late.message_id)
    needed = {each.message_id for each in queued}
    needed |= {each.message_id for each in retained} | {each.message_id for each in delayed}
    for message_id in set(messages) - needed:
        drops.drop_message(message_id)
    left = replace(
        found,
        subscriptions=tuple(each for each in found.subscriptions if each.session_id in sessions),
        messages=tuple(each for each in found.messages if each.message_id in needed),
        queued=queued,
        released=tuple(
            pair
            for pair in found.released
            if pair[0] in sessions and pair[1] >= sessions[pair[0]].settled_below
        ),
        received=tuple(pair for pair in found.received if pair[0] in sessions),
        retained=retained,
        delayed=delayed,
    )
    return left, drops


def _owners(found: Restored) -> set[int]:
    owners = {session_id for session_id, _ in (*found.released, *found.received)}
    owners |= {each.session_id for each in found.subscriptions}
    return owners | {each.session_id for each in found.queued}


def _sound_queue(
    found: Restored,
    sessions: dict[int, SessionRecord],
    messages: dict[int, MessageRecord],
    drops: Batch,
) -> tuple[QueuedRecord, ...]:
    queued: list[QueuedRecord] = []
    for each in found.queued:
        session, message = sessions.get(each.session_id), messages.get(each.message_id)
        if session is None:
            continue  # goes with its session
        if (
            message is None
            or each.first + each.count > message.count
            or each.sequence + each.count <= session.settled_below
        ):
            drops.drop_queued(each.session_id, each.sequence)
        else:
            queued.append(each)
    return tuple(queued)
