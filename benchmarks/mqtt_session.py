"""An MQTT session on a pipe: the part before the timed region, with the real packet reader."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from benchmarks.wire import SOCKET_BYTES, FeatureRefused, Login, dial
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Properties,
    Role,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from mqtt.reader import PacketReader

SESSION_EXPIRY_S = 600
"""Of a persistent session; longer than any sample, and a failed run leaves nothing for long."""

UNLIMITED = 65_535
"""Receive Maximum of a broker that names none (MQTT 3.2.2.3.3)."""

HIGHEST_QOS = 2

NOT_OFFERED = frozenset(
    {
        ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        ReasonCode.QOS_NOT_SUPPORTED,
        ReasonCode.QUOTA_EXCEEDED,
    }
)


class MqttSession:
    """A connected client.

    Attributes:
        pipe: the connection.
        reader: for who goes on reading packets one by one.
        receive_maximum: QoS 1 and 2 messages the broker takes unacknowledged.
    """

    def __init__(
        self,
        login: Login,
        client_id: str,
        version: Version,
        *,
        context: ssl.SSLContext | None = None,
        persistent: bool = False,
        window: int | None = None,
        qos: int = 0,
    ) -> None:
        """Connect and wait for a successful CONNACK.

        Raises:
            FeatureRefused: the broker keeps no session, or takes no messages of this QoS.
        """
        self.pipe = dial(login, context)
        self._version = version
        self.reader = PacketReader(role=Role.CLIENT, max_packet_bytes=SOCKET_BYTES)
        self.reader.version = version
        expiry = SESSION_EXPIRY_S if persistent else None
        connect = Connect(
            client_id=client_id,
            version=version,
            clean_start=not persistent,
            properties=Properties(session_expiry_interval=expiry, receive_maximum=window),
        )
        answer = self._ask(connect)
        if not isinstance(answer, Connack):
            raise ConnectionError(f"CONNECT was answered by {answer}")
        _verify_connack(answer, persistent=persistent, qos=qos)
        self.receive_maximum = answer.properties.receive_maximum or UNLIMITED

    def subscribe(self, filters: Sequence[str], *, qos: int = 0) -> None:
        """Subscribe and wait for the grant.

        Raises:
            FeatureRefused: the broker does not offer such a subscription, or only at a lower QoS.
        """
        wanted = tuple(Subscription(filter=each, qos=qos) for each in filters)
        answer = self._ask(Subscribe(packet_id=1, filters=wanted))
        if not isinstance(answer, Suback):
            raise ConnectionError(f"SUBSCRIBE was answered by {answer}")
        for reason in answer.reasons:
            if reason in NOT_OFFERED:
                raise FeatureRefused(f"SUBSCRIBE: {reason.name.lower().replace('_', ' ')}")
            if reason.failed:
                raise ConnectionError(f"SUBSCRIBE was answered by {answer}")
            if reason < qos:
                raise FeatureRefused(f"SUBSCRIBE at QoS {qos}: granted QoS {int(reason)}")

    def end(self) -> None:
        """Say goodbye, and leave no session behind."""
        properties = Properties(session_expiry_interval=0)
        self.pipe.send(encode(Disconnect(properties=properties), self._version))
        self.pipe.close()

    def _ask(self, packet: Packet) -> object:
        """Send and read one packet; only while the broker has no reason to send another behind it."""
        self.pipe.send(encode(packet, self._version))
        buffer = memoryview(bytearray(SOCKET_BYTES))
        while (event := self.reader.next_event()) is None:
            count = self.pipe.receive_into(buffer)
            if not count:
                raise ConnectionError("the broker closed the connection")
            self.reader.feed(bytes(buffer[:count]))
        if self.reader.next_event() is not None:
            raise ConnectionError("the broker said more than it was asked for")
        return event


def _verify_connack(answer: Connack, *, persistent: bool, qos: int) -> None:
    if answer.reason in (ReasonCode.QUOTA_EXCEEDED, ReasonCode.SERVER_BUSY):
        raise FeatureRefused(f"CONNECT: {answer.reason.name.lower().replace('_', ' ')}")
    if answer.reason.failed:
        raise ConnectionError(f"CONNECT was answered by {answer}")
    granted = answer.properties
    if persistent and granted.session_expiry_interval == 0:
        raise FeatureRefused("the broker keeps no session")
    if qos > (HIGHEST_QOS if granted.maximum_qos is None else granted.maximum_qos):
        raise FeatureRefused(f"the broker takes QoS {granted.maximum_qos} at most")
