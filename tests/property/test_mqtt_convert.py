"""A run in another form is what its changed packets are when they are encoded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings, strategies as st

from mqtt.convert import aliased, number, variant
from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.packets import EMPTY, Connack, Packet, Publish, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run, run_of
from tests.property.mqtt_packets import PACKET_IDS, QOS, VERSIONS, bursts, publishes

IDENTIFIERS = st.lists(st.integers(1, 268_435_455), max_size=2).map(tuple)
SECONDS = st.integers(0, 2**32 - 1)


def runs_of(wire: bytes, version: Version) -> list[Run]:
    reader = PacketReader(role=Role.CLIENT, max_packet_bytes=1 << 20, topic_alias_maximum=65_535)
    reader.version = version
    reader.feed(encode(Connack(), version))
    assert isinstance(reader.next_event(), Connack)
    assert reader.next_event() is None
    reader.feed(wire)
    found: list[Run] = []
    with suppress(RemoteProtocolError):  # some bursts end so
        while (event := reader.next_event()) is not None:
            if isinstance(event, Run):
                found.append(event)
    return found


def packets(run: Run) -> list[Publish]:
    return [run.packet(each) for each in range(run.count)]


def decoded(wire: bytes, stride: int, version: Version) -> list[Packet]:
    starts = range(0, len(wire), stride)
    return [decode_packet(wire[at : at + stride], version, Role.CLIENT) for at in starts]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), version=VERSIONS, to=VERSIONS, qos=QOS, retain=st.booleans())
def test_variant_is_the_changed_packets(
    data: st.DataObject, version: Version, to: Version, qos: int, *, retain: bool
) -> None:
    identifiers = data.draw(IDENTIFIERS)
    first_id, dup = data.draw(PACKET_IDS), data.draw(st.booleans())
    for run in runs_of(data.draw(bursts(version, Role.SERVER)), version):
        expires = run.expiry_interval is not None
        expiry_s = data.draw(st.none() | SECONDS) if expires else None
        found = variant(
            run, version=to, qos=qos, retain=retain, identifiers=identifiers, expiry_s=expiry_s
        )
        count = min(run.count, 65_536 - first_id)
        ids = range(first_id, first_id + count)
        wire = number(found, 0, ids, dup=dup) if qos else found.data[: found.stride * count]
        assert decoded(wire, found.stride, to) == [
            changed(each, to, identifiers, expiry_s, qos, retain=retain, dup=dup, packet_id=number_)
            for each, number_ in zip(packets(run), ids, strict=False)
        ]


def changed(
    packet: Publish,
    version: Version,
    identifiers: tuple[int, ...],
    expiry_s: int | None,
    qos: int,
    *,
    retain: bool,
    dup: bool,
    packet_id: int,
) -> Publish:
    properties = packet.properties
    if expiry_s is not None:
        properties = replace(properties, message_expiry_interval=expiry_s)
    added = (*identifiers, *properties.subscription_identifiers)
    properties = replace(properties, subscription_identifiers=added)
    return replace(
        packet,
        qos=qos,
        retain=retain,
        dup=dup and qos > 0,
        packet_id=packet_id if qos else None,
        properties=properties if version is Version.V5 else EMPTY,
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), alias=st.integers(1, 65_535), with_topic=st.booleans())
def test_aliased_run_is_its_packets_with_the_alias(
    data: st.DataObject, alias: int, *, with_topic: bool
) -> None:
    for run in runs_of(data.draw(bursts(Version.V5, Role.CLIENT)), Version.V5):
        found = aliased(
            variant(run, version=Version.V5, qos=0, retain=False), alias, with_topic=with_topic
        )
        assert decoded(found.data, found.stride, Version.V5) == [
            replace(
                each,
                qos=0,
                packet_id=None,
                topic=each.topic if with_topic else "",
                properties=replace(each.properties, topic_alias=alias),
            )
            for each in packets(run)
        ]


@settings(deadline=None)
@given(data=st.data(), version=VERSIONS, to=VERSIONS)
def test_message_is_a_run_of_one_that_says_the_same(
    data: st.DataObject, version: Version, to: Version
) -> None:
    made: Publish = data.draw(publishes(version, Role.CLIENT))
    read = decode_packet(encode(made, version), version, Role.SERVER)
    assert isinstance(read, Publish)
    assert read.raw
    wanted = replace(made, dup=False)
    if to is Version.V311:
        wanted = replace(wanted, properties=EMPTY)
    for each in (made, read):
        run = run_of(each, to)
        assert (run.count, run.packet(), run.payloads()) == (1, wanted, [made.payload])
        assert run.data == encode(wanted, to) or (each is read and to is version)
        assert Run.parse(run.data, to).packet() == wanted
