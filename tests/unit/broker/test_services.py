from __future__ import annotations

from dataclasses import MISSING, asdict, fields

from broker.services import Counters, Services


def test_counters_begin_at_zero_and_are_plain_numbers() -> None:
    counted = asdict(Counters())
    assert set(counted.values()) == {0}
    assert all(type(value) is int for value in counted.values())


def test_services_name_everything_a_connection_needs_and_default_nothing() -> None:
    assert all(
        field.default is MISSING and field.default_factory is MISSING for field in fields(Services)
    )
