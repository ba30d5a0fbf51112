"""What the reader and its plain twin make of the same bytes; for property tests and fuzz targets."""

from __future__ import annotations

from mqtt.acks import AckRun
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Packet, Publish, Role, Version
from mqtt.plain import PlainReader
from mqtt.reader import PacketReader
from mqtt.runs import Run

MAX_PACKET_BYTES = 300
End = tuple[ReasonCode, str, Version | None] | None


def end_of(error: RemoteProtocolError) -> End:
    return error.reason, error.message, error.version


def expanded(event: Packet | Run | AckRun) -> list[Packet]:
    match event:
        case AckRun():
            assert event.packet_ids
            return [*event.packets()]
        case Run():
            return packets_of(event)
        case Publish():
            assert event.dup or event.retain or not event.raw
        case _:
            pass
    return [event]


def packets_of(run: Run) -> list[Packet]:
    assert run.count >= 1
    assert run.stride * run.count == len(run.data)
    assert len(run.packet_ids()) == (run.count if run.qos else 0)
    found: list[Packet] = []
    for index, payload in enumerate(run.payloads()):
        packet = run.packet(index)
        assert packet.payload == payload
        assert packet.topic.encode() == run.topic
        assert packet.qos == run.qos
        assert (packet.retain, packet.dup) == (False, False)
        assert packet.properties.message_expiry_interval == run.expiry_interval
        assert packet.packet_id == (run.packet_ids()[index] if run.qos else None)
        assert run.raw(index)[run.head + 2 : run.body] == run.topic
        found.append(packet)
    return found


def plain_events(
    wire: bytes, version: Version, role: Role, aliases: int
) -> tuple[list[Packet], End]:
    reader = PlainReader(
        role=role,
        max_packet_bytes=MAX_PACKET_BYTES,
        topic_alias_maximum=aliases,
        allow_v31=version is Version.V311,
    )
    reader.version = version
    reader.feed(wire)
    found: list[Packet] = []
    try:
        while (event := reader.next_event()) is not None:
            found.append(event)
    except RemoteProtocolError as error:
        return found, end_of(error)
    return found, None


def fast_events(
    chunks: list[bytes], version: Version, role: Role, aliases: int
) -> tuple[list[Packet], End]:
    reader = PacketReader(
        role=role,
        max_packet_bytes=MAX_PACKET_BYTES,
        topic_alias_maximum=aliases,
        allow_v31=version is Version.V311,
    )
    reader.version = version
    found: list[Packet] = []
    try:
        for chunk in chunks:
            reader.feed(chunk)
            assert reader.pending_bytes <= MAX_PACKET_BYTES + len(chunk)
            while (event := reader.next_event()) is not None:
                found += expanded(event)
            assert reader.pending_bytes < MAX_PACKET_BYTES
    except RemoteProtocolError as error:
        assert reader.pending_bytes == 0
        return found, end_of(error)
    return found, None
