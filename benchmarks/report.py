"""Results as a page of Markdown. It prints nothing that is not in the record."""

from __future__ import annotations

from benchmarks.machine import BUSY_LOAD
from benchmarks.results import Figure, Results

AIMS = (
    ("qos 0, 100 B, one topic", "at least 10 x mosquitto", 10.0, "least"),
    ("ping-pong, two cores p50", "at most 1.2 x mosquitto", 1.2, "most"),
    ("ping-pong, one core p50", "at most 1.2 x mosquitto", 1.2, "most"),
)
"""What issue 2 asks for, by measure: ratio of the medians."""


def render(results: Results) -> str:
    machine = results.machine
    changed = " with uncommitted changes" if machine.dirty else ""
    busy = ": NOT IDLE, do not quote these figures" if machine.load_before > BUSY_LOAD else ""
    lines = [
        "# Stockade benchmarks",
        "",
        f"- {results.date}, commit {machine.commit[:12]}{changed}",
        f"- {machine.cpu}, {machine.cores} cores, {machine.memory_mib} MiB; Linux {machine.kernel}",
        f"- Python {machine.python}, {machine.openssl}",
        f"- load {machine.load_before} before, {results.load_after} after{busy}",
        f"- {', '.join(' '.join(pair) for pair in results.versions.items())}",
        f"- {results.rounds} rounds, targets in turns; median (lowest to highest) of the samples",
        "",
        "| measure | unit | stockade | mosquitto | ratio |",
        "|---|---|---|---|---|",
    ]
    lines += [_row(results, measure) for measure in _measures(results, "stockade", "mosquitto")]
    alone = [figure for figure in results.figures if figure.target not in ("stockade", "mosquitto")]
    if alone:
        lines += ["", "| measure | unit | of | value |", "|---|---|---|---|"]
        lines += [f"| {f.measure} | {f.unit} | {f.target} | {_value(f)} |" for f in alone]
    lines += _summaries(results)
    lines += ["", *_regions(results), *_aims(results)]
    lines += [f"- failed: {failure}" for failure in results.failures]
    return "\n".join(lines) + "\n"


def _measures(results: Results, *targets: str) -> list[str]:
    return list(dict.fromkeys(f.measure for f in results.figures if f.target in targets))


def _row(results: Results, measure: str) -> str:
    ours, theirs = results.find(measure, "stockade"), results.find(measure, "mosquitto")
    some = ours or theirs
    ratio = results.ratio(measure, "stockade", "mosquitto")
    cells = [measure, some.unit if some else "", _value(ours), _value(theirs)]
    return f"| {' | '.join(cells)} | {'' if ratio is None else f'{ratio:.2f} x'} |"


def _value(figure: Figure | None) -> str:
    if figure is None:
        return ""
    low, high = min(figure.samples), max(figure.samples)
    return f"{_number(figure.median)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def _summaries(results: Results) -> list[str]:
    if not results.summaries:
        return []
    rows = [
        f"| {s.name} | {_number(s.median_ns)} | {_number(s.p10_ns)} | {_number(s.p90_ns)} "
        f"| {s.samples} x {s.operations} | {s.timed} |"
        for s in results.summaries
    ]
    head = "| in the process | ns | p10 | p90 | samples x operations | timed |"
    return ["", head, "|---|---|---|---|---|---|", *rows]


def _regions(results: Results) -> list[str]:
    by_region: dict[str, list[str]] = {}
    for figure in results.figures:
        by_region.setdefault(figure.region, []).append(figure.measure)
    return [
        f"- timed for {', '.join(f'`{name}`' for name in dict.fromkeys(names))}: {region}"
        for region, names in by_region.items()
    ]


def _aims(results: Results) -> list[str]:
    lines: list[str] = []
    for measure, words, bound, side in AIMS:
        ratio = results.ratio(measure, "stockade", "mosquitto")
        if ratio is not None:
            reached = ratio >= bound if side == "least" else ratio <= bound
            verdict = "reached" if reached else "NOT REACHED"
            lines.append(f"- aim, `{measure}` {words}: {ratio:.2f} x, {verdict}")
    return lines
