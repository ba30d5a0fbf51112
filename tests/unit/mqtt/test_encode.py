from __future__ import annotations

from dataclasses import replace

import pytest
from typing_extensions import override

from mqtt.encode import encode, encode_bounded
from mqtt.errors import LocalProtocolError, ReasonCode
from mqtt.packets import (
    EMPTY,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)
from tests.vectors.mqtt.packets import LEGAL, Legal

V5, V311 = Version.V5, Version.V311


@pytest.mark.parametrize("vector", LEGAL, ids=lambda each: each.name)
def test_packet_is_written_as_the_standard_says(vector: Legal) -> None:
    assert encode(vector.packet, vector.version) == vector.wire


@pytest.mark.parametrize(
    ("packet", "version", "complaint"),
    [
        (Publish(topic=""), V5, "empty"),
        (Publish(topic="a/#"), V5, "wildcard"),
        (Publish(topic="a\0"), V5, "U+0000"),
        (Publish(topic="\ud800"), V5, "surrogate"),
        (Publish(topic="a" * 65_536), V5, "longer than 65535"),
        (Publish(topic="a", qos=3, packet_id=1), V5, "QoS 3"),
        (Publish(topic="a", qos=1), V5, "packet id"),
        (Publish(topic="a", qos=1, packet_id=65_536), V5, "packet id"),
        (Publish(topic="a", packet_id=1), V5, "no packet id"),
        (Publish(topic="a", dup=True), V5, "no DUP"),
        (Publish(topic="", properties=Properties(topic_alias=1)), V311, "MQTT 5.0"),
        (Publish(topic="a", properties=Properties(topic_alias=0)), V5, "alias is 0"),
        (Publish(topic="a", properties=Properties(response_topic="+")), V5, "wildcard"),
        (Publish(topic="a", properties=Properties(maximum_qos=1)), V5, "not allowed"),
        (Connect(version=V311), V5, "another version"),
        (Connect(keep_alive=65_536), V5, "keep alive"),
        (Connect(version=V311, client_id="a", password=b"p"), V311, "user name"),
        (Connect(version=V311, clean_start=False), V311, "clean session"),
        (Connect(will=Will(topic="#")), V5, "wildcard"),
        (Connect(will=Will(topic="a", qos=3)), V5, "QoS 3"),
        (Connect(will=Will(topic="a", properties=Properties(response_topic="#"))), V5, "wildcard"),
        (Connack(session_present=True, reason=ReasonCode.NOT_AUTHORIZED), V5, "no session"),
        (Connack(reason=ReasonCode.NO_MATCHING_SUBSCRIBERS), V5, "cannot carry"),
        (Puback(packet_id=0), V5, "packet id"),
        (Puback(packet_id=1, reason=ReasonCode.BANNED), V5, "cannot carry"),
        (Subscribe(packet_id=1, filters=()), V5, "at least one"),
        (Subscribe(packet_id=1, filters=(Subscription(filter="a#"),)), V5, "`#`"),
        (
            Subscribe(packet_id=1, filters=(Subscription(filter="a", retain_handling=3),)),
            V5,
            "handling",
        ),
        (Subscribe(packet_id=1, filters=(Subscription(filter="a", no_local=True),)), V311, "5.0"),
        (
            Subscribe(packet_id=1, filters=(Subscription(filter="$share/g/a", no_local=True),)),
            V5,
            "no-local",
        ),
        (Unsubscribe(packet_id=1, filters=()), V5, "at least one"),
        (Unsubscribe(packet_id=1, filters=("",)), V5, "empty"),
        (Suback(packet_id=1, reasons=()), V5, "one reason"),
        (Disconnect(reason=ReasonCode.SERVER_BUSY), V311, "5.0"),
        (Disconnect(reason=ReasonCode.BANNED), V5, "cannot carry"),
        (Auth(), V311, "5.0"),
    ],
)
def test_illegal_packet_is_never_written(packet: Packet, version: Version, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint.replace("+", r"\+")):
        encode(packet, version)


def test_packet_longer_than_mqtt_allows_is_never_written() -> None:
    class Huge(bytes):
        @override
        def __len__(self) -> int:
            return 268_435_455

    with pytest.raises(LocalProtocolError, match="variable byte integer"):
        encode(Publish(topic="a", payload=Huge()), V5)


def test_failure_is_never_success_in_the_older_version() -> None:
    for reason in ReasonCode:
        if not reason.failed:
            continue
        try:
            wire = encode(Connack(reason=reason), V311)
        except LocalProtocolError:
            continue
        assert wire[-1] != 0


def test_suback_of_the_older_version_knows_one_failure() -> None:
    packet = Suback(packet_id=1, reasons=(ReasonCode.GRANTED_QOS_1, ReasonCode.QUOTA_EXCEEDED))
    assert encode(packet, V311)[-2:] == b"\x01\x80"


LONG = Properties(reason_string="r" * 50, user_properties=(("u" * 50, "v" * 50),))
TOLD = Puback(packet_id=1, reason=ReasonCode.NOT_AUTHORIZED, properties=LONG)


@pytest.mark.parametrize(
    "kept",
    [LONG, replace(LONG, reason_string=None), EMPTY],
    ids=["all", "without reason string", "without both"],
)
def test_bounded_packet_drops_what_only_explains(kept: Properties) -> None:
    wire = encode(replace(TOLD, properties=kept), V5)
    assert encode_bounded(TOLD, V5, len(wire)) == wire
    assert encode_bounded(TOLD, V5, len(wire) - 1) != wire


def test_bounded_packet_that_cannot_fit_is_none() -> None:
    assert encode_bounded(TOLD, V5, 4) is None
    assert encode_bounded(Publish(topic="a", payload=b"x" * 10), V5, 12) is None
