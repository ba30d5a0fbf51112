"""What brokers and the controller say to each other: MessagePack arrays in length-prefixed frames over mutual TLS.

One connection, this order: the broker says `Hello`; the controller answers `Welcome` and the whole list of grants in
one or more `Policy` frames with `reset`. Then both sides talk freely: `Ask` gets one `Answer` with the same number;
every change of policy is one `Policy` frame. The broker sends a numbered `Applied` every second, and for every policy it
has taken over; the controller answers each with a `Heartbeat` that echoes the number. Frames of the controller arrive in the order of the state they tell of: an
answer of epoch 7 comes after the policy of epoch 7.

Rules of this file: a field is added at the end, with a default; anything else is a new `PROTOCOL`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Annotated

import msgspec

from acl.decide import Decision, Outcome
from acl.errors import AclError
from acl.model import AccessRequest, Operation, Principal, PrincipalKind, Resource, ResourceKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ALPN = "stockade-ctl/1"
PROTOCOL = 1

# Questions in one frame: natural batches are a few hundred, see research on batched misses.
MAX_QUESTIONS = 4096
# 4096 answers with the longest rule ids and reasons are 2.9 MB.
MAX_FRAME_BYTES = 4 << 20
# Where a list of questions or grants is split; one item more is at most 128 KiB (two MQTT strings).
SPLIT_BYTES = 512 << 10
# A decision that ends by itself is asked for again after one to two times so many seconds, in case a clock was set.
MAX_VALID_S = 30.0
# Reasons are for people; longer ones are cut.
MAX_REASON_CHARACTERS = 512
MAX_BROKER_ID_CHARACTERS = 64
# The longest a broker may be configured to go on without contact.
MAX_TRUSTS_FOR_S = 3600

HEARTBEAT_S = 1.0


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Question(msgspec.Struct, frozen=True, array_like=True):
    """One access request."""

    principal: str
    principal_kind: str
    operation: int
    kind: str
    segments: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """One decision; the epoch is that of the answer it is in.

    `valid_s`: seconds, from when it was asked, after which it is to be asked again; None: only a change of policy ends it.
    Not a moment, because the clocks of two machines differ.
    """

    allowed: bool
    rule_id: str | None
    reason: str
    id: str
    valid_s: float | None = None


class Hello(_Message, frozen=True, array_like=True, tag="hello"):
    """First frame of a broker.

    `trusts_for_s`: so many seconds after its last proof of freshness the broker may still decide by the policy it has.
    """

    protocol: int
    broker_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_BROKER_ID_CHARACTERS)]
    trusts_for_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TRUSTS_FOR_S)]


class Ask(_Message, frozen=True, array_like=True, tag="ask"):
    """Questions, to be decided by one snapshot."""

    number: int
    questions: Annotated[tuple[Question, ...], msgspec.Meta(max_length=MAX_QUESTIONS)]


class Applied(_Message, frozen=True, array_like=True, tag="applied"):
    """The broker decides by this epoch now; `number` grows with every such frame."""

    epoch: int
    number: int


class Welcome(_Message, frozen=True, array_like=True, tag="welcome"):
    """First frame of the controller."""

    protocol: int
    node_id: str
    epoch: int


class Policy(_Message, frozen=True, array_like=True, tag="policy"):
    """The policy is at `epoch` now.

    `grants` are (principal pattern, resource pattern) pairs of allow rules: new ones, or with `reset` all of them.
    A list too long for one frame continues while `more`; it counts when the last part is here.
    """

    epoch: int
    reset: bool
    more: bool
    grants: tuple[tuple[str, str], ...]


class Answer(_Message, frozen=True, array_like=True, tag="answer"):
    """Decisions on the questions of one `Ask`, in their order, all of one epoch."""

    number: int
    epoch: int
    verdicts: tuple[Verdict, ...]


class Heartbeat(_Message, frozen=True, array_like=True, tag="heartbeat"):
    """The controller lives and is at this epoch.

    `echo` is the `number` it answers. It tells the broker that the epoch was true *after* it sent that number, however
    long this frame has waited in buffers.
    """

    epoch: int
    echo: int


class Goodbye(_Message, frozen=True, array_like=True, tag="goodbye"):
    """The controller ends the connection, and why."""

    reason: str


FromBroker = Hello | Ask | Applied
FromController = Welcome | Policy | Answer | Heartbeat | Goodbye


def question_of(request: AccessRequest) -> Question:
    """Return a request as it travels."""
    return Question(
        principal=request.principal.name,
        principal_kind=request.principal.kind.value,
        operation=int(request.operation),
        kind=request.resource.kind.value,
        segments=request.resource.segments,
    )


def verify_request(question: Question) -> AccessRequest:
    """Return the request a question stands for.

    Raises:
        AclError: it stands for none.
    """
    try:
        return AccessRequest(
            Principal(question.principal, PrincipalKind(question.principal_kind)),
            Operation(question.operation),
            Resource(ResourceKind(question.kind), question.segments),
        )
    except ValueError as error:
        raise AclError(str(error)) from error


def verdict_of(decision: Decision, now: float) -> Verdict:
    """Return a decision as it travels.

    Args:
        decision: which.
        now: seconds since the epoch, on the clock of its `valid_until`.
    """
    ends = decision.valid_until != inf
    return Verdict(
        allowed=decision.allowed,
        rule_id=decision.rule_id,
        reason=decision.reason[:MAX_REASON_CHARACTERS],
        id=decision.id,
        valid_s=max(decision.valid_until - now, 0.0) if ends else None,
    )


def decision_of(verdict: Verdict, epoch: int, asked_at: float) -> Decision:
    """Return the decision a verdict stands for.

    Args:
        verdict: which.
        epoch: of the answer it is in.
        asked_at: when it was asked for, seconds since the epoch on the clock of who asked.
    """
    return Decision(
        outcome=Outcome.ALLOW if verdict.allowed else Outcome.DENY,
        rule_id=verdict.rule_id,
        reason=verdict.reason,
        epoch=epoch,
        valid_until=inf if verdict.valid_s is None else _end_of(verdict.valid_s, asked_at),
        id=verdict.id,
    )


def _end_of(valid_s: float, asked_at: float) -> float:
    """When a decision is asked for again: at its end, or at the latest with all others of these seconds, on one beat."""
    return min(asked_at + valid_s, (asked_at // MAX_VALID_S + 2) * MAX_VALID_S)


def policy_frames(
    epoch: int, grants: Iterable[tuple[str, str]], *, reset: bool
) -> Iterator[Policy]:
    """Yield the frames that carry a list of grants; the last one has `more` unset."""
    part: list[tuple[str, str]] = []
    size = 0
    for grant in grants:
        if size > SPLIT_BYTES:
            yield Policy(epoch=epoch, reset=reset, more=True, grants=tuple(part))
            part, size = [], 0
        part.append(grant)
        size += 4 * (len(grant[0]) + len(grant[1])) + 8
    yield Policy(epoch=epoch, reset=reset, more=False, grants=tuple(part))


def split_questions(questions: Iterable[Question]) -> Iterator[tuple[Question, ...]]:
    """Yield the questions in order, in parts that fit a frame."""
    part: list[Question] = []
    size = 0
    for question in questions:
        if len(part) == MAX_QUESTIONS or size > SPLIT_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(question)
        size += 4 * (len(question.principal) + sum(map(len, question.segments))) + 64
    if part:
        yield tuple(part)
