from __future__ import annotations

import pytest

from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.order import InboundOrder
from mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    PacketType,
    Pingreq,
    Properties,
    Publish,
    Role,
    Version,
)

CONNECT, CONNACK, PINGREQ, PINGRESP, AUTH = 0x10, 0x20, 0xC0, 0xD0, 0xF0


def order(role: Role = Role.SERVER, *, aliases: int = 0) -> InboundOrder:
    return InboundOrder(role=role, topic_alias_maximum=aliases)


def aliased(alias: int, topic: str = "") -> Publish:
    properties = Properties(topic_alias=alias, content_type="x")
    return Publish(topic=topic, properties=properties)


def test_first_packet_must_be_connect() -> None:
    with pytest.raises(RemoteProtocolError, match="PINGREQ before CONNECT") as caught:
        order().verify_first_byte(PINGREQ)
    assert caught.value.reason is ReasonCode.PROTOCOL_ERROR


def test_connect_comes_once_and_sets_the_version() -> None:
    state = order()
    assert state.verify_first_byte(CONNECT) is PacketType.CONNECT
    state.accept(Connect(version=Version.V311))
    assert state.greeted
    assert state.version is Version.V311
    with pytest.raises(RemoteProtocolError, match="second CONNECT"):
        state.verify_first_byte(CONNECT)
    assert state.verify_first_byte(PINGREQ) is PacketType.PINGREQ


def test_server_may_ask_for_more_before_connack_and_greets_once() -> None:
    state = order(Role.CLIENT)
    with pytest.raises(RemoteProtocolError, match="PINGRESP before CONNACK"):
        state.verify_first_byte(PINGRESP)
    assert state.verify_first_byte(AUTH) is PacketType.AUTH
    state.accept(Auth(reason=ReasonCode.CONTINUE_AUTHENTICATION))
    assert not state.greeted
    assert state.verify_first_byte(CONNACK) is PacketType.CONNACK
    state.accept(Connack())
    with pytest.raises(RemoteProtocolError, match="second CONNACK"):
        state.verify_first_byte(CONNACK)


def test_disconnect_closes() -> None:
    state = order()
    state.accept(Pingreq())
    assert not state.closed
    state.accept(Disconnect())
    assert state.closed


def test_alias_stands_for_the_topic_it_was_given() -> None:
    state = order(aliases=2)
    resolved = Publish(topic="a", properties=Properties(content_type="x"))
    assert state.accept(aliased(2, "a")) == resolved
    assert state.accept(aliased(2)) == resolved
    assert state.accept(aliased(2, "b")) == Publish(topic="b", properties=resolved.properties)
    assert state.accept(aliased(2)) == Publish(topic="b", properties=resolved.properties)


@pytest.mark.parametrize("topic", ["", "a"])
def test_alias_above_what_we_announced_is_refused(topic: str) -> None:
    for allowed, alias in ((0, 1), (2, 3)):
        with pytest.raises(RemoteProtocolError) as caught:
            order(aliases=allowed).accept(aliased(alias, topic))
        assert caught.value.reason is ReasonCode.TOPIC_ALIAS_INVALID


def test_unknown_alias_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        order(aliases=2).accept(aliased(1))
    assert caught.value.reason is ReasonCode.PROTOCOL_ERROR
