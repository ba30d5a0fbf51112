"""The control packets of MQTT 5.0 and 3.1.1 as immutable values.

A packet says nothing that its version cannot carry: in 3.1.1 there are no properties, and
reasons are the few that version knows (see `mqtt.encode`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import Final

from mqtt.errors import ReasonCode
from mqtt.properties import EMPTY, Properties

__all__ = [
    "EMPTY",
    "Auth",
    "Connack",
    "Connect",
    "Disconnect",
    "Packet",
    "PacketType",
    "Pingreq",
    "Pingresp",
    "Properties",
    "Puback",
    "Pubcomp",
    "Publish",
    "Pubrec",
    "Pubrel",
    "Role",
    "Suback",
    "Subscribe",
    "Subscription",
    "Unsuback",
    "Unsubscribe",
    "Version",
    "Will",
]

MAX_PACKET_ID: Final = 65_535


class Version(IntEnum):
    """The protocol level a client names in CONNECT (3.1.2.2); of MQTT 3.1 see `Connect.legacy`."""

    V311 = 4
    V5 = 5


class Role(Enum):
    """Which end of the connection we are; the peer is the other one."""

    SERVER = auto()
    CLIENT = auto()


class PacketType(IntEnum):
    """The upper four bits of a packet's first byte (2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """The message a server publishes when its client vanishes (3.1.3)."""

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """CONNECT (3.1). `keep_alive` in seconds, 0 means none. In 3.1.1 `clean_start` is Clean Session.

    `legacy`: the client speaks MQTT 3.1, and `version` is 3.1.1, whose packets are the same.
    """

    client_id: str = ""
    clean_start: bool = True
    keep_alive: int = 0
    version: Version = Version.V5
    legacy: bool = False
    will: Will | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """CONNACK (3.2)."""

    session_present: bool = False
    reason: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """PUBLISH (3.3). `packet_id` is 1 to 65,535 for QoS 1 and 2, None for QoS 0.

    `raw` holds the wire bytes it was read from, in the format `raw_version`; empty for a packet we
    made, for one that used a topic alias, and for a `dataclasses.replace` copy, which may differ.
    """

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties = EMPTY
    raw: bytes = field(default=b"", init=False, compare=False, repr=False)
    raw_version: Version = field(default=Version.V5, init=False, compare=False, repr=False)

    @property
    def topic_bytes(self) -> bytes:
        """The topic as on the wire."""
        return self.topic.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Puback:
    """PUBACK (3.4): a QoS 1 message is owned by the other side."""

    packet_id: int
    reason: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Pubrec:
    """PUBREC (3.5): first answer to a QoS 2 PUBLISH."""

    packet_id: int
    reason: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Pubrel:
    """PUBREL (3.6): answer to a PUBREC."""

    packet_id: int
    reason: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Pubcomp:
    """PUBCOMP (3.7): answer to a PUBREL, the end of QoS 2."""

    packet_id: int
    reason: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One topic filter of a SUBSCRIBE with its options (3.8.3.1); 3.1.1 knows only `qos`.

    `retain_handling`: 0 send retained messages, 1 only for a new subscription, 2 never.
    """

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """SUBSCRIBE (3.8), with at least one filter."""

    packet_id: int
    filters: tuple[Subscription, ...]
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Suback:
    """SUBACK (3.9): one reason per filter, in order."""

    packet_id: int
    reasons: tuple[ReasonCode, ...]
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """UNSUBSCRIBE (3.10), with at least one filter."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsuback:
    """UNSUBACK (3.11): one reason per filter, in order; 3.1.1 carries none."""

    packet_id: int
    reasons: tuple[ReasonCode, ...] = ()
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Pingreq:
    """PINGREQ (3.12)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pingresp:
    """PINGRESP (3.13)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """DISCONNECT (3.14); 3.1.1 carries no reason, and only clients send it."""

    reason: ReasonCode = ReasonCode.NORMAL_DISCONNECTION
    properties: Properties = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """AUTH (3.15), MQTT 5.0 only."""

    reason: ReasonCode = ReasonCode.SUCCESS
    properties: Properties = EMPTY


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
