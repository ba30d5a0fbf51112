"""The command `stockade`: registers the commands and is the border where every error becomes one line.

*Rules of this file.* No logic; each command is a file of its own. Exit codes: 0 done, 1 failed (one line on standard
error says why and what to do), 2 wrong usage.
"""

from __future__ import annotations

import os
import sys

import typer

from cli import acl, acl_explain, acl_file, config_check, daemons, demo, up, version
from cli.failure import TRACEBACK_VARIABLE, describe

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # what shells report for a command ended by SIGINT: 128 + 2

app = typer.Typer(
    name="stockade",
    help="A zero-trust message broker for GPU work: MQTT over mutual TLS, authorized, batched into CUDA kernels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up.command)
app.command("demo")(demo.command)
app.command("broker")(daemons.broker)
app.command("controller")(daemons.controller)
acl.app.command("export")(acl_file.export)
acl.app.command("plan")(acl_file.plan)
acl.app.command("apply")(acl_file.apply)
acl.app.command("drift")(acl_file.drift)
acl.app.command("validate")(acl_file.validate)
acl.app.command("conflicts")(acl_file.conflicts)
acl.app.command("explain")(acl_explain.explain)
app.add_typer(acl.app, name="acl")
app.add_typer(config_check.app, name="config")
app.command("version")(version.command)


def main() -> None:
    """Run the command line; every way out is an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        typer.echo(describe(error), err=True)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
