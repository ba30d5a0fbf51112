"""Processes that a benchmark starts and ends, by process id, never by name: what they take, and where they run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from benchmarks.machine import ROOT, BenchmarkError

START_DEADLINE_S = 60.0
"""The first start of `stockade up` makes keys and compiles a kernel."""

STOP_DEADLINE_S = 10.0
_CPUCLOCK_SCHED = 2
"""Which of a process's clocks: the time that the scheduler gave it (Linux)."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class TargetFailed(BenchmarkError):  # noqa: N818 - says what happened
    """A broker did not start; the message has its last words."""


@contextmanager
def started(
    command: list[str], log: Path, is_up: Callable[[], bool]
) -> Generator[subprocess.Popen[bytes], None, None]:
    """Run a daemon inside the block, its words in `log`, and wait until it is up."""
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
    try:
        limit = time.monotonic() + START_DEADLINE_S
        while not is_up():
            if process.poll() is not None or time.monotonic() > limit:
                words = log.read_text(errors="replace")[-2000:]
                raise TargetFailed(f"`{' '.join(command[:2])}` did not start:\n{words}")
            time.sleep(0.05)
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)
    for member in members:
        # The start time tells it from a stranger that got the same number since.
        if any(now.pid == member.pid and now.began == member.began for now in _processes()):
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One line of /proc/PID/stat, see proc(5)."""

    pid: int
    parent: int
    began: int
    resident_bytes: int

    def cpu_seconds(self) -> float:
        """CPU time so far (user and system), ended threads included, in nanosecond steps; 0 when it is gone.

        The clock's number is that of clock_getcpuclockid(3): /proc counts in steps of 10 ms.
        """
        try:
            return time.clock_gettime_ns(~self.pid << 3 | _CPUCLOCK_SCHED) / 1e9
        except OSError:
            return 0.0


def place(pid: int, cores: frozenset[int]) -> None:
    """Keep every thread of a process and of its family on these cores."""
    for process in family(pid):
        for task in Path(f"/proc/{process.pid}/task").glob("[0-9]*"):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(int(task.name), cores)


def family(pid: int) -> list[Process]:
    """A process of ours and everything it started, directly or not."""
    everyone = _processes()
    members = {pid}
    while more := {p.pid for p in everyone if p.parent in members} - members:
        members |= more
    return [p for p in everyone if p.pid in members]


def _processes() -> list[Process]:
    found: list[Process] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(
            Process(
                pid=int(path.parent.name),
                parent=int(fields[1]),
                began=int(fields[19]),
                resident_bytes=int(fields[21]) * _PAGE_BYTES,
            )
        )
    return found
