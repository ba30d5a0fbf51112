"""Messages the broker has taken over: a run, when it expires, who published it, and who still needs it.

*Rules of this file*: a message is written to the store when the first who needs it there asks for that, once, and
leaves it with the last. Who needs it in the store only (`spill`) does not keep it in memory; when one of them needs it
here again it is the same object for all that have it. What several subscribers get alike is built once and shared.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from typing_extensions import override

from acl.model import Principal
from broker.records import MessageRecord
from broker.store_schema import StoreDamaged
from mqtt.convert import variant
from mqtt.errors import MqttError
from mqtt.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.durability import Durability
    from mqtt.packets import Version

MAX_VARIANTS = 8  # kept with a message; subscribers differ in version, QoS, RETAIN and identifiers

Form = tuple["Version", int, bool, tuple[int, ...]]


class Message:
    """The messages of one run.

    Attributes:
        run: their packets.
        publisher: who published them.
        received_at: when, in seconds since the epoch.
        expires_at: when they expire, None for never.
        stored_as: their key in the store, 0 while they are not there.
    """

    __slots__ = (
        "__weakref__",
        "_variants",
        "expires_at",
        "needed_by",
        "publisher",
        "received_at",
        "run",
        "stored_as",
    )

    def __init__(
        self, run: Run, *, publisher: Principal, received_at: float, expires_at: float | None
    ) -> None:
        """Take over a run."""
        self.run = run
        self.publisher = publisher
        self.received_at = received_at
        self.expires_at = expires_at
        self.stored_as = 0
        self.needed_by = 0
        self._variants: dict[Form, Run] | None = None

    @override
    def __repr__(self) -> str:
        return f"<Message {self.run!r} of {self.publisher.name}, stored as {self.stored_as}>"

    def expired(self, now: float) -> bool:
        """Whether nobody may get it any more who did not begin to (3.3.2-5)."""
        return self.expires_at is not None and self.expires_at <= now

    def form(
        self, version: Version, qos: int, identifiers: tuple[int, ...], *, retain: bool, now: float
    ) -> Run:
        """The packets as a subscriber gets them, numbers aside.

        Args:
            version: the subscriber's.
            qos: of the delivery.
            identifiers: Subscription Identifiers to add.
            retain: the RETAIN flag.
            now: what the interval until expiry is counted from (3.3.2-6).
        """
        if self.expires_at is not None and now - self.received_at >= 1:
            left = max(int(self.expires_at - now), 1)
            return variant(
                self.run,
                version=version,
                qos=qos,
                retain=retain,
                identifiers=identifiers,
                expiry_s=left,
            )
        key = (version, qos, retain, identifiers)
        known = self._variants
        if known is None:
            known = self._variants = {}
        run = known.get(key)
        if run is None:
            run = variant(
                self.run, version=version, qos=qos, retain=retain, identifiers=identifiers
            )
            if len(known) < MAX_VARIANTS:
                known[key] = run
        return run

    def forget_forms(self) -> None:
        """Give back the memory of what was built: it waits for somebody who is away."""
        self._variants = None


class Messages:
    """Makes messages, and keeps those in the store that somebody needs there."""

    def __init__(self, store: Durability, *, clock: Callable[[], float], next_id: int = 1) -> None:
        """Start with none.

        Args:
            store: where they are kept.
            clock: seconds since the epoch.
            next_id: the key of the next one stored.
        """
        self._store = store
        self.clock = clock
        self._next_id = next_id
        # Who needs a message in the store only: how many, and its bytes; and where it is in memory all the same.
        self._away: dict[int, tuple[int, int]] = {}
        self._met: WeakValueDictionary[int, Message] = WeakValueDictionary()
        self.stored = 0
        self.stored_bytes = 0

    def take(self, run: Run, publisher: Principal) -> Message:
        """Take over a run that was allowed."""
        now = self.clock()
        interval = run.expiry_interval
        return Message(
            run,
            publisher=publisher,
            received_at=now,
            expires_at=None if interval is None else now + interval,
        )

    def need(self, message: Message) -> None:
        """Somebody needs the message to outlive this process."""
        message.needed_by += 1
        if not message.stored_as:
            message.stored_as = self._next_id
            self._next_id += 1
            self._count(1, len(message.run.data))
            self._store.put_message(_record(message))

    def release(self, message: Message) -> None:
        """Somebody who needed it does so no more."""
        message.needed_by -= 1
        if not message.needed_by and message.stored_as not in self._away:
            self._drop(message.stored_as, len(message.run.data))
            message.stored_as = 0

    @contextmanager
    def held(self, message: Message) -> Generator[None]:
        """Keep a message where it is while it goes from one who needs it to another, in one step."""
        # Only where it is stored now: else what the one it goes to needs would be taken away at the end.
        stored = bool(message.stored_as)
        message.needed_by += stored
        yield
        if stored:
            self.release(message)

    def restored(self, message: Message, stored_as: int) -> None:
        """Take back a message of an earlier life; each who needs it says so by `need`."""
        message.stored_as = stored_as
        self._count(1, len(message.run.data))

    def _count(self, sign: int, size_bytes: int) -> None:
        self.stored += sign
        self.stored_bytes += sign * size_bytes

    def _drop(self, stored_as: int, size_bytes: int) -> None:
        self._store.drop_message(stored_as)
        self._count(-1, size_bytes)
        self._met.pop(stored_as, None)

    # ---- in the store only ---------------------------------------------------------------------

    def spill(self, message: Message) -> None:
        """Somebody who needs the message needs it in the store only from now on."""
        message.needed_by -= 1
        count, _ = self._away.get(message.stored_as, (0, 0))
        self._away[message.stored_as] = count + 1, len(message.run.data)
        self._met[message.stored_as] = message

    def spilled(
        self, stored_as: int, needed_by: int, size_bytes: int, message: Message | None
    ) -> None:
        """Take back a message of an earlier life that so many need in the store only.

        Args:
            stored_as: its key.
            needed_by: how many.
            size_bytes: of its packets.
            message: what `restored` was given, if others need it here.
        """
        self._away[stored_as] = needed_by, size_bytes
        if message is None:
            self._count(1, size_bytes)
        else:
            self._met[stored_as] = message

    def bring(self, record: MessageRecord) -> Message:
        """Somebody who needed a message in the store only needs it here again."""
        message = self._met.get(record.message_id)
        if message is None:
            message = self._met[record.message_id] = message_of(record)
            message.stored_as = record.message_id
        message.needed_by += 1
        self._less_away(record.message_id)
        return message

    def release_spilled(self, stored_as: int) -> None:
        """Somebody who needed a message in the store only does so no more."""
        size_bytes = self._less_away(stored_as)
        message = self._met.get(stored_as)
        if stored_as not in self._away and (message is None or not message.needed_by):
            self._drop(stored_as, size_bytes)
            if message is not None:
                message.stored_as = 0

    def _less_away(self, stored_as: int) -> int:
        count, size_bytes = self._away.pop(stored_as)
        if count > 1:
            self._away[stored_as] = count - 1, size_bytes
        return size_bytes


def message_of(record: MessageRecord) -> Message:
    """The message that was stored.

    Raises:
        StoreDamaged: it is no MQTT packet.
    """
    stride = len(record.data) // record.count
    try:
        first = Run.parse(record.data[:stride], record.version)
        run = first if record.count == 1 else first.repeated(record.data, record.count)
    except MqttError as error:
        raise StoreDamaged(
            f"message {record.message_id} of the store is no MQTT packet: {error};"
            " start with the version that wrote it, or move the store away"
        ) from error
    return Message(
        run,
        publisher=Principal(record.publisher, record.publisher_kind),
        received_at=record.received_at,
        expires_at=record.expires_at,
    )


def _record(message: Message) -> MessageRecord:
    return MessageRecord(
        message_id=message.stored_as,
        data=message.run.data,
        count=message.run.count,
        version=message.run.version,
        received_at=message.received_at,
        expires_at=message.expires_at,
        publisher=message.publisher.name,
        publisher_kind=message.publisher.kind,
    )
