"""From a verified certificate to the one principal it stands for, by ordered rules.

*Rules of this file*: exactly one principal or none. A field that a rule reads must occur exactly once
and in plain spelling; if it does not, the certificate is refused whole, it does not fall through to a later
rule. Rules that disagree refuse. There is no default: no rule, no principal.

The mapping reads names only. Chain, purpose, role and validity are `certs.verify` and TLS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from acl.errors import AclError
from acl.model import Principal, PrincipalKind
from certs.errors import PrincipalRefused, RuleInvalid
from certs.fields import Source, complaint_about, values_of
from certs.spiffe import is_trust_domain
from certs.template import PLACEHOLDER, Template, parse_template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certs.identity import PeerIdentity

MAX_RULES: Final = 64  # each is tried for every new connection
MAX_RULE_NAME_CHARACTERS: Final = 64
MAX_REASON_CHARACTERS: Final = (
    256  # values of a peer's certificate appear in reasons: keep logs small
)
DEFAULT_TRUST_DOMAIN: Final = "stockade.local"
_ID_FOR_TRIAL: Final = "x" * 64  # as long as an id can be


@dataclass(frozen=True, slots=True, kw_only=True)
class PrincipalRule:
    """One mapping rule; checked at construction.

    Attributes:
        name: shown in refusals and explanations.
        source: the certificate field it reads.
        match: template the whole field must fit, e.g. `spiffe://stockade.local/client/{id}`.
        principal: template of the principal's name.
        kind: what the principal is.

    Raises:
        RuleInvalid: a template is wrong, or the rule would give many certificates one name, leave the
            trust domain open, or build a name no principal may have.
    """

    name: str
    source: Source
    match: str
    principal: str = PLACEHOLDER
    kind: PrincipalKind = PrincipalKind.SERVICE
    match_template: Template = field(init=False, repr=False, compare=False)
    principal_template: Template = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (1 <= len(self.name) <= MAX_RULE_NAME_CHARACTERS and self.name.isprintable()):
            raise RuleInvalid(
                f"a rule's name has 1 to {MAX_RULE_NAME_CHARACTERS} printable characters"
            )
        match_template = self._parse("match", self.match)
        principal_template = self._parse("principal", self.principal)
        object.__setattr__(self, "match_template", match_template)
        object.__setattr__(self, "principal_template", principal_template)
        self._verify()

    def _parse(self, key: str, text: str) -> Template:
        try:
            return parse_template(text)
        except RuleInvalid as error:
            raise RuleInvalid(f"rule `{self.name}`, `{key}`: {error}") from error

    def _verify(self) -> None:
        matched, made = self.match_template, self.principal_template
        if matched.has_id != made.has_id:
            raise RuleInvalid(
                f"rule `{self.name}`: `{PLACEHOLDER}` must occur in both `match` and `principal` or in "
                "neither, otherwise certificates of different peers become one principal"
            )
        complaint = complaint_about(matched.fill("x"), self.source)
        if complaint is not None:
            raise RuleInvalid(f"rule `{self.name}` can never match: `{self.match}` {complaint}")
        if self.source == "san.uri":
            self._verify_host()
        try:
            Principal(made.fill(_ID_FOR_TRIAL), self.kind)
        except AclError as error:
            raise RuleInvalid(f"rule `{self.name}`, `principal`: {error}") from error

    def _verify_host(self) -> None:
        scheme, _, rest = self.match.partition("://")
        host = rest.partition("/")[0]
        if PLACEHOLDER in scheme + host:
            raise RuleInvalid(
                f"rule `{self.name}`: `{PLACEHOLDER}` may stand in the path only, so that `match` names "
                "whose namespace it trusts"
            )
        if scheme == "spiffe" and not is_trust_domain(host):
            raise RuleInvalid(f"rule `{self.name}`: `{host}` is not a trust domain")


class Outcome(StrEnum):
    """What one rule says about one certificate."""

    MATCHED = "matched"
    ABSENT = "absent"  # the certificate lacks the field
    DIFFERENT = "different"  # the field does not fit the template
    REFUSED = "refused"  # the field is ambiguous or misspelt: no rule may map this certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleVerdict:
    """What one rule says, and why.

    Attributes:
        rule: the rule's name.
        outcome: what it says.
        reason: why, for humans: printable ASCII, bounded.
        principal: the principal it gives; None unless it matched.
    """

    rule: str
    outcome: Outcome
    reason: str
    principal: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a certificate was mapped, or why it was not.

    Attributes:
        principal: the principal; None when refused.
        rule: the first rule that gave it; empty when refused.
        summary: one line: the principal and rule, or the cause of the refusal.
        verdicts: what every rule says, in order.
    """

    principal: Principal | None
    rule: str
    summary: str
    verdicts: tuple[RuleVerdict, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for every rule, in order."""
        return tuple(f"rule `{v.rule}`: {v.outcome}: {v.reason}" for v in self.verdicts)


class PrincipalMapper:
    """An ordered, immutable list of rules."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[PrincipalRule]) -> None:
        """Take the rules.

        Args:
            rules: in order; the first that matches names the explanation.

        Raises:
            RuleInvalid: two rules have one name, or there are more than `MAX_RULES`.
        """
        if len(rules) > MAX_RULES:
            raise RuleInvalid(f"{len(rules)} principal rules, at most {MAX_RULES} are tried")
        names = [rule.name for rule in rules]
        for name in names:
            if names.count(name) > 1:
                raise RuleInvalid(f"two principal rules are called `{name}`: rename one")
        self._rules = tuple(rules)

    @property
    def rules(self) -> tuple[PrincipalRule, ...]:
        """The rules in order."""
        return self._rules

    def verify_principal(self, identity: PeerIdentity) -> Principal:
        """The one principal of a verified certificate.

        Args:
            identity: what the certificate says.

        Raises:
            PrincipalRefused: no rule, no match, an ambiguous field, or rules that disagree; `.reasons`
                has a line for every rule.
        """
        explanation = self.explain(identity)
        if explanation.principal is None:
            raise PrincipalRefused(explanation.summary, reasons=explanation.reasons)
        return explanation.principal

    def explain(self, identity: PeerIdentity) -> Explanation:
        """Which rule names this certificate, and why the others do not."""
        verdicts = tuple(_judge(rule, identity) for rule in self._rules)
        found = {v.principal: v.rule for v in reversed(verdicts) if v.principal is not None}
        refused = [v for v in verdicts if v.outcome is Outcome.REFUSED]
        if not refused and len(found) == 1:
            [(principal, rule)] = found.items()
            summary = f"{principal.kind} `{principal.name}` by rule `{rule}`"
            return Explanation(principal=principal, rule=rule, summary=summary, verdicts=verdicts)
        return Explanation(
            principal=None, rule="", summary=_cause(verdicts, refused, found), verdicts=verdicts
        )

    @override
    def __repr__(self) -> str:
        return f"PrincipalMapper({', '.join(rule.name for rule in self._rules)})"


def default_rules(trust_domain: str) -> tuple[PrincipalRule, ...]:
    """The rules for certificates of Stockade's own authorities.

    Clients and administrators get their bare id; brokers and controllers are prefixed, which no client's id
    can imitate since ids have no colon.

    Args:
        trust_domain: the SPIFFE trust domain whose authorities are trusted.

    Raises:
        RuleInvalid: not a trust domain.
    """
    return tuple(
        PrincipalRule(
            name=f"spiffe-{role}",
            source="san.uri",
            match=f"spiffe://{trust_domain}/{role}/{PLACEHOLDER}",
            principal=principal,
            kind=kind,
        )
        for role, principal, kind in (
            ("client", PLACEHOLDER, PrincipalKind.SERVICE),
            ("admin", PLACEHOLDER, PrincipalKind.USER),
            ("broker", f"broker:{PLACEHOLDER}", PrincipalKind.SERVICE),
            ("controller", f"controller:{PLACEHOLDER}", PrincipalKind.SERVICE),
        )
    )


DEFAULT_RULES: Final = default_rules(DEFAULT_TRUST_DOMAIN)


def _judge(rule: PrincipalRule, identity: PeerIdentity) -> RuleVerdict:
    match values_of(identity, rule.source):
        case ():
            return _verdict(rule, Outcome.ABSENT, f"the certificate has no {rule.source}")
        case (value,):
            return _judge_value(rule, value)
        case values:
            reason = f"the certificate has {len(values)} values of {rule.source}, exactly one is demanded"
            return _verdict(rule, Outcome.REFUSED, reason)


def _judge_value(rule: PrincipalRule, value: str) -> RuleVerdict:
    shown = f"{rule.source} {value[:MAX_REASON_CHARACTERS]!a}"
    complaint = complaint_about(value, rule.source)
    if complaint is not None:
        return _verdict(rule, Outcome.REFUSED, f"{shown} {complaint}")
    found = rule.match_template.match(value)
    if found is None:
        return _verdict(rule, Outcome.DIFFERENT, f"{shown} does not fit `{rule.match}`")
    principal = Principal(rule.principal_template.fill(found), rule.kind)
    return RuleVerdict(
        rule=rule.name,
        outcome=Outcome.MATCHED,
        reason=f"gives {principal.kind} `{principal.name}`",
        principal=principal,
    )


def _verdict(rule: PrincipalRule, outcome: Outcome, reason: str) -> RuleVerdict:
    return RuleVerdict(rule=rule.name, outcome=outcome, reason=reason[: 2 * MAX_REASON_CHARACTERS])


def _cause(
    verdicts: Sequence[RuleVerdict], refused: Sequence[RuleVerdict], found: dict[Principal, str]
) -> str:
    if not verdicts:
        return "there are no principal rules: nobody can be named"
    if refused:
        return refused[0].reason
    if found:
        named = ", ".join(f"`{p.name}` ({p.kind}, rule `{rule}`)" for p, rule in found.items())
        return f"the rules disagree on who this is: {named}"
    return "no principal rule matches the certificate"
