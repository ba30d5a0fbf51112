"""Who an API certificate stands for, and that denials are recorded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from acl.model import Operation, Principal, PrincipalKind, Resource, ResourceKind
from certs.errors import CertificateInvalid
from controller.access import Denied, Gate, principal_of
from controller.commands import RuleDraft
from tests.pki import TRUST_DOMAIN, TestPki
from tests.unit.controller.parts import Recorder, build_parts

RULES = Resource(ResourceKind.ACL, ("rules",))


def test_principals_of_different_roles_never_meet(tmp_path: Path) -> None:
    pki = TestPki(tmp_path)
    named = {
        principal_of(issued.identity, TRUST_DOMAIN)
        for issued in (pki.admin("x"), pki.client("x"), pki.broker("x"), pki.controller("x"))
    }
    assert {principal.name for principal in named} == {"x", "client:x", "broker:x", "controller:x"}
    assert principal_of(pki.admin("x").identity, TRUST_DOMAIN).kind is PrincipalKind.USER


def test_principal_of_another_trust_domain_or_two_names_is_refused(tmp_path: Path) -> None:
    pki = TestPki(tmp_path)
    for issued in (pki.other_trust_domain("x"), pki.two_uris("x"), pki.without_uri("x")):
        with pytest.raises(CertificateInvalid):
            principal_of(issued.identity, TRUST_DOMAIN)


async def test_gate_permits_by_rule_and_records_what_became_of_it() -> None:
    parts, audit = build_parts(), Recorder()
    await parts.authority.add_rule(
        RuleDraft(id="mine", principal="admin", resource="acl.**", operations="create"), by="boot"
    )
    gate = Gate(parts.authority, audit)
    permit = gate.verify_allowed(Principal("admin"), Operation.CREATE, RULES)
    assert audit.events == []
    permit.record("acl.rule_added", changed_rule="r-1")
    [event] = audit.events
    assert event["kind"] == "acl.rule_added"
    assert (event["principal"], event["action"], event["resource"]) == (
        "admin",
        "create",
        "acl.rules",
    )
    assert event["outcome"] == "allow"
    details = event["details"]
    assert isinstance(details, dict)
    assert (details["rule_id"], details["changed_rule"]) == ("mine", "r-1")


async def test_gate_denies_with_the_reason_and_records_it_once() -> None:
    parts, audit = build_parts(), Recorder()
    gate = Gate(parts.authority, audit)
    with pytest.raises(Denied, match=r"`mallory` may not delete `acl\.rules`: no rule") as caught:
        gate.verify_allowed(Principal("mallory"), Operation.DELETE, RULES)
    assert caught.value.status == 403
    [event] = audit.events
    details = event["details"]
    assert isinstance(details, dict)
    assert (event["kind"], event["outcome"]) == ("authorization.denied", "deny")
    assert details["decision_id"] == caught.value.decision.id
