"""Which certificates exist: one profile per role, complete, with nothing for a requester to choose.

*Rules of this file*: an authority builds a certificate from the profile and takes only the public key
from the requester. A role has exactly the purposes it needs: what connects is a client, what listens *and*
connects (broker, controller) is both. Authorities carry no name constraints: servers anchor at one issuing
authority, which confines more than a constraint would, and several small TLS libraries refuse any chain
with a critical extension they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

BACKDATE_S: Final = 300.0  # peers' clocks may be five minutes behind ours
DAY_S: Final = 86_400.0
ROOT_LIFETIME_S: Final = 3_650 * DAY_S  # ten years: it only signs issuing authorities
ISSUING_LIFETIME_S: Final = 730 * DAY_S  # two years, renewed by the root
LEAF_LIFETIME_S: Final = 30 * DAY_S  # development; renewed when under a third is left


class Role(StrEnum):
    """What the holder of a certificate is; the first path segment of its SPIFFE id."""

    BROKER = "broker"
    CONTROLLER = "controller"
    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What every leaf certificate of one role looks like.

    Attributes:
        role: the role.
        purposes: the extended key usages, exactly these.
        has_hosts: whether it carries host names and addresses; needs at least one then.
        max_lifetime_s: longest validity, in seconds.
    """

    role: Role
    purposes: tuple[x509.ObjectIdentifier, ...]
    has_hosts: bool
    max_lifetime_s: float = LEAF_LIFETIME_S


_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_SERVER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

PROFILES: Final[Mapping[Role, Profile]] = MappingProxyType(
    {
        Role.BROKER: Profile(role=Role.BROKER, purposes=_SERVER, has_hosts=True),
        Role.CONTROLLER: Profile(role=Role.CONTROLLER, purposes=_SERVER, has_hosts=True),
        Role.CLIENT: Profile(role=Role.CLIENT, purposes=_CLIENT, has_hosts=False),
        Role.ADMIN: Profile(role=Role.ADMIN, purposes=_CLIENT, has_hosts=False),
    }
)


def leaf_key_usage() -> x509.KeyUsage:
    """What a leaf's key may do: sign handshakes, nothing else."""
    return _key_usage(digital_signature=True)


def authority_key_usage() -> x509.KeyUsage:
    """What an authority's key may do: sign certificates and revocation lists."""
    return _key_usage(key_cert_sign=True, crl_sign=True)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
