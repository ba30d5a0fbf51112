from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import given, settings, strategies as st

from certs.errors import CertificateInvalid
from certs.identity import (
    MAX_CERTIFICATE_BYTES,
    MAX_NAMES,
    MAX_SUBJECT_CHARACTERS,
    describe_name,
    read_identity,
)
from certs.keys import generate_key
from certs.profiles import Role
from tests.pki import TestPki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("pki"))


def test_identity_says_what_the_certificate_says(pki: TestPki) -> None:
    issued = pki.broker()
    identity = read_identity(issued.der)
    assert identity.uris == (pki.uri(Role.BROKER, "broker"),)
    assert identity.dns_names == ("localhost",)
    assert identity.emails == ()
    assert identity.common_names == ("broker",)
    assert identity.subject == "CN=broker,OU=broker,O=Stockade"
    assert identity.purposes == {"client", "server"}
    assert identity.serial == issued.certificate.serial_number
    assert identity.fingerprint == hashlib.sha256(issued.der).digest()
    assert identity.not_before < pki.now < identity.not_after
    issuer = pki.issuing.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert identity.issuer_key_id == issuer.value.key_identifier


def test_identity_keeps_every_value_in_order(pki: TestPki) -> None:
    issued = pki.leaf(
        "many",
        "x",
        uris=("spiffe://b/client/b", "spiffe://a/client/a"),
        dns_names=("b.example", "a.example"),
        emails=("b@example.com", "a@example.com"),
        common_names=("b", "a"),
    )
    identity = issued.identity
    assert identity.uris == ("spiffe://b/client/b", "spiffe://a/client/a")
    assert identity.dns_names == ("b.example", "a.example")
    assert identity.emails == ("b@example.com", "a@example.com")
    assert identity.common_names == ("b", "a")


def test_identity_without_extensions_claims_nothing(pki: TestPki) -> None:
    identity = pki.leaf("bare", "x", uris=(), purposes=()).identity
    assert identity.purposes == frozenset()
    assert identity.uris == identity.dns_names == identity.emails == ()


def test_identity_without_authority_key_id_has_an_empty_one(pki: TestPki) -> None:
    key = generate_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(pki.root.certificate.not_valid_before_utc)
        .not_valid_after(pki.root.certificate.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    identity = read_identity(certificate.public_bytes(serialization.Encoding.DER))
    assert identity.issuer_key_id == b""
    assert identity.subject == ""
    assert identity.common_names == identity.uris == ()


def test_identity_names_purposes_it_does_not_know_by_oid(pki: TestPki) -> None:
    code_signing = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.3")
    assert pki.leaf("code", "x", purposes=(code_signing,)).identity.purposes == {
        "1.3.6.1.5.5.7.3.3"
    }
    assert pki.any_eku("x").identity.purposes == {"client", "any"}


def test_identity_refuses_too_many_names(pki: TestPki) -> None:
    most = pki.leaf("most", "x", uris=(), dns_names=[f"h{i}.example" for i in range(MAX_NAMES)])
    assert len(most.identity.dns_names) == MAX_NAMES
    more = pki.leaf("more", "x", uris=(), dns_names=[f"h{i}.example" for i in range(MAX_NAMES + 1)])
    with pytest.raises(CertificateInvalid) as caught:
        read_identity(more.der)
    assert caught.value.reason == "too_large"


def test_identity_refuses_too_many_common_names(pki: TestPki) -> None:
    more = pki.leaf("cns", "x", common_names=[f"n{i}" for i in range(MAX_NAMES + 1)])
    with pytest.raises(CertificateInvalid, match="more than"):
        read_identity(more.der)


def test_identity_refuses_a_certificate_that_is_too_long() -> None:
    with pytest.raises(CertificateInvalid) as caught:
        read_identity(b"\x30" * (MAX_CERTIFICATE_BYTES + 1))
    assert caught.value.reason == "too_large"


def test_subject_for_humans_cannot_be_forged(pki: TestPki) -> None:
    honest = pki.leaf("honest", "x", common_names=("admin", "mallory")).identity
    forged = pki.leaf("forged", "x", common_names=("mallory,CN=admin",)).identity
    control = pki.leaf("control", "x", common_names=("admin\n\0\u202e\u0430",)).identity
    assert honest.subject == "CN=mallory,CN=admin"
    assert forged.subject == "CN=mallory\\,CN\\=admin"
    assert control.subject == "CN=admin\\u{a}\\u{0}\\u{202e}\\u{430}"


def test_subject_for_humans_is_bounded() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 64)] * 20)
    text = describe_name(name)
    assert len(text) == MAX_SUBJECT_CHARACTERS
    assert text.endswith("...")


@given(st.binary(max_size=400))
def test_identity_garbage_is_certificate_invalid_only(garbage: bytes) -> None:
    with pytest.raises(CertificateInvalid) as caught:
        read_identity(garbage)
    assert caught.value.reason == "malformed"


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_identity_damaged_certificate_is_certificate_invalid_only(
    pki: TestPki, damaged_der: bytes, data: st.DataObject
) -> None:
    der = bytearray(damaged_der)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(der)))
    for damaged in (bytes(der), bytes(der[:cut])):
        try:
            read_identity(damaged)
        except CertificateInvalid as error:
            assert error.reason in {"malformed", "too_large"}  # noqa: PT017 - the rest must not raise


@pytest.fixture(scope="module")
def damaged_der(pki: TestPki) -> bytes:
    return pki.leaf(
        "all", "x", dns_names=("a.example",), emails=("a@example.com",), common_names=("a", "b")
    ).der
