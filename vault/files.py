"""Files that hold secrets: read only when nobody else can, replaced whole or not at all.

*Rules of this file*: a reader checks the opened file, never the path, so that nothing can be
swapped between check and use. A writer makes a temporary file beside the target with the final
mode, syncs it, renames it and syncs the directory: a crash leaves the old content or the new one.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING, Final

from vault.errors import FileExposed, FileUnusable

if TYPE_CHECKING:
    from pathlib import Path

MAX_PRIVATE_FILE_BYTES: Final = 65_536  # a key, pass phrase or chain is below 16 KiB; room for RSA
PRIVATE_FILE_MODE: Final = 0o600
PUBLIC_FILE_MODE: Final = 0o644
PRIVATE_DIRECTORY_MODE: Final = 0o700
_OTHERS: Final = 0o077  # any right of the group or of everybody
_OTHERS_WRITE: Final = 0o022


def read_private(path: Path, *, max_bytes: int = MAX_PRIVATE_FILE_BYTES) -> bytes:
    """Read a file that only its owner can read.

    Args:
        path: the file; a symbolic link is followed, the file it leads to is what is checked.
        max_bytes: longer files are refused.

    Returns:
        The content.

    Raises:
        FileExposed: others may read it, or it belongs to another user than this one or root.
        FileUnusable: it cannot be read, is no regular file, or is too long.
    """
    return _read(path, max_bytes=max_bytes, private=True)


def read_public(path: Path, *, max_bytes: int = MAX_PRIVATE_FILE_BYTES) -> bytes:
    """Read a file that holds no secret, with the same bounds as `read_private`.

    Raises:
        FileUnusable: it cannot be read, is no regular file, or is too long.
    """
    return _read(path, max_bytes=max_bytes, private=False)


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, readable by its owner only (0600), whole or not at all.

    Raises:
        FileUnusable: the operating system refuses; the old content is untouched.
    """
    _replace(path, data, PRIVATE_FILE_MODE)


def write_public(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, readable by everybody (0644), whole or not at all.

    Raises:
        FileUnusable: the operating system refuses; the old content is untouched.
    """
    _replace(path, data, PUBLIC_FILE_MODE)


def make_private_directory(path: Path) -> None:
    """Create `path` with mode 0700 if it is missing, and refuse one that others can enter.

    Raises:
        FileExposed: it exists and others have rights on it.
        FileUnusable: it cannot be created, or is not a directory.
    """
    try:
        path.mkdir(mode=PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable("create", path, error) from error
    verify_directory(path, forbidden=_OTHERS, advice="chmod 700")


def verify_directory(
    path: Path, *, forbidden: int = _OTHERS_WRITE, advice: str = "chmod go-w"
) -> None:
    """Refuse a directory in which other users could replace our files.

    Args:
        path: the directory.
        forbidden: permission bits that must not be set.
        advice: the command that mends it, without the path.

    Raises:
        FileExposed: a forbidden bit is set, or it belongs to another user than this one or root.
        FileUnusable: it is missing or not a directory.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unusable("open", path, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise FileUnusable(f"`{path}` is not a directory: choose another path")
    _verify_owner(path, status)
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        raise FileExposed(
            f"directory `{path}` has mode {mode:04o}, others could reach its keys: run `{advice} {path}`"
        )


def _read(path: Path, *, max_bytes: int, private: bool) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO by mistake must not wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unusable("read", path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileUnusable(f"`{path}` is not a regular file: name the file itself")
        if private:
            _verify_private(path, status)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise _unusable("read", path, error) from error
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise FileUnusable(
            f"`{path}` is longer than {max_bytes} bytes: it is not what belongs here"
        )
    return data


def _verify_private(path: Path, status: os.stat_result) -> None:
    _verify_owner(path, status)
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise FileExposed(
            f"`{path}` has mode {mode:04o}, others could read it: run `chmod 600 {path}`, "
            "and replace the key if anybody may have read it"
        )


def _verify_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise FileExposed(
            f"`{path}` belongs to user {status.st_uid}, who could change it: "
            f"run `chown {os.geteuid()} {path}`"
        )


def _replace(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write_new(temporary, data, mode)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unusable("write", path, error) from error
    try:
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unusable("replace", path, error) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)  # the umask may only have taken rights away; say it exactly
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(verb: str, path: Path, error: OSError) -> FileUnusable:
    reason = (error.strerror or type(error).__name__).lower()
    return FileUnusable(f"cannot {verb} `{path}`: {reason}")
