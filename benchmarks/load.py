"""The load generator's processes: `python -m benchmarks.load '<json>'`, started by `benchmarks.sampling`.

A process says `ready` on its standard output once it is logged in, waits for a line on its standard input,
does its work, and prints one JSON object. Nothing is parsed or allocated per message in the timed region.
"""

from __future__ import annotations

import gc
import socket
import ssl
import sys
from time import perf_counter_ns

import msgspec

from benchmarks.kernel_calls import Called, KernelCaller, call_kernel
from benchmarks.wire import (
    DEADLINE_S,
    SOCKET_BYTES,
    Block,
    Login,
    Session,
    Shape,
    TlsPipe,
    build_block,
    dial,
)
from mqtt.encode import encode
from mqtt.packets import Publish, Version

WARM_UP_TRIPS = 300


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """The block built for `shape`, `blocks` times over."""

    shape: Shape
    blocks: int


class Publisher(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Send the block `blocks` times. `bare`: to a `Sink`, without MQTT's CONNECT."""

    login: Login
    stream: Stream
    bare: bool = False


class Subscriber(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Receive the block `blocks` times."""

    login: Login
    topic_filter: str
    stream: Stream


class Sink(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A subscriber without a broker: listens itself, to learn what the generator could do at most."""

    cert: str
    key: str
    ca: str
    stream: Stream


class PingPong(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Publish to an own subscription and wait, `trips` times."""

    login: Login
    topic: str
    payload_bytes: int
    trips: int


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber measured: from the first bytes it got to the last message."""

    messages: int
    seconds: float
    wire_bytes: int


class Trips(msgspec.Struct, frozen=True, kw_only=True):
    """Every round trip, nanoseconds, in order."""

    nanoseconds: list[int]


Role = Publisher | Subscriber | Sink | PingPong | KernelCaller


def main() -> int:
    role: Role = msgspec.json.decode(sys.argv[1], type=Role)
    gc.disable()
    match role:
        case Publisher():
            _publish(role)
        case Subscriber():
            _subscribe(role)
        case Sink():
            _sink(role)
        case PingPong():
            _ping_pong(role)
        case KernelCaller():
            _say_json(call_kernel(role))
    return 0


def _publish(role: Publisher) -> None:
    shape = role.stream.shape
    block = build_block(shape)
    pipe = dial(role.login) if role.bare else Session(role.login, "bench-pub", shape.version).pipe
    _say("ready")
    sys.stdin.readline()
    data = block.data
    for _ in range(role.stream.blocks):
        pipe.send(data)
    _say("{}")
    sys.stdin.readline()  # closing is ours to do only when the subscriber has everything


def _subscribe(role: Subscriber) -> None:
    shape = role.stream.shape
    block = build_block(shape)
    session = Session(role.login, "bench-sub", shape.version)
    session.subscribe(role.topic_filter)
    _say("ready")
    _say_json(_receive(session.pipe, block, role.stream.blocks))


def _sink(role: Sink) -> None:
    block = build_block(role.stream.shape)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(role.cert, role.key)
    context.load_verify_locations(role.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        _say(str(listener.getsockname()[1]))
        accepted, _ = listener.accept()
    pipe = TlsPipe(accepted, context, None)
    _say_json(_receive(pipe, block, role.stream.blocks))


def _receive(pipe: TlsPipe, block: Block, blocks: int) -> Received:
    """Count bytes up to the last message; verify the first and the last packet and their distance."""
    stride = block.stride
    total = blocks * block.count * stride
    buffer = memoryview(bytearray(SOCKET_BYTES))
    receive = pipe.receive_into
    head = memoryview(bytearray(stride))
    pipe.receive_exactly(head[:1])
    began = perf_counter_ns()
    pipe.receive_exactly(head[1:])
    left = total - 2 * stride  # the last packet is read apart
    while left > 0:
        count = receive(buffer[: min(SOCKET_BYTES, left)])
        if not count:
            raise ConnectionError(f"the broker closed the connection, {left} bytes are missing")
        left -= count
    tail = memoryview(bytearray(stride))
    pipe.receive_exactly(tail)
    ended = perf_counter_ns()
    if bytes(head) != block.packet(0) or bytes(tail) != block.packet(-1):
        raise ValueError(
            "what arrived is not what was sent: messages were lost, doubled or changed"
        )
    return Received(
        messages=total // stride - 1, seconds=(ended - began) / 1e9, wire_bytes=total - stride
    )


def _ping_pong(role: PingPong) -> None:
    packet = encode(Publish(topic=role.topic, payload=bytes(role.payload_bytes)), Version.V5)
    session = Session(role.login, "bench-ping", Version.V5)
    session.subscribe(role.topic)
    pipe = session.pipe
    answer = memoryview(bytearray(len(packet)))
    trips: list[int] = []
    _say("ready")
    sys.stdin.readline()
    for _ in range(WARM_UP_TRIPS + role.trips):
        began = perf_counter_ns()
        pipe.send(packet)
        pipe.receive_exactly(answer)
        trips.append(perf_counter_ns() - began)
        if answer != packet:
            raise ValueError("what came back is not what was sent")
    _say_json(Trips(nanoseconds=trips[WARM_UP_TRIPS:]))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say_json(result: Received | Trips | Called) -> None:
    _say(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    sys.exit(main())
