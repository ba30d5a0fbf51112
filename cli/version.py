"""`stockade version`: what is installed, for a bug report."""

from __future__ import annotations

import platform
import ssl
from importlib import metadata

import typer


def describe() -> str:
    """The versions that matter for a bug report, on one line."""
    return (
        f"stockade {metadata.version('stockade')}"
        f" (Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {platform.system()} {platform.machine()})"
    )


def command() -> None:
    """Print the version of Stockade, Python and OpenSSL."""
    typer.echo(describe())
