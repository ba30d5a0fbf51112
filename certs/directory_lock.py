"""One process at a time in a directory: two `stockade up` on one directory must not mix their files."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from certs.errors import DirectoryUnusable

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MAX_LOCK_ATTEMPTS: Final = (
    200  # with the pause below: ten seconds, a hundred times what the work takes
)
LOCK_PAUSE_S: Final = 0.05


@contextmanager
def locked(
    directory: Path, *, attempts: int = MAX_LOCK_ATTEMPTS, pause_s: float = LOCK_PAUSE_S
) -> Generator[None]:
    """Hold the lock of an existing directory; it ends with the process at the latest.

    Blocks for up to `attempts` times `pause_s` seconds.

    Args:
        directory: what to lock; no file is created.
        attempts: how often to try.
        pause_s: seconds between two attempts.

    Raises:
        DirectoryUnusable: another process keeps the lock, or the directory cannot be opened.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DirectoryUnusable(f"cannot open directory `{directory}`: {error.strerror}") from error
    try:
        _acquire(descriptor, directory, attempts, pause_s)
        yield
    finally:
        os.close(descriptor)  # closing releases the lock


def _acquire(descriptor: int, directory: Path, attempts: int, pause_s: float) -> None:
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause_s)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            raise DirectoryUnusable(
                f"`{directory}` cannot be locked ({error.strerror}): choose a local directory"
            ) from error
        return
    raise DirectoryUnusable(
        f"another process is at work in `{directory}`: wait for it or choose another directory"
    )
