"""Single messages of a queue out of the store, while it is being written between reads.

*Rules of this file*: what is asked for was committed; a row that is not there, or not what was written, is an error.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from broker.store_schema import damaged, refuse
from broker.store_seal import RowBroken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.records import MessageRecord, QueuedRecord
    from broker.store_schema import Database


def fetch(
    database: Database, session_id: int, sequences: Sequence[int], message_ids: Iterable[int]
) -> tuple[dict[int, QueuedRecord], dict[int, MessageRecord]]:
    """Read rows of one session's queue, and messages. Blocks.

    Args:
        database: open.
        session_id: whose queue.
        sequences: the numbers that the rows begin with, at least one, in order.
        message_ids: which messages.

    Returns:
        the rows by the number they begin with, and the messages by their key.

    Raises:
        StoreDamaged: a row is not what was written, or is gone.
        StoreError: SQLite refuses.
    """
    try:
        rows = _queued(database, session_id, sequences[0], sequences[-1])
        _verify_whole(rows, sequences)
        return rows, {each: _message(database, each) for each in message_ids}
    except RowBroken as error:
        raise damaged(database.path, str(error)) from error
    except sqlite3.Error as error:
        refuse(database.path, error)


def _verify_whole(rows: dict[int, QueuedRecord], sequences: Sequence[int]) -> None:
    for sequence in sequences:
        if sequence not in rows:
            raise RowBroken(f"message {sequence} of a queue is gone")


def _queued(database: Database, session_id: int, first: int, last: int) -> dict[int, QueuedRecord]:
    found: dict[int, QueuedRecord] = {}
    rows: list[tuple[object, object, object]] = database.connection.execute(
        "select sequence, count, body from queued where session = ? and sequence between ? and ?",
        (session_id, first, last),
    ).fetchall()
    for sequence, count, body in rows:
        # SQLite has a type for each value, not for a column: a flipped bit can make another of it.
        if type(sequence) is not int or type(count) is not int or type(body) is not bytes:
            raise RowBroken("a column has a type it should not have")
        found[sequence] = database.rows.open_queued(session_id, sequence, count, body)
    return found


def _message(database: Database, message_id: int) -> MessageRecord:
    row: tuple[object] | None = database.connection.execute(
        "select body from message where id = ?", (message_id,)
    ).fetchone()
    if row is None:
        raise RowBroken(f"message {message_id} is gone")
    (body,) = row
    if type(body) is not bytes:
        raise RowBroken("a column has a type it should not have")
    return database.rows.open_message(message_id, body)
