"""The interfaces of the consensus log, and who fulfils them."""

from __future__ import annotations

import msgspec

from controller.consensus import ConsensusLog, LogStatus, Role, StateMachine
from controller.raft_log import RaftLog
from controller.replica import Replica
from controller.state import State


def test_raft_log_and_replica_fulfil_the_interfaces() -> None:
    log: type[ConsensusLog] = RaftLog
    machine: StateMachine = Replica(State())
    assert (log, machine.dump()) == (RaftLog, State().dump())


def test_status_travels_as_json() -> None:
    status = LogStatus(
        node_id="c1",
        members=("c1",),
        role=Role.LEADER,
        leader="c1",
        term=1,
        commit_index=2,
        applied_index=2,
        first_index=1,
        last_index=2,
        snapshot_index=0,
        syncs=3,
        pending=0,
        instance="ab",
    )
    assert msgspec.json.decode(msgspec.json.encode(status), type=LogStatus) == status
