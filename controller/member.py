"""One member of the cluster: its state, log, servers and metrics, connected."""

from __future__ import annotations

from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

import structlog
import trio

from certs.contexts import server_context
from controller import api, wire
from controller.authority import PolicyAuthority
from controller.brokers import BrokerTable
from controller.commands import Verdict
from controller.consensus import Role
from controller.documents import StatusDocument
from controller.errors import BootstrapMissing
from controller.metrics import ControllerMetrics, Reading
from controller.raft_log import RaftLog
from controller.replica import Replica
from controller.server import BrokerServer
from controller.state import State
from transport.listener import serve_tls

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from certs.identity import PeerIdentity
    from controller.audit import AuditSink
    from controller.config import ControllerConfig
    from controller.datadir import DataDirectory
    from transport.listener import HandshakeEvent
    from transport.tls import TlsStream

BOOTSTRAP_PRINCIPAL = "bootstrap"

_log = structlog.get_logger("stockade.controller.member")


class Member:
    """The parts of one controller, connected; whoever builds it runs `log` and the two servers.

    Attributes:
        log: the consensus log; `run` it first.
    """

    def __init__(
        self,
        config: ControllerConfig,
        directory: DataDirectory,
        *,
        audit: AuditSink,
        clock: Callable[[], float],
        timer: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """Open what is on disk; nothing runs and nothing listens yet.

        Args:
            config: checked settings.
            directory: the locked data directory.
            audit: takes administrative changes, denials and refused connections.
            clock: seconds since the epoch.
            timer: monotonic seconds.
            new_id: 12 new random hexadecimal digits.

        Raises:
            StorageDamaged, ConsensusFailed: see `RaftLog`.
            CertificateUnusable, KeyUnusable: certificate, key or anchor cannot be used.
        """
        self._config = config
        self._audit = audit
        self._metrics = ControllerMetrics()
        self._contexts = {
            alpn: server_context(
                certificate=config.certificate, key=config.key, anchor=config.anchor, alpn=[alpn]
            )
            for alpn in (wire.ALPN, api.ALPN)
        }
        self._state = State()
        self._brokers = BrokerTable(clock=trio.current_time)
        replica = Replica(self._state)
        replica.on_change(self._brokers.push)
        self.log = RaftLog(
            directory,
            node_id=config.node_id,
            machine=replica,
            timer=timer,
            on_sync=self._metrics.observe_fsync,
        )
        self._authority = PolicyAuthority(
            state=self._state, log=self.log, brokers=self._brokers, clock=clock, new_id=new_id
        )
        self._server = BrokerServer(
            authority=self._authority,
            brokers=self._brokers,
            node_id=config.node_id,
            trust_domain=config.trust_domain,
            clock=clock,
            on_questions=self._count_questions,
        )
        self._api = api.AdminApi(
            authority=self._authority,
            state=self._state,
            read_status=self._read_status,
            is_ready=lambda: self.log.status().role is Role.LEADER,
            metrics=self._metrics,
            audit=audit,
            trust_domain=config.trust_domain,
            clock=clock,
            new_id=new_id,
        )
        self._metrics.observe_state(self._read_metrics)

    async def bootstrap(self) -> None:
        """Apply the first policy, when there is none.

        Raises:
            BootstrapMissing: there is none, and none is configured.
        """
        if self._state.epoch > 0:
            _log.info("policy loaded", epoch=self._state.epoch, rules=len(self._state.rules))
            return
        rules = self._config.first_rules
        if not rules:
            raise BootstrapMissing(
                f"`{self._config.data_dir}` holds no policy, so nobody could administrate it: "
                "set `bootstrap_policy` to rules that allow an administrator on `acl.**`"
            )
        result = await self._authority.bootstrap(
            rules, by=BOOTSTRAP_PRINCIPAL, mode=self._config.bootstrap_mode
        )
        if result.verdict is not Verdict.APPLIED:
            raise BootstrapMissing(f"the bootstrap policy was refused: {result.detail}")
        _log.info("bootstrap policy applied", rules=len(rules), epoch=result.epoch)
        self._audit.record(
            kind="acl.bootstrapped",
            principal=BOOTSTRAP_PRINCIPAL,
            action="create",
            resource=api.RULES.text,
            outcome="allow",
            reason="there was no policy",
            details={"rules": str(len(rules)), "new_epoch": str(result.epoch)},
        )

    async def serve_rpc(
        self, listeners: Sequence[socket.socket], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Serve brokers."""
        server = self._server
        await self._serve(listeners, "rpc", wire.ALPN, server.serve, server.verify, task_status)

    async def serve_api(
        self, listeners: Sequence[socket.socket], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Serve administrators."""
        await self._serve(
            listeners, "api", api.ALPN, self._api.serve, self._api.verify, task_status
        )

    async def _serve(  # noqa: PLR0917 - private, called twice, just above
        self,
        listeners: Sequence[socket.socket],
        name: str,
        alpn: str,
        handler: Callable[[TlsStream], Awaitable[None]],
        verify: Callable[[TlsStream, PeerIdentity], None],
        task_status: trio.TaskStatus[None],
    ) -> None:
        def context() -> ssl.SSLContext:
            return self._contexts[alpn]

        await serve_tls(
            listeners,
            context=context,
            alpn=[alpn],
            handler=handler,
            verify=verify,
            on_event=partial(self._note_handshake, name),
            task_status=task_status,
        )

    def _note_handshake(self, listener: str, event: HandshakeEvent) -> None:
        self._metrics.count_handshake(listener, event.result)
        if event.result == "ok":
            return
        _log.info(
            "connection refused",
            listener=listener,
            result=event.result,
            reason=event.reason,
            peer=event.peer,
        )
        self._audit.record(
            kind="authentication.refused",
            principal="",
            action="connect",
            resource=f"cluster.{listener}",
            outcome="error" if event.result == "handler_error" else "deny",
            reason=event.reason,
            details={"result": event.result, "peer": event.peer},
        )

    def _count_questions(self, allowed: int, denied: int) -> None:
        self._metrics.count_questions(allowed=allowed, denied=denied)

    def _read_metrics(self) -> Reading:
        return Reading(
            log=self.log.status(),
            epoch=self._state.epoch,
            rules=len(self._state.rules),
            brokers=self._brokers.statuses(),
        )

    def _read_status(self) -> StatusDocument:
        return StatusDocument(
            version=metadata.version("stockade"),
            log=self.log.status(),
            epoch=self._state.epoch,
            rules=len(self._state.rules),
            applied=self._state.applied,
            chain=self._state.chain,
            mode=self._state.rules.mode.value,
            brokers=self._brokers.statuses(),
        )
