"""One sample: start the generator's processes against one broker, let them run once, collect the result."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import msgspec

from benchmarks.blocks import BLOCK_BYTES, Shape, build_block
from benchmarks.generator import Player, playing
from benchmarks.kernel_calls import Called, KernelCaller
from benchmarks.lag import Buckets, lag_between
from benchmarks.roles import (
    AckedPublisher,
    AckedSubscriber,
    Idlers,
    Opened,
    PingPong,
    Publisher,
    Publishers,
    Received,
    Role,
    Sink,
    Span,
    Stream,
    StreamConsumer,
    StreamPublisher,
    Subscriber,
    Subscribers,
    Trips,
)
from benchmarks.targets import Target
from benchmarks.wire import FeatureRefused, Login

EVERYTHING = "bench/#"
SHARE = "bench-group"
FAN_IN_BYTES = 16 * 1024
"""What one of many publishers sends in one go."""

WINDOW = 1024
"""QoS 1 and 2 messages under way, on both sides of the broker."""

KERNEL_SAMPLES = 64  # float32 in a window of `zscore`
KERNEL_IN_FLIGHT = 2048
"""Requests under way: two of the kernel's largest batches, one filling while one runs."""

CONNECTS_PER_S = 50
"""The least rate at which connections are opened, for the deadline."""

SUBSCRIBES_PER_S = 2_000
"""The same for subscriptions."""


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """One sample.

    Attributes:
        messages_per_s: messages delivered to subscribers, over the timed region.
        broker_cpu_us_per_message: user and system time of the broker's processes, a delivered message; 0 if unknown.
        lag: how late the broker's event loop was meanwhile; empty if unknown.
    """

    messages_per_s: float
    broker_cpu_us_per_message: float = 0.0
    lag: Buckets = msgspec.field(default_factory=dict[float, float])


def measure_stream(target: Target, blocks: int, *, shape: Shape) -> Throughput:
    """One publisher to one subscriber."""
    stream = Stream(shape=shape, blocks=blocks)
    subscriber = Subscriber(login=target.login, topic_filter=EVERYTHING, stream=stream)
    return _delivered(target, subscriber, Publisher(login=target.login, stream=stream))


def measure_fan_out(
    target: Target,
    blocks: int,
    *,
    shape: Shape,
    subscribers: int,
    block_bytes: int = BLOCK_BYTES,
) -> Throughput:
    """One publisher, and every subscriber gets everything."""
    stream = Stream(shape=shape, blocks=blocks, block_bytes=block_bytes)
    crowd = Subscribers(
        login=target.login,
        shape=shape,
        filters=[[EVERYTHING]] * subscribers,
        messages=blocks * stream.block(target.login.protocol).count * subscribers,
    )
    return _delivered(target, crowd, Publisher(login=target.login, stream=stream))


def measure_group(target: Target, blocks: int, *, shape: Shape, members: int) -> Throughput:
    """One publisher, and one member of a group gets each message."""
    crowd = Subscribers(
        login=target.login,
        shape=shape,
        filters=[[EVERYTHING]] * members,
        messages=blocks * sample_messages(target, shape),
        even=False,
        group=SHARE,
    )
    stream = Stream(shape=shape, blocks=blocks)
    return _delivered(target, crowd, Publisher(login=target.login, stream=stream))


def measure_fan_in(target: Target, turns: int, *, shape: Shape) -> Throughput:
    """A publisher for each topic of the shape, and one subscriber that gets everything."""
    login = target.login
    messages = turns * fan_in_portion(target, shape) * shape.topics
    crowd = Subscribers(login=login, shape=shape, filters=[[EVERYTHING]], messages=messages)
    publishers = Publishers(login=login, shape=shape, turns=turns, portion_bytes=FAN_IN_BYTES)
    return _delivered(target, crowd, publishers)


def measure_clients(
    target: Target, turns: int, *, shape: Shape, subscribers: int, messages_per_s: float
) -> Throughput:
    """A publisher for each topic of the shape, a message at a time; the subscribers share the topics among them."""
    names = shape.topic_names
    crowd = Subscribers(
        login=target.login,
        shape=shape,
        filters=[names[number::subscribers] for number in range(subscribers)],
        messages=turns * len(names),
    )
    publishers = Publishers(
        login=target.login, shape=shape, turns=turns, messages_per_s=messages_per_s
    )
    return _delivered(target, crowd, publishers)


def measure_acked(target: Target, messages: int, *, shape: Shape, persistent: bool) -> Throughput:
    """QoS 1 or 2 from one publisher to one subscriber, both with a window."""
    login, topic = target.login, shape.topic_names[0]
    subscriber = AckedSubscriber(
        login=login,
        shape=shape,
        topic=topic,
        window=WINDOW,
        messages=messages,
        persistent=persistent,
    )
    publisher = AckedPublisher(
        login=login, shape=shape, topic=topic, window=WINDOW, messages=messages
    )
    return _acknowledged(target, subscriber, publisher, messages)


def measure_jetstream(target: Target, messages: int, *, shape: Shape) -> Throughput:
    """The same through a JetStream stream on file."""
    login, topic = target.login, "bench/stream"
    consumer = StreamConsumer(
        login=login, shape=shape, topic=topic, window=WINDOW, messages=messages
    )
    publisher = StreamPublisher(
        login=login, shape=shape, topic=topic, window=WINDOW, messages=messages
    )
    return _acknowledged(target, consumer, publisher, messages)


def _delivered(target: Target, receiver: Role, sender: Role) -> Throughput:
    """Let both play; the receiver measures."""
    with ExitStack() as stack:
        receiving, sending = _ready(stack, receiver, sender)
        lag, cpu = target.lag(), target.cpu_seconds()
        sending.go()
        received = receiving.report(Received, others=[sending])
        cpu_seconds = target.cpu_seconds() - cpu
        return Throughput(
            messages_per_s=received.messages / received.seconds,
            broker_cpu_us_per_message=cpu_seconds / received.messages * 1e6,
            lag=lag_between(lag, target.lag()),
        )


def _acknowledged(target: Target, receiver: Role, sender: Role, messages: int) -> Throughput:
    """Let both play; it ends when the publisher has every acknowledgement and the subscriber every message."""
    with ExitStack() as stack:
        receiving, sending = _ready(stack, receiver, sender)
        lag, cpu = target.lag(), target.cpu_seconds()
        sending.go()
        received = receiving.report(Span, others=[sending])
        sent = sending.report(Span, others=[receiving])
        cpu_seconds = target.cpu_seconds() - cpu
        seconds = (max(received.ended_ns, sent.ended_ns) - sent.began_ns) / 1e9
        return Throughput(
            messages_per_s=messages / seconds,
            broker_cpu_us_per_message=cpu_seconds / messages * 1e6,
            lag=lag_between(lag, target.lag()),
        )


def _ready(stack: ExitStack, receiver: Role, sender: Role) -> tuple[Player, Player]:
    """Start both, the receiver first, each up to where it waits."""
    receiving = stack.enter_context(playing(receiver))
    receiving.line()
    sending = stack.enter_context(playing(sender))
    sending.line(others=[receiving])
    return receiving, sending


@contextmanager
def holding_subscriptions(
    target: Target, clients: int, filters_each: int
) -> Generator[None, None, None]:
    """Inside the block, other clients hold subscriptions that nothing matches.

    Raises:
        FeatureRefused: the broker allows fewer.
    """
    role = Idlers(login=target.login, count=clients, filters=filters_each)
    with playing(role) as player:
        player.line()
        player.go()
        opened = player.report(Opened, deadline_s=30 + clients * filters_each / SUBSCRIBES_PER_S)
        if opened.refused:
            raise FeatureRefused(opened.refused)
        yield
        player.go()


def measure_ceiling(login: Login, server: tuple[str, str], shape: Shape, blocks: int) -> Throughput:
    """One publisher and one subscriber without a broker: what the generator can do at most on this machine."""
    stream = Stream(shape=shape, blocks=blocks)
    cert, key = server
    sink = Sink(cert=cert, key=key, ca=login.ca, stream=stream)
    with playing(sink) as receiving:
        port = int(receiving.line())
        there = msgspec.structs.replace(login, host="127.0.0.1", port=port)
        with playing(Publisher(login=there, stream=stream, bare=True)) as sending:
            sending.line()
            sending.go()
            received = receiving.report(Received, others=[sending])
            return Throughput(messages_per_s=received.messages / received.seconds)


def measure_round_trips(
    target: Target, *, payload_bytes: int, trips: int, broker_core: int, client_core: int
) -> list[int]:
    """Round trips of one client through the broker, nanoseconds.

    Both are kept on a core each (or on one): left alone, they land on one core or on two by chance, and
    waking a sleeping core takes several times what a broker takes.
    """
    role = PingPong(
        login=target.login, topic="bench/ping", payload_bytes=payload_bytes, trips=trips
    )
    with playing(role) as player, target.on_cores(frozenset({broker_core})):
        player.line()
        os.sched_setaffinity(player.pid, {client_core})
        player.go()
        return player.report(Trips).nanoseconds


def measure_kernel_calls(target: Target, *, seconds: float, lone_calls: int) -> Called:
    """Calls of the sample kernel by the client `sensor`, pipelined and then one at a time."""
    role = KernelCaller(
        login=target.logins["sensor"],
        results_topic="results/sensor/bench",
        samples=KERNEL_SAMPLES,
        in_flight=KERNEL_IN_FLIGHT,
        seconds=seconds,
        lone_calls=lone_calls,
    )
    with playing(role) as player:
        return player.report(Called)


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """What many silent connections cost.

    Attributes:
        connections: how many there were.
        refused: why not more; empty if all were made.
        per_s: how many were made a second, one after the other.
        broker_cpu_ms: the broker's CPU time for making one.
        bytes_each: what the broker's resident memory grew by, for each.
    """

    connections: int
    refused: str
    per_s: float
    broker_cpu_ms: float
    bytes_each: float


def measure_idle(target: Target, connections: int) -> Idle:
    """Open connections of one client, one after the other, and hold them."""
    with playing(Idlers(login=target.login, count=connections)) as player:
        player.line()
        memory, cpu = target.resident_bytes(), target.cpu_seconds()
        player.go()
        opened = player.report(Opened, deadline_s=30 + connections / CONNECTS_PER_S)
        count = max(1, opened.connections)
        idle = Idle(
            connections=opened.connections,
            refused=opened.refused,
            per_s=opened.connections / opened.seconds,
            broker_cpu_ms=(target.cpu_seconds() - cpu) / count * 1e3,
            bytes_each=(target.resident_bytes() - memory) / count,
        )
        player.go()
        return idle


def sample_messages(target: Target, shape: Shape) -> int:
    """Messages in the block that a publisher of this shape sends."""
    return build_block(shape, target.login.protocol).count


def fan_in_portion(target: Target, shape: Shape) -> int:
    """Messages that one of many publishers sends in one go."""
    first = shape.topic_names[:1]
    return build_block(shape, target.login.protocol, topics=first, size=FAN_IN_BYTES).count
