"""Results as a page of Markdown. It prints nothing that is not in the record."""

from __future__ import annotations

from typing import Literal

import msgspec

from benchmarks.machine import BUSY_LOAD
from benchmarks.results import Figure, Note, Ratio, Results

TOO_SHORT = "- QUICK: these samples are too short for their figures to mean anything; they show that all of it works"
OURS = "stockade"
YARDSTICKS = ("mosquitto", "nats")
COMPARED = (OURS, *YARDSTICKS)


GROUPS = (
    "",
    "one to one",
    "many clients",
    "acknowledged",
    "durable",
    "latency",
    "connections",
    "loop lag",
    "kernels",
    "generator",
)
"""In the order of the page."""


class Aim(msgspec.Struct, frozen=True):
    """What an issue asks for: a ratio of the medians, or a figure of our own where there is no yardstick."""

    measure: str
    yardstick: str
    side: Literal["at least", "at most"]
    bound: float

    def value(self, results: Results) -> float | None:
        if self.yardstick:
            ratio = results.ratio(self.measure, OURS, self.yardstick)
            return None if ratio is None else ratio.median
        figure = results.find(self.measure, OURS)
        return None if figure is None else figure.median


AIMS = (
    Aim("qos 0, 100 B, one topic", "mosquitto", "at least", 15.0),
    Aim("qos 0, 100 B, one topic", "nats", "at least", 2.0),
    Aim("qos 0, 16 B, one topic", "nats", "at least", 1.7),
    Aim("qos 0, 100 B, 1,000 topics", "nats", "at least", 1.6),
    Aim("qos 0, 1024 B, one topic", "nats", "at least", 1.0),
    Aim("500 clients to 50, flat out", "nats", "at least", 1.0),
    Aim("ping-pong, two cores p50", "mosquitto", "at most", 0.9),
    Aim("ping-pong, two cores p99", "mosquitto", "at most", 1.0),
    Aim("ping-pong, one core p50", "mosquitto", "at most", 0.9),
    Aim("ping-pong, one core p99", "mosquitto", "at most", 1.0),
    Aim("qos 1 durable, 100 B", "mosquitto", "at least", 1.0),
    Aim("qos 1 durable, 100 B", "nats", "at least", 1.0),
    Aim("all of these loads together: loop lag p99", "", "at most", 5.0),
)


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
        f"- {', '.join(' '.join(pair) for pair in results.versions.items())}{_disk(results)}",
        f"- {results.rounds} rounds, targets in turns; median (lowest to highest) of the samples",
        "- a ratio is that of the medians (lowest to highest of the ratios within one round)",
    ]
    everything: tuple[Figure | Note, ...] = (*results.figures, *results.notes)
    for group in sorted(dict.fromkeys(each.group for each in everything), key=_place):
        lines += _group(results, group)
    lines += _summaries(results)
    lines += ["", *_regions(results)]
    lines += [TOO_SHORT] if results.settings.get("size") == "quick" else _aims(results)
    lines += [f"- not measured, `{n.measure}`, {n.target}: {n.why}" for n in results.notes]
    lines += [f"- failed: {failure}" for failure in results.failures]
    return "\n".join(lines) + "\n"


def _disk(results: Results) -> str:
    kind = results.settings.get("brokers' files on")
    in_memory = " (MEMORY: nothing durable was measured)" if kind == "tmpfs" else ""
    return f"; their files on {kind}{in_memory}" if kind else ""


def _place(group: str) -> int:
    """Where a group stands on the page; one without a name (of an older record) first, unknown ones last."""
    return GROUPS.index(group) if group in GROUPS else len(GROUPS)


def _group(results: Results, group: str) -> list[str]:
    figures = [figure for figure in results.figures if figure.group == group]
    notes = [note for note in results.notes if note.group == group]
    lines = [f"\n## {group[0].upper()}{group[1:]}"] if group else []
    both: list[Figure | Note] = [*figures, *notes]
    compared = [each.measure for each in both if each.target in COMPARED]
    if {figure.target for figure in figures} & {*YARDSTICKS} or notes:
        by_yardstick = " | ".join(f"by {name}" for name in YARDSTICKS)
        lines += ["", f"| measure | unit | {' | '.join(COMPARED)} | {by_yardstick} |"]
        lines += ["|---" * (2 + len(COMPARED) + len(YARDSTICKS)) + "|"]
        lines += [_row(results, measure) for measure in dict.fromkeys(compared)]
        figures = [figure for figure in figures if figure.target not in COMPARED]
    if figures:
        lines += ["", "| measure | unit | of | value |", "|---|---|---|---|"]
        lines += [f"| {f.measure} | {f.unit} | {f.target} | {_value(f)} |" for f in figures]
    return lines


def _row(results: Results, measure: str) -> str:
    found = [results.find(measure, name) for name in COMPARED]
    some = next((figure for figure in found if figure is not None), None)
    values = [_cell(results, measure, name) for name in COMPARED]
    ratios = [_ratio(results.ratio(measure, OURS, name)) for name in YARDSTICKS]
    return f"| {' | '.join([measure, some.unit if some else '', *values, *ratios])} |"


def _cell(results: Results, measure: str, target: str) -> str:
    figure = results.find(measure, target)
    if figure is not None:
        return _value(figure)
    return "not offered" if any(_about(note, measure, target) for note in results.notes) else ""


def _about(note: Note, measure: str, target: str) -> bool:
    return (note.measure, note.target) == (measure, target)


def _value(figure: Figure) -> str:
    low, high = min(figure.samples), max(figure.samples)
    return f"{_number(figure.median)} ({_number(low)} to {_number(high)})"


def _ratio(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} x ({ratio.low:.2f} to {ratio.high:.2f})"


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
    for aim in AIMS:
        value = aim.value(results)
        if value is None:
            continue
        unit = f"x {aim.yardstick}" if aim.yardstick else "ms"
        reached = value >= aim.bound if aim.side == "at least" else value <= aim.bound
        verdict = "reached" if reached else "NOT REACHED"
        lines.append(
            f"- aim, `{aim.measure}` {aim.side} {aim.bound:g} {unit}: {value:.2f}, {verdict}"
        )
    return lines
