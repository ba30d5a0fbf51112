"""SPIFFE ids of Stockade: `spiffe://<trust domain>/<role>/<id>`, accepted in one spelling only.

*Rules of this file*: nothing is normalised. Two spellings of one name (upper case, percent escapes,
dot segments, ports) are how one peer becomes another, so every spelling but the plain one is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from certs.errors import CertificateInvalid

MAX_SPIFFE_BYTES: Final = 2_048  # SPIFFE-ID, section 2.3
MAX_ID_BYTES: Final = 64  # fits a common name (RFC 5280, ub-common-name)
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}", re.ASCII)  # SPIFFE-ID, section 2.1
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)  # SPIFFE-ID, section 2.2
_SCHEME: Final = "spiffe://"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiffeId:
    """One parsed id.

    Attributes:
        trust_domain: whose namespace it is.
        role: what the holder is: `broker`, `controller`, `client` or `admin`.
        id: which one of that role.
    """

    trust_domain: str
    role: str
    id: str

    @property
    def uri(self) -> str:
        """The one spelling of this id."""
        return f"{_SCHEME}{self.trust_domain}/{self.role}/{self.id}"


def is_segment(text: str) -> bool:
    """Whether `text` may stand for a role or an id: `[A-Za-z0-9._-]{1,64}`, not `.` or `..`."""
    return _SEGMENT.fullmatch(text) is not None and text not in {".", ".."}


def is_trust_domain(text: str) -> bool:
    """Whether `text` is a trust domain in its one spelling."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def parse_spiffe(uri: str) -> SpiffeId:
    """Parse a URI of a peer's certificate.

    Args:
        uri: the text of one URI in the subject alternative name.

    Returns:
        The parts.

    Raises:
        CertificateInvalid: anything but `spiffe://<trust domain>/<role>/<id>` in its plain spelling.
    """
    if len(uri) > MAX_SPIFFE_BYTES or not uri.startswith(_SCHEME):
        raise _refused(uri)
    trust_domain, *segments = uri[len(_SCHEME) :].split("/")
    if not is_trust_domain(trust_domain):
        raise _refused(uri)
    match segments:
        case [role, name] if is_segment(role) and is_segment(name):
            return SpiffeId(trust_domain=trust_domain, role=role, id=name)
        case _:
            raise _refused(uri)


def _refused(uri: str) -> CertificateInvalid:
    shown = ascii(uri[:128])
    return CertificateInvalid(
        f"{shown} is not an id `spiffe://<trust domain>/<role>/<id>` in plain spelling",
        reason="spiffe",
    )
