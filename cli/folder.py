"""The folder of a development system: what lies where below `--dir`, and that only one system uses it at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.failure import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PRIVATE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFolder:
    """The places in one folder; `root` is absolute."""

    root: Path

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def controller_config(self) -> Path:
        """What `stockade controller --config` reads."""
        return self.root / "controller.toml"

    @property
    def broker_config(self) -> Path:
        """What `stockade broker --config` reads."""
        return self.root / "broker.toml"

    @property
    def policy(self) -> Path:
        """The first policy."""
        return self.root / "policy.toml"

    @property
    def controller_data(self) -> Path:
        """The controller's log and snapshots: what a backup must hold."""
        return self.root / "controller"

    @property
    def broker_data(self) -> Path:
        """The broker's sessions and messages, and the key they are sealed with."""
        return self.root / "broker"

    @property
    def kernel_cache(self) -> Path:
        """Compiled kernels."""
        return self.root / "kernels"

    @property
    def ready(self) -> Path:
        """The ready report; there while the system runs."""
        return self.root / "ready.json"

    def log(self, daemon: str) -> Path:
        """The process log of `broker` or `controller`."""
        return self.root / "logs" / f"{daemon}.log"

    def audit(self, daemon: str) -> Path:
        """The audit file of `broker` or `controller`."""
        return self.root / "audit" / f"{daemon}.jsonl"

    def daemon_ready(self, daemon: str) -> Path:
        """Where `broker` or `controller` says where it listens."""
        return self.root / "run" / f"{daemon}.json"


def make_folder(root: Path) -> SystemFolder:
    """Make the folder and what is in it, readable by this user only.

    Args:
        root: where.

    Raises:
        CommandFailed: it cannot be made.
    """
    folder = SystemFolder(root=root.expanduser().absolute())
    try:
        for part in ("", "controller", "broker", "kernels", "logs", "audit", "run"):
            (folder.root / part).mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(
            f"cannot use `{folder.root}`: {(error.strerror or str(error)).lower()}; choose another with --dir"
        ) from error
    return folder


@contextmanager
def sole_user(folder: SystemFolder) -> Generator[None]:
    """Hold the folder's lock; the kernel drops it however this process ends.

    Args:
        folder: the folder to use alone.

    Raises:
        CommandFailed: another system runs in it.
    """
    descriptor = os.open(folder.root / "run" / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandFailed(
                f"another stockade runs in `{folder.root}`: stop it, or choose another folder with --dir"
            ) from error
        yield
    finally:
        os.close(descriptor)
