from __future__ import annotations

import pytest

from broker.aliases import MAX_ALIASED_BYTES, MAX_ALIASES, Alias, Aliases


def test_first_topics_get_the_aliases_and_keep_them() -> None:
    aliases = Aliases(2)
    first, second = aliases.of(b"topic/1"), aliases.of(b"topic/2")
    assert (first, second) == (Alias(1), Alias(2))
    assert aliases.of(b"topic/3") is None
    assert aliases.of(b"topic/1") is first


def test_alias_remembers_that_the_client_was_told() -> None:
    aliases = Aliases(1)
    alias = aliases.of(b"topic/1")
    assert alias is not None
    assert not alias.told
    alias.told = True
    assert aliases.of(b"topic/1") == Alias(1, told=True)


def test_aliases_are_bounded_whatever_the_client_would_take() -> None:
    aliases = Aliases(65_535)
    given = [aliases.of(f"topic/{number}".encode()) for number in range(MAX_ALIASES + 1)]
    assert None not in given[:-1]
    assert given[-1] is None


@pytest.mark.parametrize("topic", [b"abc", b"x" * (MAX_ALIASED_BYTES + 1)])
def test_topic_for_which_an_alias_is_no_gain_gets_none_and_takes_none_away(topic: bytes) -> None:
    aliases = Aliases(1)
    assert aliases.of(topic) is None
    assert aliases.of(b"abcd") == Alias(1)


def test_longest_aliased_topic_gets_one() -> None:
    assert Aliases(1).of(b"x" * MAX_ALIASED_BYTES) == Alias(1)
