"""The feature table claims nothing without a test: the ids are the design's, and a state names its proof."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import pytest

from tests.house.tree import ROOT

COUNTS = {"A": 12, "B": 12, "C": 7, "D": 7, "E": 8, "F": 5, "G": 10, "H": 8, "I": 7, "J": 6}
"""How many rows each section of the design's table has: A1..A12, B1..B12, ... J1..J6."""

IDS = [f"{section}{number}" for section, count in COUNTS.items() for number in range(1, count + 1)]
STATES = {"not yet", "partly", "works"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of docs/features.md."""

    id: str
    state: str
    proofs: tuple[str, ...]


def rows() -> list[Row]:
    """The rows: `| A1 | what | state | missing | `tests/...` |`."""
    found = []
    for line in (ROOT / "docs" / "features.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.fullmatch(r"[A-J]\d+", cells[0]):
            proofs = tuple(re.findall(r"`(tests/[^`]+)`", cells[-1]))
            found.append(Row(id=cells[0], state=cells[2], proofs=proofs))
    return found


def proof_exists(proof: str) -> bool:
    """Whether `tests/x/test_y.py` or `tests/x/test_y.py::test_z` is there."""
    file, _, name = proof.partition("::")
    path = ROOT / file
    if not path.is_file() or not path.name.startswith("test_"):
        return False
    if not name:
        return True
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text())
    return any(isinstance(node, functions) and node.name == name for node in ast.walk(tree))


def test_feature_ids_are_those_of_the_design() -> None:
    assert [row.id for row in rows()] == IDS


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_feature_row_is_proved_as_far_as_it_claims(row: Row) -> None:
    assert row.state in STATES
    if row.state == "not yet":
        assert row.proofs == ()
    else:
        assert row.proofs, f"{row.id} says `{row.state}` and names no test"
        assert [proof for proof in row.proofs if not proof_exists(proof)] == []
