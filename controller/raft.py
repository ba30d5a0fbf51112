"""The one door to PySyncObj: its engine without pickle, sockets, threads, forks or pipes.

Rules of this file:
- Exactly version 0.3.17, because names below are not public. Each is listed in `_prepare_library`, with the reason.
- No pickle. The module attribute `pickle` inside the library is replaced by `_Codec`, which knows one shape only;
  snapshots, journal and (later) the wire are ours.
- One method with one bytes argument, number 0, always. The library numbers replicated methods by their sorted names,
  so adding one would replay old entries as other commands; here there is nothing to sort.
- Membership and code version entries do not exist: `verify_entries` refuses them at the start, nothing writes them.

docs/adr/0006-pysyncobj-hardened.md tells why the library is wrapped like this, and what was seen without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Unpack, cast

import msgspec
from pysyncobj import (  # type: ignore[import-untyped] # no types upstream
    config,
    node as nodes,
    serializer,
    syncobj,
    version,
)

from controller.errors import ConsensusFailed, StorageDamaged
from controller.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from controller.commands import Result
    from controller.consensus import StateMachine
    from controller.snapshot import SnapshotStore

    # What the library calls back with: result, FAIL_REASON.
    Callback = Callable[[object, int], None]

REVIEWED_VERSION = "0.3.17"

# Largest batch of entries to one peer, and largest piece of a snapshot.
BATCH_BYTES = 1 << 20
# For limits of the library that must never apply, because we decide (when to cut the log).
_NEVER = 10**9

# The library's kinds of entries; 2 is membership, 3 code version.
_REGULAR_ENTRY, _NO_OP_ENTRY = 0, 1
_APPLY_METHOD = 0

# The library's FAIL_REASONs that mean: the command surely is not in the log.
SURELY_NOT_APPLIED = {
    1: "too many commands are waiting",
    2: "there is no leader now",
    3: "another leader took over before it was stored",
    4: "this member is not the leader any more",
    6: "the leader refused it",
}


class RaftTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and sizes of a member.

    Attributes:
        tick_s: longest pause between two ticks; a submitted command wakes the task at once.
        heartbeat_s: the leader's append period.
        election_min_s: shortest time without a leader before a candidacy.
        election_max_s: the longest.
        fallback_s: a leader that hears no majority for this long steps down.
        submit_deadline_s: when a command without an outcome is reported as unknown.
        compact_entries: entries in the journal that cause a snapshot.
        compact_bytes: bytes of commands in the journal that cause one.
        snapshot_retry_s: pause after a snapshot that failed, e.g. on a full disk.
    """

    tick_s: float = 0.02
    heartbeat_s: float = 0.1
    election_min_s: float = 0.4
    election_max_s: float = 1.0
    fallback_s: float = 2.0
    submit_deadline_s: float = 5.0
    compact_entries: int = 5_000
    compact_bytes: int = 64 << 20
    snapshot_retry_s: float = 30.0


# Alone there is nobody to wait for: the election is a formality, and an idle member may sleep. 0.25 s bounds how old
# the stored commit index can be, nothing else.
ALONE = RaftTiming(tick_s=0.25, heartbeat_s=0.005, election_min_s=0.02, election_max_s=0.03)


class _Codec:
    """Stands where the library expects its pickle module; knows one shape: (method 0, (command,))."""

    _encoder = msgspec.msgpack.Encoder()
    _decoder = msgspec.msgpack.Decoder(tuple[int, tuple[bytes]])

    @classmethod
    def dumps(cls, value: tuple[int, tuple[bytes]], _protocol: int | None = None) -> bytes:
        return cls._encoder.encode(value)

    @classmethod
    def loads(cls, data: bytes) -> tuple[int, tuple[bytes]]:
        method, arguments = cls._decoder.decode(data)
        if method != _APPLY_METHOD:
            raise msgspec.ValidationError(f"method {method} does not exist")
        return method, arguments


class _NoPickle:
    """Stands in the library's serializer, which never asks: it is always given our own functions."""

    def __getattr__(self, name: str) -> object:
        raise ConsensusFailed(f"the engine asked for pickle's `{name}`")


class _SoleTransport:
    """The network of a member without peers: none. It opens nothing, so nobody can reach the engine through it."""

    ready = True

    def __getattr__(self, name: str) -> Callable[[Unpack[tuple[object, ...]]], None]:
        if name.startswith("setOn"):  # the library registers its callbacks; nobody will call them
            return lambda *_: None
        raise AttributeError(name)

    def tryGetReady(self) -> None:  # noqa: N802 - PySyncObj's name
        return

    def destroy(self) -> None:
        return

    def send(self, node: object, _message: object) -> bool:
        raise ConsensusFailed(f"a member without peers wanted to send something to {node}")


def _prepare_library() -> None:
    """Refuse any library but the one that was reviewed, and put our journal and codec in place.

    Names relied on that are not public: module attributes `createJournal` (to hand in our journal), `pickle` (to take
    it away) and `PIPE_NOTIFIER_ENABLED` (two descriptors per engine that only wake its own poller); of an engine
    `_idToMethod`, `_applyCommand` and `_SyncObj__tryLogCompaction` (cuts the log right after a snapshot).
    """
    if version.VERSION != REVIEWED_VERSION:
        raise ConsensusFailed(
            f"pysyncobj {version.VERSION} is installed, only {REVIEWED_VERSION} was reviewed"
        )
    core = syncobj.__dict__
    core["pickle"] = _Codec
    core["PIPE_NOTIFIER_ENABLED"] = False
    core["createJournal"] = _only_our_journal
    serializer.__dict__["pickle"] = _NoPickle()


def _only_our_journal(journal: object) -> Journal:
    if not isinstance(journal, Journal):
        raise ConsensusFailed("an engine without our journal is not durable")
    return journal


class _SyncObj(Protocol):
    """The public part of PySyncObj's engine that is used here."""

    raftCommitIndex: int  # noqa: N815 - PySyncObj's name
    raftLastApplied: int  # noqa: N815 - PySyncObj's name
    raftCurrentTerm: int  # noqa: N815 - PySyncObj's name

    def doTick(self, timeToWait: float) -> None: ...  # noqa: N802, N803 - PySyncObj's names
    def forceLogCompaction(self) -> None: ...  # noqa: N802 - PySyncObj's name
    def getStatus(self) -> dict[str, object]: ...  # noqa: N802 - PySyncObj's name
    def destroy(self) -> None: ...


class _MakeSyncObj(Protocol):
    def __call__(
        self,
        selfNode: object,  # noqa: N803 - PySyncObj's name
        otherNodes: Sequence[object],  # noqa: N803 - PySyncObj's name
        *,
        conf: object,
        nodeClass: object,  # noqa: N803 - PySyncObj's name
        transport: object,
    ) -> _SyncObj: ...


class Engine:
    """One PySyncObj engine with our journal, snapshots and codec, without peers.

    Issue order: `tick` it from one task; callbacks run inside `tick`.
    """

    def __init__(
        self,
        *,
        node_id: str,
        journal: Journal,
        snapshots: SnapshotStore,
        snapshot_path: Path,
        machine: StateMachine,
        timing: RaftTiming,
        max_pending: int,
        on_role: Callable[[int], None],
    ) -> None:
        """Build the engine; nothing is applied before the first tick.

        Raises:
            ConsensusFailed: the library is not the reviewed one.
        """
        _prepare_library()

        def role_changed(_old: int, new: int) -> None:
            on_role(new)

        conf = config.SyncObjConf(
            autoTick=False,
            commandsQueueSize=max_pending,
            commandsWaitLeader=False,
            appendEntriesUseBatch=False,
            appendEntriesPeriod=timing.heartbeat_s,
            appendEntriesBatchSizeBytes=BATCH_BYTES,
            raftMinTimeout=timing.election_min_s,
            raftMaxTimeout=timing.election_max_s,
            leaderFallbackTimeout=timing.fallback_s,
            journalFile=journal,
            fullDumpFile=str(snapshot_path),
            serializer=snapshots.write,
            deserializer=snapshots.load,
            useFork=False,
            logCompactionMinEntries=_NEVER,
            logCompactionMinTime=_NEVER,
            logCompactionBatchSize=BATCH_BYTES,
            dynamicMembershipChange=False,
            onStateChanged=role_changed,
        )
        node = nodes.Node
        make = cast("_MakeSyncObj", syncobj.SyncObj)
        self._raw = make(node(node_id), [], conf=conf, nodeClass=node, transport=_SoleTransport())

        def apply(command: bytes, *, _doApply: bool) -> Result:  # noqa: N803 - PySyncObj's name
            return machine.apply(command)

        vars(self._raw)["_idToMethod"] = {_APPLY_METHOD: apply}
        self._enqueue: Callable[[bytes, Callback, int], None] = getattr(self._raw, _ENQUEUE)
        self._try_compaction: Callable[[], None] = getattr(self._raw, _TRY_COMPACTION)

    def replicate(self, command: bytes, done: Callback) -> None:
        """Queue a command for the next tick."""
        self._enqueue(_Codec.dumps((_APPLY_METHOD, (command,))), done, _REGULAR_ENTRY)

    def replicate_no_op(self, done: Callback) -> None:
        """Queue an entry that only proves that everything before it is committed and applied."""
        self._enqueue(b"", done, _NO_OP_ENTRY)

    def tick(self) -> None:
        """Elect, append, commit, apply, call back: one turn, without waiting."""
        self._raw.doTick(0.0)

    def compact(self) -> None:
        """Write a snapshot of the applied state and cut the journal before it."""
        self._raw.forceLogCompaction()
        self._try_compaction()  # writes
        self._try_compaction()  # learns that it was written, and cuts

    def destroy(self) -> None:
        """End; also closes the journal."""
        self._raw.destroy()

    @property
    def commit_index(self) -> int:
        """Newest committed entry."""
        return self._raw.raftCommitIndex

    @property
    def applied_index(self) -> int:
        """Newest applied entry."""
        return self._raw.raftLastApplied

    @property
    def term(self) -> int:
        """Raft's current term."""
        return self._raw.raftCurrentTerm

    @property
    def leader(self) -> str:
        """Id of the leader as far as this member knows, or an empty text."""
        leader = self._raw.getStatus()["leader"]
        return "" if leader is None else str(leader)


_ENQUEUE = "_applyCommand"
_TRY_COMPACTION = "_SyncObj__tryLogCompaction"


def verify_entries(journal: Journal) -> None:
    """Refuse entries this version would not apply; an entry the engine chokes on would block every one after it.

    Raises:
        StorageDamaged: names the entry.
    """
    for command, index, _term in journal[:]:
        problem = _problem_of(command)
        if problem:
            raise StorageDamaged(
                f"journal entry {index} is not readable by this version ({problem}): "
                "start the version that wrote it, or restore a backup"
            )


def _problem_of(entry: bytes) -> str:
    match entry[:1]:
        case b"\x00":
            try:
                _Codec.loads(entry[1:])
            except msgspec.MsgspecError as error:
                return str(error)
            return ""
        case b"\x01":
            return ""
        case kind:
            return f"unknown kind {kind.hex() or 'of nothing'}"
