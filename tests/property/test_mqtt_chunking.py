"""Any chunking of the bytes gives the same events, and the same error, as the plain twin."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from mqtt.packets import Role, Version
from tests.property.mqtt_packets import ROLES, VERSIONS, crowds, streams
from tests.property.mqtt_streams import fast_events, plain_events

ALIASES = st.sampled_from([0, 0, 3, 65_535])


def verify_any_chunking(
    data: st.DataObject, wire: bytes, version: Version, role: Role, aliases: int
) -> None:
    wanted = plain_events(wire, version, role, aliases)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert fast_events(chunks, version, role, aliases) == wanted
    assert fast_events([wire], version, role, aliases) == wanted
    step = data.draw(st.integers(1, 5))
    crumbs = [wire[at : at + step] for at in range(0, len(wire), step)]
    assert fast_events(crumbs, version, role, aliases) == wanted


@settings(max_examples=200, deadline=None)
@given(data=st.data(), version=VERSIONS, role=ROLES, aliases=ALIASES)
def test_any_chunking_gives_the_events_of_the_plain_twin(
    data: st.DataObject, version: Version, role: Role, aliases: int
) -> None:
    sender = Role.CLIENT if role is Role.SERVER else Role.SERVER
    wire = data.draw(streams(version, sender))
    verify_any_chunking(data, wire, version, role, aliases)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), version=VERSIONS, role=ROLES, aliases=ALIASES)
def test_runs_hold_just_what_the_plain_twin_gives(
    data: st.DataObject, version: Version, role: Role, aliases: int
) -> None:
    sender = Role.CLIENT if role is Role.SERVER else Role.SERVER
    wire = data.draw(crowds(version, sender))
    verify_any_chunking(data, wire, version, role, aliases)
