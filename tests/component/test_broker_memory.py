"""The ceiling over all that waits: a broker under a flood to many clients that take nothing grows by no more than it, and goes on.

`STUCK` subscribers keep the test short; it was run by hand with 1,000 as well.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest
import trio

from broker.memory import FREE_BYTES
from mqtt.packets import Connect, Properties
from tests.e2e.clients import unique
from tests.e2e.crowd import SMALL_BUFFER_BYTES, Flood, crowd, loaded, pair, rough
from tests.e2e.daemons import make_site

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tests.e2e.crowd import Loaded, Rough
    from tests.e2e.daemons import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

MEBIBYTE: Final = 1 << 20
STUCK: Final = 200
CEILING_BYTES: Final = 32 * MEBIBYTE
OVERHEAD_BYTES: Final = 32 * MEBIBYTE
"""What a process grows by beside what waits: batches of the store, one encrypted read of 64 KiB for each client that
blocks (13 MiB for 200), and what the allocator keeps."""

TABLES: Final = f"""
[limits]
max_waiting_bytes = {CEILING_BYTES}
max_stored_messages = 0
slow_consumer_s = 0.2
stuck_consumer_s = 600.0
"""
STORE: Final = """
[store]
path = "{name}.db"
key = "{name}.key"
"""
SILENT: Final = 4
UNFINISHED: Final = 60
FLOOD_S: Final = 3.0
"""Before the mending a client filled 13 MiB a second."""
ROUNDS: Final = 10
"""How often the others are heard while the flood goes on."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    made = make_site(tmp_path_factory.mktemp("memory"))
    try:
        made.start_controller()
        yield made
    finally:
        made.stop()


@pytest.fixture
def topic() -> str:
    return f"bench/{unique('memory')}"


def kept() -> Connect:
    return Connect(client_id=unique("kept"), properties=Properties(session_expiry_interval=3_600))


async def subscribe(clients: Sequence[Rough], topic: str, *, qos: int, keeps: bool) -> None:
    for client in clients:
        await client.enter(kept() if keeps else None)
        await client.subscribe(topic, qos=qos)


async def growth_under_flood(broker: Loaded, topic: str, *, qos: int, reason: str) -> int:
    """The most bytes the broker grew by while it was flooded and messages were dropped, and two others talked.

    Args:
        broker: with subscribers that take nothing.
        topic: what they subscribed to.
        qos: of the flood.
        reason: under which drops are counted.
    """
    async with (
        rough(broker.at, "bench") as flooder,
        pair(broker.at) as talk,
        trio.open_nursery() as nursery,
    ):
        await flooder.enter()
        before = most = broker.rss_bytes
        flood = Flood(flooder, topic, 1_000, qos=qos)
        nursery.start_soon(flood.run)
        await broker.until(lambda figures: figures.dropped(reason) > 0)
        for _ in range(ROUNDS):
            await flood.goes_on()
            await talk.talk(10)
            most = max(most, broker.rss_bytes)
        waiting = (await broker.figures())["waiting_bytes"]
        nursery.cancel_scope.cancel()
    assert waiting > CEILING_BYTES // 2, "the ceiling was what held"
    return most - before


async def test_flood_of_qos_0_to_stuck_subscribers_keeps_the_broker_below_its_ceiling(
    site: Site, topic: str
) -> None:
    with loaded(site, TABLES) as broker:
        async with crowd(broker.at, "bench", STUCK) as stuck:
            await subscribe(stuck, topic, qos=0, keeps=False)
            grown = await growth_under_flood(broker, topic, qos=0, reason="slow_consumer")
    assert grown < CEILING_BYTES + OVERHEAD_BYTES


@pytest.mark.parametrize("keeps", [False, True], ids=["lost with the connection", "kept"])
async def test_flood_of_qos_1_to_stuck_subscribers_keeps_the_broker_below_its_ceiling(
    site: Site, topic: str, *, keeps: bool
) -> None:
    with loaded(site, TABLES + STORE.format(name=unique("store"))) as broker:
        async with crowd(broker.at, "bench", STUCK) as stuck:
            await subscribe(stuck, topic, qos=1, keeps=keeps)
            grown = await growth_under_flood(broker, topic, qos=1, reason="queue_full")
    assert grown < CEILING_BYTES + OVERHEAD_BYTES


async def test_flood_of_qos_1_to_sessions_that_are_away_keeps_the_broker_below_its_ceiling(
    site: Site, topic: str
) -> None:
    with loaded(site, TABLES + STORE.format(name=unique("store"))) as broker:
        async with crowd(broker.at, "bench", STUCK) as away:
            await subscribe(away, topic, qos=1, keeps=True)
        await broker.until(lambda figures: figures["connections"] == 0)
        grown = await growth_under_flood(broker, topic, qos=1, reason="queue_full")
    assert grown < CEILING_BYTES + OVERHEAD_BYTES


async def test_subscribers_that_never_acknowledge_keep_the_broker_below_its_ceiling(
    site: Site,
) -> None:
    async def flood(broker: Loaded, topic: str) -> None:
        async with (
            rough(broker.at, "bench") as flooder,
            rough(broker.at, "bench") as silent,
            trio.open_nursery() as nursery,
        ):
            await flooder.enter()
            await silent.enter()
            await silent.subscribe(topic, qos=1)
            nursery.start_soon(Flood(flooder, topic, 60_000, qos=1).run)
            while True:
                await silent.read()

    with loaded(site, TABLES) as broker:
        before = broker.rss_bytes
        async with pair(broker.at) as talk, trio.open_nursery() as nursery:
            for _ in range(SILENT):
                nursery.start_soon(flood, broker, f"bench/{unique('silent')}")
            await broker.until(lambda figures: figures.dropped("queue_full") > SILENT)
            await talk.talk(10)
            grown = broker.rss_bytes - before
            nursery.cancel_scope.cancel()
    assert grown < CEILING_BYTES + OVERHEAD_BYTES


@pytest.mark.parametrize("first", [b"\x62", b"\x50"], ids=["PUBREL", "PUBREC"])
async def test_client_that_takes_no_answers_to_acknowledgements_does_not_fill_memory(
    site: Site, first: bytes
) -> None:
    block = (first + b"\x02\x00\x01") * 16_000

    async def flood(client: Rough) -> None:
        while True:
            await client.send(block)

    with loaded(site, TABLES) as broker:
        async with (
            rough(broker.at, "bench", receive_buffer_bytes=SMALL_BUFFER_BYTES) as client,
            pair(broker.at) as talk,
        ):
            await client.enter()
            before = broker.rss_bytes
            with trio.move_on_after(FLOOD_S):
                await flood(client)
            await talk.talk(10)
            grown = broker.rss_bytes - before
    assert grown < OVERHEAD_BYTES


async def test_packets_that_are_never_finished_keep_the_broker_below_its_ceiling(
    site: Site,
) -> None:
    """Each of many clients begins a packet of 1 MiB; those that make it too much are ended, the others stay."""
    begun = b"\x30\xf0\xff\x3f" + bytes(MEBIBYTE - FREE_BYTES)
    with loaded(site, TABLES) as broker:
        before = broker.rss_bytes
        async with crowd(broker.at, "bench", UNFINISHED) as clients, pair(broker.at) as talk:
            for client in clients:
                await client.enter()
            for client in clients:
                with contextlib.suppress(trio.BrokenResourceError):  # it was ended
                    await client.send(begun)
            figures = await broker.until(lambda found: found["connections"] < UNFINISHED)
            await talk.talk(10)
            grown = broker.rss_bytes - before
        await broker.until(lambda found: found["unfinished_bytes"] == 0)
    assert figures["connections"] > 1
    assert figures["unfinished_bytes"] <= CEILING_BYTES / 4 + UNFINISHED * FREE_BYTES
    assert grown < CEILING_BYTES + OVERHEAD_BYTES
