"""The journal: what `sync` returned for is there after a crash, and nothing damaged is ever used."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.errors import DataDirectoryUnusable, JournalBroken, StorageDamaged
from controller.journal import Journal


def open_journal(path: Path, **options: Callable[[float], None]) -> Journal:
    return Journal(path, node_id="c1", timer=time.perf_counter, **options)


def filled(path: Path, count: int = 5) -> Journal:
    journal = open_journal(path)
    for index in range(1, count + 1):
        journal.add(b"\x00command-%d" % index, index, 1)
    journal.sync()
    return journal


def crashed(path: Path) -> Path:
    """Copy what a machine that lost power now would find: only what was committed to SQLite counts."""
    copy = path.with_name("crashed.db")
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        source = path.with_name(path.name + suffix)
        if source.exists():
            target = copy.with_name(copy.name + suffix)
            shutil.copyfile(source, target)
            target.chmod(0o600)
    return copy


def test_journal_returns_what_was_added(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    filled(path).close()
    journal = open_journal(path)
    assert len(journal) == 5
    assert journal[0] == (b"\x00command-1", 1, 1)
    assert [entry[1] for entry in journal[2:4]] == [3, 4]
    assert journal.bytes == 50
    journal.close()


def test_journal_synced_entries_survive_a_crash_and_others_do_not(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = filled(path)
    journal.add(b"\x00not synced", 6, 1)
    assert journal.dirty
    survivor = open_journal(crashed(path))
    assert [entry[1] for entry in survivor[:]] == [1, 2, 3, 4, 5]
    survivor.close()
    journal.sync()
    survivor = open_journal(crashed(path))
    assert len(survivor) == 6
    survivor.close()
    journal.close()


def test_journal_syncs_once_for_a_burst(tmp_path: Path) -> None:
    took: list[float] = []
    journal = open_journal(tmp_path / "j.db", on_sync=took.append)
    for index in range(1, 101):
        journal.add(b"\x01", index, 1)
    journal.sync()
    journal.sync()
    assert journal.syncs == len(took) == 1
    journal.close()


def test_journal_is_durable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = filled(path)
    with sqlite3.connect(path) as other:
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)
    other.close()
    assert journal._db.execute("pragma synchronous").fetchone() == (2,)
    for name in ("j.db", "j.db-wal"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    journal.close()


def test_journal_commit_index_makes_entries_durable_first(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_journal(path)
    journal.add(b"\x01", 1, 0)
    journal.add(b"\x01", 2, 0)
    journal.setRaftCommitIndex(2)
    assert not journal.dirty
    survivor = open_journal(crashed(path))
    assert len(survivor) == 2
    assert survivor.getRaftCommitIndex() <= 2
    survivor.close()
    journal.onOneSecondTimer()
    survivor = open_journal(crashed(path))
    assert survivor.getRaftCommitIndex() == 2
    survivor.close()
    journal.close()


def test_journal_commit_index_is_never_ahead_of_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = filled(path)
    journal.setRaftCommitIndex(5)
    journal.deleteEntriesFrom(2)
    journal.close()
    journal = open_journal(path)
    assert journal.getRaftCommitIndex() == 2
    journal.close()


def test_journal_term_and_vote_are_durable_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_journal(path)
    journal.setCurrentTerm(7, "c2")
    survivor = open_journal(crashed(path))
    assert (survivor.getCurrentTerm(), survivor.getVotedForNodeId()) == (7, "c2")
    survivor.close()
    journal.setCurrentTerm(8, None)
    assert journal.getVotedForNodeId() is None
    journal.close()


def test_journal_cuts_at_both_ends_and_makes_the_snapshot_durable_first(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = filled(path, 10)
    calls: list[int] = []
    journal.before_compact = lambda: calls.append(len(journal))
    journal.deleteEntriesTo(4)
    journal.deleteEntriesFrom(3)
    assert calls == [10]
    assert [entry[1] for entry in journal[:]] == [5, 6, 7]
    assert journal.bytes == sum(len(entry[0]) for entry in journal[:])
    journal.close()
    journal = open_journal(path)
    assert [entry[1] for entry in journal[:]] == [5, 6, 7]
    journal.clear()
    assert len(journal) == journal.bytes == 0
    journal.close()


def test_journal_keeps_its_instance_and_a_new_one_has_another(tmp_path: Path) -> None:
    first = open_journal(tmp_path / "a.db")
    other = open_journal(tmp_path / "b.db")
    first.close()
    again = open_journal(tmp_path / "a.db")
    assert first.instance == again.instance != other.instance
    again.close()
    other.close()


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update entry set command = x'00FF' where position = 3", "entry 3 has a wrong checksum"),
        ("update entry set term = 2 where position = 3", "entry 3 has a wrong checksum"),
        ("update entry set command = 'text' where position = 3", "entry 3 has a wrong checksum"),
        ("delete from entry where position in (2, 3)", "entries 2 to 3 are missing"),
        ("delete from meta", "has lost its term and vote"),
        ("delete from meta where name = 'term'", "damaged term or vote"),
        ("update meta set value = 'x' where name = 'commit'", "damaged term or vote"),
        ("update meta set value = 99 where name = 'format'", "format 99"),
    ],
)
def test_journal_damage_is_refused_with_what_to_do(
    tmp_path: Path, statement: str, message: str
) -> None:
    path = tmp_path / "j.db"
    filled(path).close()
    damage(path, statement)
    with pytest.raises(StorageDamaged, match=message):
        open_journal(path)


def test_journal_with_decreasing_terms_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_journal(path)
    journal.add(b"\x01", 1, 5)
    journal.add(b"\x01", 2, 4)
    journal.close()
    with pytest.raises(StorageDamaged, match="older term"):
        open_journal(path)


def test_journal_of_another_member_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j.db").close()
    with pytest.raises(StorageDamaged, match="belongs to member `c1`"):
        Journal(tmp_path / "j.db", node_id="c2", timer=time.perf_counter)


def test_journal_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(b"this is no database at all, but long enough to be read as one" * 40)
    path.chmod(0o600)
    with pytest.raises(StorageDamaged, match="restore the whole data directory"):
        open_journal(path)


def test_journal_with_a_torn_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_journal(path)
    for index in range(1, 400):
        journal.add(b"\x00" + b"x" * 200, index, 1)
    journal.close()
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2 // 4096 * 4096
    raw[middle : middle + 4096] = bytes(4096)
    path.write_bytes(raw)
    with pytest.raises(StorageDamaged):
        open_journal(path)


def test_journal_open_to_others_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j.db").close()
    (tmp_path / "j.db").chmod(0o644)
    with pytest.raises(DataDirectoryUnusable):
        open_journal(tmp_path / "j.db")


def test_journal_refuses_a_gap_in_what_is_added(tmp_path: Path) -> None:
    journal = filled(tmp_path / "j.db")
    with pytest.raises(JournalBroken, match="cannot follow"):
        journal.add(b"\x01", 9, 1)
    assert len(journal) == 5
    journal.close()


def test_journal_is_broken_for_good_after_a_failed_write(tmp_path: Path) -> None:
    journal = filled(tmp_path / "j.db")
    journal._db.execute("pragma max_page_count = 1")  # the disk is full

    def fill_up() -> None:
        for index in range(6, 2000):
            journal.add(b"\x00" + b"x" * 4000, index, 1)

    with pytest.raises(JournalBroken, match="check the disk"):
        fill_up()
    journal._db.execute("pragma max_page_count = 100000")  # an operator freed space
    for attempt in (
        journal.sync,
        lambda: journal.add(b"", 1, 1),
        lambda: journal.setCurrentTerm(9, None),
        lambda: journal.setRaftCommitIndex(99),
    ):
        with pytest.raises(JournalBroken):
            attempt()
    journal.close()
    again = open_journal(tmp_path / "j.db")
    assert len(again) == 5
    again.close()


def test_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = filled(tmp_path / "j.db")
    journal.close()
    journal.close()
    with pytest.raises(JournalBroken, match="closed"):
        journal.add(b"\x01", 6, 1)
