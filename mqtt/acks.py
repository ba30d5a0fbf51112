"""A run of acknowledgements: PUBACK, PUBREC, PUBREL or PUBCOMP in their shortest form, back to back.

Whoever acknowledges a run of messages sends such a run, and a peer under load sends little else. In
the shortest form an acknowledgement is four bytes in both versions: type, length 2, packet
identifier; it means success and has no properties (3.4.2.1, 3.5.2.1, 3.6.2.1, 3.7.2.1).
"""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from mqtt.packets import PacketType, Puback, Pubcomp, Pubrec, Pubrel

BARE_BYTES: Final = 4
BARE_LENGTH: Final = 2
"""Remaining length of an acknowledgement in its shortest form."""
FIRST_BYTES: Final = {
    0x40: PacketType.PUBACK,
    0x50: PacketType.PUBREC,
    0x62: PacketType.PUBREL,
    0x70: PacketType.PUBCOMP,
}
Acknowledgement = Puback | Pubrec | Pubrel | Pubcomp
_PACKETS: Final[dict[PacketType, type[Acknowledgement]]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBREL: Pubrel,
    PacketType.PUBCOMP: Pubcomp,
}


class AckRun:
    """One or more acknowledgements of one type that report success and nothing else.

    Attributes:
        packet_type: PUBACK, PUBREC, PUBREL or PUBCOMP.
        packet_ids: what they acknowledge, in order; 1 to 65,535 each, and at least one.
    """

    __slots__ = ("packet_ids", "packet_type")

    def __init__(self, packet_type: PacketType, packet_ids: list[int]) -> None:
        self.packet_type = packet_type
        self.packet_ids = packet_ids

    @override
    def __repr__(self) -> str:
        return f"<AckRun of {len(self.packet_ids)} {self.packet_type.name}>"

    def packets(self) -> list[Acknowledgement]:
        """Return the acknowledgements one by one: the slow way."""
        kind = _PACKETS[self.packet_type]
        return [kind(packet_id=each) for each in self.packet_ids]
