"""The RPC listener: who gets in, and what a broker hears first."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
import trio.testing
from typing_extensions import override

from acl.model import AccessRequest, Operation, Principal, Resource
from certs.errors import CertificateInvalid
from certs.identity import PeerIdentity
from controller import server as server_module, wire
from controller.commands import RuleDraft
from controller.server import SILENCE_DEADLINE_S, BrokerServer
from controller.wire import (
    Answer,
    Applied,
    Ask,
    FromController,
    Goodbye,
    Heartbeat,
    Hello,
    Policy,
    Welcome,
)
from tests.pki import TestPki
from tests.unit.controller.parts import Parts, build_parts
from transport.errors import TransportBroken
from transport.frames import FrameStream
from transport.tls import TlsStream

WRITE = AccessRequest(Principal("sensor"), Operation.WRITE, Resource.topic("t/x"))
RULE = RuleDraft(id="r", principal="sensor", resource="topic.t.**", operations="write")
HELLO = Hello(protocol=1, broker_id="b1", trusts_for_s=3.0)


class Pipe(trio.abc.Stream):
    """A byte stream that carries an identity, as a verified TLS stream does."""

    peer_address = "127.0.0.1:9"

    def __init__(self, inner: trio.abc.Stream, identity: PeerIdentity) -> None:
        self._inner = inner
        self.identity = identity
        self.stuck = False

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.stuck:
            await trio.sleep_forever()
        try:
            await self._inner.send_all(data)
        except trio.BrokenResourceError as error:
            raise TransportBroken(str(error)) from error

    @override
    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()


class Dialogue:
    """A server that serves one connection in memory."""

    def __init__(self, folder: Path) -> None:
        self.pki = TestPki(folder)
        self.parts: Parts = build_parts()
        self.now = self.pki.now
        self.counted: list[tuple[int, int]] = []
        self.server = BrokerServer(
            authority=self.parts.authority,
            brokers=self.parts.brokers,
            node_id="c1",
            trust_domain=self.pki.trust_domain,
            clock=lambda: self.now,
            on_questions=lambda allowed, denied: self.counted.append((allowed, denied)),
        )
        ours, theirs = trio.testing.memory_stream_pair()
        self.theirs = Pipe(theirs, self.pki.broker("b1").identity)
        decoder: msgspec.msgpack.Decoder[FromController] = msgspec.msgpack.Decoder(FromController)
        self.frames = FrameStream(ours, max_frame_bytes=wire.MAX_FRAME_BYTES, decoder=decoder)
        self.ours = ours

    async def serve(self) -> None:
        await self.server.serve(cast("TlsStream", self.theirs))

    async def greet(self) -> None:
        await self.frames.send(HELLO)
        assert isinstance(await self.frames.receive(), Welcome)
        assert isinstance(await self.frames.receive(), Policy)


@pytest.fixture
def dialogue(tmp_path: Path) -> Dialogue:
    return Dialogue(tmp_path)


def test_only_brokers_pass(dialogue: Dialogue) -> None:
    pki, stream = dialogue.pki, cast("TlsStream", dialogue.theirs)
    dialogue.server.verify(stream, pki.broker("b1").identity)
    for issued in (pki.client("b1"), pki.admin(), pki.controller(), pki.two_uris("b1")):
        with pytest.raises(CertificateInvalid):
            dialogue.server.verify(stream, issued.identity)
    dialogue.now = pki.now + 10**9
    with pytest.raises(CertificateInvalid, match="expired"):
        dialogue.server.verify(stream, pki.broker("b1").identity)


async def test_broker_hears_welcome_then_the_whole_policy_then_changes(dialogue: Dialogue) -> None:
    await dialogue.parts.authority.bootstrap([RULE], by="boot")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        await dialogue.frames.send(HELLO)
        assert await dialogue.frames.receive() == Welcome(protocol=1, node_id="c1", epoch=1)
        assert await dialogue.frames.receive() == Policy(
            epoch=1, reset=True, more=False, grants=(("sensor", "topic.t.**"),)
        )
        await dialogue.frames.send(Applied(epoch=1, number=41))
        assert await dialogue.frames.receive() == Heartbeat(epoch=1, echo=41)
        assert dialogue.parts.brokers.laggards(1) == ()
        nursery.start_soon(lambda: dialogue.parts.authority.delete_rule("r", by="admin"))
        assert await dialogue.frames.receive() == Policy(
            epoch=2, reset=False, more=False, grants=()
        )
        nursery.cancel_scope.cancel()
    assert len(dialogue.parts.brokers) == 0


async def test_questions_are_answered_and_counted(dialogue: Dialogue) -> None:
    await dialogue.parts.authority.bootstrap([RULE], by="boot")
    other = AccessRequest(Principal("other"), Operation.WRITE, Resource.topic("t/x"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        await dialogue.greet()
        questions = tuple(wire.question_of(r) for r in (WRITE, other, WRITE))
        await dialogue.frames.send(Ask(number=7, questions=questions))
        answer = await dialogue.frames.receive()
        assert isinstance(answer, Answer)
        assert (answer.number, answer.epoch) == (7, 1)
        assert [verdict.allowed for verdict in answer.verdicts] == [True, False, True]
        nursery.cancel_scope.cancel()
    assert dialogue.counted == [(2, 1)]


async def test_silent_broker_is_dropped(
    dialogue: Dialogue, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        await dialogue.greet()
        began = trio.current_time()
        goodbye = await dialogue.frames.receive()
        assert isinstance(goodbye, Goodbye)
        assert "silent" in goodbye.reason
        assert trio.current_time() - began == pytest.approx(SILENCE_DEADLINE_S)


async def test_broker_without_a_hello_is_dropped(
    dialogue: Dialogue, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        goodbye = await dialogue.frames.receive()
        assert isinstance(goodbye, Goodbye)
        assert "no hello within 5 s" in goodbye.reason


async def test_broker_that_closes_is_forgotten(dialogue: Dialogue) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        await dialogue.greet()
        assert len(dialogue.parts.brokers) == 1
        await dialogue.ours.aclose()
    assert len(dialogue.parts.brokers) == 0


async def test_certificate_that_expires_ends_the_connection(dialogue: Dialogue) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        await dialogue.greet()
        dialogue.now += 10**9
        await dialogue.frames.send(Applied(epoch=0, number=1))
        goodbye = await dialogue.frames.receive()
        assert isinstance(goodbye, Goodbye)
        assert "expired" in goodbye.reason


async def test_broker_that_takes_nothing_is_dropped(
    dialogue: Dialogue, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SILENCE_DEADLINE_S", 100.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialogue.serve)
        await dialogue.greet()
        dialogue.theirs.stuck = True
        await dialogue.frames.send(Applied(epoch=0, number=1))
        with trio.fail_after(20):
            while len(dialogue.parts.brokers):
                await trio.sleep(0.5)
