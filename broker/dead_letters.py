"""Messages above QoS 0 that nobody gets: counted by reason, and published under the dead-letter topic if there is one.

*Rules of this file*: a dead letter goes to `TOPIC/REASON/ORIGINAL` as the broker's own message, at QoS 1, with the user
property `dead-letter-reason`; who may read it is weighed like any delivery. What cannot be delivered there either is not
published again. They wait in a bounded queue; beyond it they are counted only.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from broker.outlet import flush_all
from mqtt.errors import LocalProtocolError
from mqtt.packets import Version
from mqtt.properties import MAX_USER_PROPERTIES
from mqtt.runs import run_of

if TYPE_CHECKING:
    from broker.faults import Faults
    from broker.messages import Message, Messages
    from broker.outlet import Outlet
    from broker.router import Router
    from mqtt.packets import Publish
    from mqtt.runs import Run

MAX_WAITING = 1_024  # dead letters not published yet
MAX_WAITING_BYTES = 16 << 20  # of their packets
A_TURN = 16  # published in a row: some 60 us each
NOT_PUBLISHED = "not published"
REASON_PROPERTY = "dead-letter-reason"


class DeadLetters:
    """Takes what is lost.

    Attributes:
        lost: messages lost, by reason.
    """

    def __init__(self, topic: str, faults: Faults) -> None:
        """Start with none.

        Args:
            topic: published below it; empty: counted only.
            faults: told of errors of ours.
        """
        self._faults = faults
        self._topic = topic
        self._waiting: deque[tuple[Message, int, int, str]] = deque()
        self._waiting_bytes = 0
        self._wake = trio.Event()
        self.lost: Counter[str] = Counter()

    def add(self, message: Message, first: int, count: int, reason: str) -> None:
        """Note messages nobody will get.

        Args:
            message: their run.
            first: index of the first of them in it.
            count: how many of it.
            reason: why, one of a few words.
        """
        self.lost[reason] += count
        topic = message.run.topic.decode()
        if not self._topic or not message.run.qos or topic.startswith(f"{self._topic}/"):
            return
        size = count * message.run.stride
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self.lost[NOT_PUBLISHED] += count
            return
        self._waiting.append((message, first, count, reason))
        self._waiting_bytes += size
        self._wake.set()

    async def run(self, router: Router, messages: Messages) -> None:
        """Publish dead letters for as long as the broker lives."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                message, first, count, reason = self._waiting.popleft()
                self._waiting_bytes -= count * message.run.stride
                with self._faults.contained("publish a dead letter"):
                    for start in range(first, first + count, A_TURN):
                        indices = range(start, min(start + A_TURN, first + count))
                        await self._publish(router, messages, message, indices, reason)
                        await trio.lowlevel.checkpoint()

    async def _publish(
        self, router: Router, messages: Messages, message: Message, indices: range, reason: str
    ) -> None:
        """Publish the letters of some packets of a run."""
        touched: list[Outlet] = []
        try:
            for index in indices:
                run = self._letter(message.run.packet(index), reason)
                if run is None:
                    self.lost[NOT_PUBLISHED] += 1
                    continue
                if run.topic not in router.routes:
                    flush_all(touched)
                route = await router.route(run.topic)
                router.deliver(route, messages.take(run, message.publisher), None, touched)
        finally:
            flush_all(touched)

    def _letter(self, publish: Publish, reason: str) -> Run | None:
        """The dead letter; None where it would be longer, or its topic deeper, than MQTT or we allow."""
        properties = publish.properties
        word = reason.replace(" ", "-")
        theirs = properties.user_properties[: MAX_USER_PROPERTIES - 1]  # nobody reads more
        letter = replace(
            publish,
            topic=f"{self._topic}/{word}/{publish.topic}",
            qos=1,
            packet_id=1,
            retain=False,
            dup=False,
            properties=replace(
                properties,
                message_expiry_interval=None,
                user_properties=(*theirs, (REASON_PROPERTY, reason)),
            ),
        )
        try:
            return run_of(letter, Version.V5)
        except LocalProtocolError:
            return None
