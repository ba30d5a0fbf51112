"""`stockade acl explain ID`: what was decided, when and why, from the audit logs; and what the policy says now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cli.failure import CommandFailed
from cli.folder import SystemFolder
from cli.target import ApiOption, CaOption, CertOption, FolderOption, KeyOption, admin_client
from governance.events import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

# What an audit event calls an operation; others are called as in rules.
OPERATIONS = {"publish": "write", "subscribe": "read", "deliver": "read"}
KERNEL = "kernel."
MAX_LINE_BYTES = 1 << 20  # the audit log bounds what it writes far below


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of an audit log."""

    time: str
    event: AuditEvent
    file: Path


def explain(
    decision_id: Annotated[
        str, typer.Argument(metavar="ID", help="as a client was told it, e.g. d-0123456789ab")
    ],
    *,
    audit: Annotated[
        list[Path] | None,
        typer.Option(
            help="an audit log; its rotated files are read, too. Those of `--dir` if left out"
        ),
    ] = None,
    folder: FolderOption = None,
    api: ApiOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Say what became of a decision: who asked what, which rule decided and why, and what would be decided now."""
    logs = list(audit or ())
    if folder is not None and not logs:
        system = SystemFolder(root=folder)
        logs = [system.audit("broker"), system.audit("controller")]
    if not logs:
        raise CommandFailed("which audit log? say --audit FILE, or --dir DIR (of `stockade up`)")
    found = next((line for log in logs for line in find(log, decision_id)), None)
    if found is None:
        named = ", ".join(f"`{log}`" for log in logs)
        raise CommandFailed(
            f"`{decision_id}` is not in {named}: decisions that allow are not recorded, and old files are rotated away"
        )
    typer.echo("\n".join(told(found)))
    if folder is None and api is None:
        return
    event = found.event
    client = admin_client(folder, api=api, ca=ca, cert=cert, key=key)
    now = client.test(event.principal, operation_of(event), event.resource)
    rule = f"by rule `{now.rule_id}`" if now.rule_id else "by no rule"
    typer.echo(f"now (epoch {now.epoch}): {now.outcome} {rule}: {now.reason}")


def operation_of(event: AuditEvent) -> str:
    """The operation a rule must name for what an event is about."""
    if event.action == "publish" and event.resource.startswith(KERNEL):
        return "execute"
    return OPERATIONS.get(event.action, event.action)


def told(found: Recorded) -> list[str]:
    """What a line of an audit log says, for people."""
    event = found.event
    return [
        f"{event.decision_id}: {event.outcome} at {found.time}",
        f"  who:    {event.principal}" + (f" from {event.peer}" if event.peer else ""),
        f"  what:   {event.action} {event.resource}"
        + (f", {event.count} times" if event.count > 1 else ""),
        f"  why:    {event.reason}",
        f"  rule:   {event.rule_id or 'none'} (epoch {event.epoch})",
        f"  log:    {found.file}",
    ]


def find(log: Path, decision_id: str) -> Iterator[Recorded]:
    """Yield the lines of an audit log, and of the files it was rotated into, that are about a decision; newest file first.

    Raises:
        CommandFailed: a file cannot be read.
    """
    wanted = decision_id.encode()
    for file in (log, *(log.with_name(f"{log.name}.{number}") for number in range(1, 10))):
        try:
            with file.open("rb") as lines:
                while line := lines.readline(MAX_LINE_BYTES):
                    found = _parsed(line, file) if wanted in line else None
                    if found is not None and decision_id in _ids_of(found.event):
                        yield found
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CommandFailed(f"cannot read `{file}`: {error.strerror or error}") from error


def _ids_of(event: AuditEvent) -> tuple[str, str]:
    return event.decision_id, event.details.get("decision_id", "")


def _parsed(line: bytes, file: Path) -> Recorded | None:
    """The event of a line; None for one that is none."""
    try:
        event = msgspec.json.decode(line, type=AuditEvent)
        place = msgspec.json.decode(line, type=_Place)
    except msgspec.MsgspecError:
        return None
    return Recorded(place.time, event, file)


class _Place(msgspec.Struct, frozen=True):
    time: str
