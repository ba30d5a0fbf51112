"""Kernel calls through the broker: requests pipelined by one client, every answer compared with numpy.

*Theory of operation.* A block of 64 different requests is prepared once, each with its own Correlation Data.
The first answer to each is decoded and compared with numpy; from then on an answer is right when it is
that same packet, byte for byte, so checking costs one lookup a message.
"""

from __future__ import annotations

from time import perf_counter_ns

import msgspec
import numpy as np

from benchmarks.mqtt_session import MqttSession
from benchmarks.wire import SOCKET_BYTES, Login
from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.packets import Properties, Publish, Version
from mqtt.runs import Run

REQUESTS = 64
"""Different requests, sent in one go."""

TOLERANCE = 1e-4
"""Largest difference from numpy: float32 sums in another order."""

CORRELATION_BYTES = 8
WARM_UP_S = 0.3


class KernelCaller(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Call `zscore` on windows of `samples` float32 for `seconds`, then `lone_calls` one at a time."""

    login: Login
    results_topic: str
    samples: int
    in_flight: int
    seconds: float
    lone_calls: int


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; every answer was equal to numpy's, or there is no result."""

    answers: int
    seconds: float
    lone_nanoseconds: list[int]


class _Caller:
    def __init__(self, role: KernelCaller) -> None:
        self._role = role
        windows = np.random.default_rng(7).normal(size=(REQUESTS, role.samples)).astype(np.float32)
        wide = windows.astype(np.float64)
        mean, spread = wide.mean(axis=1, keepdims=True), wide.std(axis=1, keepdims=True)
        self._expected = (wide - mean) / spread
        self._packets = [
            encode(
                Publish(
                    topic="kernel/zscore",
                    payload=window.tobytes(),
                    properties=Properties(
                        response_topic=role.results_topic,
                        correlation_data=number.to_bytes(CORRELATION_BYTES, "big"),
                    ),
                ),
                Version.V5,
            )
            for number, window in enumerate(windows)
        ]
        self._block = b"".join(self._packets)
        self._right: set[bytes] = set()
        session = MqttSession(role.login, "bench-caller", Version.V5)
        session.subscribe([role.results_topic])
        self._pipe = session.pipe
        self._reader = session.reader
        self._buffer = memoryview(bytearray(SOCKET_BYTES))

    def run(self) -> Called:
        self._pipelined(WARM_UP_S)
        answers, seconds = self._pipelined(self._role.seconds)
        lone: list[int] = []
        for number in range(self._role.lone_calls):
            began = perf_counter_ns()
            self._pipe.send(self._packets[number % REQUESTS])
            while not self._receive():
                pass
            lone.append(perf_counter_ns() - began)
        return Called(answers=answers, seconds=seconds, lone_nanoseconds=lone)

    def _pipelined(self, seconds: float) -> tuple[int, float]:
        """Keep the pipeline full for `seconds`, then wait for what is under way; all of it is timed."""
        sent = answered = 0
        began = perf_counter_ns()
        limit = began + int(seconds * 1e9)
        while perf_counter_ns() < limit:
            while sent - answered + REQUESTS <= self._role.in_flight:
                self._pipe.send(self._block)
                sent += REQUESTS
            answered += self._receive()
        while answered < sent:
            answered += self._receive()
        return answered, (perf_counter_ns() - began) / 1e9

    def _receive(self) -> int:
        """Read once; return how many right answers that gave."""
        count = self._pipe.receive_into(self._buffer)
        if not count:
            raise ConnectionError("the broker closed the connection")
        self._reader.feed(bytes(self._buffer[:count]))
        answers = 0
        while (event := self._reader.next_event()) is not None:
            answers += self._verify(event)
        return answers

    def _verify(self, event: object) -> int:
        if not isinstance(event, Run):
            raise RemoteProtocolError(f"unexpected {type(event).__name__}")
        data, stride, right = event.data, event.stride, self._right
        for index in range(event.count):
            packet = data[index * stride : (index + 1) * stride]
            if packet not in right:
                self._verify_values(event.packet(index))
                right.add(packet)
        if len(right) > REQUESTS:
            raise ValueError("equal requests got different answers")
        return event.count

    def _verify_values(self, answer: Publish) -> None:
        number = int.from_bytes(answer.properties.correlation_data or b"", "big")
        said = dict(answer.properties.user_properties)
        if said.get("status") == "error":
            raise ValueError(f"the kernel failed: {said.get('error')}")
        values = np.frombuffer(answer.payload, dtype=np.float32)
        if not np.allclose(values, self._expected[number], rtol=TOLERANCE, atol=TOLERANCE):
            raise ValueError("an answer differs from numpy's")


def call_kernel(role: KernelCaller) -> Called:
    return _Caller(role).run()
