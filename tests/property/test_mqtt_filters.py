"""The tree of filters finds exactly what `matches` says, and `matches` what section 4.7 says."""

from __future__ import annotations

import re

from hypothesis import given, settings, strategies as st

from mqtt.topics import FilterTree, matches, split_shared, verify_topic_filter, verify_topic_name
from tests.property.mqtt_packets import TOPICS, filters

FEW_LEVELS = st.sampled_from(["a", "b", "", "$s"])
FEW_TOPICS = st.lists(FEW_LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
NAMES = FEW_TOPICS | TOPICS


@st.composite
def few_filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(FEW_LEVELS | st.just("+"), min_size=1, max_size=4))
    if draw(st.booleans()):
        levels[-1] = "#"
    return "/".join(levels) or "+"


FILTERS = (few_filters() | filters()).map(lambda text: split_shared(text)[1])


def says_the_standard(text: str, topic: str) -> bool:
    """4.7 as a regular expression, for the tests alone."""
    if topic.startswith("$") and text[0] in "+#":
        return False
    if text == "#":
        return True
    wide = text.endswith("/#")
    body = text[:-2] if wide else text
    pattern = "/".join("[^/]*" if each == "+" else re.escape(each) for each in body.split("/"))
    return re.fullmatch(pattern + ("(/.*)?" if wide else ""), topic, re.DOTALL) is not None


@settings(deadline=None)
@given(text=FILTERS, topic=NAMES)
def test_matches_agrees_with_the_standard(text: str, topic: str) -> None:
    assert matches(text.split("/"), topic.split("/")) == says_the_standard(text, topic)


@settings(deadline=None)
@given(topic=NAMES)
def test_topic_as_filter_matches_just_itself(topic: str) -> None:
    verify_topic_name(topic.encode())
    if not topic.startswith("$share"):
        levels = verify_topic_filter(topic)
        assert matches(levels, topic.split("/"))
        assert not matches(levels, [*topic.split("/"), "more"])


CHANGES = st.lists(st.tuples(st.booleans(), FILTERS, st.integers(0, 2)), max_size=25)


@settings(deadline=None)
@given(changes=CHANGES, topics=st.lists(NAMES, min_size=1, max_size=8))
def test_tree_finds_what_matches_says(
    changes: list[tuple[bool, str, int]], topics: list[str]
) -> None:
    tree: FilterTree[tuple[str, int]] = FilterTree()
    model: dict[tuple[str, int], tuple[str, int]] = {}
    for adding, text, key in changes:
        if adding:
            tree.add(text, key, (text, key))
            model[text, key] = (text, key)
        else:
            assert tree.remove(text, key) == (model.pop((text, key), None) is not None)
        assert len(tree) == len(model)
    for topic in topics:
        wanted = [
            value
            for (text, _), value in model.items()
            if matches(text.split("/"), topic.split("/"))
        ]
        assert sorted(tree.match(topic)) == sorted(wanted)
    for text, key in list(model):
        assert tree.remove(text, key)
    assert len(tree) == 0
    assert tree.nodes == 1
