"""CONNECT and its answer: what the broker assigns, grants and refuses; seen by paho over mutual TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv311

from tests.e2e.clients import NOT_AUTHORIZED, correlation_of, request_properties, ruled, unique
from tests.e2e.paho_sessions import PahoSession, response_topic_of

if TYPE_CHECKING:
    from tests.e2e.clients import Answered
    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

BAD_AUTHENTICATION_METHOD = 0x8C
LONGEST_KEEP_ALIVE_S = 1_200


def refused(session: PahoSession) -> Answered:
    """The CONNACK of a refused connection."""
    try:
        return session.knock()
    finally:
        session.client.loop_stop()


def test_client_without_an_id_is_assigned_one_of_its_own(system: Running) -> None:
    with (
        PahoSession(system.ready, "bench", client_id="") as first,
        PahoSession(system.ready, "bench", client_id="") as second,
    ):
        assert first.assigned_id
        assert second.assigned_id
        assert first.assigned_id != second.assigned_id


def test_assigned_id_is_good_for_coming_back(system: Running) -> None:
    with PahoSession(system.ready, "bench", client_id="", expiry_s=60) as first:
        client_id = first.assigned_id
    with PahoSession(system.ready, "bench", client_id=client_id, clean_start=False) as second:
        assert second.present
        assert second.assigned_id == ""


def test_client_of_3_1_1_without_an_id_is_let_in_with_a_clean_session(system: Running) -> None:
    with PahoSession(system.ready, "bench", client_id="", version=MQTTv311) as clean:
        assert not clean.present
        assert clean.tell(f"bench/{unique('nameless')}", b"1") == 0


@pytest.mark.parametrize("asked", [0, 3_600])
def test_keep_alive_beyond_the_longest_is_set_by_the_broker(system: Running, asked: int) -> None:
    with PahoSession(system.ready, "bench", keep_alive_s=asked) as bench:
        assert bench.told("ServerKeepAlive", absent=-1) == LONGEST_KEEP_ALIVE_S


def test_keep_alive_within_the_longest_stays_the_clients(system: Running) -> None:
    with PahoSession(system.ready, "bench", keep_alive_s=30) as bench:
        assert bench.told("ServerKeepAlive", absent=30) == 30


def test_broker_tells_its_bounds_and_denies_no_feature(system: Running) -> None:
    with PahoSession(system.ready, "bench") as bench:
        told = bench.told
    assert told("MaximumPacketSize", absent=1 << 28) >= 1 << 20
    assert told("TopicAliasMaximum", absent=0) >= 1
    assert told("ReceiveMaximum", absent=65_535) >= 1
    for feature in (
        "MaximumQoS",
        "RetainAvailable",
        "WildcardSubscriptionAvailable",
        "SubscriptionIdentifierAvailable",
        "SharedSubscriptionAvailable",
    ):
        assert told(feature, absent=1) == 1, feature


def test_principal_that_no_rule_lets_in_is_told_so(system: Running) -> None:
    with ruled(system.ready, "viewer", "connect", "broker.*", effect="deny"):
        assert refused(PahoSession(system.ready, "viewer")).code == NOT_AUTHORIZED
        with PahoSession(system.ready, "bench"):
            pass  # others are let in as before


def test_unknown_authentication_method_is_refused(system: Running) -> None:
    client = PahoSession(system.ready, "bench")
    client._asked.AuthenticationMethod = "K3RB3R0S"
    client._asked.AuthenticationData = b"woof"
    assert refused(client).code == BAD_AUTHENTICATION_METHOD


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_request_is_answered_where_it_asks(system: Running, qos: int) -> None:
    asks, answers = f"bench/{unique('asks')}", f"bench/{unique('answers')}"
    with PahoSession(system.ready, "bench") as client, PahoSession(system.ready, "bench") as server:
        server.listen(asks, qos=qos)
        client.listen(answers, qos=qos)
        for number in range(10):
            sent = request_properties(answers, b"\x00\xff%d" % number)
            client.client.publish(asks, b"%d" % number, qos, properties=sent)
        for _ in range(10):
            request = server.receive()
            answer = request_properties(asks, correlation_of(request))
            server.tell(
                response_topic_of(request), bytes(request.payload) * 2, qos=qos, properties=answer
            )
        found = [client.receive() for _ in range(10)]
    assert [(message.payload, correlation_of(message)) for message in found] == [
        (b"%d" % number * 2, b"\x00\xff%d" % number) for number in range(10)
    ]
