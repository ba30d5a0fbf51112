"""Clients that send more than others take, or take less than they are sent, and what it costs the others: nothing.

Each test has a broker of its own with bounds small enough to be reached in a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from mqtt.packets import Connect, Properties, Puback, Publish
from tests.e2e.clients import unique
from tests.e2e.crowd import SMALL_BUFFER_BYTES, Flood, crowd, loaded, numbers, packets, pair, rough
from tests.e2e.daemons import make_site
from tests.e2e.scripted_client import id_of, scripted

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.e2e.crowd import Pair, Rough
    from tests.e2e.daemons import Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

SIZE: Final = 1_000
BLOCKS: Final = 768
"""Of 64 KiB: more than the kernel holds between a publisher and a subscriber with a small buffer."""

STORM: Final = 200
QUEUE: Final = 20
WINDOW: Final = 5


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    made = make_site(tmp_path_factory.mktemp("flood"))
    try:
        made.start_controller()
        yield made
    finally:
        made.stop()


@pytest.fixture
def topic() -> str:
    return f"bench/{unique('flood')}"


def limits(**values: float) -> str:
    """A `[limits]` table in which an outlet is full at once, and nobody is given up."""
    table = {"max_queued_bytes": 65_536, "slow_consumer_s": 60.0, "stuck_consumer_s": 600.0}
    return "[limits]\n" + "".join(f"{key} = {value}\n" for key, value in (table | values).items())


class Sink:
    """A subscriber that reads on and on; `taken` are its bytes."""

    def __init__(self, client: Rough) -> None:
        self._client = client
        self.taken = 0

    async def run(self) -> None:
        while True:
            self.taken += len(await self._client.read())


async def _until_held_back(flood: Flood, talk: Pair) -> None:
    """Return when the flood makes no progress while others do."""
    sent = -1
    while flood.sent > sent:
        sent = flood.sent
        await talk.talk(10)


async def test_flood_leaves_everyone_else_their_turn(site: Site, topic: str) -> None:
    with loaded(site, limits()) as broker:
        async with (
            rough(broker.at, "bench") as flooder,
            rough(broker.at, "bench") as subscriber,
            pair(broker.at) as talk,
            trio.open_nursery() as nursery,
        ):
            await flooder.enter()
            await subscriber.enter()
            await subscriber.subscribe(topic)
            flood, sink = Flood(flooder, topic, 100), Sink(subscriber)
            nursery.start_soon(flood.run)
            nursery.start_soon(sink.run)
            for _ in range(5):
                sent, taken = flood.sent, sink.taken
                await talk.talk(10)
                assert flood.sent > sent, "the flood went on"
                assert sink.taken > taken, "its subscriber was served steadily"
            assert (await broker.figures()).dropped("slow_consumer") == 0
            nursery.cancel_scope.cancel()


async def test_flood_waits_for_a_subscriber_that_does_not_read_and_nothing_is_lost(
    site: Site, topic: str
) -> None:
    with loaded(site, limits()) as broker:
        async with (
            rough(broker.at, "bench") as flooder,
            rough(broker.at, "bench", receive_buffer_bytes=SMALL_BUFFER_BYTES) as subscriber,
            pair(broker.at) as talk,
            trio.open_nursery() as nursery,
        ):
            await flooder.enter()
            await subscriber.enter()
            await subscriber.subscribe(topic)
            flood = Flood(flooder, topic, SIZE)
            nursery.start_soon(flood.run, BLOCKS)
            await _until_held_back(flood, talk)
            assert flood.sent < flood.total(BLOCKS), "held back"
            stride = len(packets(topic, SIZE, 0, 1))
            data = await subscriber.read_bytes(stride * flood.total(BLOCKS))
    assert numbers(data, stride) == list(range(flood.total(BLOCKS)))


async def test_slow_subscriber_alone_loses_messages_until_it_has_caught_up(
    site: Site, topic: str
) -> None:
    with loaded(site, limits(slow_consumer_s=0.2)) as broker:
        async with (
            rough(broker.at, "bench") as flooder,
            rough(broker.at, "bench") as fast,
            rough(broker.at, "bench", receive_buffer_bytes=SMALL_BUFFER_BYTES) as slow,
        ):
            await flooder.enter()
            for subscriber in (fast, slow):
                await subscriber.enter()
                await subscriber.subscribe(topic)
            flood = Flood(flooder, topic, SIZE)
            total, stride = flood.total(BLOCKS), len(packets(topic, SIZE, 0, 1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood.run, BLOCKS)
                taken = numbers(await fast.read_bytes(stride * total), stride)
            assert taken == list(range(total))
            dropped = int((await broker.figures()).dropped("slow_consumer"))
            assert 0 < dropped < total
            late = numbers(await slow.read_bytes(stride * (total - dropped)), stride)
            assert late == sorted(set(late)), "in order, none twice"
            await broker.until(lambda figures: figures["waiting_bytes"] == 0)
            await flooder.send(packets(topic, SIZE, total, 1))
            assert numbers(await slow.read_bytes(stride), stride) == [total]


async def test_subscriber_that_takes_nothing_is_disconnected_and_the_flood_goes_on(
    site: Site, topic: str
) -> None:
    with loaded(site, limits(stuck_consumer_s=1.0)) as broker:
        async with (
            rough(broker.at, "bench") as flooder,
            rough(broker.at, "bench", receive_buffer_bytes=SMALL_BUFFER_BYTES) as stuck,
        ):
            await flooder.enter()
            await stuck.enter()
            await stuck.subscribe(topic)
            flood = Flood(flooder, topic, SIZE)
            await flood.run(BLOCKS)
            await broker.until(lambda figures: figures["connections"] == 1)
            while await stuck.read_or_end():
                pass
        assert "the client takes no data" in broker.daemon.log.read_text()


async def test_messages_beyond_a_full_queue_are_dropped_and_counted_and_those_before_it_arrive(
    site: Site, topic: str
) -> None:
    tables = limits(max_queued_messages=QUEUE, slow_consumer_s=0.05)
    with loaded(site, tables) as broker:
        async with scripted(broker.at, "bench") as speaker, scripted(broker.at, "bench") as late:
            await speaker.connect()
            await late.connect(
                Connect(client_id=unique("late"), properties=Properties(receive_maximum=WINDOW))
            )
            await late.subscribe(topic, qos=1)
            for number in range(4 * QUEUE):
                await speaker.publish(topic, b"%d" % number, qos=1)
            figures = await broker.figures()
            assert figures["messages_in_flight"] == WINDOW
            assert figures["messages_queued"] == QUEUE
            assert figures.dropped("queue_full") == 3 * QUEUE - WINDOW
            payloads: list[bytes] = []
            for _ in range(QUEUE + WINDOW):
                message = await late.receive()
                assert isinstance(message, Publish), message
                payloads.append(message.payload)
                await late.send(Puback(packet_id=id_of(message)))
            assert payloads == [b"%d" % number for number in range(QUEUE + WINDOW)]
            await speaker.publish(topic, b"again", qos=1)
            assert (await late.take()).payload == b"again"


async def test_storm_of_handshakes_does_not_disturb_those_who_are_connected(site: Site) -> None:
    tables = limits(max_handshakes=STORM, max_handshakes_per_address=STORM)
    with loaded(site, tables) as broker:
        async with pair(broker.at) as talk, trio.open_nursery() as nursery:
            arrived = trio.Event()

            async def storm() -> None:
                async with crowd(broker.at, "bench", STORM, at_once=STORM) as clients:
                    for client in clients:
                        await client.enter()
                    arrived.set()
                    await trio.sleep_forever()

            nursery.start_soon(storm)
            trips = 0
            while not arrived.is_set():
                await talk.talk(1)
                trips += 1
            assert trips > STORM // 10
            assert (await broker.figures())["connections"] == STORM + 2
            nursery.cancel_scope.cancel()
