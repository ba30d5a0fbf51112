"""The queue of a session behaves like a plain list of messages, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqtt.errors import RemoteProtocolError
from mqtt.outgoing import Outgoing, Parcel, Piece, packet_id_of
from mqtt.packets import MAX_PACKET_ID

COUNTS = st.one_of(st.integers(1, 4), st.integers(1, 600))
WINDOWS = st.one_of(st.integers(1, 9), st.integers(1, 2_000), st.just(MAX_PACKET_ID))
STARTS = st.sampled_from([0, MAX_PACKET_ID - 7, MAX_PACKET_ID - 300, 5 * MAX_PACKET_ID + 11])
PICKS = st.lists(st.integers(0, 10_000), min_size=1, max_size=12)
GROUPS = ("own", "red", "blue")
ELSEWHERE = "elsewhere"
QOS = st.sampled_from([1, 1, 2])
PARCELS = st.lists(st.tuples(COUNTS, QOS, st.sampled_from(GROUPS)), max_size=8)
MESSAGE_BYTES = 10


@dataclass(eq=False)
class Bundle:
    """The messages that were added, or are kept, as one parcel.

    Attributes:
        left: of its messages, those still in the list.
    """

    group: str
    left: int


@dataclass(eq=False)
class Message:
    """One message as the model sees it.

    Attributes:
        sent: on this connection.
        before: on an earlier one.
        released: its PUBREC came.
        finished: but something before it is not.
        elsewhere: it has a number only.
    """

    number: int
    qos: int
    bundle: Bundle
    sent: bool = False
    before: bool = False
    released: bool = False
    finished: bool = False
    elsewhere: bool = False

    @property
    def under_way(self) -> bool:
        return self.sent and not self.finished

    @property
    def queued(self) -> bool:
        return not self.sent and not self.finished and not self.elsewhere


class Sender(RuleBasedStateMachine):
    """Runs `Outgoing` and the list side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.outgoing: Outgoing[Bundle] = Outgoing()
        self.messages: list[Message] = []
        self.next = 0
        self.window = 1
        self.added: dict[int, int] = {}  # by number: the place in its bundle when that was added
        self.elsewhere: list[Parcel[Bundle]] = []

    @initialize(start=STARTS, window=WINDOWS, parcels=PARCELS)
    def begin(self, start: int, window: int, parcels: list[tuple[int, int, str]]) -> None:
        self.outgoing = Outgoing(start)
        self.next = start
        self.window = window
        for count, qos, group in parcels:
            self.add(count, qos, group)
        self.take(len(parcels))

    # ---- what the list says

    def under_way(self, qos: int = 0) -> list[Message]:
        return [m for m in self.messages if m.under_way and qos in (0, m.qos)]

    def low(self) -> int:
        return self.messages[0].number if self.messages else self.next

    def drop_finished(self) -> list[Bundle]:
        """Take the finished ones off the front; return the bundles of which nothing is left."""
        gone: list[Bundle] = []
        while self.messages and self.messages[0].finished:
            gone += self.remove(self.messages[0])
        return gone

    def remove(self, message: Message) -> list[Bundle]:
        self.messages.remove(message)
        message.bundle.left -= 1
        return [] if message.bundle.left else [message.bundle]

    def picked(self, candidates: list[Message], picks: list[int]) -> list[Message]:
        return [candidates[pick % len(candidates)] for pick in picks]

    def strange(self, picks: list[int]) -> list[int]:
        """Identifiers that no message under way has."""
        known = {packet_id_of(m.number) for m in self.under_way()}
        return [pick + 1 for pick in picks if pick + 1 not in known]

    # ---- filling and sending

    @rule(count=COUNTS, qos=QOS, group=st.sampled_from(GROUPS))
    def add(self, count: int, qos: int, group: str) -> None:
        if self.elsewhere:  # nobody overtakes
            self.reserve(count, qos)
            return
        bundle = Bundle(group, count)
        parcel = Parcel(
            content=bundle, first=100, count=count, qos=qos, size_bytes=count * MESSAGE_BYTES
        )
        self.outgoing.add(parcel)
        assert parcel.sequence == self.next
        for index in range(count):
            self.messages.append(Message(self.next, qos, bundle))
            self.added[self.next] = 100 + index
            self.next += 1

    @rule(count=COUNTS, qos=QOS)
    def reserve(self, count: int, qos: int) -> None:
        bundle = Bundle(ELSEWHERE, count)
        parcel = Parcel(
            content=bundle, first=100, count=count, qos=qos, size_bytes=count * MESSAGE_BYTES
        )
        parcel.sequence = self.outgoing.reserve(count)
        assert parcel.sequence == self.next
        self.elsewhere.append(parcel)
        for index in range(count):
            self.messages.append(Message(self.next, qos, bundle, elsewhere=True))
            self.added[self.next] = 100 + index
            self.next += 1

    @rule()
    @precondition(lambda self: self.elsewhere)
    def bring(self) -> None:
        parcel = self.elsewhere.pop(0)
        self.outgoing.bring(parcel, self.elsewhere[0].sequence if self.elsewhere else None)
        for message in self.messages:
            if message.bundle is parcel.content:
                message.elsewhere = False

    @rule(pieces=st.integers(1, 40))
    def take(self, pieces: int) -> None:
        for _ in range(pieces):
            piece = self.outgoing.take(self.window)
            if piece is None:
                waiting = any(m.queued for m in self.messages)
                assert not waiting or len(self.under_way()) >= self.window
                return
            self.was_sent(piece)

    def was_sent(self, piece: Piece[Bundle]) -> None:
        waiting = [m for m in self.messages if m.queued][: piece.count]
        numbers = list(range(piece.sequence, piece.sequence + piece.count))
        assert [m.number for m in waiting] == numbers, "the next ones, in order"
        for index, message in enumerate(waiting):
            assert message.bundle is piece.parcel.content
            place = piece.parcel.first + piece.index + index
            assert place == self.added[message.number]
            assert piece.release == message.released
            assert piece.dup == (message.before and not message.released)
            message.sent = True

    @rule(data=st.data())
    @precondition(lambda self: any(m.queued for m in self.messages))
    def hold(self, data: st.DataObject) -> None:
        parcel = data.draw(st.sampled_from(self.outgoing.waiting()))
        parcel.held = True
        for _ in range(len(self.messages) + 1):  # each piece is of at least one of them
            piece = self.outgoing.take(self.window)
            if piece is None:
                break
            assert piece.parcel is not parcel
            self.was_sent(piece)
        assert self.outgoing.take(self.window) is None
        parcel.held = False

    # ---- acknowledgements

    @rule(count=COUNTS)
    @precondition(lambda self: self.under_way())
    def acknowledge_in_order(self, count: int) -> None:
        first = self.under_way()[:count]
        if all(m.qos == 1 for m in first):
            self.acknowledge(first, [])
        else:
            self.receive(first)
            self.complete(first)

    @rule(picks=PICKS, strange=PICKS)
    @precondition(lambda self: self.under_way(1))
    def acknowledge_some(self, picks: list[int], strange: list[int]) -> None:
        self.acknowledge(self.picked(self.under_way(1), picks), self.strange(strange))

    def acknowledge(self, messages: list[Message], strange: list[int]) -> None:
        packet_ids = [packet_id_of(m.number) for m in messages]
        self.finish(messages, self.outgoing.acknowledge(packet_ids + strange))

    def finish(self, messages: list[Message], parcels: list[Parcel[Bundle]]) -> None:
        for message in messages:
            message.finished = True
        assert [p.content for p in parcels] == self.drop_finished()

    @rule(picks=PICKS, strange=PICKS)
    @precondition(lambda self: self.under_way(2))
    def receive_some(self, picks: list[int], strange: list[int]) -> None:
        unknown = self.strange(strange)
        messages = self.picked(self.under_way(2), picks)
        packet_ids = [packet_id_of(m.number) for m in messages]
        assert self.outgoing.receive(packet_ids + unknown) == (
            [m.number for m in messages],
            unknown,
        )
        for message in messages:
            message.released = True

    @rule(picks=PICKS, strange=PICKS)
    @precondition(lambda self: self.under_way(2))
    def complete_some(self, picks: list[int], strange: list[int]) -> None:
        messages = self.picked(self.under_way(2), picks)
        packet_ids = [packet_id_of(m.number) for m in messages] + self.strange(strange)
        gone = self.outgoing.complete(packet_ids)
        self.finish([m for m in messages if m.released], gone)

    def receive(self, messages: list[Message]) -> None:
        of_qos_2 = [m for m in messages if m.qos == 2]
        self.outgoing.receive([packet_id_of(m.number) for m in of_qos_2])
        for message in of_qos_2:
            message.released = True

    def complete(self, messages: list[Message]) -> None:
        of_qos_2 = [m for m in messages if m.qos == 2]
        gone = self.outgoing.complete([packet_id_of(m.number) for m in of_qos_2])
        self.finish(of_qos_2, gone)

    @rule(pick=st.integers(0, 10_000))
    @precondition(lambda self: self.under_way(2))
    def refuse(self, pick: int) -> None:
        messages = self.picked(self.under_way(2), [pick])
        self.finish(messages, self.outgoing.refuse(packet_id_of(messages[0].number)))

    @rule(picks=PICKS)
    @precondition(lambda self: self.under_way(1) and self.under_way(2))
    def answer_wrongly(self, picks: list[int]) -> None:
        right, wrong = self.under_way(1), self.picked(self.under_way(2), picks)
        with pytest.raises(RemoteProtocolError):
            self.outgoing.acknowledge([packet_id_of(m.number) for m in [*right, *wrong]])
        with pytest.raises(RemoteProtocolError):
            self.outgoing.receive([packet_id_of(m.number) for m in [*wrong, *right]])

    @rule(strange=PICKS)
    def answer_the_unknown(self, strange: list[int]) -> None:
        packet_ids = self.strange(strange)
        assert self.outgoing.acknowledge(packet_ids) == []
        assert self.outgoing.complete(packet_ids) == []
        assert self.outgoing.receive(packet_ids) == ([], packet_ids)

    # ---- connections and lives

    @rule(window=WINDOWS, pieces=st.integers(0, 40))
    def reconnect(self, window: int, pieces: int) -> None:
        self.outgoing.rewind()
        self.window = window
        self.forget_connection()
        self.take(pieces)

    def forget_connection(self) -> None:
        for message in self.messages:
            message.before = message.before or message.sent
            message.sent = False

    @rule(clean=st.booleans(), window=WINDOWS)
    def restart(self, *, clean: bool, window: int) -> None:
        """What a store keeps is the parcels, `low` and the PUBRECs; and of a clean stop, what was sent."""
        old = self.outgoing
        if clean:
            old.rewind()
        rows = [replace(p, settled=0, sent=0, held=False) for p in old.parcels()]
        released = [m.number for m in self.messages if m.released]
        end = max([old.low, *(row.end for row in [*rows, *self.elsewhere])])
        fresh_from = old.sent_below if clean else end
        self.outgoing = Outgoing(max(end, fresh_from), fresh_from=fresh_from)
        for row in rows:
            mine = [number for number in released if row.sequence <= number < row.end]
            self.outgoing.restore(row, settled_below=old.low, released=mine)
        self.outgoing.elsewhere_from = self.elsewhere[0].sequence if self.elsewhere else None
        self.forget_connection()
        for message in self.messages:
            message.before = message.number < fresh_from
            message.finished = False
        self.next = self.outgoing.next_sequence
        self.window = window

    # ---- giving up

    @rule()
    @precondition(lambda self: self.outgoing.head is not None and self.outgoing.head_is_fresh)
    def discard(self) -> None:
        first = next(m for m in self.messages if m.queued)
        given_up = [m for m in self.messages if m.bundle is first.bundle and m.queued]
        left, finished = self.outgoing.discard_head()
        assert left == len(given_up)
        gone = [bundle for message in given_up for bundle in self.remove(message)]
        assert [p.content for p in finished] == gone + self.drop_finished()

    @rule(group=st.sampled_from(GROUPS), window=WINDOWS)
    def withdraw(self, group: str, window: int) -> None:
        taken, finished = self.outgoing.withdraw(lambda bundle: bundle.group == group)
        self.forget_connection()
        self.window = window
        places: list[tuple[int, int]] = []
        for message in list(self.messages):
            if message.bundle.group != group:
                continue
            if message.qos == 2 and message.before and not message.finished:
                continue  # stays; its parcel is another now, of the same content
            self.messages.remove(message)
            message.bundle.left -= 1
            if not message.finished:
                places.append((self.added[message.number], message.qos))
        assert [(p.first + i, p.qos) for p in taken for i in range(p.count)] == places
        assert all(p.size_bytes == p.count * MESSAGE_BYTES for p in taken)
        assert [p.content for p in finished] == self.drop_finished()
        for message in self.messages:
            if message.bundle.group == group:  # each a parcel of its own
                message.bundle = Bundle(group, 1)
        self.adopt(group)

    def adopt(self, group: str) -> None:
        """Let the parcels that stayed bear the names the list has for them."""
        bundles = {m.number: m.bundle for m in self.messages if m.bundle.group == group}
        for parcel in self.outgoing.parcels():
            if parcel.content.group == group:
                assert parcel.count == 1
                parcel.content = bundles[parcel.sequence]

    # ---- what holds after every step

    @invariant()
    def counts_agree(self) -> None:
        outgoing = self.outgoing
        assert outgoing.in_flight == len(self.under_way())
        assert outgoing.queued == sum(m.queued for m in self.messages)
        assert len(outgoing) == sum(not m.finished and not m.elsewhere for m in self.messages)
        assert outgoing.low == self.low()
        assert outgoing.next_sequence == self.next

    @invariant()
    def window_is_never_passed(self) -> None:
        assert self.outgoing.in_flight <= self.window

    @invariant()
    def identifiers_of_messages_sent_and_not_finished_differ(self) -> None:
        sent = [m for m in self.messages if not m.finished and (m.sent or m.before)]
        assert len({packet_id_of(m.number) for m in sent}) == len(sent)

    @invariant()
    def bytes_are_those_of_the_parcels_that_wait(self) -> None:
        waiting = self.outgoing.waiting()
        assert self.outgoing.queued_bytes == sum(p.count * MESSAGE_BYTES for p in waiting)
        queued = {id(m.bundle) for m in self.messages if m.queued}
        assert queued <= {id(p.content) for p in waiting}
        under_way = {id(m.bundle) for m in self.messages if m.under_way}
        assert {id(p.content) for p in waiting[1:]}.isdisjoint(under_way)

    @invariant()
    def what_was_never_sent_is_known(self) -> None:
        below = self.outgoing.sent_below
        assert all((m.sent or m.before) == (m.number < below) for m in self.messages)

    @invariant()
    def parcels_are_those_with_something_left(self) -> None:
        bundles = list(dict.fromkeys(m.bundle for m in self.messages if not m.elsewhere))
        assert [p.content for p in self.outgoing.parcels()] == bundles


TestSender = Sender.TestCase
TestSender.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
