"""`stockade acl` against a running system: what it changes holds at once, and what it says is what is decided."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.clients import eventually, paho, ruled, unique
from tests.e2e.running import Running, running, stockade

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A system whose policy these tests change."""
    with running(tmp_path_factory.mktemp("acl")) as started:
        yield started


def acl(system: Running, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `stockade acl VERB --dir ...`."""
    return stockade("acl", verb, "--dir", str(system.folder), *arguments)


def ask(
    system: Running, principal: str, operation: str, resource: str
) -> subprocess.CompletedProcess[str]:
    """Run `stockade acl test`."""
    return acl(
        system, "test", "--principal", principal, "--operation", operation, "--resource", resource
    )


def test_list_shows_the_first_policy(own: Running) -> None:
    shown = acl(own, "list", "--json")
    assert shown.returncode == 0, shown.stderr
    rules = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {"everyone-connects", "sensor-calls-zscore"} <= {rule["id"] for rule in rules}
    assert "sensor-calls-zscore" in acl(own, "list").stdout


def test_test_names_the_rule_and_tells_by_its_exit_code(own: Running) -> None:
    allowed = ask(own, "sensor", "write", "topic.telemetry.cpu")
    assert allowed.returncode == 0
    assert "sensor-writes-telemetry" in allowed.stdout
    denied = ask(own, "viewer", "write", "topic.telemetry.cpu")
    assert denied.returncode == 1
    assert denied.stdout.startswith("deny by no rule")
    assert denied.stderr == ""


def test_added_rule_holds_until_it_is_deleted(own: Running) -> None:
    question = ("viewer", "read", "topic.lab.a")
    assert ask(own, *question).returncode == 1
    added = acl(
        own,
        "add",
        "--id",
        "lab",
        "--principal",
        "viewer",
        "--operations",
        "read",
        "--resource",
        "topic.lab.**",
    )
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("added `lab` (epoch ")
    assert "not confirmed" not in added.stdout
    assert ask(own, *question).returncode == 0
    assert acl(own, "delete", "lab").returncode == 0
    assert ask(own, *question).returncode == 1


def test_wrong_rule_is_refused_and_changes_nothing(own: Running) -> None:
    before = acl(own, "list", "--json").stdout
    refused = acl(
        own, "add", "--principal", "viewer", "--operations", "fly", "--resource", "topic.a"
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr
    assert acl(own, "list", "--json").stdout == before


def test_unknown_rule_cannot_be_deleted(own: Running) -> None:
    refused = acl(own, "delete", "nobody-made-this")
    assert refused.returncode == 1
    assert len(refused.stderr.strip().splitlines()) == 1


def test_client_without_a_rule_may_not_administer(own: Running) -> None:
    sensor = own.ready.clients["sensor"]
    refused = stockade(
        "acl",
        "list",
        "--api",
        own.ready.controller.api,
        "--ca",
        sensor.ca,
        "--cert",
        sensor.cert,
        "--key",
        sensor.key,
    )
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ")


def test_who_can_and_what_can_show_the_policy_the_other_way_round(own: Running) -> None:
    shown = acl(own, "who-can", "read", "topic.telemetry.cpu", "--json")
    assert shown.returncode == 0, shown.stderr
    assert {"viewer"} == {grant["principal"] for grant in json.loads(shown.stdout)["grants"]}
    assert "viewer-reads-telemetry" in acl(own, "who-can", "read", "topic.telemetry.cpu").stdout
    shown = acl(own, "what-can", "sensor", "--json")
    found = {grant["resource"]: grant["operations"] for grant in json.loads(shown.stdout)["grants"]}
    assert found["topic.results.sensor.**"] == "read,write"
    assert "kernel.zscore" in acl(own, "what-can", "sensor").stdout
    refused = acl(own, "who-can", "read", "topic.telemetry.#")
    assert refused.returncode == 1
    assert "is a filter" in refused.stderr


def test_mode_changes_what_is_decided_at_once(own: Running) -> None:
    question = ("viewer", "read", "topic.telemetry.cpu")
    denied = ("--id", "no-cpu", "--principal", "*", "--operations", "read", "--effect", "deny")
    assert acl(own, "add", *denied, "--resource", "topic.*.cpu").returncode == 0
    assert acl(own, "mode").stdout == "deny-overrides\n"
    said = ask(own, *question)
    assert said.returncode == 1
    assert "by rule `no-cpu`" in said.stdout
    assert "do not decide (deny-overrides): `viewer-reads-telemetry`" in said.stdout
    changed = acl(own, "mode", "allow-overrides")
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout.startswith("set mode `allow-overrides` (epoch ")
    assert ask(own, *question).returncode == 0
    again = acl(own, "mode", "allow-overrides")
    assert again.returncode == 1
    assert "is `allow-overrides` already" in again.stderr
    assert acl(own, "mode", "majority").returncode == 2
    assert acl(own, "mode", "deny-overrides").returncode == 0
    assert acl(own, "delete", "no-cpu").returncode == 0


def test_policy_file_is_planned_applied_and_watched(own: Running, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    exported = acl(own, "export", "--output", str(file))
    assert exported.returncode == 0, exported.stderr
    assert acl(own, "drift", str(file)).returncode == 0
    policy = file.read_text()
    file.write_text(
        policy
        + """
[[rules]]
id = "lab"
principal = "viewer"
operations = "read"
resource = "topic.lab.**"
effect = "allow"

[[tests]]
principal = "viewer"
operation = "read"
resource = "topic.lab.a"
expect = "allow"

[[tests]]
principal = "viewer"
operation = "write"
resource = "topic.lab.a"
expect = "deny"
"""
    )
    planned = acl(own, "plan", str(file))
    assert planned.returncode == 0, planned.stderr
    assert "+ lab: allow viewer read topic.lab.**" in planned.stdout
    assert "1 to add, 0 to change, 0 to delete" in planned.stdout
    assert ask(own, "viewer", "read", "topic.lab.a").returncode == 1, "a plan changes nothing"
    applied = acl(own, "apply", str(file), "--yes")
    assert applied.returncode == 0, applied.stderr
    assert ask(own, "viewer", "read", "topic.lab.a").returncode == 0
    file.write_text(file.read_text().replace('expect = "deny"', 'expect = "allow"'))
    refused = acl(own, "apply", str(file), "--yes")
    assert refused.returncode == 1
    assert "1 of 2 tests" in refused.stderr
    file.write_text(policy)
    assert acl(own, "drift", str(file)).returncode == 1
    assert acl(own, "apply", str(file), "--yes").returncode == 0
    assert ask(own, "viewer", "read", "topic.lab.a").returncode == 1


def test_rule_is_changed_in_one_step(own: Running) -> None:
    question = ("viewer", "read", "topic.telemetry.cpu")
    rule = "viewer-reads-telemetry"
    assert acl(own, "disable", rule).returncode == 0
    assert ask(own, *question).returncode == 1
    assert acl(own, "enable", rule).returncode == 0
    changed = acl(own, "update", rule, "--resource", "topic.elsewhere.**")
    assert changed.returncode == 0, changed.stderr
    assert ask(own, *question).returncode == 1
    shown = json.loads(acl(own, "info", rule).stdout)
    assert (shown["created_by"], shown["changed_by"]) == ("bootstrap", "admin")
    assert acl(own, "update", rule, "--resource", "topic.telemetry.**").returncode == 0
    assert ask(own, *question).returncode == 0
    assert "nothing to change" in acl(own, "update", rule).stderr
    assert "no rule `none`" in acl(own, "info", "none").stderr


def test_rule_applies_at_its_time_and_until_its_end(own: Running) -> None:
    question = ("viewer", "read", "topic.office.door")
    office = ("--principal", "viewer", "--operations", "read", "--resource", "topic.office.**")
    added = acl(
        own, "add", "--id", "office", *office, "--tag", "building",
        "--condition", 'time in "Mon-Fri 08:00-18:00 Europe/Berlin"',
        "--expires", "2037-01-01",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    test = ("test", "--principal", question[0], "--operation", question[1])
    works = acl(own, *test, "--resource", question[2], "--at", "2026-07-06T10:00")
    assert works.returncode == 0, works.stdout
    assert "from 2026-07-06 16:00:00 UTC on" in works.stdout
    assert acl(own, *test, "--resource", question[2], "--at", "2026-07-05T10:00").returncode == 1
    assert acl(own, *test, "--resource", question[2], "--at", "2037-01-05T10:00").returncode == 1
    for wrong, complaint in (("time", "needs `in`"), ('time in "Mon Moon/Sea"', "no time zone")):
        refused = acl(own, "add", "--id", "wrong", *office, "--condition", wrong)
        assert refused.returncode == 1
        assert complaint in refused.stderr
    assert acl(own, "delete", "office").returncode == 0


def test_decision_a_client_was_told_is_explained(own: Running) -> None:
    topic = f"telemetry/{unique('explained')}"
    with paho(own.ready, "viewer") as viewer:
        refused = viewer.publish(topic, b"1", qos=1)
    decision = refused.text.rpartition(" ")[2]
    assert decision.startswith("d-")
    log = own.folder / "audit" / "broker.jsonl"
    eventually(lambda: log.exists() and decision in log.read_text())
    said = acl(own, "explain", decision)
    assert said.returncode == 0, said.stderr
    assert f"publish topic.{topic.replace('/', '.')}" in said.stdout
    assert "who:    viewer from 127.0.0.1" in said.stdout
    assert "deny by no rule: no rule allows it" in said.stdout
    resource = f"topic.{topic.replace('/', '.')}"
    with ruled(own.ready, "viewer", "write", resource):
        assert ": allow by rule" in acl(own, "explain", decision).stdout
