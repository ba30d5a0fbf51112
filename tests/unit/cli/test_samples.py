from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli.samples import HOP, WINDOW, read_counters, stream, windows_of, zscores


def test_counters_are_every_number_of_the_files_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("cpu  10 20\nctxt 7\n")
    second.write_text("x: 3 kB\n")
    assert read_counters((first, tmp_path / "missing", second)).tolist() == [10, 20, 7, 3]


def test_windows_are_the_movements_of_counters_that_moved() -> None:
    readings = [np.array([i * i, 5, 10**15 + i // 2], np.int64) for i in range(WINDOW + 1)]
    sampled = windows_of(readings)
    assert sampled.counters == 3
    assert sampled.windows.dtype == np.float32
    assert sampled.windows.shape == (2, WINDOW)
    assert sampled.windows[0, :3].tolist() == [1.0, 3.0, 5.0]
    assert sampled.windows[1, :4].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_windows_of_files_that_changed_shape_are_none() -> None:
    readings = [np.zeros(3, np.int64)] * WINDOW + [np.zeros(4, np.int64)]
    assert windows_of(readings).windows.shape == (0, WINDOW)


async def test_stream_samples_this_host() -> None:
    rounds = 0
    generator = stream()
    async for sampled in generator:
        assert sampled.counters > 10
        assert sampled.windows.shape[1] == WINDOW
        rounds += 1
        if rounds == 2:
            break
    await generator.aclose()
    assert HOP < WINDOW


def test_zscores_have_mean_zero_and_deviation_one() -> None:
    windows = np.random.default_rng(1).normal(5, 3, (10, WINDOW)).astype(np.float32)
    scores = zscores(windows)
    assert scores.mean(axis=1) == pytest.approx(np.zeros(10), abs=1e-5)
    assert scores.std(axis=1) == pytest.approx(np.ones(10), rel=1e-5)


def test_zscores_of_a_still_counter_are_zero() -> None:
    assert not zscores(np.full((2, WINDOW), 7, np.float32)).any()
