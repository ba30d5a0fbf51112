"""An authority that really decides, by rules it holds, and can be made slow, absent, late or mad."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import trio

from acl.decide import Decision, decide
from acl.model import Operation, Principal
from acl.rules import RuleSet
from cache.authority import Answered, Answers
from cache.authorizer import Authorizer
from cache.errors import AuthorityUnavailable
from cache.limits import CacheLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from acl.model import AccessRequest

WRITE, READ, EXECUTE = Operation.WRITE, Operation.READ, Operation.EXECUTE
SENSOR = Principal("sensor")
VIEWER = Principal("viewer")


class RuleAuthority:
    """Decides by `rules`, one batch at a time.

    Attributes:
        rules: what it decides by when it answers.
        batches: the questions of every request, in order.
        delay_s: how long a request takes to reach it.
        return_s: how long the answer takes back.
        gate: when set, every request waits here first.
        failure: raised instead of an answer.
        judge: replaces the decider, for answers that a right authority never gives.
    """

    def __init__(self, rules: RuleSet | None = None) -> None:
        self.rules = RuleSet() if rules is None else rules  # an empty set is false
        self.batches: list[tuple[AccessRequest, ...]] = []
        self.delay_s = 0.0
        self.return_s = 0.0
        self.gate: trio.Event | None = None
        self.failure: Exception | None = None
        self.judge: Callable[[Sequence[AccessRequest]], Answered] = self.decide_all

    async def ask(self, requests: Sequence[AccessRequest]) -> Answered:
        self.batches.append(tuple(requests))
        await trio.sleep(self.delay_s)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        answers = self.judge(requests)
        if self.return_s:
            await trio.sleep(self.return_s)
        return answers

    def decide_all(self, requests: Sequence[AccessRequest]) -> Answers:
        return Answers(self.rules.epoch, tuple(decide(self.rules, request) for request in requests))


def new_ids() -> Callable[[], str]:
    counter = itertools.count(1)
    return lambda: f"d-{next(counter):012x}"


def an_authorizer(
    authority: RuleAuthority,
    *,
    limits: CacheLimits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Authorizer:
    return Authorizer(authority, limits=limits or CacheLimits(), clock=clock, new_id=new_ids())


def in_step(authority: RuleAuthority, authorizer: Authorizer) -> None:
    """Apply the authority's rules, as its push would."""
    authorizer.apply_policy(authority.rules.epoch, authority.rules.grants, reset=True)


__all__ = [
    "EXECUTE",
    "READ",
    "SENSOR",
    "VIEWER",
    "WRITE",
    "AuthorityUnavailable",
    "Decision",
    "RuleAuthority",
    "RuleSet",
    "an_authorizer",
    "in_step",
    "new_ids",
]
