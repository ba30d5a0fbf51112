"""A start: from the rows of the store to sessions, queues, retained and delayed messages.

*Rules of this file*: a session whose client was connected when the broker stopped counts as left at this start: its will
becomes due, its expiry runs. What may have been sent to it is sent again with DUP (4.4.0-1).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from acl.model import Principal
from broker.delivery import NOT_WEIGHED, Queued
from broker.messages import message_of
from broker.overflow import Overflow, Spilled
from broker.routes import Subscribed
from broker.session import Session
from mqtt.incoming import Incoming
from mqtt.outgoing import Outgoing, Parcel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.delayed import Delayed
    from broker.messages import Messages
    from broker.records import QueuedRecord, Restored, SessionRecord, SpilledRecord
    from broker.registry import Registry
    from broker.retained import Retained
    from broker.session import Rooms

T = TypeVar("T")


class Restorer:
    """Builds what a store held.

    Args:
        restored: the rows.
        messages: takes the messages.
        now: the time of this start.
    """

    def __init__(self, restored: Restored, messages: Messages, *, now: float) -> None:
        self._rows = restored
        self._now = now
        self._messages = {each.message_id: message_of(each) for each in restored.messages}
        for message_id, message in self._messages.items():
            messages.restored(message, message_id)
        needed_by = Counter(each.message_id for each in restored.spilled)
        for each in restored.spilled:
            if (number := needed_by.pop(each.message_id, 0)) > 0:
                here = self._messages.get(each.message_id)
                messages.spilled(each.message_id, number, each.message_bytes, here)

    def restore(
        self, *, rooms: Rooms, registry: Registry, retained: Retained, delayed: Delayed
    ) -> None:
        """Hand everything to those who keep it.

        Args:
            rooms: what sessions need.
            registry: takes the sessions.
            retained: takes the retained messages.
            delayed: takes the delayed ones.
        """
        for kept in self._rows.retained:
            retained.restored(self._messages[kept.message_id])
        for waiting in self._rows.delayed:
            delayed.restored(self._messages[waiting.message_id], waiting.due_at)
        queued = _by_session((each.session_id, each) for each in self._rows.queued)
        released = _by_session(self._rows.released)
        received = _by_session(self._rows.received)
        subscriptions = _by_session((each.session_id, each) for each in self._rows.subscriptions)
        spilled = _by_session((each.session_id, each) for each in self._rows.spilled)
        for record in self._rows.sessions:
            key = record.session_id
            session = Session(
                Principal(record.principal, record.principal_kind),
                record.client_id,
                rooms,
                session_id=key,
                outgoing=self._outgoing(
                    record, queued.get(key, []), released.get(key, []), spilled.get(key, [])
                ),
                overflow=_overflow(spilled.get(key, [])),
                incoming=Incoming(received.get(key, ())),
            )
            self._begin_absence(session, record)
            for row in subscriptions.get(key, []):
                session.hold(
                    Subscribed(
                        session=session,
                        filter=row.filter,
                        qos=row.qos,
                        no_local=row.no_local,
                        retain_as_published=row.retain_as_published,
                        identifier=row.identifier,
                    )
                )
            registry.restored(session)
            session.keep()
            session.delivery.session_id = (
                key  # also of one that ends at once: it gives back what it holds
            )

    def _begin_absence(self, session: Session, record: SessionRecord) -> None:
        session.expiry_s = record.expiry_s
        session.ended_at = self._now if record.ended_at is None else record.ended_at
        session.will = record.will
        if record.will is not None:
            session.will_at = session.ended_at + min(record.will.delay_s, record.expiry_s)

    def _outgoing(
        self,
        record: SessionRecord,
        queued: list[QueuedRecord],
        released: list[int],
        spilled: list[SpilledRecord],
    ) -> Outgoing[Queued]:
        rows: list[QueuedRecord | SpilledRecord] = [*queued, *spilled]
        end = max([record.settled_below, *(row.sequence + row.count for row in rows)])
        fresh_from = end if record.ended_at is None else record.next_sequence
        outgoing: Outgoing[Queued] = Outgoing(max(end, fresh_from), fresh_from=fresh_from)
        for row in sorted(queued, key=_sequence):
            if row.sequence + row.count <= record.settled_below:
                continue
            message = self._messages[row.message_id]
            message.needed_by += 1
            parcel = Parcel(
                content=Queued(
                    message=message,
                    retain=row.retain,
                    identifiers=row.identifiers,
                    group=row.group,
                    weighed=NOT_WEIGHED,
                ),
                first=row.first,
                count=row.count,
                qos=row.qos,
                size_bytes=row.count * message.run.stride,
            )
            parcel.sequence = row.sequence
            outgoing.restore(
                parcel,
                settled_below=record.settled_below,
                released=[s for s in released if row.sequence <= s < row.sequence + row.count],
            )
        if spilled:
            outgoing.elsewhere_from = spilled[0].sequence
        return outgoing


def _overflow(spilled: list[SpilledRecord]) -> Overflow | None:
    if not spilled:
        return None
    return Overflow(
        [Spilled(each.sequence, each.count, each.message_id, each.size_bytes) for each in spilled]
    )


def _by_session(rows: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    found: dict[int, list[T]] = {}
    for session_id, row in rows:
        found.setdefault(session_id, []).append(row)
    return found


def _sequence(row: QueuedRecord) -> int:
    return row.sequence
