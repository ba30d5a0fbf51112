"""The throughput measures of `make bench`: what is sent, what is counted, and in which words it is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from benchmarks.acked import CHUNK
from benchmarks.blocks import Shape
from benchmarks.plan import Plan
from benchmarks.sampling import (
    WINDOW,
    Throughput,
    fan_in_portion,
    measure_acked,
    measure_clients,
    measure_fan_in,
    measure_fan_out,
    measure_group,
    measure_jetstream,
    measure_stream,
    sample_messages,
)
from benchmarks.targets import Target
from benchmarks.wire import FeatureRefused
from mqtt.packets import Version

MEMBERS = 4
MODEST_PER_S = 20
MAX_CALIBRATIONS = 6
GROWTH = 16  # from one short sample to the next, at most
STEADY = (
    1.5  # a rate that is not so much higher than the one before is not about warming up any more
)
LONG_ENOUGH = 4  # a short sample of this part of the wanted time tells what a message costs
FIRST_MESSAGES = 4_000
"""In the first of the short samples that find out how large a sample must be."""

LARGEST_SAMPLE_MESSAGES = 25_000_000
QOS_2 = 2

ONE_TO_ONE, CROWDS, ACKED, DURABLE = "one to one", "many clients", "acknowledged", "durable"

FROM_FIRST_TO_LAST = "from the first bytes at the subscriber until it has the last message"
DELIVERED = "delivered messages, from the first bytes at any subscriber until all have everything"
VERIFIED = "QoS 0, mutual TLS 1.3; all lengths verified, nothing lost"
STREAM_REGION = (
    f"{FROM_FIRST_TO_LAST}; one publisher and one subscriber in processes of their own, QoS 0, "
    "mutual TLS 1.3; first and last packet and all lengths verified"
)
ACKED_REGION = (
    "from the first send until the publisher has every acknowledgement and the subscriber every message; at most "
    f"{WINDOW:,} unacknowledged on either side, mutual TLS 1.3, each message acknowledged by itself"
)
DURABLE_REGION = (
    f"{ACKED_REGION}; the subscriber has a session that outlives its connection. What is on disk when a message is "
    "acknowledged differs: stockade syncs before it acknowledges if its store's `sync` is `always`; mosquitto has "
    "`persistence true` and does NOT sync for a message, it writes its database every half hour and at its end; "
    "nats-server is a JetStream stream on file with a durable consumer, which writes to the file and does NOT sync "
    "for a message, but from time to time"
)


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure, ready to be taken of any target.

    Attributes:
        name: in the report.
        group: of the report.
        unit: of the rate.
        region: what lies between the two readings of the clock.
        take: one sample of some amount (blocks, turns or messages).
        messages: delivered for an amount of one.
        step: an amount is a multiple of it.
        fixed: the amount, where the rate is given and not found out.
        durable: whether it is for the targets that keep messages on disk.
    """

    name: str
    group: str
    unit: str = "messages/s"
    region: str
    take: Callable[[Target, int], Throughput]
    messages: Callable[[Target], int]
    step: int = 1
    fixed: int = 0
    durable: bool = False


def amount_for(measure: Measure, target: Target, sample_s: float) -> int:
    """How much takes this broker about `sample_s`; 0: whatever it takes.

    Found by ever longer samples, which also warm up: what happens once a sample (a thousand routes to be built, say) must
    not be taken for what a message costs.
    """
    if measure.fixed:
        return measure.fixed
    each = measure.messages(target)
    messages, before = float(FIRST_MESSAGES), 0.0
    for _ in range(MAX_CALIBRATIONS if sample_s else 0):
        amount = _rounded(messages / each, measure.step)
        rate = measure.take(target, amount).messages_per_s
        lasted_s = amount * each / rate
        messages = min(rate * sample_s, amount * each * GROWTH, LARGEST_SAMPLE_MESSAGES)
        if lasted_s >= sample_s / LONG_ENOUGH and rate < before * STEADY:
            break
        before = rate
    return _rounded(messages / each, measure.step)


def _rounded(amount: float, step: int) -> int:
    return max(1, round(amount / step)) * step


def throughput_measures(plan: Plan) -> Iterator[Measure]:
    """Every throughput measure of a plan, in the order of the report."""
    for payload_bytes in plan.payloads:
        yield _stream(Shape(payload_bytes=payload_bytes), f"qos 0, {payload_bytes} B, one topic")
    topics = plan.many_topics
    many = Shape(payload_bytes=100, topics=topics)
    yield _stream(many, f"qos 0, 100 B, {topics:,} topics")
    for payload_bytes in plan.payloads if plan.extras else (100,):
        name = f"qos 0, {payload_bytes} B, runs of one message"
        yield _stream(Shape(payload_bytes=payload_bytes, topics=2), name, unit="runs/s")
    if plan.extras:
        older = Shape(payload_bytes=100, version=Version.V311)
        yield _stream(older, "qos 0, 100 B, one topic, MQTT 3.1.1", mqtt_only=True)
    yield from _crowds(plan)
    yield from _acknowledged(plan)


def _stream(
    shape: Shape, name: str, *, unit: str = "messages/s", mqtt_only: bool = False
) -> Measure:
    def take(target: Target, blocks: int) -> Throughput:
        if mqtt_only and target.login.protocol != "mqtt":
            raise FeatureRefused("speaks another protocol here")
        return measure_stream(target, blocks, shape=shape)

    return Measure(
        name=name,
        group=ONE_TO_ONE,
        unit=unit,
        region=STREAM_REGION,
        take=take,
        messages=lambda target: sample_messages(target, shape),
    )


def _crowds(plan: Plan) -> Iterator[Measure]:
    shape = Shape(payload_bytes=100)
    yield Measure(
        name=f"fan-out, 1 to {plan.fan}",
        group=CROWDS,
        unit="deliveries/s",
        region=f"{DELIVERED}; one publisher, {VERIFIED}",
        take=partial(measure_fan_out, shape=shape, subscribers=plan.fan),
        messages=lambda target: sample_messages(target, shape) * plan.fan,
    )
    yield _fan_in(plan)
    yield Measure(
        name=f"shared group of {MEMBERS}",
        group=CROWDS,
        region=f"{DELIVERED}; one publisher, each message to one of {MEMBERS} members, {VERIFIED}",
        take=partial(measure_group, shape=shape, members=MEMBERS),
        messages=lambda target: sample_messages(target, shape),
    )
    yield from _clients(plan)


def _fan_in(plan: Plan) -> Measure:
    shape = Shape(payload_bytes=100, topics=plan.fan)

    return Measure(
        name=f"fan-in, {plan.fan} to 1",
        group=CROWDS,
        region=f"{DELIVERED}; every publisher has a topic of its own and sends 16 KB at a time, {VERIFIED}",
        take=partial(measure_fan_in, shape=shape),
        messages=lambda target: fan_in_portion(target, shape) * plan.fan,
    )


def _clients(plan: Plan) -> Iterator[Measure]:
    """Many clients that send a message at a time: as fast as they are taken, and at a modest rate."""
    shape = Shape(payload_bytes=100, topics=plan.clients)
    who = f"{plan.clients} clients to {plan.listeners}"
    region = (
        f"{DELIVERED}; every publisher has a topic of its own and sends one message at a time, in turns, each subscriber "
        f"has {plan.clients // plan.listeners} of the topics, {VERIFIED}"
    )
    yield Measure(
        name=f"{who}, flat out",
        group=CROWDS,
        region=region,
        take=partial(measure_clients, shape=shape, subscribers=plan.listeners, messages_per_s=0.0),
        messages=lambda _: plan.clients,
    )
    yield Measure(
        name=f"{who}, {MODEST_PER_S}/s each",
        group=CROWDS,
        region=region,
        take=partial(
            measure_clients,
            shape=shape,
            subscribers=plan.listeners,
            messages_per_s=float(MODEST_PER_S),
        ),
        messages=lambda _: plan.clients,
        fixed=max(4, round(2 * plan.sample_s * MODEST_PER_S)),
    )


def _acknowledged(plan: Plan) -> Iterator[Measure]:
    for payload_bytes in plan.payloads if plan.extras else (100,):
        shape = Shape(payload_bytes=payload_bytes, qos=1)
        yield _mqtt_acked(shape, f"qos 1, {payload_bytes} B")
    yield _mqtt_acked(Shape(payload_bytes=100, qos=QOS_2), "qos 2, 100 B")
    for payload_bytes in plan.payloads if plan.extras else (100,):
        shape = Shape(payload_bytes=payload_bytes, qos=1)
        yield _durable(shape, f"qos 1 durable, {payload_bytes} B")


def _mqtt_acked(shape: Shape, name: str) -> Measure:
    def take(target: Target, messages: int) -> Throughput:
        if target.login.protocol != "mqtt":
            raise FeatureRefused("core NATS delivers at most once")
        return measure_acked(target, messages, shape=shape, persistent=False)

    return Measure(
        name=name,
        group=ACKED,
        region=f"{ACKED_REGION}; the subscriber's session ends with its connection",
        take=take,
        messages=lambda _: 1,
        step=CHUNK,
    )


def _durable(shape: Shape, name: str) -> Measure:
    def take(target: Target, messages: int) -> Throughput:
        if target.login.protocol == "nats":
            return measure_jetstream(target, messages, shape=shape)
        return measure_acked(target, messages, shape=shape, persistent=True)

    return Measure(
        name=name,
        group=DURABLE,
        region=DURABLE_REGION,
        take=take,
        messages=lambda _: 1,
        step=CHUNK,
        durable=True,
    )
