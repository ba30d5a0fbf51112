"""Targets of requests parsed without repair; problems that programs can read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, strategies as st

from transport.http_messages import RequestRefused, json_response, problem, read_target


def test_target_is_split_first_and_decoded_after() -> None:
    target = read_target(b"/v1/acl/rules/a%2Fb%20c?x=1&empty=&y=%C3%A9+z")
    assert target.segments == ("v1", "acl", "rules", "a/b c")
    assert target.path == "/v1/acl/rules/a%2Fb c"
    assert target.query == {"x": "1", "empty": "", "y": "é z"}


@pytest.mark.parametrize(
    ("raw", "path"),
    [(b"/", "/"), (b"/a/", "/a/"), (b"https://host:1/a?b", "/a"), (b"HTTP://h/x", "/x")],
)
def test_target_may_be_absolute(raw: bytes, path: str) -> None:
    assert read_target(raw).path == path


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"host:443",
        b"http://host",
        b"/a/../b",
        b"/a/%2e%2E/b",
        b"/./b",
        b"/%zz",
        b"/%",
        b"/a#b",
        b"/%00",
        b"/%0a",
        b"/%ff",
        b"/\xff",
        b"/?a=1&a=2",
        b"/?a=%ff",
        b"/?" + b"&".join(b"k%d=1" % i for i in range(65)),
    ],
)
def test_ambiguous_or_broken_targets_are_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_target(raw)
    assert refused.value.status == 400


@given(raw=st.binary(max_size=60))
def test_any_target_raises_nothing_else(raw: bytes) -> None:
    try:
        target = read_target(b"/" + raw)
    except RequestRefused:
        return
    assert target.path.startswith("/")
    assert ".." not in target.segments


def test_problem_tells_programs_and_people() -> None:
    answer = problem(403, "not authorized", decision="d-1", headers={"retry-after": "1"})
    assert (answer.status, answer.content_type) == (403, "application/problem+json")
    assert answer.headers == {"retry-after": "1"}
    assert msgspec.json.decode(answer.body) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "not authorized",
        "decision": "d-1",
    }


def test_json_response_is_json() -> None:
    answer = json_response([1, {"a": None}], status=201)
    assert (answer.status, answer.content_type) == (201, "application/json")
    assert msgspec.json.decode(answer.body) == [1, {"a": None}]
