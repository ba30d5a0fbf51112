"""A PKI for tests that reads as sentences: good certificates, and every kind of bad one.

    pki = TestPki(tmp_path)
    pki.broker()                  # a good server certificate for localhost
    pki.client("sensor")          # a good client
    pki.expired("sensor")         # ... and the bad ones, each wrong in exactly one thing

Good ones come from the real `certs.authority`. Bad ones are built by hand here, because the authority refuses to.
Each call writes files of its own, named after what they are, and returns their paths.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import CertificateAuthority, create_root
from certs.contexts import client_context, server_context
from certs.identity import PeerIdentity, read_identity
from certs.keys import SigningKey, chain_to_pem, generate_key, key_to_unsafe_pem
from certs.profiles import DAY_S, PROFILES, Role, leaf_key_usage
from vault.files import write_private, write_public

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TRUST_DOMAIN: Final = "stockade.local"
HOSTS: Final = ("localhost", "127.0.0.1", "::1")
CLIENT_AUTH: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH: Final = ExtendedKeyUsageOID.SERVER_AUTH
ANY_PURPOSE: Final = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One leaf on disk: `cert` holds the leaf and its issuing authority, `key` has mode 0600."""

    cert: Path
    key: Path
    ca: Path
    anchor: Path
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def identity(self) -> PeerIdentity:
        return read_identity(self.der)


class TestPki:
    """A root, an issuing authority below it, and leaves on demand, all in one directory.

    Attributes:
        ca: PEM of root and issuing authority, for clients.
        anchor: PEM of the issuing authority, for servers.
        now: the time everything is issued at, in seconds since the epoch; the real time by default, since
            OpenSSL looks at the real clock.
    """

    __test__ = False  # a builder, not a collection of tests

    def __init__(
        self,
        directory: Path,
        *,
        now: float | None = None,
        trust_domain: str = TRUST_DOMAIN,
        name: str = "test",
    ) -> None:
        self.directory = directory / f"pki-{name}"
        self.directory.mkdir(mode=0o700, parents=True)
        self.now = datetime.now(UTC).timestamp() if now is None else now
        self.trust_domain = trust_domain
        self.root = create_root(
            f"{name}-root", trust_domain=trust_domain, key=generate_key(), now=self.now
        )
        self.issuing = self.root.create_issuing(name, key=generate_key(), now=self.now)
        self.ca = self.directory / "ca.pem"
        self.anchor = self.directory / "issuing.pem"
        write_public(self.ca, chain_to_pem([self.root.certificate, self.issuing.certificate]))
        write_public(self.anchor, chain_to_pem([self.issuing.certificate]))
        self._foreign: TestPki | None = None

    # good ones

    def broker(self, name: str = "broker", *, hosts: Sequence[str] = HOSTS) -> Issued:
        return self._issue(Role.BROKER, name, hosts)

    def controller(self, name: str = "controller", *, hosts: Sequence[str] = HOSTS) -> Issued:
        return self._issue(Role.CONTROLLER, name, hosts)

    def client(self, name: str) -> Issued:
        return self._issue(Role.CLIENT, name)

    def admin(self, name: str = "admin") -> Issued:
        return self._issue(Role.ADMIN, name)

    # bad ones, each wrong in exactly one thing

    def expired(self, name: str) -> Issued:
        """Valid until an hour ago."""
        return self.leaf("expired", name, starts_s=-DAY_S, ends_s=-3_600)

    def not_yet_valid(self, name: str) -> Issued:
        """Valid from an hour ahead on."""
        return self.leaf("not-yet-valid", name, starts_s=3_600, ends_s=DAY_S)

    def expiring(self, name: str, *, in_s: float) -> Issued:
        """Good, but valid for `in_s` more seconds only (whole seconds)."""
        return self.leaf("expiring", name, ends_s=in_s)

    def foreign(self, name: str) -> Issued:
        """Good, but of an authority nobody here knows; the files name that other authority's anchors."""
        if self._foreign is None:
            self._foreign = TestPki(self.directory, now=self.now, name="foreign")
        return self._foreign.client(name)

    def sibling(self, name: str) -> Issued:
        """Good, but of another issuing authority below the same root: another environment."""
        issuing = self.root.create_issuing("sibling", key=generate_key(), now=self.now)
        return self.leaf("sibling", name, issuer=issuing)

    def self_signed(self, name: str) -> Issued:
        """Signed by its own key."""
        return self.leaf("self-signed", name, self_signed=True)

    def without_eku(self, name: str) -> Issued:
        """No extended key usage, which OpenSSL reads as any purpose."""
        return self.leaf("without-eku", name, purposes=())

    def any_eku(self, name: str) -> Issued:
        """For any purpose."""
        return self.leaf("any-eku", name, purposes=(CLIENT_AUTH, ANY_PURPOSE))

    def server_only(self, name: str) -> Issued:
        """For servers only."""
        return self.leaf("server-only", name, purposes=(SERVER_AUTH,))

    def two_uris(self, name: str, other: str = "admin") -> Issued:
        """Two SPIFFE ids."""
        return self.leaf(
            "two-uris", name, uris=(self.uri(Role.CLIENT, name), self.uri(Role.CLIENT, other))
        )

    def without_uri(self, name: str) -> Issued:
        """No subject alternative name at all; only the common name says who it is."""
        return self.leaf("without-uri", name, uris=())

    def other_trust_domain(self, name: str) -> Issued:
        """A SPIFFE id of another trust domain, signed by our authority."""
        return self.leaf(
            "other-trust-domain", name, uris=(f"spiffe://other.example/client/{name}",)
        )

    def uri(self, role: Role, name: str) -> str:
        return f"spiffe://{self.trust_domain}/{role}/{name}"

    def leaf(
        self,
        label: str,
        name: str,
        *,
        issuer: CertificateAuthority | None = None,
        self_signed: bool = False,
        starts_s: float = -300,
        ends_s: float = DAY_S,
        purposes: Sequence[x509.ObjectIdentifier] = (CLIENT_AUTH,),
        uris: Sequence[str] | None = None,
        dns_names: Sequence[str] = (),
        emails: Sequence[str] = (),
        common_names: Sequence[str] | None = None,
        key: SigningKey | None = None,
    ) -> Issued:
        """A leaf with everything to choose; unchecked. Times are seconds from `now`."""
        key = key or generate_key()
        signer = issuer or self.issuing
        commons = (name,) if common_names is None else common_names
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in commons])
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(text)
            for text in ((self.uri(Role.CLIENT, name),) if uris is None else uris)
        ]
        names += [x509.DNSName(text) for text in dns_names]
        names += [x509.RFC822Name(text) for text in emails]
        public_key = key.public_key()
        signing_key = key if self_signed else signer.key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else signer.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._moment(starts_s))
            .not_valid_after(self._moment(ends_s))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(leaf_key_usage(), critical=True)
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(signing_key, hashes.SHA256())
        chain = [certificate] if self_signed else [certificate, signer.certificate]
        return self._write(f"{name}-{label}", chain, key)

    # contexts

    def server_context(self, issued: Issued, *, alpn: Sequence[str] = ("mqtt",)) -> ssl.SSLContext:
        """How a server holding `issued` listens; it believes this PKI's issuing authority."""
        return server_context(
            certificate=issued.cert, key=issued.key, anchor=self.anchor, alpn=alpn
        )

    def client_context(self, issued: Issued, *, alpn: Sequence[str] = ("mqtt",)) -> ssl.SSLContext:
        """How a client holding `issued`, good or bad, connects; it believes this PKI's authorities."""
        return client_context(certificate=issued.cert, key=issued.key, ca=self.ca, alpn=alpn)

    def context_without_certificate(self, *, alpn: Sequence[str] = ("mqtt",)) -> ssl.SSLContext:
        """How a client without a certificate connects."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(list(alpn))
        return context

    def _issue(self, role: Role, name: str, hosts: Sequence[str] = ()) -> Issued:
        key = generate_key()
        certificate = self.issuing.issue(
            PROFILES[role], id=name, public_key=key.public_key(), now=self.now, hosts=hosts
        )
        return self._write(f"{name}-{role}", [certificate, self.issuing.certificate], key)

    def _write(self, stem: str, chain: Sequence[x509.Certificate], key: SigningKey) -> Issued:
        stem = stem.replace("/", "_")
        cert, key_file = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        write_private(key_file, key_to_unsafe_pem(key))
        write_public(cert, chain_to_pem(chain))
        return Issued(cert=cert, key=key_file, ca=self.ca, anchor=self.anchor, certificate=chain[0])

    def _moment(self, offset_s: float) -> datetime:
        return datetime.fromtimestamp(int(self.now + offset_s), UTC)
