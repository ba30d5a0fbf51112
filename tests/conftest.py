"""What holds for every test: the order of a run, and what a skip means in CI.

*Rules of this file.* Fast tests come first (house, unit, property, component, e2e), so that a broken tree says so
early. On a desk a test may be skipped when something is not installed; where `CI` is set everything is installed, so a
skip there has failed, unless its reason names hardware that no CI machine has (`ALLOWED_SKIPS`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

ORDER = ("house", "unit", "property", "vectors", "component", "fuzz", "e2e")

ALLOWED_SKIPS = ("no CUDA device",)
"""A skip whose reason holds one of these is about hardware, not about something that was not installed."""


def is_ci() -> bool:
    """Whether this run is CI's (the environment variable `CI` is set and not empty)."""
    return bool(os.environ.get("CI"))


def rank(node_id: str) -> int:
    """The place of a test in a run, by its folder under tests/."""
    parts = node_id.split("/")
    folder = parts[1] if len(parts) > 1 else ""
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


def forbidden_skip(reason: str) -> bool:
    """Whether a skip with this reason is a failure in CI."""
    return not any(allowed in reason for allowed in ALLOWED_SKIPS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast first; within a folder the order stays as it was."""
    items.sort(key=lambda item: rank(item.nodeid))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    longrepr = report.longrepr
    return longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)


def _fail_forbidden_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if is_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report)
        if forbidden_skip(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where everything is installed: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test skipped in CI has failed."""
    report = yield
    _fail_forbidden_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module skipped in CI has failed."""
    report = yield
    _fail_forbidden_skip(report)
    return report
