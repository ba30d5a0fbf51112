"""What a peer's certificate says, parsed once at the border into a type without surprises.

*Rules of this file*: parsing decides nothing about trust. The bytes come from whoever connects (TLS has
verified the chain, not the taste of the names), so every count and length is bounded, and whatever the
parser raises becomes `CertificateInvalid`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.errors import CertificateInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_CERTIFICATE_BYTES: Final = 16_384  # the TLS stream takes no more handshake input than this
MAX_NAMES: Final = 64  # names of all kinds in one certificate; ours have fewer than ten
MAX_SUBJECT_CHARACTERS: Final = 512  # for logs only; longer ones are cut

CLIENT_PURPOSE: Final = "client"
SERVER_PURPOSE: Final = "server"
ANY_PURPOSE: Final = "any"
_PURPOSES: Final[Mapping[str, str]] = {
    ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string: CLIENT_PURPOSE,
    ExtendedKeyUsageOID.SERVER_AUTH.dotted_string: SERVER_PURPOSE,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string: ANY_PURPOSE,
}
_SPECIAL: Final = frozenset(',+="\\<>;#')  # RFC 4514, section 2.4


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """The facts of one leaf certificate.

    Attributes:
        subject: the subject for humans and logs, never for decisions: printable ASCII, bounded.
        common_names: every common name of the subject, in order.
        uris: URIs of the subject alternative name.
        dns_names: DNS names of the subject alternative name.
        emails: mail addresses of the subject alternative name.
        issuer_key_id: key id of the issuing CA (AKI); empty when the certificate has none.
        serial: the serial number; with `issuer_key_id` it names the certificate for revocation.
        not_before: start of validity, seconds since the epoch.
        not_after: end of validity, seconds since the epoch.
        fingerprint: SHA-256 of the whole certificate.
        purposes: extended key usages: `client`, `server`, `any`, others as dotted OIDs.
    """

    subject: str
    common_names: tuple[str, ...]
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    emails: tuple[str, ...]
    issuer_key_id: bytes
    serial: int
    not_before: float
    not_after: float
    fingerprint: bytes
    purposes: frozenset[str]


def read_identity(der: bytes) -> PeerIdentity:
    """Parse the certificate a peer presented.

    Args:
        der: the leaf certificate as `getpeercert(True)` returns it.

    Returns:
        Its facts; nothing is verified yet.

    Raises:
        CertificateInvalid: not a certificate, or one beyond the bounds of this file.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateInvalid(
            f"the certificate has {len(der)} bytes, at most {MAX_CERTIFICATE_BYTES} are read",
            reason="too_large",
        )
    try:
        return identity_of(x509.load_der_x509_certificate(der), der=der)
    except (
        ValueError,
        TypeError,
        Warning,  # the parser warns about what RFC 5280 forbids; under `-W error` it raises
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise CertificateInvalid("the certificate cannot be parsed", reason="malformed") from error


def identity_of(certificate: x509.Certificate, *, der: bytes) -> PeerIdentity:
    """The facts of a parsed certificate; may raise whatever the parser raises.

    Args:
        certificate: the certificate.
        der: its encoding.

    Raises:
        CertificateInvalid: it has more than `MAX_NAMES` names.
    """
    names = _alternative_names(certificate)
    if names is not None and len(list(names)) > MAX_NAMES:
        raise CertificateInvalid(
            f"the certificate has more than {MAX_NAMES} names", reason="too_large"
        )
    return PeerIdentity(
        subject=describe_name(certificate.subject),
        common_names=_common_names(certificate.subject),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
        dns_names=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        emails=tuple(names.get_values_for_type(x509.RFC822Name)) if names else (),
        issuer_key_id=_issuer_key_id(certificate),
        serial=certificate.serial_number,
        not_before=_seconds(certificate.not_valid_before_utc),
        not_after=_seconds(certificate.not_valid_after_utc),
        fingerprint=hashlib.sha256(der).digest(),
        purposes=_purposes(certificate),
    )


def describe_name(name: x509.Name) -> str:
    """A name for humans: `CN=sensor,OU=client`, printable ASCII, at most `MAX_SUBJECT_CHARACTERS`.

    Special characters are escaped, so two different names never look the same unless cut.
    """
    text = ",".join(
        f"{attribute.rfc4514_attribute_name}={_escape(attribute.value)}"
        for attribute in reversed(list(name))
    )
    if len(text) > MAX_SUBJECT_CHARACTERS:
        return text[: MAX_SUBJECT_CHARACTERS - 3] + "..."
    return text


def _escape(value: str | bytes) -> str:
    text = value if isinstance(value, str) else value.hex()
    return "".join(
        f"\\{c}" if c in _SPECIAL else c if " " <= c <= "~" else f"\\u{{{ord(c):x}}}" for c in text
    )


def _common_names(subject: x509.Name) -> tuple[str, ...]:
    values = tuple(a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    if len(values) > MAX_NAMES:
        raise CertificateInvalid(
            f"the certificate has more than {MAX_NAMES} names", reason="too_large"
        )
    return tuple(v if isinstance(v, str) else v.hex() for v in values)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _issuer_key_id(certificate: x509.Certificate) -> bytes:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return b""
    return found.value.key_identifier or b""


def _purposes(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        # not a fail-open: OpenSSL reads a missing extension as "any purpose", `verify_peer` as none
        return frozenset()
    return frozenset(_purpose(oid.dotted_string) for oid in found.value)


def _purpose(oid: str) -> str:
    return _PURPOSES.get(oid, oid)


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
