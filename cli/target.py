"""Which controller an administrative command talks to, and as whom."""

from __future__ import annotations

import inspect
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, Protocol, cast
from urllib.parse import urlsplit

import typer

from certs.contexts import client_context
from cli.failure import CommandFailed
from cli.ready import ClientFiles, read_ready
from controller.admin import ALPN, AdminClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.ready import Ready

Options = ParamSpec("Options")

DEFAULT_API_PORT = 7444
ID_BYTES = 6  # 12 hexadecimal digits

FolderOption = Annotated[
    Path | None,
    typer.Option("--dir", envvar="STOCKADE_DIR", help="the folder of a running `stockade up`"),
]
ApiOption = Annotated[
    str | None, typer.Option("--api", help="the controller's admin API, e.g. https://host:7444")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="PEM that the controller is verified with")
]
CertOption = Annotated[Path | None, typer.Option("--cert", help="PEM of your certificate")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="PEM of your private key")]


def admin_client(
    folder: Path | None,
    *,
    api: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> AdminClient:
    """A client for the controller that the options name.

    Args:
        folder: the folder of a running `stockade up`; what is not given otherwise comes from there.
        api: URL of the admin API.
        ca: what the controller is verified with.
        cert: the administrator's certificate.
        key: its private key.

    Raises:
        CommandFailed: something is missing; says what.
        CertsError: a certificate or key cannot be used.
    """
    ready = read_ready(folder / "ready.json") if folder is not None else None
    url = api or (ready.controller.api if ready is not None else None)
    if url is None:
        raise CommandFailed(
            "which controller? say --dir DIR (of `stockade up`) or --api https://host:port"
        )
    files = _files(ready, ca=ca, cert=cert, key=key)
    return connect_to(url, files)


def _target(
    *,
    folder: FolderOption = None,
    api: ApiOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> AdminClient:
    return admin_client(folder, api=api, ca=ca, cert=cert, key=key)


class _Command(Protocol):
    def __call__(self, **options: object) -> None: ...


class _Target(Protocol):
    def __call__(self, **options: object) -> AdminClient: ...


def with_client(command: Callable[Concatenate[AdminClient, Options], None]) -> _Command:
    """Give a command of Typer the options that name a controller, and what they name in the place of its first parameter."""
    target = inspect.signature(_target, eval_str=True).parameters
    whole = inspect.signature(command, eval_str=True)
    _, *own = whole.parameters.values()
    signature = whole.replace(parameters=[*own, *target.values()])

    def run(**options: object) -> None:
        named = {name: options.pop(name) for name in target}
        client = cast("_Target", _target)(**named)
        cast("_Command", partial(command, client))(**options)

    # What Typer reads a command's name, help and options from.
    run.__name__, run.__doc__, run.__module__ = (
        command.__name__,
        command.__doc__,
        command.__module__,
    )
    run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    run.__dict__["__signature__"] = signature  # where `inspect` looks first
    return run


def connect_to(url: str, files: ClientFiles) -> AdminClient:
    """A client for the controller at a URL; nothing is sent yet.

    Args:
        url: `https://host:port`.
        files: the administrator's.

    Raises:
        CommandFailed: it is no such URL.
        CertsError: a certificate or key cannot be used.
    """
    host, port = split_url(url)
    context = client_context(
        certificate=Path(files.cert), key=Path(files.key), ca=Path(files.ca), alpn=(ALPN,)
    )
    return AdminClient(host, port, context=context, new_id=lambda: secrets.token_hex(ID_BYTES))


def split_url(url: str) -> tuple[str, int]:
    """Host and port of `https://host:port`.

    Raises:
        CommandFailed: it is no such URL; anything but `https` is refused.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or DEFAULT_API_PORT
    except ValueError as error:
        raise CommandFailed(f"`{url}`: {error}") from error
    if parts.scheme != "https" or not host or parts.path.strip("/"):
        raise CommandFailed(f"`{url}` is not of the form https://host:port")
    return host, port


def _files(
    ready: Ready | None, *, ca: Path | None, cert: Path | None, key: Path | None
) -> ClientFiles:
    if ca is not None and cert is not None and key is not None:
        return ClientFiles(ca=str(ca), cert=str(cert), key=str(key))
    if ca is not None or cert is not None or key is not None:
        raise CommandFailed("give all three of --ca, --cert and --key, or none with --dir")
    if ready is None or "admin" not in ready.clients:
        raise CommandFailed(
            "who are you? give --ca, --cert and --key, or --dir DIR (of `stockade up`)"
        )
    return ready.clients["admin"]
