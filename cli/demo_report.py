"""The demo's table: every figure measured in the run it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from cli.demo_run import Outcome
    from cli.scrape import BrokerFigures


def render(outcome: Outcome) -> Table:
    """The table of one run."""
    table = Table(title="one run of stockade, measured", title_justify="left", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("figure")
    for what, figure in _calls(outcome):
        table.add_row(what, figure)
    table.add_section()
    if outcome.figures is not None:
        for what, figure in _broker(outcome.figures):
            table.add_row(what, figure)
        table.add_section()
    for topic, code, text in outcome.refusals:
        table.add_row(f"viewer publishes to {topic}", f"refused: 0x{code:02x} {text}")
    return table


def _calls(outcome: Outcome) -> list[tuple[str, str]]:
    rate = outcome.answered / outcome.seconds if outcome.seconds else 0.0
    call_rate = outcome.answered / outcome.call_seconds if outcome.call_seconds else 0.0
    return [
        ("/proc counters watched", f"{outcome.counters:,}"),
        ("requests sent to kernel/zscore", f"{outcome.sent:,}"),
        ("answered", f"{outcome.answered:,}"),
        ("equal to numpy", f"{outcome.equal:,}"),
        ("results delivered to the viewer", f"{outcome.seen_by_viewer:,}"),
        ("requests answered, sampling included", f"{rate:,.0f}/s over {outcome.seconds:.1f} s"),
        ("requests answered, waiting for answers only", f"{call_rate:,.0f}/s"),
    ]


def _broker(figures: BrokerFigures) -> list[tuple[str, str]]:
    mean = figures.records / figures.batches if figures.batches else 0.0
    return [
        ("allowed by L1 (connection)", f"{figures.allowed('l1'):,}"),
        ("allowed by L2 (broker)", f"{figures.allowed('l2'):,}"),
        ("allowed by the controller", f"{figures.allowed('authority'):,}"),
        ("refused by L3 (Bloom filter)", f"{figures.denied('l3'):,}"),
        ("refused by the controller", f"{figures.denied('authority'):,}"),
        ("kernel batches", f"{figures.batches:,}"),
        ("mean batch size", f"{mean:.1f}"),
        ("kernel seconds in all", f"{figures.kernel_seconds:.4f}"),
    ]
