"""`stockade config check FILE`: whether every key and value of a file is one a daemon accepts; opens nothing it names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from broker.config import BrokerConfig, load_config as load_broker_config
from cli.failure import CommandFailed
from controller.config import ControllerConfig, load_config as load_controller_config

app = typer.Typer(help="Configuration files.", no_args_is_help=True)

BROKER = "broker"
CONTROLLER = "controller"


@app.callback()
def group() -> None:
    """Configuration files."""


def _known(type_: type[msgspec.Struct], keys: set[str]) -> int:
    return len(keys & {field.encode_name for field in msgspec.structs.fields(type_)})


def daemon_of(path: Path) -> str:
    """Which daemon a file is for, by the keys it holds.

    Args:
        path: the file.

    Raises:
        CommandFailed: it cannot be read, is not TOML, or its keys fit both daemons or none.
    """
    try:
        keys = set(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandFailed(f"cannot read `{path}`: {error}") from error
    broker, controller = _known(BrokerConfig, keys), _known(ControllerConfig, keys)
    if broker == controller:
        raise CommandFailed(
            f"`{path}` could be any daemon's: say which with --for {BROKER} or --for {CONTROLLER}"
        )
    return BROKER if broker > controller else CONTROLLER


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="the TOML file")],
    daemon: Annotated[
        str | None, typer.Option("--for", help="`broker` or `controller`; found out when left out")
    ] = None,
) -> None:
    """Check a configuration file: unknown keys, types, bounds. Starts nothing."""
    kind = daemon or daemon_of(file)
    if kind == BROKER:
        load_broker_config(file)
    elif kind == CONTROLLER:
        load_controller_config(file)
    else:
        raise typer.BadParameter(f"`{kind}` is neither `{BROKER}` nor `{CONTROLLER}`")
    typer.echo(f"ok: `{file}` is a configuration of the {kind}")
