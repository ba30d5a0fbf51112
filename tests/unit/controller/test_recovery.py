"""At start: journal and snapshot are made to agree, or the member refuses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from controller.errors import StorageDamaged
from controller.journal import Entry, Journal
from controller.recovery import reconcile
from controller.snapshot import Snapshot


def entry(index: int, term: int = 1) -> Entry:
    return b"\x00%d" % index, index, term


def journal_of(path: Path, first: int, last: int) -> Journal:
    journal = Journal(path / "j.db", node_id="c1", timer=time.perf_counter)
    for index in range(first, last + 1):
        journal.add(*entry(index))
    journal.sync()
    return journal


def snapshot_at(index: int, *, node_id: str = "c1", term: int = 1) -> Snapshot:
    return Snapshot(
        node_id=node_id,
        last=entry(index, term),
        before=entry(index - 1, term),
        members=("c1",),
        state=b"",
    )


@pytest.mark.parametrize(("first", "last", "left"), [(1, 0, 0), (1, 1, 0), (1, 6, 5)])
def test_recovery_without_a_snapshot_replays_everything(
    tmp_path: Path, first: int, last: int, left: int
) -> None:
    journal = journal_of(tmp_path, first, last)
    assert reconcile(journal, None, node_id="c1") == left
    assert len(journal) == last
    journal.close()


@pytest.mark.parametrize(
    ("first", "at", "kept"), [(1, 5, 5), (4, 5, 5), (1, 10, 0), (9, 10, 0), (1, 2, 8)]
)
def test_recovery_keeps_everything_newer_than_the_snapshot(
    tmp_path: Path, first: int, at: int, kept: int
) -> None:
    journal = journal_of(tmp_path, first, 10)
    assert reconcile(journal, snapshot_at(at), node_id="c1") == kept
    assert [e[1] for e in journal[:]] == list(range(at - 1, 11))
    journal.close()


@pytest.mark.parametrize(
    ("first", "last", "snapshot", "message"),
    [
        (3, 10, None, "there is no snapshot of what was before"),
        (1, 0, snapshot_at(5), "the journal is empty"),
        (6, 10, snapshot_at(5), "the journal begins with entry 6"),
        (1, 4, snapshot_at(5), "the journal ends with entry 4"),
        (1, 10, snapshot_at(5, term=2), "different histories"),
        (1, 10, snapshot_at(5, node_id="c2"), "belongs to member `c2`"),
    ],
)
def test_recovery_refuses_gaps_and_says_what_to_do(
    tmp_path: Path, first: int, last: int, snapshot: Snapshot | None, message: str
) -> None:
    journal = journal_of(tmp_path, first, last)
    before = journal[:]
    with pytest.raises(StorageDamaged, match=message) as caught:
        reconcile(journal, snapshot, node_id="c1")
    assert "restore" in str(caught.value)
    assert journal[:] == before
    journal.close()
