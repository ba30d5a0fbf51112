"""`stockade broker` and `stockade controller`: the daemons, one process each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.children import UNTIL_EOF, end_with_parent

ConfigFile = Annotated[Path, typer.Option("--config", help="the daemon's TOML configuration")]
UntilEof = Annotated[
    bool, typer.Option(UNTIL_EOF, hidden=True, help="end when standard input does")
]


def broker(config: ConfigFile, *, until_eof: UntilEof = False) -> None:
    """Run a broker: MQTT over mutual TLS and secure WebSocket, metrics, kernels."""
    if until_eof:
        end_with_parent()
    from broker import daemon  # noqa: PLC0415 - numpy and the kernels' room are loaded by the broker only

    raise typer.Exit(daemon.main(config))


def controller(config: ConfigFile, *, until_eof: UntilEof = False) -> None:
    """Run a controller: the authority that holds the policy and answers brokers."""
    if until_eof:
        end_with_parent()
    from cli.audit import log_as, open_audit  # noqa: PLC0415
    from controller import daemon  # noqa: PLC0415 - Raft is loaded by the controller only

    raise typer.Exit(daemon.main(config, open_audit=open_audit, configure_logging=log_as))
