"""What bad input gets: a clear answer, a line in the audit log, and no effect on anybody else."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.ready import ClientFiles
from tests.e2e.clients import ANSWER_S, NOT_AUTHORIZED, await_audit, endpoint, paho, unique
from tests.e2e.daemons import authority_of
from tests.e2e.running import Running, stockade
from tests.needs import require_tool
from tests.pki import TestPki

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.pki import Issued

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

UNKNOWN_CA, CERTIFICATE_EXPIRED, BAD_CERTIFICATE = 48, 45, 42
CERTIFICATE_REQUIRED, PROTOCOL_VERSION, UNSUPPORTED_CERTIFICATE = 116, 70, 43

CONNECT_V5 = bytes.fromhex("101000044d5154540502003c000003") + b"raw"
CONNECT_V311 = bytes.fromhex("100f00044d5154540402003c0003") + b"raw"
DISCONNECT = 0xE0
MALFORMED_PACKET, PROTOCOL_ERROR, PACKET_TOO_LARGE = 0x81, 0x82, 0x95
KEEP_ALIVE_TIMEOUT = 0x8D
UNSUPPORTED_VERSION, TOPIC_NAME_INVALID = 0x84, 0x90


@pytest.fixture(autouse=True)
def _undisturbed(system: Running) -> Generator[None]:
    """A client that was there before works before and after, on the same connection."""
    topic = f"bench/{unique('undisturbed')}"
    with paho(system.ready, "bench") as client:
        client.subscribe(topic, qos=1)
        for moment in (b"before", b"after"):
            assert client.publish(topic, moment, qos=1).code == 0
            assert client.receive().payload == moment
            if moment == b"before":
                yield
        assert client.ended.empty()


@pytest.fixture
def pki(system: Running, tmp_path: Path) -> TestPki:
    """Certificates of every wrong kind, signed by the system's own authority where that is not what is wrong."""
    return authority_of(system.folder / "pki", tmp_path)


def issue(pki: TestPki, kind: str) -> Issued:
    """One certificate that names the client `sensor`."""
    made: Issued = getattr(pki, kind)("sensor")
    return made


def s_client(address: str, ca: str | Path, *options: str) -> str:
    """What openssl's client prints until the server ends the connection."""
    host, port = endpoint(address)
    command = [require_tool("openssl", package="openssl"), "s_client", "-connect", f"{host}:{port}"]
    process = subprocess.Popen(
        [*command, "-CAfile", str(ca), *options],
        stdin=subprocess.PIPE,  # stays open: at its end s_client would leave before the server answers
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            process.wait(ANSWER_S)
            assert process.stdout is not None
            return process.stdout.read()
        finally:
            process.kill()


def system_context(system: Running, client: str = "sensor") -> ssl.SSLContext:
    """A good client's context."""
    files = system.ready.clients[client]
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    return context


def dial(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection."""
    host, port = endpoint(address)
    raw = socket.create_connection((host, port), timeout=ANSWER_S)
    return context.wrap_socket(raw, server_hostname=host)


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the peer closes, with or without a goodbye."""
    received = b""
    with suppress(ConnectionError, ssl.SSLError):
        while data := connection.recv(65_536):
            received += data
    return received


# -- certificates


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("listener", ["mqtts", "wss", "metrics", "rpc", "api"])
@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("foreign", UNKNOWN_CA),
        ("self_signed", UNKNOWN_CA),
        ("expired", CERTIFICATE_EXPIRED),
        ("not_yet_valid", BAD_CERTIFICATE),
        ("server_only", UNSUPPORTED_CERTIFICATE),
    ],
)
def test_bad_certificate_gets_its_alert_on_every_port(
    system: Running, pki: TestPki, listener: str, kind: str, alert: int
) -> None:
    issued = issue(pki, kind)
    address = addresses(system)[listener]
    shown = s_client(address, pki.ca, "-cert", str(issued.cert), "-key", str(issued.key))
    assert f"SSL alert number {alert}" in shown, shown


def addresses(system: Running) -> dict[str, str]:
    """Every place where the system listens."""
    broker, controller = system.ready.broker, system.ready.controller
    return {
        "mqtts": broker.mqtts,
        "wss": broker.wss,
        "metrics": broker.metrics,
        "rpc": controller.rpc,
        "api": controller.api,
    }


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("listener", ["mqtts", "wss", "metrics", "rpc", "api"])
def test_no_certificate_and_old_protocol_get_their_alerts_on_every_port(
    system: Running, listener: str
) -> None:
    address, ca = addresses(system)[listener], system.ready.clients["sensor"].ca
    assert f"SSL alert number {CERTIFICATE_REQUIRED}" in s_client(address, ca)
    assert f"SSL alert number {PROTOCOL_VERSION}" in s_client(address, ca, "-tls1_2")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("foreign", "unknown_ca"),
        ("self_signed", "unknown_ca"),
        ("expired", "expired"),
        ("not_yet_valid", "not_yet_valid"),
        ("server_only", "wrong_purpose"),
        ("without_eku", "refused"),
        ("any_eku", "refused"),
        ("two_uris", "refused"),
        ("without_uri", "refused"),
        ("other_trust_domain", "refused"),
    ],
)
def test_bad_certificate_gets_no_byte_and_is_audited(
    system: Running, pki: TestPki, kind: str, words: str
) -> None:
    issued = issue(pki, kind)
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(issued.cert, issued.key)
    with dial(system.ready.broker.mqtts, context) as connection:
        host, port = connection.getsockname()
        with suppress(ConnectionError, ssl.SSLError):  # refused already
            connection.sendall(CONNECT_V5)
        assert read_to_end(connection) == b""
    refused = await_audit(
        system.folder / "audit" / "broker.jsonl",
        kind="authentication.refused",
        peer=f"{host}:{port}",
    )
    assert str(refused["reason"]).startswith(f"{words}: ")
    assert refused["outcome"] == "deny"


def test_missing_certificate_is_audited(system: Running) -> None:
    context = ssl.create_default_context(cafile=system.ready.clients["sensor"].ca)
    with dial(system.ready.broker.mqtts, context) as connection:
        host, port = connection.getsockname()
        assert read_to_end(connection) == b""
    refused = await_audit(
        system.folder / "audit" / "broker.jsonl",
        kind="authentication.refused",
        peer=f"{host}:{port}",
    )
    assert str(refused["reason"]).startswith("no_certificate: ")


def test_broker_certificate_may_not_speak_mqtt(system: Running) -> None:
    folder = system.folder / "pki"
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "broker.pem", folder / "broker.key")
    with dial(system.ready.broker.mqtts, context) as connection:
        connection.sendall(CONNECT_V5)
        assert read_to_end(connection) == b""


def test_client_certificate_may_not_pose_as_a_broker(system: Running) -> None:
    with dial(system.ready.controller.rpc, system_context(system)) as connection:
        assert read_to_end(connection) == b""


# -- bytes


@pytest.mark.parametrize("listener", ["mqtts", "wss", "metrics", "rpc", "api"])
@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 64,
        CONNECT_V5,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff" * 9000,
    ],
    ids=["zeros", "plain-mqtt", "plain-http", "endless-hello"],
)
def test_garbage_instead_of_tls_gets_an_alert_or_nothing(
    system: Running, listener: str, garbage: bytes
) -> None:
    with closing(
        socket.create_connection(endpoint(addresses(system)[listener]), timeout=ANSWER_S)
    ) as connection:
        with suppress(OSError):  # it has heard enough
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection)
    assert answer == b"" or (answer[0] == 21 and len(answer) == 7), answer


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xf3" * 100, MALFORMED_PACKET),  # no such packet before CONNECT
        (CONNECT_V5 + CONNECT_V5, PROTOCOL_ERROR),
        (CONNECT_V5 + b"\x00\x00", MALFORMED_PACKET),
        (CONNECT_V5 + b"\x30\xff\xff\xff\xff\x7f", MALFORMED_PACKET),
        (CONNECT_V5 + b"\x30\x05\x00\x02\xff\xfe\x00", MALFORMED_PACKET),
        (CONNECT_V5 + b"\x30\x06\x00\x02a#\x00x", TOPIC_NAME_INVALID),
        (CONNECT_V5 + b"\x30\x80\x80\x80\x01", PACKET_TOO_LARGE),
    ],
    ids=["noise", "second-connect", "type-0", "length", "utf-8", "wildcard", "oversize"],
)
def test_garbage_instead_of_mqtt_is_ended_with_its_reason(
    system: Running, sent: bytes, reason: int
) -> None:
    with dial(system.ready.broker.mqtts, system_context(system)) as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)
    if sent.startswith(CONNECT_V5):
        assert answer[0] == 0x20
        answer = answer[2 + answer[1] :]
        assert answer[0] == DISCONNECT, answer
        assert answer[2] == reason, hex(answer[2])
    else:
        assert answer[:1] in {b"", b"\x20"}


def test_garbage_of_3_1_1_is_ended_without_a_word(system: Running) -> None:
    with dial(system.ready.broker.mqtts, system_context(system)) as connection:
        connection.sendall(CONNECT_V311 + b"\x00\x00")
        assert read_to_end(connection) == b"\x20\x02\x00\x00"


def test_unknown_protocol_version_is_told(system: Running) -> None:
    with dial(system.ready.broker.mqtts, system_context(system)) as connection:
        connection.sendall(CONNECT_V5.replace(b"MQTT\x05", b"MQTT\x07"))
        answer = read_to_end(connection)
    assert answer[0] == 0x20
    assert UNSUPPORTED_VERSION in answer[2:4]


def test_oversize_message_of_a_real_client_is_refused(system: Running) -> None:
    with paho(system.ready, "bench") as client:
        client.send(f"bench/{unique('oversize')}", bytes(3_000_000))
        assert client.ended.get(timeout=ANSWER_S) == PACKET_TOO_LARGE


@pytest.mark.parametrize("listener", ["wss", "metrics", "api"])
def test_garbage_instead_of_http_is_answered_or_ended(system: Running, listener: str) -> None:
    with dial(addresses(system)[listener], system_context(system)) as connection:
        connection.sendall(b"\x00\x01\x02 garbage\r\n\r\n" * 100)
        answer = read_to_end(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


# -- clients that fall silent, outlive their certificate, or never read


def test_silent_client_is_ended_after_its_keep_alive(system: Running) -> None:
    hurried = CONNECT_V5.replace(b"\x00\x3c", b"\x00\x01", 1)
    with dial(system.ready.broker.mqtts, system_context(system)) as connection:
        connection.sendall(hurried)
        answer = read_to_end(connection)
    goodbye = answer[2 + answer[1] :]
    assert goodbye[0] == DISCONNECT
    assert goodbye[2] == KEEP_ALIVE_TIMEOUT


def test_client_is_ended_when_its_certificate_is(system: Running, pki: TestPki) -> None:
    issued = pki.expiring("sensor", in_s=3)
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(issued.cert, issued.key)
    with dial(system.ready.broker.mqtts, context) as connection:
        connection.sendall(CONNECT_V5)
        answer = read_to_end(connection)
    goodbye = answer[2 + answer[1] :]
    assert goodbye[0] == DISCONNECT
    assert goodbye[2] == NOT_AUTHORIZED


def test_subscriber_that_never_reads_costs_the_others_a_moment_at_most(system: Running) -> None:
    topic = f"bench/{unique('stuck')}"
    raw_topic = topic.encode()
    subscribe = b"\x00\x01\x00" + len(raw_topic).to_bytes(2, "big") + raw_topic + b"\x00"
    with (
        dial(system.ready.broker.mqtts, system_context(system, "bench")) as stuck,
        paho(system.ready, "bench") as listener,
        paho(system.ready, "bench") as bench,
    ):
        stuck.sendall(CONNECT_V5 + bytes((0x82, len(subscribe))) + subscribe)
        assert listener.subscribe(topic).code == 0
        payload = bytes(100_000)
        for _ in range(300):  # 30 MB: more than every buffer on the way to the stuck one
            bench.send(topic, payload)
        for _ in range(300):
            assert listener.receive().payload == payload


# -- commands


def test_certificate_of_a_stranger_gets_one_clear_line_from_the_command_line(
    system: Running, pki: TestPki
) -> None:
    stranger = issue(pki, "foreign")
    files = ("--ca", str(pki.ca), "--cert", str(stranger.cert), "--key", str(stranger.key))
    refused = stockade("acl", "list", "--api", system.ready.controller.api, *files)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.strip().splitlines()) == 1
    assert refused.stderr.startswith("error: ")


def test_client_refuses_a_system_of_another_authority(system: Running, tmp_path: Path) -> None:
    other = TestPki(tmp_path)
    client = system.ready.clients["sensor"]
    copied = tmp_path / "sensor.key"
    shutil.copy(client.key, copied)
    files = ClientFiles(ca=str(other.ca), cert=client.cert, key=str(copied))
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        dial(system.ready.broker.mqtts, context)
