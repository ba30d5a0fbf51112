"""TLS contexts: how Stockade's servers and clients speak TLS, and whom they believe.

*Rules of this file*: TLS 1.3 only. Both sides present a certificate. A context is built once and never
changed; to change files, build a new one and use it for new connections. All checks that OpenSSL cannot do
(purpose, SPIFFE id, role) follow in `certs.verify`.

*Theory of operation*: a server anchors at one *issuing* authority (partial chain), not at the root, because
every other environment's authority below the same root would be believed too. Session tickets are off:
a resumed session skips expiry and revocation (and a ticket costs 0.13 ms of CPU).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, NoReturn

from certs.errors import CertificateUnusable, KeyUnusable
from certs.keys import is_authority, read_chain
from vault.errors import VaultError
from vault.files import read_private

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryptography import x509

MAX_ALPN_PROTOCOLS: Final = 8
_STRICT: Final = ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


def server_context(
    *, certificate: Path, key: Path, anchor: Path, alpn: Sequence[str]
) -> ssl.SSLContext:
    """A context for a listener: TLS 1.3, client certificate required.

    Blocks for a few file reads.

    Args:
        certificate: PEM, the server's leaf followed by its issuing authority.
        key: PEM, unencrypted, mode 0600.
        anchor: PEM with exactly the one issuing authority whose clients are accepted.
        alpn: protocols offered, best first.

    Returns:
        A context that must not be changed any more.

    Raises:
        CertificateUnusable: certificate or anchor are unreadable, corrupt, or of the wrong kind.
        KeyUnusable: the key is unreadable, readable by others, encrypted, or not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    anchors = _read_anchors(anchor)
    if len(anchors) != 1:
        raise CertificateUnusable(
            f"`{anchor}` holds {len(anchors)} certificates: a server trusts exactly one issuing "
            "authority, give its certificate alone (issuing.pem)"
        )
    return _finish(context, certificate=certificate, key=key, anchor=anchor, alpn=alpn)


def client_context(
    *, certificate: Path, key: Path, ca: Path, alpn: Sequence[str]
) -> ssl.SSLContext:
    """A context for connecting: TLS 1.3, the server's name is verified.

    Blocks for a few file reads.

    Args:
        certificate: PEM, the client's leaf followed by its issuing authority.
        key: PEM, unencrypted, mode 0600.
        ca: PEM with the authorities whose servers are believed.
        alpn: protocols offered, best first.

    Returns:
        A context that must not be changed any more.

    Raises:
        CertificateUnusable: certificate or authorities are unreadable, corrupt, or of the wrong kind.
        KeyUnusable: the key is unreadable, readable by others, encrypted, or not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED and check_hostname
    _read_anchors(ca)
    return _finish(context, certificate=certificate, key=key, anchor=ca, alpn=alpn)


def _finish(
    context: ssl.SSLContext, *, certificate: Path, key: Path, anchor: Path, alpn: Sequence[str]
) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    context.verify_flags |= _STRICT
    _load_anchor(context, anchor)
    _load_pair(context, certificate, key)
    _offer(context, alpn)
    return context


def _read_anchors(path: Path) -> tuple[x509.Certificate, ...]:
    anchors = read_chain(path)
    for anchor in anchors:
        if not is_authority(anchor):
            raise CertificateUnusable(
                f"`{path}` holds a certificate that is not an authority's: give the issuing authority's"
            )
    return anchors


def _load_anchor(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise CertificateUnusable(f"`{path}` cannot be loaded as trust anchor") from error


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    read_chain(certificate)  # a clear error for each file, before OpenSSL's own
    try:
        read_private(key)
    except VaultError as error:
        raise KeyUnusable(str(error)) from error
    try:
        context.load_cert_chain(certificate, key, password=_no_password(key))
    except ssl.SSLError as error:
        raise KeyUnusable(_explain_pair(error, certificate, key)) from error
    except OSError as error:
        raise KeyUnusable(f"`{certificate}` or `{key}` cannot be read: {error.strerror}") from error


def _no_password(key: Path) -> Callable[[], NoReturn]:
    """Without this, OpenSSL would ask on the terminal and a daemon would hang."""

    def refuse() -> NoReturn:
        raise KeyUnusable(f"`{key}` is encrypted: TLS needs an unencrypted key of mode 0600")

    return refuse


def _explain_pair(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"`{key}` is not the key of `{certificate}`: give the pair that was issued together"
    return f"`{certificate}` and `{key}` cannot be loaded ({error.reason or 'not PEM'})"


def _offer(context: ssl.SSLContext, alpn: Sequence[str]) -> None:
    if len(alpn) > MAX_ALPN_PROTOCOLS:
        message = f"at most {MAX_ALPN_PROTOCOLS} protocols can be offered, not {len(alpn)}"
        raise ValueError(message)
    if alpn:
        context.set_alpn_protocols(list(alpn))
