"""The documents are where people look for them, say what they must, and point nowhere that is not there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.house.tree import ROOT, show, tracked_files

if TYPE_CHECKING:
    from pathlib import Path

ADR_HEADINGS = ("## Context", "## Decision", "## Consequences")

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_changelog_has_an_unreleased_section() -> None:
    assert re.search(r"^## Unreleased$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_decisions_are_numbered_once_without_a_gap() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "adr").iterdir())
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in names), names
    assert [int(name[:4]) for name in names] == list(range(len(names)))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda path: path.name
)
def test_decision_has_the_three_headings(path: Path) -> None:
    text = path.read_text()
    assert all(f"\n{heading}\n" in text for heading in ADR_HEADINGS)
    assert text.startswith("# ")


@pytest.mark.parametrize("path", DOCUMENTS, ids=show)
def test_document_points_at_files_that_exist(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_documents_that_code_points_at_exist() -> None:
    named = {
        (show(path), name)
        for path in tracked_files()
        if path.suffix in {".py", ".toml", ".sh", ".cu", ".h"}
        for name in re.findall(r"\bdocs/[a-z/0-9-]+\.md", path.read_text())
    }
    assert [pair for pair in sorted(named) if not (ROOT / pair[1]).is_file()] == []


def test_every_document_is_listed_in_its_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    names = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]
    assert [name for name in names if f"]({name})" not in index] == []
