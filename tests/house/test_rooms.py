"""Every room says what it knows, what it never does, and where its doors are; every module opens with its purpose."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.tree import ROOMS, ROOT, modules, python_files, show


@pytest.mark.parametrize("room", ROOMS)
def test_room_docstring_has_the_three_headings(room: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    for heading in ("Knows:", "Never:", "Doors:"):
        assert re.search(rf"^{heading} \S", docstring, re.MULTILINE), (
            f"{room}/__init__.py: {heading}"
        )


@pytest.mark.parametrize("room", ROOMS)
def test_room_init_holds_nothing_but_its_docstring(room: str) -> None:
    tree = ast.parse((ROOT / room / "__init__.py").read_text())
    kinds = {type(node) for node in tree.body}
    assert kinds <= {ast.Expr, ast.ImportFrom}, f"{room}/__init__.py is a docstring, not a module"


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_typed(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_opens_with_what_it_is_for(room: str) -> None:
    silent = [show(p) for p in modules(room) if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def test_every_file_postpones_annotations() -> None:
    wrong = []
    for path in python_files():
        imports = [
            node.module
            for node in ast.parse(path.read_text(), filename=str(path)).body[:2]
            if isinstance(node, ast.ImportFrom)
        ]
        if "__future__" not in imports:
            wrong.append(show(path))
    assert not wrong, (
        "`from __future__ import annotations` comes first, or right after the docstring"
    )


def test_rooms_hold_no_tests_and_no_generic_names() -> None:
    generic = {"utils", "util", "common", "core", "helpers", "misc", "base"}
    wrong = [
        show(path)
        for room in ROOMS
        for path in modules(room)
        if path.stem in generic or path.stem.startswith("test_")
    ]
    assert not wrong, "a module is named after its one concept"
