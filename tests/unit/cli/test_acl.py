"""`stockade acl`: what an administrator sees; the commands themselves are run in tests/e2e/test_acl.py."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli.acl import COLUMNS, is_wanted, table_of, told
from controller.commands import Result, RuleDraft, RuleRecord, Verdict
from controller.documents import ChangeDocument


def a_rule(*, enabled: bool = True) -> RuleRecord:
    """A rule as the controller keeps it."""
    return RuleRecord(
        id="lab-reads",
        principal="lab-*",
        resource="topic.lab.**",
        operations="read",
        description="the [lab]",
        enabled=enabled,
        created_at=0.0,
        created_by="admin",
        created_epoch=3,
    )


def shown(*rules: RuleRecord) -> str:
    """The table as text."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table_of(rules))
    return console.export_text()


def test_table_names_every_column_and_shows_every_cell() -> None:
    text = shown(a_rule())
    assert all(column in text for column in COLUMNS)
    for cell in ("lab-reads", "lab-*", "topic.lab.**", "read", "allow"):
        assert cell in text


def test_table_shows_text_as_it_is() -> None:
    assert "the [lab]" in shown(a_rule())


def test_table_counts_the_rules() -> None:
    assert "2 rules" in shown(a_rule(), a_rule(enabled=False))


def change(*lagging: str) -> ChangeDocument:
    """A change that was applied."""
    return ChangeDocument(
        result=Result(verdict=Verdict.APPLIED, epoch=4, rule_id="lab-reads"),
        lagging_brokers=lagging,
        request_id="q-1",
    )


def test_change_is_told_with_its_epoch() -> None:
    assert told("added", change()) == "added `lab-reads` (epoch 4)"


def test_lagging_brokers_are_told_by_name() -> None:
    assert "not confirmed yet by `east`, `west`" in told("deleted", change("east", "west"))


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, True),
        ({"search": "LAB-*"}, True),
        ({"search": "nothing"}, False),
        ({"tag": "building"}, True),
        ({"tag": "build"}, False),
        ({"principal": "lab-1"}, True),
        ({"principal": "sensor"}, False),
        ({"principal": "lab-1", "tag": "other"}, False),
    ],
)
def test_rules_are_found_by_text_tag_and_principal(asked: dict[str, str], *, wanted: bool) -> None:
    rule = RuleDraft(
        id="reads", principal="lab-*", resource="topic.a", operations="read", tags=("building",)
    )
    assert is_wanted(rule, **{"search": "", "tag": "", "principal": "", **asked}) is wanted
