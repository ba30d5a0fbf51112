"""Which reason codes each packet may carry (the tables of 3.2 to 3.15), and what 3.1.1 has instead."""

from __future__ import annotations

from mqtt.errors import ReasonCode
from mqtt.packets import PacketType, Role

_R = ReasonCode

_PUBLISH_RECEIVED = frozenset(
    {
        _R.SUCCESS,
        _R.NO_MATCHING_SUBSCRIBERS,
        _R.UNSPECIFIED_ERROR,
        _R.IMPLEMENTATION_SPECIFIC_ERROR,
        _R.NOT_AUTHORIZED,
        _R.TOPIC_NAME_INVALID,
        _R.PACKET_IDENTIFIER_IN_USE,
        _R.QUOTA_EXCEEDED,
        _R.PAYLOAD_FORMAT_INVALID,
    }
)
_PUBLISH_RELEASED = frozenset({_R.SUCCESS, _R.PACKET_IDENTIFIER_NOT_FOUND})

_DISCONNECT_BY_BOTH = frozenset(
    {
        _R.NORMAL_DISCONNECTION,
        _R.UNSPECIFIED_ERROR,
        _R.MALFORMED_PACKET,
        _R.PROTOCOL_ERROR,
        _R.IMPLEMENTATION_SPECIFIC_ERROR,
        _R.TOPIC_NAME_INVALID,
        _R.RECEIVE_MAXIMUM_EXCEEDED,
        _R.TOPIC_ALIAS_INVALID,
        _R.PACKET_TOO_LARGE,
        _R.MESSAGE_RATE_TOO_HIGH,
        _R.QUOTA_EXCEEDED,
        _R.ADMINISTRATIVE_ACTION,
        _R.PAYLOAD_FORMAT_INVALID,
    }
)
_DISCONNECT_BY_SERVER = _DISCONNECT_BY_BOTH | {
    _R.NOT_AUTHORIZED,
    _R.SERVER_BUSY,
    _R.SERVER_SHUTTING_DOWN,
    _R.KEEP_ALIVE_TIMEOUT,
    _R.SESSION_TAKEN_OVER,
    _R.TOPIC_FILTER_INVALID,
    _R.RETAIN_NOT_SUPPORTED,
    _R.QOS_NOT_SUPPORTED,
    _R.USE_ANOTHER_SERVER,
    _R.SERVER_MOVED,
    _R.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    _R.CONNECTION_RATE_EXCEEDED,
    _R.MAXIMUM_CONNECT_TIME,
    _R.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    _R.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
}
_DISCONNECT_BY_CLIENT = _DISCONNECT_BY_BOTH | {_R.DISCONNECT_WITH_WILL_MESSAGE}

ALLOWED: dict[PacketType, frozenset[ReasonCode]] = {
    PacketType.CONNACK: frozenset(
        {
            _R.SUCCESS,
            _R.UNSPECIFIED_ERROR,
            _R.MALFORMED_PACKET,
            _R.PROTOCOL_ERROR,
            _R.IMPLEMENTATION_SPECIFIC_ERROR,
            _R.UNSUPPORTED_PROTOCOL_VERSION,
            _R.CLIENT_IDENTIFIER_NOT_VALID,
            _R.BAD_USER_NAME_OR_PASSWORD,
            _R.NOT_AUTHORIZED,
            _R.SERVER_UNAVAILABLE,
            _R.SERVER_BUSY,
            _R.BANNED,
            _R.BAD_AUTHENTICATION_METHOD,
            _R.TOPIC_NAME_INVALID,
            _R.PACKET_TOO_LARGE,
            _R.QUOTA_EXCEEDED,
            _R.PAYLOAD_FORMAT_INVALID,
            _R.RETAIN_NOT_SUPPORTED,
            _R.QOS_NOT_SUPPORTED,
            _R.USE_ANOTHER_SERVER,
            _R.SERVER_MOVED,
            _R.CONNECTION_RATE_EXCEEDED,
        }
    ),
    PacketType.PUBACK: _PUBLISH_RECEIVED,
    PacketType.PUBREC: _PUBLISH_RECEIVED,
    PacketType.PUBREL: _PUBLISH_RELEASED,
    PacketType.PUBCOMP: _PUBLISH_RELEASED,
    PacketType.SUBACK: frozenset(
        {
            _R.GRANTED_QOS_0,
            _R.GRANTED_QOS_1,
            _R.GRANTED_QOS_2,
            _R.UNSPECIFIED_ERROR,
            _R.IMPLEMENTATION_SPECIFIC_ERROR,
            _R.NOT_AUTHORIZED,
            _R.TOPIC_FILTER_INVALID,
            _R.PACKET_IDENTIFIER_IN_USE,
            _R.QUOTA_EXCEEDED,
            _R.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
            _R.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
            _R.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        }
    ),
    PacketType.UNSUBACK: frozenset(
        {
            _R.SUCCESS,
            _R.NO_SUBSCRIPTION_EXISTED,
            _R.UNSPECIFIED_ERROR,
            _R.IMPLEMENTATION_SPECIFIC_ERROR,
            _R.NOT_AUTHORIZED,
            _R.TOPIC_FILTER_INVALID,
            _R.PACKET_IDENTIFIER_IN_USE,
        }
    ),
    PacketType.DISCONNECT: _DISCONNECT_BY_SERVER | _DISCONNECT_BY_CLIENT,
    PacketType.AUTH: frozenset({_R.SUCCESS, _R.CONTINUE_AUTHENTICATION, _R.RE_AUTHENTICATE}),
}
"""The codes a packet may carry, whoever sends it."""

_BY_SENDER: dict[tuple[PacketType, Role], frozenset[ReasonCode]] = {
    (PacketType.DISCONNECT, Role.CLIENT): _DISCONNECT_BY_CLIENT,
    (PacketType.DISCONNECT, Role.SERVER): _DISCONNECT_BY_SERVER,
    (PacketType.AUTH, Role.CLIENT): frozenset({_R.CONTINUE_AUTHENTICATION, _R.RE_AUTHENTICATE}),
    (PacketType.AUTH, Role.SERVER): frozenset({_R.SUCCESS, _R.CONTINUE_AUTHENTICATION}),
}


def allowed_from(packet_type: PacketType, sender: Role) -> frozenset[ReasonCode]:
    """Return the codes that `sender` may put into a packet."""
    return _BY_SENDER.get((packet_type, sender)) or ALLOWED[packet_type]


_CONNACK_311 = (
    _R.SUCCESS,
    _R.UNSUPPORTED_PROTOCOL_VERSION,
    _R.CLIENT_IDENTIFIER_NOT_VALID,
    _R.SERVER_UNAVAILABLE,
    _R.BAD_USER_NAME_OR_PASSWORD,
    _R.NOT_AUTHORIZED,
)
"""The return codes 0 to 5 of MQTT 3.1.1 (its 3.2.2.3) by the code of 5.0 with the same meaning."""

_SERVER_UNAVAILABLE_311, _NOT_AUTHORIZED_311 = 3, 5


def connack_code_311(reason: ReasonCode) -> int:
    """Return the 3.1.1 return code nearest to `reason`; never 0 for a failure."""
    if reason in _CONNACK_311:
        return _CONNACK_311.index(reason)
    if reason in (_R.BANNED, _R.BAD_AUTHENTICATION_METHOD):
        return _NOT_AUTHORIZED_311
    return _SERVER_UNAVAILABLE_311


def connack_reason_311(code: int) -> ReasonCode | None:
    """Return what a 3.1.1 return code means, None for a reserved one."""
    return _CONNACK_311[code] if code < len(_CONNACK_311) else None
