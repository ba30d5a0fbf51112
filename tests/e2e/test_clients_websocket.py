"""MQTT over secure WebSocket with paho's client, and with trio-websocket driven by hand."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, closing
from http.client import HTTPSConnection
from typing import TYPE_CHECKING

import pytest
import trio
from ohmqtt.mqtt_spec import MQTTQoS
from ohmqtt.packet import (
    MQTTPingReqPacket,
    MQTTPublishPacket,
    MQTTPubRelPacket,
    MQTTSubscribePacket,
)
from paho.mqtt.client import MQTTv5, MQTTv311
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.e2e.clients import assert_zscores, call_zscore, endpoint, paho, unique, windows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ohmqtt.packet import MQTTPacket
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

CONNECT = bytes.fromhex("101000044d5154540502003c000003") + b"raw"
CONNACK = 0x20
CONNECT_CLEAN = bytes.fromhex("101000044d5154540502003c000003") + b"odd"


def packet_bytes(*packets: MQTTPacket) -> bytes:
    """What a client sends, by an encoder we did not write."""
    return b"".join(packet.encode() for packet in packets)


def context_of(system: Running, client: str) -> ssl.SSLContext:
    """What a careful WebSocket client of somebody else would use."""
    files = system.ready.clients[client]
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    return context


@asynccontextmanager
async def websocket(system: Running, client: str = "sensor") -> AsyncGenerator[WebSocketConnection]:
    """A WebSocket whose TCP connection is closed whatever its library forgets."""
    host, port = endpoint(system.ready.broker.wss)
    context = context_of(system, client)
    async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
        secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        yield await wrap_client_stream(nursery, secured, host, "/mqtt", subprotocols=["mqtt"])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", [MQTTv5, MQTTv311])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_websocket_and_tls_clients_meet(
    system: Running, version: MQTTProtocolVersion, qos: int
) -> None:
    topic = f"telemetry/{unique('websocket')}"
    wss = system.ready.broker.wss
    payloads = [b"%d" % number for number in range(50)]
    with (
        paho(system.ready, "viewer", version=version, address=wss) as far,
        paho(system.ready, "viewer") as near,
        paho(system.ready, "sensor", version=version, address=wss) as sensor,
    ):
        for viewer in (far, near):
            assert viewer.subscribe(topic, qos=qos).code == qos
        for payload in payloads:
            sensor.publish(topic, payload, qos=qos)
        for viewer in (far, near):
            assert [viewer.receive().payload for _ in payloads] == payloads


def test_websocket_carries_a_large_message(system: Running) -> None:
    topic = f"bench/{unique('websocket')}"
    payload = bytes(range(256)) * 800
    with paho(system.ready, "bench", address=system.ready.broker.wss) as bench:
        bench.subscribe(topic)
        bench.publish(topic, payload)
        assert bench.receive().payload == payload


def test_kernel_is_called_over_websocket(system: Running) -> None:
    samples = windows(50, seed=3)
    with paho(system.ready, "sensor", address=system.ready.broker.wss) as sensor:
        for answer, row in zip(call_zscore(sensor, samples), samples, strict=True):
            assert_zscores(answer.payload, row)


def test_websocket_client_is_refused_by_the_same_rules(system: Running) -> None:
    with paho(system.ready, "viewer", address=system.ready.broker.wss) as viewer:
        refused = viewer.publish(f"telemetry/{unique('refused')}", b"1", qos=1)
        assert refused.code == 0x87
        assert "d-" in refused.text


async def test_packets_may_span_frames(system: Running) -> None:
    with trio.fail_after(15):
        async with websocket(system) as socket:
            assert socket.subprotocol == "mqtt"
            for index in range(len(CONNECT)):
                await socket.send_message(CONNECT[index : index + 1])
            answer = await socket.get_message()
            assert isinstance(answer, bytes)
            assert answer[0] == CONNACK


@pytest.mark.parametrize("frame_bytes", [7, 1_021, 65_537])
@pytest.mark.parametrize("qos", [1, 2])
async def test_large_message_may_come_in_odd_frames(
    system: Running, qos: int, frame_bytes: int
) -> None:
    topic = f"bench/{unique('frames')}"
    payload = bytes(range(256)) * (80 if frame_bytes == 7 else 800)
    sent = CONNECT_CLEAN + packet_bytes(
        MQTTSubscribePacket(topics=[(topic, qos)], packet_id=1),
        MQTTPublishPacket(topic=topic, payload=payload, qos=MQTTQoS(qos), packet_id=2),
        *([MQTTPubRelPacket(packet_id=2)] if qos == 2 else []),
        MQTTPingReqPacket(),
    )
    with trio.fail_after(30):
        async with websocket(system, "bench") as socket:
            for start in range(0, len(sent), frame_bytes):
                await socket.send_message(sent[start : start + frame_bytes])
            received = b""
            while payload not in received:
                frame = await socket.get_message()
                assert isinstance(frame, bytes)
                received += frame
    assert received[0] == CONNACK


async def test_many_packets_may_come_in_one_frame(system: Running) -> None:
    topic = f"bench/{unique('one')}"
    publishes = [
        MQTTPublishPacket(topic=topic, payload=b"<%d>" % number, qos=MQTTQoS.Q1, packet_id=number)
        for number in range(2, 502)
    ]
    subscribe = MQTTSubscribePacket(topics=[(topic, 0)], packet_id=1)
    with trio.fail_after(30):
        async with websocket(system, "bench") as socket:
            await socket.send_message(CONNECT_CLEAN + packet_bytes(subscribe, *publishes))
            received = b""
            while b"<501>" not in received:
                frame = await socket.get_message()
                assert isinstance(frame, bytes)
                received += frame
    places = [received.index(packet.payload) for packet in publishes]
    assert places == sorted(places)


async def test_text_frame_ends_the_connection(system: Running) -> None:
    with trio.fail_after(15):
        async with websocket(system) as socket:
            await socket.send_message("CONNECT, please")
            with pytest.raises(ConnectionClosed):
                await socket.get_message()
            assert socket.closed is not None
            assert socket.closed.code == 1003


@pytest.mark.parametrize(
    ("path", "subprotocol", "status"), [("/other", "mqtt", 404), ("/mqtt", "chat", 400)]
)
def test_upgrade_elsewhere_or_for_something_else_is_refused(
    system: Running, path: str, subprotocol: str, status: int
) -> None:
    host, port = endpoint(system.ready.broker.wss)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "Sec-WebSocket-Protocol": subprotocol,
    }
    with closing(
        HTTPSConnection(host, port, context=context_of(system, "sensor"), timeout=15)
    ) as connection:
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == status
