from __future__ import annotations

import pytest
import trio
import trio.testing

import broker.connection
import broker.enhanced_auth
from broker.config import BrokerLimits
from broker.durability import Volatile
from mqtt.encode import encode
from mqtt.errors import ReasonCode
from mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Pingreq,
    Properties,
    Version,
)
from tests.brokers import deny, running_broker

OLDER_WITHOUT_ID = b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),
        (OLDER_WITHOUT_ID, b"\x20\x02\x00\x02"),
    ],
    ids=["level 3", "empty id without a clean session"],
)
async def test_refusal_is_told_in_the_version_that_was_asked_for(
    sent: bytes, answer: bytes
) -> None:
    async with running_broker() as broker:
        peer = broker.peer("sensor")
        peer.version = Version.V311
        await peer.send_raw(sent)
        told = await peer.next()
        assert isinstance(told, Connack)
        assert encode(told, Version.V311) == answer
        assert await peer.next() is None
        assert len(broker.registry) == 0


async def test_connect_that_the_policy_denies_is_counted_and_leaves_nothing() -> None:
    async with running_broker(deny("mallory", "connect", "broker.*")) as broker:
        answer = await broker.peer("mallory").greet(Connect(client_id="c"))
        assert isinstance(answer, Connack)
        assert answer.reason is ReasonCode.NOT_AUTHORIZED
        assert broker.services.count.refused_connects == 1
        assert broker.registry.sessions == 0


async def test_other_packet_than_connect_gets_no_session() -> None:
    async with running_broker() as broker:
        peer = broker.peer("sensor")
        await peer.send(Pingreq())
        answer = await peer.next()
        assert isinstance(answer, Connack)
        assert answer.reason is ReasonCode.PROTOCOL_ERROR
        assert len(broker.registry) == 0


async def test_connect_that_does_not_come_ends_the_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_broker(limits=BrokerLimits(connect_deadline_s=5)) as broker:
        peer = broker.peer("sensor")
        await trio.sleep(4)
        assert not peer.link.closed.is_set()
        await trio.sleep(2)
        assert peer.link.closed.is_set()


async def test_session_beyond_the_bound_of_its_principal_is_refused() -> None:
    limits = BrokerLimits(max_sessions_per_principal=1)
    async with running_broker(limits=limits, store=Volatile()) as broker:
        await broker.client("sensor", client_id="a")
        answer = await broker.peer("sensor").greet(Connect(client_id="b"))
        assert isinstance(answer, Connack)
        assert answer.reason is ReasonCode.QUOTA_EXCEEDED
        await broker.client("viewer", client_id="b")
        await broker.client("sensor", client_id="a")


async def test_bounds_hold_for_clients_that_authenticate_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker.enhanced_auth, "verify_possession", lambda *_, **__: None)
    proof = Properties(authentication_method="STOCKADE-PROOF", authentication_data=b"s")
    limits = BrokerLimits(max_sessions_per_principal=1, max_connections=2)
    async with running_broker(store=Volatile(), limits=limits) as house:
        peers = [house.peer("viewer", certificate=b"x") for _ in range(4)]
        for number, peer in enumerate(peers):
            asked = Properties(authentication_method="STOCKADE-PROOF")
            assert isinstance(
                await peer.greet(Connect(client_id=f"{number}", properties=asked)), Auth
            )
        for peer in peers:
            await peer.send(Auth(reason=ReasonCode.CONTINUE_AUTHENTICATION, properties=proof))
        await trio.testing.wait_all_tasks_blocked()
        assert house.registry.sessions == 1
        assert len(house.registry) <= 2
