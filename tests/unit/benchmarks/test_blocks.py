"""Prebuilt packets: what is sent is legal, equally long, and arrives as the block says."""

from __future__ import annotations

import pytest

from benchmarks.blocks import Shape, build_block
from mqtt.decode import decode_packet
from mqtt.packets import Publish, Role, Version


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("topics", [1, 2, 26, 30, 1000])
def test_block_is_equally_long_packets_whose_topics_take_turns(
    topics: int, version: Version
) -> None:
    shape = Shape(payload_bytes=20, topics=topics, version=version)
    block = build_block(shape, size=0)
    assert block.count == topics
    assert block.stride * block.count == len(block.arriving) == len(block.data)
    for number, topic in enumerate(shape.topic_names):
        packet = decode_packet(block.arriving_packet(number), version, Role.CLIENT)
        assert isinstance(packet, Publish)
        assert packet.topic == topic
        assert packet.payload == number.to_bytes(4, "big") + bytes(16)


def test_nats_block_arrives_as_messages_of_the_first_subscription() -> None:
    block = build_block(Shape(payload_bytes=4, topics=2), "nats", size=0)
    assert block.data == b"PUB bench.a 4\r\n\0\0\0\0\r\nPUB bench.b 4\r\n\0\0\0\1\r\n"
    assert block.arriving == b"MSG bench.a 0 4\r\n\0\0\0\0\r\nMSG bench.b 0 4\r\n\0\0\0\1\r\n"


def test_named_topics_replace_those_of_the_shape() -> None:
    block = build_block(Shape(payload_bytes=4, topics=2), topics=["bench/z"], size=0)
    assert b"bench/z" in block.data
    assert b"bench/a" not in block.data
