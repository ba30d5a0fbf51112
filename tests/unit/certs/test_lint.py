from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.errors import IssueRefused
from certs.lint import lint_authority, lint_leaf, verify_authority, verify_leaf
from certs.profiles import PROFILES, Role
from tests.pki import TestPki

CLIENT = PROFILES[Role.CLIENT]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("pki"))


def findings(pki: TestPki, certificate: x509.Certificate, role: Role = Role.CLIENT) -> str:
    return "; ".join(lint_leaf(certificate, profile=PROFILES[role], issuer=pki.issuing.certificate))


def test_good_certificates_have_no_findings(pki: TestPki) -> None:
    issuer = pki.issuing.certificate
    for certificate, role in (
        (pki.client("c").certificate, Role.CLIENT),
        (pki.admin().certificate, Role.ADMIN),
        (pki.broker().certificate, Role.BROKER),
        (pki.controller().certificate, Role.CONTROLLER),
    ):
        assert verify_leaf(certificate, profile=PROFILES[role], issuer=issuer) is certificate
    for authority in (pki.root.certificate, issuer):
        assert verify_authority(authority, issuer=pki.root.certificate) is authority


def test_each_fault_of_a_leaf_is_found(pki: TestPki) -> None:
    assert "extended key usages" in findings(pki, pki.without_eku("x").certificate)
    assert "extended key usages" in findings(pki, pki.any_eku("x").certificate)
    assert "extended key usages" in findings(pki, pki.server_only("x").certificate)
    assert "exactly one URI" in findings(pki, pki.two_uris("x").certificate)
    assert "exactly one URI" in findings(pki, pki.without_uri("x").certificate)
    assert "not signed by its issuer" in findings(pki, pki.self_signed("x").certificate)
    assert "not signed by its issuer" in findings(pki, pki.foreign("x").certificate)
    assert "authority key id" in findings(pki, pki.sibling("x").certificate)
    assert "it has hosts" in findings(pki, pki.leaf("h", "x", dns_names=("a.b",)).certificate)
    assert "another kind" in findings(pki, pki.leaf("e", "x", emails=("a@b.c",)).certificate)
    assert "outlives" in findings(pki, pki.leaf("o", "x", ends_s=10**9).certificate)
    assert "role admin" in findings(pki, pki.client("r").certificate, Role.ADMIN)
    assert "no hosts" in findings(pki, pki.client("n").certificate, Role.BROKER)


def test_each_fault_of_an_encoding_is_found(pki: TestPki) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(pki.issuing.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(int(pki.now), UTC))
        .not_valid_after(datetime.fromtimestamp(int(pki.now), UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(pki.issuing.key, hashes.SHA384())
    )
    found = findings(pki, certificate)
    for fault in (
        "serial",
        "not P-256",
        "not signed with SHA-256",
        "never valid",
        "no subject key id",
        "authority key id",
        "basic constraints",
        "key usage is not",
        "exactly one URI",
    ):
        assert fault in found
    with pytest.raises(IssueRefused, match=r"must not be used: .*serial.*; .*P-256"):
        verify_leaf(certificate, profile=CLIENT, issuer=pki.issuing.certificate)


def test_leaf_is_no_authority_and_an_authority_no_leaf(pki: TestPki) -> None:
    leaf, issuer = pki.client("leaf").certificate, pki.issuing.certificate
    assert list(lint_authority(leaf, issuer=issuer))
    assert list(lint_leaf(issuer, profile=CLIENT, issuer=pki.root.certificate))
    with pytest.raises(IssueRefused):
        verify_authority(leaf, issuer=issuer)


def test_authority_below_an_issuing_authority_is_found(pki: TestPki) -> None:
    issuing = pki.issuing.certificate
    assert "allows no authority below" in "; ".join(lint_authority(issuing, issuer=issuing))


def test_leaf_directly_below_the_root_is_found(pki: TestPki) -> None:
    found = "; ".join(
        lint_leaf(pki.client("d").certificate, profile=CLIENT, issuer=pki.root.certificate)
    )
    assert "not an authority for leaves" in found
