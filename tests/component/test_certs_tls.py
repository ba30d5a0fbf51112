"""Python's TLS on both ends, in memory: who is let in, who is not, and what the peer is told."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from certs.contexts import client_context
from certs.errors import CertificateInvalid
from certs.identity import read_identity
from certs.verify import verify_peer
from tests.pki import TRUST_DOMAIN, TestPki

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pki import Issued

MAX_FLIGHTS = 20  # a TLS 1.3 handshake needs four


@dataclass(frozen=True, slots=True)
class Met:
    """What each side knows after a handshake."""

    server: ssl.SSLObject
    client: ssl.SSLObject

    @property
    def client_der(self) -> bytes:
        der = self.server.getpeercert(binary_form=True)
        assert der is not None
        return der


def meet(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str = "localhost") -> Met:
    """Shake hands in memory; raises what the first side to fail raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(up, down, server_side=True)
    there = client.wrap_bio(down, up, server_hostname=name)
    waiting = [there, here]
    for _ in range(MAX_FLIGHTS):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return Met(here, there)
    pytest.fail("the handshake does not end")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestPki:
    return TestPki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server(pki: TestPki) -> ssl.SSLContext:
    return pki.server_context(pki.broker())


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_client_meets_the_broker_under_each_of_its_names(
    pki: TestPki, server: ssl.SSLContext, name: str
) -> None:
    issued = pki.client("sensor")
    met = meet(server, pki.client_context(issued), name=name)
    assert met.server.version() == met.client.version() == "TLSv1.3"
    assert met.server.selected_alpn_protocol() == "mqtt"
    assert read_identity(met.client_der) == issued.identity
    verify_peer(
        read_identity(met.client_der),
        purpose="client",
        now=pki.now,
        trust_domain=TRUST_DOMAIN,
        roles=["client"],
    )


def test_broker_meets_the_controller(pki: TestPki) -> None:
    controller = pki.server_context(pki.controller(), alpn=["stockade-ctl/1"])
    met = meet(controller, pki.client_context(pki.broker("b2"), alpn=["stockade-ctl/1"]))
    assert met.client.selected_alpn_protocol() == "stockade-ctl/1"


def test_client_that_believes_the_issuing_authority_alone_is_enough(
    pki: TestPki, server: ssl.SSLContext
) -> None:
    issued = pki.client("partial")
    meet(
        server,
        client_context(certificate=issued.cert, key=issued.key, ca=pki.anchor, alpn=["mqtt"]),
    )


REFUSED_BY_TLS: dict[str, tuple[Callable[[TestPki], Issued], str]] = {
    "expired": (lambda pki: pki.expired("x"), "certificate has expired"),
    "not yet valid": (lambda pki: pki.not_yet_valid("x"), "certificate is not yet valid"),
    "foreign": (lambda pki: pki.foreign("x"), "unable to get local issuer certificate"),
    "sibling": (lambda pki: pki.sibling("x"), "unable to get local issuer certificate"),
    "self-signed": (lambda pki: pki.self_signed("x"), "self-signed certificate"),
    "server only": (lambda pki: pki.server_only("x"), "unsuitable certificate purpose"),
}
# OpenSSL lets these in: they are why `verify_peer` exists
REFUSED_AFTER_TLS: dict[str, tuple[Callable[[TestPki], Issued], str]] = {
    "any purpose": (lambda pki: pki.any_eku("x"), "purpose"),
    "no purpose": (lambda pki: pki.without_eku("x"), "purpose"),
    "two URIs": (lambda pki: pki.two_uris("x"), "spiffe"),
    "no URI": (lambda pki: pki.without_uri("x"), "spiffe"),
    "other trust domain": (lambda pki: pki.other_trust_domain("x"), "trust_domain"),
}


@pytest.mark.parametrize("kind", REFUSED_BY_TLS)
def test_bad_client_is_refused_by_tls(pki: TestPki, server: ssl.SSLContext, kind: str) -> None:
    make, message = REFUSED_BY_TLS[kind]
    with pytest.raises(ssl.SSLCertVerificationError, match=message):
        meet(server, pki.client_context(make(pki)))


@pytest.mark.parametrize("kind", REFUSED_AFTER_TLS)
def test_bad_client_that_tls_lets_in_is_refused_by_the_check_after_it(
    pki: TestPki, server: ssl.SSLContext, kind: str
) -> None:
    make, reason = REFUSED_AFTER_TLS[kind]
    met = meet(server, pki.client_context(make(pki)))
    with pytest.raises(CertificateInvalid) as caught:
        verify_peer(
            read_identity(met.client_der), purpose="client", now=pki.now, trust_domain=TRUST_DOMAIN
        )
    assert caught.value.reason == reason


def test_client_without_a_certificate_is_refused(pki: TestPki, server: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        meet(server, pki.context_without_certificate())


def test_client_with_an_older_tls_is_refused(pki: TestPki, server: ssl.SSLContext) -> None:
    context = pki.context_without_certificate()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        meet(server, context)


def test_broker_under_another_name_is_refused(pki: TestPki, server: ssl.SSLContext) -> None:
    context = pki.client_context(pki.client("name"))
    for name in ("broker.example", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            meet(server, context, name=name)


def test_broker_of_a_foreign_authority_is_refused(pki: TestPki, server: ssl.SSLContext) -> None:
    stranger = pki.foreign("stranger")
    context = client_context(
        certificate=stranger.cert, key=stranger.key, ca=stranger.ca, alpn=["mqtt"]
    )
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        meet(server, context)


def test_client_cannot_pose_as_a_broker(pki: TestPki) -> None:
    with_host = pki.leaf("posing", "x", dns_names=("localhost",))
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        meet(pki.server_context(with_host), pki.client_context(pki.client("victim")))


def test_no_session_is_ever_resumed(pki: TestPki, server: ssl.SSLContext) -> None:
    context = pki.client_context(pki.client("again"))
    met = meet(server, context)
    met.server.write(b"hello")
    assert met.client.read(16) == b"hello"  # tickets would have come before it
    session = met.client.session
    assert session is None or not session.has_ticket
