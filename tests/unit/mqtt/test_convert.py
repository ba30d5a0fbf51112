from __future__ import annotations

from dataclasses import replace

import pytest

from mqtt.convert import aliased, number, variant
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError
from mqtt.packets import EMPTY, Properties, Publish, Version
from mqtt.runs import Run

V5, V311 = Version.V5, Version.V311
MESSAGE = Publish(topic="a/b", payload=b"x")


def run_of(packet: Publish, count: int, version: Version = V5) -> Run:
    wire = encode(packet, version)
    return Run.parse(wire, version).repeated(wire * count, count)


def requests(count: int, *, expiry_s: int | None = None) -> Run:
    """Messages that differ in correlation data, as the calls of a kernel do."""
    packets = [
        Publish(
            topic="kernel/z",
            payload=b"p%03d" % each,
            properties=Properties(
                message_expiry_interval=expiry_s,
                response_topic="r",
                correlation_data=b"%04d" % each,
                user_properties=(("k", "v"),),
            ),
        )
        for each in range(count)
    ]
    first = Run.parse(encode(packets[0], V5), V5)
    return first.repeated(b"".join(encode(each, V5) for each in packets), count)


def packets(run: Run) -> list[Publish]:
    return [run.packet(each) for each in range(run.count)]


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_unchanged_run_is_the_run_itself(version: Version, qos: int, *, retain: bool) -> None:
    packet = replace(MESSAGE, qos=qos, packet_id=1 if qos else None, retain=retain)
    run = run_of(packet, 3, version)
    assert variant(run, version=version, qos=qos, retain=retain) is run


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("size", [0, 1, 122, 123, 124, 16_379, 16_380])
def test_run_is_converted_also_where_the_header_grows(count: int, size: int) -> None:
    packet = Publish(topic="a", payload=b"x" * size)
    for before, after in ((V5, V311), (V311, V5)):
        run = run_of(packet, count, before)
        found = variant(run, version=after, qos=0, retain=False)
        assert found.data == encode(packet, after) * count
        assert found.version is after


def test_properties_are_dropped_for_the_older_version() -> None:
    packet = replace(MESSAGE, properties=Properties(content_type="t", message_expiry_interval=3))
    bare = replace(packet, properties=EMPTY)
    run = variant(
        run_of(packet, 2), version=V311, qos=0, retain=False, identifiers=(1,), expiry_s=1
    )
    assert run.data == encode(bare, V311) * 2


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_run_at_another_qos_says_the_same(version: Version, before: int, qos: int) -> None:
    packet = replace(MESSAGE, qos=before, packet_id=7 if before else None)
    run = variant(run_of(packet, 3, version), version=version, qos=qos, retain=True)
    assert (run.qos, run.retain, run.topic, run.payload_bytes) == (qos, True, b"a/b", 1)
    wanted = replace(packet, qos=qos, packet_id=5 if qos else None, retain=True)
    wire = number(run, 0, [5] * 3, dup=False) if qos else run.data
    assert wire == encode(wanted, version) * 3


def test_redelivery_flag_of_the_publisher_is_never_passed_on() -> None:
    run = run_of(replace(MESSAGE, qos=1, packet_id=7, dup=True), 2)
    wire = number(variant(run, version=V5, qos=1, retain=False), 0, [7, 7], dup=False)
    assert wire == encode(replace(MESSAGE, qos=1, packet_id=7), V5) * 2


@pytest.mark.parametrize("count", [1, 3])
def test_subscription_identifiers_are_added_to_each_packet(count: int) -> None:
    run = requests(count)
    found = variant(run, version=V5, qos=0, retain=False, identifiers=(1, 268_435_455))
    assert packets(found) == [
        replace(
            each, properties=replace(each.properties, subscription_identifiers=(1, 268_435_455))
        )
        for each in packets(run)
    ]
    assert variant(run, version=V311, qos=0, retain=False, identifiers=(1,)).bare


@pytest.mark.parametrize("count", [1, 3, 100])
def test_expiry_interval_is_replaced_in_each_packet(count: int) -> None:
    run = requests(count, expiry_s=600)
    before = run.data
    found = variant(run, version=V5, qos=0, retain=False, identifiers=(7,), expiry_s=0x01020304)
    assert found.expiry_interval == 0x01020304
    assert packets(found) == [
        replace(
            each,
            properties=replace(
                each.properties, subscription_identifiers=(7,), message_expiry_interval=0x01020304
            ),
        )
        for each in packets(run)
    ]
    assert run.data is before
    assert variant(run, version=V5, qos=0, retain=False, expiry_s=600) is run


def test_expiry_interval_is_not_made_up() -> None:
    run = run_of(MESSAGE, 2)
    assert variant(run, version=V5, qos=0, retain=False, expiry_s=9) is run


@pytest.mark.parametrize("dup", [False, True])
def test_some_packets_of_a_run_get_identifiers_of_their_own(*, dup: bool) -> None:
    run = variant(requests(300), version=V5, qos=2, retain=False)
    for ids in (range(700, 950), [65_535, 1, 256], [9], range(9, 10)):
        wire = number(run, 50, ids, dup=dup)
        wanted = [
            replace(each, qos=2, dup=dup, packet_id=packet_id)
            for each, packet_id in zip(packets(requests(300))[50:], ids, strict=False)
        ]
        got = Run.parse(wire[: run.stride], V5).repeated(wire, len(ids))
        assert packets(got) == wanted
    assert number(run, 50, [], dup=dup) == b""


def test_numbering_what_is_not_there_is_refused() -> None:
    run = run_of(replace(MESSAGE, qos=1, packet_id=1), 3)
    for first, ids in ((1, [1, 2, 3]), (-1, [1]), (3, [1]), (0, [0]), (0, [65_536])):
        with pytest.raises(LocalProtocolError):
            number(run, first, ids, dup=False)
    with pytest.raises(LocalProtocolError):
        number(run_of(MESSAGE, 1), 0, [1], dup=False)


@pytest.mark.parametrize("qos", [0, 1])
def test_alias_stands_for_the_topic_or_teaches_it(qos: int) -> None:
    run = variant(requests(3), version=V5, qos=qos, retain=False, identifiers=(4,))
    for with_topic, topic in ((True, "kernel/z"), (False, "")):
        found = aliased(run, 258, with_topic=with_topic)
        assert found.topic == topic.encode()
        wire = number(found, 0, [5, 6, 7], dup=False) if qos else found.data
        assert found.repeated(wire, 3).packet_ids() == ([5, 6, 7] if qos else [])
        assert [each.properties for each in packets(found.repeated(wire, 3))] == [
            replace(each.properties, topic_alias=258, subscription_identifiers=(4,))
            for each in packets(requests(3))
        ]
        assert {each.topic for each in packets(found.repeated(wire, 3))} == {topic}
        assert found.payloads() == run.payloads()


def test_illegal_form_is_refused() -> None:
    run = run_of(MESSAGE, 1)
    for qos, identifiers in ((3, ()), (-1, ()), (0, (0,)), (0, (268_435_456,))):
        with pytest.raises(LocalProtocolError):
            variant(run, version=V5, qos=qos, retain=False, identifiers=identifiers)
    with pytest.raises(LocalProtocolError):
        aliased(run, 0, with_topic=True)
    with pytest.raises(LocalProtocolError):
        aliased(run, 65_536, with_topic=True)
    with pytest.raises(LocalProtocolError):
        aliased(run_of(MESSAGE, 1, V311), 1, with_topic=True)
