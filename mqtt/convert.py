"""Messages in another form than they came in: other version, other QoS, by slices where possible.

Theory of operation: the topic and the payload of a message are the same bytes in both versions
and at every QoS. Between them stand a packet id (QoS 1, 2) and properties (5.0). So an outgoing
variant is the slice before, what belongs between, and the slice behind.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mqtt.encode import MAX_QOS, encode_publish
from mqtt.errors import LocalProtocolError
from mqtt.packets import MAX_PACKET_ID, PacketType, Version
from mqtt.wire import Cursor, write_varint

if TYPE_CHECKING:
    from mqtt.packets import Publish
    from mqtt.runs import Run

NO_PROPERTIES = b"\0"
"""In 5.0 the property length is sent also when it is 0 (2.2.2-1)."""


def convert_run(run: Run, to: Version) -> bytes:
    """Return the packets of `run` in the format of version `to`.

    To 3.1.1 the properties are dropped, to 5.0 an empty property section is added. The cost per
    packet is one slice, because all packets of a run share every offset.
    """
    if to is run.version:
        return run.data
    between = NO_PROPERTIES if to is Version.V5 else b""
    data, stride, start = run.data, run.stride, run.payload
    size = stride - start
    topic = data[run.head : run.body]
    header = data[:1] + write_varint(len(topic) + len(between) + size) + topic + between
    if run.count == 1:
        return header + data[start:]
    if not size:
        return header * run.count
    return header + header.join([data[at : at + size] for at in range(start, len(data), stride)])


def rewrite_publish(
    publish: Publish,
    *,
    version: Version,
    qos: int,
    packet_id: int | None,
    dup: bool,
    retain: bool,
) -> bytes:
    """Return the wire bytes of `publish` as one subscriber shall get it.

    Args:
        publish: the message as received, or made here.
        version: the subscriber's version; to 3.1.1 the properties are dropped.
        qos: the QoS of the delivery, 0 to 2.
        packet_id: the delivery's own id (1 to 65,535) when `qos` is not 0, else None.
        dup: whether this is a redelivery (3.3.1-1).
        retain: the RETAIN flag of the delivery.

    Raises:
        LocalProtocolError: the arguments contradict each other.
    """
    raw = publish.raw
    if not raw:
        outgoing = replace(publish, qos=qos, packet_id=packet_id, dup=dup, retain=retain)
        return encode_publish(outgoing, version)
    identifier = _identifier(qos, packet_id, dup=dup)
    cursor = Cursor(raw, 1)
    cursor.varint("remaining length")
    head = cursor.position
    body = head + 2 + int.from_bytes(raw[head : head + 2])
    if publish.raw_version is version:
        tail = raw[body + 2 if publish.qos else body :]
    else:
        tail = NO_PROPERTIES + publish.payload if version is Version.V5 else publish.payload
    first = PacketType.PUBLISH << 4 | dup << 3 | qos << 1 | retain
    length = write_varint(body - head + len(identifier) + len(tail))
    return b"".join((bytes((first,)), length, raw[head:body], identifier, tail))


def _identifier(qos: int, packet_id: int | None, *, dup: bool) -> bytes:
    if qos == 0:
        if packet_id is not None or dup:
            raise LocalProtocolError("a QoS 0 message has no packet id and no DUP flag")
        return b""
    if not 0 < qos <= MAX_QOS:
        raise LocalProtocolError(f"QoS {qos} does not exist")
    if packet_id is None or not 1 <= packet_id <= MAX_PACKET_ID:
        raise LocalProtocolError(f"packet id must be 1 to {MAX_PACKET_ID}, not {packet_id}")
    return packet_id.to_bytes(2)
