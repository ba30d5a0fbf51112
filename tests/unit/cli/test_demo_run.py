from __future__ import annotations

import pytest

from cli.demo_run import REFUSED_TOPICS, Outcome


def good() -> Outcome:
    refusals = [(topic, 0x87, "not authorized, decision d-0") for topic in REFUSED_TOPICS]
    return Outcome(sent=10, answered=10, equal=10, seen_by_viewer=10, refusals=refusals)


def test_good_outcome_has_no_complaint() -> None:
    assert good().complaint() == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sent": 0, "answered": 0, "equal": 0}, "0 requests"),
        ({"answered": 9}, "10 requests were sent but 9 answers came"),
        ({"equal": 7}, "3 of 10 answers differ from numpy"),
        ({"refusals": []}, "let the viewer publish"),
        ({"seen_by_viewer": 0}, "delivered none"),
    ],
)
def test_outcome_that_breaks_a_promise_is_named(change: dict[str, object], told: str) -> None:
    outcome = good()
    for name, value in change.items():
        setattr(outcome, name, value)
    assert told in outcome.complaint()
