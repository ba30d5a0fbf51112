"""What TLS does not check of a peer: its purpose, its single SPIFFE id, its role, its validity now.

OpenSSL accepts a leaf without extended key usage, knows nothing of SPIFFE, and checks validity only
during the handshake. These checks run after every handshake and before a peer has a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from certs.errors import CertificateInvalid
from certs.identity import ANY_PURPOSE, PeerIdentity
from certs.spiffe import SpiffeId, parse_spiffe

if TYPE_CHECKING:
    from collections.abc import Collection

Purpose = Literal["client", "server"]


def verify_peer(
    identity: PeerIdentity,
    *,
    purpose: Purpose,
    now: float,
    trust_domain: str | None = None,
    roles: Collection[str] | None = None,
) -> PeerIdentity:
    """Check a certificate whose chain TLS has already verified.

    Args:
        identity: what the certificate says.
        purpose: what the peer uses it for: `client` when it connected to us.
        now: seconds since the epoch.
        trust_domain: demand exactly one URI, a SPIFFE id of this trust domain. None: SPIFFE is not
            demanded (principals then come from other fields by mapping rules).
        roles: demand one of these SPIFFE roles; an empty collection refuses everybody. Needs
            `trust_domain`.

    Returns:
        The same identity, verified.

    Raises:
        CertificateInvalid: with `.reason` one of `purpose`, `not_yet_valid`, `expired`, `spiffe`,
            `trust_domain`, `role`.
        ValueError: `roles` without `trust_domain`: a bug of the caller.
    """
    if roles is not None and trust_domain is None:
        message = "roles are part of a SPIFFE id: name the trust domain too"
        raise ValueError(message)
    _verify_purpose(identity, purpose)
    _verify_validity(identity, now)
    if trust_domain is not None:
        verify_spiffe(identity, trust_domain=trust_domain, roles=roles)
    return identity


def verify_spiffe(
    identity: PeerIdentity, *, trust_domain: str, roles: Collection[str] | None = None
) -> SpiffeId:
    """The single SPIFFE id of a certificate, of this trust domain and one of these roles.

    Args:
        identity: what the certificate says.
        trust_domain: the trust domain demanded.
        roles: the roles allowed; None allows each.

    Returns:
        The parts of the id.

    Raises:
        CertificateInvalid: with `.reason` `spiffe`, `trust_domain` or `role`.
    """
    if len(identity.uris) != 1:  # SPIFFE X.509-SVID, section 2: more than one must be refused
        raise CertificateInvalid(
            f"the certificate has {len(identity.uris)} URIs, exactly one SPIFFE id is demanded",
            reason="spiffe",
        )
    spiffe = parse_spiffe(identity.uris[0])
    if spiffe.trust_domain != trust_domain:
        raise CertificateInvalid(
            f"the certificate is of trust domain `{spiffe.trust_domain}`, not `{trust_domain}`",
            reason="trust_domain",
        )
    if roles is not None and spiffe.role not in roles:
        allowed = ", ".join(f"`{role}`" for role in roles) or "none"
        raise CertificateInvalid(
            f"the certificate is for role `{spiffe.role}`, allowed here: {allowed}", reason="role"
        )
    return spiffe


def _verify_purpose(identity: PeerIdentity, purpose: Purpose) -> None:
    if ANY_PURPOSE in identity.purposes:
        raise CertificateInvalid(
            "the certificate is for any purpose, which names none: issue it for "
            f"{purpose} authentication",
            reason="purpose",
        )
    if purpose not in identity.purposes:
        raise CertificateInvalid(
            f"the certificate is not for {purpose} authentication", reason="purpose"
        )


def _verify_validity(identity: PeerIdentity, now: float) -> None:
    # written so that a NaN clock refuses
    if not identity.not_before <= now:
        raise CertificateInvalid("the certificate is not valid yet", reason="not_yet_valid")
    if not now <= identity.not_after:  # RFC 5280, section 4.1.2.5: notAfter is inclusive
        raise CertificateInvalid("the certificate is expired", reason="expired")
