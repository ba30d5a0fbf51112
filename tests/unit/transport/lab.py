"""Certificates and connected TLS pairs for the tests of this room, made once a session."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from transport.tls import TlsStream
from transport.wire import Wire

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
MAX_HANDSHAKE_BYTES = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate file and its key file."""

    certificate: Path
    key: Path


class Lab:
    """One authority, and leaves of every kind, good and bad."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca {folder.name}")])
        builder = self._builder(self._name, self._key.public_key(), days=(-1, 30))
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(ca=True), critical=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(
            builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def issue(
        self,
        name: str,
        *,
        purposes: tuple[ObjectIdentifier, ...] = (CLIENT,),
        days: tuple[int, int] = (-1, 20),
        uris: int = 1,
    ) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), days=days)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        builder = builder.add_extension(_usage(ca=False), critical=True)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(f"spiffe://stockade.local/client/{name}-{i}")
            for i in range(uris)
        ]
        names += [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        certificate, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        certificate.write_bytes(pem)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Credential(certificate=certificate, key=key_file)

    def server_context(self, *alpn: str, days: tuple[int, int] = (-1, 20)) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.load_verify_locations(self.ca)
        leaf = self.issue(f"server{days[0]}", purposes=(SERVER,), days=days)
        context.load_cert_chain(leaf.certificate, leaf.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def client_context(self, leaf: Credential | None, *alpn: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(self.ca)
        if leaf is not None:
            context.load_cert_chain(leaf.certificate, leaf.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, days: tuple[int, int]
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(authority, critical=False)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both ends of one TLS connection, in one process."""

    client: TlsStream
    server: TlsStream


def tcp_pair(*, buffer_bytes: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Connect two TCP sockets over loopback: (client, server)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        if buffer_bytes is not None:
            for sock in (listener, client):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, server


def raw_pair(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    *,
    buffer_bytes: int | None = None,
) -> Pair:
    """Both ends before their handshakes."""
    client, server = tcp_pair(buffer_bytes=buffer_bytes)
    return Pair(
        client=TlsStream(
            Wire(client),
            client_context,
            server_side=False,
            server_name="localhost",
            peer_address="server",
        ),
        server=TlsStream(Wire(server), server_context, server_side=True, peer_address="client"),
    )


@asynccontextmanager
async def connected(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    *,
    buffer_bytes: int | None = None,
) -> AsyncIterator[Pair]:
    """Both ends after their handshakes; both are closed at the end."""
    pair = raw_pair(client_context, server_context, buffer_bytes=buffer_bytes)
    try:
        async with trio.open_nursery() as nursery:
            for stream in (pair.client, pair.server):
                nursery.start_soon(shake, stream)
        yield pair
    finally:
        pair.client.abort()
        pair.server.abort()


async def shake(stream: TlsStream) -> None:
    with trio.fail_after(10):
        await stream.handshake(max_bytes=MAX_HANDSHAKE_BYTES)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
