"""Clients we did not write (mosquitto's programs, paho, openssl), ready for a running system, and what to compare with.

Nothing here sleeps for a fixed time: `eventually` polls, everything else waits for an event, each with a deadline.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, TypeVar

import numpy as np
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cli.target import connect_to
from controller.commands import RuleDraft
from tests.needs import require_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from paho.mqtt.client import ConnectFlags, DisconnectFlags
    from paho.mqtt.enums import MQTTProtocolVersion
    from paho.mqtt.reasoncodes import ReasonCode

    from cli.ready import ClientFiles, Ready

Value = TypeVar("Value")
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
AuditLine = dict[str, object]

ANSWER_S: Final = 15.0
"""How long a test waits for anything over the network; two busy cores answer in far less."""

POLL_S: Final = 0.02

WINDOW: Final = 64

NOT_AUTHORIZED: Final = 0x87

_numbers = itertools.count(1)


def unique(name: str) -> str:
    """A name nobody else in this run uses, for topics and client ids."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def eventually(look: Callable[[], Value], *, deadline_s: float = ANSWER_S) -> Value:
    """What `look` returns as soon as that is truthy; a failure after `deadline_s`."""
    deadline = time.monotonic() + deadline_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not seen within {deadline_s:g} s; last: {seen!r}"
        time.sleep(POLL_S)
    return seen


def endpoint(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, with or without a scheme and a path."""
    host, _, port = address.rpartition("//")[2].partition("/")[0].rpartition(":")
    return host, int(port)


# -- kernel `zscore`


def windows(count: int, *, seed: int = 1) -> Floats:
    """`count` records for `zscore`, none of whose bytes is zero, so that each may be a program's argument."""
    random = np.random.default_rng(seed)
    found: list[Floats] = []
    while len(found) < count:
        window = random.normal(3.0, 2.0, WINDOW).astype(np.float32)
        if 0 not in window.tobytes():
            found.append(window)
    return np.array(found)


def zscores(samples: Floats) -> Floats:
    """What the kernel promises, by numpy in double precision."""
    wide = samples.astype(np.float64)
    mean, deviation = wide.mean(-1, keepdims=True), wide.std(-1, keepdims=True)
    return np.asarray((wide - mean) / deviation, np.float32)


def assert_zscores(payload: bytes | bytearray, samples: Floats) -> None:
    """Refuse an answer that is not the z-scores of `samples`."""
    np.testing.assert_allclose(
        np.frombuffer(payload, np.float32), zscores(samples), rtol=1e-4, atol=1e-4
    )


# -- audit


def audit_lines(path: Path) -> list[AuditLine]:
    """Every whole event in an audit file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if "\n" in line]


def await_audit(path: Path, **fields: object) -> AuditLine:
    """The first event with these fields, once it is written."""

    def look() -> list[AuditLine]:
        return [
            line
            for line in audit_lines(path)
            if all(line.get(name) == value for name, value in fields.items())
        ]

    return eventually(look)[0]


# -- policy


@contextmanager
def ruled(
    ready: Ready,
    principal: str,
    operations: str,
    resource: str,
    *,
    effect: str = "allow",
    expires_at: float | None = None,
) -> Generator[None]:
    """One more rule for the length of a `with` block; it holds for every client from its first line on."""
    client = connect_to(ready.controller.api, ready.clients["admin"])
    rule = unique("rule")
    draft = RuleDraft(
        id=rule,
        principal=principal,
        resource=resource,
        operations=operations,
        effect=effect,
        expires_at=expires_at,
    )
    assert not client.add_rule(draft).lagging_brokers
    try:
        yield
    finally:
        assert not client.delete_rule(rule).lagging_brokers


# -- mosquitto


def mosquitto(
    tool: str, ready: Ready, client: str, *arguments: str, version: str = "5"
) -> list[str]:
    """A command line of one of mosquitto's clients."""
    host, port = endpoint(ready.broker.mqtts)
    files = ready.clients[client]
    return [
        require_tool(tool, package="mosquitto-clients"),
        *("-h", host, "-p", str(port), "-V", version, "-i", unique(client)),
        *("--cafile", files.ca, "--cert", files.cert, "--key", files.key),
        *arguments,
    ]


def run(
    command: Sequence[str | bytes], *, typed: bytes = b"", deadline_s: float = 30.0
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; `typed` is its standard input."""
    return subprocess.run(
        command, check=False, capture_output=True, timeout=deadline_s, input=typed
    )


@dataclass(slots=True, kw_only=True)
class Subscriber:
    """A running mosquitto_sub that has its subscription."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list[str])

    def lines(self) -> list[str]:
        """What it printed of messages, after it ended by itself (`-C`, `-W`)."""
        self.process.wait(ANSWER_S)
        eventually(lambda: self.process.stdout is None or self.process.stdout.closed)
        return [line.removeprefix("> ") for line in self.output if line.startswith("> ")]


@contextmanager
def mosquitto_sub(
    ready: Ready, client: str, *arguments: str, version: str = "5", form: str = "%t %p"
) -> Generator[Subscriber]:
    """mosquitto_sub, from its SUBACK on; `form` is its output format."""
    command = mosquitto("mosquitto_sub", ready, client, *arguments, version=version)
    process = subprocess.Popen(
        [require_tool("stdbuf", package="coreutils"), "-oL", *command, "-d", "-F", f"> {form}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    subscriber = Subscriber(process=process)
    subscribed = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                subscriber.output.append(line.rstrip("\n"))
                if "Subscribed" in line or "All subscription requests were denied" in line:
                    subscribed.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert subscribed.wait(ANSWER_S), subscriber.output
        yield subscriber
    finally:
        process.kill()
        process.wait(ANSWER_S)
        reader.join(ANSWER_S)


# -- paho


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A reason code with what the broker says about it."""

    code: int
    text: str


class Paho:
    """paho-mqtt over mutual TLS or a secure WebSocket, with answers to wait for."""

    def __init__(
        self,
        address: str,
        files: ClientFiles,
        *,
        version: MQTTProtocolVersion = MQTTv5,
        name: str = "paho",
    ) -> None:
        self.address = address
        self.messages: queue.Queue[MQTTMessage] = queue.Queue()
        self.ended: queue.Queue[int] = queue.Queue()
        self._connected: queue.Queue[Answered] = queue.Queue()
        self._subscribed: queue.Queue[list[Answered]] = queue.Queue()
        self._published: dict[int, Answered] = {}
        self._news = threading.Condition()
        websocket = address.startswith("wss://")
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=unique(name),
            protocol=version,
            transport="websockets" if websocket else "tcp",
            reconnect_on_failure=False,
        )
        if websocket:
            self.client.ws_set_options(path="/mqtt")
        self.client.tls_set(ca_certs=files.ca, certfile=files.cert, keyfile=files.key)
        self.client.max_inflight_messages_set(1000)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_publish = self._on_publish
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)

    def __enter__(self) -> Self:
        self.client.connect(*endpoint(self.address), keepalive=30)
        self.client.loop_start()
        try:
            answer = self._connected.get(timeout=ANSWER_S)
            assert answer.code == 0, answer
        except BaseException:
            self.client.loop_stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, topic: str, *, qos: int = 0) -> Answered:
        """SUBSCRIBE to one filter; the SUBACK."""
        self.client.subscribe(topic, qos)
        return self._subscribed.get(timeout=ANSWER_S)[0]

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, properties: Properties | None = None
    ) -> Answered:
        """PUBLISH; at QoS 1 the PUBACK, else that it was sent."""
        mid = self.client.publish(topic, payload, qos, properties=properties).mid
        with self._news:
            assert self._news.wait_for(lambda: mid in self._published, ANSWER_S)
            return self._published.pop(mid)

    def send(self, topic: str, payload: bytes, *, properties: Properties | None = None) -> None:
        """PUBLISH at QoS 0, without waiting for anything."""
        self.client.publish(topic, payload, 0, properties=properties)

    def receive(self, *, deadline_s: float = ANSWER_S) -> MQTTMessage:
        """The next message."""
        return self.messages.get(timeout=deadline_s)

    def _on_connect(
        self,
        _client: Client,
        _data: object,
        _flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connected.put(Answered(code=code.value, text=reason_string(properties)))

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self.ended.put(code.value)

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        _mid: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        text = reason_string(properties)
        self._subscribed.put([Answered(code=code.value, text=text) for code in codes])

    def _on_publish(
        self,
        _client: Client,
        _data: object,
        mid: int,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._news:
            self._published[mid] = Answered(code=code.value, text=reason_string(properties))
            self._news.notify_all()


def reason_string(properties: Properties | None) -> str:
    """The Reason String, empty when there is none."""
    return str(getattr(properties, "ReasonString", ""))


def publish_properties() -> Properties:
    """No properties of a PUBLISH yet."""
    return Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own


def request_properties(response_topic: str, correlation: bytes) -> Properties:
    """The properties of a request."""
    properties = publish_properties()
    properties.ResponseTopic = response_topic
    properties.CorrelationData = correlation
    return properties


def paho(
    ready: Ready, client: str, *, version: MQTTProtocolVersion = MQTTv5, address: str | None = None
) -> Paho:
    """paho with the certificate of one of the system's clients; over MQTT/TLS unless another address is given."""
    return Paho(address or ready.broker.mqtts, ready.clients[client], version=version, name=client)


def call_zscore(sensor: Paho, samples: Floats) -> list[MQTTMessage]:
    """Call the kernel once for every row, all at once; the answers in the order of the rows."""
    topic = f"results/sensor/{unique('call')}"
    assert sensor.subscribe(topic).code == 0
    for number, row in enumerate(samples):
        properties = request_properties(topic, b"%d" % number)
        sensor.send("kernel/zscore", row.tobytes(), properties=properties)
    messages = [sensor.receive() for _ in samples]
    answers = {correlation_of(message): message for message in messages}
    assert set(answers) == {b"%d" % number for number in range(len(samples))}
    return [answers[b"%d" % number] for number in range(len(samples))]


def correlation_of(message: MQTTMessage) -> bytes:
    """The Correlation Data of an answer."""
    data = getattr(message.properties, "CorrelationData", b"")
    assert isinstance(data, bytes)
    return data


def user_properties_of(message: MQTTMessage) -> dict[str, str]:
    """The user properties of a message."""
    return dict(getattr(message.properties, "UserProperty", []))
