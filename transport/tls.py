"""A TLS stream for Trio that costs little per read and per write, and whose alerts really reach the peer.

*Theory of operation.* One `ssl.SSLObject` between two `ssl.MemoryBIO`: bytes of the socket go into `incoming`, plain
bytes come out of the object; plain bytes go into the object, bytes for the socket come out of `outgoing`. We own the
socket calls, so we choose when to wait, how much to read at once, how many bytes a handshake may cost, and we can send
what OpenSSL left in `outgoing` after it raised: that is where the alert is. ADR 0004 has the measurements.

*Rules of this file.*

- The SSLObject is used by one thread at a time. Steps of the handshake may run in a worker thread, and until the
  handshake is over nobody else has the stream. From then on only the Trio thread touches it, and never across an
  await, so a task that reads and a task that sends need no lock between them.
- Encrypted bytes leave in the order they were encrypted. While the wire has a tail nothing more is encrypted, except
  the close-notify of `aclose`, which goes behind it.
- `receive_some` and `send_now` have no checkpoint while nothing blocks: that is the point of this class. So that a
  fast peer cannot starve the others, `receive_some` takes one after `MAX_STEPS_PER_TURN` steps in a row, and, where the
  owner has set `turns`, waits for its turn before it reads when the others' time has come.
- After `abort` or `aclose` no plain bytes are handed out any more, also none that were here before.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio
from typing_extensions import override

from transport.alerts import Failure, describe
from transport.errors import (
    HandshakeFailed,
    RemoteAlert,
    ServerUntrusted,
    TransportBroken,
    TransportBusy,
    TransportError,
)
from transport.wire import READ_BYTES, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from certs.identity import PeerIdentity

MAX_RECORD_BYTES: Final = 16384  # plain bytes in one TLS record, RFC 8446 section 5.1
SEND_CHUNK_BYTES: Final = 262144  # `send_all` encrypts at most this much ahead of the socket
# Calls of `receive_some` and reads of the socket, together, without a checkpoint: at most 128 KiB before others get
# their turn, and a peer that sends records without content (key updates) gets no longer one.
MAX_STEPS_PER_TURN: Final = 4
LIGHT_BYTES: Final = 4096  # a peer whose last read brought no more than this has little to say
HANDSHAKE_READ_BYTES: Final = 16384  # a whole flight of a usual client fits into a quarter of it


class Turns(Protocol):
    """Who may go on in a round of the event loop; see `TlsStream.turns`."""

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, monotonic."""
        ...

    @property
    def ends(self) -> float:
        """When, by `clock`, whoever can wait should."""
        ...

    async def wait(self, *, light: bool) -> None:
        """Let others have their turn."""
        ...


class TlsStream(trio.abc.Stream):
    """One TLS connection over a non-blocking socket.

    One task may receive while others send. Made by `serve_tls` and `connect_tls`, which do the handshake and check
    the peer before anyone else sees the stream.

    *Resource handling.* The owner ends it with `aclose` (says goodbye, bounded) or `abort` (at once).

    Attributes:
        identity: what the peer's certificate says, once it is verified.
        alpn: the application protocol agreed on, None when the client offered none.
        server_name: the name the client asked for (SNI), None when it sent none.
        peer_address: `host:port` of the other side, for logs.
        truncated: the peer ended TCP without TLS close-notify.
        turns: asked before each read of the socket; None: nobody is.
    """

    __slots__ = (
        "__weakref__",
        "_eof",
        "_incoming",
        "_light",
        "_obj",
        "_outgoing",
        "_send_lock",
        "_steps",
        "_tls_failure",
        "_wire",
        "alpn",
        "identity",
        "peer_address",
        "server_name",
        "truncated",
        "turns",
    )

    def __init__(
        self,
        wire: Wire,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        peer_address: str,
        server_name: str | None = None,
        first_bytes: bytes = b"",
    ) -> None:
        """Wrap `wire`, which the stream owns from now on.

        Args:
            wire: the connected socket.
            context: how to do TLS; not changed.
            server_side: True for the side that accepted the connection.
            peer_address: `host:port` of the other side.
            server_name: client side: the name to ask for and to verify; server side: the name that was asked for.
            first_bytes: what was already read from the wire.
        """
        self._wire = wire
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if first_bytes:
            self._incoming.write(first_bytes)
        self._obj = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=None if server_side else server_name,
        )
        self._send_lock = trio.Lock()
        self._steps = 0
        self._light = True
        self.turns: Turns | None = None
        self._eof = False
        self._tls_failure: ssl.SSLError | None = None
        self.identity: PeerIdentity | None = None
        self.alpn: str | None = None
        self.server_name = server_name
        self.peer_address = peer_address
        self.truncated = False

    @override
    def __repr__(self) -> str:
        side = "server" if self._obj.server_side else "client"
        state = "open" if self._wire.ended is None else str(self._wire.ended())
        return f"<TlsStream {side} peer={self.peer_address} alpn={self.alpn} unsent={self.unsent_bytes} {state}>"

    # -- handshake

    async def handshake(
        self, *, max_bytes: int, limiter: trio.CapacityLimiter | None = None
    ) -> None:
        """Do the TLS handshake; afterwards `alpn` is set. The caller bounds the time.

        Args:
            max_bytes: how many bytes the peer may send before the handshake is over.
            limiter: do the steps in a worker thread under this limiter (OpenSSL drops the interpreter's lock, so
                established connections go on meanwhile); None: in this thread.

        Raises:
            HandshakeFailed: it did not come about; the alert for the peer, if any, is sent by `aclose`.
        """
        left = max_bytes - self._incoming.pending
        try:
            while not await self._handshake_step(limiter):
                left -= await self._receive_flight(left)
        except HandshakeFailed as error:
            self._wire.end(partial(HandshakeFailed, error.result, error.reason))
            raise
        except TransportBroken as error:
            raise HandshakeFailed("reset", str(error)) from error
        self.alpn = self._obj.selected_alpn_protocol()

    def peer_certificate(self) -> bytes | None:
        """Return the peer's leaf certificate (DER), None when it sent none. Only after the handshake."""
        return self._obj.getpeercert(binary_form=True)

    async def _handshake_step(self, limiter: trio.CapacityLimiter | None) -> bool:
        if limiter is None:
            outcome = _do_handshake(self._obj)
        else:
            outcome = await trio.to_thread.run_sync(_do_handshake, self._obj, limiter=limiter)
        if isinstance(outcome, ssl.SSLError):
            raise self._handshake_failed(outcome) from outcome
        if self._outgoing.pending:
            self._wire.append(self._outgoing.read())
            await self._wire.send_tail()
        return outcome

    async def _receive_flight(self, left: int) -> int:
        if left <= 0:
            raise HandshakeFailed(
                "too_large", f"the {self._peer_role} sent too many bytes of handshake"
            )
        data = await self._wire.receive(min(left, HANDSHAKE_READ_BYTES))
        if not data:
            raise HandshakeFailed(
                "closed", f"the {self._peer_role} closed the connection in the handshake"
            )
        self._incoming.write(data)
        return len(data)

    def _handshake_failed(self, error: ssl.SSLError) -> HandshakeFailed:
        failure = describe(error, peer=self._peer_role)
        if isinstance(error, ssl.SSLCertVerificationError) and not self._obj.server_side:
            return ServerUntrusted(failure.result, failure.reason)
        return HandshakeFailed(failure.result, failure.reason)

    # -- receiving

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: C901  a call more is felt by each message
        """Return plain bytes, as many as are here up to `max_bytes` (default 65536); `b""` when the peer is done.

        A peer that ends TCP without close-notify is also `b""`, with `truncated` set. This is not an open door:
        everything we speak on top (MQTT packets, frames, HTTP bodies) says its own length, so a cut is seen there.

        *Cancellation.* Nothing is lost. There is a checkpoint only where the socket blocks, and
        every `MAX_STEPS_PER_TURN` steps or when it is the turn of others.

        Raises:
            RemoteAlert: the peer ended TLS with an alert.
            TransportBroken: the connection or its TLS broke.
            TransportClosed: we closed it, maybe in another task while this one waited.
        """
        limit = READ_BYTES if max_bytes is None else max_bytes
        if limit < 1:
            raise ValueError("`max_bytes` must be at least 1")
        wire, turns = self._wire, self.turns
        self._steps += 1
        while True:
            if self._steps > MAX_STEPS_PER_TURN:
                self._steps = 0
                await trio.lowlevel.checkpoint()
            if wire.ended is not None:
                raise wire.ended()
            if (self._incoming.pending or self._obj.pending()) and (data := self._decrypt(limit)):
                return data
            if self._eof:
                return b""
            if self._tls_failure is not None:
                raise self._broken_by_tls(self._tls_failure) from self._tls_failure
            if turns is not None and turns.clock() > turns.ends:
                await turns.wait(light=self._light)
                if wire.ended is not None:
                    raise wire.ended()
            self._steps += 1
            encrypted = wire.receive_now()
            if encrypted is None:
                self._steps = 0
                await wire.wait_readable()
            elif encrypted:
                self._incoming.write(encrypted)
                self._light = len(encrypted) <= LIGHT_BYTES
            else:
                self._eof = self.truncated = True

    def _decrypt(self, limit: int) -> bytes:
        """Join the records that are here, up to `limit` bytes; an error is kept until the bytes before it are out.

        HOT: once per socket read. Joining four records costs 2 us of 20 and saves the caller three turns of its loop.
        """
        read = self._obj.read
        incoming = self._incoming
        parts: list[bytes] = []
        try:
            while True:
                part = read(min(MAX_RECORD_BYTES, limit))
                if not part:  # close-notify
                    self._eof = True
                    break
                parts.append(part)
                limit -= len(part)
                if not limit or not (incoming.pending or self._obj.pending()):
                    break
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still on its way
        except ssl.SSLZeroReturnError:
            self._eof = True
        except ssl.SSLError as error:
            self._tls_failure = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- sending

    @property
    def unsent_bytes(self) -> int:
        """Encrypted bytes the kernel has not taken yet."""
        return 0 if self._wire.tail is None else len(self._wire.tail)

    def send_now(self, data: bytes | bytearray | memoryview) -> bool:
        """Encrypt `data` and hand it to the kernel without waiting.

        Returns:
            True: all of it is gone. False: the rest is kept, and `flush` must finish before the next `send_now`.

        Raises:
            TransportBusy: an earlier send is not finished: a mistake of the caller; nothing of `data` was taken.
            TransportBroken: the connection broke.
            TransportClosed: we closed it.
        """
        if self._wire.tail is not None or self._send_lock.locked():
            raise TransportBusy("an earlier send is not finished: await `flush` first")
        return self._push(data)

    async def flush(self) -> None:
        """Wait until everything kept is with the kernel. One task at a time does the work; others wait for it.

        *Cancellation.* Nothing is lost: what was not sent stays kept. The caller bounds the time.
        """
        async with self._send_lock:
            await self._send_tail()

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send the whole of `data`; calls of several tasks follow one another whole.

        *Cancellation.* A message up to `SEND_CHUNK_BYTES` is kept whole and leaves with the next send or flush. A
        longer one may be cut in half and cannot be continued: close the stream then.
        """
        async with self._send_lock:
            await self._send_tail()
            with memoryview(data) as given, given.cast("B") as view:
                for start in range(0, len(view), SEND_CHUNK_BYTES):
                    if start:
                        await trio.lowlevel.checkpoint()
                    if not self._push(view[start : start + SEND_CHUNK_BYTES]):
                        await self._send_tail()

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes bytes again."""
        async with self._send_lock:
            await self._send_tail()
            await self._wire.wait_writable()

    def _push(self, data: bytes | bytearray | memoryview) -> bool:
        wire = self._wire
        if wire.ended is not None:
            raise wire.ended()
        try:
            self._obj.write(data)  # takes all of it: a memory BIO never blocks
        except ssl.SSLError as error:
            raise self._broken_by_tls(error) from error
        return wire.send(self._outgoing.read())

    async def _send_tail(self) -> None:
        self._wire.verify_open()
        await self._wire.send_tail()

    # -- ending

    @override
    async def aclose(self) -> None:
        """Say goodbye and close: what is unsent, close-notify (or the alert that is due), FIN, a short drain.

        *Resource handling.* Bounded by `transport.wire.FAREWELL_S`; the socket is closed in any case. Other tasks that
        wait on this stream get `TransportClosed`.

        *Cancellation.* Closes at once, without the waiting.
        """
        if self._wire.ended is None and self._tls_failure is None:
            # It always wants to read the answer, for which we do not wait; the notify itself is in `outgoing` by then.
            with suppress(ssl.SSLError):
                self._obj.unwrap()
        await self._wire.goodbye(self._outgoing.read())
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Close at once, without goodbye. Whoever waits on this stream gets `TransportClosed`."""
        self._wire.close()

    # -- errors

    @property
    def _peer_role(self) -> str:
        return "client" if self._obj.server_side else "server"

    def _broken_by_tls(self, error: ssl.SSLError) -> TransportError:
        failure: Failure = describe(error, peer=self._peer_role)
        if failure.alert is not None:
            return self._wire.end(partial(RemoteAlert, failure.reason, alert=failure.alert))
        return self._wire.end(partial(TransportBroken, failure.reason))


def _do_handshake(obj: ssl.SSLObject) -> bool | ssl.SSLError:
    """Take the handshake as far as the bytes that are here allow: True is done, False needs more."""
    try:
        obj.do_handshake()
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError as error:
        return error
    return True
