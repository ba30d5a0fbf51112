"""Snapshots: whole or refused."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.commands import Result, Verdict
from controller.errors import StorageDamaged
from controller.snapshot import (
    Snapshot,
    SnapshotStore,
    make_durable,
    read_snapshot,
    write_snapshot,
)

SNAPSHOT = Snapshot(
    node_id="c1", last=(b"\x00b", 8, 2), before=(b"\x01", 7, 2), members=("c1",), state=b"state"
)


class Machine:
    """A state machine that is just bytes."""

    def __init__(self) -> None:
        self.image = b""

    def apply(self, command: bytes) -> Result:
        self.image += command
        return Result(verdict=Verdict.APPLIED, epoch=1)

    def dump(self) -> bytes:
        return self.image

    def restore(self, image: bytes) -> None:
        if image == b"bad":
            raise ValueError("no state")
        self.image = image


@dataclass(frozen=True)
class Member:
    id: str


def test_snapshot_reads_back_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    assert write_snapshot(path, SNAPSHOT) == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_snapshot(path) == SNAPSHOT
    make_durable(path)


def test_snapshot_missing_is_none(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path / "snapshot") is None
    make_durable(tmp_path / "snapshot")


def test_snapshot_any_flipped_or_missing_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    write_snapshot(path, SNAPSHOT)
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position])
        with pytest.raises(StorageDamaged):
            read_snapshot(path)
        bad = bytearray(good)
        bad[position] ^= 0x10
        path.write_bytes(bad)
        with pytest.raises(StorageDamaged):
            read_snapshot(path)


def test_snapshot_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    write_snapshot(
        path,
        Snapshot(**{**{f: getattr(SNAPSHOT, f) for f in SNAPSHOT.__struct_fields__}, "format": 9}),
    )
    with pytest.raises(StorageDamaged, match="format 9"):
        read_snapshot(path)


def test_snapshot_whose_entries_do_not_follow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    write_snapshot(
        path, Snapshot(node_id="c1", last=(b"", 8, 2), before=(b"", 6, 2), members=(), state=b"")
    )
    with pytest.raises(StorageDamaged, match="do not follow"):
        read_snapshot(path)


def test_store_writes_and_loads_the_machine(tmp_path: Path) -> None:
    machine, path = Machine(), tmp_path / "snapshot"
    machine.image = b"abc"
    store = SnapshotStore(path, machine, node_id="c1", index=0)
    store.write(str(path), (SNAPSHOT.last, SNAPSHOT.before, {Member("c2"), Member("c1")}))
    assert store.index == 8
    machine.image = b""
    assert store.load(str(path)) == (SNAPSHOT.last, SNAPSHOT.before, ["c1", "c2"])
    assert machine.image == b"abc"
    store.verify_loaded()


def test_store_remembers_what_the_library_would_swallow(tmp_path: Path) -> None:
    machine, path = Machine(), tmp_path / "snapshot"
    store = SnapshotStore(path, machine, node_id="c1", index=0)
    with pytest.raises(OSError, match="Is a directory"):
        store.write(str(tmp_path), (SNAPSHOT.last, SNAPSHOT.before, ()))
    assert store.failed is not None
    assert store.index == 0
    machine.image = b"bad"
    store.write(str(path), (SNAPSHOT.last, SNAPSHOT.before, ()))
    with pytest.raises(ValueError, match="no state"):
        store.load(str(path))
    with pytest.raises(ValueError, match="no state"):
        store.verify_loaded()
