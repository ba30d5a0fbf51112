from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from typing_extensions import override

from acl.model import AccessRequest, Operation, Principal, Resource
from acl.rules import RuleSet
from broker.authority import MeasuredAuthority
from cache.authority import Answers
from tests.brokers import RuleAuthority

QUESTION = AccessRequest(Principal("sensor"), Operation.WRITE, Resource.topic("t"))


async def test_authority_measures_every_batch(autojump_clock: trio.abc.Clock) -> None:
    class Slow(RuleAuthority):
        @override
        async def ask(self, requests: Sequence[AccessRequest]) -> Answers:
            await trio.sleep(0.25)
            return await super().ask(requests)

    seconds: list[float] = []
    authority = MeasuredAuthority(seconds.append)
    authority.attach(Slow(RuleSet((), epoch=3)))
    answers = await authority.ask([QUESTION])
    assert answers.epoch == 3
    assert seconds == [0.25]


async def test_authority_without_a_link_fails() -> None:
    with pytest.raises(RuntimeError, match="no link"):
        await MeasuredAuthority(lambda _: None).ask([QUESTION])
