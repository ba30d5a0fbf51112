"""How a process of the generator talks to the one that started it: lines on its standard streams."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from benchmarks.roles import Report


def say_ready(word: str = "ready") -> None:
    """Logged in, subscribed, everything prepared."""
    _say(word)


def await_start() -> None:
    """Wait for the start signal, or, after the work, for leave to close the connections."""
    sys.stdin.readline()


def say_report(report: Report | None = None) -> None:
    """What came of it."""
    _say("{}" if report is None else msgspec.json.encode(report).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
