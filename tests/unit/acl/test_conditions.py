from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings, strategies as st

from acl.conditions import (
    MAX_CONDITION_CHARACTERS,
    MAX_DEPTH,
    MAX_TESTS,
    Both,
    Condition,
    Not,
    Weighed,
    parse_condition,
    zones_of,
)
from acl.decide import Outcome, decide
from acl.errors import ConditionInvalid, RuleInvalid
from acl.rules import RuleSet
from tests.unit.acl.builders import a_request, a_rule

YEAR = 'date in "2026-01-01..2026-12-31"'
BEFORE, WITHIN, AFTER = 1.0, 1_780_000_000.0, 1_900_000_000.0
MONDAY_NOON, SUNDAY_NOON = 1_780_315_200.0, 1_780_228_800.0


@pytest.mark.parametrize(
    ("text", "at", "met"),
    [
        (YEAR, WITHIN, True),
        (YEAR, BEFORE, False),
        (f"not {YEAR}", WITHIN, False),
        (f'{YEAR} and time in "Mon"', MONDAY_NOON, True),
        (f'{YEAR} and time in "Mon"', SUNDAY_NOON, False),
        ('time in "Mon" or time in "Sun"', SUNDAY_NOON, True),
        ('not (time in "Mon" or time in "Sun")', SUNDAY_NOON, False),
        (f'time in "Sat" or time in "Sun" and {YEAR}', SUNDAY_NOON, True),
        (f'(time in "Sat" or time in "Sun") and not {YEAR}', SUNDAY_NOON, False),
        (f"not not {YEAR}", WITHIN, True),
        ('time in "Mon Moon/Sea"', MONDAY_NOON, None),
        ('not time in "Mon Moon/Sea"', MONDAY_NOON, None),
        ('time in "Mon Moon/Sea" and time in "Sun"', MONDAY_NOON, False),
        ('time in "Mon Moon/Sea" or time in "Mon"', MONDAY_NOON, True),
        ('time in "Mon Moon/Sea" and time in "Mon"', MONDAY_NOON, None),
        (YEAR, None, None),
    ],
)
def test_condition_is_met_or_not_or_not_known(
    text: str,
    at: float | None,
    met: bool | None,  # noqa: FBT001  three values
) -> None:
    assert parse_condition(text).weigh(at).met is met


def test_answer_holds_until_the_first_of_its_parts_changes() -> None:
    found = parse_condition(f'{YEAR} and time in "Mon 11:00-13:00"').weigh(MONDAY_NOON)
    assert found == Weighed(met=True, until=MONDAY_NOON + 3_600)
    assert parse_condition(YEAR).weigh(AFTER) == Weighed(met=False, until=inf)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is expected where the end is"),
        ("time", "needs `in`"),
        ("time in", "a text in quotes"),
        ("time in Mon", "a text in quotes"),
        ('moon in "full"', "nothing to test"),
        (f"{YEAR} {YEAR}", "join tests by"),
        (f"({YEAR}", "is not closed"),
        (f"{YEAR})", "is not expected"),
        (f"{YEAR} and", "is expected where the end is"),
        ("time == 5", "is not understood"),
        ('time in "Mon', "is not understood"),
        ('time in "x"', "no time zone|no time window"),
        ("(" * (MAX_DEPTH + 2), "nested at most"),
        ("not " * (MAX_DEPTH + 2) + YEAR, "nested at most"),
        (" or ".join([YEAR] * (MAX_TESTS + 1)), "at most"),
        ("x" * (MAX_CONDITION_CHARACTERS + 1), "characters"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ConditionInvalid, match=complaint):
        parse_condition(text)


def test_zones_are_named_once() -> None:
    text = 'time in "Mon Europe/Berlin" and not (time in "Tue Europe/Berlin" or date in "2026-01-01..")'
    assert sorted(zones_of(text)) == ["Europe/Berlin", "UTC"]
    assert zones_of("") == ()


class Fixed:
    """A condition that says what it is told to."""

    def __init__(self, met: bool | None, until: float) -> None:  # noqa: FBT001  three values
        self.said = Weighed(met, until)

    def weigh(self, at: float | None) -> Weighed:
        return self.said


def kleene(kind: str, values: list[bool | None]) -> bool | None:
    """The tables of three-valued logic, as minimum and maximum."""
    order = {False: 0, None: 1, True: 2}
    ranks = [order[value] for value in values]
    rank = min(ranks) if kind == "and" else max(ranks)
    return {0: False, 1: None, 2: True}[rank]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([True, False, None]), st.integers(1, 9)), min_size=1, max_size=5
    ),
    st.sampled_from(["and", "or"]),
)
def test_logic_is_that_of_three_values(parts: list[tuple[bool | None, int]], kind: str) -> None:
    inner: tuple[Condition, ...] = tuple(Fixed(met, until) for met, until in parts)
    found = Both(inner, decisive=kind == "or").weigh(0.0)
    assert found.met is kleene(kind, [met for met, _ in parts])
    assert found.until == min(until for _, until in parts)
    opposite = {True: False, False: True, None: None}[found.met]
    assert Not(Both(inner, decisive=kind == "or")).weigh(0.0).met is opposite


# -- rules with conditions -------------------------------------------------------------------


def test_rule_applies_while_its_condition_is_met_and_says_until_when() -> None:
    rules = RuleSet([a_rule("some", condition='time in "Mon 11:00-13:00"')])
    allowed = decide(rules, a_request(), MONDAY_NOON)
    assert (allowed.outcome, allowed.rule_id) == (Outcome.ALLOW, "some")
    assert allowed.valid_until == MONDAY_NOON + 3_600
    denied = decide(rules, a_request(), SUNDAY_NOON)
    assert (denied.outcome, denied.rule_id) == (Outcome.DENY, None)
    assert denied.valid_until == MONDAY_NOON - 3_600


def test_rule_that_expired_applies_no_more() -> None:
    rules = RuleSet([a_rule("short", expires_at=100.0), a_rule("long", priority=-1)])
    first, then = decide(rules, a_request(), 99.0), decide(rules, a_request(), 100.0)
    assert (first.rule_id, first.valid_until) == ("short", 100.0)
    assert (then.rule_id, then.valid_until) == ("long", inf)


@pytest.mark.parametrize(
    ("condition", "at"), [('time in "Mon Moon/Sea"', MONDAY_NOON), (YEAR, None)]
)
def test_what_is_not_known_never_allows_more(condition: str, at: float | None) -> None:
    allow, deny = a_rule("allow"), a_rule("deny", effect="deny", condition=condition)
    assert decide(RuleSet([allow, deny]), a_request(), at).rule_id == "deny"
    unsure = a_rule("unsure", condition=condition)
    assert not decide(RuleSet([unsure]), a_request(), at).allowed


@pytest.mark.parametrize(
    "fields",
    [
        {"condition": "time"},
        {"expires_at": -1.0},
        {"expires_at": float("nan")},
        {"tags": ("two words",)},
        {"tags": ("x",) * 17},
    ],
)
def test_rule_with_a_wrong_condition_end_or_tag_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises((ConditionInvalid, RuleInvalid)):
        a_rule(**fields)  # type: ignore[arg-type]  # that is what is wrong
