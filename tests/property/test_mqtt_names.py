"""The table of names finds by filter exactly what `matches` says."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from mqtt.names import TopicTree
from mqtt.topics import matches
from tests.property.test_mqtt_filters import FILTERS, NAMES

CHANGES = st.lists(st.tuples(st.booleans(), NAMES), max_size=25)


@settings(deadline=None)
@given(changes=CHANGES, filters=st.lists(FILTERS, min_size=1, max_size=8))
def test_filter_finds_what_matches_says(
    changes: list[tuple[bool, str]], filters: list[str]
) -> None:
    tree: TopicTree[int] = TopicTree()
    model: dict[str, int] = {}
    for number, (adding, name) in enumerate(changes):
        if adding:
            tree.put(name, number)
            model[name] = number
        else:
            assert tree.pop(name) == model.pop(name, None)
        assert len(tree) == len(model)
        assert tree.get(name) == model.get(name)
    for text in filters:
        wanted = [name for name in model if matches(text.split("/"), name.split("/"))]
        assert sorted(name for some in tree.look(text) for name in some) == sorted(wanted)
    for name in list(model):
        assert tree.pop(name) == model[name]
    assert len(tree) == 0
    assert tree.nodes == 1
