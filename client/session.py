"""What an application does with a connection: publish, subscribe, ask, call kernels."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

import trio
from typing_extensions import override

from client.errors import ConnectionLost, LocalMisuse, NoAnswer, PublishRefused, SubscribeRefused
from client.handshake import Opened
from client.kernel import KernelCall, RecordShape
from client.link import Link
from client.messages import Messages
from client.replies import Replies
from mqtt.errors import ReasonCode
from mqtt.packets import (
    EMPTY,
    Connack,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
)

MAX_MESSAGES_UNREAD = 1024
"""Messages buffered for the application before reading from the socket stops."""

ACK_DEADLINE_S = 30.0
"""How long an acknowledgement may take, unless the caller says otherwise."""

MAX_RUN_BYTES = 256 * 1024
"""How much of a run is put together before it is sent: what the writer sends in one go."""

MAX_QOS = 1  # QoS 2 is not spoken here


class Client:
    """One connection to a broker; made by `client.connection.connect`. Its methods may be used from several tasks."""

    def __init__(self, opened: Opened, *, client_id: str, reply_prefix: str | None) -> None:
        self._send_message, received = trio.open_memory_channel[Publish](MAX_MESSAGES_UNREAD)
        self._link = Link(
            opened.stream,
            opened.reader,
            opened.connack,
            on_message=self._deliver,
            on_lost=self._end,
        )
        self._reply_prefix = reply_prefix
        self._replies: Replies | None = None
        self._replies_lock = trio.Lock()
        self.messages = Messages(received, lambda: self.lost if not self._closing else None)
        self._closing = False
        self.client_id = opened.connack.properties.assigned_client_identifier or client_id
        self.unwanted = 0
        """Messages that came after `messages` was closed."""

    @override
    def __repr__(self) -> str:
        return f"<Client {self.client_id!r} {self._link!r}>"

    @property
    def connack(self) -> Connack:
        """What the broker answered to CONNECT."""
        return self._link.connack

    @property
    def version(self) -> Version:
        """The protocol version of this connection."""
        return self._link.version

    @property
    def lost(self) -> ConnectionLost | None:
        """Why the connection is gone; None while it is not."""
        return self._link.lost

    # -- publishing

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties = EMPTY,
        deadline_s: float = ACK_DEADLINE_S,
    ) -> Puback | None:
        """Publish one message; for QoS 1 wait until the broker has it.

        *Cancellation*: the message may or may not have been published.

        Args:
            topic: its name.
            payload: its bytes.
            qos: 0 or 1.
            retain: keep it for later subscribers.
            properties: of PUBLISH.
            deadline_s: for the acknowledgement, seconds.

        Returns:
            The PUBACK for QoS 1, None for QoS 0.

        Raises:
            PublishRefused: the broker did not take it (QoS 1 with MQTT 5.0; otherwise nobody is told).
            NoAnswer: no PUBACK in time; the message may have been published.
            LocalMisuse: such a message is not allowed; nothing was sent.
            ConnectionLost: the connection is gone.
        """
        self._verify_qos(qos)
        message = Publish(
            topic=topic, payload=payload, qos=qos, retain=retain, properties=properties
        )
        if qos == 0:
            await self._link.send(self._link.encoded(message))
            return None
        answer = await self._link.ask(
            Puback, lambda number: replace(message, packet_id=number), deadline_s=deadline_s
        )
        if not isinstance(answer, Puback):
            raise NoAnswer(f"no PUBACK for `{topic}` within {deadline_s:g} s")
        if answer.reason.failed:
            raise PublishRefused(topic, answer.reason, answer.properties.reason_string or "")
        return answer

    async def publish_many(
        self, topic: str, payloads: Sequence[bytes], *, properties: Properties = EMPTY
    ) -> None:
        """Publish many QoS 0 messages to one topic; those of equal length leave as one run.

        *Cancellation*: the first of them may have been published.

        Args:
            topic: of all of them.
            payloads: one a message.
            properties: of each PUBLISH.

        Raises:
            LocalMisuse: such messages are not allowed.
            ConnectionLost: the connection is gone; an unknown number was published.
        """
        heads: dict[int, bytes] = {}  # by payload length: all that goes before a payload
        parts: list[bytes] = []
        size = 0
        for payload in payloads:
            head = heads.get(len(payload))
            if head is None:
                message = Publish(topic=topic, payload=payload, properties=properties)
                packet = self._link.encoded(message)
                head = heads[len(payload)] = packet[: len(packet) - len(payload)]
            parts += (head, payload)
            size += len(head) + len(payload)
            if size >= MAX_RUN_BYTES:
                await self._link.send(b"".join(parts))
                parts, size = [], 0
        await self._link.send(b"".join(parts))

    # -- subscribing

    async def subscribe(
        self, *filters: str | Subscription, qos: int = 0, deadline_s: float = ACK_DEADLINE_S
    ) -> tuple[ReasonCode, ...]:
        """Subscribe; the messages come through `messages`.

        Args:
            filters: topic filters, or subscriptions with their own options.
            qos: 0 or 1, for filters given as text.
            deadline_s: for the acknowledgement, seconds.

        Returns:
            What the broker granted, one code a filter: look at `.failed`.

        Raises:
            NoAnswer: no SUBACK in time.
            LocalMisuse: MQTT does not allow it; nothing was sent.
            ConnectionLost: the connection is gone.
        """
        return (await self._subscribe(filters, qos, deadline_s)).reasons

    async def unsubscribe(
        self, *filters: str, deadline_s: float = ACK_DEADLINE_S
    ) -> tuple[ReasonCode, ...]:
        """Unsubscribe; messages under way may still come.

        Returns:
            One code a filter; empty with 3.1.1.

        Raises:
            NoAnswer: no UNSUBACK in time.
            LocalMisuse: MQTT does not allow it; nothing was sent.
            ConnectionLost: the connection is gone.
        """
        answer = await self._link.ask(
            Unsuback,
            lambda number: Unsubscribe(packet_id=number, filters=filters),
            deadline_s=deadline_s,
        )
        if not isinstance(answer, Unsuback):
            raise NoAnswer(f"no UNSUBACK within {deadline_s:g} s")
        return answer.reasons

    async def _subscribe(
        self, filters: Sequence[str | Subscription], qos: int, deadline_s: float
    ) -> Suback:
        self._verify_qos(qos)
        wanted = tuple(
            Subscription(filter=each, qos=qos) if isinstance(each, str) else each
            for each in filters
        )
        for each in wanted:
            self._verify_qos(each.qos)
        answer = await self._link.ask(
            Suback,
            lambda number: Subscribe(packet_id=number, filters=wanted),
            deadline_s=deadline_s,
        )
        if not isinstance(answer, Suback):
            raise NoAnswer(f"no SUBACK within {deadline_s:g} s")
        return answer

    # -- asking

    async def request(
        self,
        topic: str,
        payload: bytes,
        *,
        properties: Properties = EMPTY,
        deadline_s: float = ACK_DEADLINE_S,
    ) -> Publish:
        """Publish a request (QoS 1) and return its answer, whatever the answer says.

        Args:
            topic: where requests go.
            payload: the request.
            properties: of PUBLISH; Response Topic and Correlation Data are filled in.
            deadline_s: for the answer, seconds.

        Raises:
            PublishRefused: the broker did not take the request.
            SubscribeRefused: we may not read below the reply prefix.
            NoAnswer: no answer in time.
            LocalMisuse: no `reply_prefix` was given to `connect`, or MQTT does not allow it.
            ConnectionLost: the connection is gone.
        """
        with trio.move_on_after(deadline_s):
            replies = await self.open_replies()
            request = await replies.open()
            try:
                await self.publish(
                    topic,
                    payload,
                    qos=1,
                    properties=replace(
                        properties,
                        response_topic=replies.topic,
                        correlation_data=request.correlation,
                    ),
                    deadline_s=deadline_s,
                )
                await request.done.wait()
            finally:
                replies.close(request)
            if request.answer is None:
                raise self.lost or ConnectionLost("the connection is gone")
            return request.answer
        raise NoAnswer(f"no answer to the request to `{topic}` within {deadline_s:g} s")

    def kernel(
        self, name: str, *, takes: RecordShape, gives: RecordShape, deadline_s: float = 10.0
    ) -> KernelCall:
        """Return a callable for a kernel: array in, array out.

        Args:
            name: of the kernel; requests go to `kernel/NAME`.
            takes: one input record.
            gives: one output record.
            deadline_s: for each answer, seconds.
        """
        return KernelCall(self, name, takes=takes, gives=gives, deadline_s=deadline_s)

    async def open_replies(self) -> Replies:
        """Subscribe, once, to the topic for answers; return the pairing of answers with requests.

        Raises:
            SubscribeRefused: we may not read below the reply prefix.
            LocalMisuse: no `reply_prefix` was given to `connect`, or the version is 3.1.1.
            NoAnswer: no SUBACK in time.
            ConnectionLost: the connection is gone.
        """
        if self._replies is not None:
            return self._replies
        if self._reply_prefix is None or self.version is not Version.V5:
            raise LocalMisuse("requests need MQTT 5.0 and a `reply_prefix` given to connect()")
        async with self._replies_lock:
            if self._replies is None:
                # A part of our own: two connections with one prefix must not get each other's answers.
                replies = Replies(f"{self._reply_prefix}/{secrets.token_hex(8)}")
                answer = await self._subscribe((replies.topic,), 0, ACK_DEADLINE_S)
                if answer.reasons[0].failed:
                    why = answer.properties.reason_string or ""
                    raise SubscribeRefused(replies.topic, answer.reasons[0], why)
                self._replies = replies
        return self._replies

    async def send_requests(self, packets: Sequence[Publish]) -> None:
        """Send many QoS 0 requests in one go; for callers that paired them by `open_replies`.

        Raises:
            LocalMisuse: MQTT does not allow one of them; nothing was sent.
            ConnectionLost: the connection is gone.
        """
        await self._link.send(b"".join(map(self._link.encoded, packets)))

    # -- life

    def start(self, nursery: trio.Nursery, keep_alive_s: int) -> None:
        """Start the background tasks; only for `connect`."""
        nursery.start_soon(self._link.receive)
        nursery.start_soon(self._link.write)
        if keep_alive_s:
            nursery.start_soon(self._link.keep_alive, float(keep_alive_s))

    async def aclose(self) -> None:
        """Say DISCONNECT and close; a second call does nothing. `connect` calls it on leaving."""
        self._closing = self.lost is None
        await self._link.close()

    async def _deliver(self, message: Publish) -> None:
        if self._replies is not None and message.topic == self._replies.topic:
            self._replies.settle(message)
            return
        try:
            self._send_message.send_nowait(message)
        except trio.WouldBlock:
            await self._wait_for_room(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.unwanted += 1

    async def _wait_for_room(self, message: Publish) -> None:
        try:
            await self._send_message.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.unwanted += 1

    def _end(self, lost: ConnectionLost) -> None:
        if self._replies is not None:
            self._replies.fail(lost)
        self._send_message.close()

    def _verify_qos(self, qos: int) -> None:
        granted = self.connack.properties.maximum_qos
        limit = MAX_QOS if granted is None else min(MAX_QOS, granted)
        if not 0 <= qos <= limit:
            raise LocalMisuse(f"QoS {qos} is not possible here: 0 to {limit} are")
