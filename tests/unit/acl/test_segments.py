from __future__ import annotations

import pytest

from acl.errors import NameInvalid, PatternInvalid
from acl.segments import escape, join, split, split_raw, unescape_literal


@pytest.mark.parametrize(
    ("segments", "text"),
    [
        (("a", "b"), "a.b"),
        (("a.b", "c"), r"a\.b.c"),
        (("", "a"), ".a"),
        (("a", "", "b"), "a..b"),
        (("",), ""),
        (("a*", "{b}", "c\\d"), r"a\*.\{b\}.c\\d"),
        (("\\", "."), r"\\.\."),
    ],
)
def test_text_form_of_segments_goes_both_ways(segments: tuple[str, ...], text: str) -> None:
    assert join(segments) == text
    assert split(text) == segments


def test_escape_leaves_plain_text_alone() -> None:
    assert escape("plain-7@x") == "plain-7@x"


def test_split_raw_keeps_escapes_as_they_are_written() -> None:
    assert split_raw(r"a\.b.c\*") == (r"a\.b", r"c\*")


@pytest.mark.parametrize("text", [r"a\b", "a\\", r"a\.\n"])
def test_split_raw_refuses_an_escape_of_nothing(text: str) -> None:
    with pytest.raises(PatternInvalid, match="escapes nothing"):
        split_raw(text)
    with pytest.raises(NameInvalid, match="escapes nothing"):
        split(text)


@pytest.mark.parametrize("raw", ["a*", "{a", "a}"])
def test_unescape_literal_refuses_what_only_patterns_may_hold(raw: str) -> None:
    with pytest.raises(NameInvalid, match="unescaped"):
        unescape_literal(raw)
