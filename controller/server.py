"""The RPC listener for brokers: hello, questions, policy pushes, heartbeats.

Rules of this file:
- Only certificates of the role `broker` get here, and a broker speaks only for the id in its certificate.
- Everything to one broker goes through its outbox, in the order of the state it tells of.
- Questions of one frame are decided by one snapshot of the rules.
- A broker that sends what is not in `controller.wire`, does not read, or falls silent is disconnected. That is safe:
  without contact it denies everything by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec
import structlog
import trio

from certs.verify import verify_peer, verify_spiffe
from controller.brokers import BrokerSession
from controller.errors import RemoteProtocolError
from controller.wire import (
    MAX_FRAME_BYTES,
    PROTOCOL,
    Answer,
    Applied,
    Ask,
    FromBroker,
    Goodbye,
    Heartbeat,
    Hello,
    Verdict,
    Welcome,
    policy_frames,
    verdict_of,
)
from transport.errors import TransportError
from transport.frames import FrameStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from certs.identity import PeerIdentity
    from controller.authority import PolicyAuthority
    from controller.brokers import BrokerTable
    from transport.tls import TlsStream

BROKER_ROLE = "broker"
# Seconds a new connection has to say hello.
HELLO_DEADLINE_S = 5.0
# Seconds without a frame after which a broker is taken for dead; it reports every second.
SILENCE_DEADLINE_S = 5.0
# Seconds a broker has to take one frame.
WRITE_DEADLINE_S = 5.0
# Decisions before other tasks get their turn; some 2 ms.
DECISIONS_PER_TURN = 256

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[FromBroker] = msgspec.msgpack.Decoder(FromBroker)


class BrokerServer:
    """Serves brokers; `verify` and `serve` are what a TLS listener needs."""

    def __init__(
        self,
        *,
        authority: PolicyAuthority,
        brokers: BrokerTable,
        node_id: str,
        trust_domain: str,
        clock: Callable[[], float],
        on_questions: Callable[[int, int], None] = lambda _allowed, _denied: None,
    ) -> None:
        """Put the parts together.

        Args:
            authority: decides questions.
            brokers: where connected brokers are listed.
            node_id: of this member, told in the welcome.
            trust_domain: of the brokers' certificates.
            clock: seconds since the epoch.
            on_questions: told how many questions of a frame were allowed and denied.
        """
        self._authority = authority
        self._brokers = brokers
        self._node_id = node_id
        self._trust_domain = trust_domain
        self._clock = clock
        self._on_questions = on_questions
        self._log = structlog.get_logger("stockade.controller.rpc")

    def verify(self, _stream: TlsStream, identity: PeerIdentity) -> None:
        """Refuse every certificate but a broker's.

        Raises:
            CertificateInvalid: says why.
        """
        verify_peer(
            identity,
            purpose="client",
            now=self._clock(),
            trust_domain=self._trust_domain,
            roles=(BROKER_ROLE,),
        )

    async def serve(self, stream: TlsStream) -> None:
        """Serve one verified connection until it ends."""
        if stream.identity is None:
            raise RemoteProtocolError("a connection without a verified certificate")
        broker_id = verify_spiffe(
            stream.identity, trust_domain=self._trust_domain, roles=(BROKER_ROLE,)
        ).id
        frames = FrameStream(stream, max_frame_bytes=MAX_FRAME_BYTES, decoder=_decoder)
        log = self._log.bind(broker=broker_id, peer=stream.peer_address)
        try:
            hello = await self._greet(frames, broker_id)
        except (RemoteProtocolError, TransportError, trio.TooSlowError) as error:
            reason = str(error) or f"no hello within {HELLO_DEADLINE_S:g} s"
            log.warning("broker refused", reason=reason)
            await _say_goodbye(frames, reason)
            return
        scope = trio.CancelScope()
        session = BrokerSession(
            broker_id, stream.peer_address, scope, trusts_for_s=hello.trusts_for_s
        )
        try:
            self._join(session)
        except RemoteProtocolError as error:
            log.warning("broker refused", reason=str(error))
            await _say_goodbye(frames, str(error))
            return
        log.info("broker connected")
        try:
            with scope:
                await self._converse(frames, session, stream.identity)
        finally:
            self._brokers.leave(session)
            log.info("broker disconnected", reason=session.ended or "cancelled")
        if session.ended:
            await _say_goodbye(frames, session.ended)

    async def _greet(self, frames: FrameStream[FromBroker], broker_id: str) -> Hello:
        """Read the hello.

        Raises:
            RemoteProtocolError: it is none, of another protocol, or of another broker.
        """
        with trio.fail_after(HELLO_DEADLINE_S):
            hello = await frames.receive()
        if not isinstance(hello, Hello):
            raise RemoteProtocolError("the first frame is no hello")
        if hello.protocol != PROTOCOL:
            raise RemoteProtocolError(
                f"the broker speaks protocol {hello.protocol}, this controller {PROTOCOL}"
            )
        if hello.broker_id != broker_id:
            raise RemoteProtocolError(
                f"the broker calls itself `{hello.broker_id}`, its certificate says `{broker_id}`"
            )
        return hello

    def _join(self, session: BrokerSession) -> None:
        """List the broker and queue the whole policy: one step without a pause, so no change falls in between."""
        self._brokers.join(session)
        rules = self._authority.rules
        session.post(
            _encoder.encode(Welcome(protocol=PROTOCOL, node_id=self._node_id, epoch=rules.epoch))
        )
        frames = policy_frames(rules.epoch, rules.grants, reset=True)
        session.outbox.put_stream(_encoder.encode(frame) for frame in frames)

    async def _converse(
        self, frames: FrameStream[FromBroker], session: BrokerSession, identity: PeerIdentity
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, frames, session)
            await self._receive(frames, session, identity)
            nursery.cancel_scope.cancel()

    async def _send(self, frames: FrameStream[FromBroker], session: BrokerSession) -> None:
        try:
            while True:
                frame = await session.outbox.take()
                with trio.fail_after(WRITE_DEADLINE_S):
                    await frames.send(msgspec.Raw(frame))
        except trio.TooSlowError:
            session.end(f"the broker took no frame for {WRITE_DEADLINE_S:g} s")
        except TransportError as error:
            session.end(str(error))

    async def _receive(
        self, frames: FrameStream[FromBroker], session: BrokerSession, identity: PeerIdentity
    ) -> None:
        """Read frames until the connection ends; says why in `session.ended`.

        A certificate that expires ends the connection it was shown for.
        """
        try:
            while True:
                with trio.fail_after(SILENCE_DEADLINE_S):
                    message = await frames.receive()
                if message is None:
                    session.end("the broker closed the connection")
                    return
                self._verify_validity(identity)
                await self._take(message, session)
        except trio.TooSlowError:
            session.end(f"the broker was silent for {SILENCE_DEADLINE_S:g} s")
        except (RemoteProtocolError, TransportError) as error:
            session.end(str(error))

    def _verify_validity(self, identity: PeerIdentity) -> None:
        if not self._clock() <= identity.not_after:
            raise RemoteProtocolError("the broker's certificate is expired")

    async def _take(self, message: FromBroker, session: BrokerSession) -> None:
        match message:
            case Ask():
                await self._answer(message, session)
            case Applied():
                if message.epoch > self._authority.epoch:
                    raise RemoteProtocolError(f"epoch {message.epoch} does not exist yet")
                self._brokers.note_applied(session, message.epoch)
                beat = Heartbeat(epoch=self._authority.epoch, echo=message.number)
                session.post(_encoder.encode(beat))
            case Hello():
                raise RemoteProtocolError("a second hello")
            case _:
                assert_never(message)

    async def _answer(self, ask: Ask, session: BrokerSession) -> None:
        rules = self._authority.rules
        verdicts: list[Verdict] = []
        for count, question in enumerate(ask.questions, 1):
            decision = self._authority.decide_question(rules, question)
            verdicts.append(verdict_of(decision, self._clock()))
            if count % DECISIONS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
        answer = Answer(number=ask.number, epoch=rules.epoch, verdicts=tuple(verdicts))
        session.post(_encoder.encode(answer))
        allowed = sum(verdict.allowed for verdict in verdicts)
        self._on_questions(allowed, len(verdicts) - allowed)


async def _say_goodbye(frames: FrameStream[FromBroker], reason: str) -> None:
    """Tell the peer why, if it still listens; bounded."""
    with trio.move_on_after(1.0, shield=True):
        try:
            await frames.send(Goodbye(reason=reason))
        except TransportError:
            return
