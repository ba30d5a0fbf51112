"""The report that a development system is ready: where it listens and which certificates its clients use.

Scripts wait for this file, so it appears complete or not at all: written beside its place, synced, renamed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cli.failure import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_READY_BYTES = 65_536  # a report is under 2 KB; a larger file is not one


class BrokerAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker listens: `host:port` for MQTT, URLs for the others."""

    mqtts: str
    wss: str
    metrics: str


class ControllerAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the controller listens: `host:port` for brokers, a URL for administrators."""

    rpc: str
    api: str


class ClientFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of one client: what it verifies the server with, its certificate, its private key."""

    ca: str
    cert: str
    key: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report."""

    broker: BrokerAddresses
    controller: ControllerAddresses
    clients: dict[str, ClientFiles]


class ListeningController(msgspec.Struct, frozen=True, kw_only=True):
    """What `stockade controller` writes to its `ready_file`: `host:port` each."""

    rpc: str
    api: str


class ListeningBroker(msgspec.Struct, frozen=True, kw_only=True):
    """What `stockade broker` writes to its `ready_file`: `host:port` each."""

    mqtts: str
    wss: str
    metrics: str


def report(
    *, controller: ListeningController, broker: ListeningBroker, clients: Mapping[str, ClientFiles]
) -> Ready:
    """Put the addresses the daemons really bound into the report.

    Args:
        controller: what the controller said.
        broker: what the broker said.
        clients: the files of every client, by name.
    """
    return Ready(
        broker=BrokerAddresses(
            mqtts=broker.mqtts,
            wss=f"wss://{broker.wss}/mqtt",
            metrics=f"https://{broker.metrics}",
        ),
        controller=ControllerAddresses(rpc=controller.rpc, api=f"https://{controller.api}"),
        clients=dict(clients),
    )


def write_ready(path: Path, ready: Ready) -> None:
    """Write the report so that a reader sees all of it or nothing.

    Args:
        path: where scripts look for it.
        ready: the report.

    Raises:
        CommandFailed: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(ready), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # the first error is the one to report
            beside.unlink(missing_ok=True)
        raise CommandFailed(f"cannot write `{path}`: {error.strerror or error}") from error


def read_ready(path: Path) -> Ready:
    """Read a report.

    Args:
        path: the file.

    Raises:
        CommandFailed: it is not there or is not a report.
    """
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_READY_BYTES), type=Ready)
    except FileNotFoundError as error:
        raise CommandFailed(
            f"no `{path}`: nothing is running there; start it with `stockade up --dir {path.parent}`"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        raise CommandFailed(f"cannot read `{path}`: {error}") from error


def remove_ready(path: Path) -> None:
    """Take a report away when what it reports has ended.

    Args:
        path: the file; a missing one is fine.
    """
    path.unlink(missing_ok=True)
