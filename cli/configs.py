"""The configuration files that `stockade up` writes for its daemons: the ones an operator would write, with absolute paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gpu
from cli.ports import address
from cli.toml import Value, render_file

if TYPE_CHECKING:
    from certs.development import DevelopmentPki
    from cli.folder import SystemFolder
    from cli.ports import Ports

BROKER_ID = "broker"
CONTROLLER_ID = "controller"
TRUST_DOMAIN = "stockade.local"
SERVER_NAME = "localhost"
SHIPPED_KERNELS = Path(gpu.__file__).parent / "kernels"

BENCH_LIMITS: dict[str, Value] = {
    "max_connections": 20_000,
    "max_connections_per_principal": 20_000,
    "max_sessions_per_principal": 20_000,
    "max_subscriptions": 10_000,
    "max_queued_messages": 1_000_000,
    "max_queued_session_bytes": 268_435_456,
}
"""Its load is one client's, and a message that is dropped would fail a measurement."""

COMMENTS = (
    "Written by `stockade up`, anew at every start. To run this daemon by hand:",
    "  stockade {daemon} --config {path}",
    "Every key is explained in docs/configuration.md.",
)


def shipped_bundles(kernels: Path = SHIPPED_KERNELS) -> tuple[str, ...]:
    """The folders of the kernel bundles that come with Stockade."""
    return tuple(str(manifest.parent) for manifest in sorted(kernels.glob("*/kernel.toml")))


def render_broker_config(
    folder: SystemFolder,
    pki: DevelopmentPki,
    ports: Ports,
    *,
    controller_rpc: str,
    bench: bool = False,
) -> str:
    """The broker's file.

    Args:
        folder: the system's folder.
        pki: its certificates.
        ports: where to listen.
        controller_rpc: `host:port` at which the controller really listens.
        bench: let one client open as many connections and have as many messages waiting as a load generator needs.
    """
    values: dict[str, Value] = {
        "broker_id": BROKER_ID,
        "trust_domain": TRUST_DOMAIN,
        "listen_mqtts": address(ports.mqtts),
        "listen_wss": address(ports.wss),
        "listen_metrics": address(ports.metrics),
        "certificate": str(pki.broker.certificate),
        "key": str(pki.broker.key),
        "anchor": str(pki.anchor),
        "ca": str(pki.ca),
        "controller_rpc": controller_rpc,
        "controller_server_name": SERVER_NAME,
        "audit_file": str(folder.audit("broker")),
        "ready_file": str(folder.daemon_ready("broker")),
        "kernel_bundles": shipped_bundles(),
        "kernel_cache": str(folder.kernel_cache),
    }
    store: dict[str, Value] = {
        "path": str(folder.broker_data / "messages.db"),
        "key": str(folder.broker_data / "messages.key"),
    }
    tables = {"store": store}
    if bench:
        tables["limits"] = dict(BENCH_LIMITS)
    return _file("broker", folder.broker_config, values, tables)


def render_controller_config(folder: SystemFolder, pki: DevelopmentPki, ports: Ports) -> str:
    """The controller's file.

    Args:
        folder: the system's folder.
        pki: its certificates.
        ports: where to listen.
    """
    values: dict[str, Value] = {
        "node_id": CONTROLLER_ID,
        "trust_domain": TRUST_DOMAIN,
        "rpc_listen": address(ports.rpc),
        "api_listen": address(ports.api),
        "certificate": str(pki.controller.certificate),
        "key": str(pki.controller.key),
        "anchor": str(pki.anchor),
        "data_dir": str(folder.controller_data),
        "bootstrap_policy": str(folder.policy),
        "audit_file": str(folder.audit("controller")),
        "ready_file": str(folder.daemon_ready("controller")),
    }
    return _file("controller", folder.controller_config, values)


def _file(
    daemon: str,
    path: Path,
    values: dict[str, Value],
    tables: dict[str, dict[str, Value]] | None = None,
) -> str:
    comments = [line.format(daemon=daemon, path=path) for line in COMMENTS]
    return render_file(comments, values, tables)
