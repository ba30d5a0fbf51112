from __future__ import annotations

import pytest

from mqtt.acks import FIRST_BYTES, AckRun
from mqtt.encode import encode
from mqtt.packets import PacketType, Pubrel, Version


def test_run_shows_its_packets() -> None:
    run = AckRun(PacketType.PUBREL, [7, 1])
    assert run.packets() == [Pubrel(packet_id=7), Pubrel(packet_id=1)]
    assert repr(run) == "<AckRun of 2 PUBREL>"


@pytest.mark.parametrize("version", Version)
def test_shortest_form_is_what_is_written_for_success(version: Version) -> None:
    for first, packet_type in FIRST_BYTES.items():
        (packet,) = AckRun(packet_type, [0x0102]).packets()
        assert encode(packet, version) == bytes((first, 2, 1, 2))
