"""Packets to bytes, for both versions.

Rules of this file: nothing is written that `mqtt.decode` would refuse from the side that may send
it; a value that cannot be written raises `LocalProtocolError`. What 3.1.1 has no room for (a
reason, properties) is left out of a 3.1.1 packet where leaving it out changes no meaning for the
peer; where it would (a subscription option, an AUTH packet), it is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from mqtt.errors import LocalProtocolError, ReasonCode
from mqtt.packets import (
    EMPTY,
    MAX_PACKET_ID,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from mqtt.properties import Site, write_properties
from mqtt.reasons import ALLOWED, connack_code_311
from mqtt.topics import SHARED_PREFIX, filter_complaint, topic_complaint
from mqtt.wire import write_binary, write_integer, write_text, write_varint

_PROTOCOL, _PROTOCOL_31 = b"\0\4MQTT", b"\0\6MQIsdp\3"
"""Protocol name (3.1.2.1); that of MQTT 3.1 with its level."""
MAX_QOS = 2
MAX_RETAIN_HANDLING = 2
FAILURE_311 = 0x80
"""The one failure code of a 3.1.1 SUBACK (its 3.9.3)."""

_ACKNOWLEDGEMENTS: dict[type[Puback | Pubrec | Pubrel | Pubcomp], tuple[PacketType, Site]] = {
    Puback: (PacketType.PUBACK, Site.PUBACK),
    Pubrec: (PacketType.PUBREC, Site.PUBREC),
    Pubrel: (PacketType.PUBREL, Site.PUBREL),
    Pubcomp: (PacketType.PUBCOMP, Site.PUBCOMP),
}
_FLAGS = {PacketType.PUBREL: 2, PacketType.SUBSCRIBE: 2, PacketType.UNSUBSCRIBE: 2}
"""Reserved flag bits of the fixed header (2.1.3); 0 for the others."""


def encode(packet: Packet, version: Version) -> bytes:  # noqa: PLR0911, C901 - one case a type
    """Return the wire bytes of `packet`.

    Args:
        packet: any packet; a CONNECT names its own version.
        version: the connection's version.

    Raises:
        LocalProtocolError: the packet breaks a rule of MQTT or is longer than 268,435,455 bytes.
    """
    match packet:
        case Publish():
            return encode_publish(packet, version)
        case Puback() | Pubrec() | Pubrel() | Pubcomp():
            return _acknowledgement(packet, version)
        case Pingreq():
            return b"\xc0\0"
        case Pingresp():
            return b"\xd0\0"
        case Connect():
            return _connect(packet, version)
        case Connack():
            return _connack(packet, version)
        case Subscribe():
            return _subscribe(packet, version)
        case Unsubscribe():
            return _unsubscribe(packet, version)
        case Suback() | Unsuback():
            return _granted(packet, version)
        case Disconnect() | Auth():
            return _farewell(packet, version)
        case _:
            assert_never(packet)


def encode_bounded(packet: Packet, version: Version, max_bytes: int) -> bytes | None:
    """Return the wire bytes of `packet`, at most `max_bytes` long, or None if it cannot be that short.

    Reason String and then User Properties are dropped to make it fit, from every packet but PUBLISH
    (3.2.2-19, -20 and their kin).
    """
    wire = encode(packet, version)
    if len(wire) <= max_bytes:
        return wire
    if isinstance(packet, (Publish, Connect, Pingreq, Pingresp)):
        return None
    for shorter in (
        replace(packet.properties, reason_string=None),
        replace(packet.properties, reason_string=None, user_properties=()),
    ):
        wire = encode(replace(packet, properties=shorter), version)
        if len(wire) <= max_bytes:
            return wire
    return None


def encode_publish(packet: Publish, version: Version) -> bytes:
    """Return the wire bytes of a PUBLISH; see `encode`."""
    topic = write_text(packet.topic, "topic name")
    properties = packet.properties
    complaint = topic_complaint(packet.topic)
    if complaint is not None and (packet.topic or properties.topic_alias is None):
        raise LocalProtocolError(complaint)
    if properties.response_topic is not None:
        complaint = topic_complaint(properties.response_topic)
        if complaint is not None:
            raise LocalProtocolError(f"response {complaint}")
    flags = packet.dup << 3 | _qos(packet.qos) << 1 | packet.retain
    parts = [topic]
    if packet.qos:
        parts.append(_packet_id(packet.packet_id))
    elif packet.packet_id is not None or packet.dup:
        raise LocalProtocolError("a QoS 0 message has no packet id and no DUP flag")
    if version is Version.V5:
        if properties.topic_alias == 0:
            raise LocalProtocolError("topic alias is 0")
        parts.append(write_properties(properties, Site.PUBLISH))
    elif not packet.topic:
        raise LocalProtocolError("a topic alias needs MQTT 5.0")
    parts.append(packet.payload)
    return _framed(PacketType.PUBLISH, parts, flags)


def _framed(packet_type: PacketType, parts: list[bytes], flags: int | None = None) -> bytes:
    low = _FLAGS.get(packet_type, 0) if flags is None else flags
    length = write_varint(sum(map(len, parts)))
    return b"".join([bytes((packet_type << 4 | low,)), length, *parts])


def _qos(qos: int) -> int:
    if not 0 <= qos <= MAX_QOS:
        raise LocalProtocolError(f"QoS {qos} does not exist")
    return qos


def _packet_id(packet_id: int | None) -> bytes:
    if packet_id is None or not 1 <= packet_id <= MAX_PACKET_ID:
        raise LocalProtocolError(f"packet id must be 1 to {MAX_PACKET_ID}, not {packet_id}")
    return packet_id.to_bytes(2)


def _reason(packet_type: PacketType, reason: ReasonCode) -> bytes:
    if reason not in ALLOWED[packet_type]:
        raise LocalProtocolError(f"{packet_type.name} cannot carry reason {reason.name}")
    return bytes((reason,))


def _section(properties: Properties, site: Site, version: Version) -> bytes:
    return write_properties(properties, site) if version is Version.V5 else b""


def _trailer(reason: bytes, properties: bytes) -> bytes:
    """Return reason and properties in their shortest form: both may be left out (3.4.2.1, 3.14.2.1)."""
    if properties != b"\0":
        return reason + properties
    return b"" if reason == b"\0" else reason


def _acknowledgement(packet: Puback | Pubrec | Pubrel | Pubcomp, version: Version) -> bytes:
    packet_type, site = _ACKNOWLEDGEMENTS[type(packet)]
    parts = [_packet_id(packet.packet_id)]
    reason = _reason(packet_type, packet.reason)
    if version is Version.V5:
        parts.append(_trailer(reason, write_properties(packet.properties, site)))
    return _framed(packet_type, parts)


def _connect(packet: Connect, version: Version) -> bytes:
    if packet.version is not version:
        raise LocalProtocolError("the CONNECT names another version than the connection's")
    if packet.legacy and version is not Version.V311:
        raise LocalProtocolError("MQTT 3.1 has the format of 3.1.1")
    will = packet.will
    flags = packet.clean_start << 1
    parts = [_section(packet.properties, Site.CONNECT, version)]
    parts.append(write_text(packet.client_id, "client id"))
    if will is not None:
        flags |= 1 << 2 | _qos(will.qos) << 3 | will.retain << 5
        parts += _will(will, version)
    if packet.username is not None:
        flags |= 1 << 7
        parts.append(write_text(packet.username, "user name"))
    if packet.password is not None:
        flags |= 1 << 6
        parts.append(write_binary(packet.password, "password"))
    if version is Version.V311:
        _verify_connect_311(packet)
    head = (_PROTOCOL_31 if packet.legacy else _PROTOCOL + bytes((version,))) + bytes((flags,))
    return _framed(
        PacketType.CONNECT, [head, write_integer(packet.keep_alive, 2, "keep alive"), *parts]
    )


def _verify_connect_311(packet: Connect) -> None:
    if packet.password is not None and packet.username is None:
        raise LocalProtocolError("a password without a user name needs MQTT 5.0")
    if not packet.client_id and not packet.clean_start:
        raise LocalProtocolError("an empty client id needs a clean session in MQTT 3.1.1")


def _will(will: Will, version: Version) -> list[bytes]:
    complaint = topic_complaint(will.topic)
    if complaint is not None:
        raise LocalProtocolError(f"will {complaint}")
    response_topic = will.properties.response_topic
    complaint = None if response_topic is None else topic_complaint(response_topic)
    if complaint is not None:
        raise LocalProtocolError(f"will response {complaint}")
    return [
        _section(will.properties, Site.WILL, version),
        write_text(will.topic, "will topic"),
        write_binary(will.payload, "will payload"),
    ]


def _connack(packet: Connack, version: Version) -> bytes:
    if packet.session_present and packet.reason is not ReasonCode.SUCCESS:
        raise LocalProtocolError("a refused connection has no session")
    reason = _reason(PacketType.CONNACK, packet.reason)
    if version is Version.V311:
        reason = bytes((connack_code_311(packet.reason),))
    properties = _section(packet.properties, Site.CONNACK, version)
    return _framed(PacketType.CONNACK, [bytes((packet.session_present,)), reason, properties])


def _filter(text: str) -> bytes:
    complaint = filter_complaint(text, text.split("/"))
    if complaint is not None:
        raise LocalProtocolError(complaint)
    return write_text(text, "topic filter")


def _subscribe(packet: Subscribe, version: Version) -> bytes:
    if not packet.filters:
        raise LocalProtocolError("SUBSCRIBE needs at least one topic filter")
    parts = [_packet_id(packet.packet_id), _section(packet.properties, Site.SUBSCRIBE, version)]
    for each in packet.filters:
        parts += (_filter(each.filter), _options(each, version))
    return _framed(PacketType.SUBSCRIBE, parts)


def _options(each: Subscription, version: Version) -> bytes:
    if not 0 <= each.retain_handling <= MAX_RETAIN_HANDLING:
        raise LocalProtocolError(f"retain handling {each.retain_handling} does not exist")
    if each.no_local and each.filter.startswith(f"{SHARED_PREFIX}/"):
        raise LocalProtocolError("a shared subscription cannot be no-local")
    extended = each.no_local << 2 | each.retain_as_published << 3 | each.retain_handling << 4
    if extended and version is Version.V311:
        raise LocalProtocolError("subscription options need MQTT 5.0")
    return bytes((_qos(each.qos) | extended,))


def _unsubscribe(packet: Unsubscribe, version: Version) -> bytes:
    if not packet.filters:
        raise LocalProtocolError("UNSUBSCRIBE needs at least one topic filter")
    section = _section(packet.properties, Site.UNSUBSCRIBE, version)
    return _framed(
        PacketType.UNSUBSCRIBE,
        [_packet_id(packet.packet_id), section, *map(_filter, packet.filters)],
    )


def _granted(packet: Suback | Unsuback, version: Version) -> bytes:
    subscribing = isinstance(packet, Suback)
    packet_type = PacketType.SUBACK if subscribing else PacketType.UNSUBACK
    if not packet.reasons and (subscribing or version is Version.V5):
        raise LocalProtocolError(f"{packet_type.name} needs one reason for each topic filter")
    reasons = b"".join(_reason(packet_type, each) for each in packet.reasons)
    if version is Version.V311:
        reasons = bytes(min(each, FAILURE_311) for each in reasons) if subscribing else b""
    site = Site.SUBACK if subscribing else Site.UNSUBACK
    section = _section(packet.properties, site, version)
    return _framed(packet_type, [_packet_id(packet.packet_id), section, reasons])


def _farewell(packet: Disconnect | Auth, version: Version) -> bytes:
    leaving = isinstance(packet, Disconnect)
    packet_type = PacketType.DISCONNECT if leaving else PacketType.AUTH
    reason = _reason(packet_type, packet.reason)
    if version is Version.V5:
        site = Site.DISCONNECT if leaving else Site.AUTH
        section = write_properties(packet.properties, site)
        trailer = _trailer(reason, section)
        if trailer == reason and not leaving:
            trailer += section  # AUTH leaves out both or none (3.15.2.1)
        return _framed(packet_type, [trailer])
    if not leaving:
        raise LocalProtocolError("AUTH needs MQTT 5.0")
    if packet.reason is not ReasonCode.NORMAL_DISCONNECTION or packet.properties != EMPTY:
        raise LocalProtocolError("a DISCONNECT with a reason needs MQTT 5.0")
    return b"\xe0\0"
