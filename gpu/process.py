"""A worker process as the broker holds it: started, spoken to, killed and reaped without waiting in Trio's thread.

Theory of operation: the worker is spawned, never forked after threads, from Trio's own thread: PR_SET_PDEATHSIG is
tied to the thread that started a child, and a pool thread ends when it is idle. Spawning blocks for the vfork and
exec only (1-2 ms). The end of the process is seen through a pidfd, so a process number is never used after it was reaped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import trio
from typing_extensions import override

from gpu.arena import Arena
from gpu.errors import WorkerBroken
from gpu.messages import REPORT_BYTES, Order, Report, read_report
from gpu.plan import WorkerPlan

WORKER_PROGRAM: Final = ("-P", "-s", "-m", "gpu.worker")
LOG_BYTES: Final = 16 * 1024  # of what a worker prints; sealed, so that it cannot grow
LOG_TAIL_CHARS: Final = 500  # of it in a message
GRACE_SECONDS: Final = 0.1  # after it closed its socket; a worker has nothing left to do then
REAP_SECONDS: Final = 5.0  # a killed process in an uninterruptible driver call may take long; it is not waited for longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a worker ended.

    Args:
        how: in words.
        printed: the end of what it printed, on one line.
        reaped: False: the kernel (the system's) does not let go of it.
    """

    how: str
    printed: str = ""
    reaped: bool = True


class WorkerProcess:
    """One running worker.

    Resource handling: `end` kills and reaps it and gives back its descriptors; it must be awaited, once.
    """

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, log: int) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._link = link
        self._log = log

    @override
    def __repr__(self) -> str:
        return f"WorkerProcess(pid {self._process.pid}, status {self._process.returncode})"

    @classmethod
    def spawn(
        cls, plan: WorkerPlan, arena: Arena, *, program: Sequence[str] = WORKER_PROGRAM
    ) -> Self:
        """Start a worker; blocks for 1-2 ms.

        Args:
            plan: what it is told.
            arena: the memory it shares.
            program: the interpreter's arguments before the three descriptors.

        Raises:
            OSError: the system has no room for another process or descriptor.
        """
        with contextlib.ExitStack() as stack:
            plan_fd = _memory_file(f"stockade-{plan.kernel}-plan", msgspec.json.encode(plan))
            stack.callback(os.close, plan_fd)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(theirs.close)
            keep = stack.enter_context(contextlib.ExitStack())
            keep.callback(ours.close)
            log = _memory_file(f"stockade-{plan.kernel}-log", bytes(LOG_BYTES))
            keep.callback(os.close, log)
            passed = (plan_fd, arena.descriptor, theirs.fileno())
            process = subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, *program, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=passed,
                start_new_session=True,
                cwd="/",
                env={"PATH": plan.path, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
            )
            keep.pop_all()
        ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
        return cls(process, ours, log)

    @property
    def pid(self) -> int:
        """The process number, for tests and logs."""
        return self._process.pid

    def send(self, order: Order) -> None:
        """Hand over a batch.

        Raises:
            WorkerBroken: it does not take it. A socket's buffer holds many times the orders in flight, so a
                full one means the same as a closed one.
        """
        try:
            self._link.send(order.encode())
        except OSError as error:
            raise WorkerBroken(f"it takes no orders ({error.strerror})") from error

    def receive(self) -> Report | None:
        """Return the next report, or None when there is none yet.

        Raises:
            WorkerBroken: it sent no report.
            EOFError: the worker is gone.
        """
        try:
            data = self._link.recv(REPORT_BYTES + 1)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return read_report(data)

    async def wait_report(self) -> None:
        """Wait until `receive` has something to say."""
        await trio.lowlevel.wait_readable(self._link)

    def kill(self) -> None:
        """End the worker and all of its group (its compiler, while it builds) at once."""
        if self._process.returncode is None:  # not reaped, so the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self) -> Ending:
        """Kill, reap, release; say how it ended.

        Cancellation: shielded, at most `REAP_SECONDS`.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_SECONDS):
            # One that ends by itself may do so: its own status says more than our signal.
            with trio.move_on_after(GRACE_SECONDS):
                await trio.lowlevel.wait_readable(self._pidfd)
            self.kill()
            await trio.lowlevel.wait_readable(self._pidfd)
        status = self._process.poll()
        printed = self._printed()
        self._link.close()
        os.close(self._pidfd)
        os.close(self._log)
        return Ending(how=_how(status), printed=printed, reaped=status is not None)

    def _printed(self) -> str:
        text = os.pread(self._log, LOG_BYTES, 0).rstrip(b"\0").decode(errors="replace")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line[-LOG_TAIL_CHARS:]


def _memory_file(name: str, content: bytes) -> int:
    """Return a memfd with `content`, which nobody can make longer or shorter."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(descriptor, content, 0)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _how(status: int | None) -> str:
    if status is None:
        return "it cannot be ended"
    if status < 0:
        known = -status in signal.Signals.__members__.values()
        return f"it was ended by {signal.Signals(-status).name if known else f'signal {-status}'}"
    return f"it ended with status {status}"
