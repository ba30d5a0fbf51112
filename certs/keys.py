"""Private keys in files, and pairs of key and certificate chain.

*Rules of this file*: every new key is ECDSA P-256: the cheapest to handshake with of those that every MQTT
client and verifier accepts (measured: P-256 0.57 ms, RSA-2048 0.68 ms of server CPU a handshake;
Ed25519 is refused by several verifiers). Foreign exceptions and vault errors become `CertsError` here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import CertificateUnusable, KeyUnusable
from vault.errors import VaultError
from vault.files import read_private, read_public

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_CHAIN_CERTIFICATES = 8  # leaf, issuing, root, and some room for a roll-over of authorities

SigningKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def generate_key() -> SigningKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_der(key: SigningKey) -> bytes:
    """The key as PKCS#8, for sealing (`vault.keystore.seal_key`)."""
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def key_from_der(der: bytes, *, name: str) -> SigningKey:
    """The key in PKCS#8 bytes.

    Args:
        der: what `key_to_der` returned.
        name: what to call the key in an error.

    Raises:
        KeyUnusable: not a P-256 private key.
    """
    try:
        return _verify_curve(serialization.load_der_private_key(der, None), name)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"`{name}` is not a private key: restore it from a backup") from error


def key_to_unsafe_pem(key: SigningKey) -> bytes:
    """The key as unencrypted PEM: for files of mode 0600 that foreign clients must be able to read."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(path: Path) -> SigningKey:
    """Read an unencrypted P-256 key.

    Args:
        path: a PEM file with mode 0600.

    Raises:
        KeyUnusable: unreadable, readable by others, encrypted, corrupt, or not P-256.
    """
    try:
        pem = read_private(path)
        return _verify_curve(serialization.load_pem_private_key(pem, None), str(path))
    except VaultError as error:
        raise KeyUnusable(str(error)) from error
    except TypeError as error:  # how cryptography says "encrypted"
        raise KeyUnusable(f"`{path}` is encrypted: an unencrypted key is needed here") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(
            f"`{path}` is not a private key: restore it, or remove it to have a new one issued"
        ) from error


def read_chain(path: Path) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a PEM file, in order.

    Args:
        path: one to `MAX_CHAIN_CERTIFICATES` certificates.

    Raises:
        CertificateUnusable: unreadable, empty, too many, or corrupt.
    """
    try:
        chain = tuple(x509.load_pem_x509_certificates(read_public(path)))
    except VaultError as error:
        raise CertificateUnusable(str(error)) from error
    except ValueError as error:
        raise CertificateUnusable(
            f"`{path}` holds no readable PEM certificate: restore it, or have it issued again"
        ) from error
    if len(chain) > MAX_CHAIN_CERTIFICATES:
        raise CertificateUnusable(
            f"`{path}` holds {len(chain)} certificates, at most {MAX_CHAIN_CERTIFICATES} are read"
        )
    return chain


def chain_to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """The certificates as PEM, in order."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain)


def is_pair(key: SigningKey, certificate: x509.Certificate) -> bool:
    """Whether a certificate is for this key."""
    return certificate.public_key() == key.public_key()


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate says it is an authority's."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    return found.value.ca


def _verify_curve(key: object, name: str) -> SigningKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyUnusable(f"`{name}` is not an ECDSA P-256 key, the only kind used here")
    return key
