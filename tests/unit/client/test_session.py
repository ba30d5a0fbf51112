from __future__ import annotations

import pytest
import trio

from client.errors import (
    ConnectionLost,
    LocalMisuse,
    NoAnswer,
    PublishRefused,
    SubscribeRefused,
)
from client.session import MAX_MESSAGES_UNREAD
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Packet,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from tests.unit.client.scripted_broker import Peer, ScriptedBroker

DENIED = "no rule allows it, decision d-0123456789ab"


async def deny_publish(peer: Peer, packet: Packet) -> bool:
    if isinstance(packet, Publish) and packet.packet_id is not None:
        v5 = peer.reader.version is Version.V5
        await peer.send(
            Puback(
                packet_id=packet.packet_id,
                reason=ReasonCode.NOT_AUTHORIZED if v5 else ReasonCode.SUCCESS,
                properties=Properties(reason_string=DENIED) if v5 else Properties(),
            )
        )
        return True
    return False


async def never_acknowledge(peer: Peer, packet: Packet) -> bool:
    return isinstance(packet, Publish)


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("qos", [0, 1])
async def test_message_goes_round(broker: ScriptedBroker, version: Version, qos: int) -> None:
    async with broker.dial(version=version) as client:
        assert await client.subscribe("a/+", "b", qos=qos) == (qos, qos)
        answer = await client.publish("a/x", b"payload", qos=qos)
        assert (answer is None) == (qos == 0)
        with trio.fail_after(5):
            message = await client.messages.receive()
        assert (message.topic, message.payload) == ("a/x", b"payload")
        reasons = await client.unsubscribe("a/+")
        assert reasons == (() if version is Version.V311 else (ReasonCode.SUCCESS,))


async def test_refused_publish_carries_reason_and_decision(broker: ScriptedBroker) -> None:
    broker.script = deny_publish
    async with broker.dial() as client:
        with pytest.raises(PublishRefused) as caught:
            await client.publish("telemetry/cpu", b"", qos=1)
        assert caught.value.reason is ReasonCode.NOT_AUTHORIZED
        assert caught.value.reason_string == DENIED
        assert caught.value.decision_id == "d-0123456789ab"
        assert client.lost is None


async def test_publish_without_puback_is_given_up(broker: ScriptedBroker) -> None:
    broker.script = never_acknowledge
    async with broker.dial() as client:
        with pytest.raises(NoAnswer, match=r"no PUBACK for `a` within 0\.1 s"):
            await client.publish("a", b"", qos=1, deadline_s=0.1)


async def test_publishes_respect_receive_maximum(broker: ScriptedBroker) -> None:
    broker.connack = Connack(properties=Properties(receive_maximum=2))
    held: list[Publish] = []

    async def hold(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Publish):
            held.append(packet)
        return isinstance(packet, Publish)

    broker.script = hold
    async with broker.dial() as client, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(lambda: client.publish("a", b"", qos=1))
        await trio.sleep(0.1)
        assert len(held) == 2
        assert len({packet.packet_id for packet in held}) == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("qos", [-1, 2, 3])
async def test_impossible_qos_is_refused_here(broker: ScriptedBroker, qos: int) -> None:
    async with broker.dial() as client:
        with pytest.raises(LocalMisuse, match="QoS"):
            await client.publish("a", b"", qos=qos)
        with pytest.raises(LocalMisuse, match="QoS"):
            await client.subscribe(Subscription(filter="a", qos=qos))
    assert broker.of(Publish) == broker.of(Subscribe) == []


async def test_maximum_qos_of_the_broker_is_respected(broker: ScriptedBroker) -> None:
    broker.connack = Connack(properties=Properties(maximum_qos=0))
    async with broker.dial() as client:
        with pytest.raises(LocalMisuse, match="0 to 0"):
            await client.publish("a", b"", qos=1)


@pytest.mark.parametrize("topic", ["", "a/#", "a/+", "a\0b", "\ud800"])
async def test_illegal_topic_is_refused_here(broker: ScriptedBroker, topic: str) -> None:
    async with broker.dial() as client:
        for qos in (0, 1):
            with pytest.raises(LocalMisuse):
                await client.publish(topic, b"", qos=qos)
        with pytest.raises(LocalMisuse):
            await client.publish_many(topic, [b""])
        assert client.lost is None


@pytest.mark.parametrize("version", list(Version))
async def test_publish_many_sends_one_run(broker: ScriptedBroker, version: Version) -> None:
    payloads = [n.to_bytes(4, "big") for n in range(1000)]
    async with broker.dial(version=version) as client:
        await client.publish_many("a/b", payloads)
        await client.publish("end", b"", qos=1)
    got = [p.payload for p in broker.of(Publish) if isinstance(p, Publish) and p.topic == "a/b"]
    assert got == payloads
    assert sum(broker.runs) == 1000
    assert len(broker.runs) < 20


async def test_publish_many_takes_payloads_of_any_length(broker: ScriptedBroker) -> None:
    payloads = [bytes(n % 300) for n in range(2000)]
    async with broker.dial() as client:
        await client.publish_many("a", payloads, properties=Properties(content_type="x"))
        await client.publish_many("a", [])
        await client.publish("end", b"", qos=1)
    got = [p for p in broker.of(Publish) if isinstance(p, Publish) and p.topic == "a"]
    assert [p.payload for p in got] == payloads
    assert {p.properties.content_type for p in got} == {"x"}


async def test_unread_messages_hold_the_broker_back_and_none_is_lost(
    broker: ScriptedBroker,
) -> None:
    count = 4 * MAX_MESSAGES_UNREAD
    async with broker.dial() as reader, broker.dial() as writer:
        await reader.subscribe("a")
        payloads = [n.to_bytes(4, "big") for n in range(count)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.publish_many, "a", payloads)
            await trio.sleep(0.2)
            assert reader.lost is None
            with trio.fail_after(20):
                got = [(await reader.messages.receive()).payload for _ in range(count)]
        assert got == payloads


async def test_closed_messages_drop_what_still_comes(broker: ScriptedBroker) -> None:
    async with broker.dial() as client:
        await client.subscribe("a")
        await client.messages.aclose()
        await client.publish("a", b"", qos=1)
        with trio.fail_after(5):
            while not client.unwanted:
                await trio.sleep(0.005)
        assert client.lost is None


async def echo(peer: Peer, packet: Packet) -> bool:
    """Answer requests to `echo` with the payload reversed."""
    if isinstance(packet, Publish) and packet.topic == "echo":
        asked = packet.properties
        if packet.packet_id is not None:
            await peer.send(Puback(packet_id=packet.packet_id))
        assert asked.response_topic is not None
        await peer.send(
            Publish(
                topic=asked.response_topic,
                payload=packet.payload[::-1],
                properties=Properties(correlation_data=asked.correlation_data),
            )
        )
        return True
    return False


async def test_requests_get_their_own_answers(broker: ScriptedBroker) -> None:
    broker.script = echo
    async with broker.dial(reply_prefix="results/sensor") as client:
        answers: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answers[number] = (await client.request("echo", b"%03d" % number)).payload

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert answers == {n: (b"%03d" % n)[::-1] for n in range(50)}
    (subscribe,) = broker.of(Subscribe)  # one for all of them
    assert isinstance(subscribe, Subscribe)
    assert subscribe.filters[0].filter.startswith("results/sensor/")


async def test_two_clients_do_not_share_an_answer_topic(broker: ScriptedBroker) -> None:
    async with broker.dial(reply_prefix="r") as one, broker.dial(reply_prefix="r") as other:
        assert (await one.open_replies()).topic != (await other.open_replies()).topic


async def test_request_without_an_answer_is_given_up(broker: ScriptedBroker) -> None:
    async with broker.dial(reply_prefix="r") as client:
        with pytest.raises(NoAnswer, match=r"no answer to the request to `nowhere` within 0\.2 s"):
            await client.request("nowhere", b"", deadline_s=0.2)
        assert len(await client.open_replies()) == 0


async def test_refused_request_is_told_at_once(broker: ScriptedBroker) -> None:
    broker.script = deny_publish
    async with broker.dial(reply_prefix="r") as client:
        with trio.fail_after(5), pytest.raises(PublishRefused):
            await client.request("kernel/x", b"")
        assert len(await client.open_replies()) == 0


async def test_refused_reply_subscription_is_told(broker: ScriptedBroker) -> None:
    async def deny(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Subscribe):
            why = Properties(reason_string="no")
            reasons = (ReasonCode.NOT_AUTHORIZED,)
            await peer.send(Suback(packet_id=packet.packet_id, reasons=reasons, properties=why))
        return isinstance(packet, Subscribe)

    broker.script = deny
    async with broker.dial(reply_prefix="r") as client:
        with pytest.raises(SubscribeRefused, match=r"not authorized \(0x87\): no"):
            await client.request("kernel/x", b"")
    assert broker.of(Publish) == []


async def test_request_needs_a_reply_prefix_and_mqtt_5(broker: ScriptedBroker) -> None:
    async with broker.dial() as client:
        with pytest.raises(LocalMisuse, match="reply_prefix"):
            await client.request("a", b"")
    async with broker.dial(version=Version.V311, reply_prefix="r") as client:
        with pytest.raises(LocalMisuse, match="MQTT 5"):
            await client.request("a", b"")


async def test_loss_ends_everything_that_waits(broker: ScriptedBroker) -> None:
    async def hang_up(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Publish) and packet.topic == "die":
            await peer.stream.aclose()
        return isinstance(packet, Publish)

    broker.script = hang_up
    lost: list[ConnectionLost] = []
    async with broker.dial(reply_prefix="r") as client:

        async def ask(topic: str) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await client.request(topic, b"")
            lost.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "one")
            nursery.start_soon(ask, "two")
            await trio.sleep(0.1)
            await client.publish("die", b"")
    assert len(lost) == 2
    assert lost[0] is lost[1]
