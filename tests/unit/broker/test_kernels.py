from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from broker.kernels import MAX_OPEN_CALLS
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from mqtt.runs import Run
from tests.brokers import Peer, TestBroker, allow, running_broker

CALLS = allow("sensor", "execute", "kernel.double", rule_id="calls")
ANSWERS = allow("sensor", "read,write", "topic.results.sensor.**", rule_id="answers")
TOPIC = "results/sensor/1"


async def ready_sensor(broker: TestBroker) -> Peer:
    sensor = await broker.client("sensor")
    await sensor.send(Subscribe(packet_id=1, filters=(Subscription(filter=TOPIC),)))
    assert isinstance(await sensor.next(), Suback)
    return sensor


def request(
    payload: bytes,
    correlation: bytes = b"",
    *,
    topic: str = "kernel/double",
    response: str | None = TOPIC,
    qos: int = 0,
) -> Publish:
    return Publish(
        topic=topic,
        payload=payload,
        qos=qos,
        packet_id=1 if qos else None,
        properties=Properties(response_topic=response, correlation_data=correlation or None),
    )


async def test_run_of_requests_is_one_batch_and_one_run_of_answers() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        await sensor.send(*(request(bytes([i]) * 8, bytes([i, 7])) for i in range(20)))
        run = await sensor.next()
        assert isinstance(run, Run)
        assert run.payloads() == [bytes([2 * i]) * 8 for i in range(20)]
        assert [run.packet(i).properties.correlation_data for i in range(20)] == [
            bytes([i, 7]) for i in range(20)
        ]
        assert dict(run.packet(7).properties.user_properties) == {"status": "ok"}
        assert broker.pool.batches == [20]
        assert broker.kernels.answered == 20


async def test_qos_1_request_is_acknowledged_once_it_is_in_a_batch() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        broker.pool.hold = True
        await sensor.send(request(b"abcdefgh", b"c", qos=1))
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert puback.reason == ReasonCode.SUCCESS
        broker.pool.release()
        assert isinstance(await sensor.next(), Run)


async def test_qos_2_request_is_called_once_however_often_it_comes() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        for dup in (False, True):
            await sensor.send(replace(request(b"abcdefgh", qos=2), dup=dup))
        events = [await sensor.next() for _ in range(3)]
        assert [e for e in events if isinstance(e, Pubrec)] == [Pubrec(packet_id=1)] * 2
        assert broker.pool.batches == [1]
        await sensor.send(Pubrel(packet_id=1))
        assert await sensor.next() == Pubcomp(packet_id=1)


async def test_call_needs_execute_on_the_kernel() -> None:
    async with running_broker(ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        await sensor.send(request(b"abcdefgh", qos=1))
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert puback.reason == ReasonCode.NOT_AUTHORIZED
        assert broker.pool.batches == []


async def test_call_cannot_make_the_broker_publish_where_the_caller_may_not() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        await sensor.send(request(b"abcdefgh", response="orders/1", qos=1))
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert puback.reason == ReasonCode.NOT_AUTHORIZED
        assert broker.kernels.refused == 1


@pytest.mark.parametrize(
    ("call", "reason", "told"),
    [
        (request(b"short", qos=1), ReasonCode.PAYLOAD_FORMAT_INVALID, "5 bytes"),
        (request(b"abcdefgh", topic="kernel/other", qos=1), ReasonCode.TOPIC_NAME_INVALID, "other"),
    ],
)
async def test_call_that_cannot_run_is_answered_with_the_reason(
    call: Publish, reason: ReasonCode, told: str
) -> None:
    anything = allow("sensor", "execute", "kernel.*", rule_id="all-kernels")
    async with running_broker(anything, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        await sensor.send(call)
        events = [await sensor.next(), await sensor.next()]
        (puback,) = [e for e in events if isinstance(e, Puback)]
        (answer,) = [e for e in events if isinstance(e, Run)]
        assert puback.reason == reason
        said = dict(answer.packet().properties.user_properties)
        assert said["status"] == "error"
        assert told in said["error"]


async def test_call_without_a_response_topic_is_refused() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        await sensor.send(request(b"abcdefgh", response=None, qos=1))
        puback = await sensor.next()
        assert isinstance(puback, Puback)
        assert puback.reason == ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR


async def test_call_of_a_311_client_is_dropped_and_counted() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await broker.client("sensor", version=Version.V311)
        await sensor.send(Publish(topic="kernel/double", payload=b"abcdefgh"), Pingreq())
        assert isinstance(await sensor.next(), Pingresp)
        assert broker.kernels.refused == 1


async def test_fault_of_a_kernel_is_told_to_every_caller() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        broker.pool.fault = "killed at its deadline"
        await sensor.send(*(request(b"abcdefgh", bytes([i])) for i in range(3)))
        run = await sensor.next()
        assert isinstance(run, Run)
        assert run.count == 3
        assert dict(run.packet(2).properties.user_properties)["status"] == "error"
        assert broker.kernels.failed == 3


async def test_grant_revoked_while_a_batch_runs_stops_its_answers() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        broker.pool.hold = True
        await sensor.send(request(b"abcdefgh"))
        await trio.testing.wait_all_tasks_blocked()
        broker.change_rules(broker.authority.rules.without_rule("answers"), reset=False)
        broker.pool.release()
        assert await sensor.nothing()


async def test_answers_go_out_after_the_caller_has_left() -> None:
    reader = allow("viewer", "read", "topic.results.**")
    async with running_broker(CALLS, ANSWERS, reader) as broker:
        viewer = await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="results/#"),)))
        await viewer.next()
        sensor = await broker.client("sensor")
        broker.pool.hold = True
        await sensor.send(request(b"abcdefgh"))
        await sensor.leave()
        await trio.testing.wait_all_tasks_blocked()
        broker.pool.release()
        assert isinstance(await viewer.next(), Run)
        await trio.testing.wait_all_tasks_blocked()
        assert broker.authorizer.sizes().connections == 1, "only the viewer's L1 is left"


async def test_caller_with_too_many_open_calls_is_not_read_from() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        broker.pool.hold = True
        for number in range(MAX_OPEN_CALLS + 10):
            await sensor.send(request(bytes([number]) * 8, bytes(number % 3 + 1)))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(broker.pool.batches) == MAX_OPEN_CALLS
        broker.pool.release()
        await trio.testing.wait_all_tasks_blocked()
        broker.pool.release()
        await trio.testing.wait_all_tasks_blocked()
        assert sum(broker.pool.batches) == MAX_OPEN_CALLS + 10


async def test_answer_that_cannot_be_built_costs_its_caller_only() -> None:
    async with running_broker(CALLS, ANSWERS) as broker:
        sensor = await ready_sensor(broker)
        broker.pool.fault = "no MQTT string holds \0"
        for _ in range(MAX_OPEN_CALLS + 1):
            await sensor.send(request(b"x" * 8))
        await sensor.send(Pingreq())
        assert isinstance(await sensor.next(), Pingresp)
        broker.pool.fault = ""
        await sensor.send(request(b"\1" * 8))
        run = await sensor.next()
        assert isinstance(run, Run)
        assert run.payloads() == [b"\2" * 8]
