"""aiomqtt as a puppet (see `lines`). It tells neither Session Present nor the reason of an acknowledgement."""

from __future__ import annotations

import asyncio  # noqa: TID251  the client is written for it; this runs in a process of its own

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.e2e.puppets import stage
from tests.e2e.puppets.lines import Content, Order, Report


class Actor:
    """One client at a time."""

    def __init__(self) -> None:
        self._client: aiomqtt.Client | None = None
        self._listening: asyncio.Task[None] | None = None

    async def perform(self, order: Order) -> Report:
        reason = -1
        match order.kind:
            case "connect":
                await self._connect(order)
                reason = 0
            case "subscribe":
                codes = await self._connected.subscribe(order.content.topic, order.content.qos)
                reason = codes[0] if isinstance(codes[0], int) else codes[0].value
            case "unsubscribe":
                await self._connected.unsubscribe(order.content.topic)
            case "publish":
                await self._publish(order.content)
            case _:
                await self._disconnect()
        return Report(kind=order.kind, reason=reason)

    @property
    def _connected(self) -> aiomqtt.Client:
        assert self._client is not None
        return self._client

    async def _connect(self, order: Order) -> None:
        host, _, port = stage.address().rpartition(":")
        is_5 = order.version == 5
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
        properties.SessionExpiryInterval = order.expiry_s
        will = order.content
        client = aiomqtt.Client(
            host,
            int(port),
            identifier=order.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if is_5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if is_5 else order.clean_start,
            clean_start=order.clean_start if is_5 else MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties if is_5 else None,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain)
            if order.has_will
            else None,
            tls_context=stage.context(),
        )
        await client.__aenter__()
        self._client = client
        self._listening = asyncio.create_task(self._listen(client))

    async def _listen(self, client: aiomqtt.Client) -> None:
        try:
            async for message in client.messages:
                stage.say(Report(kind="message", content=content_of(message)))
        except aiomqtt.MqttError as error:
            stage.say(Report(kind="ended", reason=reason_of(error)))

    async def _publish(self, content: Content) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own
        if content.users:
            properties.UserProperty = list(content.users)
        if content.response_topic:
            properties.ResponseTopic = content.response_topic
            properties.CorrelationData = content.correlation
        await self._connected.publish(
            content.topic, content.payload, content.qos, content.retain, properties
        )

    async def _disconnect(self) -> None:
        assert self._listening is not None
        self._listening.cancel()
        await self._connected.__aexit__(None, None, None)


def content_of(message: aiomqtt.Message) -> Content:
    """A message as the tests compare it."""
    properties = message.properties
    assert isinstance(message.payload, bytes | bytearray)
    return Content(
        topic=str(message.topic),
        payload=bytes(message.payload),
        qos=message.qos,
        retain=message.retain,
        users=tuple(getattr(properties, "UserProperty", ())),
        response_topic=getattr(properties, "ResponseTopic", ""),
        correlation=getattr(properties, "CorrelationData", b""),
    )


def reason_of(error: BaseException) -> int:
    """The reason code of a DISCONNECT, behind the error that ended the messages."""
    cause = error.__cause__
    code = cause.rc if isinstance(cause, aiomqtt.MqttCodeError) else None
    return code.value if isinstance(code, ReasonCode) else -1


if __name__ == "__main__":
    stage.play_async(Actor)
