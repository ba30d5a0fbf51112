"""A queue longer than memory may hold: it waits in the store, outlives kill -9, and comes in order when its client does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from mqtt.encode import encode
from mqtt.packets import Connect, Properties, Puback, Publish, Version
from tests.e2e.clients import unique
from tests.e2e.crowd import NUMBER_BYTES, Flood, loaded, rough
from tests.e2e.daemons import make_site

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.e2e.crowd import Loaded, Rough
    from tests.e2e.daemons import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MEBIBYTE: Final = 1 << 20
PAYLOAD_BYTES: Final = 1_000
BLOCKS: Final = 500
IN_MEMORY: Final = 500
MOST_GROWTH_BYTES: Final = 24 * MEBIBYTE
"""What memory may grow by while 30 MB wait: queue, batches of the store, and what the allocator keeps."""
ENTRY_BYTES: Final = 256
"""What stays in memory of a message that waits in the store only."""
MESSAGES: Final = 50_000
TOGETHER: Final = 50
ACKNOWLEDGED_TOGETHER: Final = 50

TABLES: Final = f"""
[limits]
max_queued_messages = {IN_MEMORY}

[store]
path = "overflow.db"
key = "overflow.key"
"""


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    made = make_site(tmp_path_factory.mktemp("overflow"))
    try:
        made.start_controller()
        yield made
    finally:
        made.stop()


def kept(client_id: str) -> Connect:
    properties = Properties(session_expiry_interval=3_600, receive_maximum=200)
    return Connect(client_id=client_id, clean_start=False, properties=properties)


async def fill(broker: Loaded, client_id: str, topic: str) -> int:
    """Publish to a session that is away; how many messages were acknowledged."""
    async with rough(broker.at, "bench") as client:
        await client.enter(kept(client_id))
        await client.subscribe(topic, qos=1)
    await broker.until(lambda figures: figures["connections"] == 0)
    async with rough(broker.at, "bench") as publisher:
        await publisher.enter()
        before = broker.rss_bytes
        flood = Flood(publisher, topic, PAYLOAD_BYTES, qos=1)
        await flood.run(BLOCKS)
        assert broker.rss_bytes - before < MOST_GROWTH_BYTES
    assert not any(reason.failed for reason in flood.answers)
    return flood.sent


async def take(client: Rough, count: int) -> list[int]:
    """The numbers of so many messages, all acknowledged."""
    found: list[int] = []
    answers = b""
    while len(found) < count:
        packet = await client.receive()
        assert isinstance(packet, Publish), packet
        found.append(int.from_bytes(packet.payload[-NUMBER_BYTES:]))
        answers += encode(Puback(packet_id=packet.packet_id or 0), Version.V5)
        if len(found) % ACKNOWLEDGED_TOGETHER == 0 or len(found) == count:
            await client.send(answers)
            answers = b""
    return found


async def test_queue_beyond_memory_outlives_the_broker_and_comes_in_order(site: Site) -> None:
    client_id, topic = unique("away"), f"bench/{unique('overflow')}"
    with loaded(site, TABLES) as broker:
        sent = await fill(broker, client_id, topic)
        figures = await broker.figures()
        assert figures["messages_stored"] > sent - 2 * IN_MEMORY
        assert figures.dropped("queue_full") == 0
        broker.daemon.kill()
    with loaded(site, TABLES) as broker:
        figures = await broker.figures()
        assert figures["messages_stored"] > sent - 2 * IN_MEMORY
        async with rough(broker.at, "bench") as client:
            before = broker.rss_bytes
            connack = await client.enter(kept(client_id))
            assert connack.session_present
            assert await take(client, sent) == list(range(sent))
            assert broker.rss_bytes - before < MOST_GROWTH_BYTES
        figures = await broker.until(lambda figures: figures["store_messages"] == 0)
        assert figures["messages_stored"] == 0
        assert figures["store_failed_reads_total"] == 0


async def publish_singly(client: Rough, topic: str, count: int) -> None:
    """Messages no two of which are one run, because their topics take turns; as many in a read as with runs."""
    for first in range(0, count, TOGETHER):
        data = b"".join(
            encode(
                Publish(
                    topic=f"{topic}/{number % 2}",
                    payload=number.to_bytes(1_024),
                    qos=1,
                    packet_id=number - first + 1,
                ),
                Version.V5,
            )
            for number in range(first, first + TOGETHER)
        )
        await client.send(data)
        for _ in range(TOGETHER):
            answer = await client.receive()
            assert isinstance(answer, Puback), answer
            assert not answer.reason.failed


async def test_queue_of_fifty_thousand_takes_little_memory_and_outlives_the_broker(
    site: Site,
) -> None:
    client_id, topic = unique("away"), f"bench/{unique('overflow')}"
    with loaded(site, TABLES) as broker:
        async with rough(broker.at, "bench") as client:
            await client.enter(kept(client_id))
            await client.subscribe(f"{topic}/+", qos=1)
        await broker.until(lambda figures: figures["connections"] == 0)
        async with rough(broker.at, "bench") as publisher:
            await publisher.enter()
            before = broker.rss_bytes
            await publish_singly(publisher, topic, MESSAGES)
            assert broker.rss_bytes - before < MOST_GROWTH_BYTES + MESSAGES * ENTRY_BYTES
        broker.daemon.kill()
    with loaded(site, TABLES) as broker:
        assert (await broker.figures())["messages_stored"] > MESSAGES - 2 * IN_MEMORY
        async with rough(broker.at, "bench") as client:
            before = broker.rss_bytes
            assert (await client.enter(kept(client_id))).session_present
            assert await take(client, MESSAGES) == list(range(MESSAGES))
            assert broker.rss_bytes - before < MOST_GROWTH_BYTES
        figures = await broker.until(lambda figures: figures["store_messages"] == 0)
        assert figures["messages_stored"] == 0


async def test_client_that_is_only_slow_misses_nothing(site: Site) -> None:
    topic = f"bench/{unique('slow')}"
    with loaded(site, TABLES) as broker:
        async with rough(broker.at, "bench") as client, rough(broker.at, "bench") as publisher:
            await client.enter(kept(unique("slow")))
            await client.subscribe(topic, qos=1)
            await publisher.enter()
            flood = Flood(publisher, topic, PAYLOAD_BYTES, qos=1)
            await flood.run(BLOCKS // 10)
            assert (await broker.figures())["messages_stored"] > 0
            assert await take(client, flood.sent) == list(range(flood.sent))
