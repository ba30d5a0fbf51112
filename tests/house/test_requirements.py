"""The lock files hold a hash for everything, and everything that pyproject asks for."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.house.tree import ROOT

LOCKS = ("build", "run", "dev")


def _read(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def pinned(name: str) -> dict[str, set[str]]:
    """The names a lock file pins, each with its versions (several where Python's version decides)."""
    found: dict[str, set[str]] = {}
    for line in _read(name).splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line)
        if match:
            found.setdefault(match[1].lower(), set()).add(match[2])
    return found


def wanted(requirement: str) -> str:
    """The name in a requirement such as `coverage[toml]>=7.6`."""
    return re.split(r"[\[<>=~! ;]", requirement, maxsplit=1)[0].lower()


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_a_hash_for_every_requirement(name: str) -> None:
    blocks = re.split(r"\n(?=\S)", _read(name).strip())
    assert blocks
    for block in blocks:
        first, *hashes = block.splitlines()
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==\S+( ; .+)? \\", first), first
        assert hashes, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)


def test_locks_hold_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = {wanted(text) for text in project["project"]["dependencies"]}
    groups = project["dependency-groups"]
    dev = {wanted(text) for group in ("test", "lint") for text in groups[group]}
    assert run <= set(pinned("run"))
    assert run | dev <= set(pinned("dev"))


def test_locks_agree_on_every_version() -> None:
    versions: dict[str, set[str]] = {}
    for name in LOCKS:
        for package, pins in pinned(name).items():
            assert versions.setdefault(package, pins) == pins, package
