"""Turns OpenSSL's errors into one word for a metric and one line for the log.

Pure: no socket, no clock. OpenSSL reports an alert of the peer as an error text (`sslv3 alert certificate expired`),
sometimes without a symbolic reason, so the text is what is read; RFC 8446 section 6 is the source of the names.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Final

NO_APPLICATION_PROTOCOL: Final = bytes((21, 3, 3, 0, 2, 2, 120))
"""A fatal `no_application_protocol` alert as a plaintext record (RFC 7301 section 3.2), only valid before ServerHello."""

# What a peer says when it is our certificate that it does not like (RFC 8446 section 6.2).
CERTIFICATE_ALERTS: Final = frozenset(
    {
        "access denied",
        "bad certificate",
        "certificate expired",
        "certificate required",
        "certificate revoked",
        "certificate unknown",
        "unknown ca",
        "unsupported certificate",
    }
)

# `[SSL: REASON] text (_ssl.c:1006)`; the bracket and the place in the C source are noise to a reader.
_ERROR_TEXT: Final = re.compile(r"^(?:\[[^\]]*\] )?(?P<text>.*?)(?: \(_ssl\.c:\d+\))?$", re.DOTALL)
_ALERT_TEXT: Final = re.compile(r"^(?:sslv3|tlsv1|tlsv13) (?:alert )?(?P<alert>.+)$")

# X509_V_ERR_* of OpenSSL's x509_vfy.h; everything not named here is a `bad_certificate`.
_VERIFY_RESULTS: Final = {
    2: "unknown_ca",  # unable to get issuer certificate
    9: "not_yet_valid",
    10: "expired",
    18: "unknown_ca",  # self-signed certificate
    19: "unknown_ca",  # self-signed certificate in chain
    20: "unknown_ca",  # unable to get local issuer certificate
    21: "unknown_ca",  # unable to verify the first certificate
    23: "revoked",
    26: "wrong_purpose",  # the extended key usage is for something else
    62: "wrong_name",  # hostname mismatch
    64: "wrong_name",  # IP address mismatch
}
_REASON_RESULTS: Final = {
    "HTTP_REQUEST": "not_tls",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "WRONG_VERSION_NUMBER": "not_tls",
    "NO_SHARED_CIPHER": "no_cipher",
    "NO_SHARED_GROUP": "no_cipher",
    "NO_SUITABLE_KEY_SHARE": "no_cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no_cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why TLS ended: `result` for a metric label, `reason` for the log, `alert` when the peer sent one."""

    result: str
    reason: str
    alert: str | None = None


def describe(error: ssl.SSLError, *, peer: str) -> Failure:
    """Say what `error` means.

    Args:
        error: what OpenSSL raised from a handshake, a read or a write.
        peer: what the other side is to us: `client` or `server`.
    """
    text = _plain_text(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        result = _VERIFY_RESULTS.get(error.verify_code, "bad_certificate")
        return Failure(
            result=result,
            reason=f"the {peer}'s certificate is refused: {error.verify_message.lower()}",
        )
    if (match := _ALERT_TEXT.match(text)) is not None:
        return _describe_alert(match["alert"], peer=peer)
    result = _REASON_RESULTS.get(error.reason or "", "protocol")
    if result == "no_certificate":
        return Failure(result=result, reason=f"the {peer} sent no certificate")
    return Failure(result=result, reason=f"the {peer} broke TLS: {text}")


def _describe_alert(alert: str, *, peer: str) -> Failure:
    if alert in CERTIFICATE_ALERTS:
        return Failure(
            result="peer_alert", reason=f"the {peer} refused our certificate: {alert}", alert=alert
        )
    return Failure(
        result="peer_alert", reason=f"the {peer} ended TLS with the alert `{alert}`", alert=alert
    )


def _plain_text(error: ssl.SSLError) -> str:
    raw = str(error.args[1]) if len(error.args) > 1 else str(error)
    match = _ERROR_TEXT.match(raw)
    return (match["text"] if match is not None else raw).lower()
