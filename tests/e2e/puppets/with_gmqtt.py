"""gmqtt as a puppet (see `lines`). It does not tell the reason of an acknowledgement, only that everything has one."""

from __future__ import annotations

import asyncio  # noqa: TID251  the client is written for it; this runs in a process of its own
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast

import gmqtt  # type: ignore[import-untyped]  # it has no annotations: `GmqttClient` below is its door
from gmqtt.mqtt.constants import MQTTv50, MQTTv311  # type: ignore[import-untyped]

from tests.e2e.puppets import stage
from tests.e2e.puppets.lines import Content, Order, Report

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

ANSWER_S = 15.0
ALIASES = 10
NO_RETRIES = -2  # 0 still means one
EXPIRY = "session_expiry_interval"


class Storage(Protocol):
    """What gmqtt keeps of unacknowledged messages."""

    async def wait_empty(self) -> None: ...


class GmqttClient(Protocol):
    """The part of `gmqtt.Client` that is used here; its callbacks are given away, never called."""

    _persistent_storage: Storage
    on_connect: object
    on_message: object
    on_disconnect: object
    on_subscribe: object
    on_unsubscribe: object

    def set_config(self, config: dict[str, int]) -> None: ...
    async def connect(
        self, host: str, port: int, *, ssl: ssl.SSLContext, keepalive: int, version: int
    ) -> None: ...
    async def disconnect(self) -> None: ...
    def subscribe(self, topic: str, qos: int) -> int: ...
    def unsubscribe(self, topic: str) -> int: ...
    def publish(
        self, topic: str, payload: bytes, qos: int, retain: int, **properties: object
    ) -> None: ...


class Actor:
    """One client at a time."""

    def __init__(self) -> None:
        self._client: GmqttClient | None = None
        self._answers: asyncio.Queue[int] = asyncio.Queue()
        self._present = -1
        self._leaving = False

    async def perform(self, order: Order) -> Report:
        async with asyncio.timeout(ANSWER_S):
            return await self._perform(order)

    async def _perform(self, order: Order) -> Report:
        content = order.content
        reason = -1
        match order.kind:
            case "connect":
                await self._connect(order)
                return Report(kind="connect", reason=0, present=self._present)
            case "subscribe":
                self._connected.subscribe(content.topic, content.qos)
                reason = await self._answers.get()
            case "unsubscribe":
                self._connected.unsubscribe(content.topic)
                reason = await self._answers.get()
            case "publish":
                await self._publish(content)
            case _:
                self._leaving = True
                with suppress(OSError):  # what came after its own goodbye
                    await self._connected.disconnect()
        return Report(kind=order.kind, reason=reason)

    @property
    def _connected(self) -> GmqttClient:
        assert self._client is not None
        return self._client

    async def _connect(self, order: Order) -> None:
        host, _, port = stage.address().rpartition(":")
        is_5 = order.version == 5
        will = order.content
        properties = {EXPIRY: order.expiry_s, "topic_alias_maximum": ALIASES} if is_5 else {}
        client = cast(
            "GmqttClient",
            gmqtt.Client(
                order.client_id,
                clean_session=order.clean_start,
                will_message=gmqtt.Message(will.topic, will.payload, will.qos, will.retain)
                if order.has_will
                else None,
                **properties,
            ),
        )
        client.set_config({"reconnect_retries": NO_RETRIES, "reconnect_delay": 0})
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_answer
        client.on_unsubscribe = self._on_answer
        self._client, self._leaving = client, False
        await client.connect(
            host,
            int(port),
            ssl=stage.context(),
            keepalive=30,
            version=MQTTv50 if is_5 else MQTTv311,
        )

    async def _publish(self, content: Content) -> None:
        properties: dict[str, object] = {}
        if content.users:
            properties["user_property"] = content.users
        if content.response_topic:
            properties["response_topic"] = content.response_topic
            properties["correlation_data"] = content.correlation
        self._connected.publish(
            content.topic, content.payload, content.qos, content.retain, **properties
        )
        await self._connected._persistent_storage.wait_empty()

    def _on_connect(self, _client: object, flags: int, _code: int, _properties: object) -> None:
        self._present = flags & 1

    def _on_answer(
        self, _client: object, _mid: int, codes: Sequence[int], _properties: object = None
    ) -> None:
        self._answers.put_nowait(codes[0] if codes else -1)

    def _on_disconnect(self, _client: object, packet: bytes | None, _error: object = None) -> None:
        if not self._leaving:
            self._leaving = True  # it tells the end of the connection once more
            stage.say(Report(kind="ended", reason=packet[0] if packet else -1))

    def _on_message(
        self,
        _client: object,
        topic: str,
        payload: bytes,
        qos: int,
        properties: Mapping[str, object],
    ) -> int:
        def first(name: str, absent: object) -> object:
            found = properties.get(name)
            return found[0] if isinstance(found, list) else absent

        content = Content(
            topic=topic,
            payload=bytes(payload),
            qos=qos,
            retain=bool(properties["retain"]),
            users=tuple(cast("list[tuple[str, str]]", properties.get("user_property", []))),
            response_topic=str(first("response_topic", "")),
            correlation=cast("bytes", first("correlation_data", b"")),
        )
        stage.say(Report(kind="message", content=content))
        return 0


if __name__ == "__main__":
    stage.play_async(Actor)
