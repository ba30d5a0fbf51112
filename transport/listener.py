"""Listeners: from a bound socket to handlers of verified TLS streams, whatever strangers do meanwhile.

*Rules of this file.* A failed handshake, a handler that raises, and a system that runs out of descriptors are each one
event, and none of them ends the server or touches another connection. Everything a stranger can make us hold is
bounded by `HandshakeLimits` before the peer has a name; after that it is the handler's.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from structlog.typing import FilteringBoundLogger

from certs.identity import PeerIdentity
from transport.addresses import bind_tcp, join_address, site_of
from transport.connect import connect_tls
from transport.errors import HandshakeFailed, TransportClosed, TransportError, first_leaf
from transport.handshake import HandshakeLimits, Terms, accept_tls
from transport.tls import TlsStream
from transport.unfinished import MIN_SILENCE_S, Ticket, Unfinished
from transport.wire import Wire

__all__ = ["HandshakeEvent", "HandshakeLimits", "bind_tcp", "connect_tls", "serve_tls"]

MAX_ACCEPTS_PER_TURN: Final = 32  # accepted in a row before other tasks get their turn
ACCEPT_BACKOFF_S: Final = 0.1  # pause after the system had no descriptor or memory for us
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LISTENER_GONE: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
# A peer that vanished without FIN is found out after 60 + 4 * 15 s, also when its protocol sends no keep-alive.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))

_log: FilteringBoundLogger = structlog.get_logger("stockade.transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeEvent:
    """What became of a connection, for metrics and audit.

    Attributes:
        result: `ok`; or why there was no handshake: `timeout`, `closed`, `reset`, `not_tls`, `too_large`, `alpn`,
            `version`, `no_cipher`, `protocol`, `peer_alert`, `no_certificate`, `expired`, `not_yet_valid`,
            `unknown_ca`, `wrong_purpose`, `revoked`, `bad_certificate`, `refused`, `overload`, `accept_failed`,
            `context_failed`; or `handler_error` when the handler of a verified peer raised.
        reason: one line for the log, empty for `ok`.
        peer: `host:port`, empty when it is about no single peer.
        seconds: since accept.
    """

    result: str
    reason: str
    peer: str
    seconds: float


async def serve_tls(
    listeners: Sequence[socket.socket],
    *,
    context: Callable[[], ssl.SSLContext],
    alpn: Sequence[str],
    handler: Callable[[TlsStream], Awaitable[None]],
    verify: Callable[[TlsStream, PeerIdentity], None],
    on_event: Callable[[HandshakeEvent], None],
    limits: HandshakeLimits | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept, shake hands, verify, and run `handler` for every peer, until cancelled.

    *Cancellation.* The listeners are closed, handlers are cancelled, and every connection is closed.

    *Resource handling.* Owns the listeners and every stream; a handler may close its stream earlier.

    Args:
        listeners: bound, listening, non-blocking sockets (`bind_tcp`).
        context: the TLS context of the moment; it must demand client certificates.
        alpn: our application protocols, the same as in the context.
        handler: serves one peer; when it returns, the connection is closed with a goodbye.
        verify: raises to refuse a peer whose chain is good; must check purpose and role (`certs.verify.verify_peer`).
        on_event: is told what became of every connection; must be quick.
        limits: bounds of handshakes.
        task_status: started when everything accepts.

    Raises:
        TransportClosed: somebody closed a listener.
    """
    limits = limits or HandshakeLimits()
    terms = Terms(context=context, alpn=tuple(alpn), verify=verify, limits=limits)
    server = _Server(terms, handler, on_event)
    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(server.accept_forever, listener, nursery)
            task_status.started()
    finally:
        for listener in listeners:
            if listener.fileno() >= 0:
                trio.lowlevel.notify_closing(listener)
                listener.close()


class _Server:
    """One `serve_tls`: what its listeners share."""

    def __init__(
        self,
        terms: Terms,
        handler: Callable[[TlsStream], Awaitable[None]],
        on_event: Callable[[HandshakeEvent], None],
    ) -> None:
        limits = terms.limits
        self._terms = terms
        self._handler = handler
        self._on_event = on_event
        self._limiter = trio.CapacityLimiter(limits.threads)
        self._unfinished = Unfinished(
            max_total=limits.max_concurrent, max_per_site=limits.max_per_address
        )
        self._place_free = trio.Event()

    # -- accepting

    async def accept_forever(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        in_a_row = 0
        while True:
            await self._wait_for_place()
            accepted = await self._accept(listener)
            if accepted is None:
                in_a_row = 0
                continue
            self._begin(*accepted, nursery)
            in_a_row += 1
            if in_a_row >= MAX_ACCEPTS_PER_TURN:
                in_a_row = 0
                await trio.lowlevel.checkpoint()

    async def _accept(self, listener: socket.socket) -> tuple[socket.socket, str, int] | None:
        """Accept one connection; None after a wait."""
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            await self._wait_for_connection(listener)
            return None
        except OSError as error:
            await self._survive(error)
            return None
        return sock, str(address[0]), int(address[1])

    async def _wait_for_connection(self, listener: socket.socket) -> None:
        try:
            await trio.lowlevel.wait_readable(listener)
        except (trio.ClosedResourceError, OSError, ValueError) as error:
            raise TransportClosed("the listener was closed") from error

    async def _survive(self, error: OSError) -> None:
        if error.errno in _LISTENER_GONE:
            raise TransportClosed("the listener was closed") from error
        # Otherwise the peer gave up between SYN and accept, or its network did.
        if error.errno not in _OUT_OF_RESOURCES:
            await trio.lowlevel.checkpoint()
            return
        reason = f"cannot accept connections: {(error.strerror or str(error)).lower()}; raise the limit of open files"
        self._report("accept_failed", reason)
        await trio.sleep(ACCEPT_BACKOFF_S)

    async def _wait_for_place(self) -> None:
        """Leave newcomers in the kernel's backlog while there is no place; silent peers make room for them."""
        if not self._unfinished.full:
            return
        self._report(
            "overload",
            f"{self._terms.limits.max_concurrent} handshakes are unfinished: accepting pauses",
        )
        while self._unfinished.full:
            if (silent := self._unfinished.longest_silent(trio.current_time())) is not None:
                silent.evict()
            with trio.move_on_after(MIN_SILENCE_S):
                await self._place_free.wait()

    def _begin(self, sock: socket.socket, host: str, port: int, nursery: trio.Nursery) -> None:
        peer = join_address(host, port)
        site = site_of(host)
        if not self._unfinished.has_place(site):
            sock.close()
            reason = (
                f"`{site}` has {self._terms.limits.max_per_address} unfinished handshakes already"
            )
            self._report("overload", reason, peer=peer)
            return
        scope = trio.CancelScope()
        ticket = Ticket(site=site, since_s=trio.current_time(), evict=scope.cancel)
        self._unfinished.admit(ticket)
        nursery.start_soon(self._converse, sock, peer, ticket, scope)

    # -- one connection

    async def _converse(
        self, sock: socket.socket, peer: str, ticket: Ticket, scope: trio.CancelScope
    ) -> None:
        stream: TlsStream | None = None
        try:
            with scope:
                stream = await self._shake_hands(sock, peer, ticket)
            if scope.cancelled_caught:
                self._report("overload", "silent while others waited for a place", ticket, peer)
        finally:
            self._leave(ticket)
        if stream is not None:
            self._report("ok", "", ticket, peer)
            await self._handle(stream, ticket)

    async def _shake_hands(
        self, sock: socket.socket, peer: str, ticket: Ticket
    ) -> TlsStream | None:
        wire = Wire(sock)
        try:
            _tune(sock)
            return await accept_tls(
                wire,
                terms=self._terms,
                peer_address=peer,
                limiter=self._limiter,
                on_first_byte=lambda: self._unfinished.heard(ticket),
            )
        except HandshakeFailed as error:
            self._report(error.result, error.reason, ticket, peer)
        except Exception as error:  # noqa: BLE001 - a context that cannot be made, our own bug: not the server's end
            self._report("context_failed", _describe(error), ticket, peer)
            _log.error("handshake impossible", peer=peer, error=_describe(error))
            _log.debug("handshake impossible", peer=peer, exc_info=error)
        return None

    async def _handle(self, stream: TlsStream, ticket: Ticket) -> None:
        try:
            await self._handler(stream)
        except* TransportError as gone:
            _log.debug("connection lost", peer=stream.peer_address, error=_describe(gone))
        except* Exception as bug:  # noqa: BLE001 - contained: nobody else's connection depends on it
            self._report("handler_error", _describe(bug), ticket, stream.peer_address)
            _log.error("handler failed", peer=stream.peer_address, error=_describe(bug))
            _log.debug("handler failed", peer=stream.peer_address, exc_info=bug)
        finally:
            await stream.aclose()

    def _leave(self, ticket: Ticket) -> None:
        self._unfinished.leave(ticket)
        self._place_free.set()
        self._place_free = trio.Event()

    def _report(
        self, result: str, reason: str, ticket: Ticket | None = None, peer: str = ""
    ) -> None:
        seconds = 0.0 if ticket is None else trio.current_time() - ticket.since_s
        event = HandshakeEvent(result=result, reason=reason, peer=peer, seconds=seconds)
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - who counts connections must not end them
            _log.error("event handler failed", event_result=result, error=_describe(error))
            _log.debug("event handler failed", exc_info=error)


def _tune(sock: socket.socket) -> None:
    with suppress(OSError):  # the peer may be gone already; the handshake will say so
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _describe(error: BaseException) -> str:
    """Say what went wrong in one line; of a group, its first leaf."""
    error = first_leaf(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
