"""Subscriptions: identifiers, no-local, shared groups, `$SYS`, delayed messages; seen by paho over mutual TLS."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.e2e.clients import ANSWER_S, NOT_AUTHORIZED, eventually, ruled, unique
from tests.e2e.paho_sessions import PahoSession, WillOf, identifiers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

NO_SUBSCRIPTION_EXISTED = 0x11
PROTOCOL_ERROR = 0x82


def received(members: Sequence[PahoSession], count: int) -> list[list[bytes]]:
    """What each member has received, once they have `count` messages together."""
    found: list[list[bytes]] = [[] for _ in members]

    def all_there() -> bool:
        for member, payloads in zip(members, found, strict=True):
            while not member.messages.empty():
                payloads.append(bytes(member.receive().payload))
        return sum(map(len, found)) >= count

    eventually(all_there)
    return found


def test_identifiers_of_all_matching_subscriptions_are_told(system: Running) -> None:
    topic = f"bench/{unique('identifiers')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(f"{topic}/#", identifier=7)
        bench.listen(f"{topic}/+", identifier=268_435_455)
        bench.listen(f"{topic}/other", identifier=3)
        bench.listen(f"{topic}/end")
        bench.tell(f"{topic}/a", b"1")
        bench.tell(f"{topic}/end", b"end")
        identifiers: list[int] = []
        while (message := bench.receive()).payload != b"end":  # one copy, or one for each
            identifiers += identifiers_of(message)
    assert sorted(identifiers) == [7, 268_435_455]


def test_overlapping_subscriptions_deliver_at_the_highest_qos(system: Running) -> None:
    topic = f"bench/{unique('overlap')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(f"{topic}/#", qos=0)
        bench.listen(f"{topic}/+", qos=2)
        bench.listen(f"{topic}/a", qos=1)
        bench.tell(f"{topic}/a", b"1", qos=2)
        bench.settle()
        assert max(bench.receive().qos for _ in range(bench.messages.qsize())) == 2


def test_subscription_made_again_replaces_its_options(system: Running) -> None:
    topic = f"bench/{unique('again')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic, qos=0, identifier=1)
        bench.listen(topic, qos=1, identifier=2)
        bench.tell(topic, b"1")
        bench.tell(topic, b"2")
        found = [bench.receive() for _ in range(2)]
    assert [(message.payload, message.qos) for message in found] == [(b"1", 1), (b"2", 1)]
    assert [identifiers_of(message) for message in found] == [[2], [2]]


def test_no_local_keeps_a_clients_own_messages_away(system: Running) -> None:
    topic = f"bench/{unique('local')}"
    with PahoSession(system.ready, "bench") as bench, PahoSession(system.ready, "bench") as other:
        bench.listen(topic, no_local=True)
        bench.tell(topic, b"mine")
        other.tell(topic, b"another's")
        assert bench.hear(1) == [b"another's"]


def test_no_local_on_a_shared_subscription_is_a_protocol_error(system: Running) -> None:
    with PahoSession(system.ready, "bench") as bench:
        options = SubscribeOptions(qos=1, noLocal=True)
        bench.client.subscribe(f"$share/g/bench/{unique('local')}", options=options)
        assert bench.ended.get(timeout=ANSWER_S) == PROTOCOL_ERROR


def test_unsubscribe_says_for_every_filter_whether_it_was_there(system: Running) -> None:
    topic = f"bench/{unique('unsubscribe')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(f"{topic}/+")
        bench.listen(f"{topic}/b")
        codes = bench.unsubscribe(f"{topic}/+", f"{topic}/never", f"{topic}/B")
        assert codes == [0, NO_SUBSCRIPTION_EXISTED, NO_SUBSCRIPTION_EXISTED]
        bench.tell(f"{topic}/a", b"unheard")
        bench.tell(f"{topic}/b", b"heard")
        assert bench.hear(1) == [b"heard"]


@pytest.mark.parametrize("version", [MQTTv5, MQTTv311])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_shared_messages_go_to_exactly_one_member_each(
    system: Running, qos: int, version: MQTTProtocolVersion
) -> None:
    topic = f"bench/{unique('shared')}"
    group = f"$share/{unique('group')}/{topic}/+"
    payloads = [b"%d" % number for number in range(120)]
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench") as outsider,
        PahoSession(system.ready, "bench", version=version) as first,
        PahoSession(system.ready, "bench") as second,
        PahoSession(system.ready, "bench") as third,
    ):
        outsider.listen(f"{topic}/#", qos=qos)
        members = (first, second, third)
        for member in members:
            assert member.subscribe(group, qos=qos).code == qos
        for payload in payloads:
            writer.client.publish(f"{topic}/work", payload, qos)
        assert outsider.hear(len(payloads)) == payloads
        shares = received(members, len(payloads))
    assert sorted(chain(*shares)) == sorted(payloads)
    assert all(len(share) >= 20 for share in shares), [len(share) for share in shares]
    assert all(share == sorted(share, key=int) for share in shares)


def test_groups_each_get_every_message(system: Running) -> None:
    topic = f"bench/{unique('groups')}"
    payloads = [b"%d" % number for number in range(20)]
    with PahoSession(system.ready, "bench") as one, PahoSession(system.ready, "bench") as other:
        one.listen(f"$share/{unique('one')}/{topic}")
        other.listen(f"$share/{unique('other')}/{topic}")
        one.tell_all(topic, payloads, qos=1)
        assert one.hear(len(payloads)) == payloads
        assert other.hear(len(payloads)) == payloads


@pytest.mark.parametrize("ends", [PahoSession.crash, PahoSession.leave])
def test_unacknowledged_messages_of_a_member_that_ends_are_handed_on(
    system: Running, ends: Callable[[PahoSession], None]
) -> None:
    topic = f"bench/{unique('handed')}"
    group = f"$share/{unique('group')}/{topic}"
    payloads = [b"%d" % number for number in range(20)]
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench", manual_acks=True) as dying,
        PahoSession(system.ready, "bench") as living,
    ):
        for member in (dying, living):
            member.listen(group)
        writer.tell_all(topic, payloads, qos=1)
        theirs, kept = received((dying, living), len(payloads))
        assert theirs
        ends(dying)
        handed = living.hear(len(theirs))
        writer.tell(topic, b"end")
        assert living.hear(1) == [b"end"]
    assert sorted(kept + handed) == sorted(payloads)


def test_qos_2_in_flight_to_a_member_is_never_handed_on(system: Running) -> None:
    topic = f"bench/{unique('kept')}"
    group = f"$share/{unique('group')}/{topic}"
    payloads = [b"%d" % number for number in range(20)]
    will = WillOf(topic=f"{topic}/gone", payload=b"gone")
    with (
        PahoSession(system.ready, "bench") as writer,
        PahoSession(system.ready, "bench", manual_acks=True, will=will) as dying,
        PahoSession(system.ready, "bench") as living,
    ):
        writer.listen(will.topic)
        for member in (dying, living):
            member.listen(group, qos=2)
        writer.tell_all(topic, payloads, qos=2)
        theirs, kept = received((dying, living), len(payloads))
        assert theirs
        dying.crash()
        assert writer.hear(1) == [b"gone"]  # from now on nothing goes to the dead member
        writer.tell(topic, b"end", qos=2)
        assert living.hear(1) == [b"end"]
    assert sorted(theirs + kept) == sorted(payloads)


def test_absent_member_of_a_group_strands_no_message(system: Running) -> None:
    topic = f"bench/{unique('stranded')}"
    group = f"$share/{unique('group')}/{topic}"
    payloads = [b"%d" % number for number in range(20)]
    with PahoSession(system.ready, "bench", expiry_s=60) as absent:
        absent.listen(group)
    with PahoSession(system.ready, "bench") as present:
        present.listen(group)
        present.tell_all(topic, payloads, qos=1)
        assert present.hear(len(payloads)) == payloads
    with PahoSession(
        system.ready, "bench", client_id=absent.client_id, clean_start=False
    ) as returned:
        assert returned.present
        returned.tell(topic, b"end")
        assert returned.hear(1) == [b"end"]


def test_system_topics_are_for_those_a_rule_allows(system: Running) -> None:
    with PahoSession(system.ready, "viewer") as viewer:
        assert viewer.listen("$SYS/#") == NOT_AUTHORIZED
        with ruled(system.ready, "viewer", "read", "topic.$SYS.**"):
            assert viewer.listen("$SYS/#") == 1
            seen: dict[str, bytes] = {}

            def all_seen() -> bool:
                # What is retained may be of before this client came; the next value is ten seconds away at most.
                while not viewer.messages.empty():
                    message = viewer.receive()
                    seen[message.topic] = bytes(message.payload)
                connected = int(seen.get("$SYS/broker/clients/connected", b"0"))
                return "$SYS/broker/version" in seen and connected >= 1

            eventually(all_seen, deadline_s=40)
    assert b"tockade" in seen["$SYS/broker/version"]


def test_system_topics_do_not_match_a_leading_wildcard(system: Running) -> None:
    topic = f"telemetry/{unique('wildcard')}"
    with (
        ruled(system.ready, "viewer", "read", "topic.$SYS.**"),
        PahoSession(system.ready, "viewer") as viewer,
        PahoSession(system.ready, "sensor") as sensor,
    ):
        viewer.listen("#")
        viewer.listen("+/broker/version")
        sensor.tell(topic, b"end")
        while (message := viewer.receive()).topic != topic:  # what others retained
            assert not message.topic.startswith("$SYS")


def test_system_topics_are_written_by_nobody(system: Running) -> None:
    with PahoSession(system.ready, "bench") as bench:
        assert bench.tell("$SYS/broker/version", b"forged", qos=1) >= 0x80


def test_delayed_messages_come_when_their_seconds_have_passed(system: Running) -> None:
    topic = f"bench/{unique('delayed')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic, qos=2)
        sent = time.monotonic()
        for qos, delay_s in ((1, 2), (0, 1), (2, 1)):
            answer = bench.tell(f"$delayed/{delay_s}/{topic}", b"%d" % delay_s, qos=qos)
            assert answer < 0x80
        bench.tell(topic, b"at once")
        assert bench.hear(1) == [b"at once"]
        later = [bench.receive() for _ in range(2)]
        assert time.monotonic() - sent > 0.9
        later.append(bench.receive())
        assert 1.9 < time.monotonic() - sent < 7
    assert {message.topic for message in later} == {topic}
    assert [(message.payload, message.qos) for message in later] == [
        (b"1", 0),
        (b"1", 2),
        (b"2", 1),
    ]


def test_delayed_message_needs_the_right_to_its_topic(system: Running) -> None:
    with PahoSession(system.ready, "viewer") as viewer:
        refused = viewer.tell(f"$delayed/1/telemetry/{unique('forged')}", b"forged", qos=1)
        assert refused == NOT_AUTHORIZED


def test_delayed_message_may_be_retained(system: Running) -> None:
    topic = f"bench/{unique('retained')}"
    with PahoSession(system.ready, "bench") as bench:
        bench.listen(topic)
        bench.tell(f"$delayed/1/{topic}", b"later", retain=True)
        assert bench.hear(1) == [b"later"]
    with PahoSession(system.ready, "bench") as late:
        late.listen(topic)
        found = late.receive()
        assert (found.payload, found.retain) == (b"later", True)
