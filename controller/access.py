"""Who an API certificate stands for, and whether he may: every denial is recorded here, once.

An administrator `admin/NAME` is the principal `NAME`; every other role is `ROLE:NAME`. So a device that happens to be
called like an administrator never matches that administrator's rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from acl.model import AccessRequest, Operation, Principal, PrincipalKind, Resource, text_of
from certs.verify import verify_spiffe
from transport.http import RequestRefused

if TYPE_CHECKING:
    from acl.decide import Decision
    from certs.identity import PeerIdentity
    from controller.audit import AuditSink
    from controller.authority import PolicyAuthority

ADMIN_ROLE = "admin"


def principal_of(identity: PeerIdentity, trust_domain: str) -> Principal:
    """Return who an API certificate stands for.

    Raises:
        CertificateInvalid: it has no single SPIFFE id of the trust domain.
    """
    spiffe = verify_spiffe(identity, trust_domain=trust_domain)
    if spiffe.role == ADMIN_ROLE:
        return Principal(spiffe.id, PrincipalKind.USER)
    return Principal(f"{spiffe.role}:{spiffe.id}", PrincipalKind.SERVICE)


class Denied(RequestRefused):
    """A denial; becomes a 403 that says who may not do what, and why."""

    def __init__(self, asked: AccessRequest, decision: Decision) -> None:
        super().__init__(
            HTTPStatus.FORBIDDEN,
            f"`{asked.principal.name}` may not {text_of(asked.operation)} "
            f"`{asked.resource.text}`: {decision.reason}",
        )
        self.decision = decision


@dataclass(frozen=True, slots=True)
class Permit:
    """A request that is allowed, by which decision, and where to record what became of it."""

    asked: AccessRequest
    decision: Decision
    audit: AuditSink

    def record(self, kind: str, **details: str) -> None:
        """Record one event about this request."""
        _record(self.audit, kind, self.asked, self.decision, details)


class Gate:
    """Decides requests of administrators."""

    def __init__(self, authority: PolicyAuthority, audit: AuditSink) -> None:
        """Put the parts together.

        Args:
            authority: decides.
            audit: takes denials, and what permits record.
        """
        self._authority = authority
        self._audit = audit

    def verify_allowed(
        self, principal: Principal, operation: Operation, resource: Resource
    ) -> Permit:
        """Return a permit, or refuse.

        Raises:
            Denied: it is not allowed; the denial is recorded.
        """
        asked = AccessRequest(principal, operation, resource)
        decision = self._authority.decide(asked)
        if not decision.allowed:
            _record(self._audit, "authorization.denied", asked, decision, {})
            raise Denied(asked, decision)
        return Permit(asked, decision, self._audit)


def _record(
    audit: AuditSink,
    kind: str,
    asked: AccessRequest,
    decision: Decision,
    details: dict[str, str],
) -> None:
    audit.record(
        kind=kind,
        principal=asked.principal.name,
        action=text_of(asked.operation),
        resource=asked.resource.text,
        outcome=decision.outcome.value,
        reason=decision.reason,
        details={
            "decision_id": decision.id,
            "epoch": str(decision.epoch),
            "rule_id": decision.rule_id or "",
            **details,
        },
    )
