"""QoS 1 and 2 from the sender's side: what one session shall get, what is under way, what is done (4.3, 4.4, 4.6).

    outgoing.add(parcel)                              # at the end of the queue
    while (piece := outgoing.take(receive_maximum)):  # what may be sent now, in order
        ...
    outgoing.acknowledge(packet_ids)                  # PUBACK; `receive` for PUBREC, `complete` for PUBCOMP
    outgoing.rewind()                                 # a new connection: all that is unfinished, again

*Rules of this file.*

- Messages leave in the order they were added, each time (4.6.0-1, -5).
- At most `receive_maximum` of them are unfinished (3.3.4-9).
- What was sent keeps its packet identifier until it is finished (4.4.0-1), and is sent again after `rewind` only.
- After PUBREC there is never a PUBLISH again, only PUBREL (4.3.3-6).

*Theory of operation.* Every message has a sequence number, and its packet identifier is that number modulo 65,535, plus
one. The numbers under way never span 65,535, so identifiers are unique without a table of them, and whoever keeps
the queue keeps the identifiers. A *parcel* is a run of messages with consecutive numbers: the common case, a
peer that acknowledges in order, costs one comparison a parcel and not a set a message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from mqtt.packets import MAX_PACKET_ID
from mqtt.wire import protocol_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

QOS_1, QOS_2 = 1, 2


def packet_id_of(sequence: int) -> int:
    """Return the packet identifier of a message, 1 to 65,535."""
    return sequence % MAX_PACKET_ID + 1


@dataclass(slots=True, kw_only=True, eq=False)
class Parcel(Generic[T]):
    """Messages with consecutive sequence numbers and one QoS on their way to one session.

    Attributes:
        content: what the messages are; the caller's.
        first: index of the first of them in `content`.
        count: how many, at least 1.
        qos: at which they are delivered, 1 or 2.
        size_bytes: what they count against the bound of the queue, together.
        sequence: number of the first; given by `Outgoing.add`.
        sent: how many of them, from the first on, need not be sent any more on this connection.
        settled: how many of them, from the first on, are finished.
        held: not to be sent yet.
    """

    content: T
    first: int
    count: int
    qos: int
    size_bytes: int = 0
    sequence: int = -1
    sent: int = 0
    settled: int = 0
    held: bool = False

    @property
    def end(self) -> int:
        """The sequence number behind its last message."""
        return self.sequence + self.count


@dataclass(slots=True)  # to be frozen would cost 1 of the 3 us that a message takes here
class Piece(Generic[T]):
    """What is to be sent now: messages of one parcel, or the PUBREL of one.

    Attributes:
        parcel: whose.
        index: of the first message, within the parcel.
        count: how many.
        dup: they were sent before on another connection.
        release: send PUBREL instead of PUBLISH; `count` is 1.
    """

    parcel: Parcel[T]
    index: int
    count: int
    dup: bool = False
    release: bool = False

    @property
    def sequence(self) -> int:
        """Sequence number of its first message."""
        return self.parcel.sequence + self.index


class Outgoing(Generic[T]):
    """The queue of one session.

    Args:
        next_sequence: number of the next message; after a restart, above all that may be unfinished.
        fresh_from: messages with this or a later number were never sent; None: `next_sequence`.

    Attributes:
        elsewhere_from: number of the first message that waits elsewhere, see `reserve`; None when none does.
        in_flight: messages sent on this connection and not finished.
        queued: messages not sent on this connection and not finished.
        queued_bytes: size of the parcels that are not wholly sent on it.
    """

    __slots__ = (
        "_done",
        "_fresh_from",
        "_released",
        "_sent",
        "_unsent",
        "elsewhere_from",
        "in_flight",
        "next_sequence",
        "queued",
        "queued_bytes",
    )

    def __init__(self, next_sequence: int = 0, *, fresh_from: int | None = None) -> None:
        # INVARIANT: `_sent` then `_unsent` are in order of their numbers; only the first of `_unsent` may be partly sent.
        self._sent: deque[Parcel[T]] = deque()
        self._unsent: deque[Parcel[T]] = deque()
        self._done: set[int] = set()  # finished numbers above `low`, which is not one of them
        self._released: set[int] = set()  # numbers whose PUBREC came
        # Numbers below it may have been sent on an earlier connection.
        self._fresh_from = next_sequence if fresh_from is None else fresh_from
        self.next_sequence = next_sequence
        self.elsewhere_from: int | None = None
        self.in_flight = 0
        self.queued = 0
        self.queued_bytes = 0

    @override
    def __repr__(self) -> str:
        return f"<Outgoing {self.in_flight} under way, {self.queued} queued, from {self.low}>"

    def __len__(self) -> int:
        """Messages not finished."""
        return self.in_flight + self.queued

    @property
    def low(self) -> int:
        """The lowest number that is not finished; `next_sequence` when all are."""
        first = self._first()
        if first is not None:
            return first.sequence + first.settled
        return self.next_sequence if self.elsewhere_from is None else self.elsewhere_from

    def _first(self) -> Parcel[T] | None:
        parcels = self._sent or self._unsent
        return parcels[0] if parcels else None

    @property
    def head(self) -> Parcel[T] | None:
        """The parcel whose turn it is, None when nothing waits."""
        return self._unsent[0] if self._unsent else None

    @property
    def head_is_fresh(self) -> bool:
        """Whether the next message of `head` was never sent on any connection."""
        head = self._unsent[0]
        return head.sequence + head.sent >= self._fresh_from

    @property
    def sent_below(self) -> int:
        """No message with this or a later number was sent on any connection."""
        return max(self._fresh_from, self._sent_end())

    def _sent_end(self) -> int:
        if self._unsent and self._unsent[0].sent:
            return self._unsent[0].sequence + self._unsent[0].sent
        return self._sent[-1].end if self._sent else self.low

    def waiting(self) -> list[Parcel[T]]:
        """Return the parcels that are not wholly sent, in order."""
        return list(self._unsent)

    def parcels(self) -> list[Parcel[T]]:
        """Return every parcel with something unfinished, in order."""
        return [*self._sent, *self._unsent]

    def is_released(self, sequence: int) -> bool:
        """Whether the PUBREC of a message came."""
        return sequence in self._released

    # -- filling

    def add(self, parcel: Parcel[T]) -> None:
        """Put a parcel at the end and number its messages."""
        parcel.sequence = self.next_sequence
        self.next_sequence += parcel.count
        self._unsent.append(parcel)
        self.queued += parcel.count
        self.queued_bytes += parcel.size_bytes

    def restore(
        self, parcel: Parcel[T], *, settled_below: int, released: Sequence[int] = ()
    ) -> None:
        """Put back a parcel of an earlier life; one that is wholly finished is left out.

        Args:
            parcel: with its `sequence`; called in the order of these, before `add`.
            settled_below: lower numbers are finished.
            released: its numbers whose PUBREC came.
        """
        self.next_sequence = max(self.next_sequence, parcel.end)
        if parcel.end <= settled_below:
            return
        parcel.settled = parcel.sent = max(settled_below - parcel.sequence, 0)
        self._released.update(number for number in released if number >= settled_below)
        self._unsent.append(parcel)
        self.queued += parcel.count - parcel.settled
        self.queued_bytes += parcel.size_bytes

    def reserve(self, count: int) -> int:
        """Number messages that the caller keeps elsewhere, behind all that are here.

        INVARIANT: while some wait elsewhere nothing is added here; `bring` brings them, in order.

        Returns:
            the number of the first of them.
        """
        first = self.next_sequence
        self.next_sequence += count
        if self.elsewhere_from is None:
            self.elsewhere_from = first
        return first

    def bring(self, parcel: Parcel[T], elsewhere_from: int | None) -> None:
        """Put messages that waited elsewhere at the end, under the numbers they have.

        Args:
            parcel: with its `sequence`.
            elsewhere_from: number of the first message that still waits there; None: it was the last.
        """
        self._unsent.append(parcel)
        self.queued += parcel.count
        self.queued_bytes += parcel.size_bytes
        self.elsewhere_from = elsewhere_from

    # -- sending

    def take(self, receive_maximum: int) -> Piece[T] | None:
        """Return what is to be sent next and count it as sent; None when nothing may be.

        Args:
            receive_maximum: unfinished messages the peer accepts at a time.
        """
        while self._unsent:
            parcel = self._unsent[0]
            index = parcel.sent
            number = parcel.sequence + index
            # Identifiers under way must not meet (2.2.1-4).
            room = min(receive_maximum - self.in_flight, self.low + MAX_PACKET_ID - number)
            if parcel.held or room < 1:
                return None
            if number >= self._fresh_from:
                return self._advance(Piece(parcel, index, min(room, parcel.count - index)))
            if number in self._released:
                return self._advance(Piece(parcel, index, 1, release=True))
            if count := self._again(number, min(number + room, parcel.end, self._fresh_from)):
                return self._advance(Piece(parcel, index, count, dup=True))
            self._passed(parcel, 1)
        return None

    def _again(self, number: int, end: int) -> int:
        """How many messages from `number` on, below `end`, are to be published once more."""
        reached = number
        while reached < end and reached not in self._done and reached not in self._released:
            reached += 1
        return reached - number

    def _advance(self, piece: Piece[T]) -> Piece[T]:
        count = piece.count
        self.in_flight += count
        self.queued -= count
        self._passed(piece.parcel, count)
        # INVARIANT: what is finished is passed over here, so that `head_is_fresh` speaks of what `take` gives next.
        while self._unsent:
            parcel = self._unsent[0]
            number = parcel.sequence + parcel.sent
            if number >= self._fresh_from or number not in self._done:
                break
            self._passed(parcel, 1)
        return piece

    def _passed(self, parcel: Parcel[T], count: int) -> None:
        parcel.sent += count
        if parcel.sent == parcel.count:
            self._unsent.popleft()
            self._sent.append(parcel)
            self.queued_bytes -= parcel.size_bytes

    def rewind(self) -> None:
        """Begin anew on another connection: what is unfinished is sent again, in order."""
        self._fresh_from = self.sent_below
        for parcel in reversed(self._sent):
            self._unsent.appendleft(parcel)
            self.queued_bytes += parcel.size_bytes
        self._sent.clear()
        for parcel in self._unsent:
            if not parcel.sent:
                break
            parcel.sent = parcel.settled
        self.queued += self.in_flight
        self.in_flight = 0

    # -- finishing

    def acknowledge(self, packet_ids: Sequence[int]) -> list[Parcel[T]]:
        """Take PUBACKs; unknown identifiers are ignored.

        Returns:
            the parcels all of whose messages are finished now.

        Raises:
            RemoteProtocolError: one of the messages was sent at QoS 2; nothing has changed.
        """
        if self._are_next(packet_ids):
            return self._settle(len(packet_ids))
        return self._finish(self._known(packet_ids, QOS_1))

    def receive(self, packet_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Take PUBRECs that report success.

        Returns:
            the numbers of the messages to release, and the identifiers that are not known.

        Raises:
            RemoteProtocolError: one of the messages was sent at QoS 1; nothing has changed.
        """
        known = self._known(packet_ids, QOS_2)
        if len(known) == len(packet_ids):
            unknown: list[int] = []
        else:
            found = {packet_id_of(number) for number in known}
            unknown = [packet_id for packet_id in packet_ids if packet_id not in found]
        self._released.update(known)
        return known, unknown

    def refuse(self, packet_id: int) -> list[Parcel[T]]:
        """Take a PUBREC that reports a failure: the message is finished (4.4.0-2).

        Returns:
            the parcels all of whose messages are finished now.

        Raises:
            RemoteProtocolError: the message was sent at QoS 1; nothing has changed.
        """
        return self._finish(self._known((packet_id,), QOS_2))

    def complete(self, packet_ids: Sequence[int]) -> list[Parcel[T]]:
        """Take PUBCOMPs; identifiers of which no PUBREC came on any connection are ignored.

        That is no protocol error: it answers a PUBREL of ours for an identifier we did not know, and
        meanwhile another message may have got it.

        Returns:
            the parcels all of whose messages are finished now.
        """
        released = self._released
        return self._finish(
            [number for number, qos in self._look_up(packet_ids) if qos and number in released]
        )

    def _are_next(self, packet_ids: Sequence[int]) -> bool:
        """Whether they are just the next ones under way, all at QoS 1; the common case."""
        if self._done or not packet_ids:
            return False
        reached = self.low
        end = reached + len(packet_ids)
        first = packet_id_of(reached)
        if packet_ids[0] != first:
            return False
        if end - reached > 1 and list(packet_ids) != list(range(first, first + end - reached)):
            return False  # those across 65,535 take the longer way, too
        for parcel in self._sent:
            if parcel.qos != QOS_1 or parcel.sequence + parcel.settled != reached:
                return False
            reached = parcel.sequence + parcel.count
            if reached >= end:
                return True
        head = self.head
        return (
            head is not None
            and head.qos == QOS_1
            and head.sequence + head.settled == reached
            and head.sequence + head.sent >= end
        )

    def _settle(self, count: int) -> list[Parcel[T]]:
        """Finish so many messages under way, from the first on."""
        self.in_flight -= count
        gone: list[Parcel[T]] = []
        sent = self._sent
        while sent and count >= (left := sent[0].count - sent[0].settled):
            parcel = sent.popleft()
            parcel.settled = parcel.count
            gone.append(parcel)
            count -= left
        if count and (first := self._first()) is not None:
            first.settled += count
        return gone

    def _known(self, packet_ids: Sequence[int], qos: int) -> list[int]:
        """The numbers of those that are under way, all of which must have this QoS."""
        numbers: list[int] = []
        for number, found in self._look_up(packet_ids):
            if found == qos:
                numbers.append(number)
            elif found:
                packet_id = packet_id_of(number)
                raise protocol_error(f"packet identifier {packet_id} belongs to QoS {found}")
        return numbers

    def find(self, packet_id: int) -> tuple[Parcel[T], int] | None:
        """Return the parcel of a message that is under way, and the message's index in it; None: not known."""
        number = self._look_up((packet_id,))[0][0]
        for parcel in self.parcels():
            if parcel.sequence <= number < parcel.sequence + parcel.sent:
                return None if number in self._done else (parcel, number - parcel.sequence)
        return None

    def _look_up(self, packet_ids: Sequence[int]) -> list[tuple[int, int]]:
        """The number of each and its QoS, which is 0 where no such message is under way."""
        low = self.low
        first = packet_id_of(low)
        numbers = [low + (packet_id - first) % MAX_PACKET_ID for packet_id in packet_ids]
        return [(number, self._qos_under_way(number)) for number in numbers]

    def _qos_under_way(self, number: int) -> int:
        """The QoS of a message that was sent on this connection and is not finished, else 0."""
        if number in self._done:
            return 0
        head = self.head
        if head is not None and head.sent and number >= head.sequence:
            parcel = head
        else:
            place = bisect_right(self._sent, number, key=_sequence) - 1
            if place < 0:
                return 0
            parcel = self._sent[place]
        return parcel.qos if number < parcel.sequence + parcel.sent else 0

    def _finish(self, numbers: list[int]) -> list[Parcel[T]]:
        finished = set(numbers)  # an identifier may come twice
        self.in_flight -= len(finished)
        self._released -= finished
        self._done |= finished
        return self._finished()

    def _finished(self) -> list[Parcel[T]]:
        """Let the finished part at the front grow, and take out the parcels of which nothing is left."""
        gone: list[Parcel[T]] = []
        while (first := self._first()) is not None:
            if self._done:
                self._absorb(first)
            if first.settled < first.count:
                break
            gone.append(first)
            if self._sent:
                self._sent.popleft()
            else:
                self._unsent.popleft()
                self.queued_bytes -= first.size_bytes
        return gone

    def _absorb(self, first: Parcel[T]) -> None:
        done = self._done
        number = first.sequence + first.settled
        while number in done and number < first.end:
            done.remove(number)
            number += 1
        first.settled = number - first.sequence
        first.sent = max(first.sent, first.settled)

    # -- giving up

    def discard_head(self) -> tuple[int, list[Parcel[T]]]:
        """Give up what of the head was never sent: it expired, or is too long for the peer.

        Only while `head_is_fresh`.

        Returns:
            how many messages were given up, and the parcels all of whose messages are finished now.
        """
        head = self._unsent.popleft()
        left = head.count - head.sent
        self.queued -= left
        self.queued_bytes -= head.size_bytes
        if not head.sent:
            return left, [head]
        head.size_bytes = _size_of(head, head.sent)
        head.count = head.sent
        self._sent.append(head)
        return left, self._finished()

    def withdraw(self, wanted: Callable[[T], bool]) -> tuple[list[Parcel[T]], list[Parcel[T]]]:
        """Take out what another receiver may get instead.

        Only between connections. Of the parcels with `wanted` content: all that was never sent, and at
        QoS 1 also what was sent and is not acknowledged; a QoS 2 message that was sent stays (4.8.2-5),
        in a new parcel under its old number.

        Returns:
            new, unnumbered parcels of what was taken out, in order; and the parcels not `wanted` that are
            finished now, because only what was taken out stood before them.
        """
        self.rewind()
        taken: list[Parcel[T]] = []
        kept: deque[Parcel[T]] = deque()
        for parcel in self._unsent:
            if wanted(parcel.content):
                self._divide(parcel, taken, kept)
            else:
                kept.append(parcel)
        self._unsent = kept
        self.queued = sum(p.count - p.settled for p in kept) - len(self._done)
        self.queued_bytes = sum(p.size_bytes for p in kept)
        return taken, self._finished()

    def _divide(self, parcel: Parcel[T], taken: list[Parcel[T]], kept: deque[Parcel[T]]) -> None:
        for index in range(parcel.settled, parcel.count):
            number = parcel.sequence + index
            if number in self._done:
                self._done.discard(number)
            elif parcel.qos == QOS_2 and number < self._fresh_from:
                kept.append(_part(parcel, index, number))
            elif taken and _continues(taken[-1], parcel, index):
                taken[-1].count += 1
                taken[-1].size_bytes += _size_of(parcel, 1)
            else:
                taken.append(_part(parcel, index, -1))


def _sequence(parcel: Parcel[T]) -> int:
    return parcel.sequence


def _size_of(parcel: Parcel[T], count: int) -> int:
    return parcel.size_bytes * count // parcel.count


def _part(parcel: Parcel[T], index: int, sequence: int) -> Parcel[T]:
    """One message of a parcel as a parcel."""
    return Parcel(
        content=parcel.content,
        first=parcel.first + index,
        count=1,
        qos=parcel.qos,
        size_bytes=_size_of(parcel, 1),
        sequence=sequence,
    )


def _continues(part: Parcel[T], parcel: Parcel[T], index: int) -> bool:
    return (
        part.content is parcel.content
        and part.qos == parcel.qos
        and part.first + part.count == parcel.first + index
    )
