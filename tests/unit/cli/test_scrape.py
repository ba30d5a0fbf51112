from __future__ import annotations

from cli.scrape import figures_of

PAGE = """\
# HELP stockade_decisions_total Decisions
# TYPE stockade_decisions_total counter
stockade_decisions_total{level="l1",outcome="allow"} 15111.0
stockade_decisions_total{level="l3",outcome="deny"} 1.0
# HELP stockade_kernel_batches_total Batches
# TYPE stockade_kernel_batches_total counter
stockade_kernel_batches_total{kernel="zscore"} 221.0
stockade_kernel_batches_total{kernel="other"} 2.0
# HELP stockade_kernel_records_total Records
# TYPE stockade_kernel_records_total counter
stockade_kernel_records_total{kernel="zscore"} 5001.0
# HELP stockade_kernel_seconds_total Seconds
# TYPE stockade_kernel_seconds_total counter
stockade_kernel_seconds_total{kernel="zscore"} 0.25
"""


def test_figures_are_picked_from_the_page() -> None:
    figures = figures_of(PAGE)
    assert figures.allowed("l1") == 15_111
    assert figures.denied("l3") == 1
    assert figures.allowed("l2") == 0
    assert (figures.batches, figures.records, figures.kernel_seconds) == (223, 5_001, 0.25)
