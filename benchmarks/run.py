"""`make bench`: measure this machine and commit, beside mosquitto where it is installed.

Writes `benchmarks/results/DATE-COMMIT.json` and prints the same as Markdown. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.machine import ROOT, BenchmarkError, Machine, describe_machine
from benchmarks.report import render
from benchmarks.results import Results
from benchmarks.sampling import SAMPLE_S
from benchmarks.suite import Suite, run_broker_measures
from benchmarks.targets import Target, find_mosquitto, run_mosquitto, run_stockade

ROUNDS = 3
IN_PROCESS = ("benchmarks.decisions",)
"""Measured last, in this process, when no broker runs beside them any more."""


class Options(argparse.Namespace):
    """The command line."""

    rounds: int
    quick: bool
    only: str
    results: Path | None


def main() -> int:
    options = _parse()
    try:
        results = _measure(options)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(render(results))
    if options.results is not None:
        print(f"recorded in {_record(results, options.results)}", file=sys.stderr)
    return 1 if results.failures else 0


def _measure(options: Options) -> Results:
    machine = describe_machine()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockade-bench-")))
        targets = _start(stack, directory, options.only)
        suite = Suite(targets, rounds=1 if options.quick else options.rounds)
        yardstick = next((t for t in targets if t.name == "mosquitto"), None)
        run_broker_measures(suite, quick=options.quick)
        pki = directory / "mosquitto" / "pki"
        if yardstick is not None:
            suite.ceiling(yardstick.login, (str(pki / "broker.pem"), str(pki / "broker.key")))
        versions = {target.name: target.version for target in targets}
        rounds = 1 if options.quick else options.rounds
    for module in () if options.only else IN_PROCESS:
        suite.in_process(module)
    return _results(machine, suite, versions, rounds)


def _start(stack: ExitStack, directory: Path, only: str) -> list[Target]:
    targets: list[Target] = []
    if only != "mosquitto":
        targets.append(stack.enter_context(run_stockade(directory / "stockade")))
    if only != "stockade" and find_mosquitto() is not None:
        targets.append(stack.enter_context(run_mosquitto(directory / "mosquitto")))
    if not targets:
        raise BenchmarkError("nothing to measure: install `mosquitto` (as root: make deps)")
    return targets


def _results(machine: Machine, suite: Suite, versions: dict[str, str], rounds: int) -> Results:
    return Results(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine,
        rounds=rounds,
        versions=versions,
        settings={"sample seconds": f"{SAMPLE_S:g}", "protocol": "MQTT 5.0 unless named"},
        figures=tuple(suite.figures),
        summaries=tuple(suite.summaries),
        load_after=round(os.getloadavg()[0], 2),
        failures=tuple(suite.failures),
    )


def _record(results: Results, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    changed = "-changed" if results.machine.dirty else ""
    name = f"{results.date[:10]}-{results.machine.commit[:12]}{changed}.json"
    path = directory / name
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    return path


def _parse() -> Options:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of every measure")
    parser.add_argument("--quick", action="store_true", help="one round, 100 B only, not recorded")
    parser.add_argument("--only", choices=["stockade", "mosquitto"], default="", help="one broker")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", help="where to record"
    )
    options = parser.parse_args(namespace=Options())
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.quick:
        options.results = None
    return options


if __name__ == "__main__":
    sys.exit(main())
