"""What a figure must be quoted with: the hardware, the commit, the software, how busy the machine was."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent

BUSY_LOAD = 0.3
"""Load (1 minute average, all cores) above which figures of this machine mean little."""


class BenchmarkError(Exception):
    """Base of everything that ends a benchmark run; the message says what to do."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of a measurement."""

    cpu: str
    cores: int
    memory_mib: int
    kernel: str
    python: str
    openssl: str
    commit: str
    dirty: bool
    load_before: float


def describe_machine() -> Machine:
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        openssl=ssl.OPENSSL_VERSION,
        commit=_git("rev-parse", "HEAD") or "unknown",
        dirty=bool(_git("status", "--porcelain", "--untracked-files=no")),
        load_before=round(os.getloadavg()[0], 2),
    )


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system a path lies on, e.g. `ext4`; `tmpfs` is memory and no disk.

    Args:
        path: absolute, without links.
        mounts: what /proc/mounts says: device, place, type and more in each line.
    """
    best, found = "", "unknown"
    for line in mounts.splitlines():
        _, place, kind, *_ = line.split(" ")
        if path.is_relative_to(place) and len(place) >= len(best):
            best, found = place, kind
    return found


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:  # no git: a wheel or an image
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
