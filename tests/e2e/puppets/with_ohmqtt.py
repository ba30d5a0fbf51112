"""ohmqtt as a puppet (see `lines`). MQTT 5 only; it keeps its subscriptions itself, so a client id keeps its client."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ohmqtt.client import Client
from ohmqtt.error import MQTTError
from ohmqtt.property import MQTTConnectProps, MQTTPublishProps

from tests.e2e.puppets import stage
from tests.e2e.puppets.lines import Content, Order, Report

if TYPE_CHECKING:
    from ohmqtt.packet import MQTTPublishPacket

ANSWER_S = 15.0
ALIASES = 10


class Actor:
    """One client at a time, the same for the same client id."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._client = Client()
        self._leaving = False

    def perform(self, order: Order) -> Report:
        content = order.content
        reason = -1
        match order.kind:
            case "connect":
                return self._connect(order)
            case "subscribe":
                asked = self._client.subscribe(content.topic, self._on_message, content.qos)
                assert asked is not None
                reason = asked.wait_for_ack(ANSWER_S).reason_codes[0]
            case "unsubscribe":
                ended = self._client.unsubscribe(content.topic)
                assert ended is not None
                reason = ended.wait_for_ack(ANSWER_S).reason_codes[0]
            case "publish":
                reason = self._publish(content)
            case _:
                self._leaving = True
                self._client.disconnect()
                self._client.wait_for_disconnect(ANSWER_S)
        return Report(kind=order.kind, reason=reason)

    def _connect(self, order: Order) -> Report:
        if order.client_id not in self._clients:
            self._clients[order.client_id] = Client()
            self._clients[order.client_id].start_loop()
        self._client = self._clients[order.client_id]
        self._leaving = False
        will = order.content
        self._client.connect(
            f"mqtts://{stage.address()}",
            client_id=order.client_id,
            clean_start=order.clean_start,
            keepalive_interval=30,
            tls_context=stage.context(),
            will_topic=will.topic if order.has_will else "",
            will_payload=will.payload,
            will_qos=will.qos,
            will_retain=will.retain,
            connect_properties=MQTTConnectProps(
                SessionExpiryInterval=order.expiry_s, TopicAliasMaximum=ALIASES
            ),
        )
        self._client.wait_for_connect(ANSWER_S)
        threading.Thread(target=self._watch, args=(self._client,), daemon=True).start()
        return Report(kind="connect", reason=0)

    def _watch(self, client: Client) -> None:
        client.wait_for_disconnect()
        if not self._leaving:
            stage.say(Report(kind="ended"))

    def _publish(self, content: Content) -> int:
        properties = MQTTPublishProps()
        if content.users:
            properties.UserProperty = content.users
        if content.response_topic:
            properties.ResponseTopic = content.response_topic
            properties.CorrelationData = content.correlation
        sent = self._client.publish(
            content.topic,
            content.payload,
            qos=content.qos,
            retain=content.retain,
            properties=properties,
        )
        if content.qos == 0:
            return -1
        try:
            return sent.wait_for_ack(ANSWER_S).reason_code
        except MQTTError as refused:
            return refused.reason_code

    def _on_message(self, _client: Client, packet: MQTTPublishPacket) -> None:
        properties = packet.properties
        content = Content(
            topic=packet.topic,
            payload=packet.payload,
            qos=packet.qos,
            retain=packet.retain,
            users=tuple(properties.UserProperty or ()),
            response_topic=properties.ResponseTopic or "",
            correlation=properties.CorrelationData or b"",
        )
        stage.say(Report(kind="message", content=content))


if __name__ == "__main__":
    stage.play(Actor())
