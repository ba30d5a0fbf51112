from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from broker.store_batch import Batch
from broker.store_fetch import fetch
from broker.store_open import open_database
from broker.store_schema import Database, StoreDamaged, StoreError
from broker.store_write import write
from tests.store_records import KEY, a_message, a_queued

QUEUE = [a_queued(1, sequence, message_id=sequence % 3 + 1) for sequence in range(10, 20)]


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    database = open_database(tmp_path / "store.db", key=KEY, synchronous="off", max_bytes=1 << 30)
    batch = Batch()
    for number in (1, 2, 3):
        batch.put_message(a_message(number))
    for row in QUEUE:
        batch.put_queued(row)
    batch.put_queued(a_queued(2, 12, message_id=1))
    write(database, batch)
    yield database
    database.connection.close()


def test_fetch_gives_the_rows_and_messages_asked_for(database: Database) -> None:
    rows, messages = fetch(database, 1, [12, 13, 14], (1, 3))
    assert rows == {row.sequence: row for row in QUEUE[2:5]}
    assert messages == {1: a_message(1), 3: a_message(3)}


def test_row_that_is_gone_is_an_error(database: Database) -> None:
    database.connection.execute("delete from queued where sequence = 13")
    with pytest.raises(StoreDamaged, match="message 13 of a queue is gone"):
        fetch(database, 1, [12, 13], (1,))


def test_message_that_is_gone_is_an_error(database: Database) -> None:
    with pytest.raises(StoreDamaged, match="message 9 is gone"):
        fetch(database, 1, [12], (9,))


@pytest.mark.parametrize(
    "harm",
    [
        lambda db: db.execute("update queued set count = 7 where sequence = 12"),
        lambda db: db.execute("update queued set body = zeroblob(40) where sequence = 12"),
        lambda db: db.execute("update queued set body = 'text' where sequence = 12"),
        lambda db: db.execute("update message set body = zeroblob(40) where id = 1"),
        lambda db: db.execute("update message set body = 7 where id = 1"),
        lambda db: db.execute(
            "update message set body = (select body from message where id = 2) where id = 1"
        ),
    ],
)
def test_row_that_is_not_what_was_written_is_an_error(
    database: Database, harm: Callable[[object], object]
) -> None:
    harm(database.connection)
    with pytest.raises(StoreDamaged):
        fetch(database, 1, [12], (1,))


def test_file_that_cannot_be_read_is_an_error(database: Database) -> None:
    database.connection.execute("drop table queued")
    with pytest.raises(StoreError):
        fetch(database, 1, [12], (1,))
