"""Questions in flight: each gets its own answer, or is told why not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from controller import asks as asks_module
from controller.asks import AskTable
from controller.errors import ControllerUnavailable, RemoteProtocolError
from controller.wire import Answer, Verdict

YES = Verdict(True, "r", "why", "d-1")  # noqa: FBT003 - as on the wire


async def test_answers_find_their_questions_in_any_order() -> None:
    asks, sent, got = AskTable(), list[int](), dict[int, int]()

    async def ask(count: int) -> None:
        answer = await asks.wait_answer(count, sent.append, deadline_s=5)
        got[count] = len(answer.verdicts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1)
        nursery.start_soon(ask, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert len(asks) == 2
        counts = dict.fromkeys(sent, 0)
        for number in reversed(sent):
            for size in (1, 2):
                try:
                    asks.resolve(Answer(number=number, epoch=1, verdicts=(YES,) * size))
                except RemoteProtocolError:
                    counts[number] += 1
    assert got == {1: 1, 2: 2}
    assert len(asks) == 0


async def test_silence_is_unavailable(autojump_clock: trio.testing.MockClock) -> None:
    asks = AskTable()
    with pytest.raises(ControllerUnavailable, match="did not answer within 2 s"):
        await asks.wait_answer(1, lambda _number: None, deadline_s=2)
    assert len(asks) == 0
    asks.resolve(Answer(number=1, epoch=1, verdicts=(YES,)))  # too late, and harmless


@pytest.mark.parametrize("number", [0, -1, 2, 99])
async def test_answer_nobody_asked_for_is_refused(
    autojump_clock: trio.testing.MockClock, number: int
) -> None:
    asks = AskTable()
    with pytest.raises(ControllerUnavailable):
        await asks.wait_answer(1, lambda _number: None, deadline_s=1)
    with pytest.raises(RemoteProtocolError, match="never asked"):
        asks.resolve(Answer(number=number, epoch=1, verdicts=(YES,)))


async def test_broken_connection_tells_everybody() -> None:
    asks, reasons = AskTable(), list[str]()

    async def ask() -> None:
        with pytest.raises(ControllerUnavailable) as caught:
            await asks.wait_answer(1, lambda _number: None, deadline_s=5)
        reasons.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        asks.fail_all("the connection broke")
        asks.fail_all("a second reason")
    assert reasons == ["the connection broke"] * 3


async def test_questions_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks_module, "MAX_ASKS_IN_FLIGHT", 1)
    asks = AskTable()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: asks.wait_answer(1, lambda _number: None, deadline_s=9))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ControllerUnavailable, match="in flight already"):
            await asks.wait_answer(1, lambda _number: None, deadline_s=9)
        nursery.cancel_scope.cancel()
    assert len(asks) == 0
