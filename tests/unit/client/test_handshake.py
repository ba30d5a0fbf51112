from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import trio

from client.errors import (
    CertificateRefused,
    ConnectFailed,
    ConnectRefused,
    LocalMisuse,
    ServerUntrusted,
)
from client.handshake import Endpoint, Opened, open_connection
from mqtt.errors import ReasonCode
from mqtt.packets import Connack, Connect, Packet, Pingresp, Properties, Publish, Version
from tests.pki import Issued, TestPki
from tests.unit.client.scripted_broker import Peer, ScriptedBroker


def endpoint(broker: ScriptedBroker, issued: Issued) -> Endpoint:
    context = broker.pki.client_context(issued)
    return Endpoint(host="127.0.0.1", port=broker.port, context=context, server_name="localhost")


async def dial(where: Endpoint, packet: Connect | None = None, *, deadline_s: float = 5) -> Opened:
    return await open_connection(
        where, packet or Connect(client_id="c"), max_packet_bytes=1000, deadline_s=deadline_s
    )


@pytest.mark.parametrize("version", list(Version))
async def test_open_returns_the_brokers_answer(broker: ScriptedBroker, version: Version) -> None:
    opened = await dial(endpoint(broker, broker.pki.client("sensor")), Connect(version=version))
    assert opened.connack == Connack()
    assert opened.reader.version is version
    await opened.stream.aclose()


@pytest.mark.parametrize(
    ("kind", "words"), [("expired", "expired"), ("foreign", "unknown ca"), ("self_signed", "ca")]
)
async def test_refused_certificate_is_said_in_words(
    broker: ScriptedBroker, kind: str, words: str
) -> None:
    issued = getattr(broker.pki, kind)("sensor")
    with pytest.raises(CertificateRefused, match="the broker refused our certificate: ") as caught:
        await dial(endpoint(broker, issued))
    assert words in str(caught.value).lower()


async def test_missing_certificate_is_said_in_words(broker: ScriptedBroker) -> None:
    where = replace(
        endpoint(broker, broker.pki.client("sensor")),
        context=broker.pki.context_without_certificate(),
    )
    with pytest.raises(CertificateRefused, match="certificate"):
        await dial(where)


async def test_port_where_nothing_listens_is_said_in_words(broker: ScriptedBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    where = replace(endpoint(broker, broker.pki.client("sensor")), port=port)
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}.*nothing listens there"):
        await dial(where)


async def test_broker_of_an_unknown_authority_is_not_trusted(broker: ScriptedBroker) -> None:
    stranger = TestPki(broker.pki.directory, name="stranger")
    where = replace(
        endpoint(broker, broker.pki.client("sensor")),
        context=stranger.client_context(stranger.client("sensor")),
    )
    with pytest.raises(ServerUntrusted, match="is not trusted"):
        await dial(where)


async def test_broker_of_another_name_is_not_trusted(broker: ScriptedBroker) -> None:
    where = replace(endpoint(broker, broker.pki.client("sensor")), server_name="elsewhere.example")
    with pytest.raises(ServerUntrusted, match="is not trusted"):
        await dial(where)


@pytest.mark.parametrize("version", list(Version))
async def test_refusal_carries_the_reason(broker: ScriptedBroker, version: Version) -> None:
    said = Properties(reason_string="not you") if version is Version.V5 else Properties()
    broker.connack = Connack(reason=ReasonCode.NOT_AUTHORIZED, properties=said)
    with pytest.raises(ConnectRefused) as caught:
        await dial(endpoint(broker, broker.pki.client("sensor")), Connect(version=version))
    assert caught.value.reason is ReasonCode.NOT_AUTHORIZED
    assert caught.value.reason_string == (said.reason_string or "")


async def test_silent_broker_is_given_up_in_time(broker: ScriptedBroker) -> None:
    async def say_nothing(peer: Peer, packet: Packet) -> bool:
        return True

    broker.script = say_nothing
    began = trio.current_time()
    with pytest.raises(ConnectFailed, match=r"did not answer CONNECT within 0.3 s"):
        await dial(endpoint(broker, broker.pki.client("sensor")), deadline_s=0.3)
    assert trio.current_time() - began < 2


async def test_closing_without_an_answer_is_a_failure(broker: ScriptedBroker) -> None:
    async def close(peer: Peer, packet: Packet) -> bool:
        await peer.stream.aclose()
        return True

    broker.script = close
    with pytest.raises(ConnectFailed, match="without an answer to CONNECT"):
        await dial(endpoint(broker, broker.pki.client("sensor")))


async def test_answer_that_is_no_connack_is_a_failure(broker: ScriptedBroker) -> None:
    async def answer(peer: Peer, packet: Packet) -> bool:
        await peer.send(Pingresp())
        return True

    broker.script = answer
    with pytest.raises(ConnectFailed, match="not MQTT"):
        await dial(endpoint(broker, broker.pki.client("sensor")))


async def test_connect_that_mqtt_forbids_is_not_sent(broker: ScriptedBroker) -> None:
    where = endpoint(broker, broker.pki.client("sensor"))
    with pytest.raises(LocalMisuse):
        await dial(where, Connect(keep_alive=70_000))
    assert broker.events == []


async def test_what_follows_the_connack_at_once_is_kept(broker: ScriptedBroker) -> None:
    async def answer(peer: Peer, packet: Packet) -> bool:
        await peer.send(Connack())
        await peer.send(Publish(topic="a", payload=b"at once"))
        return True

    broker.script = answer
    opened = await dial(endpoint(broker, broker.pki.client("sensor")))
    while (event := opened.reader.next_event()) is None:
        opened.reader.feed(await opened.stream.receive_some())
    assert not isinstance(event, Connack)
    await opened.stream.aclose()
