from __future__ import annotations

import pytest

from acl.index import MAX_COARSE_LITERALS, MAX_SHAPES_PER_CLASS, Entry, PrincipalTable, RuleIndex
from acl.model import Operation
from acl.patterns import parse_pattern, parse_principal_pattern, rank_of

READ = int(Operation.READ)


def an_entry(rule_id: str, resource: str, *, denies: bool = False, priority: int = 0) -> Entry:
    pattern = parse_pattern(resource)
    order = (0 if denies else 1, -priority, pattern.specificity, 0, rule_id)
    return Entry(rule_id=rule_id, mask=READ, denies=denies, order=order, pattern=pattern)


def test_principal_table_finds_every_matching_pattern() -> None:
    table: PrincipalTable[str] = PrincipalTable()
    for text in ("sensor", "sen*", "*sor", "*", "s*n*r", "viewer", "sensor2"):
        table = table.with_value(parse_principal_pattern(text), text)
    assert set(table.matching("sensor")) == {"sensor", "sen*", "*sor", "*", "s*n*r"}
    assert set(table.matching("zebra")) == {"*"}


def test_principal_table_changes_only_copies() -> None:
    pattern = parse_principal_pattern("a*")
    empty: PrincipalTable[int] = PrincipalTable()
    one = empty.with_value(pattern, 1)
    two = one.with_value(pattern, 2)
    assert (empty.get(pattern), one.get(pattern), two.get(pattern)) == (None, 1, 2)
    assert two.without(pattern).get(pattern) is None
    assert two.without(pattern).matching("a") == []
    assert empty.without(pattern).get(pattern) is None
    assert two.get(parse_principal_pattern("b*")) is None
    assert rank_of(pattern.segment) == 1


def test_index_names_the_entry_that_takes_precedence() -> None:
    index = RuleIndex.empty()
    anybody, sensor = parse_principal_pattern("*"), parse_principal_pattern("sensor")
    index = index.with_entry(anybody, an_entry("wide", "topic.**"))
    index = index.with_entry(sensor, an_entry("narrow", "topic.a.b"))
    index = index.with_entry(sensor, an_entry("first", "topic.a.*", priority=1))
    index = index.with_entry(anybody, an_entry("no", "topic.x.**", denies=True))
    best = index.best("sensor", ("topic", "a", "b"), READ)[0]
    assert best is not None
    assert best.rule_id == "first"
    denied = index.best("sensor", ("topic", "x", "b"), READ)[0]
    assert denied is not None
    assert denied.denies
    assert index.best("sensor", ("kernel", "a"), READ)[0] is None
    assert index.best("sensor", ("topic", "a", "b"), int(Operation.WRITE))[0] is None
    assert {entry.rule_id for entry in index.of_principal("viewer", READ)} == {"wide", "no"}


def test_index_without_an_entry_is_as_before_it_came() -> None:
    anybody = parse_principal_pattern("*")
    entry, twin = an_entry("a", "topic.a"), an_entry("b", "topic.a")
    index = RuleIndex.empty().with_entry(anybody, entry).with_entry(anybody, twin)
    left = index.without_entry(anybody, entry)
    assert left.best("x", ("topic", "a"), READ)[0] is twin
    assert left.without_entry(anybody, twin).best("x", ("topic", "a"), READ)[0] is None
    assert index.best("x", ("topic", "a"), READ)[0] is entry
    with pytest.raises(KeyError):
        left.without_entry(anybody, entry)
    with pytest.raises(KeyError):
        left.without_entry(parse_principal_pattern("y"), entry)


def test_index_with_more_shapes_than_its_bound_still_answers_right() -> None:
    anybody = parse_principal_pattern("*")
    texts = [
        "topic" + "".join(".a" if mask >> bit & 1 else ".*" for bit in range(7))
        for mask in range(128)
    ]
    entries = [an_entry(f"r{number}", text) for number, text in enumerate(texts)]
    index = RuleIndex.empty()
    for entry in entries:
        index = index.with_entry(anybody, entry)
    (found,) = index.classes.matching("x")
    assert len(found.tables) <= MAX_SHAPES_PER_CLASS + MAX_COARSE_LITERALS + 1
    for mask in range(128):
        path = ("topic", *("a" if mask >> bit & 1 else "b" for bit in range(7)))
        best = index.best("x", path, READ)[0]
        expected = min((e for e in entries if e.pattern.matches(path)), key=lambda e: e.order)
        assert best is expected
    for entry in entries:
        index = index.without_entry(anybody, entry)
    assert index.best("x", ("topic", *"aaaaaaa"), READ)[0] is None
    assert index.classes.matching("x") == []
