"""CONNECT (3.1): the one packet that is read before the version is known."""

from __future__ import annotations

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
"""MQTT 3.1, which nobody here speaks, but whose clients understand a 3.1.1 refusal."""


def read_version(cursor: Cursor) -> Version:
    """Read protocol name and level (3.1.2.1, 3.1.2.2) and return the version they mean.

    Raises:
        RemoteProtocolError: 0x81 for another protocol; 0x84 for another version, with `version`
            set to the format in which the client is likeliest to understand a refusal.
    """
    name = cursor.binary("protocol name")
    if name not in (_PROTOCOL_NAME, _OLD_PROTOCOL_NAME):
        raise RemoteProtocolError("this is not MQTT: unknown protocol name")
    level = cursor.byte("protocol version")
    if name == _PROTOCOL_NAME and level in (Version.V311, Version.V5):
        return Version(level)
    raise RemoteProtocolError(
        f"protocol version {level} is not supported; use MQTT 5.0 (5) or 3.1.1 (4)",
        ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
        version=Version.V5 if level > Version.V5 else Version.V311,
    )


def decode_connect(cursor: Cursor) -> Connect:
    """Return the CONNECT whose variable header begins at `cursor`.

    Raises:
        RemoteProtocolError: a rule of 3.1 is broken. Its `version` is the client's, so that the
            refusal can be written in its format.
    """
    version = read_version(cursor)
    try:
        return _decode_rest(cursor, version)
    except RemoteProtocolError as error:
        error.version = version
        raise


def _decode_rest(cursor: Cursor, version: Version) -> Connect:
    flags = cursor.byte("connect flags")
    _verify_flags(flags, version)
    keep_alive = cursor.two_bytes("keep alive")
    in_5 = version is Version.V5
    properties = read_properties(cursor, Site.CONNECT) if in_5 else EMPTY
    client_id = cursor.text("client id")
    clean_start = bool(flags & _CLEAN_START)
    if not client_id and not clean_start and not in_5:
        raise RemoteProtocolError(
            "an empty client id needs a clean session", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        )
    will = _will(cursor, flags, version) if flags & _WILL else None
    username = cursor.text("user name") if flags & _USERNAME else None
    password = cursor.binary("password") if flags & _PASSWORD else None
    cursor.finish("CONNECT")
    return Connect(
        client_id=client_id,
        clean_start=clean_start,
        keep_alive=keep_alive,
        version=version,
        will=will,
        username=username,
        password=password,
        properties=properties,
    )


def _verify_flags(flags: int, version: Version) -> None:
    if flags & _RESERVED:
        raise RemoteProtocolError("reserved connect flag is set")
    if not flags & _WILL and flags & _WILL_DETAILS:
        raise RemoteProtocolError("will QoS or will retain without a will")
    if flags >> 3 & 3 == _QOS_3:
        raise RemoteProtocolError("will QoS 3 does not exist")
    if version is Version.V311 and flags & _PASSWORD and not flags & _USERNAME:
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
