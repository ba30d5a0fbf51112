"""The benchmark harness on tiny sizes, against real brokers: it must not rot between releases."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.machine import ROOT
from tests.needs import require_tool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EVERYWHERE = (
    "cores",
    "commit",
    "qos 0, 100 B, one topic",
    "qos 0, 100 B, 100 topics",
    "fan-out, 1 to 4",
    "fan-in, 4 to 1",
    "shared group of 4",
    "20 clients to 4, flat out",
    "20 clients to 4, 20/s each",
    "qos 1 durable, 100 B",
    "ping-pong, one core p99",
    "10 idle connections: memory",
    "connections opened: broker CPU",
    "timed for",
    "QUICK",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)


@pytest.mark.needs("mosquitto")
def test_bench_measures_the_yardstick_and_prints_where_and_how() -> None:
    require_tool("mosquitto", package="mosquitto")
    done = run("--quick", "--only", "mosquitto")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [words for words in (*EVERYWHERE, "qos 2, 100 B") if words not in done.stdout] == []
    assert "not measured" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.needs("nats-server")
def test_bench_measures_nats_and_says_what_it_does_not_offer() -> None:
    require_tool("nats-server", package="nats-server")
    done = run("--quick", "--only", "nats")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [words for words in EVERYWHERE if words not in done.stdout] == []
    assert "not measured, `qos 2, 100 B`, nats: core NATS delivers at most once" in done.stdout
    assert "Traceback" not in done.stderr


def test_bench_measures_stockade() -> None:
    done = run("--quick", "--only", "stockade")
    assert done.returncode == 0, done.stderr + done.stdout
    words = (*EVERYWHERE, "lone kernel call p99", "loop lag p99")
    assert [each for each in words if each not in done.stdout] == []
    assert "Traceback" not in done.stderr


@pytest.mark.needs("mosquitto")
def test_growth_writes_its_figures_and_a_picture(tmp_path: Path) -> None:
    require_tool("mosquitto", package="mosquitto")
    command = [sys.executable, "-P", "-m", "benchmarks.growth", "--quick"]
    command += ["--only", "mosquitto", "--into", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=55, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    growth = json.loads((tmp_path / "growth.json").read_bytes())
    assert {point["target"] for point in growth["points"]} == {"mosquitto", "match", "add"}
    assert all(point["cost"] > 0 for point in growth["points"])
    assert (tmp_path / "growth.svg").read_text().startswith("<svg")


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


@pytest.mark.parametrize("option", ["--rounds", "--idle"])
def test_bench_refuses_senseless_numbers(option: str) -> None:
    done = run(option, "0")
    assert done.returncode == 2
    assert f"{option} must be at least 1" in done.stderr
