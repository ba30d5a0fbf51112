from __future__ import annotations

from mqtt.errors import LocalProtocolError, MqttError, ReasonCode, RemoteProtocolError


def test_error_carries_reason_and_message() -> None:
    error = RemoteProtocolError("broken", ReasonCode.QUOTA_EXCEEDED)
    assert (str(error), error.message, error.reason) == (
        "broken",
        "broken",
        ReasonCode.QUOTA_EXCEEDED,
    )
    assert RemoteProtocolError("x").reason is ReasonCode.MALFORMED_PACKET


def test_every_error_of_the_room_has_one_base() -> None:
    assert issubclass(RemoteProtocolError, MqttError)
    assert issubclass(LocalProtocolError, MqttError)


def test_failure_begins_where_the_standard_says() -> None:
    assert not ReasonCode.RE_AUTHENTICATE.failed
    assert ReasonCode.UNSPECIFIED_ERROR.failed
    assert ReasonCode["GRANTED_QOS_0"] is ReasonCode(0)
