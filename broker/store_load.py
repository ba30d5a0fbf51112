"""Everything a store holds, verified and free of dangling references.

*Rules of this file*: a row that does not verify ends the start, because nobody knows what else is wrong. A row that verifies and
refers to nothing is repaired: a crash cannot leave one, an older version of the broker could.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, cast

from broker.records import Restored
from broker.store_batch import Batch
from broker.store_schema import damaged, refuse
from broker.store_seal import Encrypted, RowBroken
from broker.store_write import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.records import MessageRecord, QueuedRecord, SessionRecord
    from broker.store_schema import Database

T = TypeVar("T")
Columns = TypeVarTuple("Columns")


def load(database: Database) -> tuple[Restored, int]:
    """Read everything; rows that refer to nothing are dropped on disk too. Blocks.

    Returns:
        What there is, and how many rows were repaired.

    Raises:
        StoreDamaged: a row is not what was written.
        StoreError: SQLite refuses.
    """
    try:
        restored, repairs = repaired(_read(database))
        if repairs.rows:
            write(database, repairs)
        _forget_lives(database)
    except RowBroken as error:
        raise damaged(database.path, str(error)) from error
    except sqlite3.Error as error:
        refuse(database.path, error)
    return restored, repairs.rows


# ---- reading -----------------------------------------------------------------------------------

_ONE, _TAG = (int, bytes), (bytes, bytes)
_TWO, _THREE = (int, int, bytes), (int, int, int, bytes)


def _read(database: Database) -> Restored:
    rows, meta = database.rows, database.meta
    settled = dict(_pairs(database, "settled"))
    sessions = [
        replace(each, settled_below=max(each.settled_below, settled.get(each.session_id, 0)))
        for each in _all(database, "session", _ONE, rows.open_session)
    ]
    messages = _all(database, "message", _ONE, rows.open_message)
    subscriptions = _all(database, "subscription", (int, bytes, bytes), rows.open_subscription)
    retained = _all(database, "retained", _TAG, rows.open_retained)
    return Restored(
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


def _all(
    database: Database, table: str, shape: tuple[type, ...], open_row: Callable[[*Columns], T]
) -> list[T]:
    """Read a table in the order of its keys."""
    found: list[T] = []
    for row in database.connection.execute(f"select * from {table}"):  # noqa: S608  a literal of this file
        # SQLite has a type for each value, not for a column: a flipped bit can make another of it.
        if tuple(map(type, row)) != shape:
            raise RowBroken("a column has a type it should not have")
        found.append(open_row(*cast("tuple[*Columns]", row)))
    return found


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
