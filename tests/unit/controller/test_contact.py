"""Contact: only an echo proves freshness, and its age counts from when the number was sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
import trio.testing

from controller.contact import MAX_UNECHOED, Contact

Events = list[tuple[float, bool, str]]


@asynccontextmanager
async def watched() -> AsyncGenerator[tuple[Contact, Events], None]:
    events, began = Events(), trio.current_time()

    def note(here: bool, reason: str) -> None:  # noqa: FBT001 - the callback's signature
        events.append((round(trio.current_time() - began, 3), here, reason))

    contact = Contact(stale_after_s=3.0, on_contact=note)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(contact.watch)
        await trio.testing.wait_all_tasks_blocked()
        yield contact, events
        nursery.cancel_scope.cancel()


async def test_contact_begins_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (contact, events):
        assert events == [(0.0, False, "not connected yet")]
        assert not contact.here


async def test_contact_is_lost_when_proofs_stop(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (contact, events):
        for _ in range(3):
            contact.take_echo(contact.next_number())
            await trio.sleep(1)
        contact.problem = "reset by peer"
        await trio.sleep(10)
    assert events[1:] == [
        (0.0, True, ""),
        (5.0, False, "no sign of the controller for 3 s (reset by peer)"),
    ]


async def test_contact_comes_back_with_a_new_proof(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (contact, events):
        contact.prove(trio.current_time())
        await trio.sleep(5)
        contact.prove(trio.current_time())
        await contact.wait()
        assert [(at, here) for at, here, _ in events] == [
            (0.0, False),
            (0.0, True),
            (3.0, False),
            (5.0, True),
        ]


async def test_old_echo_proves_only_its_own_time(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (contact, events):
        number = contact.next_number()
        await trio.sleep(2)
        contact.take_echo(number)
        assert contact.here
        await trio.sleep(1.5)
        assert events[-1][:2] == (3.0, False)
        stale = contact.next_number()
        await trio.sleep(4)
        contact.take_echo(stale)
        assert not contact.here


async def test_echo_that_was_never_sent_proves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as (contact, _):
        contact.take_echo(0)
        contact.take_echo(7)
        number = contact.next_number()
        contact.forget_numbers()
        contact.take_echo(number)
        assert not contact.here


async def test_unechoed_numbers_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (contact, _):
        first = contact.next_number()
        later = [contact.next_number() for _ in range(MAX_UNECHOED)]
        contact.take_echo(first)
        assert not contact.here
        contact.take_echo(later[-1])
        assert contact.here
