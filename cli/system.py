"""A whole development system: PKI, configuration, a controller and a broker as real processes.

*Theory of operation.* `run_system` writes what the daemons need, starts the controller, waits until it listens, starts
the broker with the address the controller really got, and hands the report to `body`. Whatever happens then, an error, a
cancellation or a daemon that dies, the daemons are ended in order: the broker first, so that no message is
accepted that nobody could authorize.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import trio

from certs.development import create_development_pki
from cli.children import STOP_DEADLINE_S, Child, start_child
from cli.configs import render_broker_config, render_controller_config
from cli.failure import first_cause
from cli.folder import sole_user
from cli.policy import BENCH_RULES, draft_of, first_rules, render_policy
from cli.ready import (
    ClientFiles,
    ListeningBroker,
    ListeningController,
    Ready,
    remove_ready,
    report,
    write_ready,
)
from cli.target import connect_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from certs.development import DevelopmentPki
    from cli.children import ChildDied
    from cli.folder import SystemFolder
    from cli.policy import PolicyRule
    from cli.ports import Ports

CLIENTS = ("sensor", "viewer")
BENCH_CLIENT = "bench"
ADMIN = "admin"

STOP_ALL_S = 2 * STOP_DEADLINE_S + 5.0
"""Both daemons one after the other, and a little for the kernel to collect what was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPlan:
    """What to run.

    Attributes:
        folder: where everything of this system lies.
        ports: where to listen.
        pki: the certificates of everybody in it.
        bench: whether the load generator's rules must be there, also in a folder that was made without them.
    """

    folder: SystemFolder
    ports: Ports
    pki: DevelopmentPki
    bench: bool


def prepare_system(folder: SystemFolder, *, bench: bool, ports: Ports) -> SystemPlan:
    """Make the PKI (or reuse it while it is valid), and write the first policy and the controller's configuration.

    Args:
        folder: the system's folder, used by nobody else.
        bench: add the client `bench` that may do everything on `bench/#`.
        ports: where to listen.

    Raises:
        CertsError: the certificates in the folder cannot be used.
    """
    names = (*CLIENTS, BENCH_CLIENT) if bench else CLIENTS
    pki = create_development_pki(folder.pki, clients=names, now=datetime.now(UTC).timestamp())
    folder.policy.write_text(render_policy(first_rules(bench=bench)))
    folder.controller_config.write_text(render_controller_config(folder, pki, ports))
    return SystemPlan(folder=folder, ports=ports, pki=pki, bench=bench)


def client_files(pki: DevelopmentPki) -> dict[str, ClientFiles]:
    """The PEM files of every client and administrator, by name."""
    return {
        name: ClientFiles(
            ca=str(pki.ca), cert=str(credentials.certificate), key=str(credentials.key)
        )
        for name, credentials in pki.clients.items()
    }


def ensure_rules(url: str, admin: ClientFiles, rules: Sequence[PolicyRule]) -> None:
    """Add those of the rules that the controller does not have. Blocks: call it in a thread from Trio.

    Args:
        url: the controller's admin API.
        admin: who asks.
        rules: what must be there; a rule of the same id is left as it is.

    Raises:
        AdminError: the controller refused.
    """
    client = connect_to(url, admin)
    there = {rule.id for rule in client.list_rules()}
    for rule in rules:
        if rule.id not in there:
            client.add_rule(draft_of(rule))


async def run_system(
    folder: SystemFolder, *, bench: bool, ports: Ports, body: Callable[[Ready], Awaitable[None]]
) -> None:
    """Start the daemons, run `body` while they run, end them.

    *Cancellation*: ends the daemons (shielded, bounded by `STOP_ALL_S`), then goes on.
    *Resource handling*: when this returns or raises, no process it started is left.

    Args:
        folder: where, from `make_folder`.
        bench: add the client `bench` that may do everything on `bench/#`.
        ports: where to listen.
        body: gets the report when everything listens; when it returns the system is ended.

    Raises:
        ChildDied: a daemon ended by itself; `body` was cancelled.
        CommandFailed: a daemon did not start listening in time, or the folder is in use.
        CertsError: the certificates in the folder cannot be used.
    """
    with sole_user(folder):
        plan = await trio.to_thread.run_sync(
            partial(prepare_system, folder, bench=bench, ports=ports)
        )
        children: list[Child] = []
        try:
            await _run_children(plan, children, body)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_ALL_S):
                for child in reversed(children):
                    await child.stop()
            remove_ready(folder.ready)


async def _run_children(
    plan: SystemPlan, children: list[Child], body: Callable[[Ready], Awaitable[None]]
) -> None:
    deaths: list[ChildDied] = []

    async def watch(child: Child) -> None:
        deaths.append(await child.died())
        nursery.cancel_scope.cancel()

    def started(child: Child) -> None:
        children.append(child)
        nursery.start_soon(watch, child)

    try:
        async with trio.open_nursery() as nursery:
            ready = await _start(plan, started)
            await body(ready)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
    if deaths:
        raise deaths[0]


async def _start(plan: SystemPlan, started: Callable[[Child], None]) -> Ready:
    folder = plan.folder
    controller = await start_child(
        "controller",
        config=folder.controller_config,
        log=folder.log("controller"),
        ready_file=folder.daemon_ready("controller"),
    )
    started(controller)
    controller_listens = await controller.ready(ListeningController)
    if plan.bench:
        url = f"https://{controller_listens.api}"
        await trio.to_thread.run_sync(ensure_rules, url, client_files(plan.pki)[ADMIN], BENCH_RULES)

    folder.broker_config.write_text(
        render_broker_config(
            folder,
            plan.pki,
            plan.ports,
            controller_rpc=controller_listens.rpc,
            bench=plan.bench,
        )
    )
    broker = await start_child(
        "broker",
        config=folder.broker_config,
        log=folder.log("broker"),
        ready_file=folder.daemon_ready("broker"),
    )
    started(broker)
    broker_listens = await broker.ready(ListeningBroker)

    ready = report(
        controller=controller_listens, broker=broker_listens, clients=client_files(plan.pki)
    )
    write_ready(folder.ready, ready)
    return ready
