from __future__ import annotations

import trio.testing

from broker.totals import BrokerTotals
from mqtt.packets import Puback, Publish
from tests.brokers import running_broker
from tests.durable_rows import Rows
from tests.unit.broker.test_messaging import SENSOR, VIEWER, connected, got, publish, subscribe
from tests.unit.broker.test_metrics import page_of, sources_of


async def test_totals_add_up_what_the_rooms_counted() -> None:
    async with running_broker(SENSOR, VIEWER, store=Rows()) as broker:
        totals = BrokerTotals(sources_of(broker))
        sensor, viewer = await broker.client("sensor"), await connected(broker, "viewer")
        await subscribe(viewer, "t/#", "$share/g/t/u")
        for number in range(3):
            await publish(sensor, bytes([number]))
        first = await got(viewer)
        await viewer.send(Puback(packet_id=first.packet_id or 0))
        await sensor.send(Publish(topic="t/kept", payload=b"x", qos=1, packet_id=1, retain=True))
        await sensor.next()
        found = totals.totals()
        assert (found.clients_connected, found.clients_disconnected) == (2, 0)
        assert (found.messages_received, found.messages_sent) == (4, 4)
        assert (found.inflight, found.stored, found.retained) == (3, 3, 1)
        assert (found.subscriptions, found.shared_subscriptions) == (2, 1)
        assert found.stored_bytes > 0


async def test_totals_know_who_is_away_and_how_many_there_were() -> None:
    async with running_broker(VIEWER, store=Rows()) as broker:
        totals = BrokerTotals(sources_of(broker))
        peers = [await connected(broker, "viewer", f"c{number}") for number in range(3)]
        assert totals.totals().clients_maximum == 3
        for peer in peers[:2]:
            await peer.leave()
        await trio.testing.wait_all_tasks_blocked()
        found = totals.totals()
        assert (found.clients_connected, found.clients_disconnected) == (1, 2)
        assert found.clients_maximum == 3


async def test_bytes_of_clients_that_left_stay_counted() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        totals = BrokerTotals(sources_of(broker))
        viewer = await broker.client("viewer")
        before = totals.totals().bytes_sent
        assert before == viewer.bytes_received
        await viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert totals.totals().bytes_sent == before


async def test_totals_and_metrics_say_the_same() -> None:
    async with running_broker(SENSOR, VIEWER) as broker:
        sensor, viewer = await broker.client("sensor"), await broker.client("viewer")
        await subscribe(viewer, "t/#")
        await publish(sensor, b"x")
        await got(viewer)
        totals, page = BrokerTotals(sources_of(broker)).totals(), page_of(broker)
        assert page["stockade_bytes_received_total", ()] == totals.bytes_received
        assert page["stockade_bytes_sent_total", ()] == totals.bytes_sent
        assert page["stockade_messages_received_total", ()] == totals.messages_received
        assert page["stockade_messages_sent_total", ()] == totals.messages_sent
        assert page["stockade_messages_in_flight", ()] == totals.inflight
