from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from acl.errors import ConditionInvalid
from acl.moments import (
    DAY_S,
    DAYS,
    DateRange,
    TimeWindow,
    is_known_zone,
    parse_date_range,
    parse_time_window,
)

BERLIN = "Europe/Berlin"


def moment(text: str, zone: str = BERLIN, *, fold: int = 0) -> float:
    """A moment as clocks there show it."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def spans(window: str, begin: str, end: str) -> list[tuple[str, str]]:
    """When a window is open between two moments, in UTC, found by going from answer to answer."""
    parsed, at, last = parse_time_window(window), moment(begin), moment(end)
    found: list[tuple[str, str]] = []
    while at < last:
        looked = parsed.look(at)
        assert looked is not None
        inside, until = looked
        assert until > at
        if inside:
            found.append((told(at), told(until)))
        at = until
    return found


def told(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M")


@pytest.mark.parametrize(
    ("window", "begin", "end", "found", "why"),
    [
        (
            f"Mon-Fri 08:00-18:00 {BERLIN}",
            "2026-07-03T00:00",
            "2026-07-07T00:00",
            [("07-03 06:00", "07-03 16:00"), ("07-06 06:00", "07-06 16:00")],
            "not on the weekend, two hours before UTC in summer",
        ),
        (
            f"Sat 22:00-02:00 {BERLIN}",
            "2026-07-04T00:00",
            "2026-07-06T00:00",
            [("07-04 20:00", "07-05 00:00")],
            "it belongs to the day it begins on",
        ),
        (
            f"Sat,Sun {BERLIN}",
            "2026-07-03T00:00",
            "2026-07-08T00:00",
            [("07-03 22:00", "07-05 22:00")],
            "two whole days that touch are one span",
        ),
        (
            f"Sun 02:30-04:00 {BERLIN}",
            "2026-03-28T00:00",
            "2026-03-30T12:00",
            [("03-29 01:00", "03-29 02:00")],
            "02:30 does not exist that day: it begins when the clocks jump",
        ),
        (
            f"Sun 01:00-02:30 {BERLIN}",
            "2026-03-28T00:00",
            "2026-03-30T12:00",
            [("03-29 00:00", "03-29 01:00")],
            "and where its end does not exist it ends then",
        ),
        (
            f"Sun 02:15-02:45 {BERLIN}",
            "2026-03-28T00:00",
            "2026-03-30T12:00",
            [],
            "nothing of it exists that day",
        ),
        (
            f"Sun 02:00-02:30 {BERLIN}",
            "2026-10-24T00:00",
            "2026-10-26T12:00",
            [("10-25 00:00", "10-25 01:30")],
            "02:00 to 02:30 comes twice: from the first beginning to the last end",
        ),
        (
            "Mon 00:00-24:00 UTC",
            "2026-07-05T00:00",
            "2026-07-08T00:00",
            [("07-06 00:00", "07-07 00:00")],
            "a day has 24 hours",
        ),
        (
            f"Fri-Mon 23:00-23:30 {BERLIN}",
            "2026-07-05T00:00",
            "2026-07-08T00:00",
            [("07-05 21:00", "07-05 21:30"), ("07-06 21:00", "07-06 21:30")],
            "days may go over the end of the week",
        ),
    ],
)
def test_window_is_open_when_the_clocks_there_say_so(
    *, window: str, begin: str, end: str, found: list[tuple[str, str]], why: str
) -> None:
    assert spans(window, begin, end) == found, why


@settings(max_examples=300, deadline=None)
@given(
    days=st.sets(st.integers(0, 6), min_size=1),
    begin=st.integers(0, 1_439),
    length=st.integers(1, 1_440),
    zone=st.sampled_from(
        ["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
    ),
    at=st.floats(0, 4e9),
)
def test_window_far_from_changes_of_the_clocks_is_what_a_wall_clock_says(
    *, days: set[int], begin: int, length: int, zone: str, at: float
) -> None:
    where = ZoneInfo(zone)
    here = datetime.fromtimestamp(at, where)
    offsets = {
        datetime.fromtimestamp(at + hours * 3_600, where).utcoffset() for hours in range(-50, 51)
    }
    looked = TimeWindow(frozenset(days), begin, begin + length, zone).look(at)
    assert looked is not None
    if len(offsets) > 1:
        return
    minutes = here.hour * 60 + here.minute + here.second / 60 + here.microsecond / 6e7
    today = here.weekday() in days and begin <= minutes < begin + length
    yesterday = (here - timedelta(days=1)).weekday() in days and minutes + 1_440 < begin + length
    assert looked[0] is (today or yesterday)
    assert at < looked[1] <= at + 11 * DAY_S


def test_window_that_is_always_open_is_looked_at_again_some_day() -> None:
    looked = parse_time_window("UTC").look(1e9)
    assert looked is not None
    assert looked[0]
    assert 1e9 + 7 * DAY_S < looked[1] < 1e9 + 10 * DAY_S


@pytest.mark.parametrize(
    ("text", "at", "looked"),
    [
        ("2026-01-01..2026-12-31", moment("2025-12-31T23:59", "UTC"), (False, "01-01 00:00")),
        ("2026-01-01..2026-12-31", moment("2026-01-01T00:00", "UTC"), (True, "01-01 00:00")),
        (f"2026-07-01..2026-07-01 {BERLIN}", moment("2026-07-01T23:59"), (True, "07-01 22:00")),
        ("..2026-07-01", moment("2026-07-02T00:00", "UTC"), (False, "")),
        ("2026-07-01..", moment("2026-07-02T00:00", "UTC"), (True, "")),
    ],
)
def test_dates_are_whole_days_the_last_one_included(
    text: str, at: float, looked: tuple[bool, str]
) -> None:
    found = parse_date_range(text).look(at)
    assert found is not None
    assert (found[0], "" if found[1] == inf else told(found[1])) == looked


def test_zone_nobody_knows_is_not_known() -> None:
    assert TimeWindow(frozenset({0}), 0, 60, "Moon/Tranquility").look(0.0) is None
    assert DateRange(None, None, "Moon/Tranquility").look(0.0) is None
    assert not is_known_zone("Moon/Tranquility")
    assert not is_known_zone("Europe")
    assert is_known_zone("UTC")
    assert is_known_zone(BERLIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mon-Foo",
        "mon",
        "08:00",
        "08:00-25:00",
        "08:60-09:00",
        "Mon 08:00-09:00 ../../etc/passwd",
        "Mon 08:00-09:00 UTC more",
        "Mon 08:00-09:00 /etc/localtime",
        "Mon,,Tue",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ConditionInvalid):
        parse_time_window(text)


@pytest.mark.parametrize(
    "text", ["", "..", "2026-01-01", "2026-13-01..", "2026-02-02..2026-02-01", "2026-01-01.. a b"]
)
def test_what_is_no_range_of_dates_is_refused(text: str) -> None:
    with pytest.raises(ConditionInvalid):
        parse_date_range(text)


def test_days_are_named_in_english_as_dates_do() -> None:
    assert [datetime(2026, 6, day, tzinfo=UTC).strftime("%a") for day in range(1, 8)] == [*DAYS]
