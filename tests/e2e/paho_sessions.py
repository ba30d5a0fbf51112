"""paho-mqtt with everything MQTT 5 knows of a session: what a CONNECT asks for, what the CONNACK grants, and a crash.

*Rules of this file*: one `PahoSession` is one network connection; to come back, make another with the same
`client_id`. Everything waits for an event with a deadline. That nothing comes is proved by something sent later that
does come, never by waiting for a while; and where time must pass, the broker under test is the clock (`let_pass`).
"""

from __future__ import annotations

import os
import queue
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from paho.mqtt.client import MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from typing_extensions import override

from tests.e2e.clients import (
    ANSWER_S,
    Answered,
    Paho,
    endpoint,
    publish_properties,
    reason_string,
    unique,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.client import Client, ConnectFlags
    from paho.mqtt.enums import MQTTProtocolVersion

    from cli.ready import Ready

KEEP_ALIVE_S: Final = 30
NEVER_EXPIRES: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class WillOf:
    """A will message; `delay_s` is its Will Delay Interval."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    delay_s: int = 0


class PahoSession(Paho):
    """One connection of paho with its session; see the module's docstring.

    Attributes:
        ready: the system it talks to.
        present: the CONNACK's Session Present flag.
        connack: the CONNACK's properties.
    """

    def __init__(
        self,
        ready: Ready,
        principal: str,
        *,
        client_id: str | None = None,
        clean_start: bool = True,
        expiry_s: int = 0,
        version: MQTTProtocolVersion = MQTTv5,
        address: str | None = None,
        keep_alive_s: int = KEEP_ALIVE_S,
        will: WillOf | None = None,
        manual_acks: bool = False,
        receive_maximum: int | None = None,
        max_packet_bytes: int | None = None,
    ) -> None:
        super().__init__(
            address or ready.broker.mqtts, ready.clients[principal], version=version, name=principal
        )
        self.ready = ready
        self.present = False
        self.connack = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]  # paho's own
        self._unsubscribed: queue.Queue[list[int]] = queue.Queue()
        self._clean_start = clean_start
        self._keep_alive_s = keep_alive_s
        self._asked = self._connect_properties(expiry_s, receive_maximum, max_packet_bytes)
        if client_id is not None:
            self.client._client_id = client_id.encode()
        if version != MQTTv5:
            self.client._clean_session = clean_start
        self.client.manual_ack_set(manual_acks)
        self.client.on_unsubscribe = self._on_unsubscribe
        if will is not None:
            self._leave_behind(will)

    @property
    def client_id(self) -> str:
        """The client identifier it connects with."""
        return self.client._client_id.decode()

    @override
    def __enter__(self) -> PahoSession:
        answer = self.knock()
        if answer.code != 0:
            self.client.loop_stop()
        assert answer.code == 0, answer
        return self

    def knock(self) -> Answered:
        """CONNECT; the CONNACK, whatever it says. After a refusal, `client.loop_stop()` is the caller's."""
        is_5 = self.client.protocol == MQTTv5
        self.client.connect(
            *endpoint(self.address),
            keepalive=self._keep_alive_s,
            **({"clean_start": self._clean_start, "properties": self._asked} if is_5 else {}),  # type: ignore[arg-type]  # for version 5 only
        )
        self.client.loop_start()
        return self._connected.get(timeout=ANSWER_S)

    def told(self, name: str, *, absent: int) -> int:
        """A number in the CONNACK's properties, or what holds when it is not there."""
        return int(getattr(self.connack, name, absent))

    @property
    def assigned_id(self) -> str:
        """The client identifier that the CONNACK assigns, empty when it assigns none."""
        return str(getattr(self.connack, "AssignedClientIdentifier", ""))

    def crash(self) -> None:
        """End the connection as a crash does: the kernel closes it, without DISCONNECT and without a TLS goodbye."""
        secured = cast("socket.socket", self.client.socket())
        # Below TLS and on a descriptor of its own, since paho's thread is reading from the other.
        with socket.socket(fileno=os.dup(secured.fileno())) as bare:
            bare.shutdown(socket.SHUT_RDWR)
        self.ended.get(timeout=ANSWER_S)

    def leave(self, *, reason: int = 0, expiry_s: int | None = None) -> None:
        """DISCONNECT with a reason and, for version 5, another Session Expiry Interval."""
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]  # paho's own
        if expiry_s is not None:
            properties.SessionExpiryInterval = expiry_s
        code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason)
        self.client.disconnect(reasoncode=code, properties=properties)
        self.ended.get(timeout=ANSWER_S)

    def listen(
        self,
        topic: str,
        *,
        qos: int = 1,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        identifier: int | None = None,
    ) -> int:
        """SUBSCRIBE with the options of version 5; the SUBACK's reason code."""
        options = SubscribeOptions(
            qos=qos,
            noLocal=no_local,
            retainAsPublished=retain_as_published,
            retainHandling=retain_handling,
        )
        properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]  # paho's own
        if identifier is not None:
            properties.SubscriptionIdentifier = identifier
        self.client.subscribe(topic, options=options, properties=properties)
        return self._subscribed.get(timeout=ANSWER_S)[0].code

    def unsubscribe(self, *topics: str) -> list[int]:
        """UNSUBSCRIBE; the reason codes of the UNSUBACK, none in 3.1.1."""
        self.client.unsubscribe(list(topics))
        return self._unsubscribed.get(timeout=ANSWER_S)

    def settle(self) -> None:
        """Return when the broker has done everything this connection asked for, and its messages until then are here."""
        self.unsubscribe(unique("never"))

    def tell(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> int:
        """PUBLISH; the reason code of what ends it (PUBACK, PUBCOMP), 0 at QoS 0."""
        mid = self.client.publish(topic, payload, qos, retain, properties).mid
        with self._news:
            assert self._news.wait_for(lambda: mid in self._published, ANSWER_S), "unacknowledged"
            return self._published.pop(mid).code

    def tell_all(self, topic: str, payloads: Sequence[bytes], *, qos: int) -> None:
        """PUBLISH one after another without waiting in between; until all are acknowledged."""
        mids = {self.client.publish(topic, payload, qos).mid for payload in payloads}
        with self._news:
            assert self._news.wait_for(lambda: mids <= self._published.keys(), ANSWER_S)
            for mid in mids:
                del self._published[mid]

    def hear(self, count: int) -> list[bytes]:
        """The payloads of the next messages."""
        return [bytes(self.receive().payload) for _ in range(count)]

    def _leave_behind(self, will: WillOf) -> None:
        properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho's own
        if will.delay_s:
            properties.WillDelayInterval = will.delay_s
        is_5 = self.client.protocol == MQTTv5
        self.client.will_set(
            will.topic, will.payload, will.qos, will.retain, properties if is_5 else None
        )

    def _connect_properties(
        self, expiry_s: int, receive_maximum: int | None, max_packet_bytes: int | None
    ) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
        if expiry_s:
            properties.SessionExpiryInterval = expiry_s
        if receive_maximum is not None:
            properties.ReceiveMaximum = receive_maximum
        if max_packet_bytes is not None:
            properties.MaximumPacketSize = max_packet_bytes
        return properties

    @override
    def _on_connect(
        self,
        _client: Client,
        _data: object,
        _flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.present = bool(_flags.session_present)
        if properties is not None:
            self.connack = properties
        self._connected.put(Answered(code=code.value, text=reason_string(properties)))

    def _on_unsubscribe(
        self,
        _client: Client,
        _data: object,
        _mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._unsubscribed.put([code.value for code in codes])


def expiring(expiry_s: int) -> Properties:
    """The properties of a message that expires."""
    properties = publish_properties()
    properties.MessageExpiryInterval = expiry_s
    return properties


def with_users(pairs: Sequence[tuple[str, str]]) -> Properties:
    """User properties in this order."""
    properties = publish_properties()
    properties.UserProperty = list(pairs)
    return properties


def users_of(message: MQTTMessage) -> list[tuple[str, str]]:
    """The user properties of a message in the order they came."""
    return list(getattr(message.properties, "UserProperty", []))


def expiry_of(message: MQTTMessage) -> int:
    """The Message Expiry Interval of a message, -1 when it has none."""
    return int(getattr(message.properties, "MessageExpiryInterval", -1))


def response_topic_of(message: MQTTMessage) -> str:
    """The Response Topic of a request, empty when there is none."""
    return str(getattr(message.properties, "ResponseTopic", ""))


def identifiers_of(message: MQTTMessage) -> list[int]:
    """The subscription identifiers of a message."""
    found = getattr(message.properties, "SubscriptionIdentifier", [])
    return sorted(found) if isinstance(found, list) else [int(found)]


def let_pass(ready: Ready, seconds: int) -> None:
    """Return when that many seconds have passed for the broker: a will that it delays so long has come."""
    topic = f"bench/{unique('clock')}"
    with PahoSession(ready, "bench") as watcher:
        watcher.listen(topic)
        will = WillOf(topic=topic, payload=b"now", delay_s=seconds)
        with PahoSession(ready, "bench", will=will, expiry_s=seconds + 60) as clock:
            clock.crash()
        watcher.receive()
