from __future__ import annotations

import pytest

from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.topics import (
    MAX_TOPIC_LEVELS,
    FilterTree,
    matches,
    split_shared,
    verify_topic_filter,
    verify_topic_name,
)


@pytest.mark.parametrize("name", ["a", "/", "a//b", "$SYS/x", "é/\ufeff", " ", "a" * 65_535])
def test_legal_topic_name_is_returned(name: str) -> None:
    assert verify_topic_name(name.encode()) == name


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", ReasonCode.TOPIC_NAME_INVALID),
        (b"a/+", ReasonCode.TOPIC_NAME_INVALID),
        (b"#", ReasonCode.TOPIC_NAME_INVALID),
        (b"/" * MAX_TOPIC_LEVELS, ReasonCode.TOPIC_NAME_INVALID),
        (b"a\0", ReasonCode.MALFORMED_PACKET),
        (b"\xff", ReasonCode.MALFORMED_PACKET),
    ],
)
def test_illegal_topic_name_is_refused(raw: bytes, reason: ReasonCode) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_topic_name(raw)
    assert caught.value.reason is reason


def test_deepest_topic_name_is_legal() -> None:
    assert verify_topic_name(b"/" * (MAX_TOPIC_LEVELS - 1))


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("#", ("#",)),
        ("a/#", ("a", "#")),
        ("+/b/+", ("+", "b", "+")),
        ("/", ("", "")),
        ("$share/g/a", ("$share", "g", "a")),
        ("$share/g//", ("$share", "g", "", "")),
        ("$shared/x", ("$shared", "x")),
    ],
)
def test_legal_filter_is_split_into_levels(text: str, levels: tuple[str, ...]) -> None:
    assert verify_topic_filter(text) == levels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a#",
        "#/a",
        "a/#/b",
        "a+",
        "+a/b",
        "a\0",
        "a/" * MAX_TOPIC_LEVELS,
        "a" * 65_536,
        "$share",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/#",
        "$share/g/$share/h",
        "$share/g/$share/h/a",
    ],
)
def test_illegal_filter_is_refused_everywhere(text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        verify_topic_filter(text)
    assert caught.value.reason is ReasonCode.TOPIC_FILTER_INVALID
    tree: FilterTree[int] = FilterTree()
    with pytest.raises(LocalProtocolError):
        tree.add(text, 1, 1)
    assert len(tree) == 0
    assert tree.nodes == 1


@pytest.mark.parametrize(
    ("text", "topic", "match"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("$SYS/+", "$SYS/monitor", True),
        ("a/+/#", "a/$b", True),
        ("A", "a", False),
        ("/a", "a", False),
    ],
)
def test_filter_matches_as_the_standard_shows(text: str, topic: str, match: bool) -> None:  # noqa: FBT001 - a table
    assert matches(text.split("/"), topic.split("/")) is match
    tree: FilterTree[str] = FilterTree()
    tree.add(text, "k", "v")
    assert tree.match(topic) == (["v"] if match else [])


def test_tree_replaces_what_a_key_held() -> None:
    tree: FilterTree[int] = FilterTree()
    tree.add("a", "k", 1)
    tree.add("a", "k", 2)
    tree.add("a", "other", 3)
    assert sorted(tree.match("a")) == [2, 3]
    assert len(tree) == 2
    assert repr(tree) == "<FilterTree of 2>"


def test_tree_forgets_branches_that_hold_nothing() -> None:
    tree: FilterTree[int] = FilterTree()
    tree.add("a/b/c", 1, 1)
    tree.add("a/#", 1, 2)
    assert not tree.remove("a/b", 1)
    assert not tree.remove("a/b/c/d", 1)
    assert not tree.remove("a/b/c", 2)
    assert tree.nodes == 4
    assert tree.remove("a/b/c", 1)
    assert tree.nodes == 2
    assert tree.match("a/b/c") == [2]
    assert tree.remove("a/#", 1)
    assert tree.nodes == 1
    assert len(tree) == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("$share/g/a/+", ("g", "a/+")),
        ("$share/g//a", ("g", "/a")),
        ("a/b", (None, "a/b")),
        ("$shared/b/c", (None, "$shared/b/c")),
    ],
)
def test_shared_filter_is_split_from_its_name(text: str, parts: tuple[str | None, str]) -> None:
    assert split_shared(text) == parts
