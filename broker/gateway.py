"""Where clients come in: TLS listeners for MQTT and WebSocket, and what makes a peer a principal.

*Rules of this file*: TLS proves the certificate's chain, `verify` here proves its purpose, its one
SPIFFE identity and its role, and the mapping rules give it exactly one principal; a peer that fails
any of these is refused, counted by reason and written to the audit log, and nobody else notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from broker.connection import Connection
from broker.websocket import accept_websocket
from certs.errors import PrincipalRefused
from certs.verify import verify_peer
from governance.events import AuditEvent
from transport.listener import HandshakeLimits, serve_tls
from transport.places import Places

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from acl.model import Principal
    from broker.endpoints import Endpoints
    from broker.outlet import Link
    from broker.services import Services
    from cache.authorizer import Authorizer
    from certs.identity import PeerIdentity
    from certs.principal import PrincipalMapper
    from governance.audit import AuditLog
    from transport.listener import HandshakeEvent
    from transport.tls import TlsStream

log = structlog.get_logger("stockade.broker.gateway")

# Results that say somebody showed a certificate, or none, that is not accepted: the audit log's.
# Noise (a port scan, a peer that hung up) is counted and logged only.
AUDITED = frozenset(
    (
        "no_certificate",
        "unknown_ca",
        "expired",
        "not_yet_valid",
        "wrong_purpose",
        "revoked",
        "bad_certificate",
        "refused",
    )
)
MAX_OBSERVERS = 256  # HTTP connections; a site has a few scrapers and probes
MAX_OBSERVERS_EACH = 16  # of one principal: nobody takes the places of others
CLIENT_ROLES = ("client", "admin")  # SPIFFE roles that may speak MQTT or read metrics here


class Gateway:
    """Turns connections into principals and hands them to sessions."""

    def __init__(
        self,
        *,
        contexts: Mapping[str, ssl.SSLContext],
        mapper: PrincipalMapper,
        trust_domain: str | None,
        authorizer: Authorizer,
        audit: AuditLog,
        note_handshake: Callable[[str, str, float], None],
        services: Services,
        endpoints: Endpoints,
        now: Callable[[], float],
    ) -> None:
        """Connect the parts.

        Args:
            contexts: the TLS context for each application protocol, `mqtt` and `http/1.1`.
            mapper: from certificate to principal.
            trust_domain: demand a SPIFFE URI of this domain; None: the mapping rules decide alone.
            authorizer: opens the L1 of each connection.
            audit: where refusals go.
            note_handshake: told listener, result and seconds of every handshake.
            services: what sessions share.
            endpoints: the HTTP pages.
            now: wall clock, seconds since the epoch.
        """
        self._contexts = contexts
        self._mapper = mapper
        self._trust_domain = trust_domain
        self._authorizer = authorizer
        self._audit = audit
        self._note_handshake = note_handshake
        self._services = services
        self._endpoints = endpoints
        self._now = now
        # Connections with a principal, CONNECT sent or not: those without one end at their deadline.
        limits = services.limits
        self._clients = Places(
            total=limits.max_connections + limits.max_handshakes,
            each=limits.max_connections_per_principal,
        )
        self._observers = Places(total=MAX_OBSERVERS, each=MAX_OBSERVERS_EACH)

    async def serve_mqtt(
        self,
        listeners: Sequence[socket.socket],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """MQTT over TLS, for ever."""
        await self._serve(listeners, "mqtts", "mqtt", self._mqtt, task_status)

    async def serve_websocket(
        self,
        listeners: Sequence[socket.socket],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """MQTT over secure WebSocket, for ever."""
        await self._serve(listeners, "wss", "http/1.1", self._websocket, task_status)

    async def serve_endpoints(
        self,
        listeners: Sequence[socket.socket],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Metrics, health and readiness over HTTPS, for ever."""
        await self._serve(listeners, "metrics", "http/1.1", self._http, task_status)

    async def _serve(
        self,
        listeners: Sequence[socket.socket],
        name: str,
        alpn: str,
        handler: Callable[[TlsStream], Awaitable[None]],
        task_status: trio.TaskStatus[None],
    ) -> None:
        limits = self._services.limits
        await serve_tls(
            listeners,
            context=lambda: self._contexts[alpn],
            alpn=[alpn],
            handler=handler,
            verify=self.verify,
            limits=HandshakeLimits(
                deadline_s=limits.handshake_deadline_s,
                max_concurrent=limits.max_handshakes,
                max_per_address=limits.max_handshakes_per_address,
            ),
            on_event=lambda event: self.note(name, event),
            task_status=task_status,
        )

    def verify(self, _stream: TlsStream, identity: PeerIdentity) -> None:
        """What TLS does not check: purpose, SPIFFE identity and role, exactly one principal.

        Raises:
            CertificateInvalid: the certificate may not be used here.
            PrincipalRefused: no mapping rule, or more than one, gives it a principal.
        """
        verify_peer(
            identity,
            purpose="client",
            now=self._now(),
            trust_domain=self._trust_domain,
            roles=CLIENT_ROLES if self._trust_domain is not None else None,
        )
        self._mapper.verify_principal(identity)

    def principal_of(self, stream: TlsStream) -> tuple[Principal, float]:
        """The principal behind a verified connection, and when its certificate ends.

        Returns:
            The principal and the end of validity, seconds since the epoch.

        Raises:
            PrincipalRefused: the stream was not verified.
        """
        if stream.identity is None:
            message = "the connection has no verified certificate"
            raise PrincipalRefused(message, reasons=())
        return self._mapper.verify_principal(stream.identity), stream.identity.not_after

    def note(self, listener: str, event: HandshakeEvent) -> None:
        """Count a handshake; log and audit a refused one."""
        self._note_handshake(listener, event.result, event.seconds)
        if event.result == "ok":
            return
        log.info(
            "connection refused",
            listener=listener,
            result=event.result,
            reason=event.reason,
            peer=event.peer,
        )
        if event.result in AUDITED:
            self._audit.record(
                AuditEvent(
                    kind="authentication.refused",
                    action="connect",
                    resource=f"broker.{listener}",
                    reason=f"{event.result}: {event.reason}",
                    peer=event.peer,
                )
            )

    async def _mqtt(self, stream: TlsStream) -> None:
        await self._session(stream, stream)

    async def _websocket(self, stream: TlsStream) -> None:
        async with accept_websocket(
            stream, max_message_bytes=self._services.limits.max_packet_bytes
        ) as link:
            if link is not None:
                await self._session(stream, link)

    async def _http(self, stream: TlsStream) -> None:
        principal, ends = self.principal_of(stream)
        with self._observers.place_of(principal.name) as place:
            if not place:
                log.warning(
                    "connection refused",
                    reason="too many HTTP connections",
                    peer=stream.peer_address,
                )
                return
            # A connection must not outlive the certificate it was opened with.
            with trio.move_on_after(ends - self._now()):
                await self._endpoints.serve(stream, principal)

    async def _session(self, stream: TlsStream, link: Link) -> None:
        turns = stream.turns = self._services.turns
        await turns.pause()  # a storm of connections leaves the others their turns
        principal, ends = self.principal_of(stream)
        with self._clients.place_of(principal.name) as place:
            if not place:
                log.warning(
                    "connection refused",
                    reason="too many connections",
                    principal=principal.name,
                    peer=stream.peer_address,
                )
                return
            await self._new_connection(stream, link, principal, ends).run()

    def _new_connection(
        self, stream: TlsStream, link: Link, principal: Principal, ends: float
    ) -> Connection:
        return Connection(
            link,
            principal=principal,
            cache=self._authorizer.open(principal),
            peer=stream.peer_address,
            certificate_ends=ends,
            services=self._services,
            certificate=stream.peer_certificate(),
        )
