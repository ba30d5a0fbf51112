"""What a CONNECT is answered with: a pure decision on the packet and the broker's limits.

Authorization is the guard's; this file is the protocol's side of admission.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from mqtt.errors import ReasonCode
from mqtt.packets import Connack, Connect, Properties, Version

if TYPE_CHECKING:
    from broker.config import BrokerLimits

MAXIMUM_QOS = 1  # told in CONNACK; QoS 2 comes with durable sessions
KEEP_ALIVE_PATIENCE = 1.5  # MQTT 3.1.2-22: silence of one and a half keep alives ends the client
UNLIMITED_RECEIVE = 65_535  # MQTT 3.1.2.11.3: the default Receive Maximum
UNLIMITED_PACKET_BYTES = 268_435_460  # no Maximum Packet Size told: the format's own limit
LARGEST_WINDOW = 1_024  # QoS 1 messages under way to one client: ours, whatever it would take
V311_REFUSALS = {
    # MQTT 3.1.1 table 3.1: only five refusals exist; everything else is "not authorized".
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: 1,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: 2,
    ReasonCode.SERVER_UNAVAILABLE: 3,
    ReasonCode.SERVER_BUSY: 3,
    ReasonCode.QUOTA_EXCEEDED: 3,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a CONNECT is not accepted."""

    reason: ReasonCode
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was agreed with a client.

    Attributes:
        client_id: given by the client or assigned.
        patience_s: seconds of silence before it is disconnected; inf: never.
        receive_maximum: QoS 1 messages it takes unacknowledged.
        max_packet_bytes: largest packet it takes.
        explain: it accepts reason strings (Request Problem Information).
        connack: the answer.
    """

    client_id: str
    patience_s: float
    receive_maximum: int
    max_packet_bytes: int
    explain: bool
    connack: Connack


def refuse(connect: Connect) -> Refusal | None:
    """Protocol reasons not to accept a CONNECT; None when there is none."""
    if connect.properties.authentication_method is not None:
        return Refusal(
            reason=ReasonCode.BAD_AUTHENTICATION_METHOD,
            text="enhanced authentication is not available: the client certificate is the identity",
        )
    if not connect.client_id and connect.version == Version.V311 and not connect.clean_start:
        return Refusal(
            reason=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
            text="an empty client identifier needs clean session 1",
        )
    if connect.will is not None and connect.will.qos > MAXIMUM_QOS:
        return Refusal(
            reason=ReasonCode.QOS_NOT_SUPPORTED, text="the will asks for QoS 2: use QoS 0 or 1"
        )
    if connect.will is not None and connect.will.retain and connect.version == Version.V5:
        return Refusal(
            reason=ReasonCode.RETAIN_NOT_SUPPORTED, text="retained messages are not available"
        )
    return None


def agree(connect: Connect, *, limits: BrokerLimits, assigned_id: str) -> Terms:
    """The terms for an accepted CONNECT.

    Args:
        connect: the client's packet, already found acceptable.
        limits: the broker's bounds.
        assigned_id: the client identifier to use when the client sent none.
    """
    asked = connect.properties
    v5 = connect.version == Version.V5
    granted = connect.keep_alive
    if v5:
        granted = min(connect.keep_alive or limits.max_keep_alive_s, limits.max_keep_alive_s)
    properties = Properties(
        session_expiry_interval=0 if asked.session_expiry_interval else None,
        receive_maximum=limits.receive_maximum,
        maximum_qos=MAXIMUM_QOS,
        retain_available=False,
        maximum_packet_size=limits.max_packet_bytes,
        assigned_client_identifier=None if connect.client_id else assigned_id,
        server_keep_alive=granted if granted != connect.keep_alive else None,
        subscription_identifier_available=False,
        shared_subscription_available=False,
    )
    return Terms(
        client_id=connect.client_id or assigned_id,
        patience_s=granted * KEEP_ALIVE_PATIENCE if granted else inf,
        receive_maximum=min(asked.receive_maximum or UNLIMITED_RECEIVE, LARGEST_WINDOW),
        max_packet_bytes=asked.maximum_packet_size or UNLIMITED_PACKET_BYTES,
        explain=asked.request_problem_information is not False,
        connack=Connack(
            session_present=False,
            reason=ReasonCode.SUCCESS,
            properties=properties if v5 else Properties(),
        ),
    )
