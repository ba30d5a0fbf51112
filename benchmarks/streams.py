"""One publisher, one subscriber, and a client that talks to itself: the generator's simplest roles."""

from __future__ import annotations

import socket
import ssl
from time import perf_counter_ns

from benchmarks.blocks import Block, Protocol, nats_msg, nats_pub
from benchmarks.mqtt_session import MqttSession
from benchmarks.nats_session import PING, NatsSession
from benchmarks.roles import PingPong, Publisher, Received, Sink, Subscriber, Trips
from benchmarks.stage import await_start, say_ready, say_report
from benchmarks.tally import Tally
from benchmarks.wire import DEADLINE_S, SOCKET_BYTES, Login, TlsPipe, dial
from mqtt.encode import encode
from mqtt.packets import Publish, Version

WARM_UP_TRIPS = 300


def publish(role: Publisher) -> None:
    shape, login = role.stream.shape, role.login
    block = role.stream.block(login.protocol)
    pipe = dial(login) if role.bare else _publisher_pipe(login, shape.version)
    say_ready()
    await_start()
    data = block.data
    for _ in range(role.stream.blocks):
        pipe.send(data)
    say_report()
    await_start()  # closing is ours to do only when the subscriber has everything


def _publisher_pipe(login: Login, version: Version) -> TlsPipe:
    if login.protocol == "nats":
        return NatsSession(login).pipe
    return MqttSession(login, "bench-pub", version).pipe


def subscribe(role: Subscriber) -> None:
    shape, login = role.stream.shape, role.login
    block = role.stream.block(login.protocol)
    pipe = _subscribed_pipe(login, "bench-sub", shape.version, role.topic_filter)
    say_ready()
    say_report(_receive(pipe, block, role.stream.blocks, login.protocol))


def _subscribed_pipe(login: Login, client_id: str, version: Version, topic: str) -> TlsPipe:
    if login.protocol == "nats":
        nats = NatsSession(login)
        nats.subscribe([topic])
        return nats.pipe
    mqtt = MqttSession(login, client_id, version)
    mqtt.subscribe([topic])
    return mqtt.pipe


def sink(role: Sink) -> None:
    block = role.stream.block()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(role.cert, role.key)
    context.load_verify_locations(role.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        say_ready(str(listener.getsockname()[1]))
        accepted, _ = listener.accept()
    pipe = TlsPipe(accepted, context, None)
    say_report(_receive(pipe, block, role.stream.blocks, "mqtt"))


def _receive(pipe: TlsPipe, block: Block, blocks: int, protocol: Protocol) -> Received:
    """Count bytes up to the last message; verify the first and the last packet and their distance."""
    total = blocks * len(block.arriving)
    buffer = memoryview(bytearray(SOCKET_BYTES))
    receive = pipe.receive_into
    tally = Tally(block, protocol)
    head = memoryview(bytearray(block.stride))
    pipe.receive_exactly(head[:1])
    began = perf_counter_ns()
    pipe.receive_exactly(head[1:])
    tally.add(head)
    while (left := total - tally.received) > 0:
        count = receive(buffer[: min(SOCKET_BYTES, left)])
        if not count:
            raise ConnectionError(f"the broker closed the connection, {left} bytes are missing")
        tally.add(buffer[:count])
    ended = perf_counter_ns()
    if bytes(head) != block.arriving_packet(0) or tally.tail != block.arriving_packet(-1):
        raise ValueError(
            "what arrived is not what was sent: messages were lost, doubled or changed"
        )
    return Received(
        messages=total // block.stride - 1,
        seconds=(ended - began) / 1e9,
        wire_bytes=total - block.stride,
    )


def ping_pong(role: PingPong) -> None:
    login, payload = role.login, bytes(role.payload_bytes)
    if login.protocol == "nats":
        packet, expected = nats_pub(role.topic, payload), nats_msg(role.topic, payload)
    else:
        packet = expected = encode(Publish(topic=role.topic, payload=payload), Version.V5)
    pipe = _subscribed_pipe(login, "bench-ping", Version.V5, role.topic)
    answer = memoryview(bytearray(len(expected)))
    trips: list[int] = []
    say_ready()
    await_start()
    for _ in range(WARM_UP_TRIPS + role.trips):
        began = perf_counter_ns()
        pipe.send(packet)
        pipe.receive_exactly(answer)
        ended = perf_counter_ns()
        if bytes(answer) != expected:
            _skip_ping(pipe, answer)
            ended = perf_counter_ns()
        trips.append(ended - began)
        if bytes(answer) != expected:
            raise ValueError("what came back is not what was sent")
    say_report(Trips(nanoseconds=trips[WARM_UP_TRIPS:]))


def _skip_ping(pipe: TlsPipe, answer: memoryview) -> None:
    """A NATS server asks once, some two seconds after CONNECT, whether we are there."""
    if bytes(answer[: len(PING)]) == PING:
        rest = bytes(answer[len(PING) :])
        answer[: len(rest)] = rest
        pipe.receive_exactly(answer[len(rest) :])
