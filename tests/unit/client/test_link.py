from __future__ import annotations

import pytest
import trio

from client.errors import ConnectionLost, LocalMisuse
from client.handshake import Endpoint, open_connection
from client.link import Link
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
)
from tests.unit.client.scripted_broker import Peer, ScriptedBroker


class Harness:
    """A link to the scripted broker, and what it told us."""

    def __init__(self) -> None:
        self.messages: list[Publish] = []
        self.losses: list[ConnectionLost] = []
        self.gate = trio.Event()
        self.gate.set()

    async def open(self, broker: ScriptedBroker) -> Link:
        where = Endpoint(
            host="127.0.0.1",
            port=broker.port,
            context=broker.pki.client_context(broker.pki.client("sensor")),
            server_name="localhost",
        )
        opened = await open_connection(
            where, Connect(client_id="c"), max_packet_bytes=1 << 20, deadline_s=5
        )
        return Link(
            opened.stream,
            opened.reader,
            opened.connack,
            on_message=self.take,
            on_lost=self.losses.append,
        )

    async def take(self, message: Publish) -> None:
        await self.gate.wait()
        self.messages.append(message)


def subscribe_all(number: int) -> Packet:
    return Subscribe(packet_id=number, filters=(Subscription(filter="#", qos=1),))


async def wait_until_lost(link: Link) -> ConnectionLost:
    with trio.fail_after(5):
        while link.lost is None:
            await trio.sleep(0.005)
    return link.lost


async def test_ask_returns_the_acknowledgement_of_its_own_packet(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    answer = await link.ask(Suback, subscribe_all, deadline_s=5)
    assert isinstance(answer, Suback)
    assert answer.reasons == (ReasonCode.GRANTED_QOS_1,)
    assert len(link.inflight) == 0
    await link.close()


async def test_ask_gives_up_in_time_and_keeps_the_identifier(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    async def never_answer(peer: Peer, packet: Packet) -> bool:
        return isinstance(packet, Subscribe)

    broker.script = never_answer
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    assert await link.ask(Suback, subscribe_all, deadline_s=0.1) is None
    assert len(link.inflight) == 1
    await link.close()


async def test_packet_that_is_not_allowed_keeps_no_identifier(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    broker.connack = Connack(properties=Properties(maximum_packet_size=50))
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    for topic, payload, words in (("a/#", b"", "topic"), ("a", bytes(60), "at most 50")):
        with pytest.raises(LocalMisuse, match=words):
            await link.ask(
                Puback,
                lambda number, t=topic, p=payload: Publish(  # type: ignore[misc]  # bound early
                    topic=t, payload=p, qos=1, packet_id=number
                ),
                deadline_s=5,
            )
    assert len(link.inflight) == 0
    assert link.lost is None
    await link.close()


async def test_qos_1_message_is_acknowledged_after_it_was_taken(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    async def push(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Subscribe):
            await peer.send(Publish(topic="a", payload=b"1", qos=1, packet_id=77))
        return False

    broker.script = push
    harness = Harness()
    harness.gate = trio.Event()
    link = await harness.open(broker)
    nursery.start_soon(link.receive)
    await link.send(link.encoded(subscribe_all(1)))
    await trio.sleep(0.05)
    assert broker.of(Puback) == []
    harness.gate.set()
    with trio.fail_after(5):
        while not broker.of(Puback):
            await trio.sleep(0.005)
    assert broker.of(Puback) == [Puback(packet_id=77)]
    assert [m.payload for m in harness.messages] == [b"1"]
    await link.close()


async def test_messages_of_a_run_are_acknowledged_each(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    messages = [
        Publish(topic="a", payload=b"%d" % each, qos=1, packet_id=each) for each in (7, 8, 9)
    ]

    async def push(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Subscribe):
            await peer.send(*messages)
        return False

    broker.script = push
    harness = Harness()
    link = await harness.open(broker)
    nursery.start_soon(link.receive)
    await link.send(link.encoded(subscribe_all(1)))
    with trio.fail_after(5):
        while len(broker.of(Puback)) < len(messages):
            await trio.sleep(0.005)
    assert broker.of(Puback) == [Puback(packet_id=each) for each in (7, 8, 9)]
    assert harness.messages == messages
    await link.close()


async def test_acknowledgements_that_come_together_go_to_whoever_waits_for_each(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    held: list[Packet] = []

    async def hold_back(peer: Peer, packet: Packet) -> bool:
        if not isinstance(packet, Publish):
            return False
        held.append(Puback(packet_id=packet.packet_id or 0))
        if len(held) == 3:
            await peer.send(*held)
        return True

    broker.script = hold_back
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    answers: list[object] = []

    async def publish(payload: bytes) -> None:
        answers.append(
            await link.ask(
                Puback,
                lambda number: Publish(topic="a", payload=payload, qos=1, packet_id=number),
                deadline_s=5,
            )
        )

    async with trio.open_nursery() as publishers:
        for payload in (b"1", b"2", b"3"):
            publishers.start_soon(publish, payload)
    assert sorted(map(repr, answers)) == sorted(map(repr, held))
    assert len(link.inflight) == 0
    await link.close()


async def test_disconnect_of_the_broker_is_the_reason_everyone_gets(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    async def throw_out(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Subscribe):
            why = Properties(reason_string="maintenance")
            await peer.send(Disconnect(reason=ReasonCode.SERVER_SHUTTING_DOWN, properties=why))
            return True
        return False

    broker.script = throw_out
    harness = Harness()
    link = await harness.open(broker)
    nursery.start_soon(link.receive)
    with pytest.raises(
        ConnectionLost, match=r"server shutting down \(0x8b\): maintenance"
    ) as caught:
        await link.ask(Suback, subscribe_all, deadline_s=5)
    assert caught.value.reason is ReasonCode.SERVER_SHUTTING_DOWN
    with pytest.raises(ConnectionLost, match="maintenance"):
        await link.send(b"\xc0\0")
    assert harness.losses == [caught.value]
    await link.close()


@pytest.mark.parametrize(
    "packet",
    [
        Puback(packet_id=9),
        Suback(packet_id=9, reasons=(ReasonCode.SUCCESS,)),
        Publish(topic="a", qos=2, packet_id=1),
        Connack(),
    ],
)
async def test_broker_that_breaks_the_protocol_is_told_and_left(
    broker: ScriptedBroker, nursery: trio.Nursery, packet: Packet
) -> None:
    async def answer(peer: Peer, received: Packet) -> bool:
        if isinstance(received, Pingreq):
            await peer.send(packet)
            return True
        return False

    broker.script = answer
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    await link.send(b"\xc0\0")
    lost = await wait_until_lost(link)
    assert "the broker broke the protocol" in str(lost)
    with trio.fail_after(5):
        while not broker.of(Disconnect):
            await trio.sleep(0.005)
    assert broker.of(Disconnect) == [Disconnect(reason=ReasonCode.PROTOCOL_ERROR)]
    await link.close()


async def test_closed_connection_is_a_loss(broker: ScriptedBroker, nursery: trio.Nursery) -> None:
    async def hang_up(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Pingreq):
            await peer.stream.aclose()
        return isinstance(packet, Pingreq)

    broker.script = hang_up
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    await link.send(b"\xc0\0")
    assert "closed the connection" in str(await wait_until_lost(link))
    await link.close()


async def test_idle_line_is_pinged(broker: ScriptedBroker, nursery: trio.Nursery) -> None:
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    nursery.start_soon(link.keep_alive, 0.05)
    with trio.fail_after(5):
        while len(broker.of(Pingreq)) < 3:
            await trio.sleep(0.005)
    assert link.lost is None
    await link.close()


async def test_broker_that_fell_silent_is_noticed(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    async def swallow_pings(peer: Peer, packet: Packet) -> bool:
        return isinstance(packet, Pingreq)

    broker.script = swallow_pings
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    nursery.start_soon(link.keep_alive, 0.1)
    assert "no sign of life for 0.1 s" in str(await wait_until_lost(link))
    await link.close()


async def test_broker_is_not_silent_while_we_do_not_listen(
    broker: ScriptedBroker, nursery: trio.Nursery
) -> None:
    async def push(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Subscribe):
            await peer.send(Publish(topic="a"))
        return False

    broker.script = push
    harness = Harness()
    harness.gate = trio.Event()
    link = await harness.open(broker)
    nursery.start_soon(link.receive)
    await link.send(link.encoded(subscribe_all(1)))
    nursery.start_soon(link.keep_alive, 0.05)
    with trio.fail_after(5):
        while len(broker.of(Pingreq)) < 6:
            await trio.sleep(0.005)
    assert link.lost is None
    harness.gate.set()
    await link.close()


async def test_close_says_disconnect_once(broker: ScriptedBroker, nursery: trio.Nursery) -> None:
    link = await Harness().open(broker)
    nursery.start_soon(link.receive)
    await link.close()
    await link.close()
    assert link.lost is not None
    with pytest.raises(ConnectionLost, match="closed by us"):
        await link.send(b"\xc0\0")
    with trio.fail_after(5):
        while not broker.of(Disconnect):
            await trio.sleep(0.005)
    assert broker.of(Disconnect) == [Disconnect()]
    assert Pingresp() not in broker.received
