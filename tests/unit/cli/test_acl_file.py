from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from typer.testing import CliRunner

from cli import acl_file, target
from cli.failure import CommandFailed
from cli.main import app
from controller.admin import AdminClient
from controller.commands import RuleRecord
from controller.documents import StatusDocument

RULE = RuleRecord(
    id="reads",
    principal="viewer",
    resource="topic.a",
    operations="read",
    created_at=1.0,
    created_by="admin",
    created_epoch=1,
)


class Controller:
    """Answers as a controller whose policy changes with every look, or not."""

    def __init__(self, *, restless: bool = False) -> None:
        self.epoch = 3
        self._restless = restless

    def status(self) -> StatusDocument:
        self.epoch += self._restless
        return cast("StatusDocument", SimpleNamespace(epoch=self.epoch, mode="deny-overrides"))

    def list_rules(self) -> list[RuleRecord]:
        return [RULE]


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    made = Controller()
    for module in (acl_file, target):
        monkeypatch.setattr(module, "admin_client", lambda *_, **__: cast("AdminClient", made))
    return made


def test_export_writes_a_new_file_only(controller: Controller, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    said = CliRunner().invoke(app, ["acl", "export", "--output", str(path)])
    assert said.exit_code == 0
    assert 'id = "reads"' in path.read_text()
    again = CliRunner().invoke(app, ["acl", "export", "--output", str(path)])
    assert isinstance(again.exception, CommandFailed)


def test_drift_tells_by_its_exit_code(controller: Controller, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(CliRunner().invoke(app, ["acl", "export"]).stdout)
    same = CliRunner().invoke(app, ["acl", "drift", str(path)])
    assert (same.exit_code, same.stdout) == (
        0,
        "nothing to change: 1 rules are as in the file (epoch 3)\n",
    )
    path.write_text("rules = []")
    other = CliRunner().invoke(app, ["acl", "drift", str(path)])
    assert other.exit_code == 1
    assert "0 to add, 0 to change, 1 to delete, 0 unchanged" in other.stdout


def test_apply_does_nothing_unless_it_is_told_yes(controller: Controller, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("rules = []")
    said = CliRunner().invoke(app, ["acl", "apply", str(path)], input="n\n")
    assert said.exit_code == 1
    assert "- reads:" in said.stdout


def test_policy_that_changes_while_it_is_read_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restless = cast("AdminClient", Controller(restless=True))
    monkeypatch.setattr(target, "admin_client", lambda *_, **__: restless)
    path = tmp_path / "policy.toml"
    path.write_text("rules = []")
    said = CliRunner().invoke(app, ["acl", "plan", str(path)])
    assert isinstance(said.exception, CommandFailed)
    assert "try again" in str(said.exception)


ODD = """
[[rules]]
id = "all"
principal = "*"
operations = "read"
resource = "topic.**"

[[rules]]
id = "some"
principal = "viewer"
operations = "read"
resource = "topic.a"

[[tests]]
principal = "viewer"
operation = "read"
resource = "topic.a"
expect = "allow"
"""


def test_validate_asks_nobody_and_tells_what_is_odd(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(ODD)
    said = CliRunner().invoke(app, ["acl", "validate", str(path)])
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "over-wide: `all` allows everybody and everything: is that meant?",
        "redundant: `some` says nothing that `all` does not say",
        "2 rules, 1 tests passed",
    ]
    path.write_text(ODD.replace('"allow"', '"deny"'))
    assert isinstance(
        CliRunner().invoke(app, ["acl", "validate", str(path)]).exception, CommandFailed
    )


def test_conflicts_are_those_of_a_file_or_of_the_policy_in_force(
    controller: Controller, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(ODD)
    said = CliRunner().invoke(app, ["acl", "conflicts", str(path), "--json"])
    assert said.exit_code == 1
    assert '"kind":"redundant"' in said.stdout
    assert CliRunner().invoke(app, ["acl", "conflicts"]).exit_code == 0
