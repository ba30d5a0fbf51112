"""The development PKI: everything `stockade up` needs, in one directory, made once and then kept valid.

*Rules of this file*: running it again changes only what must change. A file that cannot be opened stops it
with an error; no key that cannot be read is ever overwritten. It is for one machine and one developer: leaf
keys lie unencrypted (mode 0600), and the pass phrase lies beside the authorities it protects.

*Theory of operation*: `ca/` is built under another name and renamed when it is complete, so either all of it
exists or nothing. Authorities are renewed under their own keys, so what they issued stays valid. `ca.pem` and
`issuing.pem` are copies for clients and servers, written whenever they differ. A leaf's key is replaced before
its certificate: a crash between the two leaves a pair that does not match, which the next run replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography import x509

from certs.authority import verify_trust_domain
from certs.development_ca import Authorities, is_fresh, open_authorities
from certs.directory_lock import locked
from certs.errors import DirectoryUnusable, IssueRefused
from certs.hosts import general_names
from certs.keys import (
    SigningKey,
    chain_to_pem,
    generate_key,
    is_pair,
    key_to_unsafe_pem,
    read_chain,
    read_key,
)
from certs.lint import lint_leaf
from certs.principal import DEFAULT_TRUST_DOMAIN
from certs.profiles import PROFILES, Profile, Role
from certs.spiffe import SpiffeId, is_segment
from vault.errors import VaultError
from vault.files import (
    make_private_directory,
    read_public,
    verify_directory,
    write_private,
    write_public,
)

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
MAX_CLIENTS: Final = 1_000  # a development PKI; each costs two files and a signature
_RENEW_BELOW: Final = 1 / 3  # share of the lifetime left when a leaf is renewed


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One leaf on disk.

    Attributes:
        certificate: PEM, the leaf followed by the issuing authority.
        key: PEM, unencrypted, mode 0600.
        uri: the SPIFFE id in the certificate.
        not_after: end of validity, seconds since the epoch.
    """

    certificate: Path
    key: Path
    uri: str
    not_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentPki:
    """Where everything lies.

    Attributes:
        directory: the directory of the PKI.
        ca: PEM of root and issuing authority: what clients verify servers with.
        anchor: PEM of the issuing authority alone: what servers verify clients with.
        broker: the broker's certificate and key.
        controller: the controller's certificate and key.
        clients: certificate and key by name, for clients and administrators.
        issued: names of what was issued or renewed by this call, e.g. `root`, `broker`, `sensor`.
    """

    directory: Path
    ca: Path
    anchor: Path
    broker: Credentials
    controller: Credentials
    clients: Mapping[str, Credentials]
    issued: tuple[str, ...]


def create_development_pki(
    directory: Path,
    *,
    clients: Sequence[str],
    now: float,
    hosts: Sequence[str] = DEFAULT_HOSTS,
    admins: Sequence[str] = ("admin",),
    broker_id: str = "broker",
    controller_id: str = "controller",
    trust_domain: str = DEFAULT_TRUST_DOMAIN,
) -> DevelopmentPki:
    """Create the development PKI in `directory`, or bring the one that is there up to date.

    Blocks for 0.1 to 0.3 s (key derivation, disk syncs): call it in a thread from Trio.

    Args:
        directory: created with mode 0700 if missing; others must not be able to write into it.
        clients: names of the clients; role `client`.
        now: seconds since the epoch.
        hosts: names and addresses the broker and the controller are reached by.
        admins: names of the administrators; role `admin`; their files lie with the clients'.
        broker_id: the broker's id.
        controller_id: the controller's id.
        trust_domain: the SPIFFE trust domain.

    Returns:
        The paths of all files; every certificate is valid for at least a third of its lifetime.

    Raises:
        IssueRefused: a name or host cannot be put into a certificate, or a name is given twice.
        DirectoryUnusable: the directory is exposed, incomplete, busy or not writable.
        KeyUnusable: an existing key cannot be read; nothing was overwritten.
        CertificateUnusable: an existing certificate cannot be read; nothing was overwritten.
    """
    leaves = (
        _Leaf(role=Role.BROKER, id=broker_id, stem="broker", hosts=tuple(hosts)),
        _Leaf(role=Role.CONTROLLER, id=controller_id, stem="controller", hosts=tuple(hosts)),
        *(_Leaf(role=Role.CLIENT, id=name, stem=f"clients/{name}") for name in clients),
        *(_Leaf(role=Role.ADMIN, id=name, stem=f"clients/{name}") for name in admins),
    )
    verify_trust_domain(trust_domain)
    _verify_leaves(leaves)
    try:
        make_directory(directory)
        make_directory(directory / "clients")
        with locked(directory):
            authorities = open_authorities(directory / "ca", trust_domain=trust_domain, now=now)
            return _Builder(directory, authorities, now).build(leaves)
    except VaultError as error:
        raise DirectoryUnusable(str(error)) from error


def make_directory(path: Path) -> None:
    """Create a directory with mode 0700 if it is missing; refuse one that others can write into.

    Raises:
        VaultError: as `vault.files.verify_directory` says.
    """
    if not path.exists():
        make_private_directory(path)
    verify_directory(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    role: Role
    id: str
    stem: str
    hosts: tuple[str, ...] = ()

    @property
    def profile(self) -> Profile:
        return PROFILES[self.role]

    def names(self, trust_domain: str) -> frozenset[x509.GeneralName]:
        uri = x509.UniformResourceIdentifier(self.uri(trust_domain))
        return frozenset({uri, *(general_names(self.hosts) if self.profile.has_hosts else ())})

    def uri(self, trust_domain: str) -> str:
        return SpiffeId(trust_domain=trust_domain, role=self.role.value, id=self.id).uri


def _verify_leaves(leaves: Sequence[_Leaf]) -> None:
    """Refuse bad names before anything is written."""
    if len(leaves) > MAX_CLIENTS:
        raise IssueRefused(f"a development PKI has at most {MAX_CLIENTS} certificates")
    stems = [leaf.stem for leaf in leaves]
    for leaf in leaves:
        if not is_segment(leaf.id):
            raise IssueRefused(
                f"{leaf.id[:80]!a} cannot be a name: use 1 to 64 letters, digits, `.`, `_` or `-`"
            )
        if stems.count(leaf.stem) > 1:
            raise IssueRefused(f"two clients or administrators are called `{leaf.id}`: rename one")
        if leaf.profile.has_hosts:
            general_names(leaf.hosts)


class _Builder:
    """Writes what is missing below one directory, and remembers what it wrote."""

    def __init__(self, directory: Path, authorities: Authorities, now: float) -> None:
        self._directory = directory
        self._issuing = authorities.issuing
        self._root = authorities.root
        self._now = now
        self._issued = list(authorities.renewed)

    def build(self, leaves: Sequence[_Leaf]) -> DevelopmentPki:
        issuing = self._issuing.certificate
        ca, anchor = self._directory / "ca.pem", self._directory / "issuing.pem"
        _write_if_different(ca, chain_to_pem([self._root, issuing]))
        _write_if_different(anchor, chain_to_pem([issuing]))
        broker, controller, *others = [self._keep_or_issue(leaf) for leaf in leaves]
        names = [leaf.id for leaf in leaves[2:]]
        return DevelopmentPki(
            directory=self._directory,
            ca=ca,
            anchor=anchor,
            broker=broker,
            controller=controller,
            clients=MappingProxyType(dict(zip(names, others, strict=True))),
            issued=tuple(self._issued),
        )

    def _keep_or_issue(self, leaf: _Leaf) -> Credentials:
        certificate_file = self._directory / f"{leaf.stem}.pem"
        key_file = self._directory / f"{leaf.stem}.key"
        certificate = self._usable(leaf, certificate_file, key_file)
        if certificate is None:
            certificate = self._issue(leaf, certificate_file, key_file)
            self._issued.append(leaf.id)
        return Credentials(
            certificate=certificate_file,
            key=key_file,
            uri=leaf.uri(self._issuing.trust_domain),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )

    def _usable(
        self, leaf: _Leaf, certificate_file: Path, key_file: Path
    ) -> x509.Certificate | None:
        if not (certificate_file.exists() and key_file.exists()):
            return None
        key, certificate = read_key(key_file), read_chain(certificate_file)[0]
        if not self._is_current(leaf, certificate, key):
            return None
        # the issuing authority may have been renewed under the same key: the leaf stays, the chain changes
        chain = chain_to_pem([certificate, self._issuing.certificate])
        _write_if_different(certificate_file, chain)
        return certificate

    def _is_current(self, leaf: _Leaf, certificate: x509.Certificate, key: SigningKey) -> bool:
        profile, issuer = leaf.profile, self._issuing.certificate
        return (
            is_pair(key, certificate)
            and not any(lint_leaf(certificate, profile=profile, issuer=issuer))
            and leaf.names(self._issuing.trust_domain) == _names_in(certificate)
            and is_fresh(certificate, now=self._now, margin_s=profile.max_lifetime_s * _RENEW_BELOW)
        )

    def _issue(self, leaf: _Leaf, certificate_file: Path, key_file: Path) -> x509.Certificate:
        key = generate_key()
        certificate = self._issuing.issue(
            leaf.profile, id=leaf.id, public_key=key.public_key(), now=self._now, hosts=leaf.hosts
        )
        write_private(key_file, key_to_unsafe_pem(key))
        write_public(certificate_file, chain_to_pem([certificate, self._issuing.certificate]))
        return certificate


def _names_in(certificate: x509.Certificate) -> frozenset[x509.GeneralName]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return frozenset(found.value)


def _write_if_different(path: Path, data: bytes) -> None:
    if not path.exists() or read_public(path) != data:
        write_public(path, data)
