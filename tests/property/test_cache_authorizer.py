"""The caches change nothing but the time it takes: cached == uncached, whatever happens in between."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule as step,
    run_state_machine_as_test,
)

from acl.decide import Decision, decide
from acl.model import Effect, Operation, Principal
from acl.rules import AclRule, RuleSet
from cache.authorizer import request_for
from cache.connection import ConnectionCache
from cache.limits import CacheLimits
from tests.property.acl_strategies import rules
from tests.unit.cache.fakes import READ, WRITE, RuleAuthority, an_authorizer, in_step

NAMES = ["bob", "eve", "svc-1", "a"]
TOPICS = [
    b"a",
    b"a/b",
    b"ab/app-1",
    b"app-12/bob",
    b"kernel/a",
    b"kernel/app-1",
    b"$a/b",
    b"/a",
    b"a.b",
    b"bob/svc-1/a",
    b"\xff",
]
FILTERS = [b"#", b"a/#", b"+/b", b"+", b"$a/#", b"bob/+"]
# small enough that every table turns over and principals push each other out
TINY = CacheLimits(
    l1_entries=6, l2_principals_per_shard=1, l2_entries_per_principal=8, l2_bytes_per_shard=6000
)

questions = st.one_of(
    st.tuples(st.sampled_from([READ, WRITE]), st.sampled_from(TOPICS)),
    st.tuples(st.just(READ), st.sampled_from(FILTERS)),
)


class CachedEqualsUncached(RuleBasedStateMachine):
    """Random rules, questions, pushed and unpushed changes, loss of contact, closing and opening."""

    def __init__(self) -> None:
        super().__init__()
        self.authority = RuleAuthority(RuleSet([], epoch=1))
        self.authorizer = an_authorizer(self.authority, limits=TINY)
        in_step(self.authority, self.authorizer)
        self.applied = self.authority.rules
        self.withdrawn = False
        self.connections = {
            name: [self.authorizer.open(Principal(name)) for _ in range(2)] for name in NAMES
        }
        self.hot = {
            id(connection): (connection.writes, connection.reads)
            for pair in self.connections.values()
            for connection in pair
        }

    # -- the world changes

    @step(rule=rules())
    def put_rule(self, rule: AclRule) -> None:
        before = self.authority.rules
        if rule.id in before:
            before = before.without_rule(rule.id, epoch=before.epoch)
        self.authority.rules = before.with_rule(rule)
        granted = rule.enabled and rule.effect is Effect.ALLOW
        self.push([(rule.principal, rule.resource)] if granted else None)

    @step(data=st.data())
    def remove_rule(self, data: st.DataObject) -> None:
        kept = self.authority.rules.rules
        if kept:
            gone = data.draw(st.sampled_from(kept))
            self.authority.rules = self.authority.rules.without_rule(gone.id)
            self.push(None)

    def push(self, grants: list[tuple[str, str]] | None) -> None:
        self.authorizer.apply_policy(self.authority.rules.epoch, grants, reset=False)
        self.applied = self.authority.rules

    @step()
    def push_everything_again(self) -> None:
        in_step(self.authority, self.authorizer)
        self.applied = self.authority.rules

    @step(rule=rules("ahead"))
    def change_before_the_push(self, rule: AclRule) -> None:
        before = self.authority.rules
        if "ahead" in before:
            before = before.without_rule("ahead")
        self.authority.rules = before.with_rule(rule)

    @step(rule=rules("lost"))
    def lose_a_push_and_get_the_next(self, rule: AclRule) -> None:
        before = self.authority.rules
        if "lost" in before:
            before = before.without_rule("lost")
        self.authority.rules = RuleSet(before.with_rule(rule).rules, before.epoch + 2)
        self.push(None)

    @step()
    def repeat_an_old_push(self) -> None:
        assert not self.authorizer.apply_policy(0, [], reset=True)

    @precondition(lambda self: not self.withdrawn)
    @step()
    def withdraw(self) -> None:
        self.authorizer.withdraw("gone")
        self.withdrawn = True

    @precondition(lambda self: self.withdrawn)
    @step()
    def restore(self) -> None:
        self.authorizer.restore()
        self.withdrawn = False

    @step(name=st.sampled_from(NAMES))
    def reconnect(self, name: str) -> None:
        old, kept = self.connections[name]
        old.close()
        assert self.hot[id(old)] == ({}, {})
        new = self.authorizer.open(Principal(name))
        self.hot[id(new)] = (new.writes, new.reads)
        self.connections[name] = [kept, new]

    # -- questions

    @step(name=st.sampled_from(NAMES), which=st.integers(0, 1), question=questions)
    def ask(self, name: str, which: int, question: tuple[Operation, bytes]) -> None:
        self.compare(name, which, *question)

    @step(
        which=st.integers(0, 1),
        asked=st.lists(st.tuples(st.sampled_from(NAMES), questions), max_size=12),
    )
    def ask_many(self, which: int, asked: list[tuple[str, tuple[Operation, bytes]]]) -> None:
        for name, question in asked:
            self.compare(name, which, *question)

    def compare(self, name: str, which: int, operation: Operation, topic: bytes) -> None:
        connection = self.connections[name][which]
        expected = self.expected(Principal(name), operation, topic)
        hot = (connection.writes if operation is WRITE else connection.reads).get(topic)
        if hot is not None:
            assert hot.allowed is expected
        checked = self.authorizer.check(connection, operation, topic)
        if checked is not None:
            assert checked.allowed is expected
        got = trio.run(self.authorize, connection, operation, topic)
        assert got is not None
        # an answer of a policy that the controller has and this broker has yet to hear of is right too
        newest = self.expected(Principal(name), operation, topic, self.authority.rules)
        assert got.allowed in (expected, newest), (got, topic)
        assert got.id
        assert got.reason

    async def authorize(
        self, connection: ConnectionCache, operation: Operation, topic: bytes
    ) -> Decision | None:
        decision: Decision | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(self.authorizer.run)
            decision = await self.authorizer.authorize(connection, operation, topic)
            nursery.cancel_scope.cancel()
        return decision

    def expected(
        self, principal: Principal, operation: Operation, topic: bytes, by: RuleSet | None = None
    ) -> bool:
        if self.withdrawn or topic == b"\xff":
            return False
        return decide(
            self.applied if by is None else by, request_for(principal, operation, topic)
        ).allowed

    @invariant()
    def what_the_data_path_reads_is_true(self) -> None:
        for name, pair in self.connections.items():
            for connection in pair:
                assert (connection.writes, connection.reads) == self.hot[id(connection)]
                for operation, table in ((WRITE, connection.writes), (READ, connection.reads)):
                    for topic, decision in table.items():
                        expected = self.expected(Principal(name), operation, topic)
                        assert decision.allowed is expected

    @invariant()
    def bounds_hold(self) -> None:
        sizes = self.authorizer.sizes()
        assert sizes.connections == 2 * len(NAMES)
        assert sizes.l1_entries <= sizes.connections * 2 * TINY.l1_entries
        assert sizes.l2_entries <= TINY.l2_entries_per_principal * sizes.l2_principals
        assert sizes.waiting_questions == 0


def test_cached_equals_uncached_under_any_history() -> None:
    run_state_machine_as_test(
        CachedEqualsUncached,
        settings=settings(max_examples=120, stateful_step_count=40, deadline=None),
    )
