"""Acknowledgements in bulk: the same as packet by packet, however the bytes are cut."""

from __future__ import annotations

from typing import cast

import pytest

from benchmarks.acked import Acks, Inbox
from benchmarks.blocks import Shape
from benchmarks.roles import AckedSubscriber
from benchmarks.wire import Login, TlsPipe
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import Packet, Puback, Pubcomp, Publish, Pubrec, Pubrel, Version

PIECES = [1, 2, 3, 4, 5, 29, 64, 10_000]
V5 = Version.V5


class Pipe:
    """Gives out a stream in pieces, keeps what is sent."""

    def __init__(self, stream: bytes, piece: int) -> None:
        self.left = stream
        self.sent = b""
        self._piece = piece

    def receive_into(self, view: memoryview) -> int:
        some, self.left = self.left[: self._piece], self.left[self._piece :]
        view[: len(some)] = some
        return len(some)

    def send(self, data: bytes) -> None:
        self.sent += data


def wire(*packets: Packet) -> bytes:
    return b"".join(encode(packet, V5) for packet in packets)


def subscriber(qos: int) -> AckedSubscriber:
    login = Login(host="", port=0, ca="", cert="", key="")
    shape = Shape(payload_bytes=16, qos=qos)
    return AckedSubscriber(
        login=login, shape=shape, topic="bench/a", window=8, messages=8, persistent=False
    )


def message(packet_id: int, qos: int) -> Publish:
    return Publish(topic="bench/a", payload=bytes(16), qos=qos, packet_id=packet_id)


def acks_on(pipe: Pipe) -> Acks:
    acks = Acks(cast("TlsPipe", pipe))
    while pipe.left:
        acks.receive()
    return acks


def inbox_on(pipe: Pipe, qos: int) -> Inbox:
    inbox = Inbox(subscriber(qos), cast("TlsPipe", pipe))
    while pipe.left:
        inbox.receive()
    return inbox


@pytest.mark.parametrize("piece", PIECES)
def test_publisher_counts_every_puback_short_or_long(piece: int) -> None:
    nobody = ReasonCode.NO_MATCHING_SUBSCRIBERS
    pipe = Pipe(
        wire(Puback(packet_id=1), Puback(packet_id=2, reason=nobody), Puback(packet_id=3)), piece
    )
    assert acks_on(pipe).finished == 3
    assert pipe.sent == b""


@pytest.mark.parametrize("piece", PIECES)
def test_publisher_answers_every_pubrec_and_counts_every_pubcomp(piece: int) -> None:
    pipe = Pipe(wire(Pubrec(packet_id=1), Pubrec(packet_id=515), Pubcomp(packet_id=1)), piece)
    assert acks_on(pipe).finished == 1
    assert pipe.sent == wire(Pubrel(packet_id=1), Pubrel(packet_id=515))


def test_publisher_ends_at_a_refused_message() -> None:
    refused = Puback(packet_id=1, reason=ReasonCode.QUOTA_EXCEEDED)
    with pytest.raises(ConnectionError, match="refused a message: 0x97"):
        acks_on(Pipe(wire(refused), 100))


@pytest.mark.parametrize("piece", PIECES)
def test_subscriber_acknowledges_every_message_by_its_own_identifier(piece: int) -> None:
    ids = [1, 2, 515, 65_535]
    pipe = Pipe(wire(*(message(each, 1) for each in ids)), piece)
    assert inbox_on(pipe, 1).finished == 4
    assert pipe.sent == wire(*(Puback(packet_id=each) for each in ids))


@pytest.mark.parametrize("piece", PIECES)
def test_subscriber_completes_qos_2_at_the_release(piece: int) -> None:
    pipe = Pipe(wire(message(7, 2), message(8, 2), Pubrel(packet_id=7)), piece)
    assert inbox_on(pipe, 2).finished == 1
    assert pipe.sent == wire(Pubrec(packet_id=7), Pubrec(packet_id=8), Pubcomp(packet_id=7))


@pytest.mark.parametrize("qos", [1, 2])
def test_subscriber_refuses_a_message_that_was_sent_before(qos: int) -> None:
    again = Publish(topic="bench/a", payload=bytes(16), qos=qos, packet_id=1, dup=True)
    with pytest.raises(ValueError, match="sent before"):
        inbox_on(Pipe(wire(again), 100), qos)
