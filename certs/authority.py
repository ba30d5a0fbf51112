"""Certificate authorities: a root that signs issuing authorities, and those that sign leaves.

*Rules of this file*: a certificate is built from its profile; of a request only the public key is used.
Every certificate is linted against its profile and its signature checked before it leaves
(`certs.lint`): a mistake here would be a mistake in every peer. No certificate outlives its issuer.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from certs.errors import IssueRefused
from certs.hosts import general_names
from certs.keys import PublicKey, SigningKey, is_pair
from certs.lint import verify_authority, verify_leaf
from certs.profiles import (
    BACKDATE_S,
    ISSUING_LIFETIME_S,
    ROOT_LIFETIME_S,
    Profile,
    authority_key_usage,
    leaf_key_usage,
)
from certs.spiffe import SpiffeId, is_segment, is_trust_domain

if TYPE_CHECKING:
    from collections.abc import Sequence

ORGANIZATION: Final = "Stockade"
ROOT_PATH_LENGTH: Final = 1  # a root signs issuing authorities, they sign leaves
ISSUING_PATH_LENGTH: Final = 0
SERIAL_BITS: Final = 159  # RFC 5280, 4.1.2.2: positive and at most 20 octets


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """An authority that can sign.

    Attributes:
        certificate: the authority's own certificate.
        key: its private key.
        trust_domain: the SPIFFE trust domain of everything it issues.

    Raises:
        IssueRefused: the key is not the certificate's, or the trust domain is none.
    """

    certificate: x509.Certificate
    key: SigningKey = field(repr=False)
    trust_domain: str

    def __post_init__(self) -> None:
        verify_trust_domain(self.trust_domain)
        if not is_pair(self.key, self.certificate):
            raise IssueRefused("the authority's key and certificate do not belong together")

    def issue(
        self,
        profile: Profile,
        *,
        id: str,  # noqa: A002 - SPIFFE's own word
        public_key: PublicKey,
        now: float,
        hosts: Sequence[str] = (),
        lifetime_s: float | None = None,
    ) -> x509.Certificate:
        """Issue a leaf certificate.

        Args:
            profile: what the certificate is for; see `certs.profiles.PROFILES`.
            id: who of that role: `[A-Za-z0-9._-]{1,64}`.
            public_key: the holder's key; the holder has proved that it has the private one.
            now: seconds since the epoch.
            hosts: DNS names and addresses, for profiles that have hosts only.
            lifetime_s: validity in seconds; default and upper bound: the profile's. It is cut at the
                end of the authority's own validity.

        Returns:
            The certificate, linted.

        Raises:
            IssueRefused: the name, the hosts or the lifetime do not fit the profile, or the authority is
                not valid now.
        """
        lifetime = profile.max_lifetime_s if lifetime_s is None else lifetime_s
        if not 0 < lifetime <= profile.max_lifetime_s:
            raise IssueRefused(
                f"a {profile.role} certificate lives at most {profile.max_lifetime_s:.0f} s"
            )
        names = _alternative_names(profile, id, hosts, self.trust_domain)
        builder = (
            self._builder(public_key, now=now, lifetime_s=lifetime)
            .subject_name(_name(unit=profile.role.value, common_name=id))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(leaf_key_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage(profile.purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        verify_leaf(certificate, profile=profile, issuer=self.certificate)
        return certificate

    def create_issuing(
        self, name: str, *, key: SigningKey, now: float, lifetime_s: float = ISSUING_LIFETIME_S
    ) -> CertificateAuthority:
        """Create, or renew under the same key, an issuing authority below this root.

        Args:
            name: its common name, e.g. the environment it issues for.
            key: its private key.
            now: seconds since the epoch.
            lifetime_s: validity in seconds, cut at the end of this authority's own.

        Raises:
            IssueRefused: the name is not `[A-Za-z0-9._-]{1,64}`, or this authority may not sign others.
        """
        builder = self._builder(key.public_key(), now=now, lifetime_s=lifetime_s)
        builder = _as_authority(builder, name, path_length=ISSUING_PATH_LENGTH)
        certificate = builder.sign(self.key, hashes.SHA256())
        verify_authority(certificate, issuer=self.certificate)
        return CertificateAuthority(
            certificate=certificate, key=key, trust_domain=self.trust_domain
        )

    def _builder(
        self, public_key: PublicKey, *, now: float, lifetime_s: float
    ) -> x509.CertificateBuilder:
        ends = min(now + lifetime_s, self.certificate.not_valid_after_utc.timestamp())
        if ends <= now:
            raise IssueRefused("the authority's own certificate is expired: renew it first")
        issuer_key_id = self.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value
        return (
            _start(public_key, now=now, ends=ends)
            .issuer_name(self.certificate.subject)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id),
                critical=False,
            )
        )


def create_root(
    name: str,
    *,
    trust_domain: str,
    key: SigningKey,
    now: float,
    lifetime_s: float = ROOT_LIFETIME_S,
) -> CertificateAuthority:
    """Create, or renew under the same key, a root authority.

    Args:
        name: its common name.
        trust_domain: the SPIFFE trust domain of everything below it.
        key: its private key.
        now: seconds since the epoch.
        lifetime_s: validity in seconds.

    Raises:
        IssueRefused: the name or trust domain are not in plain spelling.
    """
    verify_trust_domain(trust_domain)
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _start(key.public_key(), now=now, ends=now + lifetime_s).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
    )
    builder = _as_authority(builder, name, path_length=ROOT_PATH_LENGTH)
    builder = builder.issuer_name(_name(unit="authority", common_name=name))
    certificate = builder.sign(key, hashes.SHA256())
    verify_authority(certificate, issuer=certificate)
    return CertificateAuthority(certificate=certificate, key=key, trust_domain=trust_domain)


def verify_trust_domain(trust_domain: str) -> str:
    """Return a trust domain in its one spelling.

    Raises:
        IssueRefused: it is none.
    """
    if not is_trust_domain(trust_domain):
        raise IssueRefused(
            f"{trust_domain[:64]!a} is not a trust domain: use lower-case letters, digits, "
            "`.`, `_` or `-`"
        )
    return trust_domain


def _start(public_key: PublicKey, *, now: float, ends: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(_serial())
        .not_valid_before(_moment(now - BACKDATE_S))
        .not_valid_after(_moment(ends))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _as_authority(
    builder: x509.CertificateBuilder, name: str, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        builder.subject_name(_name(unit="authority", common_name=name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(authority_key_usage(), critical=True)
    )


def _alternative_names(
    profile: Profile, name: str, hosts: Sequence[str], trust_domain: str
) -> tuple[x509.GeneralName, ...]:
    if not is_segment(name):
        raise IssueRefused(
            f"{name[:80]!a} cannot be an id: use 1 to 64 letters, digits, `.`, `_` or `-`"
        )
    if hosts and not profile.has_hosts:
        raise IssueRefused(f"a {profile.role} certificate is for no host: leave the hosts out")
    spiffe = SpiffeId(trust_domain=trust_domain, role=profile.role.value, id=name)
    uri = x509.UniformResourceIdentifier(spiffe.uri)
    return (uri, *general_names(hosts)) if profile.has_hosts else (uri,)


def _name(*, unit: str, common_name: str) -> x509.Name:
    if not is_segment(common_name):
        raise IssueRefused(f"{common_name[:80]!a} cannot be a common name here")
    return x509.Name(
        (
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        )
    )


def _serial() -> int:
    """A random serial of exactly `SERIAL_BITS` bits: never small, never negative."""
    return secrets.randbits(SERIAL_BITS - 1) | 1 << (SERIAL_BITS - 1)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
