"""Programs we did not write judge the development PKI: openssl, curl."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from certs.contexts import client_context, server_context
from certs.development import create_development_pki
from certs.keys import read_chain
from tests.needs import require_tool
from tests.pki import TestPki

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from certs.development import DevelopmentPki

TOOL_DEADLINE_S = 20.0
GREETING = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentPki:
    return create_development_pki(
        tmp_path_factory.mktemp("dev"),
        clients=("sensor",),
        now=datetime.now(UTC).timestamp(),
    )


@pytest.fixture(scope="module")
def openssl() -> str:
    return require_tool("openssl", package="openssl")


def run(*command: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=TOOL_DEADLINE_S, check=False
    )


def test_openssl_verifies_every_leaf_with_the_strictest_rules(
    pki: DevelopmentPki, openssl: str
) -> None:
    for credentials, purpose in (
        (pki.broker, "sslserver"),
        (pki.broker, "sslclient"),
        (pki.controller, "sslserver"),
        (pki.clients["sensor"], "sslclient"),
        (pki.clients["admin"], "sslclient"),
    ):
        anchors: tuple[tuple[str | Path, ...], ...] = (
            ("-CAfile", pki.ca),
            ("-partial_chain", "-CAfile", pki.anchor),
        )
        for anchor in anchors:
            done = run(
                openssl, "verify", "-x509_strict", "-check_ss_sig", "-policy_check",
                "-purpose", purpose, *anchor, credentials.certificate,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr.decode()


def test_openssl_verifies_a_leaf_with_the_root_and_the_chain_it_sends(
    pki: DevelopmentPki, openssl: str, tmp_path: Path
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes((pki.directory / "ca" / "root.pem").read_bytes())
    done = run(
        openssl, "verify", "-x509_strict", "-CAfile", root,
        "-untrusted", pki.broker.certificate, pki.broker.certificate,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def test_openssl_refuses_a_client_as_server(pki: DevelopmentPki, openssl: str) -> None:
    done = run(
        openssl, "verify", "-purpose", "sslserver", "-CAfile", pki.ca,
        pki.clients["sensor"].certificate,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"unsuitable certificate purpose" in done.stderr


def test_openssl_reads_the_keys(pki: DevelopmentPki, openssl: str) -> None:
    done = run(openssl, "pkey", "-in", pki.clients["sensor"].key, "-noout", "-check")
    assert done.returncode == 0, done.stderr.decode()


def test_openssl_sees_what_the_profile_promises(pki: DevelopmentPki, openssl: str) -> None:
    text = run(openssl, "x509", "-in", pki.broker.certificate, "-noout", "-text").stdout.decode()
    for line in (
        "Basic Constraints: critical",
        "CA:FALSE",
        "Key Usage: critical",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "URI:spiffe://stockade.local/broker/broker, DNS:localhost",
        "ecdsa-with-SHA256",
    ):
        assert line in text
    root = run(openssl, "x509", "-in", pki.ca, "-noout", "-text").stdout.decode()
    assert "CA:TRUE, pathlen:1" in root
    issuing = run(openssl, "x509", "-in", pki.anchor, "-noout", "-text").stdout.decode()
    assert "CA:TRUE, pathlen:0" in issuing


@contextmanager
def serving(context: ssl.SSLContext, answer: bytes) -> Generator[tuple[int, list[str]]]:
    """One connection on loopback, answered once; yields the port and what became of it."""
    outcome: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TOOL_DEADLINE_S)

        def serve() -> None:
            try:
                raw, _ = listener.accept()
                raw.settimeout(TOOL_DEADLINE_S)
                with raw, context.wrap_socket(raw, server_side=True) as stream:
                    stream.recv(4_096)
                    stream.sendall(answer)
                    outcome.append("answered")
            except OSError as error:
                outcome.append(str(error))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], outcome
        finally:
            thread.join(TOOL_DEADLINE_S)


@pytest.fixture(scope="module")
def server(pki: DevelopmentPki) -> ssl.SSLContext:
    return server_context(
        certificate=pki.broker.certificate,
        key=pki.broker.key,
        anchor=pki.anchor,
        alpn=["mqtt", "http/1.1"],
    )


def test_openssl_client_verifies_our_server_with_ca_pem_alone(
    pki: DevelopmentPki, server: ssl.SSLContext, openssl: str
) -> None:
    sensor = pki.clients["sensor"]
    with serving(server, b"hello") as (port, outcome):
        done = run(
            openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost",
            "-CAfile", pki.ca, "-cert", sensor.certificate, "-key", sensor.key, "-alpn", "mqtt",
            "-verify_return_error", "-verify_hostname", "localhost", "-x509_strict",
            stdin=b"hi\n",
        )  # fmt: skip
    assert outcome == ["answered"], done.stderr.decode()
    assert b"Verify return code: 0 (ok)" in done.stdout
    assert b"ALPN protocol: mqtt" in done.stdout
    assert b"New Session Ticket" not in done.stdout


def test_openssl_client_without_certificate_gets_the_alert(
    pki: DevelopmentPki, server: ssl.SSLContext, openssl: str
) -> None:
    with serving(server, b"hello") as (port, outcome):
        run(openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", pki.ca, stdin=b"hi\n")
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in outcome[0]


def test_openssl_client_of_a_foreign_authority_is_refused(
    server: ssl.SSLContext, openssl: str, tmp_path: Path
) -> None:
    foreign = TestPki(tmp_path).client("sensor")
    with serving(server, b"hello") as (port, outcome):
        run(
            openssl, "s_client", "-connect", f"127.0.0.1:{port}",
            "-cert", foreign.cert, "-key", foreign.key, "-cert_chain", foreign.cert, stdin=b"hi\n",
        )  # fmt: skip
    assert "unable to get local issuer certificate" in outcome[0]


def test_openssl_server_accepts_our_client(pki: DevelopmentPki, openssl: str) -> None:
    context = client_context(
        certificate=pki.clients["sensor"].certificate,
        key=pki.clients["sensor"].key,
        ca=pki.ca,
        alpn=["mqtt"],
    )
    process = subprocess.Popen(
        [
            openssl, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-rev",
            "-cert", pki.broker.certificate, "-cert_chain", pki.broker.certificate,
            "-key", pki.broker.key, "-CAfile", pki.ca, "-Verify", "3", "-verify_return_error",
            "-alpn", "mqtt",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = 0
        while not port:
            line = process.stdout.readline()
            assert line, "openssl s_server ended early"
            if line.startswith(b"ACCEPT "):
                port = int(line.rpartition(b":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), TOOL_DEADLINE_S) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as stream,
        ):
            stream.sendall(b"sensor\n")
            assert stream.recv(64) == b"rosnes\n"
            assert stream.selected_alpn_protocol() == "mqtt"
    finally:
        process.kill()
        process.communicate(timeout=TOOL_DEADLINE_S)


@pytest.mark.needs("curl")
def test_curl_verifies_our_server_with_ca_pem_alone(
    pki: DevelopmentPki, server: ssl.SSLContext
) -> None:
    curl = require_tool("curl", package="curl")
    admin = pki.clients["admin"]
    for host in ("127.0.0.1", "localhost"):
        with serving(server, GREETING) as (port, outcome):
            done = run(
                curl, "--silent", "--show-error", "--cacert", pki.ca, "--ipv4", "--noproxy", "*",
                "--cert", admin.certificate, "--key", admin.key, f"https://{host}:{port}/",
            )  # fmt: skip
        assert done.stdout == b"hello", (done.stderr, outcome)


def test_sent_chain_is_leaf_and_issuing_authority(pki: DevelopmentPki) -> None:
    leaf, issuing = read_chain(pki.broker.certificate)
    assert leaf.issuer == issuing.subject
    assert issuing.issuer == read_chain(pki.ca)[0].subject
