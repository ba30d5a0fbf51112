"""The benchmark harness, against the yardstick alone: it must not rot between releases."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.machine import ROOT
from tests.needs import require_tool

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.needs("mosquitto")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)


def test_bench_measures_the_yardstick_and_prints_where_and_how() -> None:
    require_tool("mosquitto", package="mosquitto")
    done = run("--quick", "--only", "mosquitto")
    assert done.returncode == 0, done.stderr
    for words in (
        "cores",
        "commit",
        "qos 0, 100 B, one topic",
        "ping-pong, one core p99",
        "timed for",
    ):
        assert words in done.stdout
    assert "Traceback" not in done.stderr


def test_every_record_names_machine_commit_and_samples() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        record = json.loads(path.read_bytes())
        assert record["machine"]["cpu"], path
        assert record["machine"]["cores"] >= 1, path
        assert len(record["machine"]["commit"]) == 40, path
        assert record["figures"], path
        for figure in record["figures"]:
            assert figure["samples"], path
            assert figure["region"], path


def test_bench_refuses_senseless_rounds() -> None:
    done = run("--rounds", "0")
    assert done.returncode == 2
    assert "at least 1" in done.stderr
