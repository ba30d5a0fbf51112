from __future__ import annotations

import pytest
import trio
import trio.testing

from client.errors import ConnectionLost, LocalMisuse
from client.replies import CORRELATION_BYTES, MAX_REQUESTS, Replies
from mqtt.packets import Properties, Publish


def answer(correlation: bytes | None, payload: bytes = b"") -> Publish:
    return Publish(topic="r", payload=payload, properties=Properties(correlation_data=correlation))


async def test_answers_find_their_requests_in_any_order() -> None:
    replies = Replies("r")
    requests = [await replies.open() for _ in range(3)]
    assert {len(request.correlation) for request in requests} == {CORRELATION_BYTES}
    for request in reversed(requests):
        replies.settle(answer(request.correlation, request.correlation))
    assert [r.answer.payload for r in requests if r.answer] == [r.correlation for r in requests]
    assert all(request.done.is_set() for request in requests)


async def test_stray_answers_are_counted_and_change_nothing() -> None:
    replies = Replies("r")
    request = await replies.open()
    replies.settle(answer(None))
    replies.settle(answer(b"unknown"))
    assert replies.strays == 2
    assert not request.done.is_set()
    replies.settle(answer(request.correlation, b"first"))
    replies.settle(answer(request.correlation, b"second"))
    assert request.answer is not None
    assert request.answer.payload == b"first"
    replies.close(request)
    replies.settle(answer(request.correlation))
    assert replies.strays == 4


async def test_open_requests_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    replies = Replies("r")
    opened = replies.open_many(MAX_REQUESTS)
    assert len(opened) == len(replies) == MAX_REQUESTS
    assert replies.open_many(5) == []
    with trio.move_on_after(10) as scope:
        await replies.open()
    assert scope.cancelled_caught
    replies.close(opened[0])
    replies.close(opened[0])
    assert len(replies.open_many(5)) == 1
    with pytest.raises(LocalMisuse, match="at most"):
        replies.open_many(MAX_REQUESTS + 1)


async def test_fail_wakes_everyone_now_and_later() -> None:
    replies = Replies("r")
    request = await replies.open()
    replies.fail(ConnectionLost("gone"))
    assert request.done.is_set()
    assert request.answer is None
    with pytest.raises(ConnectionLost):
        await replies.open()
    with pytest.raises(ConnectionLost):
        replies.open_many(1)
