from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from certs.settings import SettingsError
from cli.policy_file import (
    Plan,
    RuleChange,
    failures_of,
    load_policy,
    plan_of,
    render_rules,
    sentences,
)
from controller.commands import RuleDraft
from controller.config import PolicyFile, PolicyTest
from controller.documents import Revision

READS = RuleDraft(id="reads", principal="viewer", resource="topic.a.**", operations="read,write")
DENIES = RuleDraft(
    id="denies", principal="*", resource="topic.a.b", operations="read", effect="deny"
)
OLD = RuleDraft(id="old", principal="eve", resource="topic.**", operations="read", enabled=False)


RULE = "{id='x', principal='a', resource='topic.a', operations='read'}"


def planned(
    *rules: RuleDraft,
    current: tuple[RuleDraft, ...] = (),
    mode: str = "deny-overrides",
    keep: bool = False,
) -> Plan:
    policy = PolicyFile(rules=rules, mode=mode)
    return plan_of(policy, current, mode="deny-overrides", epoch=7, keep=keep)


def test_plan_adds_changes_and_deletes_by_id() -> None:
    wider = msgspec.structs.replace(READS, resource="topic.**")
    found = planned(DENIES, wider, current=(READS, OLD))
    assert found.changes == (
        RuleChange(None, DENIES),
        RuleChange(OLD, None),
        RuleChange(READS, wider),
    )
    assert found.revision() == Revision(delete=("old",), put=(DENIES, wider), expected_epoch=7)
    assert sentences(found) == [
        "+ denies: deny * read topic.a.b",
        "- old: allow eve read topic.** (disabled)",
        '~ reads: resource: "topic.a.**" -> "topic.**"',
    ]


def test_plan_of_what_is_so_already_is_empty_however_operations_are_written() -> None:
    written = msgspec.structs.replace(READS, operations="write, read")
    found = planned(written, current=(READS,))
    assert found.empty
    assert (found.unchanged, sentences(found)) == (1, [])


def test_plan_leaves_others_alone_if_told_to() -> None:
    assert planned(READS, current=(READS, OLD), keep=True).empty
    assert not planned(READS, current=(READS, OLD)).empty


def test_plan_changes_the_mode() -> None:
    found = planned(READS, current=(READS,), mode="first-applicable")
    assert not found.empty
    assert found.revision() == Revision(mode="first-applicable", expected_epoch=7)
    assert sentences(found) == ["~ mode: deny-overrides -> first-applicable"]


def test_tests_are_decided_by_the_policy_as_it_would_be() -> None:
    def a_test(resource: str, expect: str, rule: str = "") -> PolicyTest:
        return msgspec.convert(
            {
                "principal": "viewer",
                "operation": "read",
                "resource": resource,
                "expect": expect,
                "rule": rule,
            },
            PolicyTest,
        )

    policy = PolicyFile(
        rules=(READS, DENIES),
        tests=(
            a_test("topic.a.c", "allow", "reads"),
            a_test("topic.a.b", "deny", "denies"),
            a_test("topic.a.b", "allow"),
            a_test("topic.x", "deny", "denies"),
        ),
    )
    plan = plan_of(policy, [OLD], mode="deny-overrides", epoch=1, keep=False)
    assert failures_of(policy, plan, [OLD], now=0.0) == [
        "test 3: viewer read topic.a.b: allow was expected, deny by `denies` is what it would be",
        "test 4: viewer read topic.x: deny by `denies` was expected, deny is what it would be",
    ]


def test_rules_come_back_from_the_file_they_were_written_to(tmp_path: Path) -> None:
    named = msgspec.structs.replace(READS, name='with "quotes"', description="a\nb", priority=-3)
    path = tmp_path / "policy.toml"
    path.write_text(render_rules([named, DENIES, OLD], "only-one-applicable"))
    assert load_policy(path) == PolicyFile(rules=(named, DENIES, OLD), mode="only-one-applicable")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('mode = "majority"\nrules = []', "no combination mode"),
        ("rules = [{principal='a', resource='topic.a', operations='read'}]", "needs an `id`"),
        (
            f"rules = [{RULE}, {RULE}]",
            "is there twice",
        ),
        ("rules = [{id='x', principal='a', resource='topic.a', operations='fly'}]", "no operation"),
        (
            "rules = []\ntests = [{principal='a', operation='read', resource='moon', expect='deny'}]",
            "test 1:",
        ),
        (
            "rules = []\ntests = [{principal='a', operation='read', resource='topic.a', expect='no'}]",
            "expect",
        ),
        ("ruls = []", "rules"),
    ],
)
def test_wrong_file_is_refused_with_what_is_wrong(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        load_policy(path)
