"""Real data for the demo: how this host's own counters in `/proc` move.

*Theory of operation.* All counters of a few files are read again and again; the differences of
`WINDOW + 1` neighbouring readings of one counter are one window of float32, and every `HOP`
readings the window of each counter slides on. Differences, not readings, because counters like
"bytes ever received" leave float32 no digits for their movement. A counter that did not move in a
window says nothing and is left out.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

WINDOW = 64  # samples in one window: what the kernel `zscore` takes
HOP = 4  # readings between two windows of one counter
SAMPLE_S = 0.002  # seconds between two readings; a reading itself takes about 1 ms
MAX_FILE_BYTES = 262_144  # the files below are some kilobytes; /proc/stat grows with interrupts
FILES = tuple(
    Path("/proc", name)
    for name in ("stat", "vmstat", "meminfo", "softirqs", "net/dev", "schedstat")
)
NUMBER = re.compile(rb"\b\d{1,18}\b")
Reading = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Windows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One round of sampling.

    Attributes:
        windows: float32, shape (n, `WINDOW`): one row a counter that moved.
        counters: how many counters were watched.
    """

    windows: Windows
    counters: int


def read_counters(files: Sequence[Path] = FILES) -> Reading:
    """Every number in the files, in order.

    Args:
        files: `/proc` files; one that this host lacks is skipped.

    Returns:
        int64, shape (number of counters,); the same length each time as long as no file changes
        its shape, see `windows_of`.
    """
    found: list[int] = []
    for file in files:
        try:
            text = file.read_bytes()[:MAX_FILE_BYTES]
        except OSError:
            continue
        found.extend(map(int, NUMBER.findall(text)))
    return np.array(found, np.int64)


def windows_of(readings: Sequence[Reading]) -> Sampled:
    """The windows in `WINDOW + 1` readings.

    Args:
        readings: int64 arrays; ones of another length than the last are not comparable, which
            leaves no windows.
    """
    last = readings[-1]
    if any(len(reading) != len(last) for reading in readings):
        return Sampled(windows=np.empty((0, WINDOW), np.float32), counters=len(last))
    moves = np.diff(np.stack(readings), axis=0).T
    moved = moves[(moves != moves[:, :1]).any(axis=1)]
    return Sampled(windows=np.ascontiguousarray(moved, np.float32), counters=len(last))


async def stream() -> AsyncGenerator[Sampled]:
    """Sample for as long as somebody asks; one round of windows every `HOP` readings.

    *Cancellation*: at any time; nothing is held.
    """
    readings: deque[Reading] = deque(maxlen=WINDOW + 1)
    taken = 0
    while True:
        readings.append(read_counters())
        taken += 1
        if len(readings) > WINDOW and taken % HOP == 0:
            yield windows_of(tuple(readings))
        await trio.sleep(SAMPLE_S)


def zscores(windows: Windows) -> Windows:
    """The reference: z-score of each window in numpy, in float64, as float32.

    Args:
        windows: float32, shape (n, samples).

    Returns:
        float32, same shape: (x - mean) / standard deviation of the whole window, 0 where that is 0.
    """
    wide = windows.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    spread = wide.std(axis=1, keepdims=True)
    scores = np.zeros(windows.shape, np.float32)
    np.divide(centred, spread, out=scores, where=spread > 0, casting="same_kind")
    return scores
