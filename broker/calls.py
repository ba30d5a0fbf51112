"""Kernel calls as matrices: which columns of a run are payload and correlation, and answers built alike.

Pure: bytes in, bytes out. The packets of a run have one size and one topic and, in the common case,
equal properties but for the correlation data; then a run is a byte matrix with a row a packet, and
a run of answers is built as a matrix too. Where rows do not agree, `split` gives calls of one packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mqtt.encode import encode
from mqtt.errors import RemoteProtocolError
from mqtt.packets import Properties, Publish, Version
from mqtt.runs import Run
from mqtt.spans import correlation_span
from mqtt.topics import verify_topic_name

if TYPE_CHECKING:
    from collections.abc import Iterator

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
STATUS = "status"  # user property of every answer: what became of the call
SUCCEEDED = ((STATUS, "ok"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One or more calls of one kernel that share a response topic.

    Attributes:
        response_topic: where the answers go; None: the caller named none.
        correlations: uint8, shape (count, size): Correlation Data of each call; a copy.
        payloads: uint8, shape (count, payload bytes); a view of the packets.
        count: how many calls.
    """

    response_topic: str | None
    correlations: Bytes
    payloads: Bytes
    count: int


def calls_of_run(run: Run) -> Iterator[Call]:
    """The calls in a run: one `Call` for all packets where they agree, else one each.

    Args:
        run: PUBLISH packets whose properties were checked.
    """
    rows = np.frombuffer(run.data, np.uint8).reshape(run.count, run.stride)
    call = _matrix_call(run, rows)
    if call is not None:
        yield call
        return
    for index in range(run.count):
        yield call_of(run.packet(index))


def _matrix_call(run: Run, rows: Bytes) -> Call | None:
    """The whole run as one call; None where its packets do not agree."""
    start = end = run.properties
    if run.version == Version.V5:
        start, end = correlation_span(run.raw(0), run.properties)
    # Between `body` and `properties` stand packet identifiers, which may differ.
    spans = (slice(run.body), slice(run.properties, start), slice(end, run.payload))
    if not all((rows[:, span] == rows[0, span]).all() for span in spans):
        return None
    return Call(
        response_topic=run.packet(0).properties.response_topic,
        correlations=rows[:, start:end].copy(),
        payloads=rows[:, run.payload :],
        count=run.count,
    )


def call_of(publish: Publish) -> Call:
    """One packet as a call."""
    correlation = publish.properties.correlation_data or b""
    return Call(
        response_topic=publish.properties.response_topic,
        correlations=np.frombuffer(correlation, np.uint8).reshape(1, len(correlation)).copy(),
        payloads=np.frombuffer(publish.payload, np.uint8).reshape(1, len(publish.payload)),
        count=1,
    )


def verify_response_topic(topic: str | None) -> str:
    """The response topic, when answers may be sent there.

    Raises:
        RemoteProtocolError: none was given, it has wildcards, calls a kernel again, or is the broker's own.
    """
    if topic is None:
        raise RemoteProtocolError("a kernel call needs a response topic")
    verify_topic_name(topic.encode())
    if topic.startswith("kernel/"):
        raise RemoteProtocolError("the response topic may not be a kernel")
    if topic.startswith(
        ("$SYS/", "$delayed/")
    ):  # no client publishes there, nor does a kernel for one
        raise RemoteProtocolError("the response topic may not be one of the broker's own")
    return topic


def answers(response_topic: str, correlations: Bytes, results: Bytes) -> Run:
    """A run of answers that say `status=ok`, one a call.

    Args:
        response_topic: a valid topic name.
        correlations: uint8, shape (count, size).
        results: uint8, shape (count, result bytes); copied.
    """
    return _block(response_topic, correlations, results, Properties(user_properties=SUCCEEDED))


def failures(response_topic: str, correlations: Bytes, text: str) -> Run:
    """A run of answers without payload that say `text` in their user properties."""
    properties = Properties(user_properties=((STATUS, "error"), ("error", text)))
    nothing = np.empty((len(correlations), 0), np.uint8)
    return _block(response_topic, correlations, nothing, properties)


def _block(topic: str, correlations: Bytes, payloads: Bytes, properties: Properties) -> Run:
    """Encode one packet as the template of all, then fill in the columns that differ."""
    count, correlation_bytes = correlations.shape
    filler = bytes(correlation_bytes)
    template = Publish(
        topic=topic,
        payload=bytes(payloads.shape[1]),
        properties=Properties(
            correlation_data=filler if correlation_bytes else None,
            user_properties=properties.user_properties,
        ),
    )
    packet = encode(template, Version.V5)
    run = Run.parse(packet, Version.V5)
    rows = np.tile(np.frombuffer(packet, np.uint8), (count, 1))
    start, end = correlation_span(packet, run.properties)
    rows[:, start:end] = correlations
    rows[:, run.payload :] = payloads
    return run.repeated(rows.tobytes(), count)
