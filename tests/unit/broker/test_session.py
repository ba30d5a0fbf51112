from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trio.testing
from typing_extensions import override

from acl.decide import Decision, Outcome
from acl.model import Principal
from acl.rules import RuleSet
from broker.aliases import Aliases
from broker.delivery import Queued, QueueLimits
from broker.durability import Volatile
from broker.faults import Faults
from broker.memory import MemoryBudget
from broker.messages import Message, Messages
from broker.outlet import Outlet
from broker.records import SessionRecord, WillRecord
from broker.session import Rooms, Session
from broker.store import Store, SyncMode
from cache.authorizer import Authorizer
from cache.connection import ConnectionCache
from cache.limits import CacheLimits
from mqtt.errors import ReasonCode
from mqtt.outgoing import Parcel
from mqtt.packets import Pubcomp, Publish, Pubrec, Pubrel, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run, run_of
from tests.brokers import RuleAuthority, TestBroker, running_broker
from tests.unit.broker.test_delivery import CONNACK
from tests.unit.broker.test_messaging import (
    SENSOR,
    VIEWER,
    connected,
    got,
    publish,
    subscribe,
)
from tests.unit.broker.test_outlet import Pipe, outlet_on

VIEWERS = Principal("viewer")


def decision(*, allowed: bool) -> Decision:
    outcome = Outcome.ALLOW if allowed else Outcome.DENY
    return Decision(outcome, None, "as the test says", 1, id="d-000000000000")


@dataclass
class OpenPolicy:
    """Answers as a test says; what is not in `answers` is not known, and noted in `wanted`."""

    changes: int = 0
    answers: dict[bytes, bool] = field(default_factory=dict[bytes, bool])
    wanted: list[bytes] = field(default_factory=list[bytes])

    def known(self, session: Session, topic: bytes) -> Decision | None:
        answer = self.answers.get(topic)
        return None if answer is None else decision(allowed=answer)

    def find_out(self, session: Session, topic: bytes) -> None:
        self.wanted.append(topic)


class SessionRows(Volatile):
    """A store that shows its session rows."""

    def __init__(self) -> None:
        self.rows: dict[int, SessionRecord] = {}

    @override
    def put_session(self, record: SessionRecord) -> None:
        self.rows[record.session_id] = record

    @override
    def drop_session(self, session_id: int) -> None:
        del self.rows[session_id]


class House:
    """Everything that sessions need of a broker."""

    def __init__(self, *, max_queued: int = 1000) -> None:
        self.store = SessionRows()
        self.policy = OpenPolicy()
        self.budget = MemoryBudget(1 << 30)
        self.faults = Faults()
        self.lost: list[tuple[bytes, int, int, str]] = []
        self.now = 1000.0
        self.messages = Messages(self.store, clock=lambda: self.now)
        self.authorizer = Authorizer(
            RuleAuthority(RuleSet(())),
            limits=CacheLimits(),
            clock=lambda: 0.0,
            new_id=lambda: "d-000000000000",
        )
        self.handed_over: list[Parcel[Queued]] = []
        self.rooms = Rooms(
            store=self.store,
            messages=self.messages,
            policy=self.policy,
            limits=QueueLimits(max_queued=max_queued, max_queued_bytes=1 << 20),
            budget=self.budget,
            open_cache=self.authorizer.open,
            lost=self.lose,
            hand_over=self.handed_over.append,
            refill=lambda _delivery: False,
            later=lambda _delivery: False,
        )

    def lose(self, message: Message, first: int, count: int, reason: str) -> None:
        self.lost.append((message.run.topic, first, count, reason))

    @property
    def open_caches(self) -> int:
        return self.authorizer.sizes().connections

    def session(
        self, client_id: str = "c", *, principal: Principal = VIEWERS, kept: bool = False
    ) -> Session:
        """A session without a connection."""
        session = Session(principal, client_id, self.rooms)
        if kept:
            session.expiry_s = 100
            session.session_id = max(self.store.rows, default=0) + 1
            session.keep()
        return session

    def line(
        self, *, principal: Principal = VIEWERS, version: Version = Version.V5, aliases: int = 0
    ) -> Line:
        """A connection."""
        return Line(self.authorizer.open(principal), principal, version, aliases)

    def online(
        self,
        client_id: str = "c",
        *,
        kept: bool = False,
        version: Version = Version.V5,
        aliases: int = 0,
        window: int = 100,
    ) -> tuple[Session, Line]:
        """A session with a connection."""
        session, line = (
            self.session(client_id, kept=kept),
            self.line(version=version, aliases=aliases),
        )
        session.attach(line, window)
        return session, line

    def message(
        self,
        payload: bytes = b"m",
        *,
        topic: str = "t",
        qos: int = 1,
        retain: bool = False,
        count: int = 1,
    ) -> Message:
        """A run of equal messages."""
        run = run_of(Publish(topic=topic, payload=payload, qos=qos, retain=retain), Version.V5)
        return self.messages.take(run.repeated(run.data * count, count), Principal("sensor"))


class Line:
    """A connection, as far as a session sees one."""

    def __init__(
        self, cache: ConnectionCache, principal: Principal, version: Version, aliases: int
    ) -> None:
        self.principal = principal
        self.cache = cache
        self.peer = "127.0.0.1:1"
        self.pipe = Pipe()
        self.outlet: Outlet = outlet_on(
            self.pipe,
            [],
            version=version,
            max_packet_bytes=1000,
            aliases=Aliases(aliases) if aliases else None,
        )
        self.quiet_until = float("inf")
        self.certificate_ends = float("inf")
        self.endings: list[ReasonCode] = []

    def end(self, reason: ReasonCode, text: str, reference: str = "") -> None:
        assert text
        self.endings.append(reason)

    def payloads(self) -> list[bytes]:
        """What of every message the client has got."""
        self.outlet.flush_now()
        reader = PacketReader(role=Role.CLIENT, max_packet_bytes=1 << 20, topic_alias_maximum=64)
        reader.version = self.outlet.version
        reader.feed(CONNACK[self.outlet.version] + self.pipe.written)
        found: list[bytes] = []
        while (event := reader.next_event()) is not None:
            if isinstance(event, Run):
                found += event.payloads()
            elif isinstance(event, Publish):
                found.append(event.payload)
        return found


def queued(message: Message, *, weighed: int = 0, group: str = "") -> Queued:
    return Queued(message=message, retain=False, identifiers=(), group=group, weighed=weighed)


# -- what is whose ---------------------------------------------------------------------------


def test_session_uses_the_cache_of_its_connection_and_one_of_its_own_between() -> None:
    house = House()
    session = house.session()
    own = session.cache
    assert session.cache is own
    assert own.principal == VIEWERS
    line = house.line()
    session.attach(line, 10)
    assert session.cache is line.cache
    assert house.open_caches == 1, "its own is closed"
    session.detach(5.0)
    assert session.cache not in (own, line.cache)


def test_session_says_where_its_client_is_while_it_is_connected() -> None:
    house = House()
    session, line = house.online()
    assert (session.peer, session.outlet, session.ended_at) == (line.peer, line.outlet, None)
    session.detach(7.0)
    assert (session.peer, session.outlet, session.ended_at) == ("", None, 7.0)


def test_ended_session_holds_no_cache_though_it_is_asked_for_one() -> None:
    house = House()
    session = house.session()
    assert session.cache.principal == VIEWERS
    session.close()
    assert session.cache.principal == VIEWERS, "its will is still to be weighed"
    assert house.open_caches == 0


def test_new_connection_owes_no_answers_of_the_old_one() -> None:
    session, _ = House().online(kept=True)
    session.incoming.admit(10, 10)
    session.incoming.take([1])
    session.detach(0.0)
    session.attach(House().line(), 10)
    assert session.incoming.open == 0
    assert not session.incoming.is_new(1)


# -- the store -------------------------------------------------------------------------------


def test_session_without_expiry_is_written_for_its_will_only_and_keeps_no_queue() -> None:
    house = House()
    session = house.session()
    session.will = WillRecord(packet=b"", delay_s=0)
    session.session_id = 1
    session.keep()
    assert house.store.rows[1].will == session.will
    assert not session.kept


def test_session_without_a_key_writes_nothing() -> None:
    house = House()
    session = house.session()
    session.expiry_s = 100
    session.keep()
    assert not house.store.rows
    assert not session.kept


def test_row_says_what_was_sent_and_what_is_settled() -> None:
    house = House()
    session, _ = house.online(kept=True, window=2)
    session.deliver(queued(house.message(count=3)), qos=1, first=0, count=3)
    session.delivery.acknowledged([1])
    session.detach(5.0)
    session.record()
    row = house.store.rows[1]
    assert (row.settled_below, row.next_sequence, row.ended_at) == (1, 3, 5.0)


def test_closed_session_leaves_the_store_and_forgets_its_will() -> None:
    house = House()
    session = house.session(kept=True)
    session.will = WillRecord(packet=b"", delay_s=0)
    session.close()
    assert not house.store.rows
    assert not session.kept
    assert [session.will] == [None]
    session.record()
    assert not house.store.rows, "a late word about it writes no row"


# -- policy ----------------------------------------------------------------------------------


def test_message_weighed_under_the_policy_of_now_is_not_weighed_again() -> None:
    house = House()
    session, _ = house.online()
    house.policy.answers[b"t"] = False
    session.deliver(queued(house.message(), weighed=0), qos=1, first=0, count=1)
    assert session.delivery.outgoing.in_flight == 1


def test_message_queued_under_an_older_policy_is_sent_if_it_still_may_be_read() -> None:
    house = House()
    session, _ = house.online()
    house.policy.changes = 1
    house.policy.answers[b"t"] = True
    session.deliver(queued(house.message(), weighed=0), qos=1, first=0, count=1)
    assert session.delivery.outgoing.in_flight == 1


def test_message_queued_under_an_older_policy_is_dropped_if_the_grant_is_gone() -> None:
    house = House()
    session, _ = house.online()
    house.policy.changes = 1
    house.policy.answers[b"t"] = False
    session.deliver(queued(house.message(), weighed=0), qos=1, first=0, count=1)
    assert len(session.delivery.outgoing) == 0


def test_message_nobody_can_answer_for_waits_and_the_answer_is_asked_for() -> None:
    house = House()
    session, _ = house.online()
    house.policy.changes = 1
    session.deliver(queued(house.message(), weighed=0), qos=1, first=0, count=1)
    assert session.delivery.outgoing.queued == 1
    assert house.policy.wanted == [b"t"]
    house.policy.answers[b"t"] = True
    session.delivery.pump_and_flush()
    assert session.delivery.outgoing.in_flight == 1


# -- a restart -------------------------------------------------------------------------------


@dataclass
class Disk:
    """Where a broker's store lies; its state of any moment can be looked at as after `kill -9`."""

    folder: Path
    copies: int = 0

    def open(self, name: str = "store") -> Store:
        return Store.open(self.folder / name, key=None, sync=SyncMode.NEVER, max_bytes=1 << 24)

    def after_kill(self) -> Store:
        """What a broker finds that starts after this one was killed just now."""
        self.copies += 1
        name = f"copy-{self.copies}"
        for suffix in ("", "-wal"):
            if (self.folder / f"store{suffix}").exists():
                shutil.copy(self.folder / f"store{suffix}", self.folder / f"{name}{suffix}")
        return self.open(name)


@asynccontextmanager
async def life_of(store: Store) -> AsyncIterator[TestBroker]:
    """A broker from its start on this store to its end."""
    async with trio.open_nursery() as nursery:
        restored = store.load()
        await nursery.start(store.run)
        async with running_broker(SENSOR, VIEWER, store=store, restored=restored) as broker:
            yield broker
        nursery.cancel_scope.cancel()


async def killed_with_an_open_qos_2_message(disk: Disk, *, received: bool) -> tuple[Store, int]:
    """A broker is killed after it sent a message, and maybe after PUBREC; return what is left and the identifier."""
    async with life_of(disk.open()) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        await publish(sensor, b"x", qos=2)
        message = await got(viewer)
        packet_id = message.packet_id or 0
        if received:
            await viewer.send(Pubrec(packet_id=packet_id))
            assert await viewer.next() == Pubrel(packet_id=packet_id)
        return disk.after_kill(), packet_id


async def test_qos_2_message_sent_before_a_kill_comes_again_with_its_identifier(
    tmp_path: Path,
) -> None:
    store, packet_id = await killed_with_an_open_qos_2_message(Disk(tmp_path), received=False)
    async with life_of(store) as broker:
        viewer = await connected(broker, "viewer", present=True)
        again = await got(viewer)
        assert (again.packet_id, again.payload, again.dup) == (packet_id, b"x", True)
        await viewer.send(Pubrec(packet_id=packet_id))
        assert await viewer.next() == Pubrel(packet_id=packet_id)
        await viewer.send(Pubcomp(packet_id=packet_id))
        assert await viewer.nothing()


async def test_qos_2_message_received_before_a_kill_is_released_and_never_published_again(
    tmp_path: Path,
) -> None:
    store, packet_id = await killed_with_an_open_qos_2_message(Disk(tmp_path), received=True)
    async with life_of(store) as broker:
        viewer = await connected(broker, "viewer", present=True)
        assert await viewer.next() == Pubrel(packet_id=packet_id)
        await viewer.send(Pubcomp(packet_id=packet_id))
        assert await viewer.nothing()
        sensor = await broker.client("sensor")
        await publish(sensor, b"y", qos=2)
        fresh = await got(viewer)
        assert (fresh.payload, fresh.dup) == (b"y", False)
        assert fresh.packet_id != packet_id


async def test_qos_2_message_taken_before_a_kill_is_not_taken_twice(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    async with life_of(disk.open()) as broker:
        sensor, viewer = await connected(broker, "sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=1)
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=2, packet_id=7))
        assert await sensor.next() == Pubrec(packet_id=7)
        store = disk.after_kill()
    async with life_of(store) as broker:
        sensor = await connected(broker, "sensor", present=True)
        await sensor.send(Publish(topic="t/1", payload=b"x", qos=2, packet_id=7, dup=True))
        assert await sensor.next() == Pubrec(packet_id=7)
        await sensor.send(Pubrel(packet_id=7))
        assert await sensor.next() == Pubcomp(packet_id=7)
        viewer = await connected(broker, "viewer", present=True)
        assert (await got(viewer)).payload == b"x"
        assert await viewer.nothing()


async def test_acknowledged_messages_are_there_after_a_kill_in_order(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    async with life_of(disk.open()) as broker:
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", qos=2)
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(6):
            await publish(sensor, bytes([number]), qos=1 + number % 2)
        store = disk.after_kill()
    async with life_of(store) as broker:
        viewer = await connected(broker, "viewer", present=True)
        messages = [await got(viewer) for _ in range(6)]
        assert [(m.payload, m.qos) for m in messages] == [(bytes([n]), 1 + n % 2) for n in range(6)]
        assert await viewer.nothing()
