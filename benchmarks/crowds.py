"""Many connections in one process: fan-out, fan-in, groups, and clients at modest rates.

*Theory of operation.* The publishers take turns and each send blocks until the socket takes it, so one that the
broker does not read holds up the others: they all push as hard as the broker lets them. The subscribers are
read by one `epoll` loop that counts bytes.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence
from itertools import count

from benchmarks.blocks import build_block
from benchmarks.mqtt_session import MqttSession
from benchmarks.nats_session import NatsSession
from benchmarks.roles import Publishers, Received, Subscribers
from benchmarks.stage import await_start, say_ready, say_report
from benchmarks.tally import Tally
from benchmarks.wire import SOCKET_BYTES, TlsPipe, client_context

TICK_S = 0.001
"""Paced publishers send what is due once a tick, so that sleeping costs little."""

SILENCE_S = 20.0
"""A subscriber that hears nothing for so long has lost messages; above a busy machine's hiccups."""


def publish_many(role: Publishers) -> None:
    login, shape = role.login, role.shape
    context = client_context(login)
    pipes: list[TlsPipe] = []
    portions: list[bytes] = []
    for number, topic in enumerate(shape.topic_names):
        block = build_block(shape, login.protocol, topics=[topic], size=role.portion_bytes)
        portions.append(block.data)
        if login.protocol == "nats":
            pipes.append(NatsSession(login, context=context).pipe)
        else:
            session = MqttSession(login, f"bench-p{number}", shape.version, context=context)
            pipes.append(session.pipe)
    say_ready()
    await_start()
    if role.messages_per_s:
        _send_paced(pipes, portions, role.turns, 1 / role.messages_per_s)
    else:
        for _ in range(role.turns):
            for pipe, portion in zip(pipes, portions, strict=True):
                pipe.send(portion)
    say_report()
    await_start()  # the connections stay until the subscribers have everything


def _send_paced(
    pipes: Sequence[TlsPipe], portions: Sequence[bytes], turns: int, interval_s: float
) -> None:
    """Spread the sends of all pipes evenly over each interval."""
    each_s = interval_s / len(pipes)
    began = time.perf_counter()
    order = count()
    for _ in range(turns):
        for pipe, portion in zip(pipes, portions, strict=True):
            due = began + next(order) * each_s
            while due > time.perf_counter() + TICK_S:
                time.sleep(TICK_S)
            pipe.send(portion)


class _Crowd:
    """The subscribers' side: one loop, a tally a connection."""

    def __init__(self, role: Subscribers) -> None:
        self._role = role
        self._block = build_block(role.shape, role.login.protocol, size=0)
        self._selector = selectors.EpollSelector()
        self._tallies: list[Tally] = []
        self._context = client_context(role.login)
        for number, filters in enumerate(role.filters):
            tally = Tally(self._block, role.login.protocol)
            self._tallies.append(tally)
            pipe = self._join(number, filters)
            self._selector.register(pipe.fileno(), selectors.EVENT_READ, (pipe, tally))

    def _join(self, number: int, filters: Sequence[str]) -> TlsPipe:
        role = self._role
        if role.login.protocol == "nats":
            nats = NatsSession(role.login, context=self._context)
            nats.subscribe(filters, group=role.group)
            return nats.pipe
        mqtt = MqttSession(
            role.login, f"bench-s{number}", role.shape.version, context=self._context
        )
        share = f"$share/{role.group}/" if role.group else ""
        mqtt.subscribe([share + each for each in filters])
        return mqtt.pipe

    def receive(self) -> Received:
        """Read until every message is there."""
        stride, wanted = self._block.stride, self._role.messages * self._block.stride
        view = memoryview(bytearray(SOCKET_BYTES))
        began, got = 0.0, 0
        while got < wanted:
            ready = self._selector.select(SILENCE_S)
            began = began or time.perf_counter()
            if not ready:
                raise ConnectionError(f"{(wanted - got) // stride} messages did not arrive")
            for key, _ in ready:
                pipe, tally = key.data
                before = tally.received
                if not pipe.drain(view, tally.add):
                    raise ConnectionError("the broker closed the connection")
                got += tally.received - before
        ended = time.perf_counter()
        self._verify(wanted)
        return Received(messages=self._role.messages, seconds=ended - began, wire_bytes=wanted)

    def _verify(self, wanted: int) -> None:
        shares = [tally.received for tally in self._tallies]
        even = len(set(shares)) == 1 or not self._role.even
        if sum(shares) != wanted or not even or any(each % self._block.stride for each in shares):
            raise ValueError("messages were lost, doubled or went to the wrong subscriber")


def subscribe_many(role: Subscribers) -> None:
    crowd = _Crowd(role)
    say_ready()
    say_report(crowd.receive())
