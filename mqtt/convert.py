"""Messages in another form than they came in: other version, QoS, flags or properties, by slices.

Theory of operation: the topic and the payload of a message are the same bytes in both versions
and at every QoS. Between them stand a packet identifier (QoS 1, 2) and properties (5.0). All packets of a
run share every offset, so another form of it is one new header, joined with one slice a packet: the
payload, with the properties before it where they stay. Added properties go to the front of the section,
into the header; their order among others is free (2.2.2). What differs from packet to packet is
written as columns afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqtt.encode import MAX_QOS
from mqtt.errors import LocalProtocolError
from mqtt.identifiers import ID_BYTES, write_ids
from mqtt.packets import MAX_PACKET_ID, PacketType, Version
from mqtt.properties import SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS
from mqtt.runs import DUP, Run
from mqtt.spans import EXPIRY_BYTES, expiry_span
from mqtt.wire import Cursor, write_integer, write_varint

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_ID = bytes(ID_BYTES)
_NO_TOPIC = b"\0\0"


def variant(
    run: Run,
    *,
    version: Version,
    qos: int,
    retain: bool,
    identifiers: tuple[int, ...] = (),
    expiry_s: int | None = None,
) -> Run:
    """Return the messages of `run` as a subscriber gets them, packet identifiers aside.

    Args:
        run: the messages as they came in.
        version: the subscriber's; to 3.1.1 the properties are dropped.
        qos: of the delivery; above 0 the packet identifiers of the result mean nothing, see `number`.
        retain: the RETAIN flag of the delivery.
        identifiers: Subscription Identifiers to add; 5.0 only, each at least 1.
        expiry_s: replaces the Message Expiry Interval, seconds; only where the messages have one.

    Returns:
        `run` itself when nothing changes; never with DUP (3.3.1-3).

    Raises:
        LocalProtocolError: no such QoS or identifier, or the packets become too long for MQTT.
    """
    first = _first_byte(qos, retain=retain)
    added = _subscription_identifiers(identifiers) if version is Version.V5 else b""
    if version is run.version and first == run.data[0] and not added:
        found = run
    else:
        found = _rebuilt(run, version, first, run.data[run.head : run.body], added)
    if expiry_s is None or version is not Version.V5:
        return found
    return _expiring(found, expiry_s)


def number(run: Run, first_index: int, packet_ids: Sequence[int] | range, *, dup: bool) -> bytes:
    """Return the wire bytes of some packets of a QoS 1 or 2 run, with packet identifiers of their own.

    Args:
        run: what `variant` gave.
        first_index: the first packet, counted from 0.
        packet_ids: one for each packet from there on, 1 to 65,535; a `range` is fastest.
        dup: whether this is a redelivery (3.3.1-1).

    Raises:
        LocalProtocolError: the run has not as many packets, or is QoS 0, or an identifier is not legal.
    """
    count, stride = len(packet_ids), run.stride
    if not run.qos or first_index < 0 or first_index + count > run.count:
        raise LocalProtocolError(f"no {count} packets to number from {first_index} on in {run!r}")
    start = first_index * stride
    if count == 1:
        return _numbered(run, start, packet_ids[0], dup=dup)
    out = bytearray(run.data[start : start + count * stride])
    write_ids(out, run.body, stride, packet_ids)
    if dup and count:
        out[::stride] = bytes((out[0] | DUP,)) * count
    return bytes(out)


def _numbered(run: Run, start: int, packet_id: int, *, dup: bool) -> bytes:
    """Return one packet with its identifier: without the columns of `number`, in a third of the time."""
    if not 0 < packet_id <= MAX_PACKET_ID:
        raise LocalProtocolError(f"packet ids must be 1 to {MAX_PACKET_ID}")
    data, body, end = run.data, start + run.body, start + run.stride
    tail = packet_id.to_bytes(ID_BYTES) + data[body + ID_BYTES : end]
    if dup:
        return bytes((data[start] | DUP,)) + data[start + 1 : body] + tail
    return data[start:body] + tail


def aliased(run: Run, alias: int, *, with_topic: bool) -> Run:
    """Return the packets of a 5.0 run with a Topic Alias (3.3.2.3.4).

    Args:
        run: what the subscriber would get without one.
        alias: 1 to what the subscriber announced.
        with_topic: whether the packets also say the topic, and so teach the alias.

    Raises:
        LocalProtocolError: the run is 3.1.1, or there is no such alias.
    """
    if run.version is not Version.V5 or alias < 1:
        raise LocalProtocolError(f"topic alias {alias} cannot be in {run!r}")
    topic = run.data[run.head : run.body] if with_topic else _NO_TOPIC
    added = bytes((TOPIC_ALIAS,)) + write_integer(alias, 2, "topic alias")
    return _rebuilt(run, run.version, run.data[0], topic, added)


def _first_byte(qos: int, *, retain: bool) -> int:
    if not 0 <= qos <= MAX_QOS:
        raise LocalProtocolError(f"QoS {qos} does not exist")
    return PacketType.PUBLISH << 4 | qos << 1 | retain


def _subscription_identifiers(identifiers: tuple[int, ...]) -> bytes:
    if identifiers and min(identifiers) < 1:
        raise LocalProtocolError("subscription identifier is 0")
    code = bytes((SUBSCRIPTION_IDENTIFIER,))
    return b"".join([code + write_varint(each) for each in identifiers])


def _rebuilt(run: Run, version: Version, first: int, topic: bytes, added: bytes) -> Run:
    """Return the packets of `run` behind another header.

    Args:
        run: the packets.
        version: the format of the result.
        first: first byte of each packet.
        topic: with its length.
        added: encoded properties to put in front of the others.
    """
    data, stride, payload = run.data, run.stride, run.payload
    kept = payload  # offset of what is taken over of each packet
    if version is Version.V5 and run.version is Version.V5:
        cursor = Cursor(data, run.properties)
        cursor.varint("property length")
        kept = cursor.position
    qos = first >> 1 & 3
    between = _NO_ID if qos else b""
    if version is Version.V5:
        between += write_varint(len(added) + payload - kept) + added
    length = write_varint(len(topic) + len(between) + stride - kept)
    head = 1 + len(length)
    header = b"".join((bytes((first,)), length, topic, between))
    body = head + len(topic)
    return Run(
        _joined(header, data, kept, stride, run.count),
        len(header) + stride - kept,
        run.count,
        head,
        b"" if topic == _NO_TOPIC else run.topic,
        body,
        body + (ID_BYTES if qos else 0),
        len(header) + payload - kept,
        version,
        qos,
    )


def _joined(header: bytes, data: bytes, kept: int, stride: int, count: int) -> bytes:
    """Return `count` packets: `header`, and of each `stride` bytes of `data` those from `kept` on."""
    if count == 1:
        return header + data[kept:]
    size = stride - kept
    if not size:
        return header * count
    return header + header.join([data[at : at + size] for at in range(kept, len(data), stride)])


def _expiring(run: Run, expiry_s: int) -> Run:
    """Return the packets of a 5.0 run with another Message Expiry Interval."""
    start, end = expiry_span(run.data, run.properties)
    interval = write_integer(expiry_s, EXPIRY_BYTES, "message expiry interval")
    if start == end or run.data[start:end] == interval:
        return run
    out = bytearray(run.data)
    for offset, byte in enumerate(interval, start):
        out[offset :: run.stride] = bytes((byte,)) * run.count
    return run.repeated(bytes(out), run.count)
