"""The broker's side of the RPC: keeps one connection to the controller, asks, and takes policy changes over.

Rules of this file:
- Fail closed: without proof that the policy here is at most `stale_after_s` old (`controller.contact`), contact is
  lost, and the broker denies.
- A reconnect within that time is not noticed by anybody: the whole policy comes again, with `reset`.
- Every wait is bounded: connecting, the first policy, answers, writes; what is asked in flight is bounded too.

Theory of operation. `run` connects, reads frames until something breaks, and starts over after a growing, jittered
pause. `ask` queues a frame and waits for the answer with its number; when the connection breaks, everybody who waits
is told at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import msgspec
import structlog
import trio

from certs.errors import CertsError
from certs.verify import verify_spiffe
from controller.asks import AskTable
from controller.contact import Contact
from controller.errors import ControllerUnavailable, OutboxFull, RemoteProtocolError
from controller.outbox import Outbox
from controller.updates import PolicyAssembler, PolicyUpdate
from controller.wire import (
    ALPN,
    HEARTBEAT_S,
    MAX_FRAME_BYTES,
    PROTOCOL,
    Answer,
    Applied,
    Ask,
    FromController,
    Goodbye,
    Heartbeat,
    Hello,
    Policy,
    Welcome,
    decision_of,
    question_of,
    split_questions,
)
from transport.connect import connect_tls
from transport.errors import TransportError
from transport.frames import FrameStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from acl.decide import Decision
    from acl.model import AccessRequest
    from controller.wire import Question
    from transport.tls import TlsStream

__all__ = ["Answers", "ControllerLink", "LinkTiming", "PolicyUpdate"]

CONTROLLER_ROLE = "controller"
# How often an ask that was split over frames is repeated when the policy changed in between.
MAX_SPLIT_ATTEMPTS = 3

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[FromController] = msgspec.msgpack.Decoder(FromController)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTiming:
    """Seconds.

    Attributes:
        stale_after_s: contact is lost when the policy here is not proved to be younger.
        connect_s: for TCP and TLS.
        sync_s: from connected to the whole policy.
        silence_s: without any frame the connection is given up.
        answer_s: for an answer.
        write_s: for the controller to take one frame.
        backoff_min_s: first pause before a reconnect.
        backoff_max_s: longest.
    """

    stale_after_s: float = 3.0
    connect_s: float = 3.0
    sync_s: float = 10.0
    silence_s: float = 3.0
    answer_s: float = 2.0
    write_s: float = 3.0
    backoff_min_s: float = 0.05
    backoff_max_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Decisions of one epoch, in the order of the requests."""

    epoch: int
    decisions: tuple[Decision, ...]


class _Connection:
    """What belongs to one connection and dies with it."""

    def __init__(self, frames: FrameStream[FromController]) -> None:
        self.frames = frames
        self.outbox = Outbox()
        self.policies = PolicyAssembler()
        self.welcome = False
        self.began_at = trio.current_time()
        self.synced = False


class ControllerLink:
    """One broker's connection to the controller.

    Cancellation: `run` ends the connection; whoever asks then is told that the controller is not there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: Callable[[], ssl.SSLContext],
        server_name: str,
        broker_id: str,
        trust_domain: str,
        on_policy: Callable[[PolicyUpdate], None],
        on_contact: Callable[[bool, str], None],
        jitter: Callable[[], float],
        clock: Callable[[], float],
        timing: LinkTiming | None = None,
        trusts_for_s: float | None = None,
    ) -> None:
        """Prepare; nothing is connected before `run`.

        Args:
            host: of the controller.
            port: of its RPC listener.
            context: makes the TLS client context of the moment; ALPN `stockade-ctl/1`.
            server_name: the name the controller's certificate must carry.
            broker_id: this broker's id; the same as in its certificate.
            trust_domain: of the controller's certificate.
            on_policy: takes a policy over; must be quick and must not raise.
            on_contact: told when contact is won (True, "") and lost (False, reason); called with False at the start.
            jitter: a random number from 0 to 1, for the pauses.
            clock: seconds since the epoch, for decisions that end by themselves.
            timing: seconds.
            trusts_for_s: how long after its last proof of freshness this broker may still decide by its policy, at
                least `timing.stale_after_s` (the default); told to the controller, which counts on it.
        """
        self._host = host
        self._port = port
        self._context = context
        self._server_name = server_name
        self._broker_id = broker_id
        self._trust_domain = trust_domain
        self._on_policy = on_policy
        self._jitter = jitter
        self._clock = clock
        self._timing = timing or LinkTiming()
        self._trusts_for_s = trusts_for_s or self._timing.stale_after_s
        self._log = structlog.get_logger("stockade.controller.link")
        self._contact = Contact(stale_after_s=self._timing.stale_after_s, on_contact=on_contact)
        self._connection: _Connection | None = None
        self._epoch = -1
        self._asks = AskTable()

    @property
    def contact(self) -> bool:
        """Whether the policy here is proved to be fresh."""
        return self._contact.here

    @property
    def proved_at(self) -> float:
        """When the policy here was last proved to be true (`trio.current_time`); -inf: never."""
        return self._contact.proved_at

    @property
    def epoch(self) -> int:
        """The policy epoch taken over last, -1 before the first."""
        return self._epoch

    async def wait_contact(self) -> None:
        """Wait until there is contact."""
        await self._contact.wait()

    # --- asking ------------------------------------------------------------------------------------------------

    async def ask(self, requests: Sequence[AccessRequest]) -> Answers:
        """Let the controller decide.

        Args:
            requests: any number; they travel in frames of up to 4096.

        Returns:
            The decisions, all of one epoch.

        Raises:
            ControllerUnavailable: there is no answer now; says why.
        """
        parts = tuple(split_questions(question_of(request) for request in requests))
        for _ in range(MAX_SPLIT_ATTEMPTS):
            asked_at = self._clock()
            answers = [await self._ask_part(part) for part in parts]
            epochs = {answer.epoch for answer in answers} or {self._epoch}
            if len(epochs) == 1:
                [epoch] = epochs
                verdicts = (verdict for answer in answers for verdict in answer.verdicts)
                return Answers(
                    epoch=epoch,
                    decisions=tuple(decision_of(v, epoch, asked_at) for v in verdicts),
                )
        raise ControllerUnavailable("the policy changes faster than the questions are answered")

    async def _ask_part(self, questions: tuple[Question, ...]) -> Answer:
        connection = self._connection
        if connection is None:
            raise ControllerUnavailable(f"no connection to the controller: {self._contact.problem}")

        def send(number: int) -> None:
            connection.outbox.put(_encoder.encode(Ask(number=number, questions=questions)))

        try:
            return await self._asks.wait_answer(
                len(questions), send, deadline_s=self._timing.answer_s
            )
        except OutboxFull as error:
            raise ControllerUnavailable(f"the controller is too slow: {error}") from error

    # --- the connection ----------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connection until cancelled; started at once, without contact."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._contact.watch)
            task_status.started()
            pause = self._timing.backoff_min_s
            while True:
                synced = await self._connect_once()
                pause = self._timing.backoff_min_s if synced else pause
                await trio.sleep(pause * (0.5 + self._jitter()))
                pause = min(pause * 2, self._timing.backoff_max_s)

    async def _connect_once(self) -> bool:
        """Connect and converse until it ends; returns whether the policy was taken over."""
        connection: _Connection | None = None
        stream = None
        try:
            stream = await connect_tls(
                self._host,
                self._port,
                context=self._context(),
                alpn=[ALPN],
                server_name=self._server_name,
                deadline_s=self._timing.connect_s,
            )
            _verify_controller(stream, self._trust_domain)
            connection = _Connection(
                FrameStream(stream, max_frame_bytes=MAX_FRAME_BYTES, decoder=_decoder)
            )
            await self._converse(connection)
        except (TransportError, CertsError, RemoteProtocolError, OutboxFull) as error:
            self._contact.problem = str(error)
        except trio.TooSlowError:
            self._contact.problem = "the controller fell silent"
        finally:
            self._connection = None
            self._asks.fail_all(f"the connection to the controller broke: {self._contact.problem}")
            if stream is not None:
                stream.abort()
        self._log.info("no connection to the controller", reason=self._contact.problem)
        return connection is not None and connection.synced

    async def _converse(self, connection: _Connection) -> None:
        """Send and receive until one of them fails; raises what failed first."""
        self._contact.forget_numbers()
        hello = Hello(protocol=PROTOCOL, broker_id=self._broker_id, trusts_for_s=self._trusts_for_s)
        connection.outbox.put(_encoder.encode(hello))
        failures: list[Exception] = []

        async def keep(
            task: Callable[[_Connection], Awaitable[None]], scope: trio.CancelScope
        ) -> None:
            try:
                await task(connection)
            except (TransportError, RemoteProtocolError, OutboxFull, trio.TooSlowError) as error:
                failures.append(error)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, self._send, nursery.cancel_scope)
            nursery.start_soon(keep, self._receive, nursery.cancel_scope)
            nursery.start_soon(keep, self._report, nursery.cancel_scope)
        if failures:
            raise failures[0]

    async def _send(self, connection: _Connection) -> None:
        while True:
            frame = await connection.outbox.take()
            with trio.fail_after(self._timing.write_s):
                await connection.frames.send(msgspec.Raw(frame))

    async def _report(self, connection: _Connection) -> None:
        """Every second: say what this broker decides by, and get a proof that it is still true."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            if connection.synced:
                self._confirm(connection)

    async def _receive(self, connection: _Connection) -> None:
        with trio.fail_after(self._timing.sync_s):
            while not connection.synced:
                self._take(connection, await connection.frames.receive())
        while True:
            with trio.fail_after(self._timing.silence_s):
                message = await connection.frames.receive()
            self._take(connection, message)

    def _take(self, connection: _Connection, message: FromController | None) -> None:
        """Act on one frame. The order is: welcome, the whole policy, then anything."""
        match message:
            case None:
                raise RemoteProtocolError("the controller closed the connection")
            case Goodbye():
                raise RemoteProtocolError(f"the controller said goodbye: {message.reason}")
            case Welcome():
                if connection.welcome or message.protocol != PROTOCOL:
                    raise RemoteProtocolError(
                        f"an unexpected welcome (protocol {message.protocol})"
                    )
                connection.welcome = True
            case Policy() if connection.welcome:
                self._take_policy(connection, message)
            case Heartbeat() if connection.synced:
                self._take_heartbeat(message)
            case Answer() if connection.synced:
                self._asks.resolve(message)
            case Policy() | Heartbeat() | Answer():
                raise RemoteProtocolError(
                    f"`{type(message).__name__}` before the policy was complete"
                )
            case _:
                assert_never(message)

    def _take_policy(self, connection: _Connection, part: Policy) -> None:
        update = connection.policies.add(part)
        if update is None:
            return
        if update.epoch < self._epoch:
            # Decisions of the later epochs may still be cached here: without contact they are not used.
            raise RemoteProtocolError(
                f"the controller's policy (epoch {update.epoch}) is older than this broker's ({self._epoch}): "
                "if it was restored from a backup, restart the broker"
            )
        self._on_policy(update)
        self._epoch = update.epoch
        self._confirm(connection)
        if update.reset:
            connection.synced = True
            self._connection = connection
            self._contact.prove(connection.began_at)

    def _take_heartbeat(self, heartbeat: Heartbeat) -> None:
        if heartbeat.epoch != self._epoch:
            raise RemoteProtocolError(
                f"the controller is at epoch {heartbeat.epoch} and has sent {self._epoch}"
            )
        self._contact.take_echo(heartbeat.echo)

    def _confirm(self, connection: _Connection) -> None:
        """Tell the controller what this broker decides by, with a number it will echo."""
        number = self._contact.next_number()
        connection.outbox.put(_encoder.encode(Applied(epoch=self._epoch, number=number)))


def _verify_controller(stream: TlsStream, trust_domain: str) -> None:
    """Refuse a server that is trusted, but no controller: a broker's certificate must not stand in for it."""
    if stream.identity is None:
        raise RemoteProtocolError("the controller showed no certificate")
    verify_spiffe(stream.identity, trust_domain=trust_domain, roles=(CONTROLLER_ROLE,))
