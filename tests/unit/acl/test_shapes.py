from __future__ import annotations

import pytest

from acl.patterns import parse_pattern
from acl.segments import split
from acl.shapes import (
    ASKER,
    FREE,
    LITERAL,
    MAX_FIX,
    Shape,
    coarsen,
    fix_of,
    fixed_text,
    projector,
    shape_of,
)


@pytest.mark.parametrize(
    ("text", "kinds", "tail", "key"),
    [
        ("topic.a.b", (LITERAL, LITERAL, LITERAL), False, ("topic", "a", "b")),
        ("topic.a.**", (LITERAL, LITERAL), True, ("topic", "a")),
        ("topic.*.b", (LITERAL, FREE, LITERAL), False, ("topic", "b")),
        ("topic.{principal}.b", (LITERAL, ASKER, LITERAL), False, ("topic", "\0", "b")),
        ("topic.app*", (LITERAL, 2), False, ("topic", "ap")),
        ("topic.*-prod", (LITERAL, MAX_FIX + 4), False, ("topic", "prod")),
        ("topic.*mid*", (LITERAL, FREE), False, ("topic",)),
        ("topic.x-{principal}", (LITERAL, 2), False, ("topic", "x-")),
        ("topic.{principal}-x", (LITERAL, MAX_FIX + 2), False, ("topic", "-x")),
        ("**", (), True, ()),
    ],
)
def test_shape_says_what_is_fixed(
    text: str, kinds: tuple[int, ...], *, tail: bool, key: tuple[str, ...]
) -> None:
    assert shape_of(parse_pattern(text)) == (Shape(kinds, tail), key)


def test_lengths_of_beginnings_are_rounded_so_that_shapes_stay_few() -> None:
    shapes = {shape_of(parse_pattern(f"topic.{'x' * length}*"))[0] for length in range(1, 200)}
    assert len(shapes) == 5


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("topic.a.b", "topic.a.b"),
        ("topic.a.**", "topic.a.x.y"),
        ("topic.*.b", "topic.z.b"),
        ("topic.*.*", "topic.z.b"),
        ("*.*", "topic.z"),
        ("topic.home.{principal}.**", "topic.home.bob.x"),
        ("topic.app-*.*", "topic.app-1.q"),
        ("topic.*-prod.*", "topic.db-prod.q"),
        ("topic.x-{principal}", "topic.x-bob"),
        ("**", "topic.a"),
    ],
)
def test_projection_of_a_match_is_the_key_also_when_coarsened(text: str, path: str) -> None:
    pattern, segments = parse_pattern(text), split(path)
    assert pattern.matches(segments, "bob")
    shape, key = shape_of(pattern)
    for place in ((shape, key), *(coarsen(shape, key, most_literals=n) for n in range(5))):
        assert place[0].admits(len(segments))
        assert place[0].project(segments, "bob") == place[1]
        assert projector(place[0])(segments, "bob") == place[1]


def test_shape_admits_only_lengths_that_can_match() -> None:
    shape, _ = shape_of(parse_pattern("topic.a.**"))
    assert [length for length in range(6) if shape.admits(length)] == [3, 4, 5]
    shape, _ = shape_of(parse_pattern("topic.*.b"))
    assert [length for length in range(6) if shape.admits(length)] == [3]


def test_fixed_text_of_a_free_position_is_empty() -> None:
    assert fixed_text(FREE, "anything", "bob") == ""
    assert fixed_text(ASKER, "eve", "bob") == ""
    assert fix_of(parse_pattern("topic.*").segments[1]) == (FREE, "")
