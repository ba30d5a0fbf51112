from __future__ import annotations

from broker.delivery import Delivery
from broker.outlet import Outlet
from mqtt.encode import encode
from mqtt.packets import Properties, Publish, Role, Version
from mqtt.reader import PacketReader
from tests.unit.broker.test_outlet import Pipe, outlet_on


def delivery_on(pipe: Pipe, *, window: int, queue: int = 10) -> tuple[Delivery, Outlet]:
    outlet = outlet_on(pipe, [])
    delivery = Delivery(outlet, receive_maximum=window, max_queued=queue, max_queued_bytes=100)
    return delivery, outlet


def message(number: int) -> Publish:
    return Publish(topic="t", payload=bytes([number]), qos=1, packet_id=number)


def packet_ids(pipe: Pipe, outlet: Outlet) -> list[int | None]:
    outlet.flush_now()
    reader = PacketReader(role=Role.CLIENT, max_packet_bytes=1000)
    reader.feed(b"\x20\x03\x00\x00\x00" + pipe.written)
    events = []
    while (event := reader.next_event()) is not None:
        events.append(event)
    return [event.packet_id for event in events[1:] if isinstance(event, Publish)]


def test_delivery_numbers_messages_and_waits_at_the_window() -> None:
    pipe = Pipe()
    delivery, outlet = delivery_on(pipe, window=2)
    for number in (1, 2, 3):
        delivery.deliver(message(number), qos=1, retain=False)
    assert packet_ids(pipe, outlet) == [1, 2]
    assert delivery.queued == 1
    assert delivery.acknowledged(1)
    assert packet_ids(pipe, outlet) == [1, 2, 3]


def test_delivery_drops_and_counts_beyond_the_queue() -> None:
    delivery, _ = delivery_on(Pipe(), window=1, queue=1)
    for number in (1, 2, 3, 4):
        delivery.deliver(message(number), qos=1, retain=False)
    assert delivery.dropped == 2


def test_delivery_bounds_the_bytes_that_wait() -> None:
    delivery, _ = delivery_on(Pipe(), window=1)
    for number in range(1, 5):
        publish = Publish(topic="t", payload=b"x" * 60, qos=1, packet_id=number)
        delivery.deliver(publish, qos=1, retain=False)
    assert delivery.queued == 1
    assert delivery.dropped == 2


def test_delivery_holds_back_while_the_outlet_is_over_full() -> None:
    pipe = Pipe()
    delivery, outlet = delivery_on(pipe, window=10)
    delivery.deliver(message(1), qos=1, retain=False)
    outlet.put_control(b"x" * 2000)
    delivery.deliver(message(2), qos=1, retain=False)
    assert delivery.queued == 1
    delivery.acknowledged(1)
    assert delivery.queued == 0, "one may always be under way"


def test_delivery_never_reuses_an_unacknowledged_identifier() -> None:
    delivery, _ = delivery_on(Pipe(), window=3)
    delivery.deliver(message(1), qos=1, retain=False)
    delivery._last_id = 65_535
    delivery.deliver(message(2), qos=1, retain=False)
    assert delivery.unacknowledged == {1, 2}


def test_delivery_ignores_an_acknowledgement_of_nothing() -> None:
    delivery, _ = delivery_on(Pipe(), window=1)
    assert not delivery.acknowledged(77)


def test_delivery_drops_what_the_client_cannot_take() -> None:
    pipe = Pipe()
    delivery, _ = delivery_on(pipe, window=1)
    big = Publish(topic="t", payload=b"x" * 200, qos=1, packet_id=1)
    assert not delivery.deliver(big, qos=1, retain=False)
    assert delivery.dropped == 1
    assert delivery.unacknowledged == set()


def test_delivery_at_qos_0_needs_no_identifier() -> None:
    pipe = Pipe()
    delivery, outlet = delivery_on(pipe, window=1)
    assert delivery.deliver(message(1), qos=0, retain=False)
    outlet.flush_now()
    assert pipe.written[0] == 0x30
    assert delivery.unacknowledged == set()
    assert outlet.version is Version.V5


def test_delivery_bounds_properties_like_payloads() -> None:
    delivery, _ = delivery_on(Pipe(), window=1)
    properties = Properties(user_properties=(("k", "v" * 60),))
    reader = PacketReader(role=Role.CLIENT, max_packet_bytes=1000)
    reader.feed(b"\x20\x03\x00\x00\x00")
    assert reader.next_event() is not None
    assert reader.next_event() is None
    publish = Publish(topic="t", qos=1, packet_id=1, properties=properties)
    reader.feed(encode(publish, Version.V5))
    received = reader.next_event()
    assert isinstance(received, Publish)
    for _ in range(4):
        delivery.deliver(received, qos=1, retain=False)
    assert delivery.queued == 1
    assert delivery.dropped == 2
    delivery.acknowledged(1)
    assert not delivery.queued
