from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from broker.admission import LARGEST_WINDOW, UNLIMITED_PACKET_BYTES, Offer, Terms, agree, refuse
from broker.config import BrokerLimits
from broker.enhanced_auth import METHOD
from mqtt.errors import ReasonCode
from mqtt.packets import EMPTY, Connect, Properties, Version, Will

LIMITS = BrokerLimits()
OFFER = Offer(keeps_sessions=True, response_information="re/{principal}", accept_mqtt31=False)
KEPT = Properties(session_expiry_interval=3600)


def terms_of(
    connect: Connect,
    *,
    limits: BrokerLimits = LIMITS,
    offer: Offer = OFFER,
    principal: str = "sensor",
) -> Terms:
    return agree(connect, limits=limits, offer=offer, principal=principal, assigned_id="auto-1")


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
    ],
)
def test_admission_refuses_what_is_not_served(connect: Connect, reason: ReasonCode) -> None:
    refusal = refuse(connect)
    assert refusal is not None
    assert refusal.reason is reason
    assert refusal.text


@pytest.mark.parametrize(
    "connect",
    [
        Connect(client_id="c1", will=Will(topic="t", qos=2, retain=True)),
        Connect(client_id="c1", properties=Properties(authentication_method=METHOD)),
        Connect(version=Version.V5, clean_start=False),
        Connect(version=Version.V311, clean_start=True),
    ],
)
def test_admission_accepts_an_ordinary_connect(connect: Connect) -> None:
    assert refuse(connect) is None


def test_terms_tell_a_v5_client_every_limit() -> None:
    terms = terms_of(Connect(keep_alive=30))
    told = terms.connack.properties
    assert terms.client_id == told.assigned_client_identifier == "auto-1"
    assert told.receive_maximum == LIMITS.receive_maximum
    assert told.maximum_packet_size == LIMITS.max_packet_bytes
    assert told.topic_alias_maximum == LIMITS.topic_alias_maximum
    assert told.server_keep_alive is None
    assert terms.patience_s == 45


def test_terms_do_not_tell_what_the_standard_takes_for_granted() -> None:
    told = terms_of(Connect(client_id="c", keep_alive=30)).connack.properties
    assert told.assigned_client_identifier is None
    assert told.maximum_qos is None, "QoS 2"
    assert told.retain_available is not False
    assert told.wildcard_subscription_available is not False
    assert told.subscription_identifier_available is not False
    assert told.shared_subscription_available is not False
    none = BrokerLimits(topic_alias_maximum=0)
    without = terms_of(Connect(client_id="c", keep_alive=30), limits=none)
    assert without.connack.properties.topic_alias_maximum is None


def test_terms_bound_the_keep_alive_and_say_so() -> None:
    for asked in (0, 65_535):
        terms = terms_of(Connect(keep_alive=asked))
        assert terms.connack.properties.server_keep_alive == LIMITS.max_keep_alive_s
        assert terms.patience_s == LIMITS.max_keep_alive_s * 1.5


def test_terms_keep_a_311_client_to_what_its_version_can_say() -> None:
    connect = Connect(client_id="old", version=Version.V311, keep_alive=0)
    terms = terms_of(connect)
    assert terms.connack.properties == EMPTY
    assert terms.patience_s == inf


# -- how long a session is kept --------------------------------------------------------------


def test_terms_grant_the_expiry_that_is_asked_for_without_a_word() -> None:
    terms = terms_of(Connect(client_id="c", properties=KEPT))
    assert terms.session_expiry_s == 3600
    assert terms.connack.properties.session_expiry_interval is None


def test_terms_say_that_a_session_ends_with_its_connection_where_there_is_no_store() -> None:
    offer = replace(OFFER, keeps_sessions=False)
    terms = terms_of(Connect(client_id="c", properties=KEPT), offer=offer)
    assert terms.session_expiry_s == 0
    assert terms.connack.properties.session_expiry_interval == 0


@pytest.mark.parametrize("asked", [101, 0xFFFF_FFFF])
def test_terms_bound_the_expiry_and_say_so(asked: int) -> None:
    connect = Connect(client_id="c", properties=Properties(session_expiry_interval=asked))
    terms = terms_of(connect, limits=BrokerLimits(max_session_expiry_s=100))
    assert terms.session_expiry_s == terms.connack.properties.session_expiry_interval == 100


@pytest.mark.parametrize(("clean", "expiry_s"), [(True, 0), (False, LIMITS.max_session_expiry_s)])
def test_clean_session_of_311_says_whether_the_session_is_kept(clean: bool, expiry_s: int) -> None:  # noqa: FBT001
    connect = Connect(client_id="old", version=Version.V311, clean_start=clean)
    assert terms_of(connect).session_expiry_s == expiry_s


# -- what the client asks for ----------------------------------------------------------------


def test_terms_respect_the_clients_limits() -> None:
    asked = Properties(receive_maximum=7, maximum_packet_size=100, topic_alias_maximum=3)
    terms = terms_of(Connect(client_id="c", properties=asked))
    assert (terms.receive_maximum, terms.max_packet_bytes, terms.topic_alias_maximum) == (7, 100, 3)


def test_terms_bound_the_window_of_a_client_that_sets_no_limits() -> None:
    terms = terms_of(Connect(client_id="c"))
    assert terms.receive_maximum == LARGEST_WINDOW
    assert terms.max_packet_bytes == UNLIMITED_PACKET_BYTES
    assert terms.topic_alias_maximum == 0


@pytest.mark.parametrize(("asked", "explain"), [(None, True), (True, True), (False, False)])
def test_reason_strings_are_for_clients_that_do_not_decline_them(
    asked: bool | None,  # noqa: FBT001
    explain: bool,  # noqa: FBT001
) -> None:
    properties = Properties(request_problem_information=asked)
    assert terms_of(Connect(client_id="c", properties=properties)).explain is explain


@pytest.mark.parametrize(
    ("asked", "text", "told"),
    [
        (True, "re/{principal}/{client}", "re/sensor/auto-1"),
        (True, "", None),
        (False, "re/{principal}", None),
        (None, "re/{principal}", None),
    ],
)
def test_response_information_is_told_to_who_asks_where_there_is_some(
    asked: bool | None,  # noqa: FBT001
    text: str,
    told: str | None,
) -> None:
    connect = Connect(properties=Properties(request_response_information=asked))
    terms = terms_of(connect, offer=replace(OFFER, response_information=text))
    assert terms.connack.properties.response_information == told


def test_method_of_authentication_is_repeated() -> None:
    asked = Properties(authentication_method=METHOD)
    told = terms_of(Connect(client_id="c", properties=asked)).connack.properties
    assert told.authentication_method == METHOD


def test_will_becomes_a_record_with_its_delay() -> None:
    will = Will(topic="t", payload=b"x", qos=1, properties=Properties(will_delay_interval=9))
    terms = terms_of(Connect(client_id="c", will=will))
    assert terms.will is not None
    assert terms.will.delay_s == 9
    assert terms_of(Connect(client_id="c")).will is None
