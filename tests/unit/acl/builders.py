"""Test builders that read as sentences."""

from __future__ import annotations

from acl.decide import Outcome
from acl.model import AccessRequest, Effect, Operation, Principal, Resource, parse_operations
from acl.rules import AclRule

__all__ = ["Outcome", "a_request", "a_rule"]


def a_rule(
    rule_id: str = "r",
    *,
    principal: str = "sensor",
    resource: str = "topic.telemetry.**",
    operations: str = "write",
    effect: str = "allow",
    priority: int = 0,
    enabled: bool = True,
    condition: str = "",
    expires_at: float | None = None,
    tags: tuple[str, ...] = (),
) -> AclRule:
    return AclRule(
        id=rule_id,
        principal=principal,
        resource=resource,
        operations=parse_operations(operations),
        effect=Effect(effect),
        priority=priority,
        enabled=enabled,
        condition=condition,
        expires_at=expires_at,
        tags=tags,
    )


def a_request(
    principal: str = "sensor", operation: str = "write", resource: str = "topic.telemetry.cpu"
) -> AccessRequest:
    return AccessRequest(
        Principal(principal), Operation[operation.upper()], Resource.parse(resource)
    )
