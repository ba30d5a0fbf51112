"""The state machine: deterministic, exactly once, never raising."""

from __future__ import annotations

import msgspec
import pytest

from acl.combine import Combination
from acl.decide import decide
from acl.model import AccessRequest, Operation, Principal, Resource
from controller import state as state_module
from controller.commands import (
    AddRule,
    Bootstrap,
    Command,
    DeleteRule,
    Revise,
    RuleDraft,
    Verdict,
    encode_command,
)
from controller.state import Applied, PolicyChange, State

DRAFT = RuleDraft(principal="sensor", resource="topic.telemetry.**", operations="write")
WRITE = AccessRequest(Principal("sensor"), Operation.WRITE, Resource.topic("telemetry/cpu"))


def add(number: int, draft: RuleDraft = DRAFT, *, by: str = "admin", at: float = 1.0) -> AddRule:
    return AddRule(request_id=f"q-{number}", at=at, by=by, rule=draft, new_id=f"r-{number}")


def delete(number: int, rule_id: str) -> DeleteRule:
    return DeleteRule(request_id=f"q-{number}", at=1.0, by="admin", rule_id=rule_id)


def run(state: State, command: Command) -> Applied:
    return state.apply(encode_command(command))


def test_added_rule_decides_and_tells_brokers_its_grant() -> None:
    state = State()
    result, change = run(state, add(1))
    assert (result.verdict, result.epoch, result.rule_id) == (Verdict.APPLIED, 1, "r-1")
    assert change == PolicyChange(1, (("sensor", "topic.telemetry.**"),))
    assert decide(state.rules, WRITE).allowed
    assert decide(state.rules, WRITE).epoch == 1


def test_kept_rule_says_who_added_it_and_when() -> None:
    state = State()
    run(state, add(1, msgspec.structs.replace(DRAFT, operations="all", name="n"), at=12.5))
    record = state.record("r-1")
    assert record is not None
    assert (record.created_by, record.created_at, record.created_epoch) == ("admin", 12.5, 1)
    assert record.name == "n"
    assert "all" not in record.operations
    assert state.record("r-2") is None


@pytest.mark.parametrize(
    "draft",
    [
        msgspec.structs.replace(DRAFT, effect="deny"),
        msgspec.structs.replace(DRAFT, enabled=False),
    ],
)
def test_rule_that_grants_nothing_adds_no_grant(draft: RuleDraft) -> None:
    _, change = run(State(), add(1, draft))
    assert change == PolicyChange(1, ())


def test_deleted_rule_decides_no_more() -> None:
    state = State()
    run(state, add(1))
    result, change = run(state, delete(2, "r-1"))
    assert result.verdict is Verdict.APPLIED
    assert change == PolicyChange(2, ())
    assert not decide(state.rules, WRITE).allowed
    assert state.record("r-1") is None


def test_deleting_what_is_not_there_changes_nothing() -> None:
    state = State()
    result, change = run(state, delete(1, "nobody"))
    assert (result.verdict, result.epoch, change) == (Verdict.NOT_FOUND, 0, None)


def test_rule_with_a_taken_id_is_a_conflict() -> None:
    state = State()
    named = msgspec.structs.replace(DRAFT, id="mine")
    run(state, add(1, named))
    result, change = run(state, add(2, named))
    assert (result.verdict, result.epoch, change) == (Verdict.CONFLICT, 1, None)
    assert "delete it first" in result.detail


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (msgspec.structs.replace(DRAFT, operations="fly"), "no operation"),
        (msgspec.structs.replace(DRAFT, effect="maybe"), "neither `allow` nor `deny`"),
        (msgspec.structs.replace(DRAFT, resource="nonsense"), "`nonsense`"),
        (msgspec.structs.replace(DRAFT, id="not an id"), "rule id"),
        (msgspec.structs.replace(DRAFT, priority=10**7), "priority"),
    ],
)
def test_invalid_rule_is_refused_and_changes_nothing(draft: RuleDraft, message: str) -> None:
    state = State()
    result, change = run(state, add(1, draft))
    assert (result.verdict, result.epoch, change) == (Verdict.INVALID, 0, None)
    assert message in result.detail
    assert len(state.rules) == 0


def test_repeated_request_gets_the_first_answer() -> None:
    state = State()
    first, _ = run(state, add(1))
    again, change = run(
        state, AddRule(request_id="q-1", at=99.0, by="admin", rule=DRAFT, new_id="r-77")
    )
    assert again == msgspec.structs.replace(first, repeated=True)
    assert change is None
    assert len(state.rules) == 1


@pytest.mark.parametrize(
    "other",
    [add(1, by="mallory"), add(1, msgspec.structs.replace(DRAFT, principal="x")), delete(1, "r-1")],
)
def test_request_id_of_something_else_is_a_conflict(other: Command) -> None:
    state = State()
    run(state, add(1))
    result, change = run(state, other)
    assert (result.verdict, change) == (Verdict.CONFLICT, None)
    assert result.rule_id == ""
    assert len(state.rules) == 1


@pytest.mark.parametrize("request_id", ["", "x" * 65])
def test_request_id_is_bounded(request_id: str) -> None:
    state = State()
    result, _ = run(state, DeleteRule(request_id=request_id, at=1.0, by="a", rule_id="r"))
    assert result.verdict is Verdict.INVALID
    assert state.remembered == 0


def test_remembered_requests_are_bounded_oldest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "MAX_REMEMBERED_REQUESTS", 3)
    state = State()
    for number in range(1, 6):
        run(state, delete(number, "nobody"))
    assert state.remembered == 3
    assert run(state, delete(5, "nobody")).result.repeated
    assert not run(state, delete(1, "nobody")).result.repeated


def test_rules_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "MAX_RULES", 2)
    state = State()
    verdicts = [run(state, add(number)).result.verdict for number in range(1, 4)]
    assert verdicts == [Verdict.APPLIED, Verdict.APPLIED, Verdict.CONFLICT]


def bootstrap(*drafts: RuleDraft, number: int = 1) -> Bootstrap:
    return Bootstrap(request_id=f"b-{number}", at=1.0, by="bootstrap", rules=drafts)


def test_bootstrap_fills_an_empty_state_once() -> None:
    state = State()
    named = msgspec.structs.replace(DRAFT, id="named", resource="kernel.zscore")
    result, change = run(state, bootstrap(DRAFT, named))
    assert (result.verdict, result.epoch) == (Verdict.APPLIED, 1)
    assert change == PolicyChange(1, state.rules.grants)
    assert [rule.id for rule in state.rules.rules] == ["bootstrap-1", "named"]
    result, change = run(state, bootstrap(DRAFT, number=2))
    assert (result.verdict, result.epoch, change) == (Verdict.UNCHANGED, 1, None)


@pytest.mark.parametrize(
    "drafts",
    [
        (),
        (DRAFT, msgspec.structs.replace(DRAFT, operations="fly")),
        (msgspec.structs.replace(DRAFT, id="a"),) * 2,
    ],
)
def test_bootstrap_is_applied_whole_or_not_at_all(drafts: tuple[RuleDraft, ...]) -> None:
    state = State()
    result, change = run(state, bootstrap(*drafts))
    assert (result.verdict, result.epoch, change) == (Verdict.INVALID, 0, None)
    assert len(state.rules) == 0


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x81\xa4type\xa9format_c:", b"x" * 1000])
def test_garbage_in_the_log_is_answered_not_raised(data: bytes) -> None:
    state = State()
    result, change = state.apply(data)
    assert (result.verdict, change) == (Verdict.INVALID, None)
    assert state.applied == 1


def test_bug_while_applying_is_answered_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = State()
    run(state, add(1))

    def explode(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(state_module, "_record_of", explode)
    result, change = run(state, add(2))
    assert (result.verdict, change) == (Verdict.INVALID, None)
    assert (state.epoch, len(state.rules)) == (1, 1)


def test_chain_tells_members_apart() -> None:
    one, two = State(), State()
    for number in range(5):
        run(one, add(number))
        run(two, add(number))
    assert one.chain == two.chain != State().chain
    run(one, add(9))
    run(two, add(9, at=2.0))
    assert one.applied == two.applied
    assert one.chain != two.chain


def test_pages_are_ordered_and_complete() -> None:
    state = State()
    for number in (3, 1, 2):
        run(state, add(number))
    first = state.page(after="", limit=2)
    assert [record.id for record in first] == ["r-1", "r-2"]
    assert [record.id for record in state.page(after="r-2", limit=2)] == ["r-3"]


def test_snapshot_restores_everything() -> None:
    state = State()
    for number in range(10):
        run(state, add(number))
    run(state, delete(20, "r-3"))
    copy = State()
    copy.restore(state.dump())
    assert copy.dump() == state.dump()
    assert (copy.epoch, copy.applied, copy.chain) == (state.epoch, state.applied, state.chain)
    assert copy.rules.rules == state.rules.rules
    for command in (add(4), add(30)):
        assert run(copy, command).result == run(state, command).result
    assert run(copy, add(4)).result.repeated
    run(state, add(4))
    assert copy.chain == state.chain


@pytest.mark.parametrize("image", [b"", b"\x80", b"garbage"])
def test_snapshot_that_is_none_is_refused_and_changes_nothing(image: bytes) -> None:
    state = State()
    run(state, add(1))
    before = state.dump()
    with pytest.raises(ValueError, match="not readable"):
        state.restore(image)
    assert state.dump() == before


def test_snapshot_of_another_format_is_refused() -> None:
    image = msgspec.msgpack.decode(State().dump())
    image["format"] = 2
    with pytest.raises(ValueError, match="format 2"):
        State().restore(msgspec.msgpack.encode(image))


# -- revisions -------------------------------------------------------------------------------


def revise(number: int, **fields: object) -> Revise:
    made = {"request_id": f"v-{number}", "at": 9.0, "by": "eve", **fields}
    return msgspec.convert(made, Revise)


def named(rule_id: str, **fields: object) -> dict[str, object]:
    return {**msgspec.structs.asdict(DRAFT), "id": rule_id, **fields}


def test_revision_changes_many_rules_and_the_mode_in_one_epoch() -> None:
    state = State()
    for number, rule_id in enumerate("abc"):
        run(state, add(number, msgspec.structs.replace(DRAFT, id=rule_id)))
    put = [named("b", resource="topic.b"), named("d", effect="deny"), named("c")]
    result, change = run(state, revise(1, delete=["a"], put=put, mode="first-applicable"))
    assert (result.verdict, result.epoch) == (Verdict.APPLIED, 4)
    assert result.detail == "2 put, 1 deleted"
    assert change == PolicyChange(4, (("sensor", "topic.b"),))
    assert [record.id for record in state.page(after="", limit=9)] == ["b", "c", "d"]
    assert state.rules.mode is Combination.FIRST_APPLICABLE
    replaced, kept, new = (state.record(rule_id) for rule_id in "bcd")
    assert replaced is not None
    assert kept is not None
    assert new is not None
    assert (replaced.created_by, replaced.created_epoch) == ("admin", 2)
    assert (replaced.changed_by, replaced.changed_at, replaced.changed_epoch) == ("eve", 9.0, 4)
    assert kept.changed_by == "", "it is as it was"
    assert (new.created_by, new.changed_by) == ("eve", "")


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"expected_epoch": 0}, Verdict.CONFLICT),
        ({"delete": ["x"], "put": [named("b")]}, Verdict.NOT_FOUND),
        ({"put": [named("b"), named("b")]}, Verdict.INVALID),
        ({"delete": ["a"], "put": [named("a")]}, Verdict.INVALID),
        ({"put": [named("")]}, Verdict.INVALID),
        ({"put": [named("b"), named("c", operations="fly")]}, Verdict.INVALID),
        ({"put": [named("b")], "mode": "majority"}, Verdict.INVALID),
        ({}, Verdict.UNCHANGED),
        ({"put": [named("a")], "mode": "deny-overrides", "expected_epoch": 1}, Verdict.UNCHANGED),
    ],
)
def test_revision_that_cannot_be_made_changes_nothing(
    fields: dict[str, object], verdict: Verdict
) -> None:
    state = State()
    run(state, add(1, msgspec.structs.replace(DRAFT, id="a")))
    before = (state.rules.rules, state.rules.mode, state.epoch, state.page(after="", limit=9))
    result, change = run(state, revise(1, **fields))
    assert result.verdict is verdict
    assert result.detail
    assert change is None
    assert (
        state.rules.rules,
        state.rules.mode,
        state.epoch,
        state.page(after="", limit=9),
    ) == before


def test_revision_does_not_make_more_rules_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_module, "MAX_RULES", 2)
    state = State()
    assert run(state, revise(1, put=[named("a"), named("b")])).result.verdict is Verdict.APPLIED
    assert run(state, revise(2, put=[named("c")])).result.verdict is Verdict.CONFLICT
    swapped = run(state, revise(3, delete=["a"], put=[named("c"), named("b", priority=1)]))
    assert swapped.result.verdict is Verdict.APPLIED


def test_snapshot_holds_mode_and_history() -> None:
    state, later = State(), State()
    run(state, revise(1, put=[named("a")], mode="allow-overrides"))
    run(state, revise(2, put=[named("a", priority=2)]))
    later.restore(state.dump())
    assert later.rules.mode is Combination.ALLOW_OVERRIDES
    assert later.record("a") == state.record("a")
    assert later.dump() == state.dump()
