"""The data directory of one controller: private, and used by one process at a time.

Policy is not secret, but who can write these files can grant himself everything. So the directory is 0700, every
file in it 0600, and a directory that others can enter is refused instead of quietly repaired.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from typing_extensions import override

from controller.errors import DataDirectoryInUse, DataDirectoryUnusable

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


def fsync_directory(path: Path) -> None:
    """Make creations and renames inside a directory survive a power failure."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create_private_file(path: Path) -> None:
    """Create an empty file that only we can read, unless it exists; a symbolic link is refused.

    Raises:
        DataDirectoryUnusable: it exists, but others may read or write it, or it is no regular file.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise DataDirectoryUnusable(f"cannot open `{path}`: {error.strerror}") from error
    try:
        _verify_private(path, os.fstat(handle), wanted=stat.S_IFREG, repair=f"chmod 600 {path}")
    finally:
        os.close(handle)
    fsync_directory(path.parent)


def _verify_private(path: Path, found: os.stat_result, *, wanted: int, repair: str) -> None:
    if stat.S_IFMT(found.st_mode) != wanted:
        kind = "directory" if wanted == stat.S_IFDIR else "regular file"
        raise DataDirectoryUnusable(f"`{path}` is no {kind}")
    if found.st_uid != os.geteuid():
        raise DataDirectoryUnusable(
            f"`{path}` belongs to user {found.st_uid}, the controller runs as user {os.geteuid()}"
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DataDirectoryUnusable(
            f"`{path}` is open to other users (mode {stat.S_IMODE(found.st_mode):o}): run `{repair}`"
        )


class DataDirectory:
    """An open and locked data directory.

    Resource handling: holds a lock file descriptor until `close`; the lock also ends with the process, however it
    ends, so a stale file never blocks a restart.
    """

    def __init__(self, path: Path) -> None:
        """Create the directory if needed, verify it and take its lock.

        Raises:
            DataDirectoryUnusable: wrong kind, owner or mode, or it cannot be created.
            DataDirectoryInUse: another process works with it.
        """
        self.path = path
        try:
            path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            found = path.stat()
        except OSError as error:
            raise DataDirectoryUnusable(f"cannot use `{path}`: {error.strerror}") from error
        _verify_private(path, found, wanted=stat.S_IFDIR, repair=f"chmod 700 {path}")
        self._lock = self._take_lock(path / "lock")

    @property
    def journal_path(self) -> Path:
        """Where the journal lives."""
        return self.path / "journal.db"

    @property
    def snapshot_path(self) -> Path:
        """Where the last snapshot lives."""
        return self.path / "snapshot"

    @staticmethod
    def _take_lock(path: Path) -> int:
        create_private_file(path)
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise DataDirectoryUnusable(f"cannot lock `{path}`: {error.strerror}") from error
            raise DataDirectoryInUse(
                f"`{path.parent}` is used by another controller (process {holder}): "
                "stop it, or give this one its own `data_dir`"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return handle

    def close(self) -> None:
        """Give the lock back; harmless when called again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @override
    def __repr__(self) -> str:
        return f"<DataDirectory {self.path} {'open' if self._lock >= 0 else 'closed'}>"
