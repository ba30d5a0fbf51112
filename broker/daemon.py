"""The broker process: reads the configuration, connects the rooms, serves until it is told to stop.

*Rules of this file*: a composition root. Clocks, randomness, files and signals enter here and are
passed down; nothing below reads them by itself.
"""

from __future__ import annotations

import gc
import json
import os
import random
import secrets
import signal
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
import trio

from acl.model import Principal
from broker.admission import Offer
from broker.authority import MeasuredAuthority
from broker.busy_poll import BusyPoll
from broker.config import load_config, principal_mapper
from broker.delayed import DelayedPublisher
from broker.durability import Volatile
from broker.endpoints import Endpoints
from broker.faults import Faults
from broker.gateway import Gateway
from broker.guard import Guard
from broker.kernels import KernelDispatch
from broker.messaging import Messaging, connect_messaging, connect_routing
from broker.metrics import RoomCollector, Sources, Timings
from broker.records import Restored
from broker.services import Counters, Services
from broker.store_file import open_store
from broker.sys_topics import SysTopics
from broker.totals import BrokerTotals
from broker.turns import Turns
from cache.authorizer import Authorizer
from cache.limits import CacheLimits
from certs.contexts import client_context, server_context
from certs.settings import SettingsError
from controller.link import ControllerLink, LinkTiming
from controller.wire import ALPN as CONTROLLER_ALPN
from governance.audit import AuditLog
from governance.logs import configure_logging
from gpu.bundle import load_bundles
from gpu.limits import PoolLimits
from gpu.pool import KernelPool
from gpu.toolchain import Toolchain
from mqtt.errors import ReasonCode
from transport.addresses import bind_tcp, bound_address

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from pathlib import Path

    from broker.config import BrokerConfig
    from gpu.lane import KernelEvent

    Listeners = dict[str, list[socket.socket]]

wall_clock = time.time  # noqa: TID251  the composition root: here the clock enters
log = structlog.get_logger("stockade.broker.daemon")

# Collections of the middle generation, each after some 7,000 more objects than were freed, before a full one.
FULL_COLLECTION_AFTER = 100
DISMISS_S = 5.0  # seconds the ends of all clients, and their wills, may take at a stop
LOOK_S = 0.02  # seconds between two looks whether they are through
LAG_SAMPLE_S = 0.1  # seconds between two measurements of loop lag
# A kernel that compiles for longer does not hold up the others' clients; `stockade up` waits 30 s for a broker.
KERNELS_SETTLE_S = 20.0
LINK_STALE_S = 3.0  # three missed heartbeats of the controller; part of `stale_after_s`


def main(config_path: Path) -> int:
    """Run a broker until SIGTERM or SIGINT.

    Args:
        config_path: the TOML file, see docs/configuration.md.

    Returns:
        0: a clean stop.

    Raises:
        SettingsError: the configuration is wrong; other errors as in `run_broker`, maybe in a group.
    """
    config = load_config(config_path)
    configure_logging(json=config.log_json, level=config.log_level)
    trio.run(run_broker, config)
    return 0


async def run_broker(config: BrokerConfig) -> None:
    """Serve until a signal comes.

    *Resource handling*: sockets, kernels' workers, the audit file and the ready file are given back.

    Args:
        config: checked settings.

    Raises:
        TransportError: an address cannot be listened on.
        CertsError: a certificate or key cannot be used.
        GpuError: a kernel bundle is wrong.
        StoreError: the store cannot be used.
        VaultError: its key cannot be used.
    """
    with ExitStack() as stack:
        listeners = _bind(config, stack)
        audit = stack.enter_context(AuditLog(config.audit_file, clock=wall_clock))
        broker = Broker(config, audit)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            # The store ends last: it writes what is recorded while connections end.
            async with trio.open_nursery() as keeping:
                await broker.start_store(keeping)
                async with trio.open_nursery() as nursery:
                    await broker.start(nursery, listeners)
                    tame_garbage_collector()
                    log.info("broker is listening", **_addresses(listeners))
                    nursery.start_soon(_announce, broker, config, listeners)
                    async for number in signals:
                        log.info("stopping", signal=signal.Signals(number).name)
                        break
                    await broker.dismiss_clients()
                    nursery.cancel_scope.cancel()
                keeping.cancel_scope.cancel()


class Broker:
    """The rooms of one broker, connected."""

    def __init__(self, config: BrokerConfig, audit: AuditLog) -> None:
        """Build everything that needs no running loop.

        Raises:
            CertsError: a certificate or key cannot be used.
            GpuError: a kernel bundle is wrong.
            SettingsError: a principal rule is wrong.
        """
        self._config = config
        self._audit = audit
        self._timings = Timings()
        self._faults = Faults()
        self._turns = Turns()
        self._busy_poll = BusyPoll(config.mqtt.busy_poll_us * 1e-6)
        self._authority = MeasuredAuthority(self._timings.note_ask)
        self._authorizer = Authorizer(
            self._authority, limits=CacheLimits(), clock=wall_clock, new_id=new_decision_id
        )
        link_stale_s = min(LINK_STALE_S, config.stale_after_s / 2)
        self._guard = Guard(
            self._authorizer,
            audit,
            broker_id=config.broker_id,
            stale_after_s=config.stale_after_s,
        )
        self._link = self._controller_link(link_stale_s)
        self._authority.attach(self._link)
        self._routing = connect_routing(self._guard, config.mqtt, wall_clock, self._faults)
        self._pool = self._kernel_pool()
        self._kernels = KernelDispatch(self._pool, self._guard, self._routing.router)
        self._store = open_store(
            config.store, note_commit=self._timings.note_commit, faults=self._faults
        )
        self._messaging = self._connect_messaging()
        self._services = self._make_services()
        self._gateway = self._make_gateway()
        self._timings.registry.register(RoomCollector(self._sources()))

    def _connect_messaging(self) -> Messaging:
        limits = self._config.limits
        restored = Restored()
        if self._store is not None:
            restored = self._store.load(
                most=limits.max_queued_messages, most_bytes=limits.max_queued_session_bytes
            )
        return connect_messaging(
            self._routing,
            guard=self._guard,
            kernels=self._kernels,
            limits=limits,
            store=self._store or Volatile(),
            keeps_sessions=self._store is not None,
            restored=restored,
            clock=wall_clock,
        )

    def _make_services(self) -> Services:
        config, messaging = self._config, self._messaging
        return Services(
            guard=self._guard,
            publishing=messaging.publishing,
            registry=messaging.registry,
            store=messaging.store,
            limits=config.limits,
            offer=Offer(
                keeps_sessions=self._store is not None,
                response_information=config.mqtt.response_information,
                accept_mqtt31=config.mqtt.accept_mqtt31,
            ),
            budget=messaging.budget,
            turns=self._turns,
            broker_id=config.broker_id,
            random_bytes=secrets.token_bytes,
            new_client_id=lambda: f"auto-{secrets.token_hex(8)}",
            count=Counters(),
        )

    def _controller_link(self, stale_after_s: float) -> ControllerLink:
        config = self._config
        host, port = split_address("controller_rpc", config.controller_rpc)
        return ControllerLink(
            host,
            port,
            context=partial(
                client_context,
                certificate=config.certificate,
                key=config.key,
                ca=config.ca,
                alpn=[CONTROLLER_ALPN],
            ),
            server_name=config.controller_server_name,
            broker_id=config.broker_id,
            trust_domain=config.trust_domain,
            on_policy=self._guard.on_policy,
            on_contact=self._guard.on_contact,
            jitter=random.random,
            clock=wall_clock,
            trusts_for_s=config.stale_after_s,
            timing=LinkTiming(stale_after_s=stale_after_s),
        )

    def _kernel_pool(self) -> KernelPool:
        config = self._config
        return KernelPool(
            load_bundles(config.kernel_bundles),
            backend=config.kernel_backend,
            toolchain=Toolchain.of_environment(os.environ, cache_dir=config.kernel_cache),
            on_event=_note_kernel,
            on_batch=lambda batch: self._timings.note_batch(batch.kernel, batch.total_seconds),
            limits=PoolLimits(busy_wait_s=config.kernel_wait_s),
        )

    def _make_gateway(self) -> Gateway:
        config = self._config
        contexts = {
            alpn: server_context(
                certificate=config.certificate, key=config.key, anchor=config.anchor, alpn=[alpn]
            )
            for alpn in ("mqtt", "http/1.1")
        }
        return Gateway(
            contexts=contexts,
            mapper=principal_mapper(config),
            # With rules of the operator's own the certificates need not be SPIFFE ids.
            trust_domain=None if config.principal_rules else config.trust_domain,
            authorizer=self._authorizer,
            audit=self._audit,
            note_handshake=self._timings.note_handshake,
            services=self._services,
            endpoints=Endpoints(
                guard=self._guard,
                authorizer=self._authorizer,
                page=self._timings.page,
                not_ready=lambda: self._guard.refusal,
            ),
            now=wall_clock,
        )

    def _sources(self) -> Sources:
        return Sources(
            count=self._services.count,
            messaging=self._messaging,
            store=self._store,
            guard=self._guard,
            authorizer=self._authorizer,
            kernels=self._kernels,
            pool=self._pool,
            audit=self._audit,
            turns=self._turns,
            busy_poll=self._busy_poll,
        )

    async def start_store(self, nursery: trio.Nursery) -> None:
        """Start writing what is to outlive the process, if there is a store."""
        if self._store is not None:
            await nursery.start(self._store.run)

    async def start(self, nursery: trio.Nursery, listeners: dict[str, list[socket.socket]]) -> None:
        """Start every task; when this returns, clients can connect.

        Clients are let in before the controller answers: what they ask for is denied until then.
        """
        await nursery.start(self._turns.run)
        await nursery.start(self._busy_poll.run)
        await nursery.start(self._authorizer.run)
        await nursery.start(self._kernels.run)
        await nursery.start(self._audit.run)
        await nursery.start(self._pool.run)
        nursery.start_soon(self._link.run)
        nursery.start_soon(self._guard.watch_contact, lambda: self._link.proved_at)
        messaging, routing = self._messaging, self._routing
        await nursery.start(routing.waiting.run)
        await nursery.start(messaging.refiller.run)
        nursery.start_soon(messaging.registry.sweep)
        nursery.start_soon(routing.dead_letters.run, routing.router, messaging.publishing.messages)
        nursery.start_soon(DelayedPublisher(messaging.publishing, self._faults).run)
        nursery.start_soon(self._sys_topics().run)
        nursery.start_soon(self._measure_lag)
        await nursery.start(self._gateway.serve_mqtt, listeners["mqtts"])
        await nursery.start(self._gateway.serve_websocket, listeners["wss"])
        await nursery.start(self._gateway.serve_endpoints, listeners["metrics"])

    def _sys_topics(self) -> SysTopics:
        config = self._config
        return SysTopics(
            BrokerTotals(self._sources()),
            router=self._routing.router,
            messages=self._messaging.publishing.messages,
            retained=self._messaging.publishing.retained,
            broker=Principal(config.broker_id),
            version=version("stockade"),
            interval_s=config.mqtt.sys_interval_s,
            clock=trio.current_time,
        )

    async def settled(self) -> None:
        """Wait until clients can be served: a policy is here, and every kernel is ready or known not to be."""
        await self._link.wait_contact()
        with trio.move_on_after(KERNELS_SETTLE_S):
            await self._pool.settled()

    async def dismiss_clients(self) -> None:
        """Have every client told that the broker ends, and their wills published; bounded in time.

        While the policy can still be asked. A will about which nobody decides until then is in the store.
        """
        reference, messaging = self._config.mqtt.server_reference, self._messaging
        messaging.registry.stopping = True
        for connection in messaging.registry:
            if reference:
                connection.end(
                    ReasonCode.USE_ANOTHER_SERVER, "the broker is shutting down", reference
                )
            else:
                connection.end(ReasonCode.SERVER_SHUTTING_DOWN, "the broker is shutting down")
        with trio.move_on_after(DISMISS_S):
            while len(messaging.registry) or messaging.publishing.delayed.overdue:  # noqa: ASYNC110  once in a life
                await trio.sleep(LOOK_S)

    async def _measure_lag(self) -> None:
        """How much later than asked this very task runs: what every other task suffers too."""
        while True:
            due = trio.current_time() + LAG_SAMPLE_S
            await trio.sleep_until(due)
            self._timings.note_lag(trio.current_time() - due)


def tame_garbage_collector() -> None:
    """Have the collector look at what is here for good no more, and at the rest more rarely.

    A full collection stops the loop for 100 ms and more with what the imports alone made, and for longer with every
    session; it finds next to nothing, because reference counts free what ends. The younger generations stay as they are.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION_AFTER)


def _note_kernel(event: KernelEvent) -> None:
    """Log what became of a kernel's worker; an operator acts on it."""
    fields = {"kernel": event.kernel, "reason": event.reason}
    if event.printed:
        fields["printed"] = event.printed
    if event.retry_s is not None:
        fields["retry_s"] = f"{event.retry_s:g}"
    log.info("kernel", state=str(event.kind), **fields)


def new_decision_id() -> str:
    """An id for a decision: unguessable, so that it tells a client nothing but itself."""
    return f"d-{secrets.token_hex(6)}"


def split_address(key: str, text: str) -> tuple[str, int]:
    """`host:port` as two values.

    Raises:
        SettingsError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        message = f"`{key}` is `{text}`: write it as `host:port`"
        raise SettingsError(message)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _bind(config: BrokerConfig, stack: ExitStack) -> Listeners:
    bound: Listeners = {}
    for name in ("mqtts", "wss", "metrics"):
        key = f"listen_{name}"
        address: str = getattr(config, key)
        bound[name] = bind_tcp(*split_address(key, address))
        for sock in bound[name]:
            stack.callback(sock.close)
    return bound


def _addresses(listeners: Listeners) -> dict[str, str]:
    return {name: bound_address(sockets[0]) for name, sockets in listeners.items()}


async def _announce(broker: Broker, config: BrokerConfig, listeners: Listeners) -> None:
    """Say that we are ready, by log and file, once we are, until cancelled."""
    await broker.settled()
    log.info("broker is ready")
    with _ready_file(config, listeners):
        await trio.sleep_forever()


@contextmanager
def _ready_file(config: BrokerConfig, listeners: Listeners) -> Generator[None]:
    """Say where we listen, all at once or not at all, for as long as we do."""
    path = config.ready_file
    if path is None:
        yield
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(_addresses(listeners)))
    beside.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
