"""Rounds of the loop have a budget, and whoever waits for the next gets it, in order."""

from __future__ import annotations

from math import inf

import trio

from broker.turns import BUDGET_S, Turns


class Clock:
    """Goes on when it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def rounds(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_budget_of_a_round_is_used_up_until_the_next_begins() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        await rounds(1)
        over = [turns.over]
        clock.now += 2 * BUDGET_S
        over.append(turns.over)
        await rounds(1)
        over.append(turns.over)
        assert over == [False, True, False]
        nursery.cancel_scope.cancel()


async def test_nobody_is_held_up_where_no_rounds_are_counted() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    clock.now = 1e9
    assert not turns.over
    await turns.wait()
    await turns.pause()
    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        nursery.cancel_scope.cancel()
    assert turns.ends == inf


async def test_those_that_wait_go_on_in_order_and_only_as_many_as_fit_a_round() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    came: list[int] = []
    began: list[float] = []

    async def work(number: int) -> None:
        for _ in range(number):  # park in a known order
            await trio.lowlevel.checkpoint()
        await turns.wait()
        came.append(number)
        began.append(turns.ends)
        clock.now += 2 * BUDGET_S  # more than a round's work

    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        clock.now += 1.0
        async with trio.open_nursery() as workers:
            for number in range(10):
                workers.start_soon(work, number)
        nursery.cancel_scope.cancel()
    assert all(abs(number - place) <= 1 for place, number in enumerate(came)), came
    assert len(set(began[-5:])) == 5, "one a round, once it is known that no more fit"


async def test_cheap_turns_share_a_round() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    waiting, served = 200, 0

    async def work() -> None:
        nonlocal served
        await turns.wait()
        served += 1
        clock.now += BUDGET_S / 50

    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        async with trio.open_nursery() as workers:
            for _ in range(waiting):
                workers.start_soon(work)
            await rounds(2)
            passed = 0
            while served < waiting:
                before = served
                await rounds(1)
                passed += 1
                assert served - before <= 100, "no round is flooded"
        nursery.cancel_scope.cancel()
    assert passed < 30, "some 50 fit into a round"


async def test_light_turns_go_first_and_heavy_ones_still_go_on() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    came: list[str] = []

    async def light() -> None:
        while "heavy" not in came:
            await turns.wait(light=True)
            came.append("light")
            clock.now += BUDGET_S

    async def heavy() -> None:
        await turns.wait()
        came.append("heavy")

    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        async with trio.open_nursery() as workers:
            workers.start_soon(light)
            workers.start_soon(light)
            workers.start_soon(heavy)
        nursery.cancel_scope.cancel()
    assert len(came) <= 10, "not after all the others"


async def test_one_who_gives_up_takes_no_place() -> None:
    turns = Turns(clock=Clock())
    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        with trio.CancelScope() as scope:
            scope.cancel()
            await turns.wait()
        assert scope.cancelled_caught
        with trio.fail_after(1):
            await turns.wait()
        nursery.cancel_scope.cancel()


async def test_whoever_waits_is_let_go_when_the_rounds_end() -> None:
    turns = Turns(clock=Clock())
    async with trio.open_nursery() as nursery, trio.open_nursery() as counting:
        await counting.start(turns.run)
        nursery.start_soon(turns.wait)
        counting.cancel_scope.cancel()
    assert not turns.over


async def test_pause_waits_only_where_the_round_is_used_up() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(turns.run)
        await turns.pause()
        clock.now += 2 * BUDGET_S
        with trio.fail_after(1):
            await turns.pause()
        assert not turns.over
        nursery.cancel_scope.cancel()
