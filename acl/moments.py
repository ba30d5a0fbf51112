"""Times of day and dates, in a time zone: is a moment within, and until when.

Rules of this file:
- A window of the day is, for each day it names, the span between the moment its beginning is on the clocks there and the
  moment its end is. Where clocks go back, the beginning is the first such moment and the end the last; where
  they go forward, a time that does not exist that day is the moment of the jump.
- A window whose end is not after its beginning ends on the next day; the day it names is the one it begins on.
- Spans that touch are one: `until` is a moment at which the answer really changes, or one after which it is looked at
  again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from math import inf
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from acl.errors import ConditionInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ALL_DAYS: Final = frozenset(range(7))
DAY_S: Final = 86_400
LOOK_AHEAD_DAYS: Final = 9  # a week, what began yesterday, and a day of reserve
MINUTES_A_DAY: Final = 24 * 60

_ZONE: Final = re.compile(r"UTC|[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){1,2}")
_CLOCK: Final = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_DATES: Final = re.compile(r"(\d{4}-\d\d-\d\d)?\.\.(\d{4}-\d\d-\d\d)?")


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Some hours of some days.

    Attributes:
        days: 0 for Monday to 6 for Sunday.
        begin: minutes after midnight.
        end: minutes after the same midnight, more than `begin`, at most two days.
        zone: name of the time zone.
    """

    days: frozenset[int]
    begin: int
    end: int
    zone: str

    def look(self, at: float) -> tuple[bool, float] | None:
        """Say whether a moment is within, and until when that holds; None if the zone is not known here.

        Args:
            at: seconds since the epoch.
        """
        zone = _zone_of(self.zone)
        if zone is None:
            return None
        here = datetime.fromtimestamp(at, zone).date()
        merged: tuple[float, float] | None = None
        for begin, end in self._spans(here, zone):
            if merged is not None and begin <= merged[1]:
                merged = merged[0], max(merged[1], end)
                continue
            if merged is not None and at < merged[1]:
                break
            merged = begin, end
        if merged is None or at >= merged[1]:
            return False, at + DAY_S  # nothing for days: look again
        return (True, merged[1]) if at >= merged[0] else (False, merged[0])

    def _spans(self, here: date, zone: tzinfo) -> Iterator[tuple[float, float]]:
        """Yield the spans around a day, in order."""
        for offset in range(-2, LOOK_AHEAD_DAYS):
            day = here + timedelta(days=offset)
            if day.weekday() in self.days:
                begin = _moment(day, self.begin, zone, first=True)
                end = _moment(day, self.end, zone, first=False)
                if begin < end:
                    yield begin, end


@dataclass(frozen=True, slots=True)
class DateRange:
    """Whole days.

    Attributes:
        first: the first day; None: since ever.
        last: the last day, included; None: for ever.
        zone: name of the time zone.
    """

    first: date | None
    last: date | None
    zone: str

    def look(self, at: float) -> tuple[bool, float] | None:
        """Say whether a moment is within, and until when that holds; None if the zone is not known here."""
        zone = _zone_of(self.zone)
        if zone is None:
            return None
        begin = -inf if self.first is None else _moment(self.first, 0, zone, first=True)
        end = inf if self.last is None else _moment(self.last, MINUTES_A_DAY, zone, first=True)
        if at < begin:
            return False, begin
        return (True, end) if at < end else (False, inf)


def parse_time_window(text: str) -> TimeWindow:
    """Return the window that `text` writes: days, hours and a zone, each of which may be left out.

    Raises:
        ConditionInvalid: it writes none; says what to write.
    """
    days, begin, end, zone = ALL_DAYS, 0, MINUTES_A_DAY, "UTC"
    words = text.split()
    if words and words[0][:3] in DAYS:
        days = _days_of(words.pop(0))
    if words and (clock := _CLOCK.fullmatch(words[0])):
        words.pop(0)
        begin, end = _minutes(clock[1], clock[2]), _minutes(clock[3], clock[4])
        end += MINUTES_A_DAY if end <= begin else 0
    if words:
        zone = _zone_name(words.pop(0))
    if words or not text.strip():
        raise ConditionInvalid(
            f'`{text}` is no time window: write e.g. "Mon-Fri 08:00-18:00 Europe/Berlin"'
        )
    return TimeWindow(days, begin, end, zone)


def parse_date_range(text: str) -> DateRange:
    """Return the range that `text` writes: two dates, one of which may be left out, and a zone.

    Raises:
        ConditionInvalid: it writes none; says what to write.
    """
    dates, _, zone = text.strip().partition(" ")
    found = _DATES.fullmatch(dates)
    if found is None or dates == "..":
        raise ConditionInvalid(
            f'`{text}` is no range of dates: write e.g. "2026-01-01..2026-12-31 Europe/Berlin"'
        )
    try:
        first, last = (date.fromisoformat(d) if d else None for d in (found[1], found[2]))
    except ValueError as error:
        raise ConditionInvalid(f"`{text}`: {error}") from error
    if first is not None and last is not None and last < first:
        raise ConditionInvalid(f"`{text}` ends before it begins")
    return DateRange(first, last, _zone_name(zone.strip()) if zone.strip() else "UTC")


def _days_of(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ConditionInvalid(f"`{part}` is no day: use {', '.join(DAYS)}, or two with `-`")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 if dash else 0
        days.update((begin + offset) % 7 for offset in range(length + 1))
    return frozenset(days)


def _minutes(hours: str, minutes: str) -> int:
    found = int(hours) * 60 + int(minutes)
    if int(minutes) >= 60 or found > MINUTES_A_DAY:  # noqa: PLR2004  minutes of an hour
        raise ConditionInvalid(f"`{hours}:{minutes}` is no time of day: use 00:00 to 24:00")
    return found


def _zone_name(text: str) -> str:
    if not _ZONE.fullmatch(text):
        raise ConditionInvalid(f"`{text}` is no time zone: write e.g. Europe/Berlin, or UTC")
    return text


def is_known_zone(name: str) -> bool:
    """Whether the time zone database of this machine has a zone."""
    return _zone_of(name) is not None


def _zone_of(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        return None
    except KeyError:
        return None


def _moment(day: date, minutes: int, zone: tzinfo, *, first: bool) -> float:
    """When the clocks of a zone show so many minutes after the midnight that begins a day."""
    wall = datetime.combine(day, time(), tzinfo=zone) + timedelta(minutes=minutes)
    early, late = (wall.replace(fold=fold).timestamp() for fold in (0, 1))
    if early <= late:  # the ordinary case, or clocks that go back: the time comes twice
        return early if first else late
    return _jump(late, early, zone)  # clocks that go forward: it does not come at all


def _jump(before: float, after: float, zone: tzinfo) -> float:
    """The moment between two others at which the offset of a zone changes, to the second."""
    offset = datetime.fromtimestamp(before, zone).utcoffset()
    low, high = int(before), int(after)
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return float(high)
