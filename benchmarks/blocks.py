"""Prebuilt packets: a publisher sends the same block over and over and does nothing for a single message.

*Theory of operation.* All packets of a block are equally long, and so are the packets they arrive as, which
for MQTT are the same bytes and for NATS are not (`PUB` becomes `MSG`). So a receiver counts bytes.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Literal

import msgspec

from mqtt.encode import encode
from mqtt.packets import Publish, Version

BLOCK_BYTES = 128 * 1024
NUMBER_BYTES = 4
"""Every payload begins with the number of its packet in the block."""

FIRST_SID = 0
"""NATS: the number of a connection's first subscription, one digit as all of them."""

Protocol = Literal["mqtt", "nats"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: `topics` 1 makes long runs, more make every message a run of its own."""

    payload_bytes: int
    topics: int = 1
    version: Version = Version.V5
    qos: int = 0

    @property
    def topic_names(self) -> list[str]:
        """Equally long: `bench/a`... or `bench/t000`..."""
        if self.topics <= len(string.ascii_lowercase):
            return [f"bench/{letter}" for letter in string.ascii_lowercase[: self.topics]]
        digits = len(str(self.topics - 1))
        return [f"bench/t{number:0{digits}}" for number in range(self.topics)]


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Equally long packets back to back; payloads begin with the packet's number in the block.

    Attributes:
        data: the packets as they are sent.
        count: how many.
        arriving: the same as they arrive at a subscriber.
    """

    data: bytes
    count: int
    arriving: bytes

    @property
    def stride(self) -> int:
        """Bytes of one packet at the subscriber."""
        return len(self.arriving) // self.count

    def arriving_packet(self, number: int) -> bytes:
        start = number % self.count * self.stride
        return self.arriving[start : start + self.stride]


def build_block(
    shape: Shape,
    protocol: Protocol = "mqtt",
    *,
    topics: Sequence[str] = (),
    size: int = BLOCK_BYTES,
) -> Block:
    """Build at least `size` bytes of packets whose topics take turns.

    Args:
        shape: payload, version, and the topics if none are named.
        protocol: the broker's.
        topics: others than the shape's, equally long.
        size: of the block; 0 makes one packet for each topic.
    """
    names = topics or shape.topic_names
    padding = bytes(shape.payload_bytes - NUMBER_BYTES)
    sent: list[bytes] = []
    arriving: list[bytes] = []
    bytes_so_far = 0
    while not sent or bytes_so_far < size or len(sent) % len(names):
        payload = len(sent).to_bytes(NUMBER_BYTES, "big") + padding
        out, back = _packet(names[len(sent) % len(names)], payload, shape, protocol)
        sent.append(out)
        arriving.append(back)
        bytes_so_far += len(out)
    return Block(data=b"".join(sent), count=len(sent), arriving=b"".join(arriving))


def _packet(topic: str, payload: bytes, shape: Shape, protocol: Protocol) -> tuple[bytes, bytes]:
    """One message as it is sent, and as it arrives."""
    if protocol == "nats":
        return nats_pub(topic, payload), nats_msg(topic, payload)
    packet = encode(Publish(topic=topic, payload=payload), shape.version)
    return packet, packet


def nats_subject(topic: str) -> str:
    """A topic or filter of MQTT in the words of NATS."""
    return topic.replace("/", ".").replace("#", ">").replace("+", "*")


def nats_pub(topic: str, payload: bytes) -> bytes:
    head = f"PUB {nats_subject(topic)} {len(payload)}\r\n"
    return head.encode() + payload + b"\r\n"


def nats_msg(topic: str, payload: bytes, sid: int = FIRST_SID) -> bytes:
    head = f"MSG {nats_subject(topic)} {sid} {len(payload)}\r\n"
    return head.encode() + payload + b"\r\n"
