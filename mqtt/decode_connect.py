"""CONNECT (3.1): the one packet that is read before the version is known."""

from __future__ import annotations

from dataclasses import dataclass

from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import EMPTY, Connect, Version, Will
from mqtt.properties import Site, read_properties
from mqtt.topics import verify_topic_name
from mqtt.wire import Cursor

_RESERVED, _CLEAN_START, _WILL, _WILL_RETAIN, _PASSWORD, _USERNAME = 1, 2, 4, 0x20, 0x40, 0x80
_WILL_DETAILS = 0x38
_QOS_3 = 3
_PROTOCOL_NAME = b"MQTT"
_OLD_PROTOCOL_NAME = b"MQIsdp"
_OLD_LEVEL = 3
"""MQTT 3.1; where it is not served, its clients understand a 3.1.1 refusal."""
_OLD_CLIENT_ID_CHARACTERS = 23
"""The longest client identifier of MQTT 3.1, which also has no empty ones (its section 3.1)."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a CONNECT says it speaks.

    Attributes:
        version: the format of its packets.
        legacy: it is MQTT 3.1, which has the format of 3.1.1.
    """

    version: Version
    legacy: bool = False


def read_protocol(cursor: Cursor, *, allow_v31: bool) -> Protocol:
    """Read protocol name and level (3.1.2.1, 3.1.2.2) and return what they mean.

    Raises:
        RemoteProtocolError: 0x81 for another protocol; 0x84 for another version, with `version`
            set to the format in which the client is likeliest to understand a refusal.
    """
    name = cursor.binary("protocol name")
    if name not in (_PROTOCOL_NAME, _OLD_PROTOCOL_NAME):
        raise RemoteProtocolError("this is not MQTT: unknown protocol name")
    level = cursor.byte("protocol version")
    if name == _PROTOCOL_NAME and level in (Version.V311, Version.V5):
        return Protocol(Version(level))
    if allow_v31 and name == _OLD_PROTOCOL_NAME and level == _OLD_LEVEL:
        return Protocol(Version.V311, legacy=True)
    raise RemoteProtocolError(
        f"protocol version {level} is not supported; use MQTT 5.0 (5) or 3.1.1 (4)",
        ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
        version=Version.V5 if level > Version.V5 else Version.V311,
    )


def decode_connect(cursor: Cursor, *, allow_v31: bool = False) -> Connect:
    """Return the CONNECT whose variable header begins at `cursor`.

    Args:
        cursor: holds just this packet.
        allow_v31: whether MQTT 3.1 is served too.

    Raises:
        RemoteProtocolError: a rule of 3.1 is broken. Its `version` is the client's, so that the
            refusal can be written in its format.
    """
    protocol = read_protocol(cursor, allow_v31=allow_v31)
    try:
        return _decode_rest(cursor, protocol)
    except RemoteProtocolError as error:
        error.version = protocol.version
        raise


def _decode_rest(cursor: Cursor, protocol: Protocol) -> Connect:
    version, legacy = protocol.version, protocol.legacy
    flags = cursor.byte("connect flags")
    _verify_flags(flags, protocol)
    keep_alive = cursor.two_bytes("keep alive")
    in_5 = version is Version.V5
    properties = read_properties(cursor, Site.CONNECT) if in_5 else EMPTY
    client_id = cursor.text("client id")
    clean_start = bool(flags & _CLEAN_START)
    _verify_client_id(client_id, protocol, clean_start=clean_start)
    will = _will(cursor, flags, version) if flags & _WILL else None
    if legacy and not cursor.left:
        flags &= ~(_USERNAME | _PASSWORD)  # 3.1: flagged ones may be missing at the end
    username = cursor.text("user name") if flags & _USERNAME else None
    if legacy and not cursor.left:
        flags &= ~_PASSWORD
    password = cursor.binary("password") if flags & _PASSWORD else None
    cursor.finish("CONNECT")
    return Connect(
        client_id=client_id,
        clean_start=clean_start,
        keep_alive=keep_alive,
        version=version,
        legacy=legacy,
        will=will,
        username=username,
        password=password,
        properties=properties,
    )


def _verify_client_id(client_id: str, protocol: Protocol, *, clean_start: bool) -> None:
    if protocol.legacy and not 0 < len(client_id) <= _OLD_CLIENT_ID_CHARACTERS:
        raise RemoteProtocolError(
            f"a client id of MQTT 3.1 has 1 to {_OLD_CLIENT_ID_CHARACTERS} characters",
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
        )
    if not client_id and not clean_start and protocol.version is Version.V311:
        raise RemoteProtocolError(
            "an empty client id needs a clean session", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        )


def _verify_flags(flags: int, protocol: Protocol) -> None:
    if flags & _RESERVED and not protocol.legacy:  # 3.1 says nothing about its value
        raise RemoteProtocolError("reserved connect flag is set")
    if not flags & _WILL and flags & _WILL_DETAILS and not protocol.legacy:
        raise RemoteProtocolError("will QoS or will retain without a will")
    if flags >> 3 & 3 == _QOS_3:
        raise RemoteProtocolError("will QoS 3 does not exist")
    if protocol.version is Version.V311 and flags & _PASSWORD and not flags & _USERNAME:
        raise RemoteProtocolError("a password without a user name needs MQTT 5.0")


def _will(cursor: Cursor, flags: int, version: Version) -> Will:
    properties = read_properties(cursor, Site.WILL) if version is Version.V5 else EMPTY
    if properties.response_topic is not None:
        verify_topic_name(properties.response_topic.encode())
    topic = verify_topic_name(cursor.binary("will topic"))
    payload = cursor.binary("will payload")
    return Will(
        topic=topic,
        payload=payload,
        qos=flags >> 3 & 3,
        retain=bool(flags & _WILL_RETAIN),
        properties=properties,
    )
