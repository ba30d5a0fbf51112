"""Proof that a peer still holds the private key of the certificate it connected with.

*Rules of this file*: what is signed names its purpose and carries a nonce of the verifier's, so that a signature
made for anything else, or for another moment, proves nothing here. The verifier decides the scheme by the
certificate's key, never by what the peer says.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from certs.errors import CertificateInvalid

NONCE_BYTES: Final = 32
MAX_SIGNATURE_BYTES: Final = 1_024  # RSA-8192
_PURPOSE: Final = b"stockade proof of possession 1\0"


def statement(verifier: str, nonce: bytes) -> bytes:
    """Return the bytes to be signed.

    Args:
        verifier: the name of who wants the proof: the broker's identifier.
        nonce: `NONCE_BYTES` random bytes, used once.
    """
    return _PURPOSE + verifier.encode() + b"\0" + nonce


def verify_possession(certificate: bytes, *, verifier: str, nonce: bytes, signature: bytes) -> None:
    """Verify a proof.

    Args:
        certificate: the peer's, in DER, verified by TLS.
        verifier: as for `statement`.
        nonce: what the peer was sent.
        signature: over `statement`: ECDSA with SHA-256, Ed25519, or RSA-PSS with SHA-256 and the longest salt.

    Raises:
        CertificateInvalid: the signature was not made with the certificate's key.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise CertificateInvalid("the proof is too long", reason="bad_proof")
    key = x509.load_der_x509_certificate(certificate).public_key()
    signed = statement(verifier, nonce)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, _pss(), hashes.SHA256())
        else:
            raise CertificateInvalid("no proof is defined for this kind of key", reason="bad_proof")
    except InvalidSignature as error:
        raise CertificateInvalid(
            "the proof was not made with the certificate's key", reason="bad_proof"
        ) from error


def sign_possession(key: ec.EllipticCurvePrivateKey, *, verifier: str, nonce: bytes) -> bytes:
    """Return the proof that `key` is held; for keys as `certs.keys` makes them."""
    return key.sign(statement(verifier, nonce), ec.ECDSA(hashes.SHA256()))


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
