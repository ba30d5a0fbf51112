"""The wire: everything reads back, splits fit, and what is not in the language is refused."""

from __future__ import annotations

import msgspec
import pytest

from acl.decide import Decision, Outcome
from acl.errors import AclError
from acl.model import AccessRequest, Operation, Principal, PrincipalKind, Resource
from controller import wire
from controller.wire import (
    Answer,
    Applied,
    Ask,
    FromBroker,
    FromController,
    Goodbye,
    Heartbeat,
    Hello,
    Policy,
    Question,
    Verdict,
    Welcome,
)

REQUEST = AccessRequest(
    Principal("sensor", PrincipalKind.USER), Operation.WRITE, Resource.topic("a/b.c//+")
)


@pytest.mark.parametrize(
    "message",
    [
        Hello(protocol=1, broker_id="b1", trusts_for_s=3.0),
        Ask(number=7, questions=(wire.question_of(REQUEST),)),
        Applied(epoch=4, number=9),
    ],
)
def test_frames_of_brokers_read_back(message: FromBroker) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=FromBroker) == message


@pytest.mark.parametrize(
    "message",
    [
        Welcome(protocol=1, node_id="c1", epoch=3),
        Policy(epoch=3, reset=True, more=False, grants=(("a", "topic.x"),)),
        Answer(number=7, epoch=3, verdicts=(Verdict(True, "r", "why", "d-1"),)),  # noqa: FBT003 - as on the wire
        Heartbeat(epoch=3, echo=2),
        Goodbye(reason="enough"),
    ],
)
def test_frames_of_the_controller_read_back(message: FromController) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=FromController) == message


@pytest.mark.parametrize(
    "data",
    [
        ["hello", 1, "", 3],
        ["hello", 1, "x" * 65, 3],
        ["hello", "1", "b1", 3],
        ["hello", 1, "b1"],
        ["hello", 1, "b1", 0],
        ["hello", 1, "b1", 4000],
        ["ask", 1, [["s", "service", 4, "topic"]]],
        ["applied", 1.5, 1],
        ["heartbeat", 1, 1],
        ["evil"],
        [],
        {"hello": 1},
        None,
    ],
)
def test_frames_out_of_the_language_are_refused(data: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(data), type=FromBroker)


def test_questions_in_a_frame_are_bounded() -> None:
    question = wire.question_of(REQUEST)
    data = msgspec.msgpack.encode(Ask(number=1, questions=(question,) * (wire.MAX_QUESTIONS + 1)))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(data, type=FromBroker)


def test_request_survives_the_journey() -> None:
    assert wire.verify_request(wire.question_of(REQUEST)) == REQUEST


def test_request_of_a_filter_stays_a_filter() -> None:
    request = AccessRequest(Principal("v"), Operation.READ, Resource.topic("telemetry/#"))
    assert wire.verify_request(wire.question_of(request)).resource.is_filter


def test_question_without_meaning_is_an_acl_error() -> None:
    with pytest.raises(AclError):
        wire.verify_request(Question("s", "service", 4, "moon", ("x",)))


def test_decision_survives_the_journey() -> None:
    decision = Decision(Outcome.ALLOW, "r-1", "allowed by rule `r-1`", 5, id="d-0123456789ab")
    assert wire.decision_of(wire.verdict_of(decision, 1.0), 5, 1.0) == decision


def test_long_reasons_are_cut() -> None:
    decision = Decision(Outcome.DENY, None, "x" * 5000, 5)
    assert len(wire.verdict_of(decision, 1.0).reason) == wire.MAX_REASON_CHARACTERS


def test_largest_answer_fits_a_frame() -> None:
    verdict = Verdict(False, "r" * 128, "\U0001f600" * 512, "d-0123456789ab")  # noqa: FBT003 - as on the wire
    plain = Verdict(False, "r" * 128, "x" * 512, "d-0123456789ab")  # noqa: FBT003 - as on the wire
    size = len(
        msgspec.msgpack.encode(Answer(number=1, epoch=1, verdicts=(plain,) * wire.MAX_QUESTIONS))
    )
    assert size < wire.MAX_FRAME_BYTES
    assert len(msgspec.msgpack.encode(verdict)) < 2300


def test_policy_is_split_and_complete() -> None:
    grants = [("p" * 255, f"topic.{n}." + "x" * 60_000) for n in range(20)]
    parts = list(wire.policy_frames(7, grants, reset=True))
    assert len(parts) > 2
    assert all(len(msgspec.msgpack.encode(part)) < wire.MAX_FRAME_BYTES for part in parts)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [grant for part in parts for grant in part.grants] == grants
    assert list(wire.policy_frames(7, (), reset=False)) == [
        Policy(epoch=7, reset=False, more=False, grants=())
    ]


def test_questions_are_split_and_complete() -> None:
    long = [Question("p", "service", 4, "topic", ("x" * 65_000,)) for _ in range(30)]
    short = [Question("p", "service", 4, "topic", (f"x{n}",)) for n in range(5000)]
    for questions in (long, short, []):
        parts = list(wire.split_questions(questions))
        assert all(len(part) <= wire.MAX_QUESTIONS for part in parts)
        assert all(len(msgspec.msgpack.encode(part)) < wire.MAX_FRAME_BYTES for part in parts)
        assert [question for part in parts for question in part] == questions


@pytest.mark.parametrize(
    ("valid_s", "asked_at", "until"),
    [(5.0, 1.0, 6.0), (0.0, 1.0, 1.0), (1e6, 10.0, 60.0), (1e6, 29.9, 60.0), (1e6, 30.0, 90.0)],
)
def test_decision_that_ends_is_asked_for_again_at_its_end_or_on_the_beat(
    valid_s: float, asked_at: float, until: float
) -> None:
    verdict = wire.Verdict(allowed=True, rule_id="r", reason="", id="d-1", valid_s=valid_s)
    assert wire.decision_of(verdict, 1, asked_at).valid_until == until
