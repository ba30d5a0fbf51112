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

COMMENTS = (
    "Written by `stockade up`, anew at every start. To run this daemon by hand:",
    "  stockade {daemon} --config {path}",
    "Every key is explained in docs/configuration.md.",
)


def shipped_bundles(kernels: Path = SHIPPED_KERNELS) -> tuple[str, ...]:
    """The folders of the kernel bundles that come with Stockade."""
    return tuple(str(manifest.parent) for manifest in sorted(kernels.glob("*/kernel.toml")))


def render_broker_config(
    folder: SystemFolder, pki: DevelopmentPki, ports: Ports, *, controller_rpc: str
) -> str:
    """The broker's file.

    Args:
        folder: the system's folder.
        pki: its certificates.
        ports: where to listen.
        controller_rpc: `host:port` at which the controller really listens.
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
    return _file("broker", folder.broker_config, values)


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


def _file(daemon: str, path: Path, values: dict[str, Value]) -> str:
    return render_file([line.format(daemon=daemon, path=path) for line in COMMENTS], values)
