"""The policy as the servers see it."""

from __future__ import annotations

import msgspec
import trio
import trio.testing

from acl.model import AccessRequest, Operation, Principal, Resource
from controller.authority import PolicyAuthority
from controller.brokers import BrokerSession, BrokerTable
from controller.commands import RuleDraft, Verdict
from controller.state import State
from controller.wire import Question, question_of
from tests.unit.controller.parts import build_parts

DRAFT = RuleDraft(principal="sensor", resource="topic.telemetry.**", operations="write")
WRITE = AccessRequest(Principal("sensor"), Operation.WRITE, Resource.topic("telemetry/cpu"))


def build() -> tuple[PolicyAuthority, State, BrokerTable]:
    parts = build_parts()
    return parts.authority, parts.state, parts.brokers


async def test_authority_decides_by_the_rules_now() -> None:
    authority, _, _ = build()
    assert not authority.decide(WRITE).allowed
    change = await authority.add_rule(DRAFT, by="admin")
    assert change.result.verdict is Verdict.APPLIED
    assert change.result.rule_id.startswith("r-")
    decision = authority.decide(WRITE)
    assert decision.allowed
    assert len(decision.id) == 14
    assert decision.id.startswith("d-")
    assert authority.epoch == authority.rules.epoch == 1
    await authority.delete_rule(change.result.rule_id, by="admin")
    assert not authority.decide(WRITE).allowed


async def test_authority_decides_questions_by_one_snapshot() -> None:
    authority, _, _ = build()
    before = authority.rules
    await authority.add_rule(DRAFT, by="admin")
    question = question_of(WRITE)
    assert not authority.decide_question(before, question).allowed
    assert authority.decide_question(authority.rules, question).allowed


async def test_authority_denies_questions_it_cannot_read() -> None:
    authority, _, _ = build()
    await authority.add_rule(
        msgspec.structs.replace(DRAFT, principal="*", operations="all"), by="a"
    )
    good = question_of(WRITE)
    for bad in (
        Question("*", "service", 4, "topic", ("telemetry", "x")),
        Question("sensor", "god", 4, "topic", ("telemetry", "x")),
        Question("sensor", "service", 6, "topic", ("telemetry", "x")),
        Question("sensor", "service", 1 << 40, "topic", ("telemetry", "x")),
        Question("sensor", "service", -1, "topic", ("telemetry", "x")),
        Question("sensor", "service", 4, "moon", ("telemetry", "x")),
        Question("sensor", "service", 4, "topic", ()),
    ):
        decision = authority.decide_question(authority.rules, bad)
        assert not decision.allowed
        assert "error" in decision.reason
    assert authority.decide_question(authority.rules, good).allowed


async def test_authority_bootstraps_once() -> None:
    authority, state, _ = build()
    assert (await authority.bootstrap([DRAFT], by="bootstrap")).verdict is Verdict.APPLIED
    assert (await authority.bootstrap([DRAFT], by="bootstrap")).verdict is Verdict.UNCHANGED
    assert len(state.rules) == 1


async def test_change_waits_for_brokers_and_names_laggards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    authority, _, brokers = build()
    brokers.join(BrokerSession("b1", "peer", trio.CancelScope(), trusts_for_s=3.0))
    began = trio.current_time()
    change = await authority.add_rule(DRAFT, by="admin")
    assert change.laggards == ("b1",)
    assert trio.current_time() - began == 2.0


async def test_change_that_changed_nothing_does_not_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    authority, _, brokers = build()
    brokers.join(BrokerSession("b1", "peer", trio.CancelScope(), trusts_for_s=3.0))
    began = trio.current_time()
    change = await authority.delete_rule("nobody", by="admin")
    assert (change.result.verdict, change.laggards) == (Verdict.NOT_FOUND, ())
    assert trio.current_time() == began


async def test_change_with_the_same_request_id_is_made_once() -> None:
    authority, state, _ = build()
    first = await authority.add_rule(DRAFT, by="admin", request_id="mine")
    again = await authority.add_rule(DRAFT, by="admin", request_id="mine")
    assert again.result.rule_id == first.result.rule_id
    assert again.result.repeated
    assert len(state.rules) == 1
