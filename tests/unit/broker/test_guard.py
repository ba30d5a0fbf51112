from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
import trio.testing

from acl.errors import NameInvalid
from acl.model import Principal
from cache.connection import ConnectionCache
from mqtt.packets import (
    Publish,
)
from tests.brokers import TestBroker, allow, running_broker
from tests.unit.broker.test_messaging import (
    SENSOR,
    VIEWER,
    subscribe,
)


@dataclass(frozen=True)
class Asker:
    principal: Principal
    cache: ConnectionCache
    peer: str = "127.0.0.1:9"


def asker_of(broker: TestBroker, name: str) -> Asker:
    who = Principal(name)
    return Asker(who, broker.authorizer.open(who))


async def test_guard_answers_observers_by_rule() -> None:
    async with running_broker(allow("prometheus", "describe", "broker.b1.metrics")) as broker:
        assert (await broker.guard.may_observe(asker_of(broker, "prometheus"))).allowed
        assert not (await broker.guard.may_observe(asker_of(broker, "sensor"))).allowed


async def test_guard_writes_a_denial_with_its_decision() -> None:
    async with running_broker() as broker:
        decision = await broker.guard.may_publish(asker_of(broker, "sensor"), b"t/1", count=3)
        broker.audit.close()
        (event,) = [record.event for record in broker.audit.recent]
        assert event.decision_id == decision.id
        assert (event.principal, event.action, event.resource) == ("sensor", "publish", "topic.t.1")
        assert (event.count, event.peer, event.epoch) == (3, "127.0.0.1:9", decision.epoch)


async def test_guard_refuses_filters_deeper_than_a_resource() -> None:
    async with running_broker() as broker:
        with pytest.raises(NameInvalid):
            await broker.guard.may_subscribe(asker_of(broker, "sensor"), "a/" * 200)


async def test_guard_asks_for_all_misses_of_a_route_together() -> None:
    async with running_broker(allow("v*", "read", "topic.t")) as broker:
        members = [asker_of(broker, name) for name in ("v1", "x", "v2", "v3")]
        batches = broker.authorizer.stats.batches
        readers = await broker.guard.may_read(members, b"t")  # type: ignore[arg-type]  # a part of a session will do
        assert readers.lasting
        assert [m.principal.name for m in readers.allowed] == ["v1", "v2", "v3"]
        assert broker.authorizer.stats.batches - batches <= 2


async def test_guard_asks_for_many_filters_together_and_finds_the_answers() -> None:
    async with running_broker(allow("v", "read", "topic.t.**")) as broker:
        asker = asker_of(broker, "v")
        filters = [f"t/{number}/+" for number in range(40)] + ["t/1/+", "a/" * 200]
        before = broker.authorizer.stats.batches
        await broker.guard.foresee(asker, filters)
        batches = broker.authorizer.stats.batches
        assert batches - before <= 2
        for filter_ in filters[:-1]:
            assert (await broker.guard.may_subscribe(asker, filter_)).allowed
        assert broker.authorizer.stats.batches == batches
        broker.audit.close()
        assert not broker.audit.recent, "to foresee is not to deny"


async def test_guard_denies_until_the_first_policy() -> None:
    async with running_broker(allow("sensor", "write", "topic.t")) as broker:
        broker.guard.authorizer.withdraw("no policy yet")
        assert broker.guard.refusal == "no policy yet"
        assert not (await broker.guard.may_publish(asker_of(broker, "sensor"), b"t")).allowed


async def test_guard_counts_silence_from_the_last_proof_not_from_when_it_noticed(
    autojump_clock: trio.abc.Clock,
) -> None:
    rule = allow("sensor", "write", "topic.t")
    async with running_broker(rule) as broker, trio.open_nursery() as nursery:
        proved_at = trio.current_time()
        nursery.start_soon(broker.guard.watch_contact, lambda: proved_at)
        asker = asker_of(broker, "sensor")
        assert (await broker.guard.may_publish(asker, b"t")).allowed
        await trio.sleep(29)  # as if the process had been stopped meanwhile
        broker.guard.on_contact(False, "noticed late")  # noqa: FBT003
        await trio.sleep(0.5)
        assert (await broker.guard.may_publish(asker, b"t")).allowed
        await trio.sleep(1)
        assert not (await broker.guard.may_publish(asker, b"t")).allowed
        nursery.cancel_scope.cancel()


async def test_guard_says_that_a_denial_for_want_of_an_answer_does_not_last(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(allow("v*", "read", "topic.t")) as broker:
        known, unknown = asker_of(broker, "v1"), asker_of(broker, "v2")
        await broker.guard.may_read([known], b"t")  # type: ignore[list-item]
        broker.authority.silent = True
        readers = await broker.guard.may_read([known, unknown], b"t")  # type: ignore[list-item]
        assert [m.principal.name for m in readers.allowed] == ["v1"]
        assert not readers.lasting
        actions = [record.event.action for record in broker.audit.recent]
        assert actions == ["deliver"]


async def test_guard_counts_changes_of_the_policy_and_of_contact_and_forgets_routes() -> None:
    async with running_broker(allow("v", "read", "topic.t")) as broker:
        guard = broker.guard
        before = guard.policy_changes
        await broker.router.route(b"t")
        broker.change_rules(broker.authority.rules.without_rule("everyone-connects"))
        assert guard.policy_changes == before + 1
        assert not broker.router.routes
        await broker.router.route(b"t")
        guard.on_contact(True, "again")  # noqa: FBT003
        assert guard.policy_changes == before + 2
        assert not broker.router.routes


async def test_guard_takes_a_decision_that_is_at_hand_without_asking() -> None:
    async with running_broker(allow("sensor", "write", "topic.t")) as broker:
        asker = asker_of(broker, "sensor")
        await broker.guard.may_publish(asker, b"t")
        asked = broker.authority.asked
        assert (await broker.guard.may_publish(asker, b"t", count=100)).allowed
        assert broker.authority.asked == asked


@pytest.mark.slow
async def test_policy_change_with_many_publishers_and_subscribers_asks_once_for_each() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        for number in range(100):
            await subscribe(await broker.client("viewer", client_id=f"v{number}"), "t/#", qos=0)
        sensors = [await broker.client("sensor", client_id=f"s{number}") for number in range(100)]
        before = trio.lowlevel.current_statistics().tasks_living
        broker.new_epoch()
        broker.slow_controller(0.05)
        for sensor in sensors:
            await sensor.send(Publish(topic="t/1", payload=b"x"))
        await trio.sleep(0.08)
        most = 0
        for _ in range(100):
            await trio.sleep(0.001)
            most = max(most, trio.lowlevel.current_statistics().tasks_living - before)
        assert most < 1_000, "one question for each subscriber, not for each pair"
