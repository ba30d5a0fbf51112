from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker.store_open import open_database
from broker.store_schema import (
    Database,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreInUse,
    StoreLocked,
    StoreUnusable,
)
from tests.store_records import KEY

PAGE_BYTES = 4_096


def opened(path: Path, key: bytes | None = KEY, *, max_bytes: int = 1 << 30) -> Database:
    return open_database(path, key=key, synchronous="full", max_bytes=max_bytes)


def made(path: Path, key: bytes | None = KEY) -> Path:
    opened(path, key).connection.close()
    return path


def header(path: Path, pragma: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"pragma {pragma}")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("key", [KEY, None])
def test_open_makes_a_private_file_and_leaves_no_other(tmp_path: Path, key: bytes | None) -> None:
    previous = os.umask(0)
    try:
        database = opened(tmp_path / "store.db", key)
    finally:
        os.umask(previous)
    database.connection.execute("begin immediate")
    database.connection.execute("insert into life values (9, x'00')")
    database.connection.execute("commit")
    assert {path.name for path in tmp_path.iterdir()} == {"store.db", "store.db-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    database.connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


def test_open_syncs_every_commit_where_that_is_asked(tmp_path: Path) -> None:
    for word, number in (("full", 2), ("normal", 1), ("off", 0)):
        database = open_database(
            tmp_path / "store.db", key=None, synchronous=word, max_bytes=1 << 20
        )
        assert database.connection.execute("pragma synchronous").fetchone() == (number,)
        assert database.connection.execute("pragma journal_mode").fetchone() == ("wal",)
        database.connection.close()


def test_open_gives_every_life_a_salt_of_its_own(tmp_path: Path) -> None:
    for _ in range(3):
        made(tmp_path / "store.db")
    database = opened(tmp_path / "store.db")
    salts = dict(database.connection.execute("select number, salt from life"))
    database.connection.close()
    assert list(salts) == [1, 2, 3, 4]
    assert len(set(salts.values())) == 4


def test_open_bounds_the_file(tmp_path: Path) -> None:
    database = opened(made(tmp_path / "store.db"), max_bytes=64 * PAGE_BYTES)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.connection.execute("insert into message values (1, ?)", (bytes(65 * PAGE_BYTES),))
    database.connection.close()


def test_open_refuses_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="no such file or directory"):
        opened(tmp_path / "absent" / "store.db")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_open_refuses_a_file_others_can_reach(tmp_path: Path, mode: int) -> None:
    made(tmp_path / "store.db").chmod(mode)
    with pytest.raises(StoreUnusable, match="chmod 600"):
        opened(tmp_path / "store.db")


def test_open_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    made(tmp_path / "real.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    (tmp_path / "dangling.db").symlink_to(tmp_path / "absent.db")
    (tmp_path / "folder.db").mkdir()
    for name in ("link.db", "dangling.db", "folder.db"):
        with pytest.raises(StoreUnusable, match="not a regular file"):
            opened(tmp_path / name)
    assert not (tmp_path / "absent.db").exists()


def test_open_refuses_another_key(tmp_path: Path) -> None:
    made(tmp_path / "store.db")
    with pytest.raises(StoreLocked, match=r"another key.*`store\.key`"):
        opened(tmp_path / "store.db", b"o" * 32)
    made(tmp_path / "store.db")


def test_open_refuses_an_encrypted_file_without_a_key(tmp_path: Path) -> None:
    made(tmp_path / "store.db")
    with pytest.raises(StoreLocked, match="encrypt = true"):
        opened(tmp_path / "store.db", None)


def test_open_refuses_a_clear_file_with_a_key(tmp_path: Path) -> None:
    made(tmp_path / "store.db", None)
    with pytest.raises(StoreLocked, match="encrypt = false"):
        opened(tmp_path / "store.db")
    made(tmp_path / "store.db", None)


def test_open_refuses_another_format(tmp_path: Path) -> None:
    header(made(tmp_path / "store.db"), "user_version = 2")
    with pytest.raises(StoreForeign, match="format 2, this version knows 1"):
        opened(tmp_path / "store.db")


def test_open_refuses_somebody_elses_file_and_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("create table theirs(a)")
    connection.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(StoreForeign, match="not a store of this program"):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no database at all, but some text\n" * 300])
def test_open_refuses_what_holds_no_tables(tmp_path: Path, content: bytes) -> None:
    """A new store appears complete under its name, so an empty file is a damaged one."""
    (tmp_path / "store.db").write_bytes(content)
    (tmp_path / "store.db").chmod(0o600)
    with pytest.raises(StoreDamaged, match="restore it from a backup"):
        opened(tmp_path / "store.db")
    assert (tmp_path / "store.db").read_bytes() == content


def test_open_refuses_a_file_that_was_cut(tmp_path: Path) -> None:
    content = made(tmp_path / "store.db").read_bytes()
    for pages in range(1, len(content) // PAGE_BYTES):
        (tmp_path / "store.db").write_bytes(content[: pages * PAGE_BYTES])
        with pytest.raises(StoreError, match="restore it from a backup"):
            opened(tmp_path / "store.db")


def test_open_refuses_a_file_another_process_holds(tmp_path: Path) -> None:
    database = opened(tmp_path / "store.db")
    code = (
        "import sys; from pathlib import Path; from broker.store_open import open_database\n"
        "open_database(Path(sys.argv[1]), key=bytes(range(32)), synchronous='full', max_bytes=1 << 30)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store.db")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "StoreInUse" in done.stderr
    assert "used by another process" in done.stderr
    database.connection.close()
    made(tmp_path / "store.db")


def test_open_refuses_a_second_opening_and_keeps_the_first_ones_lock(tmp_path: Path) -> None:
    database = opened(tmp_path / "store.db")
    for _ in range(2):
        with pytest.raises(StoreInUse):
            opened(tmp_path / "store.db")
    database.connection.close()


def test_open_refuses_a_folder_it_cannot_write_to(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "file").write_bytes(b"")
        folder = tmp_path / "file"  # root may write everywhere, but not into a file
    else:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
    with pytest.raises(StoreUnusable, match="cannot create store"):
        opened(folder / "store.db")
