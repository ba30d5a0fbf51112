from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypedDict, cast

import pytest

from acl.errors import PatternInvalid
from acl.model import MAX_PRINCIPAL_BYTES, MAX_RESOURCE_BYTES, MAX_RESOURCE_SEGMENTS
from acl.patterns import parse_pattern, parse_principal_pattern, rank_of, topic_pattern
from acl.segments import split


class Case(TypedDict, total=False):
    pattern: str
    path: str
    owner: str
    matches: bool
    says: str
    reason: str


class Table(TypedDict):
    match: list[Case]
    refused: list[Case]


VECTORS = Path(__file__).parents[2] / "vectors" / "acl" / "patterns.toml"
TABLE = cast("Table", tomllib.loads(VECTORS.read_text()))


def test_table_is_as_long_as_promised() -> None:
    assert len(TABLE["match"]) + len(TABLE["refused"]) >= 60


@pytest.mark.parametrize(
    "case", TABLE["match"], ids=lambda case: f"{case['pattern']}~{case['path']}"
)
def test_pattern_conforms_to_the_table(case: Case) -> None:
    path = split(case["path"])
    matches = parse_pattern(case["pattern"]).matches(path, case.get("owner"))
    assert matches is case["matches"], case["reason"]


@pytest.mark.parametrize("case", TABLE["refused"], ids=lambda case: case["pattern"] or "empty")
def test_pattern_outside_the_grammar_is_refused_and_told_why(case: Case) -> None:
    with pytest.raises(PatternInvalid) as caught:
        parse_pattern(case["pattern"])
    assert case["says"] in str(caught.value), case["reason"]


def test_pattern_keeps_its_text() -> None:
    assert parse_pattern(r"topic.a\.b.*").text == r"topic.a\.b.*"


def test_pattern_is_bounded() -> None:
    parse_pattern("topic" + ".a" * MAX_RESOURCE_SEGMENTS)
    with pytest.raises(PatternInvalid, match="at most 128 segments"):
        parse_pattern("topic" + ".a" * (MAX_RESOURCE_SEGMENTS + 1))
    with pytest.raises(PatternInvalid, match="at most 65535 bytes"):
        parse_pattern("topic." + "a" * MAX_RESOURCE_BYTES)


def test_specificity_follows_the_order_of_the_grammar() -> None:
    texts = [
        "topic.a.b.c",
        "topic.a.b",
        "topic.a.{principal}x",
        "topic.a.b*",
        "topic.a.*.*",
        "topic.a.*",
        "topic.a.**",
        "topic.*.b",
        "topic.x*.*",
        "topic.*.*",
        "topic.*.**",
        "topic.*",
        "topic.**",
        "*.*",
        "**",
    ]
    ranked = sorted(texts, key=lambda text: parse_pattern(text).specificity)
    by_literals = sorted(texts, key=lambda text: -_literals(text))
    assert [_literals(text) for text in ranked] == [_literals(text) for text in by_literals]
    assert ranked[0] == "topic.a.b.c"
    assert ranked.index("topic.a.b*") < ranked.index("topic.a.*.*") < ranked.index("topic.a.*")
    assert ranked.index("topic.a.*") < ranked.index("topic.*.b") < ranked.index("topic.a.**")
    assert ranked[-1] == "**"


def _literals(text: str) -> int:
    return sum(segment.is_literal for segment in parse_pattern(text).segments)


@pytest.mark.parametrize(
    ("text", "name", "matches"),
    [
        ("sensor", "sensor", True),
        ("sensor", "sensor2", False),
        ("sensor", "Sensor", False),
        ("*", "anybody", True),
        ("svc-*", "svc-1", True),
        ("svc-*", "svc-", True),
        ("svc-*", "my-svc-1", False),
        ("*@ops.example.com", "ann@ops.example.com", True),
        ("*@ops.example.com", "ann@ops.example.com.evil", False),
        ("a*b*c", "a.b.c", True),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
    ],
)
def test_principal_pattern_matches_whole_tokens(text: str, name: str, *, matches: bool) -> None:
    assert parse_principal_pattern(text).matches(name) is matches


@pytest.mark.parametrize(
    "text",
    ["", "**", "a**", "a b", "a/b", "{principal}", r"a\*", "#", "x" * (MAX_PRINCIPAL_BYTES + 1)],
)
def test_principal_pattern_refuses_what_no_name_holds(text: str) -> None:
    with pytest.raises(PatternInvalid):
        parse_principal_pattern(text)


def test_rank_orders_literal_partial_star() -> None:
    segments = [parse_principal_pattern(text).segment for text in ("a", "a*", "*")]
    assert [rank_of(segment) for segment in segments] == [0, 1, 2]
    assert parse_principal_pattern("a").is_literal
    assert not parse_principal_pattern("a*").is_literal


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("telemetry/#", "topic.telemetry.**"),
        ("#", "topic.**"),
        ("+/cpu", "topic.*.cpu"),
        ("a.b/c*", r"topic.a\.b.c\*"),
        ("/a", "topic..a"),
        ("a/{b}", r"topic.a.\{b\}"),
        ("$SYS/#", "topic.$SYS.**"),
    ],
)
def test_topic_pattern_translates_mqtt_wildcards(topic: str, text: str) -> None:
    assert topic_pattern(topic) == text


@pytest.mark.parametrize("topic", ["", "a/#/b", "a#", "a/b+", "#/a", "\0"])
def test_topic_pattern_refuses_what_mqtt_refuses(topic: str) -> None:
    with pytest.raises(PatternInvalid):
        topic_pattern(topic)
