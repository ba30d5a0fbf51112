"""Loop lag between two readings of the metrics page."""

from __future__ import annotations

import math

from benchmarks.lag import buckets_of, lag_between, lag_percentile, together

PAGE = """# HELP stockade_loop_lag_seconds How late
# TYPE stockade_loop_lag_seconds histogram
stockade_loop_lag_seconds_bucket{le="0.001"} 90.0
stockade_loop_lag_seconds_bucket{le="0.005"} 99.0
stockade_loop_lag_seconds_bucket{le="+Inf"} 100.0
stockade_loop_lag_seconds_count 100.0
stockade_loop_lag_seconds_sum 0.1
# HELP other_seconds Something else
# TYPE other_seconds histogram
other_seconds_bucket{le="+Inf"} 7.0
other_seconds_count 7.0
other_seconds_sum 0.1
"""


def test_buckets_are_those_of_the_loop_lag_alone() -> None:
    assert buckets_of(PAGE) == {0.001: 90.0, 0.005: 99.0, math.inf: 100.0}


def test_percentile_is_the_bound_of_its_bucket() -> None:
    lag = buckets_of(PAGE)
    assert lag_percentile(lag, 0.5) == 0.001
    assert lag_percentile(lag, 0.99) == 0.005
    assert lag_percentile(lag, 1.0) == math.inf


def test_lag_between_two_readings_leaves_out_what_came_before() -> None:
    before = {0.001: 0.0, 0.005: 9.0, math.inf: 10.0}
    lag = lag_between(before, buckets_of(PAGE))
    assert lag == {0.001: 90.0, 0.005: 90.0, math.inf: 90.0}
    assert lag_percentile(lag, 1.0) == 0.001


def test_spans_together_are_the_sum_of_their_measurements() -> None:
    one, other = {0.001: 1.0, 0.005: 2.0}, {0.001: 0.0, 0.005: 5.0}
    assert together([one, {}, other]) == {0.001: 1.0, 0.005: 7.0}


def test_percentile_of_nothing_is_none() -> None:
    page = buckets_of(PAGE)
    assert lag_percentile(lag_between(page, page), 0.99) is None
    assert lag_percentile({}, 0.99) is None
