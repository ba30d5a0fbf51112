from __future__ import annotations

import numpy as np
import pytest
import trio

from client.errors import ConnectionLost, KernelFailed, LocalMisuse, NoAnswer, PublishRefused
from client.kernel import MAX_PIPELINED, RecordShape
from mqtt.errors import ReasonCode
from mqtt.packets import Packet, Properties, Puback, Publish
from tests.unit.client.scripted_broker import Peer, ScriptedBroker

TAKES = RecordShape(dtype="float32", shape=(4,))
GIVES = RecordShape(dtype="float64", shape=(2,))


def oracle(record: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[float]:
    return [float(record.sum()), float(record.max())]


async def kernel(peer: Peer, packet: Packet) -> bool:
    """Sum and maximum of four float32, as two float64; a NaN makes it fail."""
    if not isinstance(packet, Publish) or not packet.topic.startswith("kernel/"):
        return False
    if packet.packet_id is not None:
        await peer.send(Puback(packet_id=packet.packet_id))
    asked = packet.properties
    assert asked.response_topic is not None
    record = np.frombuffer(packet.payload, dtype=np.float32)
    failed = bool(np.isnan(record).any())
    payload = b"" if failed else np.array(oracle(record), dtype=np.float64).tobytes()
    said = (("status", "error"), ("error", "not a number")) if failed else ()
    answer = Properties(correlation_data=asked.correlation_data, user_properties=said)
    await peer.send(Publish(topic=asked.response_topic, payload=payload, properties=answer))
    return True


def test_record_shape_knows_its_size() -> None:
    assert TAKES.nbytes == 16
    assert RecordShape(dtype="int8").nbytes == 1
    assert str(TAKES) == "float32[4]"


async def test_call_is_a_function_of_arrays(broker: ScriptedBroker) -> None:
    broker.script = kernel
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES)
        record = np.array([1, 2, 3, 4], dtype=np.float32)
        result = await call(record)
        assert result.dtype == np.float64
        assert result.tolist() == [10.0, 4.0]
        result[0] = 0  # it is the caller's own
        assert "sums" in repr(call)


@pytest.mark.parametrize("count", [0, 1, 2, 65, 3 * MAX_PIPELINED + 7])
async def test_many_equals_one_by_one(broker: ScriptedBroker, count: int) -> None:
    broker.script = kernel
    records = np.random.default_rng(1).random((count, 4), dtype=np.float32)
    async with broker.dial(reply_prefix="r") as client:
        results = await client.kernel("sums", takes=TAKES, gives=GIVES).many(records)
        assert results.shape == (count, 2)
        assert results.tolist() == [oracle(record) for record in records]
        if count:
            assert len(await client.open_replies()) == 0


async def test_many_calls_at_once_share_the_places(broker: ScriptedBroker) -> None:
    broker.script = kernel
    records = np.random.default_rng(2).random((700, 4), dtype=np.float32)
    expected = [oracle(record) for record in records]
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES)

        async def check() -> None:
            assert (await call.many(records)).tolist() == expected

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(check)


async def test_failed_kernel_says_why(broker: ScriptedBroker) -> None:
    broker.script = kernel
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES)
        with pytest.raises(KernelFailed, match="kernel `sums` failed: not a number") as caught:
            await call(np.full(4, np.nan, dtype=np.float32))
        assert (caught.value.kernel, caught.value.error) == ("sums", "not a number")
        records = np.ones((100, 4), dtype=np.float32)
        records[70] = np.nan
        with pytest.raises(KernelFailed, match="not a number"):
            await call.many(records)
        assert len(await client.open_replies()) == 0
        assert (await call(records[0])).tolist() == [4.0, 1.0]


async def test_answer_of_another_size_is_a_failure(broker: ScriptedBroker) -> None:
    broker.script = kernel
    async with broker.dial(reply_prefix="r") as client:
        wrong = client.kernel("sums", takes=TAKES, gives=RecordShape(dtype="int8"))
        with pytest.raises(KernelFailed, match="the answer has 16 bytes, not 1"):
            await wrong(np.zeros(4, dtype=np.float32))


@pytest.mark.parametrize(
    "record", [np.zeros(4, dtype=np.float64), np.zeros(3, dtype=np.float32), np.zeros((1, 4), "f4")]
)
async def test_array_that_does_not_fit_is_refused_here(
    broker: ScriptedBroker, record: np.ndarray[tuple[int, ...], np.dtype[np.generic[object]]]
) -> None:
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES)
        with pytest.raises(LocalMisuse, match=r"takes float32\[4\], got"):
            await call(record)
    assert broker.of(Publish) == []


async def test_refused_kernel_is_told_at_once(broker: ScriptedBroker) -> None:
    async def deny(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Publish) and packet.packet_id is not None:
            await peer.send(Puback(packet_id=packet.packet_id, reason=ReasonCode.NOT_AUTHORIZED))
        return isinstance(packet, Publish)

    broker.script = deny
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES)
        with trio.fail_after(5), pytest.raises(PublishRefused):
            await call.many(np.zeros((10, 4), dtype=np.float32))


async def test_kernel_that_falls_silent_is_given_up(broker: ScriptedBroker) -> None:
    seen = 0

    async def answer_once(peer: Peer, packet: Packet) -> bool:
        nonlocal seen
        seen += isinstance(packet, Publish)
        return await kernel(peer, packet) if seen < 5 else isinstance(packet, Publish)

    broker.script = answer_once
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES, deadline_s=0.2)
        with pytest.raises(NoAnswer, match=r"no answer from kernel `sums` within 0\.2 s"):
            await call.many(np.zeros((10, 4), dtype=np.float32))
        assert len(await client.open_replies()) == 0


async def test_loss_ends_many(broker: ScriptedBroker) -> None:
    async def hang_up_at_last(peer: Peer, packet: Packet) -> bool:
        if isinstance(packet, Publish) and packet.packet_id is None:
            await peer.stream.aclose()
            return True
        return await kernel(peer, packet)

    broker.script = hang_up_at_last
    async with broker.dial(reply_prefix="r") as client:
        call = client.kernel("sums", takes=TAKES, gives=GIVES)
        with trio.fail_after(5), pytest.raises(ConnectionLost):
            await call.many(np.zeros((10, 4), dtype=np.float32))
