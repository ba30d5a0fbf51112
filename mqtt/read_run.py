"""The run that a read goes on with: its first packet is looked into, the others are compared with it.

Rules of this file: a packet that is not plainly legal and ordinary is left to `mqtt.decode`, which knows
what is wrong with it; a run ends before such a packet. Nothing is looked at twice on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mqtt.identifiers import ID_BYTES, count_before_zero
from mqtt.packets import Version
from mqtt.runs import Run
from mqtt.scan import run_end, weigh_section
from mqtt.spans import EXPIRY_BYTES, correlation_span
from mqtt.wire import MAX_VARINT_BYTES, VARINT_BITS, VARINT_MORE

if TYPE_CHECKING:
    from mqtt.known_topics import KnownTopics

FIRST_BYTES: Final = frozenset({0x30, 0x32, 0x34})
"""First bytes of a PUBLISH without RETAIN and DUP (3.3.1)."""


def read_run(  # noqa: C901, PLR0911, PLR0917 - the hot path, once a run; one return a rule of 3.3.2
    data: bytes, start: int, head: int, end: int, version: Version, known: KnownTopics
) -> Run | None:
    """Return the run that begins with the whole packet `data[start:end]`.

    Args:
        data: the bytes of a read.
        start: where a packet with one of `FIRST_BYTES` begins.
        head: where its variable header begins; there are at least two bytes of it.
        end: where the packet ends.
        version: of the connection.
        known: topic names that need not be verified again.

    Returns:
        None when the packet must take the plain way: it is illegal, or has an alias or other properties
        that need more than a look.

    Raises:
        RemoteProtocolError: its topic is not legal.
    """
    body = head + 2 + (data[head] << 8 | data[head + 1])
    if body > end:
        return None
    key = data[head:body]
    topic = known.names.get(key)
    if topic is None:
        if body == head + 2:
            return None
        topic = known.learn(key)
    qos = data[start] >> 1 & 3
    properties = body
    if qos:
        properties += ID_BYTES
        if properties > end or not (data[body] or data[body + 1]):
            return None
    section = payload = properties
    expiry = 0
    if version is Version.V5:
        if properties == end:
            return None
        section = payload = properties + 1
        if data[properties]:
            section, payload = _section(data, properties, end)
            if payload > end:
                return None
            weighed = weigh_section(data, section, payload, known.learn)
            if weighed is None:
                return None
            expiry = weighed
    # Most runs of one are seen by this comparison, or by the end of the read.
    alike = data.startswith(data[start:body], end)
    run = Run(
        data[start : payload if alike else end],
        end - start,
        1,
        head - start,
        topic,
        body - start,
        properties - start,
        payload - start,
        version,
        qos,
    )
    if alike:
        _grow(run, data, start, section - start, expiry, known)
    return run


def _section(data: bytes, properties: int, end: int) -> tuple[int, int]:
    """Return where the properties begin and end; behind `end` if that is illegal."""
    length, position = 0, properties
    for index in range(MAX_VARINT_BYTES):
        if position >= end:
            break
        byte = data[position]
        position += 1
        length |= (byte & VARINT_BITS) << 7 * index
        if byte < VARINT_MORE:
            return (position, position + length) if byte or not index else (end, end + 1)
    return end, end + 1


def _grow(  # noqa: PLR0917 - once a run
    run: Run, data: bytes, start: int, section: int, expiry: int, known: KnownTopics
) -> None:
    """Let a run of the packet at `start` reach over those behind it that are like it.

    Args:
        run: the first packet; of its bytes only those before the payload.
        data: the bytes of a read.
        start: where it begins in `data`.
        section: offset in the packet of its first property.
        expiry: where its Message Expiry Interval stands, see `weigh_section`.
        known: topic names that need not be verified again.
    """
    end, stride = start + run.stride, run.stride
    first, body, properties = run.data, run.body, run.properties
    if run.payload > section:
        stop = _end_with_properties(run, data, end, section, expiry, known)
    elif properties == body:
        stop = run_end(data, end, stride, first[:section])
    else:
        stop = run_end(data, end, stride, first[:body], first[properties:section], properties)
    count = (stop - start) // stride
    if run.qos:
        count = count_before_zero(data, start + body, stride, count)
    run.data, run.count = data[start : start + count * stride], count


def _end_with_properties(  # noqa: PLR0917 - once a run
    run: Run, data: bytes, end: int, section: int, expiry: int, known: KnownTopics
) -> int:
    """Return where a run with properties ends; see `_grow`, `end` is where its first packet does."""
    stride, properties, payload = run.stride, run.properties, run.payload
    header, length = run.data[: run.body], run.data[properties:section]
    interval = run.data[section + expiry : section + expiry + EXPIRY_BYTES] if expiry else b""
    # Often packets differ in correlation data alone; then the first one's properties stand for all.
    gap, gap_end = correlation_span(run.data, properties)
    if gap == gap_end:
        gap = gap_end = payload
    middle, tail = run.data[properties:gap], run.data[gap_end:payload]
    stop = run_end(data, end, stride, header, middle, properties, tail, gap_end)
    last = len(data) - stride
    while stop <= last and data.startswith(header, stop):
        first = stop + section
        if (
            not data.startswith(length, stop + properties)
            or weigh_section(data, first, stop + payload, known.learn) != expiry
            or not data.startswith(interval, first + expiry)
        ):
            break
        stop += stride
    return stop
