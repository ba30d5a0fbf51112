"""The controller's settings file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from acl.combine import Combination
from acl.errors import AclError
from certs.settings import SettingsError, load_settings
from controller.commands import Bootstrap, RuleDraft, encode_command
from controller.raft_log import MAX_COMMAND_BYTES
from controller.state import mode_of, rule_of

MAX_PORT = 65535


class ControllerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one controller member; every attribute is a key of the TOML file.

    Relative paths are relative to the file. Addresses are `host:port`; port 0 takes any free port, which `ready_file`
    then names.

    Attributes:
        node_id: this member's name; storage of another member is refused.
        data_dir: directory of journal and snapshot; created with mode 0700, used by one process at a time.
        rpc_listen: where brokers connect.
        api_listen: where administrators and Prometheus connect.
        certificate: PEM, this controller's certificate followed by its issuing authority.
        key: PEM, its private key, mode 0600.
        anchor: PEM, the one issuing authority whose certificates are accepted.
        trust_domain: the SPIFFE trust domain of all certificates.
        bootstrap_policy: the first rules, applied once while there is no policy at all; either a TOML file with
            `[[rules]]` tables, or `[[bootstrap_policy]]` tables here. Each has `principal`, `resource`, `operations`
            and optionally `id`, `effect`, `priority`, `name`, `description`, `enabled`.
        bootstrap_mode: the combination mode of the first policy; a policy file's own `mode` counts instead.
        audit_file: where administrative changes and denials are recorded; without it they go to the log.
        ready_file: written (JSON: `rpc`, `api`) once everything listens, removed at the end.
        log_json: log lines as JSON instead of text.
    """

    node_id: str
    data_dir: Path
    rpc_listen: str
    api_listen: str
    certificate: Path
    key: Path
    anchor: Path
    trust_domain: str = "stockade.local"
    bootstrap_policy: str | tuple[RuleDraft, ...] = ()
    bootstrap_mode: str = Combination.DENY_OVERRIDES.value
    audit_file: Path | None = None
    ready_file: Path | None = None
    log_json: bool = False

    @property
    def first_rules(self) -> tuple[RuleDraft, ...]:
        """The bootstrap policy; `load_config` has read the file it may be in."""
        return () if isinstance(self.bootstrap_policy, str) else self.bootstrap_policy


class PolicyTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy is to decide.

    Attributes:
        principal: a name.
        operation: one operation.
        resource: a resource's text.
        expect: what is to be decided.
        rule: id of the rule that is to decide it; empty: whichever.
        at: the moment to decide at, with an offset; None: when it is run.
        description: for people.
    """

    principal: str
    operation: str
    resource: str
    expect: Literal["allow", "deny"]
    rule: str = ""
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    description: str = ""


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of rules.

    Attributes:
        rules: the rules, in any order.
        mode: what several rules that apply add up to.
        tests: what it is to decide; for `stockade acl plan` and `apply`.
    """

    rules: tuple[RuleDraft, ...]
    mode: str = Combination.DENY_OVERRIDES.value
    tests: tuple[PolicyTest, ...] = ()


def load_config(path: Path) -> ControllerConfig:
    """Read and verify the settings file, and the policy file it may name.

    Raises:
        SettingsError: says where and what.
    """
    config = load_settings(path, ControllerConfig)
    if isinstance(config.bootstrap_policy, str):
        policy = load_settings(path.parent / config.bootstrap_policy, PolicyFile)
        config = msgspec.structs.replace(
            config, bootstrap_policy=policy.rules, bootstrap_mode=policy.mode
        )
    try:
        mode_of(config.bootstrap_mode)
    except AclError as error:
        raise SettingsError(f"`{path}`: {error}") from error
    if not config.node_id or len(config.node_id) > 64:  # noqa: PLR2004 - as long as a SPIFFE id's segment
        raise SettingsError(f"`{path}`: key `node_id`: use 1 to 64 characters")
    for key, address in (("rpc_listen", config.rpc_listen), ("api_listen", config.api_listen)):
        try:
            parse_address(address)
        except ValueError as error:
            raise SettingsError(f"`{path}`: key `{key}`: {error}") from error
    _verify_rules(path, config.first_rules)
    return config


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is no such text.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(f"`{text}` is no `host:port`")
    if not (port.isascii() and port.isdecimal()) or int(port) > MAX_PORT:
        raise ValueError(f"`{text}`: the port is a number from 0 to {MAX_PORT}")
    return (host[1:-1] if bracketed else host), int(port)


def _verify_rules(path: Path, rules: tuple[RuleDraft, ...]) -> None:
    """Refuse a bootstrap policy that the state would refuse, while somebody is looking."""
    seen: set[str] = set()
    for number, draft in enumerate(rules, 1):
        if draft.id in seen:
            raise SettingsError(
                f"`{path}`: bootstrap rule {number}: id `{draft.id}` is there twice"
            )
        seen.update({draft.id} - {""})
        try:
            rule_of(draft if draft.id else msgspec.structs.replace(draft, id=f"bootstrap-{number}"))
        except AclError as error:
            raise SettingsError(f"`{path}`: bootstrap rule {number}: {error}") from error
    command = Bootstrap(request_id="q" * 64, at=0.0, by="bootstrap", rules=rules)
    if len(encode_command(command)) > MAX_COMMAND_BYTES // 2:
        raise SettingsError(
            f"`{path}`: the bootstrap policy is too large: add most rules over the admin API"
        )
