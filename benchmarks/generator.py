"""The generator's processes as the benchmark sees them: start one, let it go, read what it says."""

from __future__ import annotations

import selectors
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec

from benchmarks.machine import ROOT, BenchmarkError
from benchmarks.roles import Refusal, Role
from benchmarks.wire import FeatureRefused

SAMPLE_DEADLINE_S = 30.0
"""After this a sample has failed; they are laid out for a few seconds at most."""

LOOK_S = 0.25
"""How often a waiting benchmark looks whether the other processes still live."""

T = TypeVar("T")


class SampleFailed(BenchmarkError):  # noqa: N818 - says what happened
    """A process of the generator failed; the message has its last words."""


class Player:
    """One process of the generator.

    Attributes:
        pid: of the process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def go(self) -> None:
        """Give the start signal, or, after the work, leave to close its connections."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died: whoever waits for it learns why
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def line(self, *, others: Sequence[Player] = (), deadline_s: float = SAMPLE_DEADLINE_S) -> str:
        """Wait for its next line, as long as the other players live.

        Raises:
            FeatureRefused: the broker does not offer what is to be measured.
            SampleFailed: it, or another, died or took too long.
        """
        assert self._process.stdout is not None
        limit = time.monotonic() + deadline_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not selector.select(LOOK_S):
                for other in others:
                    other.verify_alive()
                if time.monotonic() > limit:
                    raise SampleFailed(f"no result within {deadline_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise SampleFailed(self._last_words())
        _verify_offered(line)
        return line

    def report(
        self,
        kind: type[T],
        *,
        others: Sequence[Player] = (),
        deadline_s: float = SAMPLE_DEADLINE_S,
    ) -> T:
        """Wait for its result."""
        return msgspec.json.decode(self.line(others=others, deadline_s=deadline_s), type=kind)

    def verify_alive(self) -> None:
        """Raise what it died of, if it did."""
        if self._process.poll() is not None:
            assert self._process.stdout is not None
            _verify_offered(self._process.stdout.read())
            raise SampleFailed(self._last_words())

    def _last_words(self) -> str:
        _, words = self._process.communicate(timeout=SAMPLE_DEADLINE_S)
        lines = words.strip().splitlines()
        return lines[-1] if lines else "the generator died"


def _verify_offered(line: str) -> None:
    with suppress(msgspec.DecodeError):
        raise FeatureRefused(msgspec.json.decode(line, type=Refusal).why)


@contextmanager
def playing(role: Role) -> Generator[Player, None, None]:
    """A process in its role, ready to go; it is gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", msgspec.json.encode(role).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Player(process)
        with suppress(BrokenPipeError):
            process.communicate(timeout=SAMPLE_DEADLINE_S)  # closes its input, which ends it
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
