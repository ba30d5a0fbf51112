"""`stockade demo`: the whole path once, with real data, and a table of what happened."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console

DEFAULT_MESSAGES = 5_000


def command(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="use and keep this folder; default: a temporary one"),
    ] = None,
    messages: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="requests to send to the kernel")
    ] = DEFAULT_MESSAGES,
) -> None:
    """Show the whole path with real data: mutual TLS, every authorization level, a CUDA kernel, and back."""
    from cli.demo_run import demonstrate  # noqa: PLC0415 - numpy is loaded by this command only

    console = Console()
    if folder is not None:
        trio.run(demonstrate, folder, messages, console)
        return
    with tempfile.TemporaryDirectory(prefix="stockade-demo-") as temporary:
        trio.run(demonstrate, Path(temporary), messages, console)
