"""Records stay readable, and the report says no more than they do."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.machine import ROOT, Machine
from benchmarks.report import render
from benchmarks.results import Figure, Note, Results

MACHINE = Machine(
    cpu="A processor",
    cores=2,
    memory_mib=1024,
    kernel="6.1",
    python="3.11",
    openssl="OpenSSL 3",
    commit="0" * 40,
    dirty=False,
    load_before=0.1,
)


def figure(target: str, *samples: float, measure: str = "qos 0, 100 B, one topic") -> Figure:
    return Figure(
        measure=measure,
        target=target,
        unit="messages/s",
        better="higher",
        region="from here to there",
        samples=samples,
        group="one to one",
    )


def results(*figures: Figure, notes: tuple[Note, ...] = (), size: str = "default") -> Results:
    return Results(
        date="2030-01-01T00:00:00Z",
        machine=MACHINE,
        rounds=2,
        versions={"stockade": "1"},
        settings={"size": size},
        figures=figures,
        summaries=(),
        load_after=0.2,
        notes=notes,
    )


def test_ratio_is_of_the_medians_and_its_spread_of_the_rounds() -> None:
    run = results(figure("stockade", 20.0, 30.0, 60.0), figure("nats", 10.0, 10.0, 15.0))
    ratio = run.ratio("qos 0, 100 B, one topic", "stockade", "nats")
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 2.0, 4.0)


def test_ratio_of_what_was_not_measured_is_none() -> None:
    run = results(figure("stockade", 20.0))
    assert run.ratio("qos 0, 100 B, one topic", "stockade", "nats") is None


def test_report_shows_both_ratios_in_the_row_of_a_measure() -> None:
    page = render(results(figure("stockade", 20.0), figure("mosquitto", 2.0), figure("nats", 10.0)))
    (row,) = [line for line in page.splitlines() if line.startswith("| qos 0, 100 B")]
    assert "10.00 x" in row
    assert "2.00 x" in row
    assert "## One to one" in page


def test_report_says_what_a_target_does_not_offer_and_why() -> None:
    note = Note(measure="qos 2, 100 B", target="nats", why="at most once", group="one to one")
    page = render(results(figure("mosquitto", 2.0, measure="qos 2, 100 B"), notes=(note,)))
    (row,) = [line for line in page.splitlines() if line.startswith("| qos 2, 100 B")]
    assert "not offered" in row
    assert "not measured, `qos 2, 100 B`, nats: at most once" in page


def test_report_of_a_quick_run_judges_no_aim() -> None:
    both = (figure("stockade", 30.0), figure("mosquitto", 2.0))
    assert "aim, `qos 0, 100 B, one topic` at least 15 x mosquitto: 15.00, reached" in render(
        results(*both)
    )
    quick = render(results(*both, size="quick"))
    assert "aim," not in quick
    assert "QUICK" in quick


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.name
)
def test_every_record_is_still_readable_and_rendered(path: object) -> None:
    record = msgspec.json.decode(
        (ROOT / "benchmarks" / "results" / str(path)).read_bytes(), type=Results
    )
    page = render(record)
    assert record.machine.commit[:12] in page
    assert all(each.measure in page for each in record.figures)
