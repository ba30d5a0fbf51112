"""Which packet may come when, and what topic aliases mean: the state of one connection's inbound side.

Sans-io and small, so that the reader of the data path and its plain twin keep the same rules.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mqtt.decode import verify_first_byte
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Connack, Connect, Disconnect, PacketType, Publish, Role, Version
from mqtt.wire import protocol_error

if TYPE_CHECKING:
    from mqtt.packets import Packet

_GREETING = {Role.SERVER: PacketType.CONNECT, Role.CLIENT: PacketType.CONNACK}
"""The first packet each side waits for, which comes once (3.1.0-1, 3.1.0-2, 3.2.0-1, 3.2.0-2)."""
_DUP = 0x08
_REPEATED_31 = frozenset({0x6A, 0x8A, 0xAA})
"""PUBREL, SUBSCRIBE and UNSUBSCRIBE with the DUP flag, which MQTT 3.1 allows them (its 2.1)."""


class InboundOrder:
    """Follows one connection.

    Attributes:
        role: which end we are.
        version: the connection's version; a server learns it from CONNECT.
        legacy: whether the client speaks MQTT 3.1.
        allow_v31: whether it may.
        greeted: whether the greeting has come.
        closed: whether the peer has said DISCONNECT: what follows is ignored (3.14.4-1).
    """

    __slots__ = (
        "_aliases",
        "_topic_alias_maximum",
        "allow_v31",
        "closed",
        "greeted",
        "legacy",
        "role",
        "version",
    )

    def __init__(self, *, role: Role, topic_alias_maximum: int, allow_v31: bool = False) -> None:
        self.role = role
        self.version = Version.V5
        self.legacy = False
        self.allow_v31 = allow_v31
        self.greeted = False
        self.closed = False
        self._topic_alias_maximum = topic_alias_maximum
        # INVARIANT: keys are 1 to topic_alias_maximum, so the table is bounded by what we announced.
        self._aliases: dict[int, str] = {}

    def verify_first_byte(self, first: int) -> PacketType:
        """Return the type of the packet that begins with `first`, if it may come now.

        Raises:
            RemoteProtocolError: it may not.
        """
        if self.legacy and first in _REPEATED_31:
            first &= ~_DUP
        packet_type = verify_first_byte(first, self.version, self.role)
        greeting = _GREETING[self.role]
        if packet_type is greeting:
            if self.greeted:
                raise protocol_error(f"a second {greeting.name}")
        elif not self.greeted and not self._authenticating(packet_type):
            raise protocol_error(f"{packet_type.name} before {greeting.name}")
        return packet_type

    def _authenticating(self, packet_type: PacketType) -> bool:
        return packet_type is PacketType.AUTH and self.role is Role.CLIENT

    def accept(self, packet: Packet) -> Packet:
        """Take note of a decoded packet; return it with its topic alias resolved.

        Raises:
            RemoteProtocolError: the alias is above our maximum (0x94) or not known (0x82).
        """
        match packet:
            case Publish():
                return self._resolve(packet)
            case Disconnect():
                self.closed = True
            case Connect():
                self.greeted = True
                self.version = packet.version
                self.legacy = packet.legacy
            case Connack():
                self.greeted = True
            case _:
                pass
        return packet

    def _resolve(self, packet: Publish) -> Publish:
        alias = packet.properties.topic_alias
        if alias is None:
            return packet
        if alias > self._topic_alias_maximum:
            raise RemoteProtocolError(
                f"topic alias {alias} is above the maximum of {self._topic_alias_maximum}",
                ReasonCode.TOPIC_ALIAS_INVALID,
            )
        topic = packet.topic or self._aliases.get(alias)
        if topic is None:
            raise protocol_error(f"topic alias {alias} is not known")
        self._aliases[alias] = topic
        return replace(packet, topic=topic, properties=replace(packet.properties, topic_alias=None))
