"""Our client against a broker we did not write: Debian's mosquitto, mutual TLS, an ACL file."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest
import trio

from client.connection import Client, connect
from client.errors import CertificateRefused, ConnectFailed, NoAnswer, PublishRefused
from client.kernel import RecordShape
from mqtt.errors import ReasonCode
from mqtt.packets import Properties, Publish, Version, Will
from tests.needs import require_tool
from tests.pki import Issued, TestPki

pytestmark = [pytest.mark.e2e, pytest.mark.needs("mosquitto")]

ACL = """
user sensor
topic readwrite telemetry/#
topic readwrite results/sensor/#
topic write kernel/#
user viewer
topic read telemetry/#
user worker
topic read kernel/#
topic write results/#
"""

START_DEADLINE_S = 10.0


class Mosquitto:
    """A running mosquitto and the PKI it believes in."""

    def __init__(self, pki: TestPki, port: int) -> None:
        self.pki = pki
        self.port = port

    def dial(
        self,
        name: str,
        *,
        version: Version = Version.V5,
        will: Will | None = None,
        reply_prefix: str | None = None,
        issued: Issued | None = None,
        server_name: str | None = None,
        keep_alive_s: int = 30,
    ) -> AbstractAsyncContextManager[Client]:
        return connect(
            host="127.0.0.1",
            port=self.port,
            context=self.pki.client_context(issued or self.pki.client(name)),
            client_id=f"{name}-test",
            version=version,
            will=will,
            reply_prefix=reply_prefix,
            server_name=server_name,
            keep_alive_s=keep_alive_s,
        )


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    program = require_tool("mosquitto", package="mosquitto")
    pki = TestPki(tmp_path)
    broker = pki.broker()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    (tmp_path / "acl").write_text(ACL)
    (tmp_path / "acl").chmod(0o600)
    lines = [
        f"listener {port} 127.0.0.1",
        f"cafile {pki.ca}",
        f"certfile {broker.cert}",
        f"keyfile {broker.key}",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.3",
        "allow_anonymous false",
        f"acl_file {tmp_path / 'acl'}",
        "max_keepalive 10",
        "max_queued_messages 1000000",  # with 0, for unlimited, it hangs up after a denial
        "set_tcp_nodelay true",
        "log_dest stderr",
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    (tmp_path / "conf").write_text("\n".join(lines) + "\n")
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([program, "-c", str(tmp_path / "conf")], stdout=log, stderr=log)
    try:
        with trio.fail_after(START_DEADLINE_S):
            while not _listens(port):
                assert process.poll() is None, (tmp_path / "log").read_text()
                await trio.sleep(0.02)
        yield Mosquitto(pki, port)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("qos", [0, 1])
async def test_client_publishes_and_receives(
    mosquitto: Mosquitto, version: Version, qos: int
) -> None:
    async with (
        mosquitto.dial("viewer", version=version) as viewer,
        mosquitto.dial("sensor", version=version) as sensor,
    ):
        assert await viewer.subscribe("telemetry/#", qos=qos) == (qos,)
        payloads = [b"%d" % n for n in range(50)]
        for payload in payloads:
            await sensor.publish("telemetry/cpu", payload, qos=qos)
        with trio.fail_after(10):
            got = [await viewer.messages.receive() for _ in payloads]
        assert [message.payload for message in got] == payloads
        assert {message.topic for message in got} == {"telemetry/cpu"}
        await viewer.unsubscribe("telemetry/#")


async def test_client_publishes_many_and_loses_none(mosquitto: Mosquitto) -> None:
    payloads = [n.to_bytes(4, "big") + bytes(96) for n in range(20_000)]
    async with mosquitto.dial("viewer") as viewer, mosquitto.dial("sensor") as sensor:
        await viewer.subscribe("telemetry/#")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sensor.publish_many, "telemetry/cpu", payloads)
            with trio.fail_after(30):
                got = [(await viewer.messages.receive()).payload for _ in payloads]
        assert got == payloads


async def test_client_is_told_what_the_broker_refuses(mosquitto: Mosquitto) -> None:
    async with mosquitto.dial("viewer") as viewer:
        with pytest.raises(PublishRefused) as caught:
            await viewer.publish("telemetry/cpu", b"", qos=1)
        assert caught.value.reason is ReasonCode.NOT_AUTHORIZED
        assert caught.value.decision_id is None  # mosquitto has none
        assert viewer.lost is None


@pytest.mark.parametrize("kind", ["expired", "foreign"])
async def test_client_says_why_its_certificate_is_refused(mosquitto: Mosquitto, kind: str) -> None:
    issued = getattr(mosquitto.pki, kind)("sensor")
    with pytest.raises(ConnectFailed) as caught:
        async with mosquitto.dial("sensor", issued=issued):
            pytest.fail("it was accepted")
    # mosquitto closes at once, so now and then the alert is lost to a TCP reset.
    assert isinstance(caught.value, CertificateRefused) or "broke" in str(caught.value)


async def test_client_does_not_talk_to_a_broker_of_another_name(mosquitto: Mosquitto) -> None:
    with pytest.raises(ConnectFailed, match="is not trusted"):
        async with mosquitto.dial("sensor", server_name="elsewhere.example"):
            pytest.fail("it was trusted")


async def test_client_takes_the_keep_alive_of_the_broker(mosquitto: Mosquitto) -> None:
    async with mosquitto.dial("sensor", keep_alive_s=3600) as sensor:
        assert sensor.connack.properties.server_keep_alive == 10


async def test_will_is_published_only_when_the_client_vanishes(mosquitto: Mosquitto) -> None:
    will = Will(topic="telemetry/gone", payload=b"will", qos=1)
    async with mosquitto.dial("viewer") as viewer:
        await viewer.subscribe("telemetry/#", qos=1)
        async with mosquitto.dial("sensor", will=will) as sensor:
            await sensor.publish("telemetry/x", b"before", qos=1)
        async with mosquitto.dial("sensor") as sensor:
            await sensor.publish("telemetry/x", b"after", qos=1)
        with trio.fail_after(10):
            got = [(await viewer.messages.receive()).payload for _ in range(2)]
        assert got == [b"before", b"after"]


async def test_request_and_response_work_over_any_mqtt_5_broker(mosquitto: Mosquitto) -> None:
    async def serve(worker: Client) -> None:
        """A kernel made of two lines: double every element."""
        async for request in worker.messages:
            asked = request.properties
            assert asked.response_topic is not None
            payload = (2 * np.frombuffer(request.payload, dtype=np.float32)).tobytes()
            answer = Properties(correlation_data=asked.correlation_data)
            await worker.publish(asked.response_topic, payload, properties=answer)

    shape = RecordShape(dtype="float32", shape=(8,))
    records = np.random.default_rng(3).random((1500, 8), dtype=np.float32)
    async with (
        mosquitto.dial("worker") as worker,
        mosquitto.dial("sensor", reply_prefix="results/sensor") as sensor,
        trio.open_nursery() as nursery,
    ):
        await worker.subscribe("kernel/double")
        nursery.start_soon(serve, worker)
        results = await sensor.kernel("double", takes=shape, gives=shape).many(records)
        assert np.array_equal(results, 2 * records)
        with pytest.raises(NoAnswer):
            await sensor.request("kernel/unknown", b"", deadline_s=0.3)
        nursery.cancel_scope.cancel()


async def test_retained_message_comes_with_its_flag(mosquitto: Mosquitto) -> None:
    async with mosquitto.dial("sensor") as sensor:
        await sensor.publish("telemetry/last", b"kept", qos=1, retain=True)
        await sensor.subscribe("telemetry/last")
        with trio.fail_after(10):
            message = await sensor.messages.receive()
    assert isinstance(message, Publish)
    assert (message.payload, message.retain) == (b"kept", True)
