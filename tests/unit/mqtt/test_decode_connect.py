from __future__ import annotations

import pytest

from mqtt.decode import decode_packet
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Role, Version


def refused(wire: str) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(bytes.fromhex(wire), Version.V5, Role.SERVER)
    return caught.value


@pytest.mark.parametrize(
    ("wire", "answer_in"),
    [
        ("10 0e 0004 4d515454 06 02 003c 00 0001 61", Version.V5),
        ("10 0d 0004 4d515454 03 02 003c 0001 61", Version.V311),
        ("10 0f 0006 4d5149736470 03 02 003c 0001 61", Version.V311),
    ],
)
def test_other_version_is_refused_in_a_format_its_client_reads(
    wire: str, answer_in: Version
) -> None:
    error = refused(wire)
    assert error.reason is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
    assert error.version is answer_in
    assert "5.0" in error.message


@pytest.mark.parametrize(
    ("wire", "answer_in"),
    [
        ("10 0e 0004 4d515454 05 03 003c 00 0001 61", Version.V5),
        ("10 0d 0004 4d515454 04 03 003c 0001 61", Version.V311),
    ],
)
def test_broken_connect_still_names_its_version(wire: str, answer_in: Version) -> None:
    assert refused(wire).version is answer_in


def test_other_protocol_names_no_version() -> None:
    error = refused("10 0e 0004 48545450 05 02 003c 00 0001 61")
    assert error.reason is ReasonCode.MALFORMED_PACKET
    assert error.version is None
