from __future__ import annotations

from cache.authority import Answers, Authority, AuthorityUnavailable
from cache.errors import CacheError
from tests.unit.acl.builders import a_request, a_rule
from tests.unit.cache.fakes import RuleAuthority, RuleSet


async def test_authority_answers_in_the_order_of_the_questions() -> None:
    authority: Authority = RuleAuthority(RuleSet([a_rule()], epoch=4))
    answers = await authority.ask([a_request("viewer"), a_request("sensor")])
    assert answers.epoch == 4
    assert [decision.allowed for decision in answers.decisions] == [False, True]
    assert isinstance(answers, Answers)


def test_unavailable_is_an_error_of_the_room() -> None:
    assert issubclass(AuthorityUnavailable, CacheError)
