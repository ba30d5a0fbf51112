from __future__ import annotations

import pytest

from acl.errors import NameInvalid, RequestInvalid
from acl.model import (
    MAX_PRINCIPAL_BYTES,
    MAX_RESOURCE_BYTES,
    MAX_RESOURCE_SEGMENTS,
    AccessRequest,
    Operation,
    Principal,
    PrincipalKind,
    Resource,
    ResourceKind,
    parse_operations,
    text_of,
    verify_principal_name,
)


def test_operations_text_goes_both_ways() -> None:
    some = Operation.READ | Operation.WRITE | Operation.EXECUTE
    assert text_of(some) == "read,write,execute"
    assert parse_operations("execute, read,write") == some


def test_operations_all_is_written_out_so_that_it_never_grows() -> None:
    text = text_of(Operation.ALL)
    assert text == "connect,read,write,create,delete,alter,describe,list,execute,admin"
    assert parse_operations(text) == parse_operations("all") == Operation.ALL


@pytest.mark.parametrize("text", ["", "reed", "READ", "read,,write", "read write", "ALL"])
def test_operations_text_with_an_unknown_name_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="is no operation: use one of"):
        parse_operations(text)


@pytest.mark.parametrize(
    "name", ["sensor", "a.b", "alice@example.com", "Ünï", "x" * 255, "$a", "a:b"]
)
def test_principal_may_be_any_token(name: str) -> None:
    assert Principal(name).name == name
    assert verify_principal_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a*",
        "a+",
        "#",
        "a/b",
        "a\\b",
        "{principal}",
        "a}",
        "a\nb",
        "\0",
        "\ud800",
        "x" * 256,
        "é" * 128,
        "a\u00a0b",
        "a\u202eb",
    ],
)
def test_principal_refuses_what_patterns_or_logs_would_misread(name: str) -> None:
    with pytest.raises(NameInvalid):
        Principal(name)


def test_principal_bound_counts_bytes() -> None:
    assert len("é" * 127) < MAX_PRINCIPAL_BYTES
    Principal("é" * 127)


def test_principals_of_two_kinds_are_two() -> None:
    assert Principal("ann") != Principal("ann", PrincipalKind.USER)


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("telemetry/cpu", "topic.telemetry.cpu"),
        ("a/b.c", r"topic.a.b\.c"),
        ("/a", "topic..a"),
        ("a//b", "topic.a..b"),
        ("a/", "topic.a."),
        ("/", "topic.."),
        ("a*{b}\\", r"topic.a\*\{b\}\\"),
        ("$SYS/x", "topic.$SYS.x"),
    ],
)
def test_resource_of_a_topic_has_one_text(topic: str, text: str) -> None:
    resource = Resource.topic(topic)
    assert resource.text == text
    assert Resource.parse(text) == resource
    assert resource.path == ("topic", *topic.split("/"))


def test_resource_of_a_kernel_is_its_name() -> None:
    assert Resource.kernel("zscore").text == "kernel.zscore"
    assert Resource.kernel("a.b/c").segments == ("a.b/c",)
    with pytest.raises(NameInvalid, match="needs a name"):
        Resource.kernel("")


@pytest.mark.parametrize(
    "text",
    ["", "topic", "topics.a", "Topic.a", "topic.a*", "topic.{principal}", r"topic.\a", "acl"],
)
def test_resource_text_without_kind_or_with_a_wildcard_is_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        Resource.parse(text)


def test_resource_is_bounded() -> None:
    deepest = "/".join("a" * MAX_RESOURCE_SEGMENTS)
    assert len(Resource.topic(deepest).segments) == MAX_RESOURCE_SEGMENTS
    with pytest.raises(NameInvalid, match="1 to 128 segments"):
        Resource.topic(deepest + "/a")
    Resource.topic("x" * MAX_RESOURCE_BYTES)
    with pytest.raises(NameInvalid, match="65536 bytes"):
        Resource.topic("x" * MAX_RESOURCE_BYTES + "/")
    with pytest.raises(NameInvalid, match="U\\+0000"):
        Resource.topic("a/b\0")
    with pytest.raises(NameInvalid, match="surrogate"):
        Resource.topic("\udc80")


@pytest.mark.parametrize("topic", ["#", "a/#", "+/b", "a/+", "+"])
def test_resource_with_wildcard_levels_is_a_filter(topic: str) -> None:
    assert Resource.topic(topic).is_filter


def test_resource_without_them_is_none() -> None:
    assert not Resource.topic("a/b").is_filter
    assert not Resource(ResourceKind.KERNEL, ("#",)).is_filter


@pytest.mark.parametrize(
    "operation", [Operation.READ | Operation.WRITE, Operation(0), Operation.ALL]
)
def test_request_asks_for_one_operation(operation: Operation) -> None:
    with pytest.raises(RequestInvalid, match="asks for one operation"):
        AccessRequest(Principal("a"), operation, Resource.topic("a"))
