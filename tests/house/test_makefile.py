"""`make help` explains every target, the fixed names are there, and what CI calls exists."""

from __future__ import annotations

import re
import subprocess

from tests.house.tree import ROOT

FIXED = {
    "venv",
    "demo",
    "test",
    "check",
    "bench",
    "fmt",
    "lint",
    "types",
    "deps",
    "gpu-deps",
    "help",
}
"""The names that people and scripts rely on."""


def _targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE))


def test_help_explains_every_target() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30
    )
    explained = set(re.findall(r"^  make ([a-z-]+) +\S", shown.stdout, re.MULTILINE))
    assert explained == _targets()


def test_fixed_names_are_there() -> None:
    assert _targets() >= FIXED


def test_every_target_is_phony() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == _targets()


def test_documents_and_ci_call_targets_that_exist() -> None:
    texts = [ROOT / ".ci" / "run", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    called = {
        (path.name, target)
        for path in texts
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert {pair for pair in called if pair[1] not in _targets()} == set()


def test_ci_runs_the_readmes_test_command_last() -> None:
    lines = (ROOT / ".ci" / "run").read_text().strip().splitlines()
    assert lines[-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()
