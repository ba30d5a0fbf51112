"""`stockade demo`: a newcomer's first command says what happened, and when it cannot, why."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.running import STOCKADE, stockade, stop

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MESSAGES = 600


def test_demo_computes_authorizes_and_refuses(tmp_path: Path) -> None:
    shown = stockade("demo", "--dir", str(tmp_path / "demo"), "--messages", str(MESSAGES))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    words = shown.stdout.lower()
    for word in (
        "sent",
        "answered",
        "numpy",
        "l1",
        "l2",
        "controller",
        "bloom",
        "batch",
        "0x87",
        "d-",
    ):
        assert word in words, word
    assert words.count(str(MESSAGES)) >= 3  # sent, answered, equal
    assert "Traceback" not in shown.stdout + shown.stderr


def test_demo_without_a_compiler_explains_and_fails(tmp_path: Path) -> None:
    nothing = tmp_path / "no-programs"
    nothing.mkdir()
    env = {name: value for name, value in os.environ.items() if name != "CXX"}
    process = subprocess.Popen(
        [*STOCKADE, "demo", "--dir", str(tmp_path / "demo"), "--messages", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env | {"PATH": str(nothing)},
    )
    with process:
        try:
            shown, told = (text.decode() for text in process.communicate(timeout=60))
        finally:
            stop(process)  # in order, so that its daemons end too
    assert process.returncode == 1
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
    assert "g++" in told
    assert "Traceback" not in shown + told
