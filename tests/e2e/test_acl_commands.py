"""`stockade acl` on a live system: a change holds for connected clients at once, and leaves its mark in the audit log."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cli.target import connect_to
from tests.e2e.clients import (
    NOT_AUTHORIZED,
    audit_lines,
    await_audit,
    eventually,
    paho,
    ruled,
    run,
    unique,
)
from tests.e2e.running import Running, running, stockade
from tests.needs import require_tool

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.e2e.clients import AuditLine, Paho

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A system whose policy these tests change."""
    with running(tmp_path_factory.mktemp("acl-live"), bench=True) as started:
        yield started


def audit_of(system: Running) -> Path:
    """The controller's audit log."""
    return system.folder / "audit" / "controller.jsonl"


def acl(system: Running, verb: str, *arguments: str) -> str:
    """`stockade acl VERB`, which must succeed; what it printed."""
    done = stockade("acl", verb, "--dir", str(system.folder), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add(system: Running, principal: str, operations: str, resource: str) -> str:
    """`stockade acl add`; the rule's id."""
    rule = unique("rule")
    who = ("--id", rule, "--principal", principal, "--operations", operations)
    acl(system, "add", *who, "--resource", resource)
    return rule


@contextmanager
def stream(publisher: Paho, topic: str) -> Generator[list[int]]:
    """Publish numbers as fast as the client can; the list's only item is the last number given to it."""
    sent = [0]
    stopped = threading.Event()

    def publish() -> None:
        for number in itertools.count(1):
            if stopped.is_set():
                return
            sent[0] = number
            publisher.publish(topic, b"%d" % number)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield sent
    finally:
        stopped.set()
        thread.join(15)


def numbers(client: Paho) -> list[int]:
    """What has arrived from a stream so far."""
    found: list[int] = []
    while not client.messages.empty():
        found.append(int(client.receive().payload))
    return found


def test_added_rule_holds_for_connected_clients_and_deleted_does_not_deliver_once_more(
    own: Running,
) -> None:
    level = unique("live")
    topic = f"bench/{level}/a"
    with paho(own.ready, "viewer") as viewer, paho(own.ready, "bench") as bench:
        assert viewer.subscribe(f"bench/{level}/#").code == NOT_AUTHORIZED
        with stream(bench, topic) as sent:
            rule = add(own, "viewer", "read", f"topic.bench.{level}.**")
            assert viewer.subscribe(f"bench/{level}/#").code == 0
            eventually(lambda: numbers(viewer))

            acl(own, "delete", rule)
            last = sent[0]
            eventually(lambda: sent[0] > last + 200)
        fence = f"telemetry/{unique('fence')}"
        assert viewer.subscribe(fence).code == 0
        with paho(own.ready, "sensor") as sensor:
            sensor.publish(fence, b"0", qos=1)
        seen: list[int] = []
        while 0 not in seen:
            seen.append(int(viewer.receive().payload))
        assert max(seen) <= last

        with ruled(own.ready, "viewer", "read", f"topic.bench.{level}.**"):
            bench.publish(topic, b"7", qos=1)  # the subscription was never given up
            assert viewer.receive().payload == b"7"


def test_added_rule_lets_a_connected_client_publish_until_it_is_deleted(own: Running) -> None:
    level = unique("write")
    topic = f"bench/{level}"
    with paho(own.ready, "sensor") as sensor:
        assert sensor.publish(topic, b"1", qos=1).code == NOT_AUTHORIZED
        with ruled(own.ready, "sensor", "write", f"topic.bench.{level}"):
            assert sensor.publish(topic, b"2", qos=1).code < 0x80
        assert sensor.publish(topic, b"3", qos=1).code == NOT_AUTHORIZED


def test_deny_rule_wins_at_once(own: Running) -> None:
    level = unique("deny")
    with paho(own.ready, "sensor") as sensor:
        assert sensor.publish(f"telemetry/{level}", b"1", qos=1).code < 0x80
        with ruled(own.ready, "sensor", "write", f"topic.telemetry.{level}", effect="deny"):
            assert sensor.publish(f"telemetry/{level}", b"2", qos=1).code == NOT_AUTHORIZED
            assert sensor.publish(f"telemetry/{level}-other", b"3", qos=1).code < 0x80
        assert sensor.publish(f"telemetry/{level}", b"4", qos=1).code < 0x80


def test_every_change_is_audited_with_who_made_it(own: Running) -> None:
    rule = add(own, "viewer", "read", "topic.audited")
    acl(own, "delete", rule)

    def changes() -> list[AuditLine]:
        found = [line for line in audit_lines(audit_of(own)) if rule in json.dumps(line)]
        return found if len(found) == 2 else []

    marks = eventually(changes)
    assert [mark["kind"] for mark in marks] == ["acl.rule_added", "acl.rule_deleted"]
    assert {(mark["principal"], mark["outcome"]) for mark in marks} == {("admin", "allow")}
    sequence = [line["sequence"] for line in audit_lines(audit_of(own))]
    assert sequence == list(range(1, len(sequence) + 1))


@pytest.mark.needs("curl")
@pytest.mark.parametrize("client", ["viewer", "bench"])
def test_client_without_a_rule_gets_403_from_the_api(own: Running, client: str) -> None:
    files = own.ready.clients[client]
    curl = [
        *(require_tool("curl", package="curl"), "--silent", "--cacert", files.ca),
        *("--cert", files.cert, "--key", files.key, "--write-out", "\n%{http_code}"),
    ]
    url = f"{own.ready.controller.api}/v1/acl/rules"
    admin = connect_to(own.ready.controller.api, own.ready.clients["admin"])
    before = list(admin.list_rules())
    rule = '{"principal": "viewer", "resource": "acl.**", "operations": "all"}'
    wrote = ("--data", rule, "--header", "Content-Type: application/json")
    for options in ((url,), (*wrote, url), ("-X", "DELETE", f"{url}/everyone-connects")):
        body, _, status = run([*curl, *options]).stdout.decode().rpartition("\n")
        assert status == "403", body
        assert "everyone-connects" not in body
    assert list(admin.list_rules()) == before
    denied = await_audit(audit_of(own), principal=f"client:{client}", outcome="deny")
    assert denied["kind"] == "authorization.denied"


@pytest.mark.needs("curl")
def test_metrics_are_for_those_with_a_rule_only(own: Running) -> None:
    statuses: dict[str, str] = {}
    for client in ("viewer", "admin"):
        files = own.ready.clients[client]
        options = ("--cacert", files.ca, "--cert", files.cert, "--key", files.key)
        for page in ("metrics", "healthz", "readyz"):
            done = run(
                [
                    *(require_tool("curl", package="curl"), "--silent", *options),
                    *("--output", "/dev/null", "--write-out", "%{http_code}"),
                    f"{own.ready.broker.metrics}/{page}",
                ]
            )
            statuses[f"{client} {page}"] = done.stdout.decode()
    assert statuses == {
        "viewer metrics": "403",
        "viewer healthz": "200",
        "viewer readyz": "200",
        "admin metrics": "200",
        "admin healthz": "200",
        "admin readyz": "200",
    }
