"""The conformance table claims nothing without a test, leaves no statement out, and no conformance test is unclaimed."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.tree import ROOT

NUMBERED = """
1.5.4-1,2,3 1.5.5-1 1.5.7-1 2.1.3-1 2.2.1-2,3,4,5,6 2.2.2-1 3.1.0-1,2
3.1.2-1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,22,23,24,25,26,27,28,29
3.1.3-1,2,3,4,5,6,7,8,9,10,11,12 3.1.4-1,2,3,4,5,6 3.2.0-1,2
3.2.2-1,2,3,6,7,8,9,10,12,13,16,19,20,22 3.3.1-1,2,3,4,5,6,7,8,9,10,11,12,13
3.3.2-1,2,3,4,5,6,7,8,11,12,13,14,15,16,17,18,19,20 3.3.4-1,2,3,4,5,9,10 3.4.2-1,2,3 3.5.2-1,2,3
3.6.1-1 3.6.2-1,2,3 3.7.2-1,2,3 3.8.1-1 3.8.3-1,2,3,4,5 3.8.4-1,2,3,4,5,6,7,8 3.9.2-1,2
3.9.3-1,2 3.10.1-1 3.10.3-1,2 3.10.4-1,2,3,4,5,6 3.11.2-1,2 3.11.3-1,2 3.12.4-1 3.14.0-1
3.14.1-1 3.14.2-1,2,3,4 3.14.4-1,2,3 3.15.1-1 3.15.2-1,2,3 4.1.0-1,2 4.2.0-1 4.3.1-1
4.3.2-1,2,3,4,5 4.3.3-1,2,3,4,5,6,7,8,9,10,11,12,13 4.4.0-1,2 4.5.0-1 4.6.0-1,5,6 4.7.0-1
4.7.1-1,2 4.7.2-1 4.7.3-1,2,3,4 4.8.2-1,2,3,4,5,6 4.9.0-1,2,3 4.12.0-1,2,4,5,6 4.12.1-1,2
4.13.1-1 4.13.2-1 6.0.0-1,2,4
"""
"""The standard's numbers of what binds a server; `3.1.2-4,5` is two statements."""

UNNUMBERED = {"A": 18, "C": 2, "D": 2, "E": 2, "F": 1, "G": 4, "I": 2, "K": 11}
"""How many statements of each section the standard gives no number: A.1 to A.18, ..."""

STATES = {"holds", "not yet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of docs/conformance.md."""

    id: str
    state: str
    reason: str
    proofs: tuple[str, ...]


def rows() -> list[Row]:
    """The rows: `| 3.1.2-4 | statement | state | why not | `tests/...` |`."""
    found = []
    for line in (ROOT / "docs" / "conformance.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.fullmatch(r"\d+\.\d+\.\d+-\d+|[A-K]\.\d+", cells[0]):
            proofs = tuple(re.findall(r"`(tests/[^`]+)`", cells[-1]))
            found.append(Row(id=cells[0], state=cells[2], reason=cells[3], proofs=proofs))
    return found


def expected_ids() -> set[str]:
    """Every statement of the checklist."""
    ids: set[str] = set()
    for group in NUMBERED.split():
        chapter, _, numbers = group.partition("-")
        ids.update(f"{chapter}-{number}" for number in numbers.split(","))
    for section, count in UNNUMBERED.items():
        ids.update(f"{section}.{number}" for number in range(1, count + 1))
    return ids


def names_in(path: Path) -> set[str]:
    """The names of the tests in a file; none when there is no such file."""
    if not path.is_file() or not path.name.startswith("test_"):
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(path.read_text()))
    return {
        node.name for node in nodes if isinstance(node, functions) and node.name.startswith("test_")
    }


def proof_exists(proof: str) -> bool:
    """Whether `tests/x/test_y.py::test_z` is there."""
    file, _, name = proof.partition("::")
    return name in names_in(ROOT / file)


def test_statements_are_those_of_the_checklist_each_once() -> None:
    ids = [row.id for row in rows()]
    assert sorted(ids) == sorted(expected_ids())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_statement_is_proved_or_says_why_not(row: Row) -> None:
    assert row.state in STATES
    if row.state == "holds":
        assert row.proofs, f"{row.id} says `holds` and names no test"
        assert not row.reason
    else:
        assert row.reason, f"{row.id} says `not yet` and not why"
    assert [proof for proof in row.proofs if not proof_exists(proof)] == []


def test_conformance_tests_prove_a_statement_each() -> None:
    claimed = {proof for row in rows() for proof in row.proofs}
    written = {
        f"tests/e2e/{path.name}::{name}"
        for path in (ROOT / "tests" / "e2e").glob("test_conformance_*.py")
        for name in names_in(path)
    }
    assert sorted(written - claimed) == []
