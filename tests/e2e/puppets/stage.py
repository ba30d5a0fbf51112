"""What every puppet in Python shares: its arguments, and reading orders and writing reports.

Its arguments are `ADDRESS CA CERT KEY` (see `start`).
"""

from __future__ import annotations

import asyncio  # noqa: TID251  two of the foreign clients are written for it; only puppets run it, in their own process
import ssl
import sys
import threading
from typing import TYPE_CHECKING, Protocol

from tests.e2e.puppets.lines import Order, Report, parse_order

if TYPE_CHECKING:
    from collections.abc import Callable

_writing = threading.Lock()


class Actor(Protocol):
    """A client that carries out orders and blocks meanwhile."""

    def perform(self, order: Order) -> Report:
        """Carry out an order; what it says has the order's kind."""
        ...


class AsyncActor(Protocol):
    """A client that carries out orders in an event loop."""

    async def perform(self, order: Order) -> Report:
        """Carry out an order; what it says has the order's kind."""
        ...


def address() -> str:
    """Where the broker is: `host:port`."""
    return sys.argv[1]


def context() -> ssl.SSLContext:
    """TLS as a careful client sets it up."""
    made = ssl.create_default_context(cafile=sys.argv[2])
    made.load_cert_chain(sys.argv[3], sys.argv[4])
    return made


def say(report: Report) -> None:
    """Write a report; from any thread."""
    with _writing:
        sys.stdout.write(report.line() + "\n")
        sys.stdout.flush()


def play(actor: Actor) -> None:
    """Carry out orders until the test closes the pipe."""
    for line in sys.stdin:
        order = parse_order(line)
        try:
            say(actor.perform(order))
        except Exception as error:  # noqa: BLE001  whatever the library raises is what the test wants to see
            say(_failure(order, error))


def play_async(make: Callable[[], AsyncActor]) -> None:
    """Carry out orders in an event loop until the test closes the pipe."""

    async def main() -> None:
        actor = make()
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = parse_order(line)
            try:
                say(await actor.perform(order))
            except Exception as error:  # noqa: BLE001  whatever the library raises is what the test wants to see
                say(_failure(order, error))

    asyncio.run(main())


def _failure(order: Order, error: Exception) -> Report:
    return Report(kind=order.kind, error=f"{type(error).__name__}: {error}")
