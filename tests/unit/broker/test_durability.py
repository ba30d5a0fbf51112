from __future__ import annotations

import inspect

from broker.durability import Durability, Volatile
from broker.records import RetainedRecord
from broker.store import Store
from tests.store_records import a_message, a_queued, a_session, a_subscription


def test_volatile_is_as_durable_as_it_will_ever_be() -> None:
    store, told = Volatile(), list[bool]()
    store.put_message(a_message())
    store.when_durable(told.append)
    assert told == [True], "at once, before it returns"
    assert store.failing == ""


def test_volatile_takes_every_call_and_keeps_nothing() -> None:
    store = Volatile()
    store.put_session(a_session())
    store.put_subscription(a_subscription())
    store.put_message(a_message())
    store.put_queued(a_queued())
    store.put_retained(RetainedRecord(topic="t", message_id=1))
    store.settle(1, 5)
    assert not vars(store)


def test_store_has_every_call_that_the_broker_makes() -> None:
    for name, wanted in vars(Durability).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        names = [*inspect.signature(wanted).parameters]
        assert [*inspect.signature(getattr(Store, name)).parameters] == names, name
    assert isinstance(vars(Store)["failing"], property)
