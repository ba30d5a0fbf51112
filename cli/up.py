"""`stockade up`: a whole development system on this machine, until it is told to stop."""

from __future__ import annotations

import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from cli.folder import make_folder
from cli.hints import client_lines
from cli.ports import FREE, choose_ports
from cli.ready import remove_ready, write_ready
from cli.system import run_system

if TYPE_CHECKING:
    from cli.folder import SystemFolder
    from cli.ready import Ready

DEFAULT_FOLDER = Path("stockade-dev")


def command(
    folder: Annotated[
        Path, typer.Option("--dir", help="folder for certificates, configuration, data and logs")
    ] = DEFAULT_FOLDER,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready", help="write this JSON file for scripts once everything listens"),
    ] = None,
    bench: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--bench", help="add a client `bench` that may do all on bench/#")
    ] = False,
    any_port: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--any-port", help="listen on free ports, beside other systems")
    ] = False,
) -> None:
    """Start a development system here: PKI, controller, broker, a small policy. SIGTERM or Ctrl-C ends it."""
    trio.run(partial(serve, make_folder(folder), ready_file, bench=bench, any_port=any_port))


def program() -> str:
    """How a shell finds this command line: by name when it is on the path, else where it is installed."""
    installed = Path(sys.executable).with_name("stockade")
    return "stockade" if shutil.which("stockade") or not installed.is_file() else str(installed)


async def serve(
    folder: SystemFolder, ready_file: Path | None, *, bench: bool, any_port: bool
) -> None:
    """Run the system until SIGTERM or SIGINT.

    *Cancellation*: ends the system in order.

    Args:
        folder: where.
        ready_file: where scripts wait for the report; removed at the end.
        bench: add the client `bench`.
        any_port: listen on free ports instead of the well-known ones.

    Raises:
        CommandFailed: the system could not start or a daemon died.
    """

    async def until_signal(ready: Ready) -> None:
        if ready_file is not None:
            write_ready(ready_file, ready)
        typer.echo(client_lines(ready, folder=folder.root, program=program()))
        await trio.sleep_forever()

    if ready_file is not None:
        remove_ready(ready_file)  # one that an earlier system left must not be believed
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for _ in signals:
                    break
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop_at_signal)
            try:
                ports = FREE if any_port else choose_ports()
                await run_system(folder, bench=bench, ports=ports, body=until_signal)
            finally:
                if ready_file is not None:
                    remove_ready(ready_file)
