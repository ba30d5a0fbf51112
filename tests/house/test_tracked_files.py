"""Nothing of one machine gets into the tree: no paths, no registries, no secrets."""

from __future__ import annotations

import re

from tests.house.tree import BINARY_SUFFIXES, ROOT, show, tracked_files

# Spelled in pieces, so that this file passes its own test.
MACHINE_PATHS = re.compile(
    r"(?<![\w.$}])/"
    r"(?:work|farm)/(?:main|shared|\.library)|/root/"
    r"\.|/tmp/"
    r"(?:plan|research)\b"
)
REGISTRIES = re.compile(
    r"pypi\."
    r"org|python"
    r"hosted\.org|npmjs\."
    r"(?:org|com)|deb\.debian"
    r"\.org|(?:extra-)?index-"
    r"url"
)
PRIVATE_KEY = re.compile(r"^\s*-----BEGIN (?:[A-Z]+ )?PRIVATE " + r"KEY-----\s*$")

LARGEST_BYTES = 512 * 1024
"""A tracked file larger than this is a build result or a recording that belongs elsewhere."""


def _hits(pattern: re.Pattern[str]) -> list[str]:
    hits = []
    for path in tracked_files():
        if path.suffix in BINARY_SUFFIXES:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if pattern.search(line):
                hits.append(f"{show(path)}:{number}")
    return hits


def test_no_path_of_one_machine() -> None:
    assert _hits(MACHINE_PATHS) == []


def test_no_registry_address() -> None:
    # The Makefile names the option that keeps addresses out of the lock files.
    assert [hit for hit in _hits(REGISTRIES) if not hit.startswith("Makefile:")] == []


def test_no_private_key() -> None:
    assert _hits(PRIVATE_KEY) == []


def test_no_large_file() -> None:
    large = [show(path) for path in tracked_files() if path.stat().st_size > LARGEST_BYTES]
    assert large == []


def test_scripts_are_executable_and_stop_at_the_first_error() -> None:
    scripts = [
        path
        for path in tracked_files()
        if path.suffix == ".sh" or show(path).startswith((".ci/", ".githooks/"))
    ]
    assert ROOT / ".ci" / "run" in scripts
    for path in scripts:
        assert path.stat().st_mode & 0o111, show(path)
        assert "\nset -eu" in path.read_text(), show(path)
