from __future__ import annotations

import pytest

from acl.model import Principal
from broker.endpoints import Endpoints, Observer
from tests.brokers import TestBroker, allow, running_broker
from transport.http_messages import Request, RequestRefused


def endpoints_of(broker: TestBroker) -> tuple[Endpoints, Observer]:
    endpoints = Endpoints(
        guard=broker.guard,
        authorizer=broker.authorizer,
        page=lambda: b"page",
        not_ready=lambda: broker.guard.refusal,
    )
    who = Principal("prometheus")
    return endpoints, Observer(principal=who, cache=broker.authorizer.open(who), peer="")


async def test_readiness_says_why_not() -> None:
    async with running_broker() as broker:
        endpoints, observer = endpoints_of(broker)
        broker.authorizer.withdraw("no contact with the controller for 30 s")
        answer = await endpoints._answer(observer, Request(method="GET", path="/readyz"))
        assert answer.status == 503
        assert b"no contact" in answer.body
        alive = await endpoints._answer(observer, Request(method="HEAD", path="/healthz"))
        assert alive.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("GET", "/other", 404), ("GET", "/metrics", 403)],
)
async def test_request_that_is_not_served_says_why(method: str, path: str, status: int) -> None:
    async with running_broker() as broker:
        endpoints, observer = endpoints_of(broker)
        with pytest.raises(RequestRefused) as refused:
            await endpoints._answer(observer, Request(method=method, path=path))
        assert refused.value.status == status


async def test_metrics_are_shown_to_whom_a_rule_allows() -> None:
    async with running_broker(allow("prometheus", "describe", "broker.*.metrics")) as broker:
        endpoints, observer = endpoints_of(broker)
        answer = await endpoints._answer(observer, Request(method="GET", path="/metrics"))
        assert answer.body == b"page"
        assert answer.content_type.startswith("text/plain")
