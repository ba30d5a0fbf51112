"""What a CONNECT is answered with: a pure decision on the packet and the broker's limits.

Authorization is the guard's; this file is the protocol's side of admission.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from broker.enhanced_auth import METHOD
from broker.wills import will_record
from mqtt.errors import ReasonCode
from mqtt.packets import Connack, Connect, Properties, Version

if TYPE_CHECKING:
    from acl.decide import Decision
    from broker.config import BrokerLimits
    from broker.records import WillRecord

KEEP_ALIVE_PATIENCE = 1.5  # MQTT 3.1.2-22: silence of one and a half keep alives ends the client
UNLIMITED_RECEIVE = 65_535  # MQTT 3.1.2.11.3: the default Receive Maximum
UNLIMITED_PACKET_BYTES = 268_435_460  # no Maximum Packet Size told: the format's own limit
LARGEST_WINDOW = 1_024  # QoS 1 and 2 messages under way to one client: ours, whatever it would take


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a CONNECT is not accepted."""

    reason: ReasonCode
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What this broker gives its clients, beside its limits.

    Attributes:
        keeps_sessions: there is a store, so that a session can outlive its connection.
        response_information: told to a client that asks for it; `{principal}` and `{client}` are replaced.
        accept_mqtt31: also MQTT 3.1 is spoken.
    """

    keeps_sessions: bool
    response_information: str
    accept_mqtt31: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was agreed with a client.

    Attributes:
        client_id: given by the client or assigned.
        patience_s: seconds of silence before it is disconnected; inf: never.
        receive_maximum: QoS 1 and 2 messages it takes unacknowledged.
        max_packet_bytes: largest packet it takes.
        topic_alias_maximum: aliases it takes.
        explain: it accepts reason strings (Request Problem Information).
        session_expiry_s: seconds its session outlives the connection.
        will: published when it vanishes.
        connack: the answer, but for Session Present.
    """

    client_id: str
    patience_s: float
    receive_maximum: int
    max_packet_bytes: int
    topic_alias_maximum: int
    explain: bool
    session_expiry_s: int
    will: WillRecord | None
    connack: Connack


def refuse(connect: Connect) -> Refusal | None:
    """Protocol reasons not to accept a CONNECT; None when there is none."""
    if connect.properties.authentication_method not in (None, METHOD):
        return Refusal(
            reason=ReasonCode.BAD_AUTHENTICATION_METHOD,
            text=f"the authentication method here is `{METHOD}`, or none",
        )
    if not connect.client_id and connect.version == Version.V311 and not connect.clean_start:
        return Refusal(
            reason=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
            text="an empty client identifier needs clean session 1",
        )
    if connect.will is not None and connect.will.topic.startswith(("$SYS/", "$delayed/")):
        return Refusal(
            reason=ReasonCode.TOPIC_NAME_INVALID, text="a will cannot be for `$SYS` or `$delayed`"
        )
    return None


def agree(
    connect: Connect, *, limits: BrokerLimits, offer: Offer, principal: str, assigned_id: str
) -> Terms:
    """The terms for an accepted CONNECT.

    Args:
        connect: the client's packet, already found acceptable.
        limits: the broker's bounds.
        offer: what else it gives.
        principal: name of the client's principal.
        assigned_id: the client identifier to use when the client sent none.
    """
    asked = connect.properties
    v5 = connect.version == Version.V5
    client_id = connect.client_id or assigned_id
    granted = connect.keep_alive
    if v5:
        granted = min(connect.keep_alive or limits.max_keep_alive_s, limits.max_keep_alive_s)
    wanted_s = _wanted_expiry_s(connect, limits)
    expiry_s = min(wanted_s, limits.max_session_expiry_s) if offer.keeps_sessions else 0
    properties = Properties(
        session_expiry_interval=expiry_s if expiry_s != wanted_s else None,
        receive_maximum=limits.receive_maximum,
        maximum_packet_size=limits.max_packet_bytes,
        topic_alias_maximum=limits.topic_alias_maximum or None,
        assigned_client_identifier=None if connect.client_id else assigned_id,
        server_keep_alive=granted if granted != connect.keep_alive else None,
        response_information=_response_information(connect, offer, principal, client_id),
        authentication_method=asked.authentication_method,
    )
    return Terms(
        client_id=client_id,
        patience_s=granted * KEEP_ALIVE_PATIENCE if granted else inf,
        receive_maximum=min(asked.receive_maximum or UNLIMITED_RECEIVE, LARGEST_WINDOW),
        max_packet_bytes=asked.maximum_packet_size or UNLIMITED_PACKET_BYTES,
        topic_alias_maximum=asked.topic_alias_maximum or 0,
        explain=asked.request_problem_information is not False,
        session_expiry_s=expiry_s,
        will=None if connect.will is None else will_record(connect.will),
        connack=Connack(
            session_present=False,
            reason=ReasonCode.SUCCESS,
            properties=properties if v5 else Properties(),
        ),
    )


def _wanted_expiry_s(connect: Connect, limits: BrokerLimits) -> int:
    """How long the client wants its session kept; clean session 0 of 3.1.1 names no end (its 3.1.2.4)."""
    if connect.version == Version.V5:
        return connect.properties.session_expiry_interval or 0
    return 0 if connect.clean_start else limits.max_session_expiry_s


def _response_information(
    connect: Connect, offer: Offer, principal: str, client_id: str
) -> str | None:
    if not connect.properties.request_response_information or not offer.response_information:
        return None
    text = offer.response_information
    return text.replace("{principal}", principal).replace("{client}", client_id)


def told(decision: Decision) -> str:
    """What a refused client is told: the decision's id and nothing about the rules."""
    return f"not authorized, decision {decision.id}"
