from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from typing_extensions import override

from acl.model import Principal
from broker.delivery import PARCEL_BYTES, PIECES_A_TURN, Delivery, Queued, QueueLimits, Verdict
from broker.durability import Volatile
from broker.memory import MemoryBudget
from broker.messages import Message, Messages
from broker.outlet import Outlet
from broker.records import MessageRecord, QueuedRecord
from mqtt.errors import RemoteProtocolError
from mqtt.outgoing import Parcel
from mqtt.packets import Packet, Properties, Publish, Pubrel, Role, Version
from mqtt.reader import PacketReader
from mqtt.runs import Run, run_of
from tests.unit.broker.test_messaging import SlowStore
from tests.unit.broker.test_outlet import Pipe, outlet_on

SENSOR = Principal("sensor")
GROUP = "$share/g/t"
ROOMY = 1 << 20
CONNACK = {Version.V5: b"\x20\x03\x00\x00\x00", Version.V311: b"\x20\x02\x00\x00"}


class Shelf(SlowStore):
    """A store of a slow disk that shows the rows it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[int, MessageRecord] = {}
        self.queued: dict[tuple[int, int], QueuedRecord] = {}
        self.released: set[tuple[int, int]] = set()

    @override
    def put_message(self, record: MessageRecord) -> None:
        assert record.message_id not in self.messages
        self.messages[record.message_id] = record

    @override
    def drop_message(self, message_id: int) -> None:
        del self.messages[message_id]

    @override
    def put_queued(self, record: QueuedRecord) -> None:
        key = (record.session_id, record.sequence)
        assert record.message_id in self.messages
        self.queued[key] = record

    @override
    def drop_queued(self, session_id: int, sequence: int) -> None:
        self.queued.pop((session_id, sequence), None)

    @override
    def settle(self, session_id: int, below: int) -> None:
        for key, row in list(self.queued.items()):
            if key[0] == session_id and row.sequence + row.count <= below:
                del self.queued[key]

    @override
    def put_released(self, session_id: int, sequences: object) -> None:
        assert isinstance(sequences, list)
        self.released |= {(session_id, sequence) for sequence in sequences}


@dataclass(kw_only=True)
class Bench:
    """A delivery with everything it needs, and a client at its end."""

    store: Volatile = field(default_factory=Volatile)
    window: int = 10
    max_queued: int = 10
    max_queued_bytes: int = 1000
    max_stored: int = 0
    max_age_s: float = 0.0
    in_turns: bool = True
    outlet_bytes: int = 1000
    max_stored_bytes: int = 1 << 20
    session_id: int = 0
    max_packet_bytes: int = 100
    version: Version = Version.V5
    ceiling_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        self.now = 0.0
        self.verdict: Callable[[Queued], Verdict] = lambda _queued: Verdict.SEND
        self.lost: list[tuple[int, int, str]] = []
        self.budget = MemoryBudget(self.ceiling_bytes, 1 << 40)
        self.messages = Messages(self.store, clock=lambda: self.now)
        self.handed_over: list[Parcel[Queued]] = []
        self.refills = 0
        self.put_off = 0
        self.delivery = Delivery(
            self.messages,
            self.store,
            limits=QueueLimits(
                max_queued=self.max_queued,
                max_queued_bytes=self.max_queued_bytes,
                max_stored=self.max_stored,
                max_stored_bytes=self.max_stored_bytes,
                max_age_s=self.max_age_s,
            ),
            budget=self.budget.share("viewer"),
            weigh=self._weigh,
            lost=self._lose,
            hand_over=self.handed_over.append,
            refill=self._refill,
            later=self._be_later,
            session_id=self.session_id,
        )
        self.outlet = self.connect()

    def _refill(self, delivery: Delivery) -> bool:
        assert delivery is self.delivery
        self.refills += 1
        return True

    def _be_later(self, delivery: Delivery) -> bool:
        self.put_off += 1
        return self.in_turns

    def _weigh(self, queued: Queued) -> Verdict:
        return self.verdict(queued)

    def _lose(self, message: Message, first: int, count: int, reason: str) -> None:
        self.lost.append((first, count, reason))

    def connect(self, *, window: int | None = None) -> Outlet:
        """The client connects, again if it was there."""
        self.pipe = Pipe()
        self.outlet = outlet_on(
            self.pipe,
            [],
            version=self.version,
            max_packet_bytes=self.max_packet_bytes,
            max_queued_bytes=self.outlet_bytes,
        )
        self.delivery.attach(self.outlet, self.window if window is None else window)
        self.delivery.pump_and_flush()
        return self.outlet

    def message(
        self,
        *payloads: bytes,
        qos: int = 1,
        topic: str = "t",
        properties: Properties | None = None,
    ) -> Message:
        """One run of messages."""
        runs = [
            run_of(
                Publish(topic=topic, payload=p, qos=qos, properties=properties or Properties()),
                Version.V5,
            )
            for p in payloads
        ]
        run = runs[0]
        if len(runs) > 1:
            run = run.repeated(b"".join(each.data for each in runs), len(runs))
        return self.messages.take(run, SENSOR)

    def give(self, *payloads: bytes, qos: int = 1, group: str = "", topic: str = "t") -> bool:
        """Deliver one run of messages."""
        message = self.message(*payloads, qos=qos, topic=topic)
        return self.give_message(message, qos=qos, group=group)

    def give_message(self, message: Message, *, qos: int = 1, group: str = "") -> bool:
        queued = Queued(message=message, retain=False, identifiers=(), group=group, weighed=0)
        return self.delivery.deliver(queued, qos=qos, first=0, count=message.run.count)

    def heard(self) -> list[Packet]:
        """Everything the client has got on this connection."""
        self.outlet.flush_now()
        reader = PacketReader(role=Role.CLIENT, max_packet_bytes=100_000)
        reader.version = self.version
        reader.feed(CONNACK[self.version] + self.pipe.written)
        found: list[Packet] = []
        while (event := reader.next_event()) is not None:
            if isinstance(event, Run):
                found += [event.packet(index) for index in range(event.count)]
            elif hasattr(event, "packets"):
                found += event.packets()
            else:
                found.append(event)
        return found[1:]

    def published(self) -> list[tuple[int | None, bytes, bool]]:
        """Packet identifier, payload and DUP of every message it got."""
        return [(p.packet_id, p.payload, p.dup) for p in self.heard() if isinstance(p, Publish)]

    def ids(self) -> list[int | None]:
        return [packet_id for packet_id, _, _ in self.published()]


# -- window and queue ------------------------------------------------------------------------


def test_delivery_numbers_messages_and_waits_at_the_window() -> None:
    bench = Bench(window=2)
    for payload in (b"1", b"2", b"3"):
        bench.give(payload)
    assert bench.ids() == [1, 2]
    assert bench.delivery.outgoing.queued == 1
    assert bench.delivery.acknowledged([1])
    assert bench.ids() == [1, 2, 3]


def test_delivery_sends_what_of_a_run_the_window_admits() -> None:
    bench = Bench(window=2)
    bench.give(b"1", b"2", b"3", b"4")
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"2"]
    bench.delivery.acknowledged([1, 2])
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"2", b"3", b"4"]


def test_delivery_drops_counts_and_tells_what_is_beyond_the_queue() -> None:
    bench = Bench(window=1, max_queued=1)
    for payload in (b"1", b"2", b"3", b"4"):
        bench.give(payload)
    assert bench.delivery.dropped == 2
    assert bench.lost == [(0, 1, "queue full"), (0, 1, "queue full")]
    assert bench.delivery.outgoing.queued == 1


def test_delivery_bounds_the_bytes_that_wait() -> None:
    bench = Bench(window=1, max_queued_bytes=100)
    for _ in range(4):
        bench.give(b"x" * 60)
    assert bench.delivery.outgoing.queued == 1
    assert bench.delivery.dropped == 2


def test_delivery_bounds_properties_like_payloads() -> None:
    bench = Bench(window=1, max_queued_bytes=100)
    properties = Properties(user_properties=(("k", "v" * 60),))
    for _ in range(4):
        bench.give_message(bench.message(b"", properties=properties))
    assert bench.delivery.outgoing.queued == 1
    assert bench.delivery.dropped == 2


def test_delivery_bounds_what_waits_for_a_client_that_is_away() -> None:
    bench = Bench(max_queued=2, session_id=1)
    bench.delivery.detach()
    for payload in (b"1", b"2", b"3"):
        bench.give(payload)
    assert bench.lost == [(0, 1, "queue full")]
    bench.connect()
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"2"]


def test_run_that_begins_to_leave_at_once_is_not_dropped_for_being_longer_than_the_queue() -> None:
    bench = Bench(window=1, max_queued=1)
    bench.give(b"1", b"2", b"3")
    assert bench.delivery.dropped == 0
    bench.delivery.acknowledged([1])
    bench.delivery.acknowledged([2])
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"2", b"3"]


def test_delivery_holds_back_while_the_outlet_is_congested() -> None:
    bench = Bench()
    bench.give(b"1")
    bench.outlet.put_control(b"x" * 2000)
    bench.give(b"2")
    assert bench.delivery.outgoing.queued == 1
    bench.delivery.acknowledged([1])
    assert bench.delivery.outgoing.queued == 0, "one may always be under way"


def test_delivery_tells_the_outlet_that_half_the_queue_is_full_and_that_it_is_not() -> None:
    bench = Bench(window=1, max_queued=4)
    found = []
    for payload in (b"1", b"2", b"3", b"4"):
        bench.give(payload)
        found.append(bench.outlet.over_full)
    assert found == [False, False, False, True], "publishers pause before anything must be dropped"
    bench.delivery.acknowledged([1])
    assert not bench.outlet.over_full


def test_delivery_tells_the_outlet_that_half_the_bytes_of_the_queue_are_taken() -> None:
    bench = Bench(window=1, max_queued_bytes=200)
    found = []
    for payload in (b"1", b"x" * 60, b"x" * 60):
        bench.give(payload)
        found.append(bench.outlet.over_full)
    assert found == [False, False, True]


def test_delivery_ignores_an_acknowledgement_of_nothing() -> None:
    bench = Bench()
    assert not bench.delivery.acknowledged([77])
    assert not bench.delivery.completed([77])
    assert not bench.delivery.refused(77)


def test_delivery_never_reuses_an_unacknowledged_identifier() -> None:
    bench = Bench(window=65_535, max_queued=70_000, max_queued_bytes=1 << 20)
    bench.give(b"first")
    bench.give(*[b""] * 65_533)
    bench.outlet.flush_now()
    bench.delivery.acknowledged(range(2, 65_535))
    bench.pipe.written = b""
    bench.give(b"a", b"b")
    assert bench.ids() == [65_535], "1 is still under way"
    bench.delivery.acknowledged([1])
    assert bench.ids() == [65_535, 1]


# -- what the client cannot take -------------------------------------------------------------


def test_delivery_drops_what_is_too_large_for_the_client_as_if_it_had_it() -> None:
    bench = Bench()
    assert not bench.give(b"x" * 200)
    bench.give(b"small")
    assert bench.lost == [(0, 1, "too large for the client")]
    assert [payload for _, payload, _ in bench.published()] == [b"small"]
    assert bench.delivery.outgoing.in_flight == 1


def test_long_queue_is_sent_in_turns() -> None:
    bench = Bench(window=1_000, max_queued=1_000, max_queued_bytes=ROOMY, outlet_bytes=ROOMY)
    bench.delivery.detach()
    for number in range(600):
        bench.give(b"%d" % number)
    bench.connect(window=1_000)
    assert len(bench.published()) == PIECES_A_TURN
    assert bench.put_off == 1
    bench.delivery.pump_and_flush()
    bench.delivery.go_on()
    bench.delivery.go_on()
    assert [payload for _, payload, _ in bench.published()] == [b"%d" % n for n in range(600)]


def test_long_queue_is_sent_at_once_where_nobody_would_come_back_to_it() -> None:
    bench = Bench(
        window=1_000,
        max_queued=1_000,
        max_queued_bytes=ROOMY,
        outlet_bytes=ROOMY,
        in_turns=False,
    )
    bench.delivery.detach()
    for number in range(600):
        bench.give(b"%d" % number)
    bench.connect(window=1_000)
    assert len(bench.published()) == 600


def test_delivery_drops_what_expired_in_the_queue() -> None:
    bench = Bench(window=1)
    bench.give(b"1")
    bench.give_message(bench.message(b"2", properties=Properties(message_expiry_interval=5)))
    bench.give(b"3")
    bench.now = 5.0
    bench.delivery.acknowledged([1])
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"3"]
    assert bench.delivery.expired == 1
    assert bench.lost == [(0, 1, "expired")]


def test_message_that_was_sent_once_is_finished_whatever_its_age() -> None:
    bench = Bench(session_id=1)
    bench.give_message(bench.message(b"1", properties=Properties(message_expiry_interval=5)))
    bench.delivery.detach()
    bench.now = 50.0
    bench.connect()
    assert bench.published() == [(1, b"1", True)]
    assert bench.delivery.expired == 0


def test_delivery_to_a_3_1_1_client_has_no_properties() -> None:
    bench = Bench(version=Version.V311)
    properties = Properties(user_properties=(("k", "v"),))
    bench.give_message(bench.message(b"x", properties=properties))
    (message,) = bench.heard()
    assert isinstance(message, Publish)
    assert (message.payload, message.qos) == (b"x", 1)


# -- connections -----------------------------------------------------------------------------


def test_delivery_sends_again_in_order_with_dup_and_the_same_identifiers() -> None:
    bench = Bench(session_id=1)
    bench.give(b"1", b"2")
    bench.give(b"3")
    bench.delivery.acknowledged([2])
    bench.delivery.detach()
    bench.give(b"4")
    bench.connect()
    assert bench.published() == [(1, b"1", True), (3, b"3", True), (4, b"4", False)]


@pytest.mark.parametrize("qos", [1, 2])
def test_message_too_large_for_the_new_connection_is_not_sent_again_but_finished(qos: int) -> None:
    store = Shelf()
    bench = Bench(session_id=1, store=store)
    bench.give(b"x" * 80, b"y" * 80, qos=qos)
    bench.give(b"small", qos=qos)
    store.settle_all(True)  # noqa: FBT003
    assert len(bench.ids()) == 3
    bench.delivery.detach()
    bench.max_packet_bytes = 50
    bench.connect()
    assert bench.published() == [(3, b"small", True)]
    assert bench.lost == [(0, 2, "too large for the client")]
    assert [row.sequence for row in store.queued.values()] == [2]


def test_delivery_drops_what_waited_longer_than_we_keep_messages() -> None:
    bench = Bench(window=1, max_age_s=10.0)
    bench.give(b"1")
    bench.give(b"2")
    bench.now = 9.0
    bench.give(b"3")
    bench.now = 10.0
    bench.delivery.acknowledged([1])
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"3"]
    assert all(p.properties == Properties() for p in bench.heard() if isinstance(p, Publish))
    assert bench.lost == [(0, 1, "expired")]


def test_what_was_sent_is_finished_however_long_it_takes() -> None:
    bench = Bench(window=1, max_age_s=10.0)
    bench.give(b"1")
    bench.delivery.detach()
    bench.now = 99.0
    bench.connect()
    assert bench.published() == [(1, b"1", True)]


def test_rest_of_a_run_that_expired_leaves_a_row_for_what_was_sent() -> None:
    store = Shelf()
    bench = Bench(session_id=1, store=store, window=1)
    properties = Properties(message_expiry_interval=5)
    bench.give_message(bench.message(b"1", b"2", b"3", properties=properties))
    bench.now = 5.0
    bench.delivery.pump_and_flush()
    assert bench.lost == [(1, 2, "expired")]
    (row,) = store.queued.values()
    assert (row.sequence, row.count) == (0, 1)
    bench.delivery.acknowledged([1])
    assert not store.queued
    assert not store.messages


def test_delivery_keeps_to_the_window_of_the_new_connection() -> None:
    bench = Bench(session_id=1)
    bench.give(b"1", b"2", b"3")
    bench.delivery.detach()
    bench.connect(window=1)
    assert bench.ids() == [1]


def test_delivery_counts_what_waits_against_the_ceiling() -> None:
    bench = Bench(window=1, session_id=1)
    bench.give(b"1")
    sent = bench.budget.used_bytes
    assert sent > 0, "what was sent waits for its acknowledgement"
    bench.give(b"2")
    assert bench.delivery.outgoing.queued_bytes == sent - PARCEL_BYTES
    assert bench.budget.used_bytes == 2 * sent
    bench.delivery.detach()
    assert bench.budget.used_bytes == 2 * sent, "what was sent waits again"
    bench.delivery.close()
    assert bench.budget.used_bytes == 0


def test_queue_counts_as_full_while_the_ceiling_is_passed() -> None:
    bench = Bench(session_id=1, ceiling_bytes=100)
    bench.delivery.detach()
    bench.give(b"x" * 100)
    assert bench.budget.share("viewer").spent
    bench.give(b"y")
    assert bench.lost == [(0, 1, "queue full")]
    bench.budget.used_bytes = 0  # others have drained
    bench.give(b"y")
    assert bench.delivery.outgoing.queued == 2


# -- policy ----------------------------------------------------------------------------------


def test_message_the_policy_denies_is_dropped_and_the_next_goes() -> None:
    bench = Bench()
    bench.verdict = lambda queued: (
        Verdict.DROP if queued.message.run.topic == b"secret" else Verdict.SEND
    )
    bench.give(b"no", topic="secret")
    bench.give(b"yes")
    assert [payload for _, payload, _ in bench.published()] == [b"yes"]


def test_message_the_policy_cannot_answer_for_waits_and_holds_its_successors_back() -> None:
    bench = Bench()
    bench.verdict = lambda _queued: Verdict.WAIT
    bench.give(b"1")
    bench.give(b"2")
    assert bench.published() == []
    assert bench.delivery.outgoing.queued == 2
    bench.verdict = lambda _queued: Verdict.SEND
    bench.delivery.pump_and_flush()
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"2"]


def test_message_behind_an_acknowledged_one_is_weighed_before_it_is_first_sent() -> None:
    bench = Bench(session_id=1)
    bench.give(b"1")
    bench.give(b"2")
    bench.delivery.acknowledged([2])
    bench.delivery.detach()
    bench.give(b"3")
    bench.verdict = lambda queued: (
        Verdict.DROP if queued.message.run.payloads() == [b"3"] else Verdict.SEND
    )
    bench.connect()
    assert bench.published() == [(1, b"1", True)]


@pytest.mark.parametrize("verdict", [Verdict.DROP, Verdict.PASS_ON])
@pytest.mark.parametrize("qos", [1, 2])
def test_message_that_may_not_be_read_any_more_is_not_sent_again(
    verdict: Verdict, qos: int
) -> None:
    bench = Bench(session_id=1)
    bench.give(b"1", qos=qos)
    bench.delivery.detach()
    bench.verdict = lambda _queued: verdict
    bench.connect()
    assert bench.published() == []
    assert not len(bench.delivery.outgoing)
    assert bench.lost == [(0, 1, "denied")]
    assert bench.handed_over == [], "it may have been sent: no other member gets it"


# -- QoS 2 -----------------------------------------------------------------------------------


def test_qos_2_message_goes_by_publish_pubrel_and_is_done() -> None:
    bench = Bench()
    bench.give(b"x", qos=2)
    assert bench.ids() == [1]
    assert bench.delivery.received([1], Version.V5)
    assert bench.heard()[-1] == Pubrel(packet_id=1)
    bench.delivery.completed([1])
    assert not len(bench.delivery.outgoing)


def test_qos_2_message_is_held_until_it_is_on_disk() -> None:
    store = SlowStore()
    bench = Bench(store=store, session_id=1)
    bench.give(b"x", qos=2)
    assert bench.published() == []
    store.settle_all(False)  # noqa: FBT003
    assert bench.published() == [], "it could not be written: the store tries again"
    store.settle_all(True)  # noqa: FBT003
    assert bench.published() == [(1, b"x", False)]


def test_qos_2_message_holds_back_what_came_after_it() -> None:
    store = SlowStore()
    bench = Bench(store=store, session_id=1)
    bench.give(b"x", qos=2)
    bench.give(b"y", qos=1)
    assert bench.published() == []
    store.settle_all(True)  # noqa: FBT003
    assert [payload for _, payload, _ in bench.published()] == [b"x", b"y"]


def test_qos_2_message_to_a_session_that_ends_with_its_connection_waits_for_no_disk() -> None:
    bench = Bench(store=SlowStore())
    bench.give(b"x", qos=2)
    assert bench.ids() == [1]


def test_qos_2_message_written_while_the_client_was_away_goes_when_it_is_back() -> None:
    store = SlowStore()
    bench = Bench(store=store, session_id=1)
    bench.give(b"x", qos=2)
    bench.delivery.detach()
    store.settle_all(True)  # noqa: FBT003
    bench.connect()
    assert bench.published() == [(1, b"x", False)]


def test_pubrel_waits_until_it_is_on_disk_that_the_message_came() -> None:
    store = Shelf()
    bench = Bench(store=store, session_id=1)
    bench.give(b"x", qos=2)
    store.settle_all(True)  # noqa: FBT003
    assert not bench.delivery.received([1], Version.V5)
    assert store.released == {(1, 0)}
    assert not any(isinstance(packet, Pubrel) for packet in bench.heard())
    store.settle_all(False)  # noqa: FBT003
    assert not any(isinstance(packet, Pubrel) for packet in bench.heard())
    store.settle_all(True)  # noqa: FBT003
    assert bench.heard()[-1] == Pubrel(packet_id=1)


def test_pubrel_for_an_older_connection_is_not_sent_on_the_new_one_twice() -> None:
    store = SlowStore()
    bench = Bench(store=store, session_id=1)
    bench.give(b"x", qos=2)
    store.settle_all(True)  # noqa: FBT003
    bench.delivery.received([1], Version.V5)
    bench.delivery.detach()
    bench.connect()
    store.settle_all(True)  # noqa: FBT003
    assert bench.heard() == [Pubrel(packet_id=1)]


def test_pubrec_of_an_unknown_identifier_is_answered_in_the_words_of_the_version() -> None:
    bench = Bench()
    bench.delivery.received([7], Version.V5)
    assert bench.heard()[-1] == Pubrel(packet_id=7, reason=0x92)  # type: ignore[arg-type]
    old = Bench(version=Version.V311)
    old.delivery.received([7], Version.V311)
    assert old.heard()[-1] == Pubrel(packet_id=7)


@pytest.mark.parametrize("qos", [1, 2])
def test_message_a_client_refuses_is_finished_and_told_as_lost(qos: int) -> None:
    bench = Bench(window=1)
    bench.give(b"1", b"2", qos=qos)
    bench.delivery.refused(1)
    bench.delivery.refused(2)
    assert [payload for _, payload, _ in bench.published()] == [b"1", b"2"]
    reason = "refused by the subscriber"
    assert bench.lost == [(0, 1, reason), (1, 1, reason)]
    assert not len(bench.delivery.outgoing)


def test_acknowledgement_of_the_other_qos_is_an_error_and_changes_nothing() -> None:
    bench = Bench()
    bench.give(b"1", qos=1)
    bench.give(b"2", qos=2)
    with pytest.raises(RemoteProtocolError):
        bench.delivery.acknowledged([2])
    with pytest.raises(RemoteProtocolError):
        bench.delivery.received([1], Version.V5)
    assert bench.delivery.outgoing.in_flight == 2


# -- rows ------------------------------------------------------------------------------------


def test_delivery_keeps_rows_until_all_of_them_is_acknowledged() -> None:
    store = Shelf()
    bench = Bench(store=store, session_id=7)
    bench.give(b"1", b"2")
    (row,) = store.queued.values()
    assert (row.session_id, row.sequence, row.count, row.qos) == (7, 0, 2, 1)
    bench.delivery.acknowledged([1])
    assert store.queued
    assert store.messages
    bench.delivery.acknowledged([2])
    assert not store.queued
    assert not store.messages


def test_message_of_two_queues_is_stored_once_and_leaves_with_the_last() -> None:
    store = Shelf()
    one = Bench(store=store, session_id=1)
    two = Bench(store=store, session_id=2)
    message = one.message(b"x")
    one.give_message(message)
    two.give_message(message)
    assert len(store.messages) == 1
    assert len(store.queued) == 2
    one.delivery.acknowledged([1])
    assert len(store.messages) == 1
    two.delivery.acknowledged([1])
    assert not store.messages


def test_session_that_ends_with_its_connection_writes_no_rows() -> None:
    store = Shelf()
    bench = Bench(store=store)
    bench.give(b"x")
    assert not store.messages
    assert not store.queued


def test_expired_message_leaves_no_rows() -> None:
    store = Shelf()
    bench = Bench(store=store, session_id=1)
    bench.delivery.detach()
    bench.give_message(bench.message(b"2", properties=Properties(message_expiry_interval=5)))
    bench.now = 6.0
    bench.connect()
    assert not store.queued
    assert not store.messages


def test_withdrawal_takes_what_came_by_the_group_and_leaves_sent_qos_2() -> None:
    store = Shelf()
    bench = Bench(store=store, session_id=1)
    bench.give(b"own")
    bench.give(b"1", b"2", group=GROUP)
    bench.give(b"exact", qos=2, group=GROUP)
    store.settle_all(True)  # noqa: FBT003
    bench.delivery.acknowledged([2])
    bench.delivery.detach()
    taken = bench.delivery.withdraw(GROUP)
    assert [(p.first, p.count, p.qos) for p in taken] == [(1, 1, 1)]
    kept = sorted((row.sequence, row.qos, row.group) for row in store.queued.values())
    assert kept == [(0, 1, ""), (3, 2, GROUP)]
    bench.connect()
    assert bench.published() == [(1, b"own", True), (4, b"exact", True)]


def test_withdrawal_leaves_no_message_behind_that_nobody_needs() -> None:
    store = Shelf()
    bench = Bench(store=store, session_id=1)
    bench.give(b"1", group=GROUP)
    bench.delivery.detach()
    assert len(bench.delivery.withdraw(GROUP)) == 1
    assert not store.queued
    assert not store.messages
    assert bench.budget.used_bytes == 0


def test_end_of_the_session_lets_its_messages_go() -> None:
    store = Shelf()
    bench = Bench(store=store, session_id=1)
    bench.give(b"1")
    bench.give(b"2", qos=2)
    bench.delivery.close()
    assert not store.messages
    store.settle_all(True)  # noqa: FBT003
    assert bench.ids() == [1], "nothing is sent once the session has ended"
