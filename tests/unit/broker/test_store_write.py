from __future__ import annotations

import sqlite3
from collections.abc import Generator
from pathlib import Path

import pytest

from broker.store_batch import Batch
from broker.store_open import open_database
from broker.store_schema import Database
from broker.store_write import RESERVED_IDS, write
from tests.store_records import (
    KEY,
    a_delayed,
    a_message,
    a_queued,
    a_retained,
    a_session,
    a_subscription,
)

TABLES = (
    "session",
    "settled",
    "subscription",
    "message",
    "queued",
    "released",
    "received",
    "retained",
    "delayed",
)


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    database = open_database(tmp_path / "store.db", key=KEY, synchronous="off", max_bytes=1 << 20)
    yield database
    database.connection.close()


def counts(database: Database) -> dict[str, int]:
    found = {
        table: database.connection.execute(f"select count(*) from {table}").fetchone()[0]
        for table in TABLES
    }
    return {table: count for table, count in found.items() if count}


def full(session_id: int) -> Batch:
    batch = Batch()
    batch.put_session(a_session(session_id))
    batch.put_subscription(a_subscription(session_id, "a"))
    batch.put_message(a_message(session_id))
    batch.put_queued(a_queued(session_id, 1, message_id=session_id))
    batch.put_released(session_id, [1, 2])
    batch.put_received(session_id, [1])
    batch.put_retained(a_retained(f"t/{session_id}", session_id))
    batch.put_delayed(a_delayed(session_id))
    batch.settle(session_id, 1)
    return batch


def test_write_fills_every_table(database: Database) -> None:
    write(database, full(1))
    assert counts(database) == dict.fromkeys(TABLES, 1) | {"released": 2}


def test_write_drops_a_session_with_its_children_only(database: Database) -> None:
    write(database, full(1))
    write(database, full(2))
    batch = Batch()
    batch.drop_session(1)
    batch.put_subscription(a_subscription(1, "late"))
    batch.put_received(1, [9])
    write(database, batch)
    assert counts(database) == dict.fromkeys(TABLES, 1) | {
        "released": 2,
        "message": 2,
        "retained": 2,
        "delayed": 2,
    }


def test_write_drops_rows_by_their_keys(database: Database) -> None:
    write(database, full(1))
    batch = Batch()
    batch.drop_subscription(1, "a")
    batch.drop_queued(1, 1)
    batch.drop_received(1, [1])
    batch.drop_retained("t/1")
    batch.drop_delayed(1)
    batch.drop_message(1)
    batch.settle(1, 3)
    write(database, batch)
    assert counts(database) == {"session": 1, "settled": 1}


@pytest.mark.parametrize("rows", [1, 3, 4, 63, 64, 65, 1_000])
def test_write_puts_and_drops_any_number_of_rows(database: Database, rows: int) -> None:
    batch = Batch()
    for number in range(1, rows + 1):
        batch.put_message(a_message(number))
        batch.put_queued(a_queued(1, number, message_id=number))
    write(database, batch)
    assert counts(database) == {"message": rows, "queued": rows}
    batch = Batch()
    for number in range(1, rows + 1):
        batch.drop_message(number)
        batch.drop_queued(1, number)
    write(database, batch)
    assert counts(database) == {}


def test_settling_drops_what_ends_below_and_keeps_what_it_cuts(database: Database) -> None:
    batch = Batch()
    for session in (1, 2):
        for sequence in (1, 5, 9):
            batch.put_queued(a_queued(session, sequence, count=4))
        batch.put_released(session, range(1, 12))
    write(database, batch)
    batch = Batch()
    batch.settle(1, 7)
    batch.settle(2, 5)
    write(database, batch)
    rows = database.connection.execute("select session, sequence from queued").fetchall()
    assert rows == [(1, 5), (1, 9), (2, 5), (2, 9)]
    least = "select session, min(sequence) from released group by session"
    assert database.connection.execute(least).fetchall() == [(1, 7), (2, 5)]


@pytest.mark.parametrize("table", ["queued", "released"])
def test_settling_searches_by_key_instead_of_reading_the_table(
    database: Database, table: str
) -> None:
    plans: list[str] = []
    write(database, full(1))

    def explain(statement: str) -> None:
        if statement.startswith(f"delete from {table} where (session, sequence) in (select"):
            plans.append(statement)

    database.connection.set_trace_callback(explain)
    batch = Batch()
    batch.settle(1, 9)
    write(database, batch)
    database.connection.set_trace_callback(None)
    (statement,) = plans
    plan = database.connection.execute(f"explain query plan {statement}").fetchall()
    scans = [row[3] for row in plan if row[3].startswith("SCAN")]
    assert all("CONSTANT" in scan or scan == "SCAN s" for scan in scans), plan


def test_write_moves_the_numbers_ahead_in_steps(database: Database) -> None:
    batch = Batch()
    batch.put_message(a_message(1))
    write(database, batch)
    assert database.meta.next_message_id == 1 + RESERVED_IDS
    assert database.meta.next_session_id == 1
    before = database.meta
    batch = Batch()
    batch.put_message(a_message(RESERVED_IDS))
    write(database, batch)
    assert database.meta is before
    batch = Batch()
    batch.put_message(a_message(RESERVED_IDS + 1))
    batch.put_session(a_session(7))
    write(database, batch)
    assert database.meta.next_message_id == 1 + 2 * RESERVED_IDS
    assert database.meta.next_session_id == 7 + RESERVED_IDS


def test_write_in_a_full_store_changes_nothing(database: Database) -> None:
    write(database, full(1))
    before, meta = counts(database), database.meta
    batch = full(2)
    batch.drop_message(1)
    batch.put_message(a_message(RESERVED_IDS * 3, data=bytes(2 << 20)))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        write(database, batch)
    assert counts(database) == before
    assert database.meta is meta
    write(database, full(3))


def test_write_makes_room_before_it_takes_it(database: Database) -> None:
    most = bytes(700_000)
    for number in range(1, 5):
        batch = Batch()
        batch.drop_message(number - 1)
        batch.put_message(a_message(number, data=most))
        write(database, batch)
    assert counts(database) == {"message": 1}
