"""Policy updates are put together in order, without gaps, and bounded."""

from __future__ import annotations

import pytest

from controller import updates
from controller.errors import RemoteProtocolError
from controller.updates import PolicyAssembler, PolicyUpdate
from controller.wire import Policy

G1, G2, G3 = ("a", "topic.x"), ("b", "topic.y"), ("c", "topic.z")


def part(epoch: int, *grants: tuple[str, str], reset: bool = False, more: bool = False) -> Policy:
    return Policy(epoch=epoch, reset=reset, more=more, grants=grants)


def test_parts_become_one_update() -> None:
    assembler = PolicyAssembler()
    assert assembler.add(part(5, G1, reset=True, more=True)) is None
    assert assembler.add(part(5, G2, reset=True)) == PolicyUpdate(
        epoch=5, reset=True, grants=(G1, G2)
    )
    assert assembler.add(part(6, G3)) == PolicyUpdate(epoch=6, reset=False, grants=(G3,))
    assert assembler.add(part(7, G1, more=True)) is None
    assert assembler.add(part(7)) == PolicyUpdate(epoch=7, reset=False, grants=(G1,))


@pytest.mark.parametrize(
    ("before", "bad"),
    [
        ([], part(5)),
        ([part(5, reset=True)], part(7)),
        ([part(5, reset=True)], part(5)),
        ([part(5, reset=True)], part(4)),
        ([part(5, reset=True)], part(6, reset=True)),
        ([part(5, reset=True, more=True)], part(6, reset=True)),
        ([part(5, reset=True, more=True)], part(5)),
    ],
)
def test_parts_out_of_order_are_refused(before: list[Policy], bad: Policy) -> None:
    assembler = PolicyAssembler()
    for each in before:
        assembler.add(each)
    with pytest.raises(RemoteProtocolError):
        assembler.add(bad)


def test_grants_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "MAX_GRANTS", 3)
    assembler = PolicyAssembler()
    assembler.add(part(5, G1, G2, reset=True, more=True))
    with pytest.raises(RemoteProtocolError, match="more than 3"):
        assembler.add(part(5, G1, G2, reset=True, more=True))
