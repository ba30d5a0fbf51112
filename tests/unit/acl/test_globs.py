from __future__ import annotations

import pytest

from acl.errors import PatternInvalid
from acl.globs import ANY, SegmentPattern, parse_segment


def test_segment_knows_what_it_is() -> None:
    assert parse_segment("*") == ANY
    assert ANY.is_any
    assert not ANY.is_literal
    assert parse_segment("a").is_literal
    assert not parse_segment("a*").is_any
    assert parse_segment("x{principal}").has_owner
    assert not parse_segment(r"\{principal\}").has_owner
    assert parse_segment("$*").is_dollar
    assert not parse_segment("*$").is_dollar
    assert not parse_segment("{principal}").is_dollar


def test_segment_with_an_unbound_template_matches_nothing() -> None:
    segment = parse_segment("{principal}")
    assert not segment.matches("bob")
    assert not segment.matches("")
    assert not segment.matches("{principal}")
    assert segment.bind("bob").matches("bob")


def test_segment_search_is_linear_in_the_text() -> None:
    # a backtracking matcher would need 2^20 steps and more here
    segment = parse_segment("*".join(["a"] * 20) + "*b")
    assert not segment.matches("a" * 20_000)


def test_segment_parts_are_cut_at_stars_only() -> None:
    assert parse_segment(r"a\**b") == SegmentPattern(("a*", "b"))
    assert parse_segment(r"*\\*") == SegmentPattern(("", "\\", ""))


@pytest.mark.parametrize("raw", ["**", "a**", r"\\**", r"\***", "***"])
def test_segment_refuses_two_stars_in_a_row(raw: str) -> None:
    with pytest.raises(PatternInvalid, match="only alone as the last"):
        parse_segment(raw)
