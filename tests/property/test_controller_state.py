"""The replicated state under any commands: replay, snapshots and members agree; what brokers hear is sound."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from acl.combine import Combination
from acl.model import Effect
from controller.commands import (
    AddRule,
    Bootstrap,
    Command,
    DeleteRule,
    Revise,
    RuleDraft,
    SetMode,
    Verdict,
    encode_command,
)
from controller.state import State

IDS = st.sampled_from(["", "a", "b", "c", "not an id"])
DRAFTS = st.builds(
    RuleDraft,
    id=IDS,
    principal=st.sampled_from(["sensor", "s*", "*", "x y"]),
    resource=st.sampled_from(["topic.a.**", "topic.*.b", "kernel.z", "moon.x", "topic"]),
    operations=st.sampled_from(["read", "read,write", "all", "fly", ""]),
    effect=st.sampled_from(["allow", "deny", "maybe"]),
    priority=st.integers(-3, 3),
    enabled=st.booleans(),
)
REQUESTS = st.sampled_from([f"q-{n}" for n in range(12)] + [""])
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        AddRule,
        request_id=REQUESTS,
        at=st.floats(0, 9),
        by=st.sampled_from(["admin", "eve"]),
        rule=DRAFTS,
        new_id=st.sampled_from(["r-1", "r-2", "r-3"]),
    ),
    st.builds(DeleteRule, request_id=REQUESTS, at=st.just(1.0), by=st.just("admin"), rule_id=IDS),
    st.builds(
        SetMode,
        request_id=REQUESTS,
        at=st.just(1.0),
        by=st.just("admin"),
        mode=st.sampled_from([*Combination, "majority", ""]).map(str),
    ),
    st.builds(
        Revise,
        request_id=REQUESTS,
        at=st.just(1.0),
        by=st.just("admin"),
        delete=st.lists(IDS, max_size=2).map(tuple),
        put=st.lists(DRAFTS, max_size=3).map(tuple),
        mode=st.none() | st.sampled_from([*Combination, "majority"]).map(str),
        expected_epoch=st.none() | st.integers(0, 3),
    ),
    st.builds(
        Bootstrap,
        request_id=REQUESTS,
        at=st.just(1.0),
        by=st.just("boot"),
        rules=st.lists(DRAFTS, max_size=3).map(tuple),
    ),
)
LOGS = st.lists(COMMANDS.map(encode_command) | st.binary(max_size=20), max_size=30)


@settings(deadline=None)
@given(LOGS)
def test_members_that_apply_the_same_log_agree(log: list[bytes]) -> None:
    one, two = State(), State()
    assert [one.apply(entry) for entry in log] == [two.apply(entry) for entry in log]
    assert one.dump() == two.dump()


@settings(deadline=None)
@given(LOGS, st.integers(0, 30))
def test_snapshot_and_rest_of_the_log_equal_the_whole_log(log: list[bytes], at: int) -> None:
    whole, early, late = State(), State(), State()
    for entry in log:
        whole.apply(entry)
    for entry in log[:at]:
        early.apply(entry)
    late.restore(early.dump())
    for entry in log[at:]:
        late.apply(entry)
    assert late.dump() == whole.dump()
    assert late.rules.rules == whole.rules.rules


@settings(deadline=None)
@given(LOGS)
def test_epoch_grows_by_one_exactly_when_brokers_are_told(log: list[bytes]) -> None:
    state = State()
    for entry in log:
        before, rules = state.epoch, state.rules
        result, change = state.apply(entry)
        assert result.epoch <= state.epoch
        if change is None:
            assert (state.epoch, state.rules) == (before, rules)
        else:
            assert change.epoch == state.epoch == before + 1 == result.epoch
            assert result.verdict is Verdict.APPLIED


@settings(deadline=None)
@given(LOGS)
def test_grants_told_to_brokers_always_cover_the_rules(log: list[bytes]) -> None:
    state, told = State(), set[tuple[str, str]]()
    for entry in log:
        change = state.apply(entry).change
        if change is not None:
            told.update(change.grants)
        assert set(state.rules.grants) <= told
        assert set(state.rules.grants) == {
            (r.principal, r.resource)
            for r in state.rules.rules
            if r.enabled and r.effect is Effect.ALLOW
        }


@given(st.lists(COMMANDS, max_size=15))
@settings(max_examples=50, deadline=None)
def test_every_command_repeated_at_once_changes_nothing_more(commands: list[Command]) -> None:
    once, twice = State(), State()
    for command in commands:
        entry = encode_command(command)
        first = once.apply(entry).result
        assert twice.apply(entry).result == first
        again, change = twice.apply(entry)
        assert change is None
        assert again.verdict is first.verdict or first.rule_id == again.rule_id
    assert once.rules.rules == twice.rules.rules
    assert once.epoch == twice.epoch
