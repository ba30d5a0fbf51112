from __future__ import annotations

from itertools import product

from hypothesis import example, given, settings, strategies as st

from acl.patterns import parse_pattern
from mqtt.topics import matches

# Every topic of up to four levels over an alphabet that holds, for each pattern and filter below, a name
# inside and a name outside: what is true of this universe is then true of all topics.
LEVELS = ["a", "b", "ab", "c", "", "$a", "$b"]
UNIVERSE = [topic for depth in range(1, 5) for topic in product(LEVELS, repeat=depth)]

segments = st.sampled_from(
    ["a", "b", "ab", "*", "*", "a*", "*b", "a*b", "$a", "$*", "", "{principal}"]
)
heads = st.sampled_from(["topic", "topic", "*"])
filter_levels = st.sampled_from(["a", "b", "ab", "+", "+", "", "$a", "c"])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    body = draw(st.lists(segments, max_size=3))
    tail = ["**"] if draw(st.booleans()) or not body else []
    return ".".join([draw(heads), *body, *tail])


@st.composite
def filters(draw: st.DrawFn) -> tuple[str, ...]:
    body = draw(st.lists(filter_levels, max_size=3))
    tail = ["#"] if draw(st.booleans()) or not body else []
    return (*body, *tail)


@settings(max_examples=500, deadline=None)
@given(patterns(), filters())
@example("topic.**", ("#",))
@example("topic.a.**", ("a", "#"))
def test_overlap_and_cover_equal_trying_every_topic(text: str, levels: tuple[str, ...]) -> None:
    pattern = parse_pattern(text)
    inside = [topic for topic in UNIVERSE if matches(levels, topic)]
    hits = [topic for topic in inside if pattern.matches(("topic", *topic), "b")]
    assert pattern.overlaps_filter(levels, "b") is bool(hits)
    if inside:  # a filter of nothing but `$` rules out everything
        assert pattern.covers_filter(levels, "b") is (len(hits) == len(inside))
