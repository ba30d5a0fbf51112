"""Daemons as child processes: started in a group of their own, watched, and always ended within a bound.

*Rules of this file.* A child ends by SIGTERM and its own clean-up; when that takes longer than `STOP_DEADLINE_S` the
whole group is killed, which a stuck worker cannot refuse. A child is only ever signalled before it has been waited
for, so its number cannot have become another process's.

A parent that is killed cannot end anybody. So a child's standard input is a pipe that nobody writes to and whose other
end only the parent holds: its end is the parent's (`end_with_parent`). Linux's PR_SET_PDEATHSIG, which kernel workers
use, would not do here: it fires when the *thread* that started the child ends, and Trio starts processes in threads
that end when they are idle.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from cli.failure import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Report = TypeVar("Report", bound=msgspec.Struct)

READY_DEADLINE_S = 30.0
"""From start to listening. A controller replays its log first; the first start compiles kernels on two busy cores."""

READY_POLL_S = 0.05
"""How often the ready file is looked for; short against a start, long against a look."""

STOP_DEADLINE_S = 10.0
"""From SIGTERM to the end; then the group is killed."""

LAST_LINES = 12
"""How much of a log is shown when its daemon dies."""

MAX_TAIL_BYTES = 32_768
"""How much of the end of a log is read to find its last lines."""

UNTIL_EOF = "--until-eof"
"""The daemons' option to end with their standard input."""

SELF = (sys.executable, "-P", "-m", "cli.main")
"""This very installation's command line; `-P` keeps the current folder out of the import path."""


class ChildDied(CommandFailed):
    """A daemon ended without being asked to; the details are the last lines of its log."""


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """The end of a log file.

    Args:
        log: the file; a missing one has no lines.
        count: how many lines at most.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_TAIL_BYTES))
            text = file.read(MAX_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return []
    return list(deque(text.splitlines(), maxlen=count))


def end_with_parent() -> None:
    """In a daemon: end when standard input does, politely, then after `STOP_DEADLINE_S` without asking."""
    threading.Thread(target=_end_at_eof, name="parent", daemon=True).start()


def _end_at_eof() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_DEADLINE_S)
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True, kw_only=True)
class Child:
    """One running daemon.

    Attributes:
        name: `broker` or `controller`.
        process: the process; its group has the same number.
        log: where its output goes.
        ready_file: where it says where it listens.
    """

    name: str
    process: trio.Process
    log: Path
    ready_file: Path

    async def died(self) -> ChildDied:
        """Wait for the end of a daemon that should not end.

        Returns:
            What to raise: how it ended and the last lines of its log.
        """
        status = await self.process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit code {status}"
        return ChildDied(
            f"the {self.name} {how}; the end of `{self.log}`:", details=last_lines(self.log)
        )

    async def ready(self, type_: type[Report], *, deadline_s: float = READY_DEADLINE_S) -> Report:
        """Wait until the daemon says that everything listens.

        Args:
            type_: what its ready file holds.
            deadline_s: seconds to wait.

        Returns:
            What it said.

        Raises:
            CommandFailed: it did not get there in time.
        """
        with trio.move_on_after(deadline_s):
            file = trio.Path(self.ready_file)
            while not await file.is_file():  # noqa: ASYNC110 - another process: a file is all it can set
                await trio.sleep(READY_POLL_S)
            return msgspec.json.decode(await file.read_bytes(), type=type_)
        raise CommandFailed(
            f"the {self.name} did not listen within {deadline_s:g} s: read `{self.log}`"
        )

    async def stop(self, *, deadline_s: float = STOP_DEADLINE_S) -> None:
        """End the daemon: politely, then without asking.

        *Cancellation*: callers shield this; it is bounded by `deadline_s` and the kill.
        """
        if self.process.poll() is not None:
            return
        self.process.terminate()
        with trio.move_on_after(deadline_s):
            await self.process.wait()
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


async def start_child(
    name: str,
    *,
    config: Path,
    log: Path,
    ready_file: Path,
    command: Sequence[str] = SELF,
) -> Child:
    """Start a daemon.

    Args:
        name: the command of `stockade` that it is.
        config: its configuration file.
        log: where its output is appended.
        ready_file: where it will say where it listens; what an earlier one left there is removed first.
        command: how this installation's command line is started.

    Raises:
        CommandFailed: its log cannot be written or it cannot be started.
    """
    try:
        await trio.Path(ready_file).unlink(missing_ok=True)
        async with await trio.open_file(log, "ab") as output:
            process = await trio.lowlevel.open_process(
                [*command, name, "--config", str(config), UNTIL_EOF],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal reaches `stockade up` only, which ends them in order
            )
    except OSError as error:
        raise CommandFailed(f"cannot start the {name}: {error}") from error
    return Child(name=name, process=process, log=log, ready_file=ready_file)
