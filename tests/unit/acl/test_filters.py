from __future__ import annotations

import pytest

from acl.filters import cover, overlap
from acl.patterns import parse_pattern

CASES = [
    # pattern, filter, overlaps, covers
    ("topic.a.b", "a/b", True, True),
    ("topic.a.b", "a/c", False, False),
    ("topic.a.b", "a", False, False),
    ("topic.a.b", "a/b/c", False, False),
    ("topic.a.b", "a/+", True, False),
    ("topic.a.b", "a/#", True, False),
    ("topic.a", "a/#", True, False),
    ("topic.a.b", "a/b/#", True, False),
    ("topic.a.b", "a/b/c/#", False, False),
    ("topic.a.*", "a/+", True, True),
    ("topic.a.*", "a/b", True, True),
    ("topic.a.*", "a/#", True, False),
    ("topic.a.**", "a", False, False),
    ("topic.a.**", "a/#", True, False),
    ("topic.a.**", "a/+/#", True, True),
    ("topic.a.**", "a/b/#", True, True),
    ("topic.a.**", "+/#", True, False),
    ("topic.**", "#", True, True),
    ("**", "#", True, True),
    ("*.**", "#", True, True),
    ("topic.**", "+", True, True),
    ("topic.*.**", "+/#", True, False),
    ("topic.x*", "+", True, False),
    ("topic.x*", "xy", True, True),
    ("topic.x*", "yx", False, False),
    ("kernel.**", "#", False, False),
    ("topic.**", "$SYS/#", False, False),
    ("topic.*.load", "$SYS/load", False, False),
    ("topic.$SYS.**", "#", False, False),
    ("topic.$SYS.**", "+/load", False, False),
    ("topic.$SYS.**", "$SYS/#", True, False),
    ("topic.$SYS.**", "$SYS/+", True, True),
    ("topic.$*.load", "$SYS/load", True, True),
    ("topic.home.{principal}.**", "home/bob/x", True, True),
    ("topic.home.{principal}.**", "home/eve/x", False, False),
    ("topic.home.{principal}.*", "home/+/x", True, False),
    ("topic.home.{principal}.*", "home/bob/+", True, True),
    ("topic..a", "+/a", True, False),
    ("topic.*.a", "/a", True, True),
]


@pytest.mark.parametrize(("text", "topic_filter", "overlaps", "covers"), CASES)
def test_pattern_and_filter_relate_as_their_topics_do(
    text: str, topic_filter: str, *, overlaps: bool, covers: bool
) -> None:
    pattern = parse_pattern(text)
    levels = topic_filter.split("/")
    assert pattern.overlaps_filter(levels, "bob") is overlaps
    assert pattern.covers_filter(levels, "bob") is covers


def test_template_without_an_asker_relates_to_nothing() -> None:
    pattern = parse_pattern("topic.{principal}.**")
    assert not pattern.overlaps_filter(["#"])
    assert not pattern.covers_filter(["a", "b"])


def test_no_levels_are_no_filter() -> None:
    assert not overlap((), (), tail=True, dollar=False)
    assert not cover((), (), tail=True, dollar=False)
