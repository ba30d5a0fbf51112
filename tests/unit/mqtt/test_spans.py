from __future__ import annotations

import pytest

from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.packets import Properties, Publish, Version
from mqtt.spans import correlation_span, expiry_span

BODY = 2 + 2 + 1  # fixed header, topic length, topic `t`


@pytest.mark.parametrize(
    "properties",
    [
        Properties(correlation_data=b"abc"),
        Properties(
            payload_format_indicator=1,
            message_expiry_interval=7,
            content_type="text/plain",
            response_topic="r",
            correlation_data=b"abc",
            user_properties=(("k", "v"), ("k", "w")),
        ),
        Properties(user_properties=(("k", "\t"),), correlation_data=b"abc"),
    ],
)
def test_span_is_where_the_value_stands(properties: Properties) -> None:
    packet = encode(Publish(topic="t", payload=b"abc", properties=properties), Version.V5)
    start, end = correlation_span(packet, BODY)
    assert packet[start:end] == b"abc"
    assert end <= len(packet) - 3, "not the payload, which looks the same"


@pytest.mark.parametrize("properties", [Properties(), Properties(response_topic="r")])
def test_span_is_empty_without_correlation_data(properties: Properties) -> None:
    packet = encode(Publish(topic="t", payload=b"x", properties=properties), Version.V5)
    assert correlation_span(packet, BODY) == (BODY, BODY)


def test_expiry_interval_is_found_among_others() -> None:
    properties = Properties(
        payload_format_indicator=1, message_expiry_interval=7, user_properties=(("k", "v"),)
    )
    packet = encode(Publish(topic="t", payload=b"x", properties=properties), Version.V5)
    start, end = expiry_span(packet, BODY)
    assert packet[start:end] == b"\0\0\0\7"
    packet = encode(Publish(topic="t", properties=Properties(content_type="c")), Version.V5)
    assert expiry_span(packet, BODY) == (BODY, BODY)


def test_span_never_reaches_past_the_packet() -> None:
    with pytest.raises(RemoteProtocolError):
        correlation_span(b"\x30\x08\x00\x01t\x04\x08\x00\x09", BODY)
