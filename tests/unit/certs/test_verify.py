from __future__ import annotations

import math

import pytest

from certs.errors import CertificateInvalid
from certs.identity import PeerIdentity
from certs.verify import verify_peer, verify_spiffe
from tests.pki import TRUST_DOMAIN, TestPki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("pki"))


def reason(identity: PeerIdentity, now: float) -> str:
    with pytest.raises(CertificateInvalid) as caught:
        verify_peer(
            identity,
            purpose="client",
            now=now,
            trust_domain=TRUST_DOMAIN,
            roles=frozenset({"client", "admin"}),
        )
    return caught.value.reason


def test_peer_that_fits_is_returned_as_it_is(pki: TestPki) -> None:
    identity = pki.client("sensor").identity
    assert verify_peer(identity, purpose="client", now=pki.now) is identity
    assert (
        verify_peer(
            identity, purpose="client", now=pki.now, trust_domain=TRUST_DOMAIN, roles=["client"]
        )
        is identity
    )


def test_peer_server_may_be_client_too_but_not_the_other_way_round(pki: TestPki) -> None:
    verify_peer(pki.broker().identity, purpose="client", now=pki.now)
    verify_peer(pki.broker("b2").identity, purpose="server", now=pki.now)
    with pytest.raises(CertificateInvalid, match="not for server authentication"):
        verify_peer(pki.client("x").identity, purpose="server", now=pki.now)


def test_peer_is_refused_with_the_reason_of_its_one_fault(pki: TestPki) -> None:
    assert reason(pki.expired("x").identity, pki.now) == "expired"
    assert reason(pki.not_yet_valid("x").identity, pki.now) == "not_yet_valid"
    assert reason(pki.without_eku("x").identity, pki.now) == "purpose"
    assert reason(pki.any_eku("x").identity, pki.now) == "purpose"
    assert reason(pki.server_only("x").identity, pki.now) == "purpose"
    assert reason(pki.two_uris("x").identity, pki.now) == "spiffe"
    assert reason(pki.without_uri("x").identity, pki.now) == "spiffe"
    assert reason(pki.other_trust_domain("x").identity, pki.now) == "trust_domain"
    assert reason(pki.broker("role").identity, pki.now) == "role"


def test_peer_validity_ends_with_its_last_second(pki: TestPki) -> None:
    identity = pki.expiring("x", in_s=60).identity
    verify_peer(identity, purpose="client", now=identity.not_before)
    verify_peer(identity, purpose="client", now=identity.not_after)
    for now in (identity.not_before - 1, identity.not_after + 1, math.nan, math.inf, -math.inf):
        with pytest.raises(CertificateInvalid):
            verify_peer(identity, purpose="client", now=now)


def test_peer_with_no_role_allowed_is_refused(pki: TestPki) -> None:
    with pytest.raises(CertificateInvalid, match="allowed here: none"):
        verify_peer(
            pki.client("none").identity,
            purpose="client",
            now=pki.now,
            trust_domain=TRUST_DOMAIN,
            roles=(),
        )


def test_roles_without_a_trust_domain_are_a_bug(pki: TestPki) -> None:
    with pytest.raises(ValueError, match="name the trust domain"):
        verify_peer(pki.client("bug").identity, purpose="client", now=pki.now, roles=["client"])


def test_spiffe_of_a_peer_is_parsed(pki: TestPki) -> None:
    spiffe = verify_spiffe(pki.broker("b1").identity, trust_domain=TRUST_DOMAIN)
    assert (spiffe.trust_domain, spiffe.role, spiffe.id) == (TRUST_DOMAIN, "broker", "b1")
