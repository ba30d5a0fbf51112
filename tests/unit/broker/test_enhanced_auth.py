from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.enhanced_auth import METHOD, ProofExchange
from certs.keys import generate_key
from certs.proof import sign_possession
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Auth, Connack, Connect, Disconnect, Properties
from tests.brokers import Peer, TestBroker, running_broker

KEY = generate_key()


def _certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sensor")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(KEY.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


CERTIFICATE = _certificate()


def proof(
    challenge: object, *, method: str = METHOD, verifier: str = "b1", reason: int = 0x18
) -> Auth:
    assert isinstance(challenge, Auth)
    assert challenge.reason is ReasonCode.CONTINUE_AUTHENTICATION
    nonce = challenge.properties.authentication_data or b""
    signature = sign_possession(KEY, verifier=verifier, nonce=nonce)
    properties = Properties(authentication_method=method, authentication_data=signature)
    return Auth(reason=ReasonCode(reason), properties=properties)


async def begin(broker: TestBroker, method: str = METHOD) -> tuple[Peer, object]:
    peer = broker.peer("sensor", certificate=CERTIFICATE)
    connect = Connect(client_id="c", properties=Properties(authentication_method=method))
    return peer, await peer.greet(connect)


async def test_client_that_proves_its_key_is_let_in_and_told_the_method() -> None:
    async with running_broker() as broker:
        peer, challenge = await begin(broker)
        await peer.send(proof(challenge))
        answer = await peer.next()
        assert isinstance(answer, Connack)
        assert not answer.reason.failed
        assert answer.properties.authentication_method == METHOD


@pytest.mark.parametrize("wrong", ["nobody", "data"])
async def test_client_that_proves_nothing_is_refused(wrong: str) -> None:
    async with running_broker() as broker:
        peer, challenge = await begin(broker)
        answer = proof(challenge, verifier="another broker")
        if wrong == "data":
            answer = Auth(
                reason=ReasonCode.CONTINUE_AUTHENTICATION,
                properties=Properties(authentication_method=METHOD, authentication_data=b"x"),
            )
        await peer.send(answer)
        refusal = await peer.next()
        assert isinstance(refusal, Connack)
        assert refusal.reason is ReasonCode.NOT_AUTHORIZED
        assert await peer.next() is None
        assert len(broker.registry) == 0


async def test_unknown_method_is_refused() -> None:
    async with running_broker() as broker:
        _, answer = await begin(broker, "SCRAM-SHA-1")
        assert isinstance(answer, Connack)
        assert answer.reason is ReasonCode.BAD_AUTHENTICATION_METHOD


async def test_connected_client_proves_itself_again() -> None:
    async with running_broker() as broker:
        peer, challenge = await begin(broker)
        await peer.send(proof(challenge))
        await peer.next()
        again = Auth(
            reason=ReasonCode.RE_AUTHENTICATE, properties=Properties(authentication_method=METHOD)
        )
        await peer.send(again)
        await peer.send(proof(await peer.next()))
        done = await peer.next()
        assert isinstance(done, Auth)
        assert done.reason is ReasonCode.SUCCESS


@pytest.mark.parametrize(
    ("method", "verifier", "reason"),
    [
        ("OTHER", "b1", ReasonCode.PROTOCOL_ERROR),
        (METHOD, "another", ReasonCode.NOT_AUTHORIZED),
    ],
)
async def test_failed_re_authentication_ends_the_client(
    method: str, verifier: str, reason: ReasonCode
) -> None:
    async with running_broker() as broker:
        peer, challenge = await begin(broker)
        await peer.send(proof(challenge))
        await peer.next()
        again = Auth(
            reason=ReasonCode.RE_AUTHENTICATE, properties=Properties(authentication_method=METHOD)
        )
        await peer.send(again)
        await peer.send(proof(await peer.next(), method=method, verifier=verifier))
        goodbye = await peer.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason is reason


async def test_auth_of_a_client_without_a_method_ends_it() -> None:
    async with running_broker() as broker:
        peer = await broker.client("sensor")
        again = Auth(
            reason=ReasonCode.RE_AUTHENTICATE, properties=Properties(authentication_method=METHOD)
        )
        await peer.send(again)
        goodbye = await peer.next()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason is ReasonCode.PROTOCOL_ERROR


def test_nonce_is_used_once() -> None:
    exchange = ProofExchange(CERTIFICATE, verifier="b1", random_bytes=lambda count: b"n" * count)
    answer = proof(exchange.challenge())
    exchange.verify(answer)
    with pytest.raises(RemoteProtocolError) as caught:
        exchange.verify(answer)
    assert caught.value.reason is ReasonCode.PROTOCOL_ERROR
