from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.errors import CertificateInvalid
from certs.proof import sign_possession, statement, verify_possession

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
NONCE = bytes(32)


def certificate_of(key: Key) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def signature_of(key: Key, signed: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(signed, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
    return key.sign(signed, pss, hashes.SHA256())


KEYS: list[Key] = [
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
    rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
]


@pytest.mark.parametrize("key", KEYS, ids=["p-256", "ed25519", "rsa"])
def test_proof_by_any_kind_of_key_is_verified_and_by_another_key_refused(key: Key) -> None:
    certificate = certificate_of(key)
    good = signature_of(key, statement("b1", NONCE))
    verify_possession(certificate, verifier="b1", nonce=NONCE, signature=good)
    for verifier, nonce, signature in (
        ("b2", NONCE, good),
        ("b1", bytes(31) + b"\1", good),
        ("b1", NONCE, good[:-1] + bytes([good[-1] ^ 1])),
        ("b1", NONCE, b""),
        ("b1", NONCE, bytes(2_000)),
    ):
        with pytest.raises(CertificateInvalid) as caught:
            verify_possession(certificate, verifier=verifier, nonce=nonce, signature=signature)
        assert caught.value.reason == "bad_proof"


def test_key_of_the_pki_signs_what_is_verified() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = sign_possession(key, verifier="b1", nonce=NONCE)
    verify_possession(certificate_of(key), verifier="b1", nonce=NONCE, signature=signature)
