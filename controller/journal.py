"""The durable Raft log of one member, in SQLite.

Rules of this file:
- What `sync` returned for is on disk: WAL with synchronous=FULL, one transaction per burst, one fsync per
  transaction.
- Term and vote are on disk before the method returns (Raft, section 5.2: a member must not vote twice).
- The commit index is only a hint of where to start; it is never ahead of the entries on disk.
- After the first failed write the journal is broken for good. An fsync that failed once may report success the next
  time without having written anything, so the only safe way on is a restart that reads back what is really there.

Theory of operation. The engine wants a list of `(command, index, term)` with slices, so the entries are held in
memory as well; the log is cut by snapshots, which bounds both. Every row carries a CRC over index, term and command:
SQLite has none for its pages, and a flipped bit in a rule must stop the start, not change who may do what.
"""

from __future__ import annotations

import secrets
import sqlite3
import struct
import zlib
from typing import TYPE_CHECKING, overload

from typing_extensions import override

from controller.datadir import create_private_file
from controller.errors import JournalBroken, StorageDamaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# PySyncObj's order of an entry: command, index, term.
Entry = tuple[bytes, int, int]

JOURNAL_FORMAT = 1
_SCHEMA = """
create table if not exists entry(
    position integer primary key, term integer not null, command blob not null, crc integer not null);
create table if not exists meta(name text primary key, value);
"""
_REPAIR = (
    "restore the whole data directory from one backup, or, if other members hold the policy, "
    "move it away and let this member fetch everything from them"
)


def checksum(command: bytes, index: int, term: int) -> int:
    """Return the CRC-32 that guards one entry."""
    return zlib.crc32(command, zlib.crc32(struct.pack(">QQ", index, term)))


class Journal:
    """The log, the term and the vote of one member.

    The names of the methods are those PySyncObj calls (its `Journal` interface), hence the camel case.

    Resource handling: holds the database open until `close`. Not for use from several threads.
    """

    def __init__(
        self,
        path: Path,
        *,
        node_id: str,
        timer: Callable[[], float],
        on_sync: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """Open or create the journal and verify every entry.

        Args:
            path: the database file; created with mode 0600.
            node_id: the member it belongs to; a journal of another member is refused.
            timer: a monotonic clock in seconds, for the duration of syncs.
            on_sync: called with the seconds each fsync took.

        Raises:
            StorageDamaged: the file is not what this class wrote; says what to do.
            DataDirectoryUnusable: the file is open to other users.
        """
        self._path = path
        self._timer = timer
        self._on_sync = on_sync
        self._broken: str | None = None
        self._in_transaction = False
        self._term = 0
        self._vote: str | None = None
        self._commit = 1
        self._commit_changed = False
        self.syncs = 0
        self.bytes = 0
        self.before_compact: Callable[[], None] = lambda: None
        create_private_file(path)
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._entries = self._open(node_id)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StorageDamaged(f"journal `{path}` is damaged ({error}): {_REPAIR}") from error
        except BaseException:
            self._db.close()
            raise

    # --- opening -----------------------------------------------------------------------------------------------

    def _open(self, node_id: str) -> list[Entry]:
        (mode,) = self._db.execute("pragma journal_mode=wal").fetchone()
        if mode != "wal":
            raise StorageDamaged(f"the file system of `{self._path}` cannot hold a write-ahead log")
        self._db.execute("pragma synchronous=full")
        self._db.executescript(_SCHEMA)
        self._read_meta(node_id)
        (verdict,) = self._db.execute("pragma quick_check(1)").fetchone()
        if verdict != "ok":
            raise StorageDamaged(f"journal `{self._path}` is damaged ({verdict}): {_REPAIR}")
        entries: list[Entry] = []
        for row in self._db.execute(
            "select position, term, command, crc from entry order by position"
        ):
            entry = self._verify_row(row)
            self._verify_order(entries, entry)
            entries.append(entry)
            self.bytes += len(entry[0])
        if entries:
            self._commit = min(self._commit, entries[-1][1])
        return entries

    def _verify_row(self, row: tuple[object, ...]) -> Entry:
        match row:
            case (int(index), int(term), bytes(command), int(crc)) if (
                checksum(command, index, term) == crc
            ):
                return command, index, term
            case _:
                raise StorageDamaged(
                    f"journal `{self._path}`: entry {row[0]} has a wrong checksum: {_REPAIR}"
                )

    def _verify_order(self, before: list[Entry], entry: Entry) -> None:
        _, index, term = entry
        if before and index != before[-1][1] + 1:
            raise StorageDamaged(
                f"journal `{self._path}`: entries {before[-1][1] + 1} to {index - 1} are missing: {_REPAIR}"
            )
        if before and term < before[-1][2]:
            raise StorageDamaged(
                f"journal `{self._path}`: entry {index} has an older term: {_REPAIR}"
            )

    def _read_meta(self, node_id: str) -> None:
        stored: dict[str, object] = dict(self._db.execute("select name, value from meta"))
        if not stored:
            if self._db.execute("select 1 from entry limit 1").fetchone():
                raise StorageDamaged(
                    f"journal `{self._path}` has lost its term and vote: {_REPAIR}"
                )
            self.instance = secrets.token_hex(
                8
            )  # new with every new directory: shows peers a wiped disk
            self._db.execute("begin immediate")
            for name, value in (
                ("format", JOURNAL_FORMAT),
                ("node_id", node_id),
                ("instance", self.instance),
                ("term", 0),
                ("vote", None),
                ("commit", 1),
            ):
                self._store(name, value)
            self._db.execute("commit")
            return
        if stored.get("format") != JOURNAL_FORMAT:
            raise StorageDamaged(
                f"journal `{self._path}` has format {stored.get('format')}, this version knows {JOURNAL_FORMAT}"
            )
        if stored.get("node_id") != node_id:
            raise StorageDamaged(
                f"journal `{self._path}` belongs to member `{stored.get('node_id')}`, "
                f"the configuration says `{node_id}`: correct `node_id` or `data_dir`"
            )
        match stored:
            case {
                "instance": str(instance),
                "term": int(term),
                "commit": int(commit),
                "vote": (str() | None) as vote,
            }:
                self.instance, self._term, self._vote, self._commit = instance, term, vote, commit
            case _:
                raise StorageDamaged(
                    f"journal `{self._path}` has a damaged term or vote: {_REPAIR}"
                )

    # --- writing -----------------------------------------------------------------------------------------------

    def _store(self, name: str, value: str | int | None) -> None:
        self._db.execute("insert or replace into meta values(?, ?)", (name, value))

    def _write(self, statement: str, values: tuple[int | bytes | str | None, ...]) -> None:
        """Add one statement to the transaction of this burst."""
        self._verify_sound()
        try:
            if not self._in_transaction:
                self._db.execute("begin immediate")
                self._in_transaction = True
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            self._fail(error)

    def _verify_sound(self) -> None:
        if self._broken is not None:
            raise JournalBroken(self._broken)

    def _fail(self, error: sqlite3.Error) -> None:
        self._broken = (
            f"writing journal `{self._path}` failed ({error}): nothing is acknowledged any more; "
            "check the disk, then start the controller again"
        )
        raise JournalBroken(self._broken) from error

    @property
    def dirty(self) -> bool:
        """Whether something written is not on disk yet."""
        return self._in_transaction

    def sync(self) -> None:
        """Put everything written so far on disk.

        Raises:
            JournalBroken: now or earlier a write failed.
        """
        self._verify_sound()
        if not self._in_transaction:
            return
        if self._commit_changed:
            self._write("insert or replace into meta values('commit', ?)", (self._commit,))
            self._commit_changed = False
        start = self._timer()
        try:
            self._db.execute("commit")
        except sqlite3.Error as error:
            self._fail(error)
        self._in_transaction = False
        self.syncs += 1
        self._on_sync(self._timer() - start)

    def close(self) -> None:
        """Sync and close; of a broken journal only the file is closed. Harmless when called again."""
        try:
            if self._broken is None:
                self.sync()
        finally:
            self._broken = self._broken or f"journal `{self._path}` is closed"
            self._db.close()

    # --- PySyncObj's interface ---------------------------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append one entry; on disk after the next `sync`."""
        if self._entries and idx != self._entries[-1][1] + 1:
            raise JournalBroken(f"entry {idx} cannot follow entry {self._entries[-1][1]}")
        self._write(
            "insert into entry values(?, ?, ?, ?)",
            (idx, term, command, checksum(command, idx, term)),
        )
        self._entries.append((command, idx, term))
        self.bytes += len(command)

    def clear(self) -> None:
        """Drop all entries (a snapshot replaces them)."""
        self.before_compact()
        self._write("delete from entry", ())
        self._entries = []
        self.bytes = 0

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Drop the entries from list position `entryFrom` on."""
        if entryFrom < len(self._entries):
            self._write("delete from entry where position >= ?", (self._entries[entryFrom][1],))
            self.bytes -= sum(len(entry[0]) for entry in self._entries[entryFrom:])
            del self._entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Drop the entries before list position `entryTo`; the snapshot that holds them is made durable first."""
        if 0 < entryTo < len(self._entries):
            self.before_compact()
            self._write("delete from entry where position < ?", (self._entries[entryTo][1],))
            self.bytes -= sum(len(entry[0]) for entry in self._entries[:entryTo])
            del self._entries[:entryTo]

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice[int | None, int | None, int | None]) -> list[Entry]: ...
    def __getitem__(
        self, item: int | slice[int | None, int | None, int | None]
    ) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Note a new commit index. INVARIANT: what is committed, and so acknowledged, is on disk before this returns."""
        if raftCommitIndex != self._commit:
            self.sync()
            self._commit = raftCommitIndex
            self._commit_changed = True

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - PySyncObj's names
        """Return the last commit index noted."""
        return self._commit

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Store term and vote, at once durable."""
        self._write("insert or replace into meta values('term', ?)", (term,))
        self._write("insert or replace into meta values('vote', ?)", (votedForNodeId,))
        self.sync()
        self._term, self._vote = term, votedForNodeId

    def getCurrentTerm(self) -> int:  # noqa: N802 - PySyncObj's names
        """Return the stored term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802 - PySyncObj's names
        """Return whom this member voted for in the stored term."""
        return self._vote

    def onOneSecondTimer(self) -> None:  # noqa: N802 - PySyncObj's names
        """Store the commit index now and then, so that a restart applies most entries before an election."""
        if self._commit_changed and not self._in_transaction:
            self._write("insert or replace into meta values('commit', ?)", (self._commit,))
            self._commit_changed = False
            self.sync()

    def _destroy(self) -> None:
        self.close()

    @override
    def __repr__(self) -> str:
        span = f"{self._entries[0][1]}..{self._entries[-1][1]}" if self._entries else "empty"
        return f"<Journal {self._path} {span} term={self._term} commit={self._commit} broken={self._broken!r}>"
