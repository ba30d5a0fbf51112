"""What every certificate we issue must look like, checked after it is signed and before it is used.

The same findings tell whether a certificate found on disk can be used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import CertsError, IssueRefused
from certs.profiles import authority_key_usage, leaf_key_usage
from certs.spiffe import parse_spiffe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certs.profiles import Profile

T = TypeVar("T", bound=x509.ExtensionType)

MIN_SERIAL_BITS: Final = 64  # CA/Browser Forum, baseline requirements 7.1
MAX_SERIAL_BITS: Final = 159  # RFC 5280, 4.1.2.2


def verify_leaf(
    certificate: x509.Certificate, *, profile: Profile, issuer: x509.Certificate
) -> x509.Certificate:
    """Return a leaf that fits its profile.

    Raises:
        IssueRefused: it does not; names every finding.
    """
    return _refuse(certificate, tuple(lint_leaf(certificate, profile=profile, issuer=issuer)))


def verify_authority(
    certificate: x509.Certificate, *, issuer: x509.Certificate
) -> x509.Certificate:
    """Return an authority's certificate that is fit to sign with.

    Raises:
        IssueRefused: it is not; names every finding.
    """
    return _refuse(certificate, tuple(lint_authority(certificate, issuer=issuer)))


def lint_leaf(
    certificate: x509.Certificate, *, profile: Profile, issuer: x509.Certificate
) -> Iterator[str]:
    """Everything in which a leaf differs from its profile; nothing when it fits."""
    yield from _lint_common(certificate, issuer)
    if _path_length(issuer) != 0:
        yield "its issuer is not an authority for leaves (path length 0)"
    yield from _lint_constraints(certificate, x509.BasicConstraints(ca=False, path_length=None))
    yield from _lint_key_usage(certificate, leaf_key_usage())
    yield from _lint_purposes(certificate, profile)
    yield from _lint_names(certificate, profile)


def lint_authority(certificate: x509.Certificate, *, issuer: x509.Certificate) -> Iterator[str]:
    """Everything that makes an authority's certificate unfit; nothing when it is fit."""
    yield from _lint_common(certificate, issuer)
    yield from _lint_key_usage(certificate, authority_key_usage())
    path_length = 1 if certificate == issuer else 0
    if _path_length(issuer) != 1:
        yield "its issuer's path length allows no authority below"
    yield from _lint_constraints(
        certificate, x509.BasicConstraints(ca=True, path_length=path_length)
    )


def _refuse(certificate: x509.Certificate, findings: tuple[str, ...]) -> x509.Certificate:
    if findings:
        raise IssueRefused(f"the certificate must not be used: {'; '.join(findings)}")
    return certificate


def _lint_common(certificate: x509.Certificate, issuer: x509.Certificate) -> Iterator[str]:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        yield "not signed by its issuer"
    if not MIN_SERIAL_BITS <= certificate.serial_number.bit_length() <= MAX_SERIAL_BITS:
        yield f"the serial has not {MIN_SERIAL_BITS} to {MAX_SERIAL_BITS} bits"
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        yield "the key is not P-256"
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256):
        yield "not signed with SHA-256"
    if certificate.not_valid_after_utc > issuer.not_valid_after_utc:
        yield "it outlives its issuer"
    if certificate.not_valid_before_utc >= certificate.not_valid_after_utc:
        yield "it is never valid"
    yield from _lint_key_ids(certificate, issuer)


def _lint_key_ids(certificate: x509.Certificate, issuer: x509.Certificate) -> Iterator[str]:
    own = _extension(certificate, x509.SubjectKeyIdentifier)
    above = _extension(certificate, x509.AuthorityKeyIdentifier)
    issuers = _extension(issuer, x509.SubjectKeyIdentifier)
    if own is None:
        yield "no subject key id"
    if (
        above is None
        or issuers is None
        or above.value.key_identifier != issuers.value.key_identifier
    ):
        yield "the authority key id is not its issuer's"


def _lint_constraints(
    certificate: x509.Certificate, expected: x509.BasicConstraints
) -> Iterator[str]:
    found = _extension(certificate, x509.BasicConstraints)
    if found is None or not found.critical or found.value != expected:
        yield f"basic constraints are not critical {expected}"


def _lint_key_usage(certificate: x509.Certificate, expected: x509.KeyUsage) -> Iterator[str]:
    found = _extension(certificate, x509.KeyUsage)
    if found is None or not found.critical or found.value != expected:
        yield "the key usage is not the one of its kind, or not critical"


def _lint_purposes(certificate: x509.Certificate, profile: Profile) -> Iterator[str]:
    found = _extension(certificate, x509.ExtendedKeyUsage)
    if found is None or set(found.value) != set(profile.purposes):
        yield f"the extended key usages are not those of a {profile.role}"


def _lint_names(certificate: x509.Certificate, profile: Profile) -> Iterator[str]:
    found = _extension(certificate, x509.SubjectAlternativeName)
    names = list(found.value) if found else []
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    hosts = [name for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    if len(uris) != 1 or not _is_of_role(uris[0], profile):
        yield f"it has not exactly one URI, a SPIFFE id of role {profile.role}"
    if bool(hosts) != profile.has_hosts:
        yield "it has no hosts" if profile.has_hosts else "it has hosts"
    if len(uris) + len(hosts) != len(names):
        yield "it has names of another kind"


def _is_of_role(uri: str, profile: Profile) -> bool:
    try:
        return parse_spiffe(uri).role == profile.role
    except CertsError:
        return False


def _path_length(certificate: x509.Certificate) -> int | None:
    """How many authorities may follow; None: it is no authority, or sets no limit."""
    found = _extension(certificate, x509.BasicConstraints)
    return found.value.path_length if found is not None and found.value.ca else None


def _extension(certificate: x509.Certificate, kind: type[T]) -> x509.Extension[T] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
