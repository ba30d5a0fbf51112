from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from broker.outlet import Outlet
from broker.overflow import Overflow
from broker.route_table import MAX_ROUTES_BYTES
from broker.router import MAX_REBUILDS, Router
from broker.routes import ROUTE_BYTES, Readers, Subscribed
from broker.session import Session
from mqtt.outgoing import Parcel
from mqtt.packets import Publish, Version
from mqtt.runs import Run, run_of
from tests.unit.broker.test_session import House, Line, queued

GROUP = "$share/g/t"


@dataclass
class Check:
    """Allows everybody but the refused; calls `meanwhile` as if something changed during the check."""

    refused: set[Session] = field(default_factory=set[Session])
    undecided: set[Session] = field(default_factory=set[Session])
    meanwhile: Callable[[], None] = lambda: None
    checks: int = 0
    lasting: bool = True

    async def may_read(self, sessions: Sequence[Session], topic: bytes) -> Readers:
        self.checks += 1
        allowed = tuple(s for s in sessions if s not in self.refused)
        self.meanwhile()
        undecided = tuple(s for s in self.undecided if s in sessions)
        return Readers(
            allowed=tuple(s for s in allowed if s not in self.undecided),
            undecided=undecided,
            lasting=self.lasting and not undecided,
        )

    def once(self, change: Callable[[], None]) -> None:
        """Have this happen during the next check."""

        def happen() -> None:
            self.meanwhile = lambda: None
            change()

        self.meanwhile = happen


class Town:
    """A router, sessions, and what became of messages nobody got."""

    def __init__(self) -> None:
        self.house = House()
        self.check = Check()
        self.router = Router(self.check, lost=self.house.lose)

    def subscribe(
        self,
        session: Session,
        filter_: str,
        *,
        qos: int = 0,
        no_local: bool = False,
        rap: bool = False,
        identifier: int | None = None,
    ) -> None:
        subscribed = Subscribed(
            session=session,
            filter=filter_,
            qos=qos,
            no_local=no_local,
            retain_as_published=rap,
            identifier=identifier,
        )
        session.hold(subscribed)
        self.router.subscribe(subscribed)
        self.settle(filter_)

    def unsubscribe(self, session: Session, filter_: str) -> None:
        session.drop(filter_)
        self.router.unsubscribe(session, filter_)
        self.settle(filter_)

    def settle(self, filter_: str) -> None:
        for _ in self.router.settle(filter_):
            pass

    def member(
        self, name: str, *filters: str, qos: int = 0, kept: bool = False, window: int = 100
    ) -> tuple[Session, Line]:
        """A connected client with these filters."""
        session, line = self.house.online(name, kept=kept, window=window)
        for filter_ in filters:
            self.subscribe(session, filter_, qos=qos)
        return session, line

    def leave(self, session: Session) -> None:
        """The client's connection ends."""
        session.detach(0.0)
        self.router.session_moved(session)

    def back(self, session: Session) -> Line:
        """The client is back."""
        line = self.house.line()
        session.attach(line, 100)
        self.router.session_moved(session)
        return line

    async def publish(
        self,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        count: int = 1,
        sender: Outlet | None = None,
    ) -> int:
        message = self.house.message(payload, qos=qos, retain=retain, count=count)
        touched: list[Outlet] = []
        route = await self.router.route(b"t")
        if qos or retain:
            return self.router.deliver(route, message, sender, touched)
        return self.router.deliver_run(route, message.run, sender, "sensor", touched)


def qos_0(payload: bytes, version: Version = Version.V5) -> Run:
    return run_of(Publish(topic="t", payload=payload), version)


# -- routes ----------------------------------------------------------------------------------


async def test_route_holds_every_session_once_at_its_highest_qos() -> None:
    town = Town()
    session, _ = town.member("c")
    town.subscribe(session, "t/#", qos=0)
    town.subscribe(session, "t/+", qos=1)
    (target,) = (await town.router.route(b"t/1")).targets
    assert target.session is session
    assert target.qos == 1


async def test_route_adds_up_what_the_matching_filters_of_a_session_say() -> None:
    town = Town()
    session, line = town.member("c")
    town.subscribe(session, "t/#", no_local=True, identifier=5)
    town.subscribe(session, "t/+", rap=True, identifier=6)
    route = await town.router.route(b"t/1")
    (target,) = route.targets
    assert not target.no_local, "one of its filters wants its own messages"
    assert target.retain_as_published
    assert sorted(target.identifiers) == [5, 6]
    assert route.special == (target,)
    assert line.outlet not in route.v5


async def test_route_is_remembered_until_a_subscription_changes() -> None:
    town = Town()
    session, _ = town.member("c", "t/#")
    assert await town.router.route(b"t/1") is await town.router.route(b"t/1")
    assert town.check.checks == 1
    town.unsubscribe(session, "t/#")
    assert (await town.router.route(b"t/1")).targets == ()
    assert town.router.subscriptions == 0


@pytest.mark.parametrize(
    ("filter_", "forgotten"),
    [
        ("t/1", {"t/1"}),
        ("t/+", {"t/1", "t/2"}),
        ("t/#", {"t", "t/1", "t/2", "t/1/x"}),
        ("+/1", {"t/1", "u/1"}),
        ("#", {"t", "t/1", "t/2", "t/1/x", "u/1"}),
        ("$SYS/#", {"$SYS/x"}),
        ("$share/g/t/+", {"t/1", "t/2"}),
        ("nothing", set()),
    ],
)
async def test_filter_forgets_only_the_routes_it_matches(filter_: str, forgotten: set[str]) -> None:
    town = Town()
    topics = {"t", "t/1", "t/2", "t/1/x", "u/1", "$SYS/x"}
    session, _ = town.member("c")

    async def left() -> set[str]:
        found = {topic.decode() for topic in town.router.routes}
        for topic in topics:
            await town.router.route(topic.encode())
        return found

    await left()
    town.subscribe(session, filter_)
    assert topics - await left() == forgotten
    town.router.session_moved(session)
    assert topics - await left() == forgotten
    town.unsubscribe(session, filter_)
    assert topics - await left() == forgotten


async def test_policy_change_forgets_every_route_in_place() -> None:
    town = Town()
    table = town.router.routes
    for topic in (b"t/1", b"u"):
        await town.router.route(topic)
    town.router.forget_routes()
    assert town.router.routes is table
    assert not table
    await town.router.route(b"t/1")
    town.subscribe(town.house.session(), "t/1")
    assert not table, "the tree of topics follows the table"


async def test_route_leaves_out_who_may_not_read() -> None:
    town = Town()
    session, _ = town.member("c", "#")
    town.check.refused.add(session)
    assert (await town.router.route(b"t/1")).targets == ()


async def test_route_overtaken_by_a_policy_change_is_built_again() -> None:
    town = Town()
    session, _ = town.member("c", "#")

    def revoke() -> None:
        town.check.refused.add(session)
        town.router.forget_routes()

    town.check.once(revoke)
    assert (await town.router.route(b"t/1")).targets == ()
    assert town.check.checks == 2


async def test_while_policy_never_settles_nothing_is_delivered_and_nothing_lost() -> None:
    town = Town()
    town.member("away", "t", qos=1, kept=True)
    town.house.policy.changes = 1
    here, line = town.member("here", "t", qos=1)
    town.check.meanwhile = town.router.forget_routes
    assert [t.undecided for t in (await town.router.route(b"t")).targets] == [True, True]
    assert town.check.checks == MAX_REBUILDS
    assert await town.publish(b"0") == 0
    assert await town.publish(b"1", qos=1) == 2
    assert line.payloads() == []
    town.house.policy.answers[b"t"] = True
    here.delivery.pump_and_flush()
    assert line.payloads() == [b"1"]


async def test_messages_wait_for_whom_nobody_knows_whether_it_may_read() -> None:
    town = Town()
    session, line = town.member("c", "t", qos=1)
    sure, _ = town.member("sure", "t", qos=1)
    town.check.undecided.add(session)
    assert await town.publish(b"0") == 1
    assert await town.publish(b"1", qos=1) == 2
    assert line.payloads() == []
    assert not town.router.routes, "it may be known the next time"
    town.house.policy.answers[b"t"] = False
    town.house.policy.changes = 1
    session.delivery.pump_and_flush()
    assert line.payloads() == []
    assert not len(session.delivery.outgoing)
    assert sure.subscriptions


async def test_shared_subscription_prefers_members_that_surely_may_read() -> None:
    town = Town()
    doubtful, _ = town.member("doubtful", GROUP, qos=1)
    sure, line = town.member("sure", GROUP, qos=1)
    town.check.undecided.add(doubtful)
    for number in range(4):
        await town.publish(b"%d" % number, qos=1)
    assert line.payloads() == [b"0", b"1", b"2", b"3"]
    town.check.undecided.add(sure)
    assert await town.publish(b"4", qos=1) == 1
    assert not town.house.lost


async def test_route_overtaken_by_a_subscription_is_used_once_and_not_remembered() -> None:
    town = Town()
    session, _ = town.member("c", "#")
    late, _ = town.member("late")
    town.check.once(lambda: town.subscribe(late, "elsewhere"))
    assert [t.session for t in (await town.router.route(b"t")).targets] == [session]
    assert not town.router.routes


async def test_route_has_no_sessions_that_ended_while_it_was_built() -> None:
    town = Town()
    ended, _ = town.member("ended", "t", GROUP)
    stays, _ = town.member("stays", "t", GROUP)

    def end() -> None:
        for filter_ in ("t", GROUP):
            town.router.unsubscribe(ended, filter_)
        ended.close()

    town.check.once(end)
    route = await town.router.route(b"t")
    assert [t.session for t in route.targets] == [stays]
    assert [m.session for m in route.groups[0].members] == [stays]


async def test_route_names_the_outlets_of_now_though_a_client_moved_while_it_was_built() -> None:
    town = Town()
    gone, _ = town.member("gone", "t")
    back, _ = town.member("back", "t")
    lines: list[Line] = []

    def move() -> None:
        town.leave(gone)
        town.leave(back)
        lines.append(town.back(back))

    town.check.once(move)
    assert (await town.router.route(b"t")).v5 == (lines[0].outlet,)


async def test_route_of_a_passing_verdict_is_used_once_and_not_remembered() -> None:
    town = Town()
    session, _ = town.member("c", "#")
    town.check.lasting = False
    town.check.refused.add(session)
    assert (await town.router.route(b"t/1")).targets == ()
    town.check.refused.clear()
    assert len((await town.router.route(b"t/1")).targets) == 1
    assert not town.router.routes


async def test_dollar_topics_are_not_matched_by_leading_wildcards() -> None:
    town = Town()
    town.member("c", "#")
    assert (await town.router.route(b"$SYS/x")).targets == ()


async def test_routes_are_bounded_in_memory_however_long_topics_are() -> None:
    router = Town().router
    longest = 65_535
    for number in range(2 * MAX_ROUTES_BYTES // longest):
        await router.route(f"{number:05}".encode() + b"t" * (longest - 5))
        held = sum(len(topic) + ROUTE_BYTES for topic in router.routes)
        assert held <= MAX_ROUTES_BYTES
    assert router.routes


# -- delivery --------------------------------------------------------------------------------


async def test_message_goes_out_at_the_lower_qos_and_with_the_asked_retain_flag() -> None:
    town = Town()
    plain, plain_line = town.member("plain", "t", qos=0)
    keeps, keeps_line = town.member("keeps")
    town.subscribe(keeps, "t", qos=1, rap=True)
    assert await town.publish(b"m", qos=1, retain=True) == 2
    assert (plain_line.payloads(), keeps_line.payloads()) == ([b"m"], [b"m"])
    assert plain_line.pipe.written[0] == 0x30
    assert keeps_line.pipe.written[0] == 0x33
    assert not len(plain.delivery.outgoing)
    assert keeps.delivery.outgoing.in_flight == 1


async def test_run_goes_to_each_client_in_its_own_version() -> None:
    town = Town()
    _, new_line = town.member("new", "t")
    old, old_line = town.house.online("old", version=Version.V311)
    town.subscribe(old, "t")
    assert await town.publish(b"m", count=3) == 2
    assert new_line.payloads() == old_line.payloads() == [b"m"] * 3
    assert town.router.messages_out == 6
    assert len(old_line.pipe.written) == len(new_line.pipe.written) - 3


async def test_client_that_asked_not_to_hears_itself_neither_in_runs_nor_in_messages() -> None:
    town = Town()
    session, line = town.member("self")
    town.subscribe(session, "t", qos=1, no_local=True)
    _, other = town.member("other", "t", qos=1)
    assert await town.publish(b"0", sender=line.outlet) == 1
    assert await town.publish(b"1", qos=1, sender=line.outlet) == 1
    assert await town.publish(b"2", qos=1, sender=other.outlet) == 2
    assert line.payloads() == [b"2"]
    assert other.payloads() == [b"0", b"1", b"2"]


async def test_message_above_qos_0_waits_for_a_kept_session_and_qos_0_does_not() -> None:
    town = Town()
    session, _ = town.member("c", "t", qos=1, kept=True)
    town.leave(session)
    assert await town.publish(b"0") == 0
    assert await town.publish(b"1", qos=1) == 1
    line = town.back(session)
    session.delivery.pump_and_flush()
    assert line.payloads() == [b"1"]
    assert town.router.messages_unrouted == 1


async def test_session_that_is_not_kept_gets_nothing_while_it_is_away() -> None:
    town = Town()
    session, _ = town.member("c", "t", qos=1)
    town.leave(session)
    assert await town.publish(b"1", qos=1) == 0
    assert not len(session.delivery.outgoing)


async def test_first_packet_of_an_aliased_run_has_the_topic_and_the_others_have_not() -> None:
    town = Town()
    session, line = town.house.online("c", aliases=1)
    topic = "a/long/topic"
    town.subscribe(session, topic)
    run = run_of(Publish(topic=topic, payload=b"m"), Version.V5)
    three = run.repeated(run.data * 3, 3)
    touched: list[Outlet] = []
    for _ in range(2):
        town.router.deliver_run(
            await town.router.route(topic.encode()), three, None, "sensor", touched
        )
    assert touched == [line.outlet]
    assert line.payloads() == [b"m"] * 6
    assert line.pipe.written.count(topic.encode()) == 1


async def test_alias_a_lossy_client_was_not_told_is_told_when_it_takes_messages_again() -> None:
    town = Town()
    session, line = town.house.online("c", aliases=1)
    town.subscribe(session, "topic")
    route = await town.router.route(b"topic")
    run = run_of(Publish(topic="topic", payload=b"m"), Version.V5)
    line.outlet.lossy = True
    town.router.deliver_run(route, run, None, "sensor", [])
    line.outlet.lossy = False
    town.router.deliver_run(route, run, None, "sensor", [])
    assert line.payloads() == [b"m"]
    assert b"topic" in line.pipe.written


# -- shared subscriptions --------------------------------------------------------------------


async def test_group_counts_as_one_subscription_and_ends_with_its_last_member() -> None:
    town = Town()
    one, _ = town.member("1", GROUP)
    two, _ = town.member("2", GROUP)
    assert (town.router.subscriptions, town.router.shared_subscriptions) == (1, 1)
    town.router.unsubscribe(one, GROUP)
    assert town.router.group(GROUP) is not None
    town.router.unsubscribe(two, GROUP)
    assert town.router.group(GROUP) is None
    assert (await town.router.route(b"t")).groups == ()
    town.router.unsubscribe(two, GROUP)
    assert town.router.subscriptions == 0


async def test_only_members_that_are_connected_are_chosen() -> None:
    town = Town()
    away, _ = town.member("away", GROUP, qos=1, kept=True)
    _, line = town.member("here", GROUP, qos=1, kept=True)
    town.leave(away)
    for letter in (b"1", b"2", b"3"):
        assert await town.publish(letter, qos=1) == 1
        assert await town.publish(letter) == 1
    assert len(line.payloads()) == 6
    assert not len(away.delivery.outgoing)


async def test_member_whose_messages_wait_in_the_store_only_is_passed_over() -> None:
    town = Town()
    full, full_line = town.member("full", GROUP, qos=1, kept=True)
    free, line = town.member("free", GROUP, qos=1, kept=True)
    full.delivery.overflow = Overflow()
    for letter in (b"1", b"2", b"3"):
        assert await town.publish(letter, qos=1) == 1
    assert (line.payloads(), full_line.payloads()) == ([b"1", b"2", b"3"], [])
    town.leave(free)
    town.router.give_again(GROUP, free.delivery.withdraw(GROUP))
    assert town.house.lost == [(b"t", 0, 1, "queue full")] * 3, "there is nobody else"


async def test_message_for_a_group_without_members_that_could_wait_is_told_as_lost() -> None:
    town = Town()
    session, _ = town.member("c", GROUP, qos=1)
    plain, _ = town.member("plain", GROUP, qos=0, kept=True)
    town.leave(session)
    town.leave(plain)
    assert await town.publish(b"1", qos=1, count=2) == 0
    assert town.house.lost == [(b"t", 0, 2, "no member")]


async def test_messages_of_a_member_that_left_go_to_one_that_is_connected() -> None:
    town = Town()
    leaves, _ = town.member("leaves", GROUP, qos=1, kept=True)
    await town.publish(b"1", qos=1)
    stays, line = town.member("stays", GROUP, qos=1, kept=True)
    town.house.policy.answers[b"t"] = True
    town.leave(leaves)
    town.router.give_again(GROUP, leaves.delivery.withdraw(GROUP))
    assert line.payloads() == [b"1"]
    assert not len(leaves.delivery.outgoing)
    assert stays.delivery.outgoing.in_flight == 1


async def test_message_handed_on_is_weighed_for_who_gets_it() -> None:
    town = Town()
    leaves, _ = town.member("leaves", GROUP, qos=1, kept=True)
    await town.publish(b"1", qos=1)
    _, line = town.member("stays", GROUP, qos=1, kept=True)
    town.house.policy.answers[b"t"] = False
    town.leave(leaves)
    town.router.give_again(GROUP, leaves.delivery.withdraw(GROUP))
    assert line.payloads() == []


async def test_message_handed_on_to_nobody_is_told_as_lost() -> None:
    town = Town()
    message = town.house.message(count=3)
    parcel = Parcel(content=queued(message, group=GROUP), first=1, count=2, qos=1)
    town.router.give_again(GROUP, [parcel])
    assert town.house.lost == [(b"t", 1, 2, "no member")]


async def test_member_that_is_back_gathers_what_waits_with_members_that_are_away() -> None:
    town = Town()
    one, _ = town.member("1", GROUP, qos=1, kept=True)
    two, _ = town.member("2", GROUP, qos=1, kept=True)
    for session in (one, two):
        town.leave(session)
    for letter in (b"1", b"2", b"3", b"4"):
        await town.publish(letter, qos=1)
    town.house.policy.answers[b"t"] = True
    line = town.back(one)
    town.router.gather(GROUP)
    one.delivery.pump_and_flush()
    assert sorted(line.payloads()) == [b"1", b"2", b"3", b"4"]
    assert not len(two.delivery.outgoing)


async def test_nothing_is_gathered_while_every_member_is_away() -> None:
    town = Town()
    session, _ = town.member("c", GROUP, qos=1, kept=True)
    town.leave(session)
    await town.publish(b"1", qos=1)
    town.router.gather(GROUP)
    assert session.delivery.outgoing.queued == 1
    assert not town.router.served(GROUP)
