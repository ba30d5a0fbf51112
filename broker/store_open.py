"""The store's file: made, verified and opened, or refused with what to do.

*Rules of this file.*

- A new file appears under its name only when it is complete. So one without tables was damaged, and is not taken for new.
- Nothing is written to a file before it is known to be ours, of our format, sound, under this key, and nobody else's.
- SQLite opens and closes the file, nobody else does: the end of any other descriptor of it would end SQLite's lock.

*Theory of operation.* SQLite in WAL mode with `locking_mode=exclusive`: the lock lasts as long as the connection and ends
with the process, however that ends; no index file is shared.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from typing import TYPE_CHECKING, assert_never

from broker.store_rows import Rows
from broker.store_schema import (
    APPLICATION_ID,
    FORMAT,
    SCHEMA,
    Database,
    Meta,
    StoreForeign,
    StoreLocked,
    StoreUnusable,
    damaged,
    read_meta,
    refuse,
    store_meta,
)
from broker.store_seal import Checked, Encrypted, key_check
from vault.aead import MAX_NUMBER
from vault.derivation import SALT_BYTES

if TYPE_CHECKING:
    from pathlib import Path

FILE_MODE = 0o600
LOG_BYTES = (
    1 << 26
)  # kept of the write-ahead log between commits; one very large commit may need more for a while


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
    connection.execute(f"pragma journal_size_limit={LOG_BYTES}").fetchone()
    (verdict,) = connection.execute("pragma quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, str(verdict))
    meta = read_meta(path, connection)
    _verify_key(path, key, meta)
    seal = Checked() if key is None else _begin_life(path, connection, key, meta.salt)
    (page_bytes,) = connection.execute("pragma page_size").fetchone()
    connection.execute(f"pragma max_page_count={max(max_bytes // page_bytes, 1)}").fetchone()
    return Database(path=path, connection=connection, seal=seal, rows=Rows(seal), meta=meta)


def _verify_format(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("pragma application_id").fetchone()
    (version,) = connection.execute("pragma user_version").fetchone()
    tables = _tables(connection)
    if not tables:
        raise damaged(path, "it is empty")
    if application != APPLICATION_ID:
        raise StoreForeign(f"`{path}` is not a store of this program: choose another `store.path`")
    if version != FORMAT:
        message = (
            f"store `{path}` has format {version}, this version knows {FORMAT}: "
            "use the version that wrote it, or move it away and start empty"
        )
        raise StoreForeign(message)
    if tables != _expected_tables():
        raise damaged(path, "its tables are not what they should be")


def _tables(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("select name, sql from sqlite_master order by name").fetchall()


def _expected_tables() -> list[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.executescript(SCHEMA)
        return _tables(connection)
    finally:
        connection.close()


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
        case _:
            assert_never(key)
    raise StoreLocked(message)


def _begin_life(path: Path, connection: sqlite3.Connection, key: bytes, salt: bytes) -> Encrypted:
    """Give this life of the process a key of its own, on disk before anything is sealed with it."""
    salts = _read_lives(path, connection)
    number = max(salts, default=0) + 1
    seal = Encrypted(key, file_salt=salt, number=number, salts=salts)
    connection.execute("insert into life values (?, ?)", (number, seal.salt))
    return seal


def _read_lives(path: Path, connection: sqlite3.Connection) -> dict[int, bytes]:
    salts: dict[int, bytes] = {}
    for row in connection.execute("select number, salt from life"):
        match row:
            case (int(number), bytes(salt)) if 0 < number < MAX_NUMBER and len(salt) == SALT_BYTES:
                salts[number] = salt
            case _:
                raise damaged(path, "it does not say how its rows were sealed")
    return salts
