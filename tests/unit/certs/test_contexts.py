from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from certs.contexts import MAX_ALPN_PROTOCOLS, client_context, server_context
from certs.errors import CertificateUnusable, KeyUnusable
from certs.keys import generate_key, key_to_unsafe_pem
from tests.pki import TestPki
from vault.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pki import Issued


@pytest.fixture
def pki(tmp_path: Path) -> TestPki:
    return TestPki(tmp_path)


@pytest.fixture
def broker(pki: TestPki) -> Issued:
    return pki.broker()


def serve(
    broker: Issued, *, anchor: Path | None = None, cert: Path | None = None
) -> ssl.SSLContext:
    return server_context(
        certificate=cert or broker.cert,
        key=broker.key,
        anchor=anchor or broker.anchor,
        alpn=["mqtt"],
    )


def connect(broker: Issued, *, ca: Path | None = None) -> ssl.SSLContext:
    return client_context(
        certificate=broker.cert, key=broker.key, ca=ca or broker.ca, alpn=["mqtt"]
    )


def test_contexts_speak_tls_1_3_only_and_demand_a_certificate(broker: Issued) -> None:
    for context in (serve(broker), connect(broker)):
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.keylog_filename is None
    assert serve(broker).num_tickets == 0
    assert connect(broker).check_hostname


def test_server_context_believes_one_authority_only(broker: Issued, pki: TestPki) -> None:
    assert [c["serialNumber"] for c in serve(broker).get_ca_certs()] == [
        f"{pki.issuing.certificate.serial_number:040X}"
    ]
    with pytest.raises(CertificateUnusable, match="exactly one issuing authority"):
        serve(broker, anchor=broker.ca)


def test_anchor_must_be_an_authoritys(broker: Issued, pki: TestPki, tmp_path: Path) -> None:
    leaf = pki.client("x").certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "leaf.pem").write_bytes(leaf)
    with pytest.raises(CertificateUnusable, match="not an authority's"):
        serve(broker, anchor=tmp_path / "leaf.pem")
    with pytest.raises(CertificateUnusable, match="not an authority's"):
        connect(broker, ca=tmp_path / "leaf.pem")


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_certificate_files_that_cannot_be_read_are_named(
    broker: Issued, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CertificateUnusable, match=str(path)):
        serve(broker, anchor=path)
    with pytest.raises(CertificateUnusable, match=str(path)):
        serve(broker, cert=path)
    with pytest.raises(CertificateUnusable, match=str(path)):
        connect(broker, ca=path)


def test_key_of_another_certificate_is_refused(broker: Issued) -> None:
    write_private(broker.key, key_to_unsafe_pem(generate_key()))
    with pytest.raises(KeyUnusable, match="is not the key of"):
        serve(broker)


def test_key_that_others_can_read_is_refused(broker: Issued) -> None:
    broker.key.chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        serve(broker)


def test_encrypted_key_is_refused_without_asking_on_the_terminal(broker: Issued) -> None:
    encrypted = generate_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    write_private(broker.key, encrypted)
    with pytest.raises(KeyUnusable, match="is encrypted"):
        serve(broker)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_corrupt_key_is_refused(broker: Issued, content: bytes) -> None:
    write_private(broker.key, content)
    with pytest.raises(KeyUnusable, match="cannot be loaded"):
        serve(broker)


def test_protocols_offered_are_bounded(broker: Issued) -> None:
    alpn = ["p"] * (MAX_ALPN_PROTOCOLS + 1)
    with pytest.raises(ValueError, match="at most"):
        server_context(certificate=broker.cert, key=broker.key, anchor=broker.anchor, alpn=alpn)
    server_context(certificate=broker.cert, key=broker.key, anchor=broker.anchor, alpn=[])
