"""The load generator's processes: `python -m benchmarks.load '<json>'`, started by `benchmarks.sampling`.

A process says `ready` on its standard output once it is logged in, waits for a line on its standard input,
does its work, and prints one JSON object. Nothing is parsed or allocated per message in the timed region
unless the protocol asks for an answer to every message.
"""

from __future__ import annotations

import gc
import sys
from typing import assert_never

import msgspec

from benchmarks.acked import publish_acked, subscribe_acked
from benchmarks.crowds import publish_many, subscribe_many
from benchmarks.idle import hold_idle
from benchmarks.jetstream import consume_stream, publish_stream
from benchmarks.kernel_calls import KernelCaller, call_kernel
from benchmarks.roles import (
    AckedPublisher,
    AckedSubscriber,
    Idlers,
    PingPong,
    Publisher,
    Publishers,
    Refusal,
    Role,
    Sink,
    StreamConsumer,
    StreamPublisher,
    Subscriber,
    Subscribers,
)
from benchmarks.stage import say_report
from benchmarks.streams import ping_pong, publish, sink, subscribe
from benchmarks.wire import FeatureRefused


def main() -> int:
    role: Role = msgspec.json.decode(sys.argv[1], type=Role)
    gc.disable()
    try:
        _play(role)
    except FeatureRefused as refused:
        say_report(Refusal(why=str(refused)))
    return 0


def _play(role: Role) -> None:  # noqa: C901, PLR0912 - one case a role
    match role:
        case Publisher():
            publish(role)
        case Subscriber():
            subscribe(role)
        case Sink():
            sink(role)
        case Publishers():
            publish_many(role)
        case Subscribers():
            subscribe_many(role)
        case PingPong():
            ping_pong(role)
        case AckedPublisher():
            publish_acked(role)
        case AckedSubscriber():
            subscribe_acked(role)
        case StreamPublisher():
            publish_stream(role)
        case StreamConsumer():
            consume_stream(role)
        case Idlers():
            hold_idle(role)
        case KernelCaller():
            say_report(call_kernel(role))
        case _:
            assert_never(role)


if __name__ == "__main__":
    sys.exit(main())
