from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from broker.answers import answer
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import PacketType, Properties, Puback, Pubcomp, Pubrec, Version

KINDS: dict[PacketType, type[Puback | Pubrec | Pubcomp]] = {
    PacketType.PUBACK: Puback,
    PacketType.PUBREC: Pubrec,
    PacketType.PUBCOMP: Pubcomp,
}
IDS = st.lists(st.integers(1, 65_535), min_size=1, max_size=20)
ROOMY = 1 << 20
FAILURES = [
    (PacketType.PUBACK, ReasonCode.QUOTA_EXCEEDED),
    (PacketType.PUBACK, ReasonCode.NO_MATCHING_SUBSCRIBERS),
    (PacketType.PUBREC, ReasonCode.NOT_AUTHORIZED),
    (PacketType.PUBCOMP, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND),
]


@given(ids=IDS, kind=st.sampled_from([*KINDS]), version=st.sampled_from(Version))
def test_success_is_four_bytes_a_message_in_order(
    ids: list[int], kind: PacketType, version: Version
) -> None:
    data = answer(kind, ids, ReasonCode.SUCCESS, "", version, ROOMY)
    assert data == b"".join(encode(KINDS[kind](packet_id=each), version) for each in ids)
    assert len(data) == 4 * len(ids)


@given(ids=IDS, failure=st.sampled_from(FAILURES), text=st.sampled_from(["", "why"]))
def test_failure_is_what_the_plain_encoder_says(
    ids: list[int], failure: tuple[PacketType, ReasonCode], text: str
) -> None:
    kind, reason = failure
    data = answer(kind, ids, reason, text, Version.V5, ROOMY)
    properties = Properties(reason_string=text or None)
    assert data == b"".join(
        encode(KINDS[kind](packet_id=each, reason=reason, properties=properties), Version.V5)
        for each in ids
    )


@pytest.mark.parametrize("kind", KINDS)
def test_client_of_3_1_1_is_told_that_it_was_taken_whatever_became_of_it(kind: PacketType) -> None:
    data = answer(kind, [5], ReasonCode.NOT_AUTHORIZED, "no", Version.V311, ROOMY)
    assert data == encode(KINDS[kind](packet_id=5), Version.V311)


def test_reason_string_that_is_too_long_for_the_client_is_left_out() -> None:
    data = answer(PacketType.PUBACK, [5, 6], ReasonCode.NOT_AUTHORIZED, "x" * 50, Version.V5, 20)
    assert data == b"".join(
        encode(Puback(packet_id=each, reason=ReasonCode.NOT_AUTHORIZED), Version.V5)
        for each in (5, 6)
    )
