"""Snapshot files: the whole state at one log entry, so that the log before it can be dropped.

Rules of this file:
- A snapshot is written beside the old one, checksummed and fsynced; the rename that follows (PySyncObj does it)
  replaces a whole file by a whole file. The log is cut only after the directory is fsynced too (`make_durable`).
- What is read back is verified before anybody acts on it: magic, length, CRC, strict types.

The two last entries the state includes travel with it, because the log begins with exactly these after a cut;
comparing them tells whether log and snapshot belong together.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from controller.datadir import FILE_MODE, fsync_directory
from controller.errors import StorageDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.consensus import StateMachine
    from controller.journal import Entry

SNAPSHOT_FORMAT = 1
# 100,000 rules of 2 KiB and the request table; anything larger was not written by us.
MAX_SNAPSHOT_BYTES = 512 << 20
_MAGIC = b"STKSNAP1"
_HEADER = struct.Struct(">8sIQ")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a snapshot file.

    Attributes:
        node_id: the member that wrote it.
        last: the last entry the state includes (command, index, term).
        before: the entry before it.
        members: the voters when it was written, sorted.
        state: what the state machine needs to go on, opaque here.
    """

    format: int = SNAPSHOT_FORMAT
    node_id: str
    last: tuple[bytes, int, int]
    before: tuple[bytes, int, int]
    members: tuple[str, ...]
    state: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def write_snapshot(path: Path, snapshot: Snapshot) -> int:
    """Write a snapshot to `path` and fsync it; the caller renames it into place.

    Returns:
        The size in bytes.

    Raises:
        OSError: the disk is full or broken; the old snapshot is untouched.
    """
    body = _encoder.encode(snapshot)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, FILE_MODE)
    with os.fdopen(handle, "wb") as file:
        file.write(_HEADER.pack(_MAGIC, zlib.crc32(body), len(body)))
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    return _HEADER.size + len(body)


def make_durable(path: Path) -> None:
    """Make the rename that put `path` in place survive a power failure."""
    if path.exists():
        fsync_directory(path.parent)


def read_snapshot(path: Path) -> Snapshot | None:
    """Read and verify a snapshot.

    Returns:
        The snapshot, or None when there is none yet.

    Raises:
        StorageDamaged: the file is not what `write_snapshot` wrote.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
            if len(header) < _HEADER.size or size > MAX_SNAPSHOT_BYTES:
                raise StorageDamaged(_damage(path, f"{size} bytes"))
            magic, crc, length = _HEADER.unpack(header)
            body = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageDamaged(f"cannot read snapshot `{path}`: {error.strerror}") from error
    if magic != _MAGIC or length != len(body) or zlib.crc32(body) != crc:
        raise StorageDamaged(_damage(path, "checksum or length is wrong"))
    try:
        snapshot = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise StorageDamaged(_damage(path, str(error))) from error
    if snapshot.format != SNAPSHOT_FORMAT:
        raise StorageDamaged(
            f"snapshot `{path}` has format {snapshot.format}, this version knows {SNAPSHOT_FORMAT}"
        )
    if snapshot.before[1] + 1 != snapshot.last[1]:
        raise StorageDamaged(_damage(path, "its two entries do not follow each other"))
    return snapshot


def _damage(path: Path, what: str) -> str:
    return (
        f"snapshot `{path}` is damaged ({what}): restore the whole data directory from one backup, or, if other "
        "members hold the policy, move it away and let this member fetch everything from them"
    )


class _Named(Protocol):
    @property
    def id(self) -> str: ...


class SnapshotStore:
    """The pair of functions PySyncObj calls to write and to load its snapshot.

    The library swallows what they raise, so failures are kept here for whoever ticks it: `failed` (this snapshot could
    not be written, the log simply stays longer) and `fatal` (the state could not be loaded, nothing may go on).
    """

    def __init__(self, path: Path, machine: StateMachine, *, node_id: str, index: int) -> None:
        self._path = path
        self._machine = machine
        self._node_id = node_id
        self.index = index
        self.bytes_written = 0
        self.failed: OSError | None = None
        self.fatal: Exception | None = None

    def write(self, temporary: str, data: tuple[Entry, Entry, Iterable[_Named]]) -> None:
        """Write the state, which includes everything up to `data[0]`."""
        last, before, members = data
        snapshot = Snapshot(
            node_id=self._node_id,
            last=last,
            before=before,
            members=tuple(sorted(member.id for member in members)),
            state=self._machine.dump(),
        )
        try:
            self.bytes_written = write_snapshot(Path(temporary), snapshot)
        except OSError as error:
            self.failed = error
            raise
        self.index = last[1]

    def load(self, path: str) -> tuple[Entry, Entry, list[str]]:
        """Restore the state; returns what the library wants to know about the log."""
        try:
            snapshot = read_snapshot(Path(path))
            self._machine.restore(snapshot.state if snapshot is not None else b"")
        except Exception as error:
            self.fatal = error
            raise
        if snapshot is None:  # restore above has refused the empty state
            raise AssertionError(path)
        self.index = snapshot.last[1]
        return snapshot.last, snapshot.before, list(snapshot.members)

    def verify_loaded(self) -> None:
        """Raise what the last load died of; the library has swallowed it."""
        if self.fatal is not None:
            raise self.fatal

    def make_durable(self) -> None:
        """Called before the log is cut."""
        make_durable(self._path)
