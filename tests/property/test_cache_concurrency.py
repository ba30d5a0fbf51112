"""Many askers, slow answers and policy changes in between: no answer is older than what was applied."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from acl.decide import decide
from acl.model import Effect, Principal
from acl.rules import AclRule, RuleSet
from cache.authorizer import Authorizer, request_for
from cache.limits import CacheLimits
from tests.unit.acl.builders import a_rule
from tests.unit.cache.fakes import READ, WRITE, RuleAuthority, an_authorizer, in_step

NAMES = ["bob", "eve", "svc-1"]
TOPICS = [b"a/b", b"a/c", b"x", b"kernel/k", b"a/#", b"deep/er/x"]
ASKERS = 12
QUESTIONS_PER_ASKER = 60
CHANGES = 40


class World:
    """The controller, its push with a delay, and what every epoch would have answered."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.authority = RuleAuthority(RuleSet([], epoch=1))
        self.authorizer: Authorizer = an_authorizer(
            self.authority, limits=CacheLimits(max_batch_questions=4, question_deadline_s=1e6)
        )
        self.history = {1: self.authority.rules}
        self.used = 0
        in_step(self.authority, self.authorizer)

    def a_rule(self, rule_id: str) -> AclRule:
        pattern = self.random.choice(
            ["topic.a.*", "topic.**", "topic.x", "kernel.*", "topic.*.*.x"]
        )
        effect = self.random.choice(["allow", "allow", "deny"])
        principal = self.random.choice([*NAMES, "*"])
        return a_rule(
            rule_id,
            principal=principal,
            resource=pattern,
            effect=effect,
            operations="read,write,execute",
        )

    def change(self) -> list[tuple[str, str]] | None:
        before = self.authority.rules
        if len(before) > 4:
            self.authority.rules = before.without_rule(self.random.choice(before.rules).id)
            grants = None
        else:
            rule = self.a_rule(f"r{before.epoch}")
            self.authority.rules = before.with_rule(rule)
            grants = [(rule.principal, rule.resource)] if rule.effect is Effect.ALLOW else None
        self.history[self.authority.rules.epoch] = self.authority.rules
        return grants

    async def change_now_and_then(self) -> None:
        for _ in range(CHANGES):
            await trio.sleep(self.random.random())
            grants = self.change()
            epoch = self.authority.rules.epoch
            await trio.sleep(self.random.random() / 4)  # on the way
            self.authorizer.apply_policy(epoch, grants, reset=False)
            self.authority.delay_s = self.random.choice([0.0, 0.01, 0.1])
            self.authority.return_s = self.random.choice([0.0, 0.01, 0.3])

    async def ask(self, name: str) -> None:
        connection = self.authorizer.open(Principal(name))
        for _ in range(QUESTIONS_PER_ASKER):
            await trio.sleep(self.random.random())
            operation, topic = self.random.choice([READ, WRITE]), self.random.choice(TOPICS)
            if b"#" in topic:
                operation = READ
            decision = await self.authorizer.authorize(connection, operation, topic)
            assert decision.epoch >= self.authorizer.epoch
            request = request_for(connection.principal, operation, topic)
            truth = decide(self.history[decision.epoch], request)
            # Asked often enough and always answered by an older policy, it denies: that is the promise.
            gave_up = not decision.allowed and "by an older policy" in decision.reason
            assert gave_up or decision.allowed is truth.allowed
            for table in (connection.writes, connection.reads):
                assert all(kept.epoch == self.authorizer.epoch for kept in table.values())
            self.used += decision.rule_id is not None
        connection.close()


@pytest.mark.parametrize("seed", range(6))
async def test_no_answer_is_older_than_the_applied_policy(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(seed)
    async with trio.open_nursery() as running:
        await running.start(world.authorizer.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.change_now_and_then)
            for number in range(ASKERS):
                nursery.start_soon(world.ask, NAMES[number % len(NAMES)])
        running.cancel_scope.cancel()
    stats = world.authorizer.stats
    # the run is worth something only if it met every kind of answer
    assert stats.l1_allow + stats.l1_deny > 10
    assert stats.l2_allow + stats.l2_deny > 10
    assert stats.l3_deny > 0
    assert stats.stale_answers > 0
    assert stats.early_answers > 0
    assert world.used > ASKERS
    assert stats.timeouts == stats.policies_refused == stats.policy_gaps == 0
