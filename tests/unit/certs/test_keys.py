from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from certs.errors import CertificateUnusable, KeyUnusable
from certs.keys import (
    MAX_CHAIN_CERTIFICATES,
    chain_to_pem,
    generate_key,
    is_authority,
    is_pair,
    key_from_der,
    key_to_der,
    key_to_unsafe_pem,
    read_chain,
    read_key,
)
from tests.pki import TestPki
from vault.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("pki"))


def test_key_survives_der_and_pem(tmp_path: Path) -> None:
    key = generate_key()
    write_private(tmp_path / "key", key_to_unsafe_pem(key))
    assert read_key(tmp_path / "key").private_numbers() == key.private_numbers()
    assert key_from_der(key_to_der(key), name="k").private_numbers() == key.private_numbers()


def test_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "key", key_to_unsafe_pem(generate_key()))
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        read_key(tmp_path / "key")


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_key_file_that_is_corrupt_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / "key", content)
    with pytest.raises(KeyUnusable, match="restore it, or remove it"):
        read_key(tmp_path / "key")


def test_key_file_that_is_missing_or_encrypted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="no such file"):
        read_key(tmp_path / "absent")
    encrypted = generate_key().private_bytes(
        PEM, PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    write_private(tmp_path / "key", encrypted)
    with pytest.raises(KeyUnusable, match="is encrypted"):
        read_key(tmp_path / "key")


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    for other in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        pem = other.private_bytes(PEM, PKCS8, serialization.NoEncryption())
        der = other.private_bytes(serialization.Encoding.DER, PKCS8, serialization.NoEncryption())
        write_private(tmp_path / "key", pem)
        with pytest.raises(KeyUnusable, match="not an ECDSA P-256 key"):
            read_key(tmp_path / "key")
        with pytest.raises(KeyUnusable, match="not an ECDSA P-256 key"):
            key_from_der(der, name="k")


def test_key_from_garbage_is_refused() -> None:
    with pytest.raises(KeyUnusable, match="`k` is not a private key"):
        key_from_der(b"garbage", name="k")


def test_chain_is_read_in_order(pki: TestPki) -> None:
    issued = pki.client("a")
    assert read_chain(issued.cert) == (issued.certificate, pki.issuing.certificate)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_chain_that_is_corrupt_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CertificateUnusable, match="no readable PEM certificate"):
        read_chain(tmp_path / "c")


def test_chain_is_bounded_and_must_exist(tmp_path: Path, pki: TestPki) -> None:
    with pytest.raises(CertificateUnusable, match="no such file"):
        read_chain(tmp_path / "absent")
    many = chain_to_pem([pki.root.certificate] * (MAX_CHAIN_CERTIFICATES + 1))
    (tmp_path / "c").write_bytes(many)
    with pytest.raises(CertificateUnusable, match="at most"):
        read_chain(tmp_path / "c")


def test_pair_belongs_together(pki: TestPki) -> None:
    issued = pki.client("pair")
    assert is_pair(read_key(issued.key), issued.certificate)
    assert not is_pair(generate_key(), issued.certificate)


def test_authority_is_what_says_so(pki: TestPki) -> None:
    assert is_authority(pki.root.certificate)
    assert is_authority(pki.issuing.certificate)
    assert not is_authority(pki.client("leaf").certificate)
