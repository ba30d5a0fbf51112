"""Parts for tests of the controller's servers: a log without a disk, an audit that keeps events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import trio

from controller.authority import PolicyAuthority
from controller.brokers import BrokerTable
from controller.commands import Result
from controller.consensus import LogStatus, Role
from controller.replica import Replica
from controller.state import State


class ImmediateLog:
    """A log of one member without a disk: applies at once, or fails as it is told."""

    def __init__(self, machine: Replica) -> None:
        self._machine = machine
        self.failure: Exception | None = None
        self.role = Role.LEADER

    async def submit(self, command: bytes) -> Result:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return self._machine.apply(command)

    async def barrier(self) -> None:
        await trio.lowlevel.checkpoint()

    def status(self) -> LogStatus:
        return LogStatus(
            node_id="c1",
            members=("c1",),
            role=self.role,
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


class Recorder:
    """An audit sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []

    def record(self, **event: object) -> None:
        self.events.append(event)

    def of(self, kind: str) -> list[dict[str, object]]:
        return [event for event in self.events if event["kind"] == kind]


@dataclass(frozen=True)
class Parts:
    authority: PolicyAuthority
    state: State
    brokers: BrokerTable
    log: ImmediateLog


def build_parts() -> Parts:
    """An authority on an empty state; the clock stands at 1000 s and ids count up."""
    state, numbers = State(), itertools.count()
    replica = Replica(state)
    brokers = BrokerTable(clock=trio.current_time)
    replica.on_change(brokers.push)
    log = ImmediateLog(replica)
    authority = PolicyAuthority(
        state=state,
        log=log,
        brokers=brokers,
        clock=lambda: 1000.0,
        new_id=lambda: f"{next(numbers):012x}",
    )
    return Parts(authority, state, brokers, log)
