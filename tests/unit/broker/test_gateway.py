from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio_websocket

from broker.config import BrokerLimits
from broker.endpoints import Endpoints
from broker.gateway import MAX_OBSERVERS_EACH, Gateway
from certs.errors import PrincipalRefused
from certs.principal import PrincipalMapper, default_rules
from client.connection import Client, connect
from client.errors import ClientError
from tests.brokers import TestBroker, allow, running_broker
from tests.pki import TRUST_DOMAIN, Issued, TestPki
from transport.addresses import bind_tcp
from transport.connect import connect_tls
from transport.tls import TlsStream

RULES = (
    allow("sensor", "write", "topic.t.**"),
    allow("viewer", "read", "topic.t.**"),
    allow("admin", "describe", "broker.b1.metrics"),
)


@dataclass(kw_only=True)
class Door:
    """A gateway that listens on all three ports."""

    pki: TestPki
    broker: TestBroker
    gateway: Gateway
    mqtts: int
    wss: int
    metrics: int
    handshakes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def connect(self, who: Issued) -> AbstractAsyncContextManager[Client]:
        return connect(host="localhost", port=self.mqtts, context=self.pki.client_context(who))


@asynccontextmanager
async def open_door(tmp_path: Path, *, limits: BrokerLimits | None = None) -> AsyncGenerator[Door]:
    pki = TestPki(tmp_path)
    server = pki.broker()
    handshakes: list[tuple[str, str]] = []
    async with running_broker(*RULES, limits=limits) as broker, trio.open_nursery() as nursery:
        gateway = Gateway(
            contexts={
                alpn: pki.server_context(server, alpn=[alpn]) for alpn in ("mqtt", "http/1.1")
            },
            mapper=PrincipalMapper(default_rules(TRUST_DOMAIN)),
            trust_domain=TRUST_DOMAIN,
            authorizer=broker.authorizer,
            audit=broker.audit,
            note_handshake=lambda name, result, _: handshakes.append((name, result)),
            services=broker.services,
            endpoints=Endpoints(
                guard=broker.guard,
                authorizer=broker.authorizer,
                page=lambda: b"stockade_connections 1.0\n",
                not_ready=lambda: broker.guard.refusal,
            ),
            now=time.time,  # noqa: TID251  certificates are compared with the real clock
        )
        ports: list[int] = []
        for serve in (gateway.serve_mqtt, gateway.serve_websocket, gateway.serve_endpoints):
            sockets = bind_tcp("127.0.0.1", 0)
            ports.append(int(sockets[0].getsockname()[1]))
            await nursery.start(serve, sockets)
        yield Door(
            pki=pki,
            broker=broker,
            gateway=gateway,
            mqtts=ports[0],
            wss=ports[1],
            metrics=ports[2],
            handshakes=handshakes,
        )
        nursery.cancel_scope.cancel()


async def test_message_goes_over_mutual_tls_between_principals(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        pki = door.pki
        async with (
            door.connect(pki.client("viewer")) as viewer,
            door.connect(pki.client("sensor")) as sensor,
        ):
            await viewer.subscribe("t/#")
            await sensor.publish("t/1", b"hello", qos=1)
            message = await viewer.messages.receive()
            assert (message.topic, message.payload) == ("t/1", b"hello")
        assert door.handshakes == [("mqtts", "ok")] * 2


@pytest.mark.parametrize(
    "bad",
    [
        "expired",
        "foreign",
        "without_eku",
        "any_eku",
        "server_only",
        "two_uris",
        "without_uri",
        "other_trust_domain",
    ],
)
async def test_bad_certificate_gets_in_nowhere_and_is_audited(tmp_path: Path, bad: str) -> None:
    async with open_door(tmp_path) as door:
        who: Issued = getattr(door.pki, bad)("sensor")
        with pytest.raises(ClientError):
            async with door.connect(who):
                pass
        async with door.connect(door.pki.client("sensor")):
            pass
        door.broker.audit.close()
        refused = [
            r.event for r in door.broker.audit.recent if r.event.kind == "authentication.refused"
        ]
        assert len(refused) == 1
        assert refused[0].reason


async def test_broker_and_controller_certificates_are_no_clients(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        with pytest.raises(ClientError):
            async with door.connect(door.pki.controller()):
                pass


async def test_stream_without_identity_has_no_principal(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        stream = await dial(door, door.mqtts, door.pki.client("sensor"), "mqtt")
        stream.identity = None
        with pytest.raises(PrincipalRefused):
            door.gateway.principal_of(stream)
        await stream.aclose()


async def test_one_principal_cannot_take_the_places_of_all(tmp_path: Path) -> None:
    limits = BrokerLimits(max_connections_per_principal=2)
    async with open_door(tmp_path, limits=limits) as door:
        greedy = door.pki.client("sensor")
        async with door.connect(greedy), door.connect(greedy):
            with pytest.raises(ClientError):
                async with door.connect(greedy):
                    pass
            async with door.connect(door.pki.client("viewer")):
                pass
        async with door.connect(greedy):
            pass


async def test_websocket_carries_mqtt_for_a_certificate(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        context = door.pki.client_context(door.pki.client("sensor"), alpn=["http/1.1"])
        url = f"wss://localhost:{door.wss}/mqtt"
        async with trio_websocket.open_websocket_url(url, context, subprotocols=["mqtt"]) as socket:
            await socket.send_message(b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02ws")
            answer = await socket.get_message()
            assert isinstance(answer, bytes)
            assert answer[0] == 0x20
            assert answer[3] == 0


async def dial(door: Door, port: int, who: Issued, alpn: str) -> TlsStream:
    return await connect_tls(
        "localhost",
        port,
        context=door.pki.client_context(who, alpn=[alpn]),
        alpn=[alpn],
        server_name="localhost",
        deadline_s=5.0,
    )


async def get(door: Door, who: Issued, path: str) -> tuple[int, bytes]:
    stream = await dial(door, door.metrics, who, "http/1.1")
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while data := await stream.receive_some():
        answer += data
    await stream.aclose()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_pages_need_a_certificate_and_metrics_a_rule(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        admin, sensor = door.pki.admin(), door.pki.client("sensor")
        assert await get(door, sensor, "/healthz") == (200, b'{"status":"alive"}\n')
        assert await get(door, sensor, "/readyz") == (200, b'{"status":"ready"}\n')
        assert await get(door, admin, "/metrics") == (200, b"stockade_connections 1.0\n")
        status, body = await get(door, sensor, "/metrics")
        assert status == 403
        assert b"d-" in body
        assert (await get(door, sensor, "/nothing"))[0] == 404


async def test_one_principal_cannot_take_all_places_of_observers(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door, AsyncExitStack() as stack:

        async def answer(who: Issued) -> bytes:
            context = door.pki.client_context(who, alpn=["http/1.1"])
            stream = await connect_tls(
                "localhost",
                door.metrics,
                context=context,
                alpn=["http/1.1"],
                server_name="localhost",
                deadline_s=5,
            )
            stack.push_async_callback(stream.aclose)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: b\r\n\r\n")
                return await stream.receive_some()
            return b""

        sensor, viewer = door.pki.client("sensor"), door.pki.client("viewer")
        for _ in range(MAX_OBSERVERS_EACH):
            assert b"200" in await answer(sensor)
        assert await answer(sensor) == b""
        assert b"200" in await answer(viewer)
