"""How much is measured: a quick look, some minutes, or everything."""

from __future__ import annotations

import msgspec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a run.

    Attributes:
        rounds: samples of every measure; the targets take turns in each.
        sample_s: how long the timed region of a throughput sample should last: bounded well below 4 s; 0: a few thousand
            messages, however long they take.
        payloads: bytes.
        fan: subscribers of a fan-out and publishers of a fan-in.
        clients: publishers at modest rates.
        listeners: subscribers that share their topics.
        many_topics: topics that take turns.
        trips: round trips in a sample.
        kernel_s: seconds of kernel calls in a sample.
        lone_calls: kernel calls one at a time in a sample.
        connects: connections opened in a sample of the connection rate.
        idle: connections held to learn what each takes.
        extras: further shapes: MQTT 3.1.1, QoS 1 and 2 of other sizes.
        in_process: the measures without a broker.
    """

    rounds: int = 3
    sample_s: float = 1.5
    payloads: tuple[int, ...] = (16, 100, 1024)
    fan: int = 50
    clients: int = 500
    listeners: int = 50
    many_topics: int = 1000
    trips: int = 3000
    kernel_s: float = 2.0
    lone_calls: int = 500
    connects: int = 100
    idle: int = 500
    extras: bool = False
    in_process: bool = True


DEFAULT = Plan(sample_s=1.0)
FULL = Plan(rounds=5, idle=10_000, extras=True)
QUICK = Plan(
    rounds=1,
    sample_s=0.0,
    payloads=(100,),
    fan=4,
    clients=20,
    listeners=4,
    many_topics=100,
    trips=300,
    kernel_s=0.3,
    lone_calls=50,
    connects=5,
    idle=10,
    in_process=False,
)
