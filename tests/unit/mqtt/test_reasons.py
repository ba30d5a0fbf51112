from __future__ import annotations

from mqtt.errors import ReasonCode
from mqtt.packets import PacketType, Role
from mqtt.reasons import ALLOWED, allowed_from, connack_code_311, connack_reason_311


def test_each_side_may_say_a_part_of_what_its_packet_may() -> None:
    for packet_type, allowed in ALLOWED.items():
        both = {each for role in Role for each in allowed_from(packet_type, role)}
        assert both == allowed


def test_only_clients_ask_for_their_will_and_only_servers_evict() -> None:
    by_client = allowed_from(PacketType.DISCONNECT, Role.CLIENT)
    by_server = allowed_from(PacketType.DISCONNECT, Role.SERVER)
    assert ReasonCode.DISCONNECT_WITH_WILL_MESSAGE in by_client - by_server
    assert ReasonCode.SESSION_TAKEN_OVER in by_server - by_client


def test_return_codes_of_the_older_version_mean_the_same_both_ways() -> None:
    for code in range(6):
        reason = connack_reason_311(code)
        assert reason is not None
        assert connack_code_311(reason) == code
    assert connack_reason_311(6) is None


def test_refusal_stays_a_refusal_in_the_older_version() -> None:
    assert connack_code_311(ReasonCode.BANNED) == 5
    assert connack_code_311(ReasonCode.QUOTA_EXCEEDED) == 3
    assert all(connack_code_311(each) for each in ReasonCode if each.failed)
