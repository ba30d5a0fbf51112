"""One owner per top-level name, a mirror test per module, and no package that could shadow a room."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import cast

import pytest

from tests.house.tree import ROOMS, ROOT, modules, show, tracked_files

OWNERS = {
    **dict.fromkeys(ROOMS, "a room"),
    "benchmarks": "what `make bench` runs, and its recorded results",
    "deploy": "how the machine gets what we need",
    "docs": "what people read",
    "requirements": "locked dependencies",
    "tests": "every test",
    ".ci": "the CI's one command",
    ".githooks": "the local hooks",
}
"""Every top-level folder and what it is for. A name that is not here has no owner."""

FILES = {
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
}

NO_MIRROR: dict[str, str] = {}
"""Modules without a mirror test, each with the reason. Keep it short."""

MAX_EXCEPTIONS = 5


def is_only_names(path: Path) -> bool:
    """Whether a module named `errors` has classes without behaviour: those are tested where they are raised."""
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return path.stem == "errors" and not any(isinstance(node, functions) for node in ast.walk(tree))


def mirror(room: str, path: Path) -> Path:
    """Where the mirror test of a module lies."""
    inner = path.relative_to(ROOT / room)
    return ROOT / "tests" / "unit" / room / inner.with_name(f"test_{inner.stem}.py")


def test_every_top_level_name_has_an_owner() -> None:
    tops = {path.relative_to(ROOT).parts for path in tracked_files()}
    assert {parts[0] for parts in tops if len(parts) > 1} <= set(OWNERS)
    assert {parts[0] for parts in tops if len(parts) == 1} <= FILES


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_has_its_mirror_test(room: str) -> None:
    missing = [
        f"{show(path)} -> {show(mirror(room, path))}"
        for path in modules(room)
        if path.stem not in {"__init__", "__main__"}
        and show(path) not in NO_MIRROR
        and not is_only_names(path)
        and not mirror(room, path).is_file()
    ]
    assert not missing


def test_exceptions_from_the_mirror_rule_are_few_and_real() -> None:
    assert len(NO_MIRROR) <= MAX_EXCEPTIONS
    assert [name for name in NO_MIRROR if not (ROOT / name).is_file()] == []


def test_tests_hold_no_init_files() -> None:
    found = [show(path) for path in (ROOT / "tests").rglob("__init__.py")]
    assert not found, "it would replace the room of the same name"


def _table(document: dict[str, object], *keys: str) -> dict[str, object]:
    for key in keys:
        document = cast("dict[str, object]", document[key])
    return document


def test_every_tool_looks_at_every_room() -> None:
    settings = cast("dict[str, object]", tomllib.loads((ROOT / "pyproject.toml").read_text()))
    tool = _table(settings, "tool")
    places = {
        "the wheel": _table(tool, "hatch", "build", "targets", "wheel")["packages"],
        "coverage": _table(tool, "coverage", "run")["source_pkgs"],
        "import-linter": _table(tool, "importlinter")["root_packages"],
        "mypy": _table(tool, "mypy")["files"],
        "pyright": _table(tool, "pyright")["include"],
        "ruff": _table(tool, "ruff", "lint", "isort")["known-first-party"],
    }
    for tool_name, names in places.items():
        assert set(ROOMS) <= set(cast("list[str]", names)), tool_name
