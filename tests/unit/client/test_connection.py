from __future__ import annotations

import pytest
import trio

from client.connection import MAX_PACKET_BYTES, RECEIVE_MAXIMUM, connect
from client.errors import ConnectFailed, ConnectionLost
from mqtt.packets import Connack, Connect, Disconnect, Packet, Properties, Version
from tests.unit.client.scripted_broker import Peer, ScriptedBroker


async def test_connect_says_what_we_can_take(broker: ScriptedBroker) -> None:
    async with broker.dial(client_id="c", keep_alive_s=7):
        pass
    (packet,) = broker.of(Connect)
    assert isinstance(packet, Connect)
    assert (packet.client_id, packet.keep_alive, packet.clean_start) == ("c", 7, True)
    assert packet.properties.receive_maximum == RECEIVE_MAXIMUM
    assert packet.properties.maximum_packet_size == MAX_PACKET_BYTES


async def test_connect_keeps_what_the_caller_chose(broker: ScriptedBroker) -> None:
    chosen = Properties(receive_maximum=3, session_expiry_interval=60)
    async with broker.dial(properties=chosen):
        pass
    (packet,) = broker.of(Connect)
    assert isinstance(packet, Connect)
    assert packet.properties.receive_maximum == 3
    assert packet.properties.session_expiry_interval == 60


async def test_connect_in_311_sends_no_properties(broker: ScriptedBroker) -> None:
    async with broker.dial(version=Version.V311) as client:
        assert client.version is Version.V311
    (packet,) = broker.of(Connect)
    assert isinstance(packet, Connect)
    assert packet.version is Version.V311


async def test_leaving_says_disconnect(broker: ScriptedBroker) -> None:
    async with broker.dial():
        pass
    with trio.fail_after(5):
        while not broker.of(Disconnect):
            await trio.sleep(0.005)
    assert broker.received[-1] == Disconnect()


async def test_exception_of_the_block_comes_out_as_it_is(broker: ScriptedBroker) -> None:
    cause = KeyError("cause")
    with pytest.raises(ZeroDivisionError) as caught:
        async with broker.dial():
            raise ZeroDivisionError from cause
    assert caught.value.__cause__ is cause
    group = ExceptionGroup("mine", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with broker.dial():
            raise group
    assert caught_group.value.message == "mine"  # Trio rebuilds groups, and leaves what is in them
    assert caught_group.value.exceptions == group.exceptions


async def test_cancelling_the_block_closes_the_connection(broker: ScriptedBroker) -> None:
    with trio.move_on_after(0.2) as scope:
        async with broker.dial() as client:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert client.lost is not None
    with trio.fail_after(5):
        while not broker.of(Disconnect):
            await trio.sleep(0.005)


async def test_failing_to_connect_leaves_nothing_open(broker: ScriptedBroker) -> None:
    with pytest.raises(ConnectFailed, match="cannot connect"):
        async with connect(
            host="127.0.0.1",
            port=1,
            context=broker.pki.client_context(broker.pki.client("sensor")),
        ):
            pytest.fail("there is no broker")


async def test_client_takes_the_identifier_and_keep_alive_of_the_broker(
    broker: ScriptedBroker,
) -> None:
    said = Properties(assigned_client_identifier="auto-1", server_keep_alive=0)
    broker.connack = Connack(properties=said)
    async with broker.dial() as client:
        assert client.client_id == "auto-1"
        assert "auto-1" in repr(client)


async def test_loss_does_not_cancel_the_block(broker: ScriptedBroker) -> None:
    async def hang_up(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Connect):
            await peer.send(Connack())
            await peer.stream.aclose()
        return True

    broker.script = hang_up
    async with broker.dial() as client:
        with trio.fail_after(5), pytest.raises(ConnectionLost, match="closed the connection"):
            await client.messages.receive()
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await client.publish("a", b"")
