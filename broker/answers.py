"""Acknowledgements of a run, in as few bytes and calls as the client's version allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqtt.acks import BARE_BYTES
from mqtt.encode import encode_bounded
from mqtt.errors import ReasonCode
from mqtt.identifiers import write_ids
from mqtt.packets import PacketType, Properties, Puback, Pubcomp, Pubrec, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKETS: dict[PacketType, type[Puback | Pubrec | Pubcomp]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBCOMP: Pubcomp,
}


def answer(  # noqa: PLR0917  positional: once a run
    packet_type: PacketType,
    packet_ids: Sequence[int],
    reason: ReasonCode,
    text: str,
    version: Version,
    max_packet_bytes: int,
) -> bytes:
    """The acknowledgements of messages that all fared alike.

    Args:
        packet_type: PUBACK, PUBREC or PUBCOMP.
        packet_ids: in the order of the messages (4.6.0-2, -3).
        reason: what became of them; MQTT 3.1.1 has no way to say so (its 3.4).
        text: the reason string; empty for none.
        version: the client's.
        max_packet_bytes: the client's; a reason string that does not fit is left out (3.4.2-2).
    """
    if reason is ReasonCode.SUCCESS or version is not Version.V5:
        return _bare(packet_type, packet_ids)
    if not text:
        head = bytes((packet_type << 4, 3))
        tail = bytes((reason,))
        return b"".join([head + packet_id.to_bytes(2) + tail for packet_id in packet_ids])
    properties = Properties(reason_string=text)
    packet = _PACKETS[packet_type]
    parts = [
        encode_bounded(
            packet(packet_id=packet_id, reason=reason, properties=properties),
            version,
            max_packet_bytes,
        )
        for packet_id in packet_ids
    ]
    return b"".join([part for part in parts if part is not None])


def _bare(packet_type: PacketType, packet_ids: Sequence[int]) -> bytes:
    out = bytearray(bytes((packet_type << 4, 2, 0, 0)) * len(packet_ids))
    write_ids(out, 2, BARE_BYTES, packet_ids)
    return bytes(out)
