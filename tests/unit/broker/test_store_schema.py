from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.store_schema import (
    SCHEMA,
    Meta,
    StoreDamaged,
    StoreInUse,
    StoreUnusable,
    read_meta,
    refuse,
    store_meta,
)

PATH = Path("store.db")
META = Meta(b"s" * 32, b"c" * 16, 5, 7)


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    return connection


def test_meta_is_read_as_it_was_written(connection: sqlite3.Connection) -> None:
    store_meta(connection, Meta(b"", None))
    store_meta(connection, META)
    assert read_meta(PATH, connection) == META


def test_meta_that_is_missing_is_damage(connection: sqlite3.Connection) -> None:
    with pytest.raises(StoreDamaged, match="does not say what it is"):
        read_meta(PATH, connection)


def test_meta_with_a_flipped_bit_is_damage(connection: sqlite3.Connection) -> None:
    store_meta(connection, META)
    (body,) = connection.execute("select body from meta").fetchone()
    for position in range(len(body)):
        altered = bytearray(body)
        altered[position] ^= 4
        connection.execute("update meta set body = ?", (bytes(altered),))
        with pytest.raises(StoreDamaged, match=r"wrong checksum.*restore it from a backup"):
            read_meta(PATH, connection)


@pytest.mark.parametrize(
    ("code", "error", "advice"),
    [
        (sqlite3.SQLITE_BUSY, StoreInUse, "stop that"),
        (sqlite3.SQLITE_CORRUPT, StoreDamaged, "restore it from a backup"),
        (sqlite3.SQLITE_NOTADB, StoreDamaged, "restore it from a backup"),
        (sqlite3.SQLITE_FULL, StoreUnusable, "check the disk"),
        (sqlite3.SQLITE_READONLY, StoreUnusable, "check the disk"),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnusable, "check the disk"),
        (None, StoreUnusable, "check the disk"),
    ],
)
def test_refusal_says_what_to_do(code: int | None, error: type[Exception], advice: str) -> None:
    reason = sqlite3.OperationalError("as SQLite says")
    if code is not None:
        reason.sqlite_errorcode = code
    with pytest.raises(error, match=rf"`store\.db`.*{advice}") as caught:
        refuse(PATH, reason)
    assert caught.value.__cause__ is reason
