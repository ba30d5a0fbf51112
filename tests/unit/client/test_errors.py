from __future__ import annotations

import pytest

from client.errors import ConnectRefused, PublishRefused, in_words
from mqtt.errors import ReasonCode


def test_in_words_names_the_code_and_the_explanation() -> None:
    assert in_words(ReasonCode.NOT_AUTHORIZED, "") == "not authorized (0x87)"
    assert in_words(ReasonCode.NOT_AUTHORIZED, "why") == "not authorized (0x87): why"


@pytest.mark.parametrize(
    ("reason_string", "decision_id"),
    [
        ("no rule allows it, decision d-0123456789ab", "d-0123456789ab"),
        ("d-0123456789ab", "d-0123456789ab"),
        ("no rule allows it", None),
        ("bad-0123456789ab", None),
        ("d-0123456789abcdef", None),
        ("", None),
    ],
)
def test_publish_refused_carries_the_decision_id(
    reason_string: str, decision_id: str | None
) -> None:
    error = PublishRefused("a/b", ReasonCode.NOT_AUTHORIZED, reason_string)
    assert error.decision_id == decision_id
    assert (error.topic, error.reason, error.reason_string) == ("a/b", 0x87, reason_string)
    assert str(error).startswith("publish to `a/b` refused: not authorized (0x87)")


def test_connect_refused_says_what_the_broker_says() -> None:
    error = ConnectRefused(ReasonCode.BANNED, "go away")
    assert str(error) == "the broker refused the connection: banned (0x8a): go away"
