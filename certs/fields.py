"""The certificate fields a principal may come from, and the spellings they are accepted in.

*Rules of this file*: a value in a doubtful spelling is refused, never repaired. The checks are per kind
of field: what is a harmless space in a common name is an attack in a URI.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, assert_never

if TYPE_CHECKING:
    from certs.identity import PeerIdentity

Source = Literal["san.uri", "san.dns", "san.email", "subject.cn"]
MAX_FIELD_CHARACTERS: Final = 512  # no template is longer, so no longer value can match

# Lower-case scheme and host; no user, port, query, fragment or escape. RFC 3986 allows them all, and each
# gives one resource a second spelling.
_URI: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://[a-z0-9][a-z0-9._-]*(?P<path>(/[A-Za-z0-9._~:=,+-]+)*)", re.ASCII
)
_DNS: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII,
)
_MAILBOX: Final = re.compile(r"[A-Za-z0-9._+=-]{1,64}", re.ASCII)


def values_of(identity: PeerIdentity, source: Source) -> tuple[str, ...]:
    """Every value of one field, as the certificate has it."""
    match source:
        case "san.uri":
            return identity.uris
        case "san.dns":
            return identity.dns_names
        case "san.email":
            return identity.emails
        case "subject.cn":
            return identity.common_names
        case _:
            assert_never(source)


def complaint_about(value: str, source: Source) -> str | None:
    """Why a value must not be mapped, or None when its spelling is plain.

    Args:
        value: one value of the field.
        source: which field.
    """
    if not 1 <= len(value) <= MAX_FIELD_CHARACTERS:
        return f"is empty or longer than {MAX_FIELD_CHARACTERS} characters"
    if not (value.isascii() and value.isprintable()):
        return "has control or non-ASCII characters"
    if value != value.strip() or "  " in value:
        return "has spaces at an end or side by side"
    return _complaint_about_form(value, source)


def _complaint_about_form(value: str, source: Source) -> str | None:
    match source:
        case "san.uri":
            return _complaint_about_uri(value)
        case "san.dns":
            return None if _DNS.fullmatch(value) else "is not a lower-case host name"
        case "san.email":
            mailbox, _, domain = value.partition("@")
            plain = _MAILBOX.fullmatch(mailbox) and _DNS.fullmatch(domain)
            return None if plain else "is not a mail address in plain spelling"
        case "subject.cn":
            return None
        case _:
            assert_never(source)


def _complaint_about_uri(value: str) -> str | None:
    plain = _URI.fullmatch(value)
    if plain is None:
        return "is not a plain URI (lower-case scheme and host, no user, port, query, fragment, escape)"
    if {".", ".."} & set(plain["path"].split("/")):
        return "has dot segments"
    return None
