"""Receivers count bytes: lost bytes are noticed, and a NATS server's question in between is not."""

from __future__ import annotations

import pytest

from benchmarks.blocks import Block, Protocol, Shape, build_block
from benchmarks.nats_session import PING
from benchmarks.tally import Tally

SHAPE = Shape(payload_bytes=16)


def block_of(protocol: Protocol) -> Block:
    return build_block(SHAPE, protocol, size=600)


def fed(block: Block, protocol: Protocol, stream: bytes, piece: int) -> Tally:
    tally = Tally(block, protocol)
    for at in range(0, len(stream), piece):
        tally.add(memoryview(stream)[at : at + piece])
    return tally


@pytest.mark.parametrize("piece", [1, 2, 5, 7, 39, 40, 41, 97, 10_000])
@pytest.mark.parametrize("protocol", ["mqtt", "nats"])
def test_tally_counts_the_same_in_any_pieces(protocol: Protocol, piece: int) -> None:
    block = block_of(protocol)
    tally = fed(block, protocol, block.arriving * 2, piece)
    assert tally.received == 2 * len(block.arriving)
    assert tally.tail == block.arriving_packet(-1)


@pytest.mark.parametrize("piece", [1, 2, 5, 7, 39, 40, 41, 97, 10_000])
@pytest.mark.parametrize("place", [0, 1, 7, -1])
def test_tally_leaves_out_the_one_ping_of_a_nats_server(piece: int, place: int) -> None:
    block = block_of("nats")
    at = (place % block.count) * block.stride
    stream = block.arriving[:at] + PING + block.arriving[at:]
    tally = fed(block, "nats", stream, piece)
    assert tally.received == len(block.arriving)
    assert tally.tail == block.arriving_packet(-1)


def test_tally_notices_a_lost_byte_in_the_read_that_lacks_it() -> None:
    block = block_of("mqtt")
    stream = block.arriving[: block.stride * 3 - 1] + block.arriving[block.stride * 3 :]
    with pytest.raises(ValueError, match="does not begin where it should"):
        fed(block, "mqtt", stream, 10_000)


def test_tally_takes_one_ping_only() -> None:
    block = block_of("nats")
    with pytest.raises(ValueError, match="does not begin where it should"):
        fed(block, "nats", PING + block.arriving_packet(0) + PING + block.arriving_packet(1), 20)
