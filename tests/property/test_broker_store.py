"""Whatever is recorded, cut into commits anywhere, an opened store gives back what a dictionary would.

The model keeps tables as dictionaries and knows nothing of batches, of commits, or of rows that cancel out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from typing_extensions import override

from broker.records import (
    MessageRecord,
    QueuedRecord,
    Restored,
    SessionRecord,
    SubscriptionRecord,
)
from broker.store_batch import Batch
from broker.store_open import open_database
from broker.store_recorder import Recorder
from broker.store_write import write
from tests.store_records import (
    KEY,
    a_delayed,
    a_message,
    a_queued,
    a_retained,
    a_session,
    a_subscription,
    open_store,
    running,
)

Call = Callable[[Recorder | Batch], None]

FILTERS = st.sampled_from(["a", "a/#", "$share/g/a", "é"])
TOPICS = st.sampled_from(["t", "t/u", "é"])


class Model:
    """The tables of a store."""

    def __init__(self) -> None:
        self.sessions: dict[int, SessionRecord] = {}
        self.settled: dict[int, int] = {}
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord] = {}
        self.messages: dict[int, MessageRecord] = {}
        self.queued: dict[tuple[int, int], QueuedRecord] = {}
        self.released: set[tuple[int, int]] = set()
        self.received: set[tuple[int, int]] = set()
        self.retained: dict[str, int] = {}
        self.delayed: dict[int, float] = {}

    def drop_session(self, session_id: int) -> None:
        del self.sessions[session_id]
        self.subscriptions = {k: v for k, v in self.subscriptions.items() if k[0] != session_id}
        self.queued = {k: v for k, v in self.queued.items() if k[0] != session_id}
        self.released = {pair for pair in self.released if pair[0] != session_id}
        self.received = {pair for pair in self.received if pair[0] != session_id}

    def settle(self, session_id: int, below: int) -> None:
        self.settled[session_id] = below
        for key, record in list(self.queued.items()):
            if key[0] == session_id and key[1] + record.count <= below:
                del self.queued[key]
        self.released = {
            (owner, sequence)
            for owner, sequence in self.released
            if owner != session_id or sequence >= below
        }

    def restored(self) -> Restored:
        queued = [each for each in self.queued.values() if each.message_id in self.messages]
        retained = {topic: key for topic, key in self.retained.items() if key in self.messages}
        delayed = {key: due_at for key, due_at in self.delayed.items() if key in self.messages}
        needed = {each.message_id for each in queued} | {*retained.values()} | {*delayed}
        return Restored(
            sessions=tuple(
                replace(record, settled_below=self.settled[key])
                for key, record in sorted(self.sessions.items())
            ),
            subscriptions=tuple(record for _, record in sorted(self.subscriptions.items())),
            messages=tuple(
                record for key, record in sorted(self.messages.items()) if key in needed
            ),
            queued=tuple(sorted(queued, key=lambda each: (each.session_id, each.sequence))),
            released=tuple(sorted(self.released)),
            received=tuple(sorted(self.received)),
            retained=tuple(a_retained(*pair) for pair in sorted(retained.items())),
            delayed=tuple(a_delayed(*pair) for pair in sorted(delayed.items())),
        )


class StoreMachine(RuleBasedStateMachine):
    """Records in a model and notes the calls; now and then a life of a store makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.model = Model()
        self.calls: list[Call | None] = []
        self.sessions_made = 0
        self.messages_made = 0
        self.next_sequence: dict[int, int] = {}

    @override
    def teardown(self) -> None:
        self.folder.cleanup()

    def any_session(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.model.sessions)), label="session")

    # ---- sessions ------------------------------------------------------------------------------

    @rule()
    def make_session(self) -> None:
        self.sessions_made += 1
        record = a_session(self.sessions_made)
        self.model.sessions[record.session_id] = record
        self.model.settled[record.session_id] = 1
        self.next_sequence[record.session_id] = 1
        self.calls.append(lambda store: store.put_session(record))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data(), ended_at=st.none() | st.floats(0, 1e9))
    def replace_session(self, data: st.DataObject, ended_at: float | None) -> None:
        key = self.any_session(data)
        record = a_session(key, settled_below=self.model.settled[key], ended_at=ended_at)
        self.model.sessions[key] = record
        self.calls.append(lambda store: store.put_session(record))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data())
    def drop_session(self, data: st.DataObject) -> None:
        key = self.any_session(data)
        self.model.drop_session(key)
        self.calls.append(lambda store: store.drop_session(key))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data(), filter_=FILTERS, identifier=st.none() | st.integers(1, 9))
    def subscribe(self, data: st.DataObject, filter_: str, identifier: int | None) -> None:
        record = a_subscription(self.any_session(data), filter_, identifier=identifier)
        self.model.subscriptions[record.session_id, filter_] = record
        self.calls.append(lambda store: store.put_subscription(record))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data(), filter_=FILTERS)
    def unsubscribe(self, data: st.DataObject, filter_: str) -> None:
        key = self.any_session(data)
        self.model.subscriptions.pop((key, filter_), None)
        self.calls.append(lambda store: store.drop_subscription(key, filter_))

    # ---- messages ------------------------------------------------------------------------------

    @rule(count=st.integers(1, 5))
    def make_message(self, count: int) -> None:
        self.messages_made += 1
        record = a_message(self.messages_made, count=count)
        self.model.messages[record.message_id] = record
        self.calls.append(lambda store: store.put_message(record))

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data())
    def drop_message(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.messages)))
        del self.model.messages[key]
        self.model.queued = {k: v for k, v in self.model.queued.items() if v.message_id != key}
        self.calls.append(lambda store: store.drop_message(key))

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data(), topic=TOPICS)
    def retain(self, data: st.DataObject, topic: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.messages)))
        self.model.retained[topic] = key
        self.calls.append(lambda store: store.put_retained(a_retained(topic, key)))

    @rule(topic=TOPICS)
    def forget(self, topic: str) -> None:
        self.model.retained.pop(topic, None)
        self.calls.append(lambda store: store.drop_retained(topic))

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data(), due_at=st.floats(0, 1e9))
    def delay(self, data: st.DataObject, due_at: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.messages)))
        self.model.delayed[key] = due_at
        self.calls.append(lambda store: store.put_delayed(a_delayed(key, due_at)))

    @precondition(lambda self: self.model.delayed)
    @rule(data=st.data())
    def publish_delayed(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.delayed)))
        del self.model.delayed[key]
        self.calls.append(lambda store: store.drop_delayed(key))

    # ---- queues --------------------------------------------------------------------------------

    @precondition(lambda self: self.model.sessions and self.model.messages)
    @rule(data=st.data())
    def queue(self, data: st.DataObject) -> None:
        key = self.any_session(data)
        message = data.draw(st.sampled_from(list(self.model.messages.values())))
        first = data.draw(st.integers(0, message.count - 1))
        count = data.draw(st.integers(1, message.count - first))
        record = a_queued(
            key, self.next_sequence[key], count=count, message_id=message.message_id, first=first
        )
        self.next_sequence[key] += count
        self.model.queued[key, record.sequence] = record
        self.calls.append(lambda store: store.put_queued(record))

    @precondition(lambda self: self.model.queued)
    @rule(data=st.data(), left=st.integers(0, 2))
    def withdraw(self, data: st.DataObject, left: int) -> None:
        """Take a row out, or replace it by a shorter one in the same place."""
        key = data.draw(st.sampled_from(sorted(self.model.queued)))
        record = self.model.queued.pop(key)
        self.calls.append(lambda store: store.drop_queued(*key))
        shorter = replace(record, count=min(left, record.count))
        if shorter.count and key[1] + shorter.count > self.model.settled[key[0]]:
            self.model.queued[key] = shorter
            self.calls.append(lambda store: store.put_queued(shorter))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        key = self.any_session(data)
        below = data.draw(st.integers(self.model.settled[key], self.next_sequence[key]))
        self.model.settle(key, below)
        self.calls.append(lambda store: store.settle(key, below))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = self.any_session(data)
        sequences = st.integers(self.model.settled[key], self.next_sequence[key])
        some = data.draw(st.lists(sequences, max_size=3))
        self.model.released |= {(key, sequence) for sequence in some}
        self.calls.append(lambda store: store.put_released(key, some))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data(), some=st.lists(st.integers(1, 4), max_size=3), put=st.booleans())
    def receive(self, data: st.DataObject, some: list[int], *, put: bool) -> None:
        key = self.any_session(data)
        pairs = {(key, packet_id) for packet_id in some}
        if put:
            self.model.received |= pairs
            self.calls.append(lambda store: store.put_received(key, some))
        else:
            self.model.received -= pairs
            self.calls.append(lambda store: store.drop_received(key, some))

    # ---- lives ---------------------------------------------------------------------------------

    @rule()
    def cut(self) -> None:
        """Here a commit ends and another begins."""
        self.calls.append(None)

    @rule(absorb=st.booleans())
    def live(self, *, absorb: bool) -> None:
        """Make the calls noted so far, and compare what a next life finds."""
        if absorb:
            self._write_as_one()
        else:
            trio.run(self._run)
        self.calls.clear()
        store = open_store(self.path)
        restored = store.load()
        store.close()
        assert all(each < restored.next_session_id for each in self.model.sessions)
        assert all(each < restored.next_message_id for each in self.model.messages)
        found = replace(restored, next_session_id=1, next_message_id=1)
        assert found == self.model.restored()
        # The load repaired what referred to nothing.
        self.model.messages = {each.message_id: each for each in found.messages}
        self.model.retained = {each.topic: each.message_id for each in found.retained}
        self.model.delayed = {each.message_id: each.due_at for each in found.delayed}

    async def _run(self) -> None:
        async with running(open_store(self.path)) as store:
            for call in self.calls:
                if call is None:
                    assert await store.flush()
                else:
                    call(store)

    def _write_as_one(self) -> None:
        """What a store does whose disk refused every commit but the last."""
        whole, part = Batch(), Batch()
        for call in [*self.calls, None]:
            if call is None:
                whole.absorb(part)
                part = Batch()
            else:
                call(part)
        database = open_database(self.path, key=KEY, synchronous="off", max_bytes=1 << 30)
        write(database, whole)
        database.connection.close()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
