"""What is fuzzed: functions of bytes that raise when a promise is broken, and return whatever else happens.

`tests/fuzz/fuzz_mqtt.py` lets a coverage-guided fuzzer look for such bytes; `test_mqtt_corpus.py` replays
those it found worth keeping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mqtt.convert import aliased, number, variant
from mqtt.decode import decode_packet
from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.incoming import Incoming
from mqtt.outgoing import Outgoing, Parcel, Piece, packet_id_of
from mqtt.packets import EMPTY, Connack, Connect, Packet, Publish, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run
from tests.property.mqtt_streams import fast_events, plain_events

MAX_STEPS = 200
"""Steps of one exchange: enough to fill and empty a window a few times."""


def read(data: bytes) -> None:
    """Any bytes in any pieces give the events and the error that the plain twin gives.

    Args:
        data: a byte of settings, the length of the pieces, and what the peer sends.
    """
    role, version, wire = _stream(data)
    aliases = 3 if data[:1] and data[0] & 4 else 0
    step = data[1] % 64 + 1 if len(data) > 1 else 1
    wanted = plain_events(wire, version, role, aliases)
    chunks = [wire[at : at + step] for at in range(0, len(wire), step)]
    assert fast_events(chunks, version, role, aliases) == wanted
    assert fast_events([wire], version, role, aliases) == wanted


def convert(data: bytes) -> None:
    """Every form of every run that can be read is legal, and says what the run says."""
    role, version, wire = _stream(data)
    reader = PacketReader(role=role, max_packet_bytes=1_000, topic_alias_maximum=3)
    reader.version = version
    reader.feed(wire)
    try:
        while (event := reader.next_event()) is not None:
            if isinstance(event, Run):
                _verify_forms(event)
    except RemoteProtocolError:
        return


def exchange(data: bytes) -> None:
    """No order of steps and no answer of a peer makes the state of QoS 1 and 2 untrue, or raises else."""
    settings, steps = data[:2].ljust(2, b"\0"), data[2 : 2 + 2 * MAX_STEPS]
    peer = _HostilePeer(receive_maximum=settings[0] % 20 + 1, start=settings[1] * 257)
    for act, argument in zip(steps[::2], steps[1::2], strict=False):
        try:
            peer.act(act, argument)
        except RemoteProtocolError:
            peer.connect()
        peer.verify()
    peer.finish()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "read": read,
    "convert": convert,
    "exchange": exchange,
}


def _stream(data: bytes) -> tuple[Role, Version, bytes]:
    """Return who reads, the version, and the bytes of the peer: behind a greeting, unless bit 3 is set."""
    settings, wire = (data[0] if data else 0), data[2:]
    role = Role.SERVER if settings & 1 else Role.CLIENT
    version = Version.V311 if settings & 2 else Version.V5
    if not settings & 8:
        client = role is Role.SERVER
        greeting: Packet = Connect(client_id="c", version=version) if client else Connack()
        wire = encode(greeting, version) + wire
    return role, version, wire


def _verify_forms(run: Run) -> None:
    packets = [run.packet(index) for index in range(run.count)]
    for version in Version:
        for qos in (0, 1, 2):
            expiry_s = None if run.expiry_interval is None else 7
            form = variant(
                run, version=version, qos=qos, retain=True, identifiers=(300,), expiry_s=expiry_s
            )
            assert _decoded(form, qos) == [
                _changed(each, version, qos, expiry_s) for each in packets
            ]
    if run.version is Version.V5 and not run.qos:
        short = aliased(run, 5, with_topic=False)
        assert [each.payload for each in _decoded(short, 0)] == run.payloads()


def _decoded(form: Run, qos: int) -> list[Publish]:
    wire = number(form, 0, range(1, form.count + 1), dup=False) if qos else form.data
    found: list[Publish] = []
    for at in range(0, len(wire), form.stride):
        packet = decode_packet(wire[at : at + form.stride], form.version, Role.CLIENT)
        assert isinstance(packet, Publish)
        found.append(replace(packet, packet_id=None) if qos else packet)
    return found


def _changed(packet: Publish, version: Version, qos: int, expiry_s: int | None) -> Publish:
    properties = packet.properties
    identifiers = (300, *properties.subscription_identifiers)
    properties = replace(
        properties, subscription_identifiers=identifiers, message_expiry_interval=expiry_s
    )
    if version is Version.V311:
        properties = EMPTY
    return replace(packet, qos=qos, retain=True, packet_id=None, properties=properties)


class _HostilePeer:
    """One session with a peer that answers what it likes; `added` and `finished` count messages."""

    def __init__(self, *, receive_maximum: int, start: int) -> None:
        self.outgoing: Outgoing[None] = Outgoing(start)
        self.incoming = Incoming()
        self.receive_maximum = receive_maximum
        self.under_way: set[int] = set()

    def act(self, act: int, argument: int) -> None:
        """Do one step; `argument` is a number, or says which identifiers are answered."""
        outgoing = self.outgoing
        match act % 10:
            case 0 | 1 as qos:
                outgoing.add(Parcel(content=None, first=0, count=argument % 9 + 1, qos=qos + 1))
            case 2:
                self.sent(outgoing.take(self.receive_maximum))
            case 3:
                outgoing.acknowledge(self.ids(argument))
            case 4:
                outgoing.receive(self.ids(argument))
            case 5:
                outgoing.complete(self.ids(argument))
            case 6:
                outgoing.refuse(self.ids(argument)[0])
            case 7:
                self.connect()
            case 8:
                self.take_in(argument)
            case _:
                if outgoing.head is not None and outgoing.head_is_fresh:
                    outgoing.discard_head()

    def ids(self, argument: int) -> list[int]:
        """One to four identifiers around the lowest that is not finished."""
        first = self.outgoing.low + (argument & 0x1F) - 3
        step = -1 if argument & 0x20 else 1
        return [packet_id_of(first + step * index) for index in range((argument >> 6) + 1)]

    def sent(self, piece: Piece[None] | None) -> None:
        """Hold that identifiers under way are unique and within the peer's Receive Maximum."""
        assert self.outgoing.in_flight <= self.receive_maximum
        if piece is None:
            return
        ids = {packet_id_of(piece.sequence + index) for index in range(piece.count)}
        assert len(ids) == piece.count
        assert not piece.release or piece.count == 1

    def take_in(self, argument: int) -> None:
        """Receive a QoS 2 message, or release one."""
        packet_id = argument % 8 + 1
        if argument & 0x80:
            known = packet_id in self.incoming.received
            assert self.incoming.release([packet_id]) == [known]
        elif self.incoming.is_new(packet_id):
            self.incoming.admit(1, self.receive_maximum)
            self.incoming.take([packet_id])

    def connect(self) -> None:
        """Begin anew on another connection."""
        self.outgoing.rewind()
        self.incoming.begin()
        assert self.outgoing.in_flight == 0

    def verify(self) -> None:
        """Hold what is true after every step."""
        outgoing = self.outgoing
        assert 0 <= outgoing.in_flight <= self.receive_maximum
        assert outgoing.queued >= 0
        assert outgoing.low <= outgoing.next_sequence
        assert len(outgoing) <= outgoing.next_sequence - outgoing.low
        assert self.incoming.open <= self.receive_maximum

    def finish(self) -> None:
        """Hold that a peer which behaves well gets everything, and then nothing is left."""
        outgoing = self.outgoing
        self.connect()
        for _ in range(2 * len(outgoing) + 1):
            pieces: list[Piece[None]] = []
            while (piece := outgoing.take(self.receive_maximum)) is not None:
                pieces.append(piece)
            for each in pieces:
                ids = [packet_id_of(each.sequence + index) for index in range(each.count)]
                if each.release:
                    outgoing.complete(ids)
                elif each.parcel.qos == 1:
                    outgoing.acknowledge(ids)
                else:
                    assert outgoing.receive(ids)[1] == []
                    outgoing.complete(ids)
        assert len(outgoing) == 0
