"""MQTT 5.0 on the wire: enhanced authentication (4.12, section J of docs/conformance.md).

The one method of this broker asks for a proof that the client holds the key of its certificate (`broker.enhanced_auth`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from certs.keys import generate_key, read_key
from certs.proof import sign_possession
from mqtt.errors import ReasonCode
from mqtt.packets import Auth, Connack, Connect, Pingreq, Properties
from tests.e2e.clients import unique
from tests.e2e.scripted_client import ScriptedClient, scripted

if TYPE_CHECKING:
    from certs.keys import SigningKey
    from tests.e2e.scripted_client import Broker

pytest_plugins = ["tests.e2e.conformance"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

METHOD: Final = "STOCKADE-PROOF"

PROTO, DENIED = ReasonCode.PROTOCOL_ERROR, ReasonCode.NOT_AUTHORIZED
UNHEARD_OF = ReasonCode.BAD_AUTHENTICATION_METHOD
CONTINUE, AGAIN = ReasonCode.CONTINUE_AUTHENTICATION, ReasonCode.RE_AUTHENTICATE


def proving(client_id: str = "") -> Connect:
    """A client that asks to prove who it is."""
    return Connect(
        client_id=client_id or unique("proving"),
        properties=Properties(authentication_method=METHOD, session_expiry_interval=60),
    )


async def challenge(client: ScriptedClient) -> Auth:
    """The broker's question."""
    asked = await client.receive()
    assert isinstance(asked, Auth), asked
    assert asked.reason is CONTINUE
    assert asked.properties.authentication_method == METHOD
    return asked


def answer(asked: Auth, key: SigningKey) -> Auth:
    """The proof, made with a key."""
    told = asked.properties
    verifier = dict(told.user_properties)["verifier"]
    nonce = told.authentication_data or b""
    return Auth(
        reason=CONTINUE,
        properties=Properties(
            authentication_method=METHOD,
            authentication_data=sign_possession(key, verifier=verifier, nonce=nonce),
        ),
    )


def sensor_key(broker: Broker) -> SigningKey:
    """The key of the certificate that `sensor` connects with."""
    return read_key(broker.keys["sensor"])


async def authenticate(client: ScriptedClient, broker: Broker) -> None:
    """Connect with a good proof."""
    await client.send(proving())
    await client.send(answer(await challenge(client), sensor_key(broker)))
    accepted = await client.receive()
    assert isinstance(accepted, Connack)
    assert accepted.reason is ReasonCode.SUCCESS
    assert accepted.properties.authentication_method == METHOD


# -- whether there is a method


async def test_unknown_authentication_method_is_refused(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        unknown = Properties(authentication_method="unheard-of", authentication_data=b"?")
        await client.send(Connect(client_id=unique("auth"), properties=unknown))
        assert await client.expect_refused(UNHEARD_OF) is not None


async def test_client_without_a_method_gets_none_and_no_auth(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        told = (await client.connect()).properties
        assert told.authentication_method is None
        assert told.authentication_data is None
        await client.expect_nothing()


@pytest.mark.parametrize("reason", [AGAIN, CONTINUE], ids=lambda reason: reason.name.lower())
@pytest.mark.parametrize("method", [METHOD, "unheard-of"])
async def test_auth_without_a_method_in_connect_is_a_protocol_error(
    broker: Broker, reason: ReasonCode, method: str
) -> None:
    async with scripted(broker, "sensor") as client:
        await client.connect()
        properties = Properties(authentication_method=method)
        await client.send(Auth(reason=reason, properties=properties))
        await client.expect_closed(PROTO)


# -- at the beginning


async def test_client_that_proves_who_it_is_gets_in_and_the_method_is_in_every_packet(
    broker: Broker, topic: str
) -> None:
    async with scripted(broker, "sensor") as client:
        await authenticate(client, broker)
        await client.subscribe(topic)
        await client.publish(topic, b"in")
        assert (await client.take()).payload == b"in"


async def test_client_that_proves_nothing_is_refused_and_leaves_no_session(broker: Broker) -> None:
    client_id = unique("unproved")
    async with scripted(broker, "sensor") as client:
        await client.send(proving(client_id))
        await client.send(answer(await challenge(client), generate_key()))
        assert await client.expect_refused(DENIED) is not None
    async with scripted(broker, "sensor") as client:
        told = await client.connect(Connect(client_id=client_id, clean_start=False))
        assert not told.session_present


async def test_proof_is_good_for_one_question_only(broker: Broker) -> None:
    async with scripted(broker, "sensor") as first, scripted(broker, "sensor") as second:
        await first.send(proving())
        await second.send(proving())
        stolen = answer(await challenge(first), sensor_key(broker))
        await challenge(second)
        await second.send(stolen)
        assert await second.expect_refused(DENIED) is not None


async def test_answer_of_another_method_is_refused(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await client.send(proving())
        good = answer(await challenge(client), sensor_key(broker))
        other = replace(good.properties, authentication_method="another")
        await client.send(replace(good, properties=other))
        assert await client.expect_refused(PROTO, UNHEARD_OF) is not None


async def test_other_packet_than_the_answer_is_refused(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await client.send(proving())
        await challenge(client)
        await client.send(Pingreq())
        await client.expect_refused(PROTO)


# -- again


async def test_client_may_prove_itself_again_while_it_works(broker: Broker, topic: str) -> None:
    async with scripted(broker, "sensor") as client:
        await authenticate(client, broker)
        await client.subscribe(topic)
        for _ in range(2):
            method = Properties(authentication_method=METHOD)
            await client.send(Auth(reason=AGAIN, properties=method))
            asked = await challenge(client)
            await client.publish(topic, b"meanwhile")
            assert (await client.take()).payload == b"meanwhile"
            await client.send(answer(asked, sensor_key(broker)))
            assert await client.receive() == Auth(properties=method)


async def test_method_cannot_change(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await authenticate(client, broker)
        another = Properties(authentication_method="another")
        await client.send(Auth(reason=AGAIN, properties=another))
        await client.expect_closed(PROTO)


async def test_client_that_proves_nothing_again_is_disconnected(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await authenticate(client, broker)
        method = Properties(authentication_method=METHOD)
        await client.send(Auth(reason=AGAIN, properties=method))
        await client.send(answer(await challenge(client), generate_key()))
        await client.expect_closed(DENIED)


async def test_answer_that_nobody_asked_for_is_a_protocol_error(broker: Broker) -> None:
    async with scripted(broker, "sensor") as client:
        await authenticate(client, broker)
        method = Properties(authentication_method=METHOD, authentication_data=b"unasked")
        await client.send(Auth(reason=CONTINUE, properties=method))
        await client.expect_closed(PROTO)
