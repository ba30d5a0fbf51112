"""The two authorities of the development PKI, sealed in one directory that is complete or absent."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from certs.authority import CertificateAuthority, create_root
from certs.errors import CertificateUnusable, CertsError, DirectoryUnusable, KeyUnusable
from certs.keys import (
    SigningKey,
    chain_to_pem,
    generate_key,
    is_pair,
    key_from_der,
    key_to_der,
    read_chain,
)
from certs.lint import lint_authority
from certs.profiles import ISSUING_LIFETIME_S, LEAF_LIFETIME_S
from vault.errors import FileExposed, VaultError
from vault.files import make_private_directory, read_private, write_private, write_public
from vault.keystore import QUICK, open_key, seal_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

ROOT_NAME: Final = "development-root"
ISSUING_NAME: Final = "development"
_ROOT: Final = "root"
_ISSUING: Final = "issuing"
_PASSPHRASE: Final = "passphrase"  # noqa: S105 - a file name
_PASSPHRASE_BYTES: Final = 32  # random: guessing is hopeless even with the quick derivation
# An issuing authority is renewed while the leaves it signs can still live out their time; a root while it can
# still cover an issuing authority.
_ISSUING_MARGIN_S: Final = 2 * LEAF_LIFETIME_S
_ROOT_MARGIN_S: Final = ISSUING_LIFETIME_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """What the rest of the development PKI needs.

    Attributes:
        root: the root's certificate; its key stays sealed.
        issuing: the authority that signs leaves.
        renewed: names of the authorities that were created or renewed now.
    """

    root: x509.Certificate
    issuing: CertificateAuthority
    renewed: tuple[str, ...] = ()


def open_authorities(directory: Path, *, trust_domain: str, now: float) -> Authorities:
    """Open the authorities in `directory`, create them when it does not exist, renew what runs out.

    Blocks for one to four key derivations (0.04 s each) and disk syncs. The caller holds the lock.

    Args:
        directory: the private directory of the authorities; its parent exists.
        trust_domain: the SPIFFE trust domain.
        now: seconds since the epoch.

    Raises:
        DirectoryUnusable: incomplete, exposed to others, or not writable.
        KeyUnusable: a key does not open or does not belong to its certificate; nothing was changed.
        CertificateUnusable: a certificate is unreadable or no authority's.
    """
    try:
        if not directory.exists():
            _create(directory, trust_domain=trust_domain, now=now)
            opened = _open(directory, trust_domain=trust_domain)
            return Authorities(root=opened.root, issuing=opened.issuing, renewed=(_ROOT, _ISSUING))
        make_private_directory(directory)
        return _renew(directory, _open(directory, trust_domain=trust_domain), now=now)
    except VaultError as error:
        raise DirectoryUnusable(str(error)) from error


def is_fresh(certificate: x509.Certificate, *, now: float, margin_s: float) -> bool:
    """Whether a certificate is valid now and for another `margin_s` seconds."""
    starts = certificate.not_valid_before_utc.timestamp()
    return starts <= now <= certificate.not_valid_after_utc.timestamp() - margin_s


def _create(directory: Path, *, trust_domain: str, now: float) -> None:
    root = create_root(ROOT_NAME, trust_domain=trust_domain, key=generate_key(), now=now)
    issuing = root.create_issuing(ISSUING_NAME, key=generate_key(), now=now)
    passphrase = secrets.token_hex(_PASSPHRASE_BYTES).encode()
    building = directory.with_name(f".{directory.name}.new")
    try:
        if building.exists():  # left by a run that was cut off before it had issued anything
            shutil.rmtree(building)
        make_private_directory(building)
        write_private(building / _PASSPHRASE, passphrase)
        for name, authority in ((_ROOT, root), (_ISSUING, issuing)):
            sealed = seal_key(
                key_to_der(authority.key), name=name, passphrase=passphrase, cost=QUICK
            )
            write_private(_key_file(building, name), sealed)
            write_public(_certificate_file(building, name), chain_to_pem([authority.certificate]))
        building.rename(directory)
    except OSError as error:
        raise DirectoryUnusable(f"cannot create `{directory}`: {error.strerror}") from error


def _open(directory: Path, *, trust_domain: str) -> Authorities:
    _verify_complete(directory)
    root = _read_certificate(directory, _ROOT)
    certificate = _read_certificate(directory, _ISSUING)
    for name, found, issuer in ((_ROOT, root, root), (_ISSUING, certificate, root)):
        findings = "; ".join(lint_authority(found, issuer=issuer))
        if findings:
            raise CertificateUnusable(
                f"`{_certificate_file(directory, name)}` is unfit ({findings}): {_begin_anew(directory)}"
            )
    key = _open_key(directory, _ISSUING, certificate)
    issuing = CertificateAuthority(certificate=certificate, key=key, trust_domain=trust_domain)
    return Authorities(root=root, issuing=issuing)


def _renew(directory: Path, opened: Authorities, *, now: float) -> Authorities:
    root, issuing = opened.root, opened.issuing
    renew_root = not is_fresh(root, now=now, margin_s=_ROOT_MARGIN_S)
    if not renew_root and is_fresh(issuing.certificate, now=now, margin_s=_ISSUING_MARGIN_S):
        return opened
    key = _open_key(directory, _ROOT, root)
    domain = issuing.trust_domain
    signer = CertificateAuthority(certificate=root, key=key, trust_domain=domain)
    if renew_root:
        signer = create_root(ROOT_NAME, trust_domain=domain, key=key, now=now)
        write_public(_certificate_file(directory, _ROOT), chain_to_pem([signer.certificate]))
    issuing = signer.create_issuing(ISSUING_NAME, key=issuing.key, now=now)
    write_public(_certificate_file(directory, _ISSUING), chain_to_pem([issuing.certificate]))
    renewed = (_ROOT, _ISSUING) if renew_root else (_ISSUING,)
    return Authorities(root=signer.certificate, issuing=issuing, renewed=renewed)


def _verify_complete(directory: Path) -> None:
    files = [directory / _PASSPHRASE]
    for name in (_ROOT, _ISSUING):
        files += [_key_file(directory, name), _certificate_file(directory, name)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DirectoryUnusable(
            f"`{directory}` lacks {', '.join(f'`{name}`' for name in missing)}: {_begin_anew(directory)}"
        )


def _read_certificate(directory: Path, name: str) -> x509.Certificate:
    path = _certificate_file(directory, name)
    chain = read_chain(path)
    if len(chain) != 1:
        raise CertificateUnusable(f"`{path}` must hold one certificate: {_begin_anew(directory)}")
    return chain[0]


def _open_key(directory: Path, name: str, certificate: x509.Certificate) -> SigningKey:
    path = _key_file(directory, name)
    try:
        passphrase = read_private(directory / _PASSPHRASE).strip()
        der = open_key(read_private(path), name=name, passphrase=passphrase)
        key = key_from_der(der, name=str(path))
    except (VaultError, CertsError) as error:
        advice = "" if isinstance(error, FileExposed) else f"; {_begin_anew(directory)}"
        raise KeyUnusable(
            f"the authority's key `{path}` cannot be used: {error}{advice}"
        ) from error
    if not is_pair(key, certificate):
        raise KeyUnusable(
            f"`{path}` is not the key of `{_certificate_file(directory, name)}`: {_begin_anew(directory)}"
        )
    return key


def _begin_anew(directory: Path) -> str:
    return (
        f"restore it, or move `{directory}` away to begin with new authorities "
        "(every certificate is then issued anew)"
    )


def _key_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.key.sealed"


def _certificate_file(directory: Path, name: str) -> Path:
    return directory / f"{name}.pem"
