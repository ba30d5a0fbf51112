from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from acl.model import Principal
from broker.messages import Message, Messages
from broker.quota import QuotaLimits
from broker.retained import Retained
from mqtt.packets import Properties, Publish, Version
from mqtt.runs import run_of
from mqtt.topics import matches
from tests.durable_rows import Rows

SENSOR = Principal("sensor")


def limits_of(max_messages: int, max_bytes: int) -> QuotaLimits:
    return QuotaLimits(
        max_messages=max_messages,
        max_bytes=max_bytes,
        max_messages_each=max_messages,
        max_bytes_each=max_bytes,
    )


class Shelf:
    """Retained messages, with what the store has of them."""

    def __init__(self, *, max_messages: int = 10, max_bytes: int = 1_000) -> None:
        self.now = 0.0
        self.rows = Rows()
        self.messages = Messages(self.rows, clock=lambda: self.now)
        self.retained = Retained(
            self.messages, self.rows, limits=limits_of(max_messages, max_bytes)
        )

    def message(self, topic: str, payload: bytes = b"x", *, expiry_s: int | None = None) -> Message:
        properties = Properties(message_expiry_interval=expiry_s)
        publish = Publish(topic=topic, payload=payload, retain=True, properties=properties)
        return self.messages.take(run_of(publish, Version.V5), SENSOR)

    def put(self, topic: str, payload: bytes = b"x", *, expiry_s: int | None = None) -> bool:
        return self.retained.put(self.message(topic, payload, expiry_s=expiry_s))

    def payload(self, topic: str) -> bytes | None:
        message = self.retained.get(topic)
        return None if message is None else message.run.payloads()[0]

    def match(self, filter_: str) -> list[str]:
        found = [topic for some in self.retained.look(filter_) for topic in some]
        return [topic for topic in found if self.retained.get(topic) is not None]

    def stored(self) -> dict[str, bytes]:
        """The topics' payloads as a start would find them."""
        return {
            row.topic: self.rows.messages[row.message_id].data[-1:]
            for row in self.rows.retained.values()
        }


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_last_message_of_a_topic_is_kept_and_stored(shelf: Shelf) -> None:
    for payload in (b"1", b"2"):
        assert shelf.put("t", payload)
    assert (shelf.payload("t"), len(shelf.retained)) == (b"2", 1)
    assert shelf.stored() == {"t": b"2"}
    assert len(shelf.rows.messages) == 1, "the older one is needed by nobody"
    assert shelf.retained.bytes == len(shelf.message("t", b"2").run.data)


def test_empty_message_removes_and_is_never_kept(shelf: Shelf) -> None:
    shelf.put("t")
    for _ in range(2):
        assert shelf.put("t", b"")
    assert shelf.retained.get("t") is None
    assert (len(shelf.retained), shelf.retained.bytes) == (0, 0)
    assert (shelf.rows.retained, shelf.rows.messages) == ({}, {})


def test_retained_messages_are_bounded_in_number() -> None:
    shelf = Shelf(max_messages=2)
    assert shelf.put("1")
    assert shelf.put("2")
    assert not shelf.put("3")
    assert shelf.put("1", b"newer"), "no more topics than before"
    assert shelf.put("2", b"")
    assert shelf.put("3")


def test_retained_messages_are_bounded_in_bytes() -> None:
    size = len(Shelf().message("1", b"x" * 50).run.data)
    shelf = Shelf(max_bytes=2 * size)
    assert shelf.put("1", b"x" * 50)
    assert shelf.put("2", b"x" * 50)
    assert not shelf.put("2", b"x" * 51)
    assert shelf.put("2", b"y" * 50)
    assert shelf.retained.bytes == 2 * size


def test_message_that_does_not_fit_changes_nothing() -> None:
    shelf = Shelf(max_messages=1, max_bytes=40)
    shelf.put("t", b"1")
    before = (shelf.stored(), shelf.retained.bytes, dict(shelf.rows.messages))
    assert not shelf.put("t", b"x" * 100)
    assert not shelf.put("u")
    assert (shelf.stored(), shelf.retained.bytes, dict(shelf.rows.messages)) == before
    assert shelf.payload("t") == b"1"


def test_one_principal_does_not_take_the_places_of_all() -> None:
    limits = QuotaLimits(max_messages=3, max_bytes=1_000, max_messages_each=2, max_bytes_each=1_000)
    shelf = Shelf()
    shelf.retained = Retained(shelf.messages, shelf.rows, limits=limits)
    assert [shelf.put(topic) for topic in ("1", "2", "3")] == [True, True, False]

    def other(topic: str) -> Message:
        publish = Publish(topic=topic, payload=b"x", retain=True)
        return shelf.messages.take(run_of(publish, Version.V5), Principal("other"))

    assert shelf.retained.put(other("3"))
    assert not shelf.retained.put(other("4")), "there is no more in all"
    assert shelf.retained.put(other("1")), "a place goes over with its topic"
    assert shelf.put("2", b"again")
    assert shelf.put("3"), "and comes back with it"
    assert not shelf.put("1")


def test_expired_message_is_not_given_and_leaves_the_store(shelf: Shelf) -> None:
    shelf.put("a/1", expiry_s=10)
    shelf.put("a/2", expiry_s=20)
    shelf.put("a/3")
    shelf.now = 10.0
    assert shelf.retained.get("a/1") is None
    shelf.now = 20.0
    assert shelf.match("a/#") == ["a/3"]
    assert shelf.stored() == {"a/3": b"x"}
    assert len(shelf.rows.messages) == len(shelf.retained) == 1


def test_what_the_broker_tells_of_itself_is_never_stored(shelf: Shelf) -> None:
    for payload in (b"1", b"2"):
        assert shelf.put("$SYS/broker/uptime", payload)
    assert shelf.payload("$SYS/broker/uptime") == b"2"
    assert (shelf.rows.retained, shelf.rows.messages) == ({}, {})
    assert shelf.put("$SYS/broker/uptime", b"")
    assert len(shelf.retained) == 0


def test_restored_message_is_counted_and_leaves_the_store_when_it_is_replaced(shelf: Shelf) -> None:
    shelf.put("t", b"1")
    (row,) = shelf.rows.messages.values()
    later = Retained(shelf.messages, shelf.rows, limits=limits_of(1, 1_000))
    message = shelf.message("t", b"1")
    shelf.messages.restored(message, row.message_id)
    later.restored(message)
    assert (len(later), later.bytes) == (1, len(message.run.data))
    later.put(shelf.message("t", b"2"))
    assert shelf.stored() == {"t": b"2"}
    assert list(shelf.rows.messages) == [row.message_id + 1]


LEVELS = st.sampled_from(["a", "b", "", "$SYS", "é"])
NAMES = st.lists(LEVELS, min_size=1, max_size=3).map("/".join).filter(bool)
FILTERS = st.lists(LEVELS | st.just("+"), max_size=2).map(
    lambda levels: "/".join([*levels, "#"])
) | st.lists(LEVELS | st.just("+"), min_size=1, max_size=3).map("/".join).filter(bool)


@given(names=st.sets(NAMES, max_size=8), filter_=FILTERS)
def test_match_is_what_the_matcher_says_of_every_topic(names: set[str], filter_: str) -> None:
    shelf = Shelf()
    for name in names:
        shelf.put(name)
    assert sorted(shelf.match(filter_)) == sorted(
        name for name in names if matches(filter_.split("/"), name.split("/"))
    )


def test_expired_messages_give_their_places_back_though_nobody_asks_for_them() -> None:
    shelf = Shelf(max_messages=2)
    assert shelf.put("1", expiry_s=1)
    assert shelf.put("2", expiry_s=5)
    assert not shelf.put("3")
    shelf.now = 1.0
    assert shelf.put("3")
    assert not shelf.put("4")
    shelf.now = 5.0
    shelf.retained.drop_expired()
    assert (len(shelf.retained), shelf.stored()) == (1, {"3": b"x"})


def test_topic_is_looked_at_again_while_its_messages_expire_later() -> None:
    shelf = Shelf()
    for now in range(100):
        shelf.now = float(now)
        shelf.put("t", b"%d" % now, expiry_s=10)
        shelf.retained.drop_expired()
    assert shelf.payload("t") == b"99"
    assert len(shelf.retained._to_look_at) == 1
    shelf.now = 109.0
    shelf.retained.drop_expired()
    assert len(shelf.retained) == 0
    assert shelf.retained._to_look_at == []


def test_message_that_replaces_an_expired_one_at_the_bound_is_kept() -> None:
    shelf = Shelf(max_messages=1)
    shelf.put("t", b"1", expiry_s=1)
    shelf.now = 2.0
    assert shelf.put("t", b"2")
    assert shelf.stored() == {"t": b"2"}
    assert shelf.retained.bytes == len(shelf.message("t", b"2").run.data)
