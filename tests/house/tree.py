"""What the house rules look at: the tree, its rooms, its modules, its tracked files."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ROOMS = (
    "mqtt",
    "acl",
    "vault",
    "certs",
    "transport",
    "cache",
    "controller",
    "gpu",
    "governance",
    "client",
    "broker",
    "cli",
)
"""Every package, from the ground up. A new room needs an ADR, its floor in pyproject and a line here."""

BINARY_SUFFIXES = frozenset({".png", ".svg", ".gz", ".bin", ".whl"})


def modules(room: str) -> list[Path]:
    """Every Python module of a room, the generated and hidden ones left out."""
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def python_files() -> list[Path]:
    """Every Python file of the tree: rooms, tests, benchmarks."""
    found = [path for room in ROOMS for path in modules(room)]
    for folder in ("tests", "benchmarks"):
        found += [p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts]
    return sorted(found)


def tracked_files() -> list[Path]:
    """Every file git tracks or would add; in an unpacked archive without git, none is known and that is an error."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    )
    names = listing.stdout.decode().split("\0")
    return sorted(ROOT / name for name in names if name and (ROOT / name).is_file())


def show(path: Path) -> str:
    """The path as a reader knows it: from the top of the tree."""
    return path.relative_to(ROOT).as_posix()
