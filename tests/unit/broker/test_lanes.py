from __future__ import annotations

from acl.rules import RuleSet
from broker.lanes import MAX_TOPIC_BYTES, MAX_TOPICS
from mqtt.encode import encode
from mqtt.packets import Connect, Pingreq, Pingresp, Properties, Publish, Version
from mqtt.runs import Run
from tests.brokers import Peer, TestBroker, allow, running_broker
from tests.unit.broker.test_messaging import subscribe

SENSOR = allow("sensor", "write", "topic.t.**", rule_id="sensor-writes")
VIEWER = allow("viewer", "read", "topic.t.**", rule_id="viewer-reads")


def turns(count: int, *, topics: int = 3, version: Version = Version.V5) -> bytes:
    """Messages whose topics take turns, so that none makes a run with the next."""
    return b"".join(
        encode(Publish(topic=f"t/{number % topics}", payload=b"%d" % number), version)
        for number in range(count)
    )


async def payloads(peer: Peer, count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count:
        run = await peer.next()
        assert isinstance(run, Run)
        got += run.payloads()
    return got


async def warm(broker: TestBroker, sensor: Peer, viewer: Peer) -> None:
    """Have every topic published once, so that its way is known."""
    await sensor.send_raw(turns(3))
    await payloads(viewer, 3)


async def test_messages_on_many_topics_arrive_whole_and_in_order_and_are_counted() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=0)
        await warm(broker, sensor, viewer)
        block = turns(300)
        runs = broker.services.count.runs_in
        await sensor.send_raw(block)
        assert await payloads(viewer, 300) == [b"%d" % number for number in range(300)]
        assert broker.services.count.messages_in == 303
        assert broker.services.count.runs_in - runs < 10, "they are handed on as one slice"
        assert broker.router.messages_out == 303


async def test_each_subscriber_gets_its_topics_only() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor = await broker.client("sensor")
        first, second = await broker.client("viewer"), await broker.client("viewer", client_id="b")
        await subscribe(first, "t/0", "t/1", qos=0)
        await subscribe(second, "t/2", qos=0)
        for _ in range(2):
            await sensor.send_raw(turns(30))
            assert await payloads(first, 20) == [b"%d" % n for n in range(30) if n % 3 != 2]
            assert await payloads(second, 10) == [b"%d" % n for n in range(30) if n % 3 == 2]


async def test_revoked_grants_stop_with_the_next_read() -> None:
    for rule in ("sensor-writes", "viewer-reads"):
        async with running_broker(SENSOR, VIEWER) as broker:
            sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
            await subscribe(viewer, "t/#", qos=0)
            await warm(broker, sensor, viewer)
            await sensor.send_raw(turns(30))
            await payloads(viewer, 30)
            rules: RuleSet = broker.authority.rules.without_rule(rule)
            broker.change_rules(rules, reset=False)
            await sensor.send_raw(turns(30))
            assert await viewer.nothing()


async def test_new_subscription_is_served_with_the_next_read_and_one_that_ended_is_not() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=0)
        await warm(broker, sensor, viewer)
        late = await broker.client("viewer", client_id="late")
        await subscribe(late, "t/1", qos=0)
        await sensor.send_raw(turns(30))
        assert len(await payloads(late, 10)) == 10
        assert len(await payloads(viewer, 30)) == 30
        await late.leave()
        assert await viewer.nothing()
        await sensor.send_raw(turns(30))
        assert len(await payloads(viewer, 30)) == 30


async def test_client_that_takes_short_packets_only_gets_just_those() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), broker.peer("viewer")
        await viewer.greet(Connect(client_id="v", properties=Properties(maximum_packet_size=60)))
        await subscribe(viewer, "t/#", qos=0)
        for _ in range(2):
            for topic, size in (("t/0", 5), ("t/1", 100), ("t/2", 6)):
                await sensor.send(Publish(topic=topic, payload=bytes(size)))
            assert [len(p) for p in await payloads(viewer, 2)] == [5, 6]


async def test_what_else_stands_between_messages_is_not_overlooked() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=0)
        await warm(broker, sensor, viewer)
        await sensor.send_raw(turns(30) + encode(Pingreq(), Version.V5) + turns(30))
        assert isinstance(await sensor.next(), Pingresp)
        assert len(await payloads(viewer, 60)) == 60


async def test_more_topics_than_are_remembered_arrive_all_the_same() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#", qos=0)
        count = MAX_TOPICS + 300
        for _ in range(2):
            await sensor.send_raw(turns(count, topics=count))
            assert len(await payloads(viewer, count)) == count
        long = "t/" + "x" * MAX_TOPIC_BYTES
        await sensor.send(*[Publish(topic=long + str(n % 2)) for n in range(10)])
        assert len(await payloads(viewer, 10)) == 10
