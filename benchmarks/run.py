"""`make bench`: measure this machine and commit, beside mosquitto and nats-server where they are installed.

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

from benchmarks.connections import measure_memory, measure_rate
from benchmarks.machine import ROOT, BenchmarkError, Machine, describe_machine, filesystem_of
from benchmarks.measures import throughput_measures
from benchmarks.plan import DEFAULT, FULL, QUICK, Plan
from benchmarks.report import render
from benchmarks.results import Results
from benchmarks.suite import Suite
from benchmarks.targets import NAMES, Target, run_mosquitto, start_targets

IN_PROCESS = ("benchmarks.decisions",)
"""Measured last, in this process, when no broker runs beside them any more."""


class Options(argparse.Namespace):
    """The command line."""

    rounds: int | None
    idle: int | None
    quick: bool
    full: bool
    only: str
    measures: str
    dir: Path | None
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


def _plan(options: Options) -> Plan:
    plan = QUICK if options.quick else FULL if options.full else DEFAULT
    if options.rounds is not None:
        plan = msgspec.structs.replace(plan, rounds=options.rounds)
    if options.idle is not None:
        plan = msgspec.structs.replace(plan, idle=options.idle)
    return plan


def _measure(options: Options) -> Results:
    machine, plan = describe_machine(), _plan(options)
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="stockade-bench-", dir=options.dir)
        directory = Path(stack.enter_context(folder)).resolve()
        disk = filesystem_of(directory, Path("/proc/mounts").read_text())
        targets = start_targets(stack, directory, options.only)
        suite = Suite(targets, _on_disk(stack, directory, targets), plan)
        _run_measures(suite, options.measures)
        yardstick = next((t for t in targets if t.name == "mosquitto"), None)
        pki = directory / "mosquitto" / "pki"
        if yardstick is not None and not options.measures:
            suite.ceiling(yardstick.login, (str(pki / "broker.pem"), str(pki / "broker.key")))
        versions = {target.name: target.version for target in targets}
    if not (suite.figures or suite.notes or suite.failures):
        raise BenchmarkError(f"no measure has `{options.measures}` in its name")
    if plan.in_process and not options.only and not options.measures:
        for module in IN_PROCESS:
            suite.in_process(module)
    settings = {
        "size": "quick" if options.quick else "full" if options.full else "default",
        "sample seconds": f"{plan.sample_s:g}",
        "protocol": "MQTT 5.0 unless named; NATS's own",
        "brokers' files on": disk,
    }
    return _results(machine, suite, versions, settings)


def _run_measures(suite: Suite, wanted: str) -> None:
    """Everything that needs brokers; `wanted` picks by a part of the name."""
    if wanted in "idle connections":
        measure_memory(suite)
    for measure in throughput_measures(suite.plan):
        if wanted in measure.name:
            suite.throughput(measure)
    suite.loop_lag()
    if wanted in "ping-pong":
        suite.round_trips()
    if wanted in "kernel requests":
        suite.kernel_calls()
    if wanted in "connections opened":
        measure_rate(suite)


def _on_disk(stack: ExitStack, directory: Path, targets: list[Target]) -> list[Target]:
    """The targets for durable measures: the same, but another mosquitto, with its database on disk."""
    return [
        stack.enter_context(run_mosquitto(directory / "mosquitto-on-disk", persistent=True))
        if target.name == "mosquitto"
        else target
        for target in targets
    ]


def _results(
    machine: Machine, suite: Suite, versions: dict[str, str], settings: dict[str, str]
) -> Results:
    return Results(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine,
        rounds=suite.plan.rounds,
        versions=versions,
        settings=settings,
        figures=tuple(suite.figures),
        summaries=tuple(suite.summaries),
        load_after=round(os.getloadavg()[0], 2),
        failures=tuple(suite.failures),
        notes=tuple(suite.notes),
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
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="tiny sizes, one round, not recorded")
    sizes.add_argument("--full", action="store_true", help="every shape, more rounds, 10,000 idle")
    parser.add_argument("--rounds", type=int, help="samples of every measure")
    parser.add_argument("--idle", type=int, help="connections held to learn what each takes")
    parser.add_argument("--only", choices=NAMES, default="", help="one broker")
    parser.add_argument(
        "--measures", default="", help="those with this in their name; not recorded"
    )
    parser.add_argument(
        "--dir", type=Path, help="where brokers keep their files; the system's /tmp"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", help="where to record"
    )
    options = parser.parse_args(namespace=Options())
    for name, number in (("--rounds", options.rounds), ("--idle", options.idle)):
        if number is not None and number < 1:
            parser.error(f"{name} must be at least 1")
    if options.quick or options.measures:
        options.results = None
    return options


if __name__ == "__main__":
    sys.exit(main())
