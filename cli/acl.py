"""`stockade acl`: see, change and try the policy, over the controller's admin API."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from acl.combine import Combination
from acl.decide import Outcome
from acl.patterns import parse_principal_pattern
from cli.failure import CommandFailed
from cli.target import with_client
from controller.admin import AdminClient
from controller.commands import RuleDraft, as_written
from controller.documents import Revision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controller.commands import RuleRecord
    from controller.documents import ChangeDocument, GrantsDocument

app = typer.Typer(help="See, change and try the policy.", no_args_is_help=True)

EXIT_DENIED = 1

COLUMNS = ("id", "principal", "operations", "resource", "effect", "priority", "description")


MOMENT_FORMATS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"]


class Effects(StrEnum):
    """What a rule may do."""

    ALLOW = "allow"
    DENY = "deny"


@app.command("list")
@with_client
def list_rules(
    client: AdminClient,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
    search: Annotated[
        str,
        typer.Option(help="only those with this in id, principal, resource, name or description"),
    ] = "",
    tag: Annotated[str, typer.Option(help="only those with this tag")] = "",
    principal: Annotated[
        str, typer.Option(help="only those that are about this principal, by name or pattern")
    ] = "",
) -> None:
    """List the rules in force."""
    rules = [
        rule
        for rule in client.list_rules()
        if is_wanted(rule, search=search, tag=tag, principal=principal)
    ]
    if as_json:
        for rule in rules:
            typer.echo(msgspec.json.encode(rule))
        return
    Console().print(table_of(rules))


def is_wanted(rule: RuleDraft, *, search: str, tag: str, principal: str) -> bool:
    """Whether a rule is among those asked for; what is empty is not asked.

    Args:
        rule: the rule.
        search: a text in what it says, upper and lower case alike.
        tag: one of its tags.
        principal: a name its principal pattern matches.

    Raises:
        AclError: its principal is no pattern.
    """
    texts = (rule.id, rule.principal, rule.resource, rule.name, rule.description)
    return (
        any(search.casefold() in text.casefold() for text in texts)
        and (not tag or tag in rule.tags)
        and (not principal or parse_principal_pattern(rule.principal).matches(principal))
    )


def table_of(rules: Sequence[RuleRecord]) -> Table:
    """The rules as a table.

    Args:
        rules: in the order of the table.
    """
    table = Table(*COLUMNS, title=f"{len(rules)} rules")
    for rule in rules:
        cells = [escape(str(getattr(rule, column))) for column in COLUMNS]
        table.add_row(*cells, style=None if rule.enabled else "dim")
    return table


@app.command("add")
@with_client
def add_rule(
    client: AdminClient,
    *,
    principal: Annotated[str, typer.Option(help="whom it is about, e.g. `sensor` or `sensor-*`")],
    operations: Annotated[str, typer.Option(help="e.g. `read,write`, or `all`")],
    resource: Annotated[str, typer.Option(help="e.g. `topic.telemetry.**` or `kernel.zscore`")],
    effect: Annotated[Effects, typer.Option(help="a deny always wins")] = Effects.ALLOW,
    rule_id: Annotated[str, typer.Option("--id", help="its name; made up when left out")] = "",
    priority: Annotated[int, typer.Option(help="which rule is named first as the reason")] = 0,
    description: Annotated[str, typer.Option(help="for people")] = "",
    condition: Annotated[
        str,
        typer.Option(help="when it applies, e.g. 'time in \"Mon-Fri 08:00-18:00 Europe/Berlin\"'"),
    ] = "",
    expires: Annotated[
        datetime | None,
        typer.Option(formats=MOMENT_FORMATS, help="from then on it applies no more (UTC)"),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="a word to find it by; may be repeated")
    ] = None,
) -> None:
    """Add a rule; returns when it is on disk and connected brokers have it."""
    draft = RuleDraft(
        id=rule_id,
        principal=principal,
        resource=resource,
        operations=operations,
        effect=effect.value,
        priority=priority,
        description=description,
        condition=condition,
        expires_at=None if expires is None else _moment(expires),
        tags=tuple(tag or ()),
    )
    change = client.add_rule(draft)
    typer.echo(told("added", change))


@app.command("delete")
@with_client
def delete_rule(
    client: AdminClient,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="the rule's id")],
) -> None:
    """Delete a rule; returns when that is on disk and connected brokers know it."""
    change = client.delete_rule(rule_id)
    typer.echo(told("deleted", change))


@app.command("info")
@with_client
def show_rule(
    client: AdminClient,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="the rule's id")],
) -> None:
    """Show everything about one rule, as JSON."""
    rule = client.rule(rule_id)
    typer.echo(msgspec.json.format(msgspec.json.encode(rule)))


@app.command("update")
@with_client
def update_rule(
    client: AdminClient,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="the rule's id")],
    *,
    principal: Annotated[str | None, typer.Option(help="the new principal pattern")] = None,
    operations: Annotated[str | None, typer.Option(help="the new operations")] = None,
    resource: Annotated[str | None, typer.Option(help="the new resource pattern")] = None,
    effect: Annotated[Effects | None, typer.Option(help="the new effect")] = None,
    priority: Annotated[int | None, typer.Option(help="the new priority")] = None,
    description: Annotated[str | None, typer.Option(help="for people")] = None,
    condition: Annotated[
        str | None, typer.Option(help="the new condition; an empty one: none")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=MOMENT_FORMATS, help="the new end (UTC)")
    ] = None,
) -> None:
    """Change a rule in one step: there is no moment without it."""
    asked = {
        "principal": principal,
        "operations": operations,
        "resource": resource,
        "effect": None if effect is None else effect.value,
        "priority": priority,
        "description": description,
        "condition": condition,
        "expires_at": None if expires is None else _moment(expires),
    }
    changes = {field: value for field, value in asked.items() if value is not None}
    if not changes:
        raise CommandFailed("nothing to change: give at least one option, see `--help`")
    typer.echo(told("changed", _replace(client, rule_id, changes), f"`{rule_id}`"))


@app.command("enable")
@with_client
def enable_rule(
    client: AdminClient,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="the rule's id")],
) -> None:
    """Have a rule take part in decisions."""
    typer.echo(told("enabled", _replace(client, rule_id, {"enabled": True}), f"`{rule_id}`"))


@app.command("disable")
@with_client
def disable_rule(
    client: AdminClient,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="the rule's id")],
) -> None:
    """Keep a rule, but out of every decision."""
    typer.echo(told("disabled", _replace(client, rule_id, {"enabled": False}), f"`{rule_id}`"))


def _replace(
    client: AdminClient, rule_id: str, changes: Mapping[str, str | float | bool]
) -> ChangeDocument:
    """Replace fields of a rule, if nobody changes the policy meanwhile."""
    epoch = client.status().epoch
    rule = client.rule(rule_id)
    draft = msgspec.structs.replace(as_written(rule), **changes)
    return client.revise(Revision(put=(draft,), expected_epoch=epoch))


@app.command("test")
@with_client
def try_access(
    client: AdminClient,
    *,
    principal: Annotated[str, typer.Option(help="a principal's name")],
    operation: Annotated[str, typer.Option(help="one operation, e.g. `write`")],
    resource: Annotated[str, typer.Option(help="e.g. `topic.telemetry.cpu`")],
    at: Annotated[
        datetime | None,
        typer.Option(formats=MOMENT_FORMATS, help="a moment to try it at (UTC); now if left out"),
    ] = None,
) -> None:
    """Say what would be decided and why; exit code 0: allowed, 1: denied."""
    decision = client.test(principal, operation, resource, at=None if at is None else _moment(at))
    rule = f"by rule `{decision.rule_id}`" if decision.rule_id else "by no rule"
    typer.echo(f"{decision.outcome} {rule}: {decision.reason} (epoch {decision.epoch})")
    if decision.valid_until is not None:
        until = datetime.fromtimestamp(decision.valid_until, UTC)
        typer.echo(f"it may be decided otherwise from {until:%Y-%m-%d %H:%M:%S} UTC on")
    if decision.losing:
        others = ", ".join(f"`{rule_id}`" for rule_id in decision.losing)
        typer.echo(f"these apply too, and do not decide ({decision.mode}): {others}")
    if decision.outcome != Outcome.ALLOW.value:
        raise typer.Exit(EXIT_DENIED)


@app.command("who-can")
@with_client
def who_can(
    client: AdminClient,
    operation: Annotated[str, typer.Argument(help="one operation, e.g. `write`")],
    resource: Annotated[str, typer.Argument(help="e.g. `topic.telemetry.cpu`")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """List the principals, or patterns of principals, that may do one operation on one resource."""
    found = client.who_can(operation, resource)
    show_grants(found, ("principal", "rule_id", "unless"), as_json=as_json)


@app.command("what-can")
@with_client
def what_can(
    client: AdminClient,
    principal: Annotated[str, typer.Argument(help="a principal's name")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """List what a principal may do, by patterns of resources."""
    found = client.what_can(principal)
    show_grants(found, ("resource", "operations", "rule_id", "unless"), as_json=as_json)


def show_grants(found: GrantsDocument, columns: Sequence[str], *, as_json: bool) -> None:
    """Print what is allowed.

    Args:
        found: the controller's answer.
        columns: fields of a grant, in the order of the table.
        as_json: the whole answer instead of a table.
    """
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table(
        *columns, title=f"{len(found.grants)} grants by {found.mode} (epoch {found.epoch})"
    )
    for grant in found.grants:
        cells = {**msgspec.structs.asdict(grant), "unless": ", ".join(grant.unless)}
        table.add_row(*(escape(cells[column]) for column in columns))
    Console().print(table)
    if found.more:
        typer.echo(f"and {found.more} more: ask about something narrower")


@app.command("mode")
@with_client
def set_mode(
    client: AdminClient,
    mode: Annotated[
        Combination | None,
        typer.Argument(help="the new mode; without it the one in force is shown"),
    ] = None,
) -> None:
    """Show or set what several rules that apply add up to; `acl test` and `acl who-can` tell what that means for you."""
    if mode is None:
        typer.echo(client.status().mode)
        return
    typer.echo(told("set", client.set_mode(mode.value), f"mode `{mode.value}`"))


def _moment(written: datetime) -> float:
    """What an option without a zone means: UTC."""
    return written.replace(tzinfo=UTC).timestamp()


def told(what: str, change: ChangeDocument, whom: str = "") -> str:
    """What an administrator is told after a change.

    Args:
        what: what was done.
        change: the controller's answer.
        whom: to what, if not to a rule.
    """
    line = f"{what} {whom or f'`{change.result.rule_id}`'} (epoch {change.result.epoch})"
    if change.lagging_brokers:
        lagging = ", ".join(f"`{broker}`" for broker in change.lagging_brokers)
        line += f"; not confirmed yet by {lagging}: may still decide by the policy before it"
    return line
