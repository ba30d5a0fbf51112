"""The store's file: made, verified and opened, or refused with what to do.

*Rules of this file.*

- A new file appears under its name only when it is complete. So one without tables was damaged, and is not taken for new.
- Nothing is written to a file before it is known to be ours, of our format, sound, under this key, and nobody else's.
- SQLite opens and closes the file, nobody else does: the end of any other descriptor of it would end SQLite's lock.

*Theory of operation.* SQLite in WAL mode with `locking_mode=exclusive`: the lock lasts as long as the connection and ends with the
process, however that ends; no index file is shared. `application_id` and `user_version` in SQLite's own header say
whose file it is and in which format. The one row of `meta` holds what the key is told by, and numbers below which
no session and no message was ever made; they are moved ahead in steps so that few commits write them.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import msgspec

from broker.store_rows import Rows
from broker.store_seal import Checked, Encrypted, RowBroken, key_check
from vault.derivation import SALT_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from broker.store_seal import Seal

FORMAT = 1
APPLICATION_ID = 0x53_54_4B_44  # "STKD"
FILE_MODE = 0o600
_META = b"meta"

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


def open_database(path: Path, *, key: bytes | None, synchronous: str, max_bytes: int) -> Database:
    """Open a store's file, after making it if there is none.

    Args:
        path: the file; its folder must exist.
        key: KEY_BYTES; None: not encrypted.
        synchronous: SQLite's word.
        max_bytes: size at which SQLite says that the disk is full.

    Raises:
        StoreError: see the classes here.
    """
    try:
        if not path.exists():
            _make(path, key)
        _verify_private(path)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise StoreUnusable(f"cannot create store `{path}`: {reason}") from error
    connection = _connect(path)
    try:
        return _open(path, connection, key=key, synchronous=synchronous, max_bytes=max_bytes)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            refuse(path, error)
        raise


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


# ---- files -------------------------------------------------------------------------------------


def _make(path: Path, key: bytes | None) -> None:
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        _fill(scratch, key)
        os.link(scratch, path)  # unlike a rename it fails if another process was faster
    except FileExistsError:
        pass
    except sqlite3.Error as error:
        refuse(path, error)
    finally:
        scratch.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _fill(path: Path, key: bytes | None) -> None:
    salt = secrets.token_bytes(SALT_BYTES)
    connection = _connect(path)
    try:
        connection.executescript(SCHEMA)
        store_meta(connection, Meta(salt, None if key is None else key_check(key, salt)))
        connection.execute("pragma journal_mode=wal").fetchone()
    finally:
        connection.close()


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _verify_private(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnusable(f"store `{path}` is not a regular file: name the file itself")
    if status.st_uid != os.geteuid():
        message = (
            f"store `{path}` belongs to user {status.st_uid}: run `chown {os.geteuid()} {path}`"
        )
        raise StoreUnusable(message)
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        message = (
            f"store `{path}` has mode {mode:04o}, others could read it: run `chmod 600 {path}`"
        )
        raise StoreUnusable(message)


# ---- opening -----------------------------------------------------------------------------------


def _connect(path: Path) -> sqlite3.Connection:
    # One thread at a time, but not always the same: commits run in Trio's worker threads.
    return sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def _open(
    path: Path,
    connection: sqlite3.Connection,
    *,
    key: bytes | None,
    synchronous: str,
    max_bytes: int,
) -> Database:
    connection.execute("pragma locking_mode=exclusive").fetchone()
    _verify_format(path, connection)
    if connection.execute("pragma journal_mode=wal").fetchone() != ("wal",):
        message = f"the file system of `{path}` cannot hold a write-ahead log: choose another `store.path`"
        raise StoreUnusable(message)
    connection.execute(f"pragma synchronous={synchronous}")
    (verdict,) = connection.execute("pragma quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, str(verdict))
    meta = _read_meta(path, connection)
    _verify_key(path, key, meta)
    seal = Checked() if key is None else _begin_life(connection, key, meta.salt)
    (page_bytes,) = connection.execute("pragma page_size").fetchone()
    connection.execute(f"pragma max_page_count={max(max_bytes // page_bytes, 1)}").fetchone()
    return Database(path=path, connection=connection, seal=seal, rows=Rows(seal), meta=meta)


def _verify_format(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("pragma application_id").fetchone()
    (version,) = connection.execute("pragma user_version").fetchone()
    if not connection.execute("select count(*) from sqlite_master").fetchone()[0]:
        raise damaged(path, "it is empty")
    if application != APPLICATION_ID:
        raise StoreForeign(f"`{path}` is not a store of this program: choose another `store.path`")
    if version != FORMAT:
        message = (
            f"store `{path}` has format {version}, this version knows {FORMAT}: "
            "use the version that wrote it, or move it away and start empty"
        )
        raise StoreForeign(message)


def _read_meta(path: Path, connection: sqlite3.Connection) -> Meta:
    try:
        match connection.execute("select body from meta").fetchone():
            case (bytes(body),):
                return msgspec.msgpack.decode(Checked().open(body, _META), type=Meta)
            case _:
                raise damaged(path, "it does not say what it is")
    except (RowBroken, msgspec.DecodeError) as error:
        raise damaged(path, "what it says of itself has a wrong checksum") from error


def _verify_key(path: Path, key: bytes | None, meta: Meta) -> None:
    match key, meta.check:
        case None, None:
            return
        case None, _:
            message = (
                f"store `{path}` is encrypted: set `store.encrypt = true` and name its `store.key`"
            )
        case _, None:
            message = (
                f"store `{path}` is not encrypted: set `store.encrypt = false`, "
                "or move it away and start empty"
            )
        case bytes(given), bytes(check):
            # the check guards nothing: it only tells an operator which mistake it is
            if secrets.compare_digest(key_check(given, meta.salt), check):
                return
            message = f"store `{path}` was encrypted with another key: name that in `store.key`"
    raise StoreLocked(message)


def _begin_life(connection: sqlite3.Connection, key: bytes, salt: bytes) -> Encrypted:
    """Give this life of the process a key of its own, on disk before anything is sealed with it."""
    salts: dict[int, bytes] = dict(connection.execute("select number, salt from life"))
    number = max(salts, default=0) + 1
    seal = Encrypted(key, file_salt=salt, number=number, salts=salts)
    connection.execute("insert into life values (?, ?)", (number, seal.salt))
    return seal
