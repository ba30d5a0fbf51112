"""What outlives a connection, as plain values: the rows that the store keeps and gives back at a start.

*Rules of this file*: nothing here knows how it is stored. Identifiers are given by the broker and never
reused while anything refers to them. Moments are seconds since the epoch.

*Theory of operation.* A session gives every QoS 1 or 2 message it shall get a sequence number, and the packet
identifier follows from that number (`mqtt.outgoing`). So a message that was sent needs no row of its own to be sent
again under its old identifier (MQTT 4.4.0-1): the rows say what lies in the queue, `settled_below` where the
queue begins, and `Released` which QoS 2 messages had their PUBREC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acl.model import PrincipalKind
    from mqtt.packets import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class WillRecord:
    """A will that is still to be published if its client does not come back.

    Attributes:
        packet: the will as an encoded MQTT 5 PUBLISH of its QoS (packet id 1 if that is not 0) and retain flag.
        delay_s: the Will Delay Interval.
    """

    packet: bytes
    delay_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session, whether its client is connected or not.

    Attributes:
        session_id: the store's key, from 1.
        principal: name of whose session.
        principal_kind: person or program.
        client_id: the MQTT client identifier.
        expiry_s: seconds it outlives its connection; 0 for one that is kept only for the sake of its will.
        ended_at: when the connection ended; None while connected.
        settled_below: sequence numbers below it are done with.
        next_sequence: a message with this or a later number was never sent; counts only if `ended_at` is not None.
        will: published if the client does not come back in time.
    """

    session_id: int
    principal: str
    principal_kind: PrincipalKind
    client_id: str
    expiry_s: int
    ended_at: float | None
    settled_below: int
    next_sequence: int
    will: WillRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRecord:
    """One topic filter of a session, `$share/NAME/` included where it has that."""

    session_id: int
    filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    identifier: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """A run of PUBLISH packets that differ in nothing but packet identifier, correlation data and payload.

    Attributes:
        message_id: the store's key, from 1.
        data: the packets' wire bytes, back to back, all of one length.
        count: packets in it.
        version: the version they are written in.
        received_at: when the broker took them; the Message Expiry Interval runs from here.
        expires_at: when they expire; None: never.
        publisher: name of the principal that published them.
        publisher_kind: person or program.
    """

    message_id: int
    data: bytes
    count: int
    version: Version
    received_at: float
    expires_at: float | None
    publisher: str
    publisher_kind: PrincipalKind


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRecord:
    """Messages waiting for, or sent to and not acknowledged by, one session.

    Attributes:
        session_id: whose.
        sequence: of the first of them; the others follow one by one.
        count: how many.
        message_id: where their packets are.
        first: index of the first packet there.
        qos: at which they are delivered, 1 or 2.
        retain: the RETAIN flag they are delivered with.
        identifiers: Subscription Identifiers they are delivered with.
        group: the filter of the shared subscription they came by, `$share/NAME/` included; empty for none.
    """

    session_id: int
    sequence: int
    count: int
    message_id: int
    first: int
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpilledRecord:
    """A row of a queue that a start left in the store, because more stands before it than memory is to hold.

    Attributes:
        session_id: whose.
        sequence: of the first of its messages.
        count: how many.
        message_id: where their packets are.
        size_bytes: of these packets.
        message_bytes: of all packets there.
    """

    session_id: int
    sequence: int
    count: int
    message_id: int
    size_bytes: int
    message_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedRecord:
    """The retained message of a topic; its message is one packet."""

    topic: str
    message_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedRecord:
    """A message to be published later; its message is one packet on the topic it is meant for."""

    message_id: int
    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Everything a store held, as one start finds it; each in the order of its keys.

    Attributes:
        messages: those that something here refers to.
        spilled: what of the queues was left in the store.
        released: (session, sequence) of QoS 2 messages whose PUBREC came.
        received: (session, packet identifier) of QoS 2 messages taken whose PUBREL has not come.
        next_session_id: no session had this or a later id.
        next_message_id: no message had this or a later id.
    """

    sessions: tuple[SessionRecord, ...] = ()
    subscriptions: tuple[SubscriptionRecord, ...] = ()
    messages: tuple[MessageRecord, ...] = ()
    queued: tuple[QueuedRecord, ...] = ()
    spilled: tuple[SpilledRecord, ...] = ()
    released: tuple[tuple[int, int], ...] = ()
    received: tuple[tuple[int, int], ...] = ()
    retained: tuple[RetainedRecord, ...] = ()
    delayed: tuple[DelayedRecord, ...] = ()
    next_session_id: int = 1
    next_message_id: int = 1
