"""Blocking TLS with large system calls: the generator must leave the cores to the broker it measures.

*Theory of operation.* OpenSSL writes and reads one record (16 KB) at a time, and `ssl.SSLSocket` makes a
system call (two when reading) for each. Here a record layer between two memory BIOs is used, so that one
system call carries many records.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from benchmarks.machine import BenchmarkError

SOCKET_BYTES = 256 * 1024
RECORD_BYTES = 16 * 1024
DEADLINE_S = 10.0
ALPN = "mqtt"
MAX_INFO_BYTES = 8192
"""The line with which a NATS server greets; some 500 bytes."""


class FeatureRefused(BenchmarkError):  # noqa: N818 - says what happened
    """The broker does not offer what a measure needs: the row says so, and the run goes on."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker listens, what it speaks, and one client's credentials (PEM paths)."""

    host: str
    port: int
    ca: str
    cert: str
    key: str
    protocol: Literal["mqtt", "nats"] = "mqtt"


class TlsPipe:
    """A blocking TLS connection with large system calls."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(DEADLINE_S)
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._obj = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        while True:
            try:
                self._obj.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()
                raise
        self._flush()

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, data: bytes) -> None:
        self._obj.write(data)
        self._flush()

    def receive_into(self, view: memoryview) -> int:
        """Fill `view` with what is there, at least one byte; 0 when the peer closed."""
        got, size = 0, len(view)
        # The stubs know only the form of `read` that returns bytes.
        read = cast("Callable[[int, memoryview], int]", self._obj.read)
        while not got:
            try:
                while got < size:
                    count = read(RECORD_BYTES, view[got:])
                    if not count:
                        return got
                    got += count
            except ssl.SSLWantReadError:
                if not got:
                    self._fill()
            except ssl.SSLZeroReturnError:
                return got
        return got

    def receive_exactly(self, view: memoryview) -> None:
        got = 0
        while got < len(view):
            count = self.receive_into(view[got:])
            if not count:
                raise ConnectionError("the broker closed the connection")
            got += count

    def drain(self, view: memoryview, on_data: Callable[[memoryview], None]) -> bool:
        """After the socket became readable: one read from it, all of its plain bytes to `on_data`.

        Returns:
            Whether the connection is still open.
        """
        self._fill()
        read = cast("Callable[[int, memoryview], int]", self._obj.read)
        try:
            while count := read(RECORD_BYTES, view):
                on_data(view[:count])
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLZeroReturnError:
            pass
        return False

    def close(self) -> None:
        self._sock.close()

    def _fill(self) -> None:
        data = self._sock.recv(SOCKET_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())


def client_context(login: Login) -> ssl.SSLContext:
    """TLS 1.3 with the client's certificate; one serves many connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(login.ca)
    context.load_cert_chain(login.cert, login.key)
    if login.protocol == "mqtt":
        context.set_alpn_protocols([ALPN])
    return context


def dial(login: Login, context: ssl.SSLContext | None = None) -> TlsPipe:
    sock = socket.create_connection((login.host, login.port), timeout=DEADLINE_S)
    if login.protocol == "nats":
        _skip_info(sock)
    return TlsPipe(sock, context or client_context(login), login.host)


def _skip_info(sock: socket.socket) -> None:
    """A NATS server greets in clear text, with one line, before TLS; it then waits for the ClientHello."""
    said = b""
    while not said.endswith(b"\r\n"):
        more = sock.recv(MAX_INFO_BYTES)
        said += more
        if not more or len(said) > MAX_INFO_BYTES:
            raise ConnectionError("the NATS server did not greet")
    if not said.startswith(b"INFO "):
        raise ConnectionError(f"not a NATS server: {said[:80]!r}")
