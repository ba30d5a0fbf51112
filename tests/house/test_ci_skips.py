"""In CI a skip is a failure, unless it is about hardware: checked by running pytest on a small tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

SMALL_TREE = '''
"""Skips of every kind."""

from __future__ import annotations

import pytest


def test_missing_package():
    pytest.skip("`thing` is missing")


@pytest.mark.skip(reason="later")
def test_later():
    pass


def test_hardware():
    pytest.skip("no CUDA device")


@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    raise AssertionError
'''


def _run(folder: Path, *, ci: str) -> str:
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_small.py").write_text(SMALL_TREE)
    (folder / "test_module.py").write_text(
        "import pytest\npytest.importorskip('no_such_module_here')\n"
    )
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        cwd=folder,
        env={**os.environ, "CI": ci},
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    return finished.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_skip_is_a_failure_in_ci_only(tmp_path: Path) -> None:
    assert "4 skipped, 1 xfailed" in _run(tmp_path, ci="")
    closing = _run(tmp_path, ci="true")
    assert "2 failed, 1 skipped, 1 xfailed, 1 error" in closing or "1 error" in closing
