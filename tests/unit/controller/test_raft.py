"""The door to PySyncObj: the reviewed version, no pickle, no sockets, only entries we know."""

from __future__ import annotations

import pickle  # noqa: TID251 - to prove that nobody uses it
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pysyncobj import serializer, syncobj, version  # type: ignore[import-untyped] # no types upstream

from controller import raft
from controller.errors import ConsensusFailed, StorageDamaged
from controller.journal import Journal
from controller.raft import ALONE, Engine, verify_entries
from controller.replica import Replica
from controller.snapshot import SnapshotStore
from controller.state import State

Outcomes = list[tuple[object, int]]


def build(path: Path, state: State) -> tuple[Engine, Journal, list[int]]:
    journal = Journal(path / "j.db", node_id="c1", timer=time.perf_counter)
    machine, roles = Replica(state), list[int]()
    engine = Engine(
        node_id="c1",
        journal=journal,
        snapshots=SnapshotStore(path / "snapshot", machine, node_id="c1", index=0),
        snapshot_path=path / "snapshot",
        machine=machine,
        timing=ALONE,
        max_pending=4,
        on_role=roles.append,
    )
    return engine, journal, roles


def collect(into: Outcomes) -> Callable[[object, int], None]:
    return lambda result, reason: into.append((result, reason))


def elect(engine: Engine, roles: list[int]) -> None:
    until = time.monotonic() + 5
    while 2 not in roles and time.monotonic() < until:
        engine.tick()
        time.sleep(0.005)
    for _ in range(3):
        engine.tick()


def test_engine_alone_elects_itself_and_applies(tmp_path: Path) -> None:
    state, outcomes = State(), Outcomes()
    engine, journal, roles = build(tmp_path, state)
    engine.replicate(b"too early", collect(outcomes))
    engine.tick()
    assert outcomes == [(None, 2)]
    elect(engine, roles)
    assert engine.leader == "c1"
    engine.replicate(b"x", collect(outcomes))
    engine.replicate_no_op(collect(outcomes))
    for _ in range(3):
        engine.tick()
    assert [reason for _, reason in outcomes[1:]] == [0, 0]
    assert state.applied == 1
    assert engine.applied_index == engine.commit_index == journal[-1][1]
    assert engine.term == 1
    engine.destroy()


def test_engine_bounds_its_queue(tmp_path: Path) -> None:
    engine, _, _ = build(tmp_path, State())
    outcomes = Outcomes()
    for _ in range(6):
        engine.replicate(b"x", collect(outcomes))
    assert [raft.SURELY_NOT_APPLIED[reason] for _, reason in outcomes] == [
        "too many commands are waiting"
    ] * 2
    engine.destroy()


def test_engine_has_one_method_and_no_descriptors(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    engine, journal, roles = build(tmp_path, State())
    elect(engine, roles)
    opened = {
        str(fd.readlink()) for fd in set(Path("/proc/self/fd").iterdir()) - before if fd.exists()
    }
    assert all(name.startswith(str(tmp_path)) for name in opened)
    assert list(vars(engine._raw)["_idToMethod"]) == [0]
    engine.destroy()
    del journal


def test_library_modules_have_lost_their_pickle(tmp_path: Path) -> None:
    engine, _, _ = build(tmp_path, State())
    assert syncobj.pickle is raft._Codec
    with pytest.raises(ConsensusFailed, match="asked for pickle"):
        serializer.pickle.loads(b"")
    engine.destroy()


@pytest.mark.parametrize(
    "data",
    [pickle.dumps((0, (b"x",))), b"\x92\x01\x91\xc4\x01x", b"\x92\x00\x92\xc4\x00\xc4\x00", b""],
)
def test_codec_knows_one_shape(data: bytes) -> None:
    assert raft._Codec.loads(raft._Codec.dumps((0, (b"x",)))) == (0, (b"x",))
    with pytest.raises(ValueError, match=r"."):
        raft._Codec.loads(data)


def test_other_library_versions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "VERSION", "0.3.18")
    with pytest.raises(ConsensusFailed, match=r"only 0\.3\.17 was reviewed"):
        build(tmp_path, State())


def test_engine_without_our_journal_is_refused() -> None:
    with pytest.raises(ConsensusFailed, match="not durable"):
        raft._only_our_journal("/tmp/journal")


def test_member_without_peers_never_sends() -> None:
    transport = raft._SoleTransport()
    assert not hasattr(transport, "bind")
    with pytest.raises(ConsensusFailed, match="without peers"):
        transport.send("c2", {})


@pytest.mark.parametrize(
    "entry", [b"", b"\x02membership", b"\x03version", b"\x00" + pickle.dumps((0, (b"x",)))]
)
def test_entries_of_other_kinds_are_refused(tmp_path: Path, entry: bytes) -> None:
    journal = Journal(tmp_path / "j.db", node_id="c1", timer=time.perf_counter)
    journal.add(b"\x01", 1, 0)
    journal.add(entry, 2, 0)
    with pytest.raises(StorageDamaged, match="journal entry 2 is not readable"):
        verify_entries(journal)
    journal.close()
