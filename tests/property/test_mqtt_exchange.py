"""Two sessions and a link that breaks: QoS 1 arrives at least once, QoS 2 exactly once, each in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from hypothesis import given, settings, strategies as st

from mqtt.incoming import Incoming
from mqtt.outgoing import Outgoing, Parcel, Piece, packet_id_of
from mqtt.packets import MAX_PACKET_ID, PacketType

Packet = tuple[PacketType, int, str]
"""Its type and packet identifier, and of a PUBLISH the content."""


class Act(Enum):
    """What happens next, with a number to it.

    Attributes:
        ADD_1: so many messages at QoS 1 are queued, as one parcel.
        ADD_2: the same at QoS 2.
        SEND: so many pieces leave the sender.
        CARRY: so many packets reach the receiver.
        ANSWER: so many packets reach the sender.
        BREAK: a new connection; all but the first so many packets under way are lost.
        RESTART: the same, and the sender begins anew from what a store would have kept.
    """

    ADD_1 = auto()
    ADD_2 = auto()
    SEND = auto()
    CARRY = auto()
    ANSWER = auto()
    BREAK = auto()
    RESTART = auto()


ACTS = st.lists(st.tuples(st.sampled_from(Act), st.integers(0, 7)), max_size=120)
STARTS = st.sampled_from([0, MAX_PACKET_ID - 9])


@dataclass
class Exchange:
    """A sender, a receiver, and what is under way between them."""

    outgoing: Outgoing[list[str]]
    window: int
    incoming: Incoming = field(default_factory=Incoming)
    to_receiver: deque[Packet] = field(default_factory=deque[Packet])
    to_sender: deque[Packet] = field(default_factory=deque[Packet])
    added: dict[int, list[str]] = field(default_factory=lambda: {1: [], 2: []})
    arrived: dict[int, list[str]] = field(default_factory=lambda: {1: [], 2: []})
    released: list[int] = field(default_factory=list[int])

    def act(self, act: Act, number: int) -> None:
        match act:
            case Act.ADD_1:
                self.add(number + 1, qos=1)
            case Act.ADD_2:
                self.add(number + 1, qos=2)
            case Act.SEND:
                self.send(number + 1)
            case Act.CARRY:
                self.carry(number + 1)
            case Act.ANSWER:
                self.answer(number + 1)
            case Act.BREAK:
                self.break_link(number)
            case Act.RESTART:
                self.break_link(number)
                self.restart()

    def add(self, count: int, *, qos: int) -> None:
        done = self.added[qos]
        content = [f"{qos}.{len(done) + index}" for index in range(count)]
        done += content
        self.outgoing.add(Parcel(content=content, first=0, count=count, qos=qos))

    # ---- the sender

    def send(self, pieces: int) -> None:
        for _ in range(pieces):
            piece = self.outgoing.take(self.window)
            if piece is not None:
                self.to_receiver += packets(piece)

    def answer(self, count: int) -> None:
        """Take answers as a reader gives them: those of one type back to back are one run."""
        while count and self.to_sender:
            kind = self.to_sender[0][0]
            run: list[int] = []
            while count and self.to_sender and self.to_sender[0][0] is kind:
                run.append(self.to_sender.popleft()[1])
                count -= 1
            self.answered(kind, run)

    def answered(self, kind: PacketType, packet_ids: list[int]) -> None:
        if kind is PacketType.PUBACK:
            self.outgoing.acknowledge(packet_ids)
        elif kind is PacketType.PUBCOMP:
            self.outgoing.complete(packet_ids)
        else:
            known, unknown = self.outgoing.receive(packet_ids)
            assert not unknown, "the receiver answers nothing that was not sent"
            self.released += known
            self.to_receiver += [(PacketType.PUBREL, packet_id_of(n), "") for n in known]

    # ---- the receiver

    def carry(self, count: int) -> None:
        for _ in range(min(count, len(self.to_receiver))):
            kind, packet_id, content = self.to_receiver.popleft()
            if kind is PacketType.PUBREL:
                self.incoming.release([packet_id])
                self.to_sender.append((PacketType.PUBCOMP, packet_id, ""))
            elif content.startswith("1"):
                self.incoming.admit(1, self.window)  # raises if the sender passed the window
                self.arrived[1].append(content)
                self.incoming.answered(1)
                self.to_sender.append((PacketType.PUBACK, packet_id, ""))
            else:
                self.take_qos_2(packet_id, content)

    def take_qos_2(self, packet_id: int, content: str) -> None:
        if self.incoming.is_new(packet_id):
            self.incoming.admit(1, self.window)
            self.incoming.take([packet_id])
            self.arrived[2].append(content)
        self.to_sender.append((PacketType.PUBREC, packet_id, ""))

    # ---- what goes wrong

    def break_link(self, carried: int) -> None:
        self.carry(carried)
        self.to_receiver.clear()
        self.to_sender.clear()
        self.outgoing.rewind()
        self.incoming.begin()

    def restart(self) -> None:
        old = self.outgoing
        self.outgoing = Outgoing(old.next_sequence)
        for parcel in old.parcels():
            mine = [n for n in self.released if parcel.sequence <= n < parcel.end]
            self.outgoing.restore(parcel, settled_below=old.low, released=mine)
        self.incoming = Incoming(sorted(self.incoming.received))

    def finish(self) -> None:
        """Let everything run without a break until nothing is left to do."""
        for _ in range(3 * len(self.outgoing) + 3):
            self.send(1_000)
            self.carry(1_000)
            self.answer(1_000)
        assert not len(self.outgoing), "it stands still"


def packets(piece: Piece[list[str]]) -> list[Packet]:
    first = packet_id_of(piece.sequence)
    if piece.release:
        return [(PacketType.PUBREL, first, "")]
    found: list[Packet] = []
    for index in range(piece.count):
        content = piece.parcel.content[piece.parcel.first + piece.index + index]
        found.append((PacketType.PUBLISH, packet_id_of(piece.sequence + index), content))
    return found


def first_arrivals(contents: list[str]) -> list[str]:
    return list(dict.fromkeys(contents))


@settings(max_examples=300, deadline=None)
@given(acts=ACTS, start=STARTS, window=st.integers(1, 20))
def test_broken_links_lose_nothing_and_double_no_qos_2_message(
    acts: list[tuple[Act, int]], start: int, window: int
) -> None:
    exchange = Exchange(Outgoing(start), window)
    for act, number in acts:
        exchange.act(act, number)
        assert exchange.outgoing.in_flight <= window
    exchange.finish()
    assert first_arrivals(exchange.arrived[1]) == exchange.added[1]
    assert exchange.arrived[2] == exchange.added[2]
    assert exchange.incoming.received == set()
