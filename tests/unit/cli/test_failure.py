"""A command's failure is one line for the operator."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from acl.errors import AclError
from certs.settings import SettingsError
from cli.failure import ROOMS, CommandFailed, describe, first_cause, is_meant_for_operators


def test_describe_shows_the_message_of_a_room() -> None:
    assert describe(CommandFailed("no `x`: make it")) == "error: no `x`: make it"
    assert describe(SettingsError("`a.toml` is not TOML")) == "error: `a.toml` is not TOML"
    assert is_meant_for_operators(AclError("no"))


def test_describe_is_one_line() -> None:
    assert describe(CommandFailed("a\n  b\tc")) == "error: a b c"


def test_describe_shows_details_below_its_line() -> None:
    failure = CommandFailed("it died", details=["one", "two"])
    assert describe(failure) == "error: it died\n  one\n  two"


def test_describe_finds_the_first_cause_in_groups() -> None:
    inner = CommandFailed("inner")
    group = BaseExceptionGroup(
        "outer", [BaseExceptionGroup("middle", [inner]), ValueError("other")]
    )
    assert first_cause(group) is inner
    assert describe(group) == "error: inner"


def test_describe_calls_a_bug_a_bug() -> None:
    assert "this is a bug" in describe(ValueError("x"))
    assert "STOCKADE_TRACEBACK=1" in describe(KeyError("x"))


def test_describe_calls_an_internal_error_a_bug() -> None:
    class OddInternalError(Exception):
        __module__ = "acl.odd"

    assert not is_meant_for_operators(OddInternalError())


def test_describe_explains_what_the_system_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "missing").read_text()
    assert describe(caught.value) == f"error: no such file or directory `{tmp_path / 'missing'}`"


def test_rooms_are_those_of_the_wheel() -> None:
    root = Path(__file__).resolve().parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == ROOMS
