from __future__ import annotations

import pytest

from mqtt.errors import LocalProtocolError
from mqtt.names import STEP_NODES, TopicTree
from mqtt.topics import MAX_TOPIC_LEVELS

NAMES = ("a", "a/b", "a/b/c", "a/c", "/a", "a/", "$s/a", "$s")


def tree_of(*names: str) -> TopicTree[str]:
    tree: TopicTree[str] = TopicTree()
    for name in names:
        tree.put(name, name.upper())
    return tree


def names_in(tree: TopicTree[str], text: str) -> list[str]:
    return [name for some in tree.look(text) for name in some]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#", ["/a", "a", "a/", "a/b", "a/b/c", "a/c"]),
        ("a/#", ["a", "a/", "a/b", "a/b/c", "a/c"]),
        ("a/b", ["a/b"]),
        ("a/+", ["a/", "a/b", "a/c"]),
        ("+", ["a"]),
        ("+/a", ["/a"]),
        ("+/b/#", ["a/b", "a/b/c"]),
        ("+/+/+", ["a/b/c"]),
        ("$s/#", ["$s", "$s/a"]),
        ("$s/+", ["$s/a"]),
        ("b", []),
        ("a/b/c/+", []),
        ("a/b/c/#", ["a/b/c"]),
    ],
)
def test_filter_finds_names_by_the_rules_of_4_7(text: str, found: list[str]) -> None:
    assert sorted(names_in(tree_of(*NAMES), text)) == found


def test_name_has_one_value_at_a_time() -> None:
    tree = tree_of("a/b")
    tree.put("a/b", "new")
    assert (len(tree), tree.get("a/b")) == (1, "new")
    assert tree.get("a") is None
    assert tree.pop("a") is None
    assert tree.pop("a/b") == "new"
    assert (len(tree), tree.nodes, tree.get("a/b")) == (0, 1, None)
    assert repr(tree) == "<TopicTree of 0>"


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_branches_that_hold_nothing_are_removed(order: tuple[str, ...]) -> None:
    tree = tree_of(*NAMES)
    left = list(order)
    for name in order:
        tree.pop(name)
        left.remove(name)
        assert tree.nodes == tree_of(*left).nodes
    assert tree.nodes == 1


@pytest.mark.parametrize("name", ["", "a/+", "#", "/" * MAX_TOPIC_LEVELS])
def test_illegal_name_is_refused_and_changes_nothing(name: str) -> None:
    tree = tree_of("a")
    with pytest.raises(LocalProtocolError):
        tree.put(name, "x")
    assert (len(tree), tree.nodes) == (1, 2)


def test_deepest_name_is_found() -> None:
    name = "/".join("x" * MAX_TOPIC_LEVELS)
    tree = tree_of(name)
    assert names_in(tree, "+/#") == [name]
    tree.pop(name)
    assert tree.nodes == 1


@pytest.mark.parametrize("text", ["#", "+/b", "+/#", "+/none"])
def test_look_goes_in_steps_between_which_names_may_come_and_go(text: str) -> None:
    names = [f"{number}/b" for number in range(3 * STEP_NODES)]
    tree = tree_of(*names)
    steps = tree.look(text)
    first = next(steps)
    gone = set(names[::7])
    for name in gone:
        tree.pop(name)
    tree.put("new/b", "x")
    rest = list(steps)
    assert len(rest) >= 2
    assert max(map(len, (first, *rest))) <= STEP_NODES
    found = {name for some in (first, *rest) for name in some}
    expected = set() if text == "+/none" else set(names) - gone
    assert expected <= found <= {*names, "new/b"}
