from __future__ import annotations

import pytest

from mqtt.errors import RemoteProtocolError
from mqtt.known_topics import MAX_KNOWN_TOPIC_BYTES, MAX_KNOWN_TOPICS, KnownTopics


def key_of(topic: bytes) -> bytes:
    return len(topic).to_bytes(2) + topic


def test_topic_is_the_same_object_each_time() -> None:
    known = KnownTopics()
    assert known.learn(key_of(b"a/b")) == b"a/b"
    assert known.learn(key_of(b"a/b")) is known.learn(key_of(b"a/b"))


def test_illegal_topic_is_refused_and_not_remembered() -> None:
    known = KnownTopics()
    with pytest.raises(RemoteProtocolError):
        known.learn(key_of(b"a/#"))
    assert not known.names


def test_table_stays_within_its_bounds_and_is_the_same_dict() -> None:
    known = KnownTopics()
    names = known.names
    for number in range(MAX_KNOWN_TOPICS + 10):
        known.learn(key_of(b"t%d" % number))
        assert len(names) <= MAX_KNOWN_TOPICS
    assert len(names) == 10
    known.learn(key_of(b"x" * (MAX_KNOWN_TOPIC_BYTES + 1)))
    assert len(names) == 10
    assert known.names is names
