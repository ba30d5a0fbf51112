"""The hosts a server certificate is for: DNS names and IP addresses in one spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from cryptography import x509

from certs.errors import IssueRefused

MAX_HOSTS: Final = (
    16  # a broker behind a few names; keeps the certificate within one TCP segment or two
)
# Host names (RFC 1123): lower-case labels of letters, digits and inner hyphens; no wildcard, we issue none.
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII,
)
_LOOKS_LIKE_ADDRESS: Final = re.compile(r"[0-9.]+", re.ASCII)


def general_names(hosts: Sequence[str]) -> tuple[x509.DNSName | x509.IPAddress, ...]:
    """Host names and addresses as subject alternative names, in order, without repetitions.

    Args:
        hosts: DNS names (folded to lower case) and IP addresses; 1 to `MAX_HOSTS`.

    Raises:
        IssueRefused: none, too many, or one that is neither a host name nor an address.
    """
    if not 1 <= len(hosts) <= MAX_HOSTS:
        raise IssueRefused(f"a server certificate is for 1 to {MAX_HOSTS} hosts, not {len(hosts)}")
    return tuple(dict.fromkeys(_general_name(host) for host in hosts))


def _general_name(host: str) -> x509.DNSName | x509.IPAddress:
    address = _address(host)
    if address is not None:
        return x509.IPAddress(address)
    name = host.lower()
    if not _HOST.fullmatch(name) or _LOOKS_LIKE_ADDRESS.fullmatch(name):
        raise IssueRefused(f"{host[:64]!a} is neither a host name nor an IP address")
    return x509.DNSName(name)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    if "%" in host:  # a zone (`fe80::1%eth0`) has a meaning on one machine only
        return None
    try:
        return ip_address(host)
    except ValueError:
        return None
