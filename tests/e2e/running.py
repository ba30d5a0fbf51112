"""A whole system as its user starts it: `stockade up` in a process of its own, ended by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.ready import read_ready

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from cli.ready import Ready

START_DEADLINE_S = 45.0
"""PKI, two daemons and a compiled kernel on two cores that do other things too."""

STOP_DEADLINE_S = 30.0

STOCKADE = (sys.executable, "-P", "-m", "cli.main")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running system.

    Attributes:
        process: `stockade up`.
        ready: its report.
        folder: its `--dir`.
        output: the file that holds what it printed.
    """

    process: subprocess.Popen[bytes]
    ready: Ready
    folder: Path
    output: Path


def start(folder: Path, *, bench: bool = False, any_port: bool = True) -> Running:
    """Start a system in `folder` and wait until it is ready.

    Args:
        folder: its `--dir`.
        bench: with the client of that name.
        any_port: on free ports, because other tests may start a system in the same moment.

    Raises:
        AssertionError: it ended or was not ready in time; the message is what it printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready_file = folder / "for-scripts.json"
    ready_file.unlink(missing_ok=True)
    output = folder / "up.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [
                *STOCKADE,
                "up",
                "--dir",
                str(folder),
                "--ready",
                str(ready_file),
                *(["--bench"] if bench else []),
                *(["--any-port"] if any_port else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + START_DEADLINE_S
    while not ready_file.is_file():
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            raise AssertionError(f"no ready system:\n{output.read_text(errors='replace')}")
        time.sleep(0.05)
    return Running(process=process, ready=read_ready(ready_file), folder=folder, output=output)


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a system as an operator would, and by force if that takes too long; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(STOP_DEADLINE_S)


@contextmanager
def running(folder: Path, *, bench: bool = False) -> Generator[Running]:
    """A system for the length of a `with` block."""
    system = start(folder, bench=bench)
    try:
        yield system
    finally:
        stop(system.process)


def stockade(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command of `stockade` to its end."""
    return subprocess.run(
        [*STOCKADE, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "COLUMNS": "200"},
    )
