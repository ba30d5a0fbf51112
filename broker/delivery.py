"""QoS 1 and 2 to one session: what waits, what is under way, and the bytes that say so.

*Rules of this file.*

- What does not fit the client's Receive Maximum waits in a queue bounded in messages and bytes; what does not fit
  that waits in the store only, if the session is kept there (`broker.overflow`), or is dropped and counted.
- A message waits for the disk before it is sent at QoS 2 to a session that outlives this process: after a crash its
  packet identifier would belong to another message, which the client would take for a duplicate.
- What was queued under an older policy is weighed again before it is sent, so that a revoked grant stops it too.
- A message that expired in the queue is dropped; one that was sent once is finished whatever its age (4.3.3-7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from broker.overflow import SPILLED_BYTES, Overflow, Spilled
from broker.records import QueuedRecord
from broker.store_schema import StoreDamaged
from mqtt.convert import number
from mqtt.errors import ReasonCode
from mqtt.outgoing import Outgoing, Parcel, packet_id_of
from mqtt.packets import MAX_PACKET_ID, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.durability import Durability
    from broker.memory import Share
    from broker.messages import Message, Messages
    from broker.outlet import Outlet
    from broker.records import MessageRecord
    from broker.session import Session
    from mqtt.outgoing import Piece
    from mqtt.runs import Run

PUBREL = b"\x62\x02"  # type, flags and length of its short form (3.6)
PUBREL_UNKNOWN = b"\x62\x03"  # with a reason code behind the identifier
QOS_2 = 2
EXPIRED, TOO_LARGE, DENIED = "expired", "too large for the client", "denied"
Lost = Callable[["Message", int, int, str], None]
"""Told of messages a session will not get: their run, the index of the first, how many, and why."""
# While the ceiling of the broker is passed, a session may still have this much sent and not acknowledged, a read's worth: those
# who never acknowledge hold up nobody who does.
FREE_IN_FLIGHT_BYTES = 65_536
PARCEL_BYTES = 256  # of a place in the queue beside its packets; measured as 220
# Sent without a break: at some 6 us each where messages make no runs, with a window of 65,535 the loop would stand still for long.
PIECES_A_TURN = 256
NOT_WEIGHED = -1  # nobody weighed it under any policy of this life
# To a packet by its form, and for each of its Subscription Identifiers: a shorter one need not be built to know that it fits.
MOST_ADDED_BYTES = 1_024
IDENTIFIER_BYTES = 5


class Verdict(Enum):
    """What the policy of now says of a message in the queue; to pass on is for another member of its group."""

    SEND = auto()
    DROP = auto()
    WAIT = auto()
    PASS_ON = auto()


@dataclass(slots=True, kw_only=True, eq=False)
class Queued:
    """Messages as one session is to get them.

    Attributes:
        message: what.
        retain: the RETAIN flag.
        identifiers: Subscription Identifiers.
        group: filter of the shared subscription they came by; empty for none.
        weighed: the count of policy changes under which the session was last found to be allowed to read it.
        tried: sessions of the group that may not read it.
    """

    message: Message
    retain: bool
    identifiers: tuple[int, ...]
    group: str
    weighed: int
    tried: tuple[Session, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Bounds of one session.

    Attributes:
        max_queued: messages that wait behind the window.
        max_queued_bytes: their size.
        max_stored: messages that wait in the store only.
        max_stored_bytes: their size.
        max_principal_bytes: size of those of all sessions of its principal.
        max_age_s: seconds after which one that was never sent is not sent any more; 0: none.
    """

    max_queued: int
    max_queued_bytes: int
    max_stored: int = 0
    max_stored_bytes: int = 0
    max_principal_bytes: float = inf
    max_age_s: float = 0.0


class Delivery:
    """What one session gets at QoS 1 and 2.

    Attributes:
        outgoing: the queue and the window.
        overflow: what is in the store only; None when nothing is.
        session_id: the session's key in the store; 0 while it need not outlive this process.
        dropped: messages dropped because the queue was full, or too large for the client.
        expired: messages dropped because they expired in the queue.
    """

    __slots__ = (
        "_budget",
        "_counted_bytes",
        "_entry_bytes",
        "_hand_over",
        "_later",
        "_limits",
        "_lost",
        "_messages",
        "_outlet",
        "_refill",
        "_store",
        "_unfinished_bytes",
        "_waits",
        "_weigh",
        "_window",
        "dropped",
        "expired",
        "outgoing",
        "overflow",
        "session_id",
    )

    def __init__(
        self,
        messages: Messages,
        store: Durability,
        *,
        limits: QueueLimits,
        budget: Share,
        weigh: Callable[[Queued], Verdict],
        lost: Lost,
        hand_over: Callable[[Parcel[Queued]], None],
        refill: Callable[[Delivery], bool],
        later: Callable[[Delivery], bool],
        session_id: int = 0,
        outgoing: Outgoing[Queued] | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        """Start without a connection.

        Args:
            messages: keeps what must outlive the process.
            store: records the queue of such a session.
            limits: how much may wait.
            budget: the ceilings over all that waits.
            weigh: whether the session may still read a message; after `WAIT` it pumps when it knows.
            lost: told of all messages dropped.
            hand_over: gives messages of a shared subscription to other members of it.
            refill: has messages read back from the store, false when that cannot be.
            later: calls `go_on` when others had their turn, false when that cannot be.
            session_id: see there.
            outgoing: what an earlier life left.
            overflow: what of it is in the store only.
        """
        self._messages = messages
        self._store = store
        self._limits = limits
        self._budget = budget
        self._counted_bytes = 0
        self._entry_bytes = 0
        self._weigh = weigh
        self._lost = lost
        self._hand_over = hand_over
        self._refill = refill
        self._later = later
        self._waits = False
        self.session_id = session_id
        self.outgoing: Outgoing[Queued] = Outgoing() if outgoing is None else outgoing
        self.overflow = overflow
        self._unfinished_bytes = _size(self.outgoing)
        if overflow is not None:
            self._count_entries(len(overflow), overflow.bytes)
        self._outlet: Outlet | None = None
        self._window = 0
        self.dropped = 0
        self.expired = 0
        self._count_bytes()

    # ---- connections ---------------------------------------------------------------------------

    def attach(self, outlet: Outlet, receive_maximum: int) -> None:
        """Send over this connection from now on; the caller pumps."""
        self._outlet = outlet
        self._window = receive_maximum

    def detach(self) -> None:
        """The connection is gone; what is unfinished waits for the next."""
        self._outlet = None
        self.outgoing.rewind()
        for parcel in self.outgoing.parcels():
            parcel.content.message.forget_forms()
        self._count_bytes()

    # ---- filling -------------------------------------------------------------------------------

    def deliver(self, queued: Queued, *, qos: int, first: int, count: int) -> bool:
        """Queue messages of one run, and send what may be sent.

        Args:
            queued: which, and how.
            qos: 1 or 2.
            first: index of the first of them in the run.
            count: how many.

        Returns:
            True when the outlet now needs a flush by the caller.
        """
        size = count * queued.message.run.stride
        outgoing = self.outgoing
        if (
            self.overflow is not None
            or not self._fits(count, size)
            or (self.session_id and self._budget.pressed and self._can_wait(queued, count, size))
        ):
            return self._spill(queued, qos, first, count)
        parcel = Parcel(content=queued, first=first, count=count, qos=qos, size_bytes=size)
        outgoing.add(parcel)
        self._unfinished_bytes += PARCEL_BYTES + size
        if self.session_id:
            self._keep(parcel)
        return self.pump()

    def _fits(self, count: int, size: int) -> bool:
        outgoing = self.outgoing
        if not outgoing.queued and self._outlet is not None and not self._beyond_ceiling:
            return True  # it begins to leave at once; what of it must wait is bounded by a read
        return (
            outgoing.queued + count <= self._limits.max_queued
            and outgoing.queued_bytes + size <= self._limits.max_queued_bytes
            and not self._budget.spent
        )

    def _can_wait(self, queued: Queued, count: int, size: int) -> bool:
        """Whether messages that would wait in memory may wait in the store instead."""
        leaves_at_once = self._outlet is not None and not self.outgoing.queued
        return not leaves_at_once and self._may_spill(queued, Overflow(), count, size)

    def _keep(self, parcel: Parcel[Queued]) -> None:
        self._record(parcel)
        if parcel.qos == QOS_2:
            parcel.held = True
            self._store.when_durable(partial(self._let_go, parcel))

    def _record(self, parcel: Parcel[Queued]) -> None:
        self._messages.need(parcel.content.message)
        self._store.put_queued(self._row(parcel))

    def _row(self, parcel: Parcel[Queued]) -> QueuedRecord:
        return self._row_of(
            parcel.content,
            sequence=parcel.sequence,
            qos=parcel.qos,
            first=parcel.first,
            count=parcel.count,
        )

    def _row_of(
        self, queued: Queued, *, sequence: int, qos: int, first: int, count: int
    ) -> QueuedRecord:
        return QueuedRecord(
            session_id=self.session_id,
            sequence=sequence,
            count=count,
            message_id=queued.message.stored_as,
            first=first,
            qos=qos,
            retain=queued.retain,
            identifiers=queued.identifiers,
            group=queued.group,
        )

    def _let_go(self, parcel: Parcel[Queued], durable: bool) -> None:  # noqa: FBT001  a callback's one fact
        if not durable:  # the store tries again, and so do we
            self._store.when_durable(partial(self._let_go, parcel))
            return
        parcel.held = False
        self.pump_and_flush()

    # ---- in the store only ---------------------------------------------------------------------

    def _spill(self, queued: Queued, qos: int, first: int, count: int) -> bool:
        """Put messages behind all others, in the store only; drop what does not fit there either."""
        message = queued.message
        size = count * message.run.stride
        overflow = self.overflow or Overflow()
        if not self._may_spill(queued, overflow, count, size):
            self.dropped += count
            self._lost(message, first, count, "queue full")
            return False
        self.overflow = overflow
        self._messages.need(message)
        spilled = Spilled(self.outgoing.reserve(count), count, message.stored_as, size)
        self._store.put_queued(
            self._row_of(queued, sequence=spilled.sequence, qos=qos, first=first, count=count)
        )
        self._messages.spill(message)
        overflow.add(spilled)
        self._count_entries(1, size)
        self._store.when_durable(partial(self._spilled, overflow, spilled.end))
        return self.pump()

    def _may_spill(self, queued: Queued, overflow: Overflow, count: int, size: int) -> bool:
        # What came by a shared subscription can go to another member, but not from there.
        return (
            self.session_id != 0
            and not queued.group
            and not self._store.failing
            and not self._budget.full_of_entries
            and overflow.messages + count <= self._limits.max_stored
            and overflow.bytes + size <= self._limits.max_stored_bytes
            and self._budget.stored_bytes + size <= self._limits.max_principal_bytes
        )

    def _spilled(self, overflow: Overflow, end: int, durable: bool) -> None:  # noqa: FBT001  a callback's one fact
        if not durable:
            self._store.when_durable(partial(self._spilled, overflow, end))
            return
        # Who waits again after a commit that failed may be told after one that came later.
        overflow.durable_below = max(overflow.durable_below, end)
        if overflow is self.overflow:
            self._read_back()

    def _read_back(self) -> None:
        """Have the next messages read back, if there is room."""
        overflow = self.overflow
        if overflow is not None and not overflow.reading and self.wanted():
            overflow.reading = self._refill(self)

    def wanted(self) -> list[Spilled]:
        """What is to be read back now; nothing when less than half of the queue is free, or nobody is there."""
        overflow, outgoing, limits = self.overflow, self.outgoing, self._limits
        if overflow is None or self._outlet is None or self.backlogged:
            return []
        most_bytes = limits.max_queued_bytes
        if self._budget.pressed:  # no more than keeps the client busy
            most_bytes = min(most_bytes, FREE_IN_FLIGHT_BYTES)
            if outgoing.queued_bytes * 2 > most_bytes:
                return []
        return overflow.next(
            limits.max_queued - outgoing.queued, most_bytes - outgoing.queued_bytes
        )

    def bring(
        self,
        wanted: Sequence[Spilled],
        rows: dict[int, QueuedRecord],
        messages: dict[int, MessageRecord],
    ) -> None:
        """Put what was read back at the end of the queue, and send what may be sent.

        Raises:
            StoreDamaged: what was read is no message, or not what was written; those before it were taken.
        """
        overflow = self.overflow
        if overflow is None:  # the session has ended
            return
        try:
            for spilled in wanted:
                self._bring_one(
                    overflow, spilled, rows[spilled.sequence], messages[spilled.message_id]
                )
            overflow.reading = False
        finally:
            if not len(overflow):
                self.overflow = None
            self.pump_and_flush()

    def _bring_one(
        self, overflow: Overflow, spilled: Spilled, row: QueuedRecord, record: MessageRecord
    ) -> None:
        found = row.message_id, row.count, row.first + row.count <= record.count
        if found != (spilled.message_id, spilled.count, True):
            raise StoreDamaged(
                f"message {spilled.sequence} of the queue of session {self.session_id} in the store is not what"
                " was written there: restore the store from a backup"
            )
        queued = Queued(
            message=self._messages.bring(record),
            retain=row.retain,
            identifiers=row.identifiers,
            group=row.group,
            weighed=NOT_WEIGHED,
        )
        parcel = Parcel(
            content=queued,
            first=row.first,
            count=row.count,
            qos=row.qos,
            size_bytes=spilled.size_bytes,
            sequence=spilled.sequence,
        )
        self.outgoing.bring(parcel, overflow.take(spilled))
        self._unfinished_bytes += PARCEL_BYTES + spilled.size_bytes
        self._count_entries(-1, -spilled.size_bytes)

    def bring_nothing(self) -> None:
        """Note that nothing is being read any more."""
        if self.overflow is not None:
            self.overflow.reading = False

    # ---- sending -------------------------------------------------------------------------------

    @property
    def backlogged(self) -> bool:
        """True when so much waits behind the window that publishers should pause."""
        return (
            self.outgoing.queued * 2 > self._limits.max_queued
            or self.outgoing.queued_bytes * 2 > self._limits.max_queued_bytes
        )

    @property
    def _beyond_ceiling(self) -> bool:
        """True when the ceiling of the broker is passed and so much is not acknowledged that nothing more may be sent."""
        waiting_bytes = self.outgoing.queued_bytes + self._entry_bytes
        in_flight_bytes = self._unfinished_bytes - waiting_bytes
        return in_flight_bytes > FREE_IN_FLIGHT_BYTES and self._budget.spent

    def pump(self) -> bool:
        """Hand the outlet what the window admits; True when it needs a flush by the caller."""
        outlet, outgoing = self._outlet, self.outgoing
        if outlet is None:
            self._count_bytes()
            return False
        touched = False
        pieces = 0
        # One message may always be under way, else no acknowledgement would come to pull the next.
        while (head := outgoing.head) is not None and not (
            outgoing.in_flight and (outlet.congested or self._beyond_ceiling)
        ):
            pieces += 1
            if pieces > PIECES_A_TURN and self._rest_later():
                break
            verdict, reason = self._verdict(head, outlet)
            if verdict is Verdict.WAIT:
                break
            if verdict is Verdict.PASS_ON:
                self._pass_on(head)
                continue
            if verdict is Verdict.DROP and outgoing.head_is_fresh:
                self._give_up_head(reason)
                continue
            piece = outgoing.take(self._window)
            if piece is None:
                break
            if verdict is Verdict.DROP:
                self._give_up(piece, reason)
            else:
                touched = self._send(piece, outlet) or touched
        outlet.note_backlog(self.backlogged)
        self._count_bytes()
        if self.overflow is not None:
            self._read_back()
        return touched

    def _send(self, piece: Piece[Queued], outlet: Outlet) -> bool:
        data = self._bytes(piece, outlet)
        if piece.release and self.session_id:  # its PUBREC may not be on disk yet
            self._store.when_durable(partial(self._released, outlet, data))
            return False
        return outlet.put_control(data)

    def _rest_later(self) -> bool:
        """Have the rest sent when others had their turn; False when that cannot be."""
        self._waits = self._waits or self._later(self)
        return self._waits

    def go_on(self) -> None:
        """Send the rest, from a task that owes nobody a flush."""
        self._waits = False
        self.pump_and_flush()

    def _count_entries(self, number: int, stored_bytes: int) -> None:
        """Count entries that come to the overflow, or leave it, and the packets in the store."""
        self._budget.stored_bytes += stored_bytes
        size = number * SPILLED_BYTES
        self._unfinished_bytes += size
        self._entry_bytes += size
        self._budget.entry_bytes += size
        self._budget.total.entry_bytes += size

    def _count_bytes(self) -> None:
        """Tell the ceiling over all queues what waits in this one, for its turn or for an acknowledgement."""
        waiting = self._unfinished_bytes
        self._budget.used_bytes += waiting - self._counted_bytes
        self._budget.total.used_bytes += waiting - self._counted_bytes
        self._counted_bytes = waiting

    def pump_and_flush(self) -> None:
        """Do the same from a task that owes nobody a flush."""
        if self.pump() and self._outlet is not None:
            self._outlet.flush_now()

    def _verdict(self, head: Parcel[Queued], outlet: Outlet) -> tuple[Verdict, str]:
        """What is to become of the next message, and why it is dropped if it is."""
        queued = head.content
        fresh = self.outgoing.head_is_fresh
        if not fresh and self.outgoing.is_released(head.sequence + head.sent):
            return Verdict.SEND, ""  # PUBREL says nothing of the message
        if fresh and self._expired(queued.message):
            return Verdict.DROP, EXPIRED
        if self._too_large(head, outlet):
            return Verdict.DROP, TOO_LARGE  # as if it was delivered (3.1.2-25)
        verdict = self._weigh(queued)
        if verdict is Verdict.PASS_ON and not fresh:
            verdict = Verdict.DROP  # it may have been sent, so no other member gets it
        return verdict, DENIED

    def _expired(self, message: Message) -> bool:
        """Whether its publisher's interval, or the longest we keep messages, is over."""
        age_s = self._limits.max_age_s
        if message.expires_at is None and not age_s:
            return False
        now = self._messages.clock()
        return message.expired(now) or bool(age_s and now - message.received_at >= age_s)

    def _too_large(self, parcel: Parcel[Queued], outlet: Outlet) -> bool:
        """Whether the client does not take packets of this size (3.1.2-24)."""
        most = outlet.max_packet_bytes
        added = MOST_ADDED_BYTES + IDENTIFIER_BYTES * len(parcel.content.identifiers)
        return parcel.content.message.run.stride + added > most and (
            self._form(parcel.content, parcel.qos, outlet).stride > most
        )

    def _give_up(self, piece: Piece[Queued], reason: str) -> None:
        """Finish what may have been sent on an earlier connection and is not to be sent on this one."""
        self._note_lost(piece.parcel, piece.index, piece.count, reason)
        ids = [packet_id_of(piece.sequence + index) for index in range(piece.count)]
        if piece.parcel.qos == QOS_2:
            for packet_id in ids:
                self._settle(self.outgoing.refuse(packet_id))
        else:
            self._settle(self.outgoing.acknowledge(ids))

    def _pass_on(self, head: Parcel[Queued]) -> None:
        """Leave what of the head was never sent to other members of its shared subscription."""
        rest = Parcel(
            content=head.content,
            first=head.first + head.sent,
            count=head.count - head.sent,
            qos=head.qos,
        )
        with self._messages.held(rest.content.message):
            self._give_up_head()
            self._hand_over(rest)

    def _note_lost(self, parcel: Parcel[Queued], index: int, count: int, reason: str) -> None:
        if reason == EXPIRED:
            self.expired += count
        else:
            self.dropped += count
        self._lost(parcel.content.message, parcel.first + index, count, reason)

    def _give_up_head(self, reason: str = "") -> None:
        """Finish what of the head was never sent; lost if there is a reason."""
        head = self.outgoing.head
        if head is not None and reason:
            self._note_lost(head, head.sent, head.count - head.sent, reason)
        size = 0 if head is None else head.size_bytes
        _, finished = self.outgoing.discard_head()
        if head is not None:
            self._unfinished_bytes -= size - head.size_bytes  # of what was sent, that much is left
        if self.session_id and head is not None and head.sent and head not in finished:
            self._store.drop_queued(self.session_id, head.sequence)
            self._store.put_queued(self._row(head))  # what is left of it
        self._settle(finished)

    def _form(self, queued: Queued, qos: int, outlet: Outlet) -> Run:
        return queued.message.form(
            outlet.version,
            qos,
            queued.identifiers,
            retain=queued.retain,
            now=self._messages.clock(),
        )

    def _bytes(self, piece: Piece[Queued], outlet: Outlet) -> bytes:
        first = packet_id_of(piece.sequence)
        if piece.release:
            return PUBREL + first.to_bytes(2)
        ids: Sequence[int] = range(first, first + piece.count)
        if first + piece.count > MAX_PACKET_ID + 1:
            ids = [packet_id_of(piece.sequence + index) for index in range(piece.count)]
        run = self._form(piece.parcel.content, piece.parcel.qos, outlet)
        return number(run, piece.parcel.first + piece.index, ids, dup=piece.dup)

    # ---- acknowledgements ----------------------------------------------------------------------

    def acknowledged(self, packet_ids: Sequence[int]) -> bool:
        """Take PUBACKs; True when the outlet needs a flush.

        Raises:
            RemoteProtocolError: one is of a QoS 2 message.
        """
        self._settle(self.outgoing.acknowledge(packet_ids))
        return self.pump()

    def refused(self, packet_id: int) -> bool:
        """Take a PUBACK or PUBREC with a failure: the message is finished (4.4.0-2).

        Returns:
            True when the outlet needs a flush.
        """
        found = self.outgoing.find(packet_id)
        if found is not None:
            parcel, index = found
            message = parcel.content.message
            self._lost(message, parcel.first + index, 1, "refused by the subscriber")
            if parcel.qos != QOS_2:
                return self.acknowledged((packet_id,))
        self._settle(self.outgoing.refuse(packet_id))
        return self.pump()

    def received(self, packet_ids: Sequence[int], version: Version) -> bool:
        """Take PUBRECs; answer PUBREL, when it is on disk that there is no PUBLISH again.

        Returns:
            True when the outlet needs a flush.

        Raises:
            RemoteProtocolError: one is of a QoS 1 message.
        """
        known, unknown = self.outgoing.receive(packet_ids)
        answer = b"".join([PUBREL + packet_id_of(sequence).to_bytes(2) for sequence in known])
        answer += b"".join([_unknown(packet_id, version) for packet_id in unknown])
        if not self.session_id or not known:
            return self._answer(answer)
        self._store.put_released(self.session_id, known)
        self._store.when_durable(partial(self._released, self._outlet, answer))
        return False

    def _released(self, outlet: Outlet | None, answer: bytes, durable: bool) -> None:  # noqa: FBT001
        if not durable:
            self._store.when_durable(partial(self._released, outlet, answer))
        elif outlet is not None and outlet is self._outlet and outlet.put_control(answer):
            outlet.flush_now()

    def _answer(self, data: bytes) -> bool:
        return self._outlet is not None and self._outlet.put_control(data)

    def completed(self, packet_ids: Sequence[int]) -> bool:
        """Take PUBCOMPs; True when the outlet needs a flush."""
        self._settle(self.outgoing.complete(packet_ids))
        return self.pump()

    def _settle(self, finished: list[Parcel[Queued]]) -> None:
        self._unfinished_bytes -= sum(PARCEL_BYTES + parcel.size_bytes for parcel in finished)
        if not self.session_id:
            return
        self._store.settle(self.session_id, self.outgoing.low)
        for parcel in finished:
            self._messages.release(parcel.content.message)

    # ---- the end -------------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """The shared subscriptions by which something unfinished came, also those that were left since."""
        names = [parcel.content.group for parcel in self.outgoing.parcels()]
        return [name for name in dict.fromkeys(names) if name]

    def withdraw(self, group: str) -> list[Parcel[Queued]]:
        """Take out what came by a shared subscription and may go to another member; only while detached."""
        before = [p for p in self.outgoing.parcels() if p.content.group == group]
        taken, finished = self.outgoing.withdraw(lambda queued: queued.group == group)
        if self.session_id:
            self._rewrite(before, [p for p in self.outgoing.parcels() if p.content.group == group])
            self._settle(finished)
        self._unfinished_bytes = _size(self.outgoing) + self._entry_bytes
        self._count_bytes()
        return taken

    def _rewrite(self, before: list[Parcel[Queued]], after: list[Parcel[Queued]]) -> None:
        """Replace rows of the store by what is left of them."""
        for parcel in before:
            self._store.drop_queued(self.session_id, parcel.sequence)
        for parcel in after:
            self._record(parcel)
        for parcel in before:
            self._messages.release(parcel.content.message)

    def close(self) -> None:
        """The session has ended: give up everything; whoever ends it drops its rows."""
        self._outlet = None
        if self.session_id:
            for parcel in self.outgoing.parcels():
                self._messages.release(parcel.content.message)
            for spilled in self.overflow.entries() if self.overflow is not None else ():
                self._messages.release_spilled(spilled.message_id)
                self._count_entries(-1, -spilled.size_bytes)
        self.outgoing = Outgoing()
        self.overflow = None
        self._unfinished_bytes = 0
        self.session_id = 0
        self._count_bytes()


def _size(outgoing: Outgoing[Queued]) -> int:
    return sum(PARCEL_BYTES + parcel.size_bytes for parcel in outgoing.parcels())


def _unknown(packet_id: int, version: Version) -> bytes:
    """PUBREL for an identifier that is not known; only MQTT 5 can say so."""
    identifier = packet_id.to_bytes(2)
    if version is not Version.V5:
        return PUBREL + identifier
    return PUBREL_UNKNOWN + identifier + bytes((ReasonCode.PACKET_IDENTIFIER_NOT_FOUND,))
