"""What the controller needs of a consensus log, whoever provides it.

`controller.raft` provides it with PySyncObj. Nothing else in this room knows that library, so another engine, or
more members, change one file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from controller.commands import Result


class Role(StrEnum):
    """Raft's roles."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A look at the log, for operators and metrics.

    Attributes:
        members: ids of all voters, sorted.
        commit_index: newest entry that is committed.
        applied_index: newest entry the state machine has seen.
        first_index: oldest entry still in the journal; older ones are in the snapshot.
        last_index: newest entry in the journal.
        snapshot_index: newest entry in the snapshot, 0 without one.
        syncs: fsyncs of the journal since the start.
        pending: submitted commands without an outcome.
        instance: identity of the data directory; a wiped one has a new identity.
    """

    node_id: str
    members: tuple[str, ...]
    role: Role
    leader: str
    term: int
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    snapshot_index: int
    syncs: int
    pending: int
    instance: str


class StateMachine(Protocol):
    """What the log drives. Deterministic: same commands, same state on every member."""

    def apply(self, command: bytes) -> Result:
        """Apply one committed command. Never raises: an entry that raised would block the log for ever."""
        ...

    def dump(self) -> bytes:
        """Return the whole state."""
        ...

    def restore(self, image: bytes) -> None:
        """Replace the state by one that `dump` returned."""
        ...


class ConsensusLog(Protocol):
    """A replicated, durable log of commands."""

    async def submit(self, command: bytes) -> Result:
        """Replicate a command and wait until it is committed, on disk and applied here.

        Raises:
            NotCommitted: it was surely not applied.
            OutcomeUnknown: it may have been applied; repeat it with the same request id.
        """
        ...

    async def barrier(self) -> None:
        """Wait until everything acknowledged before this call, by any member, is applied here.

        Raises:
            NotCommitted: this member could not prove it.
            OutcomeUnknown: the same, after a timeout.
        """
        ...

    def status(self) -> LogStatus:
        """Return a look at the log; never waits."""
        ...
