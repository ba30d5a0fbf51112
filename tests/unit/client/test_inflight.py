from __future__ import annotations

import pytest
import trio
import trio.testing

from client.errors import ConnectionLost
from client.inflight import MAX_PUBLISHES, Inflight
from mqtt.errors import ReasonCode, RemoteProtocolError
from mqtt.packets import Puback, Suback


async def test_open_gives_identifiers_that_are_not_in_use() -> None:
    inflight = Inflight(receive_maximum=65_535)
    first = await inflight.open(Puback)
    inflight.settle(Puback(packet_id=first.packet_id))
    seen = [(await inflight.open(Puback)).packet_id for _ in range(MAX_PUBLISHES)]
    assert len(set(seen)) == MAX_PUBLISHES
    assert all(1 <= number <= 65_535 for number in seen)


async def test_identifiers_wrap_around_those_still_in_use() -> None:
    inflight = Inflight(receive_maximum=2)
    kept = await inflight.open(Suback)
    for _ in range(65_540):
        waiting = await inflight.open(Puback)
        assert waiting.packet_id != kept.packet_id
        inflight.settle(Puback(packet_id=waiting.packet_id))


async def test_open_waits_while_receive_maximum_is_reached(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inflight = Inflight(receive_maximum=2)
    first = await inflight.open(Puback)
    await inflight.open(Puback)
    with trio.move_on_after(10) as scope:
        await inflight.open(Puback)
    assert scope.cancelled_caught
    inflight.settle(Puback(packet_id=first.packet_id))
    await inflight.open(Puback)
    await inflight.open(Suback)  # not a publish: not counted
    assert len(inflight) == 3


async def test_settle_wakes_whoever_waits_with_the_answer() -> None:
    inflight = Inflight(receive_maximum=2)
    waiting = await inflight.open(Puback)
    answer = Puback(packet_id=waiting.packet_id, reason=ReasonCode.NOT_AUTHORIZED)
    inflight.settle(answer)
    assert waiting.done.is_set()
    assert waiting.answer is answer
    assert len(inflight) == 0


async def test_settle_refuses_what_was_never_asked_and_changes_nothing() -> None:
    inflight = Inflight(receive_maximum=2)
    waiting = await inflight.open(Puback)
    wrong = Suback(packet_id=waiting.packet_id, reasons=(ReasonCode.SUCCESS,))
    for answer in (wrong, Puback(packet_id=waiting.packet_id + 1)):
        with pytest.raises(RemoteProtocolError) as caught:
            inflight.settle(answer)
        assert caught.value.reason is ReasonCode.PROTOCOL_ERROR
    assert not waiting.done.is_set()
    assert len(inflight) == 1


async def test_abandon_frees_the_identifier() -> None:
    inflight = Inflight(receive_maximum=1)
    waiting = await inflight.open(Puback)
    inflight.abandon(waiting)
    inflight.abandon(waiting)
    assert len(inflight) == 0
    await inflight.open(Puback)


async def test_fail_wakes_everyone_now_and_later() -> None:
    inflight = Inflight(receive_maximum=1)
    waiting = await inflight.open(Puback)
    lost = ConnectionLost("gone")
    errors: list[ConnectionLost] = []

    async def wait_for_room() -> None:
        with pytest.raises(ConnectionLost) as caught:
            await inflight.open(Puback)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_room)
        nursery.start_soon(wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        inflight.fail(lost)
    assert errors == [lost, lost]
    assert waiting.done.is_set()
    assert waiting.answer is None
