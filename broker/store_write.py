"""A batch written in one transaction.

*Rules of this file.*

- What is dropped is dropped first: in a full store that makes the room for what is put.
- Many rows go in one statement. Python gives up its global lock around every step of SQLite, and a busy event loop is
  slow to give it back: a statement for each row made a commit of 100 messages several times as slow (benchmarks.store).
"""

from __future__ import annotations

from functools import partial
from itertools import islice, starmap
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from broker.store_schema import store_meta

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from broker.store_batch import Batch
    from broker.store_rows import Row
    from broker.store_schema import Database, Meta

K = TypeVar("K")

RESERVED_IDS = 65_536  # numbers a restart may skip, so that few commits write `meta`
_SIZES = (64, 16, 4, 1)  # rows of a statement: few different ones, so that each is prepared once

CHILDREN = ("settled", "subscription", "queued", "released", "received")

# `cross join`: the few sessions outside, the search by key inside; never the whole table.
_FINISHED_QUEUED = (
    "delete from queued where (session, sequence) in "
    "(select q.session, q.sequence from (values {}) as s cross join queued as q "
    "where q.session = s.column1 and q.sequence < s.column2 "
    "and q.sequence + q.count <= s.column2)"
)
_FINISHED_RELEASED = (
    "delete from released where (session, sequence) in "
    "(select r.session, r.sequence from (values {}) as s cross join released as r "
    "where r.session = s.column1 and r.sequence < s.column2)"
)


def write(database: Database, batch: Batch) -> None:
    """Write a batch, whole or not at all. Blocks.

    Raises:
        sqlite3.Error: nothing was written.
    """
    connection = database.connection
    connection.execute("begin immediate")
    try:
        _drop(connection, database, batch)
        _put(connection, database, batch)
        meta = _ahead(database.meta, batch)
        if meta is not database.meta:
            store_meta(connection, meta)
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("rollback")
        raise
    database.meta = meta


def _drop(connection: sqlite3.Connection, database: Database, batch: Batch) -> None:
    tag = database.rows.tag
    _drop_sessions(connection, batch)
    finished = list(batch.settled.items())
    for statement in (_FINISHED_QUEUED, _FINISHED_RELEASED):
        _run(connection, statement, 2, finished)
    subscriptions = [key for key, record in batch.subscriptions.items() if record is None]
    _drop_by_keys(connection, "queued", "session, sequence", batch.queued_drops())
    _drop_by_keys(
        connection,
        "subscription",
        "session, tag",
        ((session_id, tag(filter_)) for session_id, filter_ in subscriptions),
    )
    _drop_by_keys(
        connection,
        "received",
        "session, packet_id",
        (key for key, put in batch.received.items() if not put),
    )
    _drop_by_key(connection, "retained", "tag", map(tag, _dropped(batch.retained)))
    _drop_by_key(connection, "delayed", "message", _dropped(batch.delayed))
    _drop_by_key(connection, "message", "id", _dropped(batch.messages))


def _drop_sessions(connection: sqlite3.Connection, batch: Batch) -> None:
    if batch.dropped_sessions:
        for table in CHILDREN:
            _drop_by_key(connection, table, "session", batch.dropped_sessions)
        _drop_by_key(connection, "session", "id", batch.dropped_sessions)


def _dropped(records: Mapping[K, object]) -> Iterator[K]:
    return (key for key, record in records.items() if record is None)


def _put(connection: sqlite3.Connection, database: Database, batch: Batch) -> None:
    rows, alive = database.rows, batch.alive
    subscriptions = (r for r in batch.subscriptions.values() if r and alive(r.session_id))
    received = (pair for pair, put in batch.received.items() if put and alive(pair[0]))
    _insert(connection, "session", 2, map(rows.session, batch.sessions.values()))
    _insert(connection, "subscription", 3, map(rows.subscription, subscriptions))
    _insert(connection, "message", 2, map(rows.message, filter(None, batch.messages.values())))
    _insert(connection, "queued", 4, map(rows.queued, batch.queued_puts()))
    _insert(connection, "retained", 2, map(rows.retained, filter(None, batch.retained.values())))
    _insert(connection, "delayed", 2, map(rows.delayed, filter(None, batch.delayed.values())))
    for table, pairs in (
        ("settled", batch.settled.items()),
        ("released", batch.released_puts()),
        ("received", received),
    ):
        _insert(connection, table, 3, starmap(partial(rows.pair, table), pairs))


def _ahead(meta: Meta, batch: Batch) -> Meta:
    """Move the numbers ahead of what the batch uses; the same object if they are."""
    session = max(batch.sessions, default=0)
    if session >= meta.next_session_id:
        meta = replace(meta, next_session_id=session + RESERVED_IDS)
    message = max(batch.messages, default=0)
    if message >= meta.next_message_id:
        meta = replace(meta, next_message_id=message + RESERVED_IDS)
    return meta


# ---- statements --------------------------------------------------------------------------------
# Nothing of a client's is ever part of a statement: tables and columns are literals of this file.


def _insert(connection: sqlite3.Connection, table: str, columns: int, rows: Iterable[Row]) -> None:
    statement = f"insert or replace into {table} values {{}}"  # noqa: S608
    _run(connection, statement, columns, rows)


def _drop_by_key(
    connection: sqlite3.Connection, table: str, column: str, keys: Iterable[int] | Iterable[bytes]
) -> None:
    statement = f"delete from {table} where {column} in (values {{}})"  # noqa: S608
    _run(connection, statement, 1, ((key,) for key in keys))


def _drop_by_keys(
    connection: sqlite3.Connection, table: str, columns: str, keys: Iterable[Row]
) -> None:
    statement = f"delete from {table} where ({columns}) in (values {{}})"  # noqa: S608
    _run(connection, statement, 2, keys)


def _run(connection: sqlite3.Connection, statement: str, columns: int, rows: Iterable[Row]) -> None:
    """Run a statement for all rows, many at a time; rows are made while earlier ones are written."""
    mark = f"({','.join('?' * columns)})"
    source = iter(rows)
    while chunk := list(islice(source, _SIZES[0])):
        start = 0
        for size in _SIZES:
            while len(chunk) - start >= size:
                part = chunk[start : start + size]
                values = [value for row in part for value in row]
                connection.execute(statement.format(",".join([mark] * size)), values)
                start += size
