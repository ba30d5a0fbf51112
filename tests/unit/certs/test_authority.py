from __future__ import annotations

import pytest
from cryptography import x509

from certs.authority import CertificateAuthority, create_root
from certs.errors import IssueRefused
from certs.keys import generate_key
from certs.profiles import (
    BACKDATE_S,
    ISSUING_LIFETIME_S,
    LEAF_LIFETIME_S,
    PROFILES,
    ROOT_LIFETIME_S,
    Role,
)

NOW = 1_800_000_000.0
DOMAIN = "plant.example"
ROOT = create_root("root", trust_domain=DOMAIN, key=generate_key(), now=NOW)
ISSUING = ROOT.create_issuing("prod", key=generate_key(), now=NOW)


def issue(
    role: Role = Role.CLIENT,
    name: str = "sensor",
    *,
    by: CertificateAuthority = ISSUING,
    now: float = NOW,
    hosts: tuple[str, ...] = (),
    lifetime_s: float | None = None,
) -> x509.Certificate:
    return by.issue(
        PROFILES[role],
        id=name,
        public_key=generate_key().public_key(),
        now=now,
        hosts=hosts,
        lifetime_s=lifetime_s,
    )


def span(certificate: x509.Certificate) -> tuple[float, float]:
    return (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def test_root_and_issuing_authority_have_their_path_lengths_and_lifetimes() -> None:
    for authority, path_length, lifetime_s in (
        (ROOT, 1, ROOT_LIFETIME_S),
        (ISSUING, 0, ISSUING_LIFETIME_S),
    ):
        found = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert found.critical
        assert found.value == x509.BasicConstraints(ca=True, path_length=path_length)
        assert span(authority.certificate) == (NOW - BACKDATE_S, NOW + lifetime_s)
    ISSUING.certificate.verify_directly_issued_by(ROOT.certificate)
    ROOT.certificate.verify_directly_issued_by(ROOT.certificate)


def test_leaf_of_a_client_is_its_spiffe_id_and_nothing_else() -> None:
    leaf = issue()
    assert names(leaf) == ["spiffe://plant.example/client/sensor"]
    assert leaf.subject.rfc4514_string() == "CN=sensor,OU=client,O=Stockade"
    assert span(leaf) == (NOW - BACKDATE_S, NOW + LEAF_LIFETIME_S)
    leaf.verify_directly_issued_by(ISSUING.certificate)


def test_leaf_of_a_server_has_its_hosts() -> None:
    leaf = issue(Role.BROKER, "b1", hosts=("broker.example", "127.0.0.1", "::1"))
    assert names(leaf) == [
        "spiffe://plant.example/broker/b1",
        "broker.example",
        "127.0.0.1",
        "::1",
    ]


def test_serials_are_random_positive_and_of_full_length() -> None:
    serials = {issue().serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(64 <= serial.bit_length() <= 159 for serial in serials)


def test_leaf_never_outlives_its_authority() -> None:
    end = ISSUING.certificate.not_valid_after_utc.timestamp()
    assert span(issue(now=end - 60))[1] == end
    with pytest.raises(IssueRefused, match="expired: renew it first"):
        issue(now=end + 1)


def test_issuing_authority_never_outlives_the_root() -> None:
    end = ROOT.certificate.not_valid_after_utc.timestamp()
    late = ROOT.create_issuing("late", key=generate_key(), now=end - 60)
    assert span(late.certificate)[1] == end


def test_authority_renewed_under_its_key_still_vouches_for_its_leaves() -> None:
    leaf = issue()
    renewed = ROOT.create_issuing("prod", key=ISSUING.key, now=NOW + 1_000)
    assert renewed.certificate != ISSUING.certificate
    leaf.verify_directly_issued_by(renewed.certificate)


@pytest.mark.parametrize("lifetime_s", [0, -1, LEAF_LIFETIME_S + 1, float("nan"), float("inf")])
def test_lifetime_beyond_the_profile_is_refused(lifetime_s: float) -> None:
    with pytest.raises(IssueRefused, match="lives at most"):
        issue(lifetime_s=lifetime_s)


def test_lifetime_may_be_shorter() -> None:
    assert span(issue(lifetime_s=3_600))[1] == NOW + 3_600


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "a,CN=admin", "a\0", "é", "x" * 65, "+", "#"]
)
def test_id_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(IssueRefused, match="cannot be an id"):
        issue(name=name)


def test_hosts_are_for_servers_only_and_needed_there() -> None:
    with pytest.raises(IssueRefused, match="for no host"):
        issue(Role.CLIENT, hosts=("localhost",))
    with pytest.raises(IssueRefused, match="hosts"):
        issue(Role.BROKER)


def test_trust_domain_in_another_spelling_is_refused() -> None:
    with pytest.raises(IssueRefused, match="not a trust domain"):
        create_root("root", trust_domain="Plant.example", key=generate_key(), now=NOW)


def test_authority_with_a_foreign_key_is_refused() -> None:
    with pytest.raises(IssueRefused, match="do not belong together"):
        CertificateAuthority(
            certificate=ISSUING.certificate, key=generate_key(), trust_domain=DOMAIN
        )


def test_issuing_authority_cannot_make_another() -> None:
    with pytest.raises(IssueRefused, match="path length"):
        ISSUING.create_issuing("below", key=generate_key(), now=NOW)


def test_root_cannot_issue_leaves() -> None:
    with pytest.raises(IssueRefused, match="path length 0"):
        issue(by=ROOT)


def test_authority_does_not_show_its_key() -> None:
    assert "key=" not in repr(ISSUING)
