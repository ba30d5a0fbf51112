"""Every port that the running system has open: exactly those it reports, and none says a word to a stranger."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.clients import ANSWER_S, endpoint
from tests.pki import TestPki
from tests.processes import descendants_of

if TYPE_CHECKING:
    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

LISTEN = "0A"
TLS_ALERT, ALERT_BYTES = 21, 7

UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)

OPENINGS = (
    b"",
    bytes.fromhex("101000044d5154540502003c000003") + b"raw",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    UPGRADE,
)
"""What a stranger may try to get an answer with: nothing, MQTT, HTTP, WebSocket."""


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links: list[str] = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile: then it is no listening socket
            links.append(str(descriptor.readlink()))
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def listening() -> dict[str, tuple[str, int]]:
    """Address and port of every listening TCP socket of this machine, by inode."""
    found: dict[str, tuple[str, int]] = {}
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.is_file() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTEN:
                found[fields[9]] = (address, int(port, 16))
    return found


def open_ports(system: Running) -> list[tuple[str, int]]:
    """Every listening TCP socket of the system's processes."""
    processes = [system.process.pid, *descendants_of(system.process.pid)]
    assert len(processes) >= 4  # up, controller, broker, a kernel's worker
    inodes = set[str]().union(*map(sockets_of, processes))
    return [where for inode, where in listening().items() if inode in inodes]


def reported_ports(system: Running) -> list[int]:
    """The ports of the ready report."""
    broker, controller = system.ready.broker, system.ready.controller
    every = (broker.mqtts, broker.wss, broker.metrics, controller.rpc, controller.api)
    return [endpoint(address)[1] for address in every]


def answer(connection: socket.socket, opening: bytes) -> bytes:
    """What a peer says to an opening until it closes."""
    received = b""
    with suppress(OSError):  # it has heard enough
        connection.sendall(opening)
        if not isinstance(connection, ssl.SSLSocket):
            connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError, ssl.SSLError):
        while data := connection.recv(4096):
            received += data
    return received


def strangers(tmp_path: Path) -> list[ssl.SSLContext]:
    """Without a certificate, and with one of an authority that nobody here knows."""
    contexts: list[ssl.SSLContext] = []
    for issued in (None, TestPki(tmp_path).client("sensor")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a stranger does not mind whom he talks to
        if issued is not None:
            context.load_cert_chain(issued.cert, issued.key)
        contexts.append(context)
    return contexts


def test_open_ports_are_the_reported_ones_on_the_loopback_only(system: Running) -> None:
    found = open_ports(system)
    assert sorted(port for _, port in found) == sorted(reported_ports(system))
    assert len(found) == 5
    assert {address for address, _ in found} == {"0100007F"}


@pytest.mark.parametrize("opening", OPENINGS, ids=["silence", "mqtt", "http", "websocket"])
def test_no_port_says_a_word_without_tls(system: Running, opening: bytes) -> None:
    for _, port in open_ports(system):
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
            said = answer(connection, opening)
            assert said == b"" or (said[0] == TLS_ALERT and len(said) == ALERT_BYTES), (port, said)


@pytest.mark.parametrize("opening", OPENINGS, ids=["silence", "mqtt", "http", "websocket"])
def test_no_port_says_a_word_to_a_stranger(system: Running, tmp_path: Path, opening: bytes) -> None:
    for context in strangers(tmp_path):
        for _, port in open_ports(system):
            raw = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
            with context.wrap_socket(raw) as connection:
                assert answer(connection, opening) == b"", port
