"""The test's end of a puppet: a client of somebody else's library in a process of its own, which can be killed.

*Rules of this file*: a puppet has one connection at a time and does one order at a time. Every wait has a deadline.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tests.e2e.clients import ANSWER_S, unique
from tests.e2e.puppets.lines import Content, Order, Report, parse_report
from tests.needs import require_file, require_tool

if TYPE_CHECKING:
    from cli.ready import Ready

FOLDER: Final = Path(__file__).parents[1]

ALL_VERSIONS: Final = (5, 4)
WARNINGS: Final = ("-std=gnu11", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A foreign client library.

    Attributes:
        name: as its users call it.
        versions: of MQTT; 4 is 3.1.1.
        websocket: whether it comes over secure WebSocket.
        tells_presence: whether it says if the session was there.
        tells_end: whether it says why a connection ended.
        tells_refusal: whether it says that a message was refused.
        orders_users: whether it keeps the order of user properties of different names.
    """

    name: str
    versions: tuple[int, ...] = ALL_VERSIONS
    websocket: bool = False
    tells_presence: bool = True
    tells_end: bool = True
    tells_refusal: bool = True
    orders_users: bool = True


PAHO_C: Final = Kind(name="paho-c")
AIOMQTT: Final = Kind(name="aiomqtt", tells_presence=False, tells_refusal=False)
GMQTT: Final = Kind(name="gmqtt", tells_refusal=False)
OHMQTT: Final = Kind(name="ohmqtt", versions=(5,), tells_presence=False, tells_end=False)
MQTT_JS: Final = Kind(name="mqtt.js", websocket=True, orders_users=False)
KINDS: Final = (PAHO_C, AIOMQTT, GMQTT, OHMQTT, MQTT_JS)


def command_of(kind: Kind, built: Path) -> list[str]:
    """How a puppet is started.

    Args:
        kind: of which library.
        built: a folder for what must be compiled first.
    """
    if kind is PAHO_C:
        return [str(_compiled(built))]
    if kind is MQTT_JS:
        require_file(FOLDER / "js" / "node_modules" / "mqtt" / "package.json", package="mqtt")
        return [require_tool("node", package="nodejs"), str(FOLDER / "js" / "puppet.mjs")]
    start = str(FOLDER / "puppets" / "start.py")
    return [sys.executable, "-P", start, f"tests.e2e.puppets.with_{kind.name}"]


def _compiled(built: Path) -> Path:
    program = built / "paho-c-puppet"
    if not program.exists():
        compiler = require_tool("gcc", package="g++")
        require_file(Path("/usr/include/MQTTAsync.h"), package="libpaho-mqtt-dev")
        source = FOLDER / "c" / "puppet.c"
        command = [compiler, *WARNINGS, str(source), "-o", str(program), "-lpaho-mqtt3as"]
        subprocess.run(command, check=True, timeout=60)
    return program


class Puppet:
    """A running puppet."""

    def __init__(self, kind: Kind, command: list[str], ready: Ready, principal: str) -> None:
        self.kind = kind
        self.messages: queue.Queue[Content] = queue.Queue()
        self.ended: queue.Queue[Report] = queue.Queue()
        self._done: queue.Queue[Report] = queue.Queue()
        self._connected = False
        files = ready.clients[principal]
        address = ready.broker.wss if kind.websocket else ready.broker.mqtts
        self.process = subprocess.Popen(
            [*command, address, files.ca, files.cert, files.key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def connect(
        self,
        *,
        client_id: str | None = None,
        clean_start: bool = True,
        expiry_s: int = 0,
        version: int = 5,
        will: Content | None = None,
    ) -> Report:
        """Connect, after an end of the connection before this one."""
        self.disconnect()
        while not self.messages.empty():
            self.messages.get()
        while not self.ended.empty():
            self.ended.get()
        report = self.do(
            Order(
                kind="connect",
                client_id=client_id or unique("puppet"),
                clean_start=clean_start,
                expiry_s=expiry_s,
                version=version,
                has_will=will is not None,
                content=will or Content(),
            )
        )
        assert (report.reason, report.error) == (0, ""), report
        self._connected = True
        return report

    def disconnect(self) -> None:
        """Say goodbye, unless the connection is over already."""
        if self._connected:
            report = self.do(Order(kind="disconnect"))
            assert report.error == "" or not self._connected, report
            self._connected = False

    def subscribe(self, topic: str, *, qos: int = 1) -> int:
        """Subscribe; the reason code, or -1 when it is not told."""
        return self.do(Order(kind="subscribe", content=Content(topic=topic, qos=qos))).reason

    def unsubscribe(self, topic: str) -> int:
        """Unsubscribe; the reason code, or -1 when it is not told."""
        return self.do(Order(kind="unsubscribe", content=Content(topic=topic))).reason

    def publish(self, content: Content) -> Report:
        """Publish, and wait for what ends the message."""
        return self.do(Order(kind="publish", content=content))

    def receive(self) -> Content:
        """The next message."""
        return self.messages.get(timeout=ANSWER_S)

    def do(self, order: Order) -> Report:
        """Give an order; what the puppet says when it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(order.line() + "\n")
        self.process.stdin.flush()
        report = self._done.get(timeout=ANSWER_S)
        assert report.kind == order.kind, report
        return report

    def kill(self) -> None:
        """End the process without giving it a chance."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """End the process; its connection breaks if it still has one."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(ANSWER_S)
        self._reader.join(ANSWER_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                report = parse_report(line)
                match report.kind:
                    case "message":
                        self.messages.put(report.content)
                    case "ended":
                        self._connected = False
                        self.ended.put(report)
                    case _:
                        self._done.put(report)


class Troupe:
    """The puppets of a test module: one for each library, started when first needed and again after it was killed."""

    def __init__(self, ready: Ready, principal: str, built: Path) -> None:
        self._ready = ready
        self._principal = principal
        self._built = built
        self._puppets: dict[str, Puppet] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for puppet in self._puppets.values():
            puppet.close()

    def puppet(self, kind: Kind) -> Puppet:
        """The puppet of a library."""
        held = self._puppets.get(kind.name)
        if held is None or not held.is_alive:
            if held is not None:
                held.close()
            command = command_of(kind, self._built)
            held = Puppet(kind, command, self._ready, self._principal)
            self._puppets[kind.name] = held
        return held
