from __future__ import annotations

from math import inf

import trio
from typing_extensions import override

from acl.model import Principal
from broker.admission import Offer, agree
from broker.config import BrokerLimits
from broker.records import WillRecord
from broker.registry import Registry, RegistryLimits
from broker.router import Router
from broker.routes import Subscribed
from broker.session import NEVER_EXPIRES_S, Session
from mqtt.errors import ReasonCode
from mqtt.packets import Connect, Properties, Will
from tests.unit.broker.test_router import Check
from tests.unit.broker.test_session import House, Line, queued

GROUP = "$share/g/t"
OFFER = Offer(keeps_sessions=True, response_information="", accept_mqtt31=False)
FOR_EVER = BrokerLimits(max_session_expiry_s=NEVER_EXPIRES_S)


class Hall:
    """A registry, and who enters it."""

    def __init__(
        self,
        *,
        max_connections: int = 10,
        max_sessions: int = 10,
        max_sessions_per_principal: int = 10,
        keeps: bool = True,
    ) -> None:
        self.house = House()
        self.router = Router(Check(), lost=self.house.lose)
        self.published: list[tuple[str, WillRecord]] = []
        self.registry = Registry(
            limits=RegistryLimits(
                max_connections=max_connections,
                max_sessions=max_sessions,
                max_sessions_per_principal=max_sessions_per_principal,
            ),
            now=lambda: self.house.now,
            rooms=self.house.rooms,
            router=self.router,
            keeps=keeps,
            publish_will=self._publish_will,
            faults=self.house.faults,
        )

    def _publish_will(self, session: Session, will: WillRecord) -> None:
        self.published.append((session.client_id, will))

    def enter(
        self,
        name: str = "sensor",
        client_id: str = "c",
        *,
        expiry_s: int | None = None,
        clean: bool = False,
        will: Will | None = None,
    ) -> tuple[Line, Session, bool]:
        """A client connects."""
        line = self.house.line(principal=Principal(name))
        connect = Connect(
            client_id=client_id,
            clean_start=clean,
            will=will,
            properties=Properties(session_expiry_interval=expiry_s),
        )
        terms = agree(connect, limits=FOR_EVER, offer=OFFER, principal=name, assigned_id="")
        session, present = self.registry.enter(line, connect, terms)
        return line, session, present

    def subscribe(self, session: Session, filter_: str) -> None:
        subscribed = Subscribed(
            session=session,
            filter=filter_,
            qos=1,
            no_local=False,
            retain_as_published=False,
            identifier=None,
        )
        session.hold(subscribed)
        self.router.subscribe(subscribed)


def will_after(delay_s: int) -> Will:
    return Will(topic="t/will", payload=b"gone", properties=Properties(will_delay_interval=delay_s))


# -- who is who ------------------------------------------------------------------------------


def test_registry_takes_over_the_older_connection_of_the_same_client() -> None:
    hall = Hall()
    older, session, _ = hall.enter(expiry_s=100)
    newer, same, present = hall.enter(expiry_s=100)
    assert older.endings == [ReasonCode.SESSION_TAKEN_OVER]
    assert newer.endings == []
    assert same is session
    assert present
    assert session.connection is newer
    assert (hall.registry.taken_over, hall.registry.resumed) == (1, 1)
    hall.registry.leave(older, session)
    assert len(hall.registry) == 1, "the one taken over does not remove its successor"
    assert session.connection is newer
    hall.registry.leave(newer, session)
    assert len(hall.registry) == 0
    assert hall.registry.sessions == 1


def test_connection_taken_over_by_a_clean_start_does_not_touch_the_new_session() -> None:
    hall = Hall()
    older, first, _ = hall.enter(expiry_s=100)
    _, second, present = hall.enter(expiry_s=100, clean=True)
    assert not present
    assert first.ended
    hall.registry.leave(older, first)
    assert hall.registry.all_sessions() == [second]


def test_registry_never_takes_over_another_principals_session() -> None:
    hall = Hall()
    victim, theirs, _ = hall.enter("sensor", "c1", expiry_s=100)
    _, mine, present = hall.enter("mallory", "c1", expiry_s=100)
    assert victim.endings == []
    assert not present
    assert mine is not theirs
    assert len(hall.registry) == 2


def test_session_without_expiry_is_not_resumed_though_it_is_still_there() -> None:
    hall = Hall()
    _, first, _ = hall.enter()
    _, second, present = hall.enter()
    assert first.ended
    assert not present
    assert hall.registry.all_sessions() == [second]


def test_without_a_store_no_session_outlives_its_connection() -> None:
    hall = Hall(keeps=False)
    line, session, _ = hall.enter(expiry_s=100)
    assert not session.kept
    hall.registry.leave(line, session)
    assert session.ended
    assert hall.registry.sessions == 0


def test_session_that_is_kept_has_a_row_and_one_that_ended_has_none() -> None:
    hall = Hall()
    line, session, _ = hall.enter(expiry_s=100)
    (row,) = hall.house.store.rows.values()
    assert (row.principal, row.client_id, row.ended_at) == ("sensor", "c", None)
    hall.registry.leave(line, session)
    assert hall.house.store.rows[row.session_id].ended_at == hall.house.now
    hall.enter(clean=True)
    assert not hall.house.store.rows


def test_key_of_a_session_is_never_used_again() -> None:
    hall = Hall()
    _, first, _ = hall.enter(expiry_s=100)
    key = first.session_id
    _, second, _ = hall.enter(expiry_s=100, clean=True)
    assert second.session_id == key + 1


# -- bounds ----------------------------------------------------------------------------------


def test_registry_is_full_at_its_bound() -> None:
    hall = Hall(max_connections=1)
    assert not hall.registry.full
    hall.enter()
    assert hall.registry.full


def test_sessions_are_bounded_in_all_and_for_each_principal() -> None:
    hall = Hall(max_sessions=3, max_sessions_per_principal=2)
    registry = hall.registry
    line, session, _ = hall.enter("sensor", "1")
    hall.enter("sensor", "2", expiry_s=100)
    assert registry.refusal(Principal("sensor"), "3") == "too many sessions of this principal"
    assert registry.refusal(Principal("sensor"), "2") == "", "that one is there already"
    assert registry.refusal(Principal("viewer"), "3") == ""
    hall.enter("viewer", "3")
    assert registry.refusal(Principal("other"), "4") == "too many sessions"
    registry.leave(line, session)
    assert registry.refusal(Principal("sensor"), "3") == ""


def test_session_whose_client_is_away_counts_against_the_bound() -> None:
    hall = Hall(max_sessions=1)
    line, session, _ = hall.enter(expiry_s=100)
    hall.registry.leave(line, session)
    assert hall.registry.refusal(Principal("sensor"), "other") == "too many sessions"


# -- wills -----------------------------------------------------------------------------------


def test_will_is_due_when_the_connection_ends_without_goodbye() -> None:
    hall = Hall()
    line, session, _ = hall.enter(expiry_s=100, will=will_after(0))
    hall.registry.leave(line, session)
    assert [name for name, _ in hall.published] == ["c"]
    assert session.will is None


def test_will_is_due_at_the_latest_when_the_session_ends() -> None:
    hall = Hall()
    line, session, _ = hall.enter(will=will_after(50))
    hall.registry.leave(line, session)
    assert [name for name, _ in hall.published] == ["c"]


def test_take_over_makes_a_will_due_unless_it_is_delayed_and_the_session_goes_on() -> None:
    hall = Hall()
    hall.enter(expiry_s=100, will=will_after(0))
    hall.enter(expiry_s=100, will=will_after(50))
    assert len(hall.published) == 1
    hall.enter(expiry_s=100, will=will_after(50))
    assert len(hall.published) == 1
    hall.enter(clean=True)
    assert len(hall.published) == 2, "its session has ended"


async def test_will_after_its_delay_is_published_once_and_one_whose_client_came_back_never(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hall = Hall()
    for client_id in ("gone", "back"):
        line, session, _ = hall.enter(client_id=client_id, expiry_s=100, will=will_after(10))
        hall.registry.leave(line, session)
    nursery.start_soon(hall.registry.sweep)
    hall.house.now += 9
    await trio.sleep(3)
    assert hall.published == []
    hall.enter(client_id="back", expiry_s=100)
    hall.house.now += 1
    await trio.sleep(3)
    assert [name for name, _ in hall.published] == ["gone"]


# -- the sweep -------------------------------------------------------------------------------


async def test_registry_sweep_ends_silent_clients_and_expired_certificates(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hall = Hall()
    lively, _, _ = hall.enter("a")
    silent, _, _ = hall.enter("b")
    expired, _, _ = hall.enter("c")
    silent.quiet_until = trio.current_time() + 5
    expired.certificate_ends = hall.house.now - 1
    nursery.start_soon(hall.registry.sweep)
    await trio.sleep(1.5)
    assert expired.endings[0] == ReasonCode.NOT_AUTHORIZED
    assert silent.endings == []
    await trio.sleep(5)
    assert silent.endings[0] == ReasonCode.KEEP_ALIVE_TIMEOUT
    assert hall.registry.timed_out > 0
    assert lively.endings == []
    assert lively.quiet_until == inf


async def test_session_ends_when_its_time_is_over_unless_it_has_no_end(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hall = Hall()
    for name, expiry_s in (("short", 10), ("long", NEVER_EXPIRES_S)):
        line, session, _ = hall.enter(client_id=name, expiry_s=expiry_s)
        hall.subscribe(session, "t/#")
        hall.registry.leave(line, session)
    nursery.start_soon(hall.registry.sweep)
    hall.house.now += 9
    await trio.sleep(2)
    assert hall.registry.sessions == 2
    hall.house.now += 100_000_000
    await trio.sleep(2)
    assert [s.client_id for s in hall.registry.all_sessions()] == ["long"]
    assert hall.registry.expired == 1
    assert hall.router.subscriptions == 1


# -- shared subscriptions --------------------------------------------------------------------


def test_member_that_leaves_hands_its_unacknowledged_messages_on() -> None:
    hall = Hall()
    hall.house.policy.answers[b"t"] = True
    line, leaves, _ = hall.enter("viewer", "leaves", expiry_s=100)
    other, stays, _ = hall.enter("viewer", "stays", expiry_s=100)
    for session in (leaves, stays):
        hall.subscribe(session, GROUP)
    message = hall.house.message(b"1")
    leaves.deliver(queued(message, group=GROUP), qos=1, first=0, count=1)
    leaves.deliver(queued(hall.house.message(b"2")), qos=1, first=0, count=1)
    hall.registry.leave(line, leaves)
    assert other.payloads() == [b"1"]
    assert len(leaves.delivery.outgoing) == 1, "what was meant for it alone waits for it"


def test_last_member_that_leaves_keeps_what_it_has_until_a_member_is_back() -> None:
    hall = Hall()
    hall.house.policy.answers[b"t"] = True
    line, first, _ = hall.enter("viewer", "first", expiry_s=100)
    hall.subscribe(first, GROUP)
    first.deliver(queued(hall.house.message(b"1"), group=GROUP), qos=1, first=0, count=1)
    hall.registry.leave(line, first)
    assert len(first.delivery.outgoing) == 1
    other, second, _ = hall.enter("viewer", "second", expiry_s=100)
    hall.subscribe(second, GROUP)
    assert len(list(hall.registry.serve(second))) == 1
    assert other.payloads() == [b"1"]
    assert not len(first.delivery.outgoing)


def test_member_whose_session_ends_leaves_what_it_has_to_the_others() -> None:
    hall = Hall()
    hall.house.policy.answers[b"t"] = True
    line, ends, _ = hall.enter("viewer", "ends")
    other, stays, _ = hall.enter("viewer", "stays")
    for session in (ends, stays):
        hall.subscribe(session, GROUP)
    ends.deliver(queued(hall.house.message(b"1"), group=GROUP), qos=1, first=0, count=1)
    hall.registry.leave(line, ends)
    assert other.payloads() == [b"1"]
    group = hall.router.group(GROUP)
    assert group is not None
    assert list(group.members) == [stays]


async def test_sessions_that_end_in_one_second_leave_others_their_turns(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hall = Hall(max_sessions=100, max_sessions_per_principal=100)
    for number in range(50):
        line, session, _ = hall.enter(client_id=f"{number}", expiry_s=10)
        hall.registry.leave(line, session)

    class Steps(trio.abc.Instrument):
        count = 0

        @override
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name.endswith("sweep")

    steps = Steps()
    hall.house.now += 11
    nursery.start_soon(hall.registry.sweep)
    await trio.sleep(0.5)
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(1)
    trio.lowlevel.remove_instrument(steps)
    assert hall.registry.sessions == 0
    assert steps.count >= 50
