"""The consensus log of one real member: acknowledged means on disk, in every order of events."""

from __future__ import annotations

import pickle  # noqa: TID251 - to prove that nobody uses it
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from controller.commands import AddRule, RuleDraft, Verdict, encode_command
from controller.consensus import Role
from controller.datadir import DataDirectory
from controller.errors import (
    ConsensusFailed,
    JournalBroken,
    NotCommitted,
    OutcomeUnknown,
    StorageDamaged,
)
from controller.raft import ALONE, RaftTiming
from controller.raft_log import MAX_COMMAND_BYTES, MAX_PENDING_COMMANDS, RaftLog
from controller.replica import Replica
from controller.state import PolicyChange, State

CUTTING = msgspec.structs.replace(ALONE, compact_entries=20)


def command(number: int) -> bytes:
    draft = RuleDraft(principal="sensor", resource=f"topic.t{number}.**", operations="write")
    return encode_command(
        AddRule(request_id=f"q-{number}", at=1.0, by="admin", rule=draft, new_id=f"r-{number}")
    )


@asynccontextmanager
async def running(
    path: Path, state: State | None = None, timing: RaftTiming = ALONE
) -> AsyncGenerator[tuple[RaftLog, State], None]:
    state = state or State()
    with DataDirectory(path) as directory:
        log = RaftLog(
            directory, node_id="c1", machine=Replica(state), timer=time.perf_counter, timing=timing
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(log.run)
            yield log, state
            nursery.cancel_scope.cancel()


def as_after_power_loss(path: Path, number: int) -> Path:
    """Copy the directory as the disk has it now."""
    copy = path.with_name(f"copy-{number}")
    shutil.copytree(path, copy)
    copy.chmod(0o700)
    return copy


async def test_log_applies_and_survives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (log, state):
        for number in range(10):
            assert (await log.submit(command(number))).verdict is Verdict.APPLIED
        await log.barrier()
        status, chain = log.status(), state.chain
        assert (status.role, status.leader, status.members) == (Role.LEADER, "c1", ("c1",))
        assert status.commit_index == status.applied_index == status.last_index
    async with running(tmp_path / "d") as (log, state):
        assert (state.chain, state.epoch, len(state.rules)) == (chain, 10, 10)
        assert log.status().instance == status.instance
        assert log.status().term > status.term
        assert (await log.submit(command(3))).repeated


async def test_log_has_every_acknowledged_write_on_disk_at_any_moment(tmp_path: Path) -> None:
    acknowledged: list[set[str]] = []
    copies: list[Path] = []
    async with running(tmp_path / "d", timing=CUTTING) as (log, _):
        known: set[str] = set()
        for number in range(60):
            known.add((await log.submit(command(number))).rule_id)
            if number % 7 == 0:
                copies.append(as_after_power_loss(tmp_path / "d", number))
                acknowledged.append(set(known))
    assert len(copies) == 9
    for copy, known in zip(copies, acknowledged, strict=True):
        async with running(copy) as (_, state):
            assert {rule.id for rule in state.rules.rules} >= known


async def test_log_syncs_once_for_a_burst(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (log, state):
        before = log.status().syncs
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(log.submit, command(number))
        assert state.epoch == 500
        assert log.status().syncs - before < 50


async def test_log_is_cut_by_snapshots_and_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "d", timing=CUTTING) as (log, state):
        for number in range(100):
            await log.submit(command(number))
        status, image = log.status(), state.dump()
        assert status.snapshot_index > 50
        assert status.last_index - status.first_index < 30
    assert (tmp_path / "d" / "snapshot").stat().st_mode & 0o777 == 0o600
    async with running(tmp_path / "d", timing=CUTTING) as (log, state):
        assert state.dump() == image
        assert log.status().snapshot_index == status.snapshot_index
        await log.submit(command(100))
        assert state.epoch == 101


async def test_log_grows_on_when_a_snapshot_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "snapshot.tmp").mkdir()
    async with running(tmp_path / "d", timing=CUTTING) as (log, state):
        for number in range(60):
            await log.submit(command(number))
        status = log.status()
        assert (status.snapshot_index, status.first_index, state.epoch) == (0, 1, 60)


async def test_log_never_uses_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for name in (
        "loads",
        "dumps",
        "load",
        "dump",
        "_loads",
        "_dumps",
        "_load",
        "_dump",
        "Pickler",
        "Unpickler",
    ):
        monkeypatch.setattr(pickle, name, refuse)
    for round_ in range(3):
        async with running(tmp_path / "d", timing=CUTTING) as (log, state):
            for number in range(40):
                await log.submit(command(round_ * 40 + number))
            await log.barrier()
            assert state.epoch == (round_ + 1) * 40
            assert log.status().snapshot_index > 0


async def test_log_reports_changes_before_it_acknowledges(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as directory:
        replica, seen = Replica(State()), list[PolicyChange]()
        replica.on_change(seen.append)
        log = RaftLog(directory, node_id="c1", machine=replica, timer=time.perf_counter)
        async with trio.open_nursery() as nursery:
            await nursery.start(log.run)
            await log.submit(command(1))
            assert [change.epoch for change in seen] == [1]
            nursery.cancel_scope.cancel()


async def test_log_refuses_more_than_its_bounds(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (log, state):
        with pytest.raises(NotCommitted, match="at most"):
            await log.submit(b"x" * (MAX_COMMAND_BYTES + 1))
        refused: list[NotCommitted] = []

        async def submit(number: int) -> None:
            try:
                await log.submit(command(number))
            except NotCommitted as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(MAX_PENDING_COMMANDS + 5):
                nursery.start_soon(submit, number)
        assert len(refused) == 5
        assert state.epoch == MAX_PENDING_COMMANDS


async def test_log_that_ends_leaves_nobody_waiting(tmp_path: Path) -> None:
    outcomes: list[Exception] = []
    with DataDirectory(tmp_path / "d") as directory:
        log = RaftLog(directory, node_id="c1", machine=Replica(State()), timer=time.perf_counter)
        async with trio.open_nursery() as outer:
            inner = trio.CancelScope()

            async def drive(task_status: trio.TaskStatus[None]) -> None:
                with inner:
                    await log.run(task_status=task_status)

            async def submit() -> None:
                try:
                    await log.submit(command(1))
                except (NotCommitted, OutcomeUnknown) as error:
                    outcomes.append(error)

            await outer.start(drive)
            inner.cancel()
            outer.start_soon(submit)
        with pytest.raises(NotCommitted, match="shutting down"):
            await log.submit(command(2))
    assert len(outcomes) == 1


async def test_log_outcome_is_unknown_when_nothing_ticks(tmp_path: Path) -> None:
    impatient = msgspec.structs.replace(ALONE, submit_deadline_s=0.05)
    with DataDirectory(tmp_path / "d") as directory:
        log = RaftLog(
            directory,
            node_id="c1",
            machine=Replica(State()),
            timer=time.perf_counter,
            timing=impatient,
        )
        with pytest.raises(OutcomeUnknown, match="same request id"):
            await log.submit(command(1))
        log.close()


async def test_log_stops_when_the_disk_fails_and_acknowledges_nothing(tmp_path: Path) -> None:
    acknowledged: set[str] = set()

    async def write_until_failure() -> None:
        async with running(tmp_path / "d") as (log, _):
            acknowledged.add((await log.submit(command(0))).rule_id)
            log._journal._db.execute("pragma max_page_count = 12")
            for number in range(1, 2000):
                try:
                    acknowledged.add((await log.submit(command(number))).rule_id)
                except OutcomeUnknown:
                    await trio.sleep_forever()  # the failed log ends this block

    with pytest.RaisesGroup(JournalBroken, flatten_subgroups=True):
        await write_until_failure()
    async with running(tmp_path / "d") as (_, state):
        assert {rule.id for rule in state.rules.rules} >= acknowledged
        assert len(acknowledged) > 5


async def test_log_stops_when_a_listener_has_a_bug(tmp_path: Path) -> None:
    def explode(_change: PolicyChange) -> None:
        raise RuntimeError("a bug")

    with DataDirectory(tmp_path / "d") as directory:
        replica = Replica(State())
        replica.on_change(explode)
        log = RaftLog(directory, node_id="c1", machine=replica, timer=time.perf_counter)
        with pytest.RaisesGroup(ConsensusFailed, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(log.run)
                with pytest.raises(OutcomeUnknown):
                    await log.submit(command(1))


async def test_log_refuses_a_damaged_or_missing_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path / "d", timing=CUTTING) as (log, _):
        for number in range(60):
            await log.submit(command(number))
    snapshot = tmp_path / "d" / "snapshot"
    good = snapshot.read_bytes()
    snapshot.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(StorageDamaged, match="restore"):
        async with running(tmp_path / "d"):
            pass
    snapshot.unlink()
    with pytest.raises(StorageDamaged, match="there is no snapshot"):
        async with running(tmp_path / "d"):
            pass
    snapshot.write_bytes(good)
    async with running(tmp_path / "d") as (_, state):
        assert state.epoch == 60


async def test_log_refuses_a_lost_journal(tmp_path: Path) -> None:
    async with running(tmp_path / "d", timing=CUTTING) as (log, _):
        for number in range(60):
            await log.submit(command(number))
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (tmp_path / "d" / name).unlink(missing_ok=True)
    with pytest.raises(StorageDamaged, match="the journal is empty"):
        async with running(tmp_path / "d"):
            pass


async def test_log_ignores_an_unfinished_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (log, _):
        await log.submit(command(1))
    (tmp_path / "d" / "snapshot.tmp").write_bytes(b"half of it")
    async with running(tmp_path / "d", timing=CUTTING) as (log, state):
        for number in range(2, 60):
            await log.submit(command(number))
        assert (state.epoch, log.status().snapshot_index > 0) == (59, True)


async def test_log_repr_tells_where_it_stands(tmp_path: Path) -> None:
    async with running(tmp_path / "d") as (log, _):
        assert "c1 leader" in repr(log)
