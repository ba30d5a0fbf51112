"""Messages between one connection and its session: taken over and acknowledged, delivered and acknowledged.

*Rules of this file*: a client's messages are handled in order, and so are their acknowledgements, also where some wait
for the store (4.6.0-2, -3). A client that does not take its answers is not read from. Denied messages are answered 0x87
with the decision id; MQTT 3.1.1 has no such answer, so there they are acknowledged and dropped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from broker.answers import answer
from broker.kernels import Caller
from broker.publishing import Outcome
from broker.session import Serving
from mqtt.errors import ReasonCode
from mqtt.packets import PacketType, Puback, Pubcomp, Pubrec, Pubrel, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.outlet import Outlet
    from broker.services import Services
    from broker.session import Session
    from mqtt.runs import Run

MAX_OPEN = 65_535  # messages a 3.1.1 client has open: it has no Receive Maximum, but only so many identifiers
FULL = Outcome(reason=ReasonCode.QUOTA_EXCEEDED, text="the broker cannot store messages now")
TAKEN = Outcome(reason=ReasonCode.SUCCESS, patient=True)
QOS_2 = 2
FEW = 8  # clients written to without a thought for the others


class Client(Serving, Caller, Protocol):
    """The connection, as far as messages are concerned."""

    quiet_until: float


class Exchange:
    """Both directions of messages on one connection.

    Attributes:
        touched: outlets that owe a flush; the connection's loop pays it.
        owed: messages whose answer waits for the store.
    """

    def __init__(
        self, client: Client, session: Session, services: Services, *, explain: bool
    ) -> None:
        """Begin when CONNACK is on its way.

        Args:
            client: the connection.
            session: what it serves.
            services: what all connections share.
            explain: the client wants reason strings.
        """
        self._client = client
        self._session = session
        self._publishing = services.publishing
        self._store = services.store
        self._turns = services.turns
        self._explain = explain
        self._outlet = client.outlet
        self._version = client.outlet.version
        self._receive_maximum = services.limits.receive_maximum
        self._settled = trio.Event()
        self.touched: list[Outlet] = []
        self.owed = 0

    @property
    def overdue(self) -> bool:
        """Whether the client must wait for the store before it may send more."""
        return self.owed > self._receive_maximum

    def flush_few(self) -> bool:
        """Do what `flush` does where that needs no wait, which is the common case.

        Returns:
            False when `flush` must follow.
        """
        touched = self.touched
        if len(touched) > FEW:
            return False
        ready = True
        for outlet in touched:
            outlet.flush_now()
            # `over_full` needs one of these; they are asked first because they are no calls.
            if (outlet.queued_bytes or outlet.backlogged) and outlet.over_full:
                ready = False
        if ready:
            touched.clear()
        return ready

    async def flush(self) -> None:
        """Write to everyone this read concerned, then wait for those that are over-full."""
        turns = self._turns
        for outlet in self.touched:
            outlet.flush_now()
            if turns.over:  # a read of a flood may be for a thousand, at 60 us each
                await turns.wait()
        since = None
        for outlet in self.touched:
            if outlet.over_full and outlet is not self._outlet:
                since = trio.current_time() if since is None else since
                self._client.quiet_until = inf  # who is not read from is not silent
                await outlet.wait_for_room(since)
        own = self._outlet in self.touched
        self.touched.clear()
        if own and self._outlet.congested:
            self._client.quiet_until = inf
            await self._outlet.wait_for_room(trio.current_time())

    async def wait_until_settled(self) -> None:
        """A client without a Receive Maximum of its own waits here for the store."""
        self._client.quiet_until = inf
        while self.owed > self._receive_maximum:
            self._settled = trio.Event()
            await self._settled.wait()

    async def wait_until_taken(self) -> None:
        """Answers are not dropped: who does not take them is not read from."""
        self._client.quiet_until = inf
        await self.flush()
        await self._outlet.wait_until_taken()

    # ---- messages ------------------------------------------------------------------------------

    async def publish_slowly(self, run: Run) -> None:
        """A run whose decision or route is not at hand, that is denied, or that calls a kernel."""
        await self.flush()
        self._client.quiet_until = inf  # the answer may take its time, and meanwhile nobody listens
        await self.accept(run, slowly=True)

    async def accept(self, run: Run, *, slowly: bool = False) -> None:
        """Take a run over, at any QoS, and acknowledge it."""
        if not run.qos:
            await self._take(run, slowly=slowly)
            return
        if self._outlet.congested:
            await self.wait_until_taken()
        ids = run.packet_ids()
        if run.qos == QOS_2:
            await self._accept_qos_2(run, ids, slowly=slowly)
            return
        self._session.incoming.admit(run.count, self._most_open)
        outcome = await self._take(run, slowly=slowly)
        self._answer(PacketType.PUBACK, ids, outcome)

    async def _accept_qos_2(
        self,
        run: Run,
        ids: list[int],
        *,
        slowly: bool,
    ) -> None:
        incoming = self._session.incoming
        if not incoming.all_new(ids):
            if run.count > 1:
                for index in range(run.count):
                    one = run.repeated(run.raw(index), 1)
                    await self._accept_qos_2(one, [ids[index]], slowly=slowly)
                return
            if not incoming.is_new(ids[0]):  # the same message again (4.3.3-10)
                again = replace(
                    TAKEN, stored=self._session.kept
                )  # the first copy may not be on disk yet
                self._answer(PacketType.PUBREC, ids, again)
                return
        incoming.admit(run.count, self._most_open)
        outcome = await self._take(run, slowly=slowly)
        if outcome.reason.failed:
            incoming.answered(run.count)
        else:
            incoming.take(ids)
            if self._session.kept:
                self._store.put_received(self._session.session_id, ids)
                outcome = replace(outcome, stored=True)
        self._answer(PacketType.PUBREC, ids, outcome)

    async def _take(self, run: Run, *, slowly: bool) -> Outcome:
        publishing = self._publishing
        if not slowly:
            route = publishing.router.routes.get(run.topic)
            decision = self._client.cache.writes.get(run.topic)
            if route is not None and decision is not None and decision.allowed:
                self._client.cache.count_hits(run.count)
                return publishing.hand_on(route, run, self._client, self._outlet, self.touched)
        return await publishing.publish(self._client, run, self._outlet, self.touched)

    @property
    def _most_open(self) -> int:
        return self._receive_maximum if self._version is Version.V5 else MAX_OPEN

    def _answer(
        self,
        packet_type: PacketType,
        ids: list[int],
        outcome: Outcome,
    ) -> None:
        """Acknowledge messages, after the store has them and after those before them (4.6.0-2)."""
        if outcome.reason is ReasonCode.QUOTA_EXCEEDED and self._version is not Version.V5:
            self._client.end(outcome.reason, outcome.text)  # it has no other way to be told
            return
        if outcome.stored or self.owed:
            self.owed += len(ids)
            self._store.when_durable(partial(self._answer_durable, packet_type, ids, outcome))
            return
        if self._session.connection is not self._client:
            return  # it was taken over: what it sent is the session's, the answer is nobody's
        if packet_type is PacketType.PUBACK:
            self._session.incoming.answered(len(ids))
        if self._outlet.put_control(self._encoded(packet_type, ids, outcome)):
            self.touched.append(self._outlet)

    def _answer_durable(
        self,
        packet_type: PacketType,
        ids: list[int],
        outcome: Outcome,
        durable: bool,  # noqa: FBT001  its one fact
    ) -> None:
        self._settle(len(ids))
        if self._session.connection is not self._client:
            return
        if not durable and outcome.stored:
            if (
                outcome.patient
            ):  # PUBCOMP has no code for this, and a message taken before stays taken
                self.owed += len(ids)
                self._store.when_durable(partial(self._answer_durable, packet_type, ids, outcome))
                return
            if packet_type is PacketType.PUBREC:
                self._give_back(ids)
            if self._version is not Version.V5:
                self._client.end(
                    ReasonCode.QUOTA_EXCEEDED, FULL.text
                )  # it has no other way to be told
                return
            outcome = FULL
        if packet_type is PacketType.PUBACK:
            self._session.incoming.answered(len(ids))
        if self._outlet.put_control(self._encoded(packet_type, ids, outcome)):
            self._outlet.flush_now()

    def _settle(self, count: int) -> None:
        """So many answers wait for the store no more."""
        self.owed -= count
        if self.owed <= self._receive_maximum:
            self._settled.set()

    def _give_back(self, ids: list[int]) -> None:
        """Forget QoS 2 messages that are refused after all: the next under such an identifier is new (4.3.3-9)."""
        self._session.incoming.give_back(ids)
        if self._session.kept:
            self._store.drop_received(self._session.session_id, ids)

    def _encoded(self, packet_type: PacketType, ids: Sequence[int], outcome: Outcome) -> bytes:
        return answer(
            packet_type,
            ids,
            outcome.reason,
            outcome.text if self._explain else "",
            self._version,
            self._outlet.max_packet_bytes,
        )

    # ---- acknowledgements ----------------------------------------------------------------------

    def acknowledged(
        self,
        packet_type: PacketType,
        ids: Sequence[int],
    ) -> None:
        """Take acknowledgements that report success."""
        delivery = self._session.delivery
        match packet_type:
            case PacketType.PUBACK:
                owed = delivery.acknowledged(ids)
            case PacketType.PUBREC:
                owed = delivery.received(ids, self._version)
                if self._session.kept:
                    self.owed += len(ids)
                    self._store.when_durable(partial(self._received_durable, len(ids)))
            case PacketType.PUBCOMP:
                owed = delivery.completed(ids)
            case _:
                owed = False
                self._release(ids)
        if owed:
            self.touched.append(self._outlet)

    def _received_durable(self, count: int, durable: bool) -> None:  # noqa: FBT001  its one fact
        """The PUBRELs that wait for the store are on their way."""
        if durable:
            self._settle(count)
        else:
            self._store.when_durable(partial(self._received_durable, count))

    def _release(self, ids: Sequence[int]) -> None:
        """Take PUBRELs; PUBCOMP follows when it is on disk that the identifiers are free again (4.3.3-11, -12)."""
        known = self._session.incoming.release(ids)
        freed = [packet_id for packet_id, was_known in zip(ids, known, strict=True) if was_known]
        if freed and self._session.kept:
            self._store.drop_received(self._session.session_id, freed)
        if freed:
            outcome = replace(TAKEN, stored=self._session.kept)
            self._answer(PacketType.PUBCOMP, freed, outcome)
        if len(freed) < len(ids):
            strange = [packet_id for packet_id, ok in zip(ids, known, strict=True) if not ok]
            # That it is free may not be on disk yet: it may have been released on an earlier connection.
            outcome = Outcome(
                reason=ReasonCode.PACKET_IDENTIFIER_NOT_FOUND,
                stored=self._session.kept,
                patient=True,
            )
            self._answer(PacketType.PUBCOMP, strange, outcome)

    def take_answer(self, packet: Puback | Pubrec | Pubrel | Pubcomp) -> None:
        """Take an acknowledgement that may report a failure."""
        if isinstance(packet, (Puback, Pubrec)) and packet.reason.failed:
            if self._session.delivery.refused(packet.packet_id):
                self.touched.append(self._outlet)
            return
        self.acknowledged(PacketType[type(packet).__name__.upper()], (packet.packet_id,))
