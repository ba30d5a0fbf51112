"""Calling a kernel as if it were a function: numpy array in, numpy array out.

A request is the record's bytes in C order, published to `kernel/NAME`; the answer is the result's bytes, or
a message with the user property `status` = `error`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import trio
from typing_extensions import override

from client.errors import ConnectionLost, KernelFailed, LocalMisuse, NoAnswer
from client.replies import Replies, Request
from mqtt.packets import Properties, Publish

if TYPE_CHECKING:
    from client.session import Client

MAX_PIPELINED = 512
"""Requests of one `many` under way: enough to fill two batches of the broker, and no more latency than that."""

CHUNK = 64
"""Requests written in one go; several chunks make up the pipeline, so that it never runs dry."""

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.generic[object]]]"
"""An array of any shape and element type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordShape:
    """What one record looks like.

    Attributes:
        dtype: element type, e.g. `"float32"`.
        shape: e.g. `(256,)`; empty for a single number.
    """

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of one record, bytes."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @override
    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class KernelCall:
    """One kernel, as seen by a client; made by `Client.kernel`."""

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        takes: RecordShape,
        gives: RecordShape,
        deadline_s: float,
    ) -> None:
        self._client = client
        self._name = name
        self._takes = takes
        self._gives = gives
        self._deadline_s = deadline_s

    @override
    def __repr__(self) -> str:
        return f"<KernelCall {self._name}: {self._takes} -> {self._gives}>"

    async def __call__(self, record: Array) -> Array:
        """Run the kernel on one record.

        Args:
            record: exactly of the dtype and shape it takes; nothing is converted silently.

        Raises:
            KernelFailed: the answer is an error, or no result.
            LocalMisuse: the array does not fit.
            PublishRefused: we may not call this kernel.
            NoAnswer: no answer in time.
            ConnectionLost: the connection is gone.
        """
        self._verify(record, self._takes.shape)
        answer = await self._client.request(
            f"kernel/{self._name}", record.tobytes(), deadline_s=self._deadline_s
        )
        return self._result(answer)

    async def many(self, records: Array) -> Array:
        """Run the kernel on many records, pipelined; the results are in the order of the records.

        The first goes ahead alone as QoS 1, so that a refusal is heard; the rest as QoS 0.

        Args:
            records: shape `(n, *takes.shape)`.

        Raises:
            KernelFailed: at least one answer is an error, or no result.
            LocalMisuse: the array does not fit.
            PublishRefused: we may not call this kernel.
            NoAnswer: an answer did not come in time.
            ConnectionLost: the connection is gone.
        """
        self._verify(records, (len(records), *self._takes.shape))
        results = np.empty((len(records), *self._gives.shape), dtype=self._gives.dtype)
        if not len(records):
            await trio.lowlevel.checkpoint()
            return results
        results[0] = await self(records[0])
        replies = await self._client.open_replies()
        under_way: deque[Request] = deque()
        try:
            await self._pump(replies, records, results, under_way)
        finally:
            for request in under_way:
                replies.close(request)
        return results

    async def _pump(
        self, replies: Replies, records: Array, results: Array, under_way: deque[Request]
    ) -> None:
        sent = collected = 1
        while collected < len(records):
            while sent < len(records) and len(under_way) + CHUNK <= MAX_PIPELINED:
                opened = replies.open_many(min(CHUNK, len(records) - sent))
                if not opened and not under_way:  # others hold every place: queue up for one
                    opened = [await replies.open()]
                if not opened:
                    break
                under_way.extend(opened)
                await self._send(replies, records[sent : sent + len(opened)], opened)
                sent += len(opened)
            await self._wait_for(under_way[0])
            while under_way and under_way[0].done.is_set():
                results[collected] = self._result(self._answer(under_way[0]))
                replies.close(under_way.popleft())
                collected += 1

    async def _send(self, replies: Replies, records: Array, requests: Sequence[Request]) -> None:
        await self._client.send_requests(
            [
                Publish(
                    topic=f"kernel/{self._name}",
                    payload=record.tobytes(),
                    properties=Properties(
                        response_topic=replies.topic, correlation_data=request.correlation
                    ),
                )
                for record, request in zip(records, requests, strict=True)
            ]
        )

    async def _wait_for(self, request: Request) -> None:
        with trio.move_on_after(self._deadline_s):
            await request.done.wait()
            return
        raise NoAnswer(f"no answer from kernel `{self._name}` within {self._deadline_s:g} s")

    def _answer(self, request: Request) -> Publish:
        if request.answer is None:
            raise self._client.lost or ConnectionLost("the connection is gone")
        return request.answer

    def _result(self, answer: Publish) -> Array:
        said = dict(answer.properties.user_properties)
        if said.get("status") == "error":
            raise KernelFailed(self._name, said.get("error", "no reason given"))
        if len(answer.payload) != self._gives.nbytes:
            raise KernelFailed(
                self._name, f"the answer has {len(answer.payload)} bytes, not {self._gives.nbytes}"
            )
        flat = np.frombuffer(answer.payload, dtype=self._gives.dtype)
        return flat.reshape(self._gives.shape).copy()

    def _verify(self, records: Array, shape: tuple[int, ...]) -> None:
        if records.dtype != np.dtype(self._takes.dtype) or records.shape != shape:
            got = f"{records.dtype}{list(records.shape)}"
            raise LocalMisuse(
                f"kernel `{self._name}` takes {self._takes.dtype}{list(shape)}, got {got}"
            )
