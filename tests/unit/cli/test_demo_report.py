from __future__ import annotations

import io

from rich.console import Console

from cli.demo_report import render
from cli.demo_run import Outcome
from cli.scrape import BrokerFigures


def shown(outcome: Outcome) -> str:
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(render(outcome))
    return captured.get()


def test_report_shows_what_was_measured() -> None:
    outcome = Outcome(
        sent=5_000,
        answered=4_999,
        equal=4_998,
        seconds=2.0,
        call_seconds=1.0,
        refusals=[("telemetry/forged", 0x87, "not authorized, decision d-1")],
        figures=BrokerFigures(
            decisions={("l1", "allow"): 15_000, ("l3", "deny"): 1},
            batches=200,
            records=5_000,
            kernel_seconds=0.125,
        ),
    )
    text = shown(outcome)
    for figure in (
        "5,000",
        "4,999",
        "4,998",
        "2,500/s over 2.0 s",
        "15,000",
        "25.0",
        "0.1250",
        "0x87",
    ):
        assert figure in text, figure
    assert "decision d-1" in text


def test_report_of_a_run_that_failed_early_divides_by_nothing() -> None:
    assert "0/s" in shown(Outcome())
