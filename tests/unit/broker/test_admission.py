from __future__ import annotations

from math import inf

import pytest

from broker.admission import agree, refuse
from broker.config import BrokerLimits
from mqtt.errors import ReasonCode
from mqtt.packets import EMPTY, Connect, Properties, Version, Will

LIMITS = BrokerLimits()


@pytest.mark.parametrize(
    ("connect", "reason"),
    [
        (
            Connect(properties=Properties(authentication_method="SCRAM-SHA-256")),
            ReasonCode.BAD_AUTHENTICATION_METHOD,
        ),
        (
            Connect(version=Version.V311, clean_start=False),
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
        ),
        (Connect(will=Will(topic="t", qos=2)), ReasonCode.QOS_NOT_SUPPORTED),
        (Connect(will=Will(topic="t", retain=True)), ReasonCode.RETAIN_NOT_SUPPORTED),
    ],
)
def test_admission_refuses_what_is_not_served(connect: Connect, reason: ReasonCode) -> None:
    refusal = refuse(connect)
    assert refusal is not None
    assert refusal.reason is reason
    assert refusal.text


def test_admission_accepts_an_ordinary_connect() -> None:
    assert refuse(Connect(client_id="c1", will=Will(topic="t", qos=1))) is None


def test_terms_tell_a_v5_client_every_limit() -> None:
    terms = agree(Connect(keep_alive=30), limits=LIMITS, assigned_id="auto-1")
    told = terms.connack.properties
    assert terms.client_id == told.assigned_client_identifier == "auto-1"
    assert told.maximum_qos == 1
    assert told.receive_maximum == LIMITS.receive_maximum
    assert told.maximum_packet_size == LIMITS.max_packet_bytes
    assert told.retain_available is False
    assert told.shared_subscription_available is False
    assert told.subscription_identifier_available is False
    assert told.server_keep_alive is None
    assert terms.patience_s == 45


def test_terms_bound_the_keep_alive_and_say_so() -> None:
    for asked in (0, 65_535):
        terms = agree(Connect(keep_alive=asked), limits=LIMITS, assigned_id="x")
        assert terms.connack.properties.server_keep_alive == LIMITS.max_keep_alive_s
        assert terms.patience_s == LIMITS.max_keep_alive_s * 1.5


def test_terms_keep_a_311_client_to_what_its_version_can_say() -> None:
    connect = Connect(client_id="old", version=Version.V311, keep_alive=0)
    terms = agree(connect, limits=LIMITS, assigned_id="x")
    assert terms.connack.properties == EMPTY
    assert terms.patience_s == inf


def test_terms_say_that_a_session_ends_with_its_connection() -> None:
    connect = Connect(client_id="c", properties=Properties(session_expiry_interval=3600))
    terms = agree(connect, limits=LIMITS, assigned_id="x")
    assert terms.connack.properties.session_expiry_interval == 0


def test_terms_respect_the_clients_limits() -> None:
    connect = Connect(
        client_id="c", properties=Properties(receive_maximum=7, maximum_packet_size=100)
    )
    terms = agree(connect, limits=LIMITS, assigned_id="x")
    assert terms.receive_maximum == 7
    assert terms.max_packet_bytes == 100
