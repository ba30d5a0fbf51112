"""The store's tables, what a file says of itself, and how a file is refused.

*Theory of operation.* `application_id` and `user_version` in SQLite's own header say whose file it is and in which format.
The one row of `meta` holds what the key is told by, and numbers below which every session and message ever made lies;
they are moved ahead in steps, so that few commits write them. `life` holds the salt of each start of a process that
rows were sealed in, see `vault.aead`. In all other tables a row is keys and a body, see `store_rows`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import msgspec

from broker.store_seal import Checked, RowBroken

if TYPE_CHECKING:
    from pathlib import Path

    from broker.store_rows import Rows
    from broker.store_seal import Seal

FORMAT = 1
APPLICATION_ID = 0x53_54_4B_44  # "STKD"
_META = b"meta"  # the place of the row, see `Seal`

SCHEMA = f"""
begin;
create table meta(id integer primary key, body blob not null);
create table life(number integer primary key, salt blob not null);
create table session(id integer primary key, body blob not null);
create table settled(session integer primary key, below integer not null, body blob not null);
create table subscription(session integer not null, tag blob not null, body blob not null,
    primary key(session, tag)) without rowid;
create table message(id integer primary key, body blob not null);
create table queued(session integer not null, sequence integer not null, count integer not null, body blob not null,
    primary key(session, sequence)) without rowid;
create table released(session integer not null, sequence integer not null, body blob not null,
    primary key(session, sequence)) without rowid;
create table received(session integer not null, packet_id integer not null, body blob not null,
    primary key(session, packet_id)) without rowid;
create table retained(tag blob primary key, body blob not null) without rowid;
create table delayed(message integer primary key, body blob not null);
pragma application_id = {APPLICATION_ID};
pragma user_version = {FORMAT};
commit;
"""

_RESTORE = "restore it from a backup, or move it away and start empty"


class StoreError(Exception):
    """The store cannot be used; the message says what to do."""


class StoreUnusable(StoreError):  # noqa: N818 - named by whose fault it is (style 11)
    """The operating system refuses, or others could read the file."""


class StoreInUse(StoreError):  # noqa: N818 - named by whose fault it is (style 11)
    """Another process holds the file."""


class StoreForeign(StoreError):  # noqa: N818 - named by whose fault it is (style 11)
    """The file is not a store, or of a format this version does not know."""


class StoreLocked(StoreError):  # noqa: N818 - named by whose fault it is (style 11)
    """The key is not the file's, or one of both is missing."""


class StoreDamaged(StoreError):  # noqa: N818 - named by whose fault it is (style 11)
    """The file does not hold what was written to it."""


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What a file says of itself.

    Attributes:
        salt: of this file.
        check: tells its key; None: it is not encrypted.
        next_session_id: no session had this or a later id.
        next_message_id: no message had this or a later id.
    """

    salt: bytes
    check: bytes | None
    next_session_id: int = 1
    next_message_id: int = 1


@dataclass(slots=True, kw_only=True)
class Database:
    """An open store file.

    Attributes:
        path: where it lies.
        connection: the only one; for one thread at a time.
        seal: protects the bodies of rows.
        rows: makes and reads rows.
        meta: as it is on disk.
    """

    path: Path
    connection: sqlite3.Connection
    seal: Seal
    rows: Rows
    meta: Meta


def refuse(path: Path, error: sqlite3.Error) -> Never:
    """Say in our words what SQLite says.

    Raises:
        StoreError: always.
    """
    code = getattr(error, "sqlite_errorcode", None)  # absent where the module itself complains
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        message = (
            f"store `{path}` is used by another process: stop that, or choose another `store.path`"
        )
        raise StoreInUse(message) from error
    if primary in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}:
        raise damaged(path, str(error)) from error
    message = (
        f"store `{path}` cannot be used: {error}: check the disk, its free space and who may write"
    )
    raise StoreUnusable(message) from error


def damaged(path: Path, what: str) -> StoreDamaged:
    """What is said of a file that does not hold what was written."""
    return StoreDamaged(f"store `{path}` is damaged ({what}): {_RESTORE}")


def store_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    """Replace the row; part of the caller's transaction."""
    body = Checked().seal(msgspec.msgpack.encode(meta), _META)
    connection.execute("insert or replace into meta values (0, ?)", (body,))


def read_meta(path: Path, connection: sqlite3.Connection) -> Meta:
    """Return the row.

    Raises:
        StoreDamaged: it is missing or not what was written.
    """
    try:
        match connection.execute("select body from meta").fetchone():
            case (bytes(body),):
                return msgspec.msgpack.decode(Checked().open(body, _META), type=Meta)
            case _:
                raise damaged(path, "it does not say what it is")
    except (RowBroken, msgspec.DecodeError) as error:
        raise damaged(path, "what it says of itself has a wrong checksum") from error
