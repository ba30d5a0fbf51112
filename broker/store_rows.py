"""Records as rows: integer keys or tags in the clear, everything else in one sealed body.

*Rules of this file*: rows are read only at a start, so nothing but what a row is found and dropped by is in the clear.
Every row has a body, be it empty, because its seal is what guards the keys.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

import msgspec

from acl.model import PrincipalKind
from broker.records import (
    DelayedRecord,
    MessageRecord,
    QueuedRecord,
    RetainedRecord,
    SessionRecord,
    SubscriptionRecord,
    WillRecord,
)
from broker.store_seal import RowBroken
from mqtt.packets import Version

if TYPE_CHECKING:
    from broker.store_seal import Seal

Value = int | bytes
Row = tuple[Value, ...]
"""The columns of a table in their order; the sealed body is the last."""

T = TypeVar("T")

_Will = tuple[bytes, int]
_SessionBody = tuple[str, PrincipalKind, str, int, float | None, int, int, _Will | None]
_SubscriptionBody = tuple[str, int, bool, bool, int | None]
_MessageBody = tuple[bytes, int, Version, float, float | None, str, PrincipalKind]
_QueuedBody = tuple[int, int, int, bool, tuple[int, ...], str]
_RetainedBody = tuple[str, int]

_encode = msgspec.msgpack.Encoder().encode
_session_body = msgspec.msgpack.Decoder(_SessionBody)
_subscription_body = msgspec.msgpack.Decoder(_SubscriptionBody)
_message_body = msgspec.msgpack.Decoder(_MessageBody)
_queued_body = msgspec.msgpack.Decoder(_QueuedBody)
_retained_body = msgspec.msgpack.Decoder(_RetainedBody)
_delayed_body = msgspec.msgpack.Decoder(float)

_one, _two, _three = struct.Struct(">q"), struct.Struct(">qq"), struct.Struct(">qqq")


class Rows:
    """Makes rows of records, and records of rows.

    Every method that takes a row raises `RowBroken` for one that is not what was written.
    """

    def __init__(self, seal: Seal) -> None:
        """Seal and open with `seal`."""
        self._seal = seal

    def tag(self, name: str) -> bytes:
        """What stands for a topic or filter in a key."""
        return self._seal.tag(name)

    # ---- sessions ------------------------------------------------------------------------------

    def session(self, record: SessionRecord) -> Row:
        """(id, body)."""
        will = None if record.will is None else (record.will.packet, record.will.delay_s)
        body = _encode(
            (
                record.principal,
                record.principal_kind,
                record.client_id,
                record.expiry_s,
                record.ended_at,
                record.settled_below,
                record.next_sequence,
                will,
            )
        )
        place = b"session" + _one.pack(record.session_id)
        return record.session_id, self._seal.seal(body, place)

    def open_session(self, session_id: int, body: bytes) -> SessionRecord:
        """Return what `session` was made of."""
        place = b"session" + _one.pack(session_id)
        principal, kind, client_id, expiry_s, ended_at, settled, following, will = self._open(
            _session_body, body, place
        )
        return SessionRecord(
            session_id=session_id,
            principal=principal,
            principal_kind=kind,
            client_id=client_id,
            expiry_s=expiry_s,
            ended_at=ended_at,
            settled_below=settled,
            next_sequence=following,
            will=None if will is None else WillRecord(packet=will[0], delay_s=will[1]),
        )

    def subscription(self, record: SubscriptionRecord) -> Row:
        """(session, tag, body)."""
        tag = self.tag(record.filter)
        body = _encode(
            (
                record.filter,
                record.qos,
                record.no_local,
                record.retain_as_published,
                record.identifier,
            )
        )
        place = b"subscription" + _one.pack(record.session_id) + tag
        return record.session_id, tag, self._seal.seal(body, place)

    def open_subscription(self, session_id: int, tag: bytes, body: bytes) -> SubscriptionRecord:
        """Return what `subscription` was made of."""
        place = b"subscription" + _one.pack(session_id) + tag
        filter_, qos, no_local, as_published, identifier = self._open(
            _subscription_body, body, place
        )
        self._verify_tag(filter_, tag)
        return SubscriptionRecord(
            session_id=session_id,
            filter=filter_,
            qos=qos,
            no_local=no_local,
            retain_as_published=as_published,
            identifier=identifier,
        )

    # ---- messages ------------------------------------------------------------------------------

    def message(self, record: MessageRecord) -> Row:
        """(id, body)."""
        body = _encode(
            (
                record.data,
                record.count,
                record.version,
                record.received_at,
                record.expires_at,
                record.publisher,
                record.publisher_kind,
            )
        )
        place = b"message" + _one.pack(record.message_id)
        return record.message_id, self._seal.seal(body, place)

    def open_message(self, message_id: int, body: bytes) -> MessageRecord:
        """Return what `message` was made of."""
        place = b"message" + _one.pack(message_id)
        data, count, version, received_at, expires_at, publisher, kind = self._open(
            _message_body, body, place
        )
        return MessageRecord(
            message_id=message_id,
            data=data,
            count=count,
            version=version,
            received_at=received_at,
            expires_at=expires_at,
            publisher=publisher,
            publisher_kind=kind,
        )

    def retained(self, record: RetainedRecord) -> Row:
        """(tag, body)."""
        tag = self.tag(record.topic)
        body = _encode((record.topic, record.message_id))
        return tag, self._seal.seal(body, b"retained" + tag)

    def open_retained(self, tag: bytes, body: bytes) -> RetainedRecord:
        """Return what `retained` was made of."""
        topic, message_id = self._open(_retained_body, body, b"retained" + tag)
        self._verify_tag(topic, tag)
        return RetainedRecord(topic=topic, message_id=message_id)

    def delayed(self, record: DelayedRecord) -> Row:
        """(message, body)."""
        place = b"delayed" + _one.pack(record.message_id)
        return record.message_id, self._seal.seal(_encode(record.due_at), place)

    def open_delayed(self, message_id: int, body: bytes) -> DelayedRecord:
        """Return what `delayed` was made of."""
        place = b"delayed" + _one.pack(message_id)
        return DelayedRecord(message_id=message_id, due_at=self._open(_delayed_body, body, place))

    # ---- queues --------------------------------------------------------------------------------

    def queued(self, record: QueuedRecord) -> Row:
        """(session, sequence, count, body)."""
        keys = record.session_id, record.sequence, record.count
        body = _encode(
            (
                record.message_id,
                record.first,
                record.qos,
                record.retain,
                record.identifiers,
                record.group,
            )
        )
        return *keys, self._seal.seal(body, b"queued" + _three.pack(*keys))

    def open_queued(self, session_id: int, sequence: int, count: int, body: bytes) -> QueuedRecord:
        """Return what `queued` was made of."""
        place = b"queued" + _three.pack(session_id, sequence, count)
        message_id, first, qos, retain, identifiers, group = self._open(_queued_body, body, place)
        return QueuedRecord(
            session_id=session_id,
            sequence=sequence,
            count=count,
            message_id=message_id,
            first=first,
            qos=qos,
            retain=retain,
            identifiers=identifiers,
            group=group,
        )

    def pair(self, table: str, first: int, second: int) -> Row:
        """(first, second, body) of a table whose rows are nothing but two integers."""
        return first, second, self._seal.seal(b"", table.encode() + _two.pack(first, second))

    def open_pair(self, table: str, first: int, second: int, body: bytes) -> tuple[int, int]:
        """Return what `pair` was made of."""
        if self._seal.open(body, table.encode() + _two.pack(first, second)):
            raise RowBroken("a row has a body it should not have")
        return first, second

    # ---- opening -------------------------------------------------------------------------------

    def _open(self, decoder: msgspec.msgpack.Decoder[T], body: bytes, place: bytes) -> T:
        try:
            return decoder.decode(self._seal.open(body, place))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RowBroken("a row does not hold what it should") from error

    def _verify_tag(self, name: str, tag: bytes) -> None:
        # a body in the clear can hold another name than its key stands for; it could never be dropped
        if self.tag(name) != tag:
            raise RowBroken("a name is not what its row is found by")
