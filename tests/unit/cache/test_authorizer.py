from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from acl.decide import Decision, Outcome
from acl.errors import AclError
from acl.model import AccessRequest, Operation, Principal, Resource
from acl.rules import RuleSet
from cache.authority import Answers
from cache.authorizer import CLOCK_LOOK_S, Authorizer, request_for
from cache.connection import ConnectionCache
from cache.errors import AuthorityUnavailable, PrincipalMismatch
from cache.limits import CacheLimits
from tests.unit.acl.builders import a_rule
from tests.unit.cache.fakes import (
    EXECUTE,
    READ,
    SENSOR,
    VIEWER,
    WRITE,
    RuleAuthority,
    an_authorizer,
    in_step,
)

RULES = RuleSet(
    [
        a_rule("t", resource="topic.telemetry.**"),
        a_rule("no", resource="topic.telemetry.secret", effect="deny"),
        a_rule("k", resource="kernel.zscore", operations="execute"),
        a_rule("v", principal="viewer", resource="topic.telemetry.**", operations="read"),
    ],
    epoch=5,
)


async def running(
    nursery: trio.Nursery,
    authority: RuleAuthority | None = None,
    *,
    limits: CacheLimits | None = None,
) -> tuple[Authorizer, RuleAuthority, ConnectionCache]:
    authority = authority or RuleAuthority(RULES)
    authorizer = an_authorizer(authority, limits=limits)
    in_step(authority, authorizer)
    await nursery.start(authorizer.run)
    return authorizer, authority, authorizer.open(SENSOR)


# -- what is asked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "topic", "expected"),
    [
        (WRITE, b"a/b", (WRITE, "topic.a.b")),
        (READ, b"a/b", (READ, "topic.a.b")),
        (WRITE, b"kernel/zscore", (EXECUTE, "kernel.zscore")),
        (READ, b"kernel/zscore", (READ, "topic.kernel.zscore")),
        (WRITE, b"kernel/a/b", (WRITE, "topic.kernel.a.b")),
        (WRITE, b"kernel/", (WRITE, "topic.kernel.")),
        (WRITE, b"kernel", (WRITE, "topic.kernel")),
        (WRITE, b"kernel/a.b", (EXECUTE, r"kernel.a\.b")),
        (READ, b"telemetry/#", (READ, "topic.telemetry.#")),
        (WRITE, "kernel/ä".encode(), (EXECUTE, "kernel.ä")),
    ],
)
def test_request_for_says_what_an_mqtt_operation_asks_for(
    operation: Operation, topic: bytes, expected: tuple[Operation, str]
) -> None:
    request = request_for(SENSOR, operation, topic)
    assert (request.operation, request.resource.text) == expected
    assert request.principal == SENSOR


@pytest.mark.parametrize("topic", [b"\xff", b"a/\0", b"/" * 200])
def test_request_for_refuses_what_is_no_name(topic: bytes) -> None:
    with pytest.raises(AclError):
        request_for(SENSOR, WRITE, topic)


# -- levels ----------------------------------------------------------------------------------


async def test_first_question_goes_to_the_authority_and_the_next_to_no_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is None
    first = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert first.allowed
    assert first.rule_id == "t"
    assert first.id
    assert connection.writes[b"telemetry/cpu"] is first
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is first
    other = authorizer.open(SENSOR)
    assert authorizer.check(other, WRITE, b"telemetry/cpu") is first
    assert len(authority.batches) == 1
    stats = authorizer.stats
    assert (stats.authority_allow, stats.l1_allow, stats.l2_allow) == (1, 1, 1)


async def test_denial_is_kept_as_well_so_that_a_flood_costs_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    denied = await authorizer.authorize(connection, WRITE, b"telemetry/secret")
    assert denied.rule_id == "no"
    for _ in range(100):
        assert await authorizer.authorize(connection, WRITE, b"telemetry/secret") is denied
    assert connection.writes[b"telemetry/secret"] is denied
    assert len(authority.batches) == 1
    assert authorizer.stats.l1_deny == 100


async def test_negative_filter_denies_without_asking(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    denied = authorizer.check(connection, WRITE, b"elsewhere/x")
    assert denied is not None
    assert not denied.allowed
    assert "never granted" in denied.reason or "ever granted" in denied.reason
    assert denied.epoch == 5
    assert denied.id
    assert authority.batches == []
    assert authorizer.stats.l3_deny == 1
    assert authorizer.check(connection, WRITE, b"elsewhere/x") is denied
    assert authorizer.check(authorizer.open(SENSOR), WRITE, b"elsewhere/x") is denied


async def test_operations_do_not_share_answers(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery)
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed
    assert not (await authorizer.authorize(connection, READ, b"telemetry/cpu")).allowed
    assert b"telemetry/cpu" in connection.reads


async def test_subscription_is_decided_by_the_authority_and_kept(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, _ = await running(nursery)
    viewer = authorizer.open(VIEWER)
    assert (await authorizer.authorize(viewer, READ, b"telemetry/#")).allowed
    assert (await authorizer.authorize(viewer, READ, b"telemetry/#")).rule_id == "v"
    assert not (await authorizer.authorize(viewer, READ, b"private/#")).allowed
    assert len(authority.batches) == 2


async def test_kernel_call_is_execute_on_the_kernel(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery)
    assert (await authorizer.authorize(connection, WRITE, b"kernel/zscore")).rule_id == "k"
    assert not (await authorizer.authorize(connection, WRITE, b"kernel/other")).allowed


async def test_unusable_topic_is_denied_with_the_reason(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    decision = await authorizer.authorize(connection, WRITE, b"\xff")
    assert decision.outcome is Outcome.DENY
    assert decision.reason == "error in the topic: a topic is not UTF-8"
    assert authority.batches == []


async def test_any_request_of_the_principal_can_be_asked(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    request = AccessRequest(SENSOR, EXECUTE, Resource.kernel("zscore"))
    assert (await authorizer.authorize_request(connection, request)).allowed
    assert (await authorizer.authorize_request(connection, request)).allowed
    assert len(authority.batches) == 1
    ruled_out = AccessRequest(SENSOR, Operation.ADMIN, Resource.parse("acl.rules"))
    assert not (await authorizer.authorize_request(connection, ruled_out)).allowed
    assert len(authority.batches) == 1
    with pytest.raises(PrincipalMismatch, match="`viewer` on the connection of `sensor`"):
        await authorizer.authorize_request(
            connection, AccessRequest(VIEWER, READ, Resource.topic("telemetry/cpu"))
        )


async def test_decision_that_ends_by_itself_is_in_l1_until_then(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = RuleAuthority(RULES)
    authority.judge = lambda requests: Answers(
        5, tuple(Decision(Outcome.ALLOW, "t", "", 5, valid_until=100.0) for _ in requests)
    )
    ended: list[float] = []
    authorizer = an_authorizer(authority, clock=lambda: 98.5 + trio.current_time())
    authorizer.attach(lambda: ended.append(trio.current_time()))
    in_step(authority, authorizer)
    await nursery.start(authorizer.run)
    connection = authorizer.open(SENSOR)
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert connection.writes == {b"telemetry/cpu": decision}
    await trio.sleep(1.4)
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is decision
    assert not ended
    await trio.sleep(0.2)
    assert connection.writes == {}
    assert ended == [pytest.approx(1.5)]
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is None


async def test_clock_that_is_set_ends_decisions_within_a_second_and_at_once_where_it_is_asked(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = RuleAuthority(RULES)
    authority.judge = lambda requests: Answers(
        5, tuple(Decision(Outcome.ALLOW, "t", "", 5, valid_until=1e6) for _ in requests)
    )
    now = 0.0
    authorizer = an_authorizer(authority, clock=lambda: now)
    in_step(authority, authorizer)
    await nursery.start(authorizer.run)
    connection = authorizer.open(SENSOR)
    await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    now = 1e6
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is None
    await trio.sleep(CLOCK_LOOK_S + 0.1)
    assert connection.writes == {}


async def test_decision_that_ends_by_itself_stays_out_of_l1_where_nobody_sees_to_its_end() -> None:
    authorizer = an_authorizer(RuleAuthority(RULES))
    in_step(RuleAuthority(RULES), authorizer)
    connection = authorizer.open(SENSOR)
    short = Decision(Outcome.ALLOW, "t", "", 5, valid_until=100.0)
    authorizer._remember(connection, WRITE, b"a", short)
    assert len(connection) == 0


# -- fail closed -----------------------------------------------------------------------------


async def test_nothing_is_allowed_before_the_first_policy(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = RuleAuthority(RULES)
    authorizer = an_authorizer(authority)
    await nursery.start(authorizer.run)
    connection = authorizer.open(SENSOR)
    assert authorizer.epoch == -1
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert decision.reason == "no policy was applied yet"
    authorizer.withdraw("no contact")
    authorizer.restore()
    assert not (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed
    assert authority.batches == []
    in_step(authority, authorizer)
    assert authorizer.refusal is None
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed


async def test_withdrawn_contact_denies_at_once_what_l1_had_allowed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    writes = connection.writes
    await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    authorizer.withdraw("no heartbeat for 3 seconds")
    assert authorizer.refusal == "no heartbeat for 3 seconds"
    assert b"telemetry/cpu" not in writes
    denied = authorizer.check(connection, WRITE, b"telemetry/cpu")
    assert denied is not None
    assert denied.reason == "no heartbeat for 3 seconds"
    assert writes[b"telemetry/cpu"] is denied
    request = AccessRequest(SENSOR, EXECUTE, Resource.kernel("zscore"))
    assert not (await authorizer.authorize_request(connection, request)).allowed
    in_step(authority, authorizer)
    assert not (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed
    authorizer.restore()
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed


async def test_withdrawal_answers_those_who_wait(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    authority.gate = trio.Event()
    decisions: list[Decision] = []

    async def asker() -> None:
        decisions.append(await authorizer.authorize(connection, WRITE, b"telemetry/cpu"))

    nursery.start_soon(asker)
    await trio.testing.wait_all_tasks_blocked()
    assert authorizer.sizes().waiting_questions == 1
    authorizer.withdraw("gone")
    await trio.testing.wait_all_tasks_blocked()
    assert [decision.reason for decision in decisions] == ["gone"]


async def test_unavailable_authority_denies_and_nothing_is_kept(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    authority.failure = AuthorityUnavailable("connection reset")
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert decision.reason == "the controller is unavailable: connection reset"
    assert connection.writes == {}
    authority.failure = None
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed


async def test_question_without_an_answer_is_denied_after_the_deadline(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(
        nursery, limits=CacheLimits(question_deadline_s=2.0)
    )
    authority.gate = trio.Event()
    start = trio.current_time()
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert not decision.allowed
    assert "within 2 seconds" in decision.reason
    assert math.isclose(trio.current_time() - start, 2.0)
    assert connection.writes == {}


async def test_authorizer_that_does_not_run_denies_after_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    authority = RuleAuthority(RULES)
    authorizer = an_authorizer(authority)
    in_step(authority, authorizer)
    decision = await authorizer.authorize(authorizer.open(SENSOR), WRITE, b"telemetry/cpu")
    assert "no answer from the controller within 2 seconds" in decision.reason
    assert authorizer.stats.timeouts == 1


async def test_questions_beyond_the_bound_are_denied_with_the_reason(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(
        nursery, limits=CacheLimits(max_waiting_questions=1)
    )
    authority.gate = trio.Event()
    nursery.start_soon(authorizer.authorize, connection, WRITE, b"telemetry/one")
    await trio.testing.wait_all_tasks_blocked()
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/two")
    assert decision.reason == "too many questions are waiting for the controller"
    authority.gate.set()


# -- epochs ----------------------------------------------------------------------------------


async def test_policy_change_takes_effect_on_the_very_next_question(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    writes, generation = connection.writes, connection.generation
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed
    authority.rules = authority.rules.with_rule(a_rule("stop", resource="topic.**", effect="deny"))
    assert authorizer.apply_policy(6, None, reset=False)
    assert authorizer.epoch == 6
    assert connection.writes is writes
    assert writes == {}
    assert connection.generation == generation + 1
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert (decision.allowed, decision.rule_id, decision.epoch) == (False, "stop", 6)


async def test_grant_that_is_added_is_no_longer_ruled_out(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    assert not (await authorizer.authorize(connection, WRITE, b"new/x")).allowed
    authority.rules = authority.rules.with_rule(a_rule("n", resource="topic.new.*"))
    authorizer.apply_policy(6, [("sensor", "topic.new.*")], reset=False)
    assert (await authorizer.authorize(connection, WRITE, b"new/x")).rule_id == "n"


async def test_grants_that_repeat_the_epoch_also_flush(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authority = RuleAuthority(RULES)
    authorizer = an_authorizer(authority)
    authorizer.apply_policy(5, [], reset=True)
    await nursery.start(authorizer.run)
    connection = authorizer.open(SENSOR)
    assert not (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed
    authorizer.apply_policy(5, [("sensor", "topic.telemetry.**")], reset=False)
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed


async def test_epochs_never_go_back(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery)
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert not authorizer.apply_policy(4, [], reset=True)
    assert authorizer.epoch == 5
    assert connection.writes == {b"telemetry/cpu": decision}
    assert authorizer.stats.policies_refused == 1


async def test_change_after_a_gap_suspends_the_negative_filter_until_a_reset(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    assert authorizer.sizes().l3_grants == 3
    authority.rules = RULES.with_rule(a_rule("n", resource="topic.new"), epoch=6)
    authority.rules = authority.rules.with_rule(a_rule("m", resource="topic.more"))
    authorizer.apply_policy(7, [("sensor", "topic.more")], reset=False)
    assert authorizer.stats.policy_gaps == 1
    assert authorizer.sizes().l3_grants == 0
    assert (await authorizer.authorize(connection, WRITE, b"new")).allowed
    authorizer.apply_policy(8, [("sensor", "topic.other")], reset=False)
    assert authorizer.check(connection, WRITE, b"elsewhere") is None
    authority.rules = RuleSet(authority.rules.rules, epoch=8)
    in_step(authority, authorizer)
    assert authorizer.check(connection, WRITE, b"elsewhere") is not None


@pytest.mark.parametrize("reset", [True, False])
async def test_grant_that_cannot_be_read_suspends_the_negative_filter(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, *, reset: bool
) -> None:
    authorizer, _, connection = await running(nursery)
    assert authorizer.apply_policy(6, [("sensor", "from.the.future")], reset=reset)
    assert authorizer.check(connection, WRITE, b"elsewhere") is None
    assert authorizer.stats.policy_gaps == 1


async def test_reset_with_unknown_grants_rules_nothing_out(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery)
    authorizer.apply_policy(6, None, reset=True)
    assert authorizer.check(connection, WRITE, b"elsewhere") is None


async def test_answer_of_an_older_epoch_is_not_used_but_asked_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    authority.gate = trio.Event()
    decisions: list[Decision] = []

    async def asker() -> None:
        decisions.append(await authorizer.authorize(connection, WRITE, b"telemetry/cpu"))

    # the answer is decided by epoch 5 while this broker applies epoch 6
    old, authority.judge = authority.rules, authority.decide_all
    nursery.start_soon(asker)
    await trio.testing.wait_all_tasks_blocked()
    authorizer.apply_policy(6, None, reset=False)
    authority.judge = lambda requests: Answers(5, RuleAuthority(old).decide_all(requests).decisions)
    gate, authority.gate = authority.gate, trio.Event()
    gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert decisions == []
    assert connection.writes == {}
    assert authorizer.stats.stale_answers == 1
    authority.rules = old.with_rule(a_rule("stop", resource="topic.**", effect="deny"))
    authority.judge = authority.decide_all
    authority.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert [(d.allowed, d.rule_id, d.epoch) for d in decisions] == [(False, "stop", 6)]
    assert len(authority.batches) == 2


async def test_answer_overtaken_between_landing_and_use_is_asked_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)

    def decide_and_push(requests: object) -> Answers:
        # the push arrives after the decision was made and before whoever asked runs again
        answers = authority.decide_all(authority.batches[-1])
        if authority.rules.epoch == 5:
            authority.rules = RuleSet([], epoch=6)
            authorizer.apply_policy(6, None, reset=False)
        return answers

    authority.judge = decide_and_push
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert (decision.allowed, decision.epoch) == (False, 6)
    assert authorizer.stats.stale_answers == 1


async def test_authority_that_stays_behind_gets_a_denial_after_three_questions(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    authorizer.apply_policy(6, None, reset=False)
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert not decision.allowed
    assert "3 times by an older policy than epoch 6" in decision.reason
    assert len(authority.batches) == 3
    assert authorizer.stats.stale_answers == 3
    assert connection.writes == {}


async def test_answer_of_a_newer_epoch_is_used_once_and_not_kept(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, authority, connection = await running(nursery)
    authority.rules = authority.rules.with_rule(a_rule("stop", resource="topic.**", effect="deny"))
    decision = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert (decision.allowed, decision.epoch) == (False, 6)
    assert connection.writes == {}
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is None
    assert authorizer.stats.early_answers == 1
    authorizer.apply_policy(6, None, reset=False)
    again = await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    assert connection.writes == {b"telemetry/cpu": again}


# -- bounds and sizes ------------------------------------------------------------------------


async def test_closed_connection_is_forgotten_and_holds_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery)
    await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    connection.close()
    connection.close()
    assert authorizer.sizes().connections == 0
    assert authorizer.check(connection, WRITE, b"telemetry/cpu") is not None
    assert connection.writes == {}


async def test_connection_whose_principal_was_evicted_from_l2_goes_on(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(
        nursery, limits=CacheLimits(l2_principals_per_shard=1)
    )
    evicted = connection.table
    # Which principals share a shard differs from process to process: one in 32 meets this one.
    for number in range(10_000):
        if evicted.evicted:
            break
        authorizer.open(Principal(f"p{number}")).close()
    assert evicted.evicted
    assert (await authorizer.authorize(connection, WRITE, b"telemetry/cpu")).allowed
    assert connection.table is not evicted
    assert authorizer.check(authorizer.open(SENSOR), WRITE, b"telemetry/cpu") is not None


async def test_topic_that_l1_is_about_to_forget_is_still_an_l1_answer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery, limits=CacheLimits(l1_entries=4))
    first = await authorizer.authorize(connection, WRITE, b"telemetry/0")
    for number in (1, 2):
        await authorizer.authorize(connection, WRITE, b"telemetry/%d" % number)
    assert b"telemetry/0" not in connection.writes
    assert authorizer.check(connection, WRITE, b"telemetry/0") is first
    assert connection.writes[b"telemetry/0"] is first
    assert (authorizer.stats.l1_allow, authorizer.stats.l2_allow) == (1, 0)


async def test_sizes_say_what_is_held(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    authorizer, _, connection = await running(nursery)
    await authorizer.authorize(connection, WRITE, b"telemetry/cpu")
    sizes = authorizer.sizes()
    assert (sizes.connections, sizes.l1_entries, sizes.l2_principals, sizes.l2_entries) == (
        1,
        1,
        1,
        1,
    )
    assert sizes.l2_bytes > 0
    assert sizes.l3_grants == 3
    assert sizes.l3_bytes > 0
    assert sizes.waiting_questions == 0
