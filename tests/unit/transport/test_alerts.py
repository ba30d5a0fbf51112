"""OpenSSL's errors as one word and one line: real errors of a real client that gets a real alert."""

from __future__ import annotations

import ssl

import pytest

from transport.alerts import NO_APPLICATION_PROTOCOL, describe


def error_of_alert(code: int) -> ssl.SSLError:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    incoming.write(bytes((21, 3, 3, 0, 2, 2, code)))
    with pytest.raises(ssl.SSLError) as raised:
        tls.do_handshake()
    return raised.value


@pytest.mark.parametrize(
    ("code", "alert"),
    [
        (42, "bad certificate"),
        (43, "unsupported certificate"),
        (44, "certificate revoked"),
        (45, "certificate expired"),
        (46, "certificate unknown"),
        (48, "unknown ca"),
        (49, "access denied"),
        (116, "certificate required"),
    ],
)
def test_describe_names_alerts_about_our_certificate(code: int, alert: str) -> None:
    failure = describe(error_of_alert(code), peer="server")
    assert failure.alert == alert
    assert failure.result == "peer_alert"
    assert failure.reason == f"the server refused our certificate: {alert}"


@pytest.mark.parametrize(
    ("code", "alert"),
    [
        (40, "handshake failure"),
        (70, "protocol version"),
        (112, "unrecognized name"),
        (120, "no application protocol"),
    ],
)
def test_describe_names_other_alerts(code: int, alert: str) -> None:
    failure = describe(error_of_alert(code), peer="server")
    assert failure.alert == alert
    assert failure.reason == f"the server ended TLS with the alert `{alert}`"


def test_describe_survives_an_unknown_alert() -> None:
    failure = describe(error_of_alert(200), peer="server")
    assert failure.result == "protocol"
    assert failure.reason.startswith("the server broke TLS: ")


def test_no_application_protocol_is_alert_120() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    incoming.write(NO_APPLICATION_PROTOCOL)
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        tls.do_handshake()


def verify_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(
        1, f"[SSL: CERTIFICATE_VERIFY_FAILED] {message} (_ssl.c:1)"
    )
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (10, "expired"),
        (9, "not_yet_valid"),
        (20, "unknown_ca"),
        (26, "wrong_purpose"),
        (23, "revoked"),
        (34, "bad_certificate"),
    ],
)
def test_describe_names_verification_failures(code: int, result: str) -> None:
    failure = describe(verify_error(code, "Certificate is ODD"), peer="client")
    assert failure.result == result
    assert failure.reason == "the client's certificate is refused: certificate is odd"
    assert failure.alert is None
