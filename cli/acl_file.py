"""`stockade acl export`, `plan`, `apply` and `drift`: a policy as a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from acl.findings import findings_of
from cli.acl import told
from cli.failure import CommandFailed
from cli.policy_file import (
    failures_of,
    load_policy,
    plan_of,
    render_rules,
    rules_of,
    sentences,
)
from cli.target import (
    ApiOption,
    CaOption,
    CertOption,
    FolderOption,
    KeyOption,
    admin_client,
    with_client,
)
from controller.admin import AdminClient
from controller.commands import as_written
from controller.config import PolicyFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acl.findings import Finding
    from cli.policy_file import Plan
    from controller.commands import RuleDraft, RuleRecord

EXIT_DIFFERS = 1
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="a policy file")]
KeepOption = Annotated[
    bool, typer.Option("--keep-others", help="leave rules alone that the file does not have")
]


@with_client
def export(
    client: AdminClient,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write it here; must not exist")
    ] = None,
) -> None:
    """Write the policy in force as a file."""
    rules, mode, _ = _current(client)
    text = render_rules(rules, mode)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CommandFailed(f"cannot write `{output}`: {error.strerror or error}") from error
    typer.echo(f"{len(rules)} rules written to `{output}`")


@with_client
def plan(
    client: AdminClient,
    file: FileArgument,
    *,
    keep_others: KeepOption = False,
) -> None:
    """Show what applying a policy file would change; its tests are run. Changes nothing."""
    found = _planned(client, file, keep=keep_others)
    typer.echo(_summary(found))


@with_client
def drift(
    client: AdminClient,
    file: FileArgument,
    *,
    keep_others: KeepOption = False,
) -> None:
    """Say whether the policy in force is that of a file; exit code 0: it is, 1: it is not."""
    found = _planned(client, file, keep=keep_others)
    typer.echo(_summary(found))
    if not found.empty:
        raise typer.Exit(EXIT_DIFFERS)


@with_client
def apply(
    client: AdminClient,
    file: FileArgument,
    *,
    keep_others: KeepOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Make the policy that of a file: all of it in one step, or nothing; not if one of its tests fails."""
    found = _planned(client, file, keep=keep_others)
    typer.echo(_summary(found))
    if found.empty:
        return
    if not yes and not typer.confirm("apply?"):
        raise typer.Exit(EXIT_DIFFERS)
    typer.echo(told("applied", client.revise(found.revision()), f"`{file}`"))


def validate(file: FileArgument) -> None:
    """Read a policy file, run its tests and look for what is odd about it; asks no controller. Exit code 1: a test fails."""
    policy = load_policy(file)
    plan_alone = plan_of(policy, [], mode=policy.mode, epoch=0, keep=False)
    _verify_tests(file, policy, plan_alone, [])
    show_findings(findings_of(rules_of(policy), now=_now()))
    typer.echo(f"{len(policy.rules)} rules, {len(policy.tests)} tests passed")


def conflicts(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="a policy file; without it the policy in force"),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
    folder: FolderOption = None,
    api: ApiOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Find rules that never decide, say the same, contradict, allow very much, or have expired; exit code 1: there are some."""
    if file is not None:
        policy = load_policy(file)
    else:
        rules, mode, _ = _current(admin_client(folder, api=api, ca=ca, cert=cert, key=key))
        policy = PolicyFile(rules=tuple(map(as_written, rules)), mode=mode)
    found = findings_of(rules_of(policy), now=_now())
    if as_json:
        for each in found:
            typer.echo(msgspec.json.encode(each))
    else:
        show_findings(found)
    if found:
        raise typer.Exit(EXIT_DIFFERS)


def show_findings(found: Sequence[Finding]) -> None:
    """Print what is odd about rules, a line each."""
    for each in found:
        typer.echo(f"{each.kind}: {each.text}")


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _current(client: AdminClient) -> tuple[list[RuleRecord], str, int]:
    """The rules, the mode and the epoch, all of one moment."""
    before = client.status()
    rules = list(client.list_rules())
    after = client.status()
    if before.epoch != after.epoch:
        raise CommandFailed("the policy changed while it was read: try again")
    return rules, after.mode, after.epoch


def _planned(client: AdminClient, file: Path, *, keep: bool) -> Plan:
    policy = load_policy(file)
    rules, mode, epoch = _current(client)
    found = plan_of(policy, rules, mode=mode, epoch=epoch, keep=keep)
    _verify_tests(file, policy, found, rules)
    return found


def _verify_tests(
    file: Path, policy: PolicyFile, planned: Plan, rules: Sequence[RuleDraft]
) -> None:
    failures = failures_of(policy, planned, rules, now=_now())
    if failures:
        raise CommandFailed(
            f"{len(failures)} of {len(policy.tests)} tests of `{file}` fail", details=failures
        )


def _summary(found: Plan) -> str:
    counts = {
        "to add": sum(each.before is None for each in found.changes),
        "to change": sum(bool(each.before and each.after) for each in found.changes),
        "to delete": sum(each.after is None for each in found.changes),
    }
    if found.empty:
        return (
            f"nothing to change: {found.unchanged} rules are as in the file (epoch {found.epoch})"
        )
    told_counts = ", ".join(f"{count} {what}" for what, count in counts.items())
    return "\n".join([*sentences(found), f"{told_counts}, {found.unchanged} unchanged"])
