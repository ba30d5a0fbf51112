"""One whole packet's bytes to a packet, for both versions: every rule of the wire format is here.

Rules of this file: a decoder reads its packet to the last byte and refuses what is left over;
garbage raises `RemoteProtocolError` and nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from typing import assert_never

from mqtt.decode_connect import decode_connect
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import (
    EMPTY,
    Auth,
    Connack,
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
    Role,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
)
from mqtt.properties import Site, read_properties
from mqtt.reasons import allowed_from, connack_reason_311
from mqtt.topics import SHARED_PREFIX, verify_topic_filter, verify_topic_name
from mqtt.wire import Cursor, protocol_error

_FROM_CLIENT_ONLY = frozenset(
    {
        PacketType.CONNECT,
        PacketType.SUBSCRIBE,
        PacketType.UNSUBSCRIBE,
        PacketType.PINGREQ,
    }
)
_FROM_SERVER_ONLY = frozenset(
    {PacketType.CONNACK, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP}
)
_FLAGS_2 = frozenset({PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE})
_SUBACK_311 = frozenset(
    {
        ReasonCode.GRANTED_QOS_0,
        ReasonCode.GRANTED_QOS_1,
        ReasonCode.GRANTED_QOS_2,
        ReasonCode.UNSPECIFIED_ERROR,
    }
)
_QOS_3 = 3
MAX_FILTERS = 4_096
"""Topic filters in one packet. The standard sets no bound; 200,000 in a megabyte cost their reader a second."""
_OPTIONS_RESERVED_311, _OPTIONS_RESERVED_5 = 0xFC, 0xC0


def decode_packet(data: bytes, version: Version, role: Role, *, allow_v31: bool = False) -> Packet:
    """Return the packet that `data` holds.

    Args:
        data: exactly one packet, fixed header included.
        version: the connection's version; a CONNECT names its own.
        role: who is reading; it decides which packets and properties the peer may send.
        allow_v31: whether a CONNECT may name MQTT 3.1.

    Raises:
        RemoteProtocolError: the bytes break a rule of MQTT.
    """
    cursor = Cursor(data)
    packet_type = verify_first_byte(cursor.byte("packet type"), version, role)
    if cursor.varint("remaining length") != cursor.left:
        raise RemoteProtocolError("remaining length differs from the packet's length")
    return decode_body(cursor, packet_type, version, role, allow_v31=allow_v31)


def decode_body(  # noqa: PLR0911, C901 - one case per packet type
    cursor: Cursor,
    packet_type: PacketType,
    version: Version,
    role: Role,
    *,
    allow_v31: bool = False,
) -> Packet:
    """Return the packet whose variable header begins at `cursor`; see `decode_packet`.

    Args:
        cursor: holds exactly one packet, and stands behind its verified fixed header.
        packet_type: what `verify_first_byte` made of its first byte.
        version: the connection's version; a CONNECT names its own.
        role: who is reading.
        allow_v31: whether a CONNECT may name MQTT 3.1.

    Raises:
        RemoteProtocolError: the bytes break a rule of MQTT.
    """
    match packet_type:
        case PacketType.PUBLISH:
            return decode_publish(cursor, version, role)
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            return _acknowledgement(cursor, packet_type, version, role)
        case PacketType.SUBSCRIBE:
            return _subscribe(cursor, version)
        case PacketType.UNSUBSCRIBE:
            return _unsubscribe(cursor, version)
        case PacketType.CONNECT:
            return decode_connect(cursor, allow_v31=allow_v31)
        case PacketType.CONNACK:
            return _connack(cursor, version)
        case PacketType.SUBACK:
            return _suback(cursor, version)
        case PacketType.UNSUBACK:
            return _unsuback(cursor, version)
        case PacketType.DISCONNECT | PacketType.AUTH:
            return _farewell(cursor, packet_type, version, role)
        case PacketType.PINGREQ | PacketType.PINGRESP:
            cursor.finish(packet_type.name)
            return Pingreq() if packet_type is PacketType.PINGREQ else Pingresp()
        case _:
            assert_never(packet_type)


def verify_first_byte(first: int, version: Version, role: Role) -> PacketType:
    """Return the packet type that `first` names, when the peer may send it with these flags.

    Raises:
        RemoteProtocolError: reserved type or flags (2.1.3-1), or a packet of our own side.
    """
    known = LEGAL_FIRST_BYTES[role][version].get(first)
    return _weigh_first_byte(first, version, role) if known is None else known


def _weigh_first_byte(first: int, version: Version, role: Role) -> PacketType:
    if first >> 4 == 0:
        raise RemoteProtocolError("packet type 0 is reserved")
    packet_type = PacketType(first >> 4)
    flags = first & 0x0F
    ours = _FROM_SERVER_ONLY if role is Role.SERVER else _FROM_CLIENT_ONLY
    if packet_type in ours:
        raise protocol_error(f"{packet_type.name} never comes from this side")
    if packet_type is PacketType.PUBLISH:
        _verify_publish_flags(flags)
    elif flags != (2 if packet_type in _FLAGS_2 else 0):
        raise RemoteProtocolError(f"{packet_type.name} has flag bits {flags:04b}")
    if version is Version.V311:
        _verify_type_311(packet_type, role)
    return packet_type


def _verify_publish_flags(flags: int) -> None:
    qos = flags >> 1 & 3
    if qos == _QOS_3:
        raise RemoteProtocolError("QoS 3 does not exist")
    if flags & 8 and not qos:
        raise RemoteProtocolError("DUP flag on a QoS 0 message")


def _verify_type_311(packet_type: PacketType, role: Role) -> None:
    if packet_type is PacketType.AUTH:
        raise protocol_error("AUTH needs MQTT 5.0")
    if packet_type is PacketType.DISCONNECT and role is Role.CLIENT:
        raise protocol_error("a server sends no DISCONNECT in MQTT 3.1.1")


def _legal_first_bytes(version: Version, role: Role) -> dict[int, PacketType]:
    legal: dict[int, PacketType] = {}
    for first in range(256):
        with suppress(RemoteProtocolError):
            legal[first] = _weigh_first_byte(first, version, role)
    return legal


LEGAL_FIRST_BYTES = {
    role: {version: _legal_first_bytes(version, role) for version in Version} for role in Role
}
"""First bytes a reader of a role may meet, and the packet type they mean; for speed."""


def _packet_id(cursor: Cursor) -> int:
    packet_id = cursor.two_bytes("packet id")
    if packet_id == 0:
        raise protocol_error("packet id is 0")
    return packet_id


def _properties(cursor: Cursor, site: Site, version: Version) -> Properties:
    return read_properties(cursor, site) if version is Version.V5 else EMPTY


def _reason(byte: int, allowed: frozenset[ReasonCode], what: str) -> ReasonCode:
    try:
        reason = ReasonCode(byte)
    except ValueError as error:
        raise RemoteProtocolError(f"reason code 0x{byte:02x} is unknown") from error
    if reason not in allowed:
        raise protocol_error(f"{what} cannot carry reason {reason.name}")
    return reason


def decode_publish(cursor: Cursor, version: Version, role: Role) -> Publish:
    """Return the PUBLISH whose variable header begins at `cursor`; its flags were verified.

    A topic alias is left as it is, with an empty topic where the peer sent none.
    """
    data = cursor.data
    flags = data[0]
    qos = flags >> 1 & 3
    raw_topic = cursor.binary("topic name")
    # Only 5.0 has aliases, which stand for an empty topic.
    topic = verify_topic_name(raw_topic) if raw_topic or version is Version.V311 else ""
    packet_id = _packet_id(cursor) if qos else None
    properties = EMPTY
    if version is Version.V5:
        site = Site.PUBLISH_BY_CLIENT if role is Role.SERVER else Site.PUBLISH_BY_SERVER
        properties = read_properties(cursor, site)
    if not topic and properties.topic_alias is None:
        raise protocol_error("topic name is empty and there is no topic alias")
    if properties.topic_alias == 0:
        raise RemoteProtocolError("topic alias is 0", ReasonCode.TOPIC_ALIAS_INVALID)
    if properties.response_topic is not None:
        verify_topic_name(properties.response_topic.encode())
    publish = Publish(
        topic=topic,
        payload=cursor.rest(),
        qos=qos,
        retain=bool(flags & 1),
        dup=bool(flags & 8),
        packet_id=packet_id,
        properties=properties,
    )
    if properties.topic_alias is None:
        # `raw` is no argument of `Publish`, so that a changed copy cannot carry stale wire bytes.
        object.__setattr__(publish, "raw", data)
        object.__setattr__(publish, "raw_version", version)
    return publish


def _acknowledgement(
    cursor: Cursor, packet_type: PacketType, version: Version, role: Role
) -> Puback | Pubrec | Pubrel | Pubcomp:
    packet_id = _packet_id(cursor)
    reason, properties = ReasonCode.SUCCESS, EMPTY
    if version is Version.V5 and cursor.left:
        allowed = allowed_from(packet_type, _peer_of(role))
        reason = _reason(cursor.byte("reason"), allowed, packet_type.name)
        if cursor.left:
            properties = read_properties(cursor, Site[packet_type.name])
    cursor.finish(packet_type.name)
    match packet_type:
        case PacketType.PUBACK:
            return Puback(packet_id=packet_id, reason=reason, properties=properties)
        case PacketType.PUBREC:
            return Pubrec(packet_id=packet_id, reason=reason, properties=properties)
        case PacketType.PUBREL:
            return Pubrel(packet_id=packet_id, reason=reason, properties=properties)
        case _:
            return Pubcomp(packet_id=packet_id, reason=reason, properties=properties)


def _peer_of(role: Role) -> Role:
    return Role.CLIENT if role is Role.SERVER else Role.SERVER


def _subscribe(cursor: Cursor, version: Version) -> Subscribe:
    packet_id = _packet_id(cursor)
    properties = _properties(cursor, Site.SUBSCRIBE, version)
    filters: list[Subscription] = []
    while cursor.left:
        _verify_count(len(filters))
        filters.append(_subscription(cursor, version))
    if not filters:
        raise protocol_error("SUBSCRIBE without a topic filter")
    return Subscribe(packet_id=packet_id, filters=tuple(filters), properties=properties)


def _verify_count(filters: int) -> None:
    """Refuse one more filter: the whole packet is decoded in one go, while all other clients wait."""
    if filters >= MAX_FILTERS:
        raise RemoteProtocolError(
            f"more than {MAX_FILTERS} topic filters in one packet", ReasonCode.QUOTA_EXCEEDED
        )


def _subscription(cursor: Cursor, version: Version) -> Subscription:
    text = cursor.text("topic filter")
    verify_topic_filter(text)
    options = cursor.byte("subscription options")
    reserved = _OPTIONS_RESERVED_5 if version is Version.V5 else _OPTIONS_RESERVED_311
    if options & reserved:
        raise RemoteProtocolError("reserved subscription options are set")
    qos, handling = options & 3, options >> 4 & 3
    if qos == _QOS_3:
        raise RemoteProtocolError("QoS 3 does not exist")
    if handling == 3:  # noqa: PLR2004 - 3.8.3.1 reserves just this value
        raise protocol_error("retain handling 3 does not exist")
    no_local = bool(options & 4)
    if no_local and text.startswith(f"{SHARED_PREFIX}/"):
        raise protocol_error("a shared subscription cannot be no-local")
    return Subscription(
        filter=text,
        qos=qos,
        no_local=no_local,
        retain_as_published=bool(options & 8),
        retain_handling=handling,
    )


def _unsubscribe(cursor: Cursor, version: Version) -> Unsubscribe:
    packet_id = _packet_id(cursor)
    properties = _properties(cursor, Site.UNSUBSCRIBE, version)
    filters: list[str] = []
    while cursor.left:
        _verify_count(len(filters))
        text = cursor.text("topic filter")
        verify_topic_filter(text)
        filters.append(text)
    if not filters:
        raise protocol_error("UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters), properties=properties)


def _connack(cursor: Cursor, version: Version) -> Connack:
    flags = cursor.byte("connect acknowledge flags")
    if flags > 1:
        raise RemoteProtocolError("reserved connect acknowledge flags are set")
    code = cursor.byte("connect reason")
    if version is Version.V5:
        allowed = allowed_from(PacketType.CONNACK, Role.SERVER)
        reason = _reason(code, allowed, "CONNACK")
        properties = read_properties(cursor, Site.CONNACK)
    else:
        known = connack_reason_311(code)
        if known is None:
            raise protocol_error(f"connect return code {code} is reserved")
        reason, properties = known, EMPTY
    cursor.finish("CONNACK")
    if flags and reason is not ReasonCode.SUCCESS:
        raise protocol_error("a refused connection has no session")
    return Connack(session_present=bool(flags), reason=reason, properties=properties)


def _suback(cursor: Cursor, version: Version) -> Suback:
    packet_id = _packet_id(cursor)
    properties = _properties(cursor, Site.SUBACK, version)
    in_5 = version is Version.V5
    allowed = allowed_from(PacketType.SUBACK, Role.SERVER) if in_5 else _SUBACK_311
    reasons = tuple(_reason(each, allowed, "SUBACK") for each in cursor.rest())
    if not reasons:
        raise protocol_error("SUBACK without a reason")
    return Suback(packet_id=packet_id, reasons=reasons, properties=properties)


def _unsuback(cursor: Cursor, version: Version) -> Unsuback:
    packet_id = _packet_id(cursor)
    if version is Version.V311:
        cursor.finish("UNSUBACK")
        return Unsuback(packet_id=packet_id)
    properties = read_properties(cursor, Site.UNSUBACK)
    allowed = allowed_from(PacketType.UNSUBACK, Role.SERVER)
    reasons = tuple(_reason(each, allowed, "UNSUBACK") for each in cursor.rest())
    if not reasons:
        raise protocol_error("UNSUBACK without a reason")
    return Unsuback(packet_id=packet_id, reasons=reasons, properties=properties)


def _farewell(
    cursor: Cursor, packet_type: PacketType, version: Version, role: Role
) -> Disconnect | Auth:
    reason, properties = ReasonCode.SUCCESS, EMPTY
    leaving = packet_type is PacketType.DISCONNECT
    if version is Version.V5 and cursor.left:
        allowed = allowed_from(packet_type, _peer_of(role))
        reason = _reason(cursor.byte("reason"), allowed, packet_type.name)
        if cursor.left or not leaving:  # AUTH leaves out both or none (3.15.2.1)
            by_client = role is Role.SERVER
            site = Site.DISCONNECT_BY_CLIENT if by_client else Site.DISCONNECT_BY_SERVER
            properties = read_properties(cursor, site if leaving else Site.AUTH)
    elif not leaving and role is Role.SERVER:
        raise protocol_error("a client's AUTH cannot carry reason SUCCESS")
    cursor.finish(packet_type.name)
    if leaving:
        return Disconnect(reason=reason, properties=properties)
    return Auth(reason=reason, properties=properties)
