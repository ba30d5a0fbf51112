from __future__ import annotations

import tracemalloc

import pytest

from mqtt.acks import FIRST_BYTES, AckRun
from mqtt.encode import encode
from mqtt.errors import LocalProtocolError, ReasonCode, RemoteProtocolError
from mqtt.known_topics import KnownTopics
from mqtt.packets import (
    EMPTY,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Properties,
    Puback,
    Publish,
    Pubrec,
    Role,
    Version,
)
from mqtt.reader import PacketReader
from mqtt.runs import Run
from tests.vectors.mqtt.packets import ILLEGAL, LEGAL, Illegal, Legal, reader_of

V5, V311 = Version.V5, Version.V311
MAX_PACKET_BYTES = 1 << 20


def greeted(
    version: Version = V5, *, aliases: int = 0, most: int = MAX_PACKET_BYTES
) -> PacketReader:
    reader = PacketReader(role=Role.SERVER, max_packet_bytes=most, topic_alias_maximum=aliases)
    reader.feed(encode(Connect(client_id="c", version=version), version))
    assert isinstance(reader.next_event(), Connect)
    assert reader.next_event() is None
    return reader


def all_of(reader: PacketReader) -> list[Packet | Run | AckRun]:
    found: list[Packet | Run | AckRun] = []
    while (event := reader.next_event()) is not None:
        found.append(event)
    return found


def only_run(reader: PacketReader) -> Run:
    (event,) = all_of(reader)
    assert isinstance(event, Run)
    return event


def expanded(event: Packet | Run | AckRun) -> list[Packet]:
    match event:
        case Run():
            return [event.packet(each) for each in range(event.count)]
        case AckRun():
            return [*event.packets()]
        case _:
            return [event]


def reader_for(vector: Legal | Illegal) -> PacketReader:
    reader = PacketReader(
        role=reader_of(vector), max_packet_bytes=MAX_PACKET_BYTES, topic_alias_maximum=0
    )
    reader.version = vector.version
    if vector.wire[0] >> 4 > 2:
        client = vector.sender is Role.CLIENT
        greeting = Connect(version=vector.version) if client else Connack()
        reader.feed(encode(greeting, vector.version))
        assert all_of(reader) == [greeting]
    return reader


ALIASED = "publish with an alias"


@pytest.mark.parametrize(
    "vector", [each for each in LEGAL if each.name != ALIASED], ids=lambda each: each.name
)
def test_every_truncation_waits_and_every_cut_gives_the_packet(vector: Legal) -> None:
    for cut in range(1, len(vector.wire) + 1):
        reader = reader_for(vector)
        reader.feed(vector.wire[:cut])
        first = all_of(reader)
        assert bool(first) is (cut == len(vector.wire))
        reader.feed(vector.wire[cut:])
        (event,) = first or all_of(reader)
        assert expanded(event) == [vector.packet]
        assert reader.pending_bytes == 0


@pytest.mark.parametrize("vector", ILLEGAL, ids=lambda each: each.name)
def test_illegal_packet_kills_the_reader_with_its_reason(vector: Illegal) -> None:
    reader = reader_for(vector)
    reader.feed(vector.wire + b"\xc0\0")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            all_of(reader)
        assert caught.value.reason is vector.reason
        reader.feed(b"\xc0\0")
        assert reader.pending_bytes == 0
    assert "dead" in repr(reader)


def test_read_full_of_messages_is_one_run_and_no_copy() -> None:
    wire = encode(Publish(topic="a/b", payload=b"x" * 100), V5)
    reader = greeted()
    data = wire * 600
    reader.feed(data)
    run = only_run(reader)
    assert run.data is data
    assert run.count == 600
    assert run.bare


def test_runs_end_where_header_topic_or_size_change() -> None:
    parts = [
        Publish(topic="a", payload=b"1"),
        Publish(topic="a", payload=b"2"),
        Publish(topic="b", payload=b"3"),
        Publish(topic="b", payload=b"44"),
        Publish(topic="b", payload=b"5", retain=True),
        Publish(topic="b", payload=b"6", qos=1, packet_id=1),
        Publish(topic="b", payload=b"6", qos=1, packet_id=2),
        Publish(topic="b", payload=b"6", qos=1, packet_id=2, dup=True),
        Publish(topic="b", payload=b"6", qos=2, packet_id=3),
        Publish(topic="b", payload=b"7"),
    ]
    reader = greeted(V311)
    reader.feed(b"".join(encode(each, V311) for each in parts))
    events = all_of(reader)
    counts = [each.count if isinstance(each, Run) else each for each in events]
    assert counts == [2, 1, 1, parts[4], 2, parts[7], 1, 1]


def test_messages_that_differ_in_correlation_data_are_one_run() -> None:
    def asked(number: int) -> Publish:
        properties = Properties(
            response_topic="r", correlation_data=b"%04d" % number, user_properties=(("k", "v"),)
        )
        return Publish(topic="kernel/z", payload=b"p", properties=properties)

    reader = greeted()
    reader.feed(b"".join(encode(asked(each), V5) for each in range(500)))
    run = only_run(reader)
    assert run.count == 500
    assert run.packet(321) == asked(321)


def test_messages_that_differ_in_other_properties_are_verified_each() -> None:
    good = [
        Publish(topic="t", properties=Properties(content_type=each, correlation_data=b"x"))
        for each in ("aa", "bb", "cc")
    ]
    bad = encode(good[0], V5).replace(b"aa", b"\xff\xff")
    reader = greeted()
    reader.feed(b"".join(encode(each, V5) for each in good) + bad + encode(good[0], V5))
    run = reader.next_event()
    assert isinstance(run, Run)
    assert [run.packet(each) for each in range(run.count)] == good
    with pytest.raises(RemoteProtocolError, match="content_type"):
        reader.next_event()


def test_messages_that_expire_at_other_times_are_no_run() -> None:
    def message(expiry_s: int, content_type: str) -> Publish:
        properties = Properties(message_expiry_interval=expiry_s, content_type=content_type)
        return Publish(topic="t", properties=properties)

    parts = [message(7, "aa"), message(7, "bb"), message(8, "bb"), message(8, "bb")]
    reader = greeted()
    reader.feed(b"".join(encode(each, V5) for each in parts))
    runs = [each for each in all_of(reader) if isinstance(each, Run)]
    assert [(run.count, run.expiry_interval) for run in runs] == [(2, 7), (2, 8)]


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    "properties", [EMPTY, Properties(correlation_data=b"12", content_type="t")]
)
def test_messages_above_qos_0_are_runs_whatever_their_identifiers(
    qos: int, version: Version, properties: Properties
) -> None:
    if version is V311:
        properties = EMPTY
    parts = [
        Publish(topic="a/b", payload=b"%05d" % each, qos=qos, packet_id=each, properties=properties)
        for each in (*range(1, 600), 65_535, 1)
    ]
    reader = greeted(version)
    reader.feed(b"".join(encode(each, version) for each in parts))
    run = only_run(reader)
    assert expanded(run) == parts
    assert run.packet_ids() == [each.packet_id for each in parts]


def test_requests_above_qos_0_are_one_run_too() -> None:
    parts = [
        Publish(
            topic="kernel/z",
            payload=b"p",
            qos=1,
            packet_id=each + 1,
            properties=Properties(
                response_topic="r",
                correlation_data=b"%04d" % each,
                user_properties=(("k", "v"),),
            ),
        )
        for each in range(500)
    ]
    reader = greeted()
    reader.feed(b"".join(encode(each, V5) for each in parts))
    assert expanded(only_run(reader)) == parts


@pytest.mark.parametrize("count", [1, 2, 40, 300])
@pytest.mark.parametrize("properties", [EMPTY, Properties(content_type="t")])
def test_run_ends_before_an_identifier_of_0(count: int, properties: Properties) -> None:
    message = Publish(topic="a", payload=b"x", qos=1, packet_id=0x0101, properties=properties)
    good = encode(message, V5)
    reader = greeted()
    reader.feed(good * count + good.replace(b"\1\1", b"\0\0", 1) + good)
    run = reader.next_event()
    assert isinstance(run, Run)
    assert run.count == count
    with pytest.raises(RemoteProtocolError, match="packet id is 0") as caught:
        reader.next_event()
    assert caught.value.reason is ReasonCode.PROTOCOL_ERROR


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("packet_type", FIRST_BYTES.values())
@pytest.mark.parametrize("ids", [[1], [65_535, 1, 256], range(1, 1_000)])
def test_bare_acknowledgements_are_one_run(
    packet_type: PacketType, version: Version, ids: list[int]
) -> None:
    run = AckRun(packet_type, list(ids))
    reader = greeted(version)
    reader.feed(b"".join(encode(each, version) for each in run.packets()) + b"\xc0\0")
    event, ping = all_of(reader)
    assert isinstance(event, AckRun)
    assert (event.packet_type, event.packet_ids) == (packet_type, list(ids))
    assert ping == Pingreq()


def test_acknowledgements_with_a_reason_are_packets() -> None:
    refused = Puback(packet_id=2, reason=ReasonCode.NOT_AUTHORIZED)
    spelled_out = b"\x40\4\0\3\0\0"
    reader = greeted()
    reader.feed(
        b"".join(encode(each, V5) for each in (Puback(packet_id=1), refused))
        + spelled_out
        + encode(Puback(packet_id=4), V5) * 2
        + encode(Pubrec(packet_id=5), V5)
    )
    events = all_of(reader)
    assert events[1:3] == [refused, Puback(packet_id=3)]
    runs = [each for each in events if isinstance(each, AckRun)]
    assert [run.packet_ids for run in runs] == [[1], [4, 4], [5]]


@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_acknowledgements_end_before_an_identifier_of_0(count: int) -> None:
    good = encode(Puback(packet_id=256), V5)
    reader = greeted()
    reader.feed(good * count + b"\x40\2\0\0" + good)
    if count:
        event = reader.next_event()
        assert isinstance(event, AckRun)
        assert event.packet_ids == [256] * count
    with pytest.raises(RemoteProtocolError, match="packet id is 0") as caught:
        reader.next_event()
    assert caught.value.reason is ReasonCode.PROTOCOL_ERROR


def test_nothing_is_acknowledged_before_the_greeting() -> None:
    reader = PacketReader(role=Role.SERVER, max_packet_bytes=100)
    reader.feed(b"\x40\2\0\1")
    with pytest.raises(RemoteProtocolError, match="PUBACK before CONNECT"):
        reader.next_event()


def test_topics_in_use_are_one_object() -> None:
    reader = greeted()
    wire = encode(Publish(topic="a/b"), V5)
    reader.feed(wire)
    first = only_run(reader)
    reader.feed(wire)
    assert only_run(reader).topic is first.topic


def test_known_topics_may_be_shared() -> None:
    known = KnownTopics()
    runs: list[Run] = []
    for _ in range(2):
        reader = PacketReader(role=Role.CLIENT, max_packet_bytes=100, known_topics=known)
        reader.feed(encode(Connack(), V5) + encode(Publish(topic="a"), V5))
        assert isinstance(reader.next_event(), Connack)
        runs.append(only_run(reader))
    assert runs[0].topic is runs[1].topic


@pytest.mark.parametrize("version", Version)
def test_long_message_is_a_run_too(version: Version) -> None:
    packet = Publish(topic="a", payload=b"x" * 70_000)
    reader = greeted(version)
    reader.feed(encode(packet, version) * 2)
    run = only_run(reader)
    assert (run.count, run.packet(1)) == (2, packet)


def test_alias_is_resolved_when_we_announced_it() -> None:
    def named(topic: str) -> bytes:
        return encode(Publish(topic=topic, payload=b"x", properties=Properties(topic_alias=1)), V5)

    reader = greeted(aliases=1)
    reader.feed(named("a") + named("") + named(""))
    assert all_of(reader) == [Publish(topic="a", payload=b"x")] * 3
    reader = greeted()
    reader.feed(named("a"))
    with pytest.raises(RemoteProtocolError) as caught:
        reader.next_event()
    assert caught.value.reason is ReasonCode.TOPIC_ALIAS_INVALID


def test_subscription_identifiers_reach_a_client_as_a_run() -> None:
    properties = Properties(subscription_identifiers=(1, 300))
    packet = Publish(topic="a", payload=b"x", properties=properties)
    reader = PacketReader(role=Role.CLIENT, max_packet_bytes=1000)
    reader.feed(encode(Connack(), V5) + encode(packet, V5))
    assert isinstance(reader.next_event(), Connack)
    assert only_run(reader).packet() == packet


def test_version_is_learnt_from_connect_even_when_it_is_refused() -> None:
    assert greeted(V311).version is V311
    for level, version in ((4, V311), (5, V5), (6, V5), (3, V311)):
        reader = PacketReader(role=Role.SERVER, max_packet_bytes=100)
        reader.feed(b"\x10\x0e\0\4MQTT" + bytes((level,)) + b"\x03\0\x3c\0\0\1a")
        with pytest.raises(RemoteProtocolError):
            reader.next_event()
        assert reader.version is version


@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\0\x01", b"\xc0\0"])
def test_other_protocol_is_refused_on_its_first_bytes(wire: bytes) -> None:
    reader = PacketReader(role=Role.SERVER, max_packet_bytes=100)
    reader.feed(wire[:1])
    with pytest.raises(RemoteProtocolError):
        reader.next_event()


def test_too_long_packet_is_refused_on_its_fixed_header() -> None:
    reader = greeted(most=1_000)
    reader.feed(b"\x30\xe5\x07")  # 997 and 3 bytes of fixed header: just fits
    assert reader.next_event() is None
    reader = greeted(most=1_000)
    reader.feed(b"\x30\xe6\x07")
    with pytest.raises(RemoteProtocolError) as caught:
        reader.next_event()
    assert caught.value.reason is ReasonCode.PACKET_TOO_LARGE


def test_feeding_before_all_is_read_is_refused_and_changes_nothing() -> None:
    reader = greeted()
    reader.feed(b"\xc0\0")
    with pytest.raises(LocalProtocolError):
        reader.feed(b"\xc0\0")
    assert all_of(reader) == [Pingreq()]
    reader.feed(b"")
    reader.feed(b"\xc0\0")
    assert all_of(reader) == [Pingreq()]


def test_what_follows_disconnect_is_ignored() -> None:
    reader = greeted()
    reader.feed(encode(Disconnect(), V5) + b"garbage")
    assert all_of(reader) == [Disconnect()]
    reader.feed(b"more")
    assert reader.next_event() is None
    assert reader.pending_bytes == 0
    assert "closed" in repr(reader)


def test_events_before_an_error_still_arrive() -> None:
    reader = greeted()
    answer = Puback(packet_id=1, reason=ReasonCode.NOT_AUTHORIZED)
    reader.feed(encode(answer, V5) + b"\0")
    assert reader.next_event() == answer
    with pytest.raises(RemoteProtocolError):
        reader.next_event()


@pytest.mark.parametrize("step", [16, 1_000, 65_536])
def test_long_packet_in_small_reads_costs_what_its_bytes_cost(step: int) -> None:
    packet = Publish(topic="a", payload=bytes(4_000_000))
    wire = encode(packet, V5)
    reader = greeted(most=1 << 23)
    for at in range(0, len(wire) - step, step):
        reader.feed(wire[at : at + step])
        assert reader.next_event() is None
    reader.feed(wire[at + step :])
    assert only_run(reader).payload_bytes == 4_000_000
    # copying all of it at each read would meet the timeout of the run first


def test_unfinished_packet_in_tiny_reads_holds_no_more_than_its_bytes() -> None:
    reader = greeted()
    reader.feed(b"\x30\xff\xff\x1f")
    assert reader.next_event() is None
    crumb = b"xy"
    tracemalloc.start()
    for _ in range(100_000):
        reader.feed(bytes(bytearray(crumb)))
        reader.next_event()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reader.pending_bytes == 200_004
    assert held < 2 * 200_004
