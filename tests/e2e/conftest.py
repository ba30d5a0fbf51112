"""One running system for all end-to-end tests that only talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.running import Running, running

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """`stockade up --bench`, shared: a test that changes it (policy, processes) starts its own with `running()`."""
    with running(tmp_path_factory.mktemp("system"), bench=True) as started:
        yield started
