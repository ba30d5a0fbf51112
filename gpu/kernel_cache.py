"""The directory of compiled kernels: what is in it gets executed, so nobody else may be able to write there.

Rules of this file: a file's name is a hash of everything its content depends on, so entries are never wrong, only
unused; an entry appears whole or not at all, also when two workers build the same kernel at the same time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from gpu.errors import CacheUnsafe


class KernelCache:
    """Compiled kernels in one directory.

    Args:
        directory: made with mode 0700 when missing.

    Raises:
        CacheUnsafe: it cannot be made, or somebody else could write to it.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CacheUnsafe(
                f"the kernel cache `{directory}` cannot be made: {error.strerror}"
            ) from error
        self.directory = directory
        _verify_private(directory)

    def find(self, key: str) -> Path | None:
        """Return the entry, if there is one.

        Raises:
            CacheUnsafe: somebody else could have written it.
        """
        path = self.directory / key
        return _verify_private(path) if path.exists() else None

    def put(self, key: str, built: Path) -> Path:
        """Move the file `built`, which is in this file system, into the cache."""
        built.chmod(0o700)
        built.replace(self.directory / key)
        return self.directory / key


def key_of(parts: Iterable[bytes | str], *, suffix: str) -> str:
    """Return the name of what is built out of `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:40] + suffix


def _verify_private(path: Path) -> Path:
    """Return `path` if only we can write to it."""
    status = path.lstat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise CacheUnsafe(
            f"`{path}` belongs to or can be written by somebody else, and code is loaded from it: "
            "chown it and chmod go-w it, or choose another kernel cache"
        )
    return path
