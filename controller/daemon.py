"""The controller process: puts the parts together, serves until it is told to stop.

*Rules of this file*: a composition root. Clocks, randomness, files and signals enter here and are passed down; nothing
below reads them by itself. Nothing listens before the state is complete; nothing is acknowledged after the disk failed,
because then the whole process ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from certs.errors import CertsError
from certs.settings import SettingsError
from controller.audit import LogTrail
from controller.config import load_config, parse_address
from controller.datadir import DataDirectory
from controller.errors import ControllerError
from controller.member import Member
from transport.addresses import bind_tcp, bound_address
from transport.errors import TransportError, first_leaf
from vault.errors import VaultError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator
    from pathlib import Path

    from controller.audit import AuditSink, AuditTrail
    from controller.config import ControllerConfig

EXIT_FAILED = 1
OPERATOR_ERRORS = (ControllerError, SettingsError, CertsError, VaultError, TransportError, OSError)

_log = structlog.get_logger("stockade.controller.daemon")


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where a controller really listens, `host:port` each."""

    rpc: str
    api: str


def new_id() -> str:
    """Return 12 random hexadecimal digits."""
    return secrets.token_hex(6)


def main(
    config_path: Path,
    *,
    open_audit: Callable[[Path], AuditTrail] | None = None,
    configure_logging: Callable[[bool], None] | None = None,
) -> int:
    """Run a controller until SIGTERM or SIGINT.

    Args:
        config_path: the TOML file, see docs/configuration.md.
        open_audit: opens the audit log at the configured path; without it an `audit_file` is refused.
        configure_logging: sets logging up, given whether lines are JSON.

    Returns:
        The exit code: 0 after a clean stop, 1 after an error that was printed in one line.
    """
    try:
        config = load_config(config_path)
        (configure_logging or _configure_logging)(config.log_json)
        audit = _open_trail(config, open_audit)
        try:
            trio.run(_run_until_signal, config, audit)
        finally:
            audit.close()
    except OPERATOR_ERRORS as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILED
    except BaseExceptionGroup as group:
        mistakes, others = group.split(OPERATOR_ERRORS)
        if mistakes is None or others is not None:
            raise
        sys.stderr.write(f"error: {first_leaf(mistakes)}\n")
        return EXIT_FAILED
    return 0


def _open_trail(
    config: ControllerConfig, open_audit: Callable[[Path], AuditTrail] | None
) -> AuditTrail:
    if config.audit_file is None:
        return LogTrail()
    if open_audit is None:
        raise SettingsError("`audit_file` is set, but this program has no audit log to write there")
    return open_audit(config.audit_file)


def _configure_logging(json: bool) -> None:  # noqa: FBT001 - the signature `main` documents
    """Log to standard error; values are quoted, so that text of a peer cannot forge a line."""
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _run_until_signal(config: ControllerConfig, audit: AuditTrail) -> None:
    run = partial(
        run_controller,
        config,
        audit=audit,
        clock=time.time,  # noqa: TID251 - the composition root: here the clock enters
        timer=time.perf_counter,
        new_id=new_id,
    )
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(audit.run)
            await nursery.start(run)
            async for number in signals:
                _log.info("stopping", signal=signal.Signals(number).name)
                break
            nursery.cancel_scope.cancel()


async def run_controller(
    config: ControllerConfig,
    *,
    audit: AuditSink,
    clock: Callable[[], float],
    timer: Callable[[], float],
    new_id: Callable[[], str],
    task_status: trio.TaskStatus[Addresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve brokers and administrators until cancelled.

    *Cancellation.* Connections end, the journal is synced and closed, the lock and the ready file are given back.

    Args:
        config: checked settings.
        audit: takes administrative changes, denials and refused connections.
        clock: seconds since the epoch.
        timer: monotonic seconds.
        new_id: 12 new random hexadecimal digits.
        task_status: started with the addresses once everything listens.

    Raises:
        BootstrapMissing: there is no policy and none is configured.
        DataDirectoryUnusable, DataDirectoryInUse, StorageDamaged: say what to do.
        JournalBroken, ConsensusFailed: the disk or the engine failed while running.
        CertsError, TransportError: certificate, key or address cannot be used.
    """
    with ExitStack() as stack:
        listeners = {
            name: _bind(address, stack)
            for name, address in (("rpc", config.rpc_listen), ("api", config.api_listen))
        }
        directory = stack.enter_context(DataDirectory(config.data_dir))
        member = Member(config, directory, audit=audit, clock=clock, timer=timer, new_id=new_id)
        stack.callback(member.log.close)
        async with trio.open_nursery() as nursery:
            await nursery.start(member.log.run)
            await member.bootstrap()
            await nursery.start(member.serve_rpc, listeners["rpc"])
            await nursery.start(member.serve_api, listeners["api"])
            addresses = Addresses(
                **{name: bound_address(sockets[0]) for name, sockets in listeners.items()}
            )
            with _ready_file(config.ready_file, addresses):
                _log.info("controller is listening", rpc=addresses.rpc, api=addresses.api)
                task_status.started(addresses)
                await trio.sleep_forever()


def _bind(address: str, stack: ExitStack) -> list[socket.socket]:
    sockets = bind_tcp(*parse_address(address))
    for sock in sockets:
        stack.callback(sock.close)
    return sockets


@contextmanager
def _ready_file(path: Path | None, addresses: Addresses) -> Generator[None]:
    """Say where we listen, all at once or not at all, for as long as we do."""
    if path is None:
        yield
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(msgspec.json.encode(addresses) + b"\n")
    beside.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
