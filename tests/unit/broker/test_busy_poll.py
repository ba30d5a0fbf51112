"""A look before the sleep: it ends with what comes, is bounded, pays or is given up, and comes back."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
import trio

from broker import busy_poll
from broker.busy_poll import MOST_SKIPPED, BusyPoll, poll_of_trio

LONGEST_S = 0.0001


class Clock:
    """Goes on by a tenth of a look with each question."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += LONGEST_S / 10
        return self.now


class Waits:
    """The waits of a loop whose sockets are ready after some questions, or never."""

    def __init__(self) -> None:
        self.poll = BusyPoll(LONGEST_S, clock=Clock(), ready=self._ready)
        self.asked = 0
        self._ready_after: int | None = None

    def _ready(self) -> bool:
        self.asked += 1
        return self._ready_after is not None and self.asked > self._ready_after

    def wait(self, ready_after: int | None, timeout: float = 10.0) -> bool:
        """One wait; True if there was a look before it."""
        self.asked, self._ready_after = 0, ready_after
        looks = self.poll.looks
        self.poll.before_io_wait(timeout)
        return self.poll.looks > looks


def test_look_ends_with_what_comes_and_is_bounded() -> None:
    loop = Waits()
    assert loop.wait(3)
    assert loop.asked == 4
    assert loop.poll.hits == 1
    assert loop.wait(None)
    assert loop.asked <= 11
    assert loop.poll.hits == 1


def test_loop_that_does_not_sleep_is_not_held_up() -> None:
    loop = Waits()
    assert not loop.wait(None, timeout=0)
    assert loop.asked == 0


def test_timer_that_is_due_soon_ends_the_look() -> None:
    loop = Waits()
    assert loop.wait(None, timeout=LONGEST_S / 4)
    assert loop.asked <= 4


def test_looking_in_vain_is_given_up_and_tried_again_ever_more_rarely() -> None:
    loop = Waits()
    looked = [number for number in range(50_000) if loop.wait(None)]
    gaps = [later - sooner for sooner, later in pairwise(looked)]
    assert gaps == sorted(gaps)
    assert gaps[0] == 2
    assert gaps[-1] == MOST_SKIPPED + 1


def test_looking_that_pays_again_is_done_again() -> None:
    loop = Waits()
    for _ in range(20_000):
        loop.wait(None)
    waits = 0
    while sum(loop.wait(1) for _ in range(50)) < 50:
        waits += 50
        assert waits < 5_000, "some two thousand"


def test_looking_that_pays_less_than_every_other_time_is_mostly_left_alone() -> None:
    loop = Waits()
    looks = sum(loop.wait(1 if number % 4 == 0 else None) for number in range(20_000))
    assert looks < 2_000


async def test_poll_of_trio_knows_what_trio_waits_for() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)  # noqa: FBT003  the standard library's own signature
        ready = poll_of_trio()
        assert ready is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, near)
            await trio.testing.wait_all_tasks_blocked()
            assert not ready()
            far.send(b"x")
            assert ready()


async def test_loop_is_looked_into_while_it_runs_and_not_after() -> None:
    poll = BusyPoll(LONGEST_S)
    async with trio.open_nursery() as nursery:
        await nursery.start(poll.run)
        await trio.sleep(0.01)
        assert poll.looks > 0
        nursery.cancel_scope.cancel()
    looks = poll.looks
    await trio.sleep(0.01)
    assert poll.looks == looks


async def test_nothing_is_done_where_it_is_off_or_trio_does_not_show_its_epoll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off = BusyPoll(0)
    await off.run()
    blind = BusyPoll(LONGEST_S)
    monkeypatch.setattr(busy_poll, "poll_of_trio", lambda: None)
    await blind.run()
    await trio.sleep(0.001)
    assert (off.looks, blind.looks) == (0, 0)
