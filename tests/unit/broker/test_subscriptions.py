from __future__ import annotations

import pytest

from broker.config import BrokerLimits
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Disconnect,
    Properties,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from tests.brokers import allow, running_broker

READS = allow("viewer", "read", "topic.**")


@pytest.mark.parametrize(
    ("filter_", "reason"),
    [
        ("a/" * 127 + "b", ReasonCode.SUCCESS),
        ("$share/g/a", ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        ("a/b", ReasonCode.SUCCESS),
    ],
)
async def test_subscribe_answers_each_filter(filter_: str, reason: ReasonCode) -> None:
    async with running_broker(READS) as broker:
        viewer = await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter=filter_),)))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (reason,)


async def test_subscriptions_are_bounded_and_replacing_one_is_free() -> None:
    async with running_broker(READS, limits=BrokerLimits(max_subscriptions=1)) as broker:
        viewer = await broker.client("viewer")
        filters = tuple(Subscription(filter=f) for f in ("a", "a", "b"))
        await viewer.send(Subscribe(packet_id=1, filters=filters))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (0, 0, ReasonCode.QUOTA_EXCEEDED)
        assert broker.router.subscriptions == 1


async def test_refusal_is_explained_with_the_decision_only() -> None:
    async with running_broker() as broker:
        viewer = await broker.client("viewer")
        await viewer.send(Subscribe(packet_id=1, filters=(Subscription(filter="a"),)))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert (answer.properties.reason_string or "").startswith("not authorized, decision d-")


async def test_subscription_identifiers_are_refused_as_told() -> None:
    async with running_broker(READS) as broker:
        viewer = await broker.client("viewer")
        await viewer.send(
            Subscribe(
                packet_id=1,
                filters=(Subscription(filter="a"),),
                properties=Properties(subscription_identifiers=(1,)),
            )
        )
        answer = await viewer.next()
        assert isinstance(answer, Disconnect)
        assert answer.reason == ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED


async def test_subscriptions_are_bounded_in_memory_too() -> None:
    async with running_broker(READS) as broker:
        viewer = await broker.client("viewer")
        deep = tuple(Subscription(filter=f"{number}" + "/" * 127) for number in range(200))
        await viewer.send(Subscribe(packet_id=1, filters=deep))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        held = answer.reasons.count(ReasonCode.SUCCESS)
        assert held == broker.router.subscriptions < 100
        assert set(answer.reasons[held:]) == {ReasonCode.QUOTA_EXCEEDED}
        await viewer.send(Unsubscribe(packet_id=2, filters=(deep[0].filter,)))
        await viewer.next()
        await viewer.send(Subscribe(packet_id=3, filters=deep[-1:]))
        answer = await viewer.next()
        assert isinstance(answer, Suback)
        assert answer.reasons == (ReasonCode.SUCCESS,), "what is given back may be used again"
