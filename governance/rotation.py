"""A file of lines that is never larger than its bound and never readable by others.

`PATH` is written, `PATH.1` is the one before it, `PATH.2` the one before that, up to `keep` old ones.
Every call blocks for the time of a write to the page cache; nothing is buffered in the process, so a
killed process loses nothing that was accepted.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

_MODE = 0o600
_TAIL_BYTES = 65_536  # more than the longest line: 13 fields and 32 detail texts of 512 characters


class RotatingFile:
    """Appends lines; rotates by size.

    *Resource handling*: owns one file descriptor from the first `append` to `close`. After an
    `OSError` it holds none and the next `append` opens the file again.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd: int | None = None
        self._size = 0

    @override
    def __repr__(self) -> str:
        return f"<RotatingFile {self._path} {self._size} of {self._max_bytes} bytes>"

    def last_line(self) -> bytes:
        """Return the last complete line written by anyone so far; empty if there is none.

        Raises:
            OSError: the file exists and cannot be read.
        """
        for path in (self._path, self._old(1)):
            try:
                with path.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - _TAIL_BYTES))
                    lines = file.read().split(b"\n")[:-1]
            except FileNotFoundError:
                continue
            if lines:
                return lines[-1]
        return b""

    def append(self, line: bytes) -> None:
        """Write `line` (without its end) and a line end.

        Raises:
            OSError: nothing of it is on file; call again with the same line.
        """
        data = line + b"\n"
        try:
            if self._fd is None:
                self._fd = self._open()
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
                self._fd = self._open()
            self._write(self._fd, data)
        except OSError:
            self.close()
            raise

    def sync(self) -> None:
        """Wait until the disk has it all.

        Raises:
            OSError: it may not be on disk.
        """
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Give up the descriptor; a second call does nothing."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with suppress(OSError):
                os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, _MODE)
        try:
            os.fchmod(fd, _MODE)  # it may have been there before, made by someone less careful
            self._size = os.fstat(fd).st_size
            if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
                self._size += os.write(fd, b"\n")  # a crash tore the last line: end it
        except OSError:
            os.close(fd)
            raise
        return fd

    def _write(self, fd: int, data: bytes) -> None:
        sent = 0
        try:
            while sent < len(data):
                sent += os.write(fd, data[sent:])
        except OSError:
            if sent:  # half a line is no evidence, and would spoil the next
                os.ftruncate(fd, self._size)
            raise
        self._size += sent

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            newer = self._path if number == 1 else self._old(number - 1)
            with suppress(FileNotFoundError):
                newer.replace(self._old(number))
        if self._keep == 0:
            self._path.unlink(missing_ok=True)

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
