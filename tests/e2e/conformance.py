"""The broker that all conformance tests share: a controller and a broker of their own, started once in a run.

A plugin and not a part of conftest.py, so that nobody else waits for it: `pytest_plugins = ["tests.e2e.conformance"]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.policy import PolicyRule
from tests.e2e.clients import unique
from tests.e2e.daemons import make_site
from tests.e2e.scripted_client import Broker, broker_of

if TYPE_CHECKING:
    from collections.abc import Generator

RECEIVE_MAXIMUM = 20
"""Small, so that a test can exceed it; mosquitto's own default, against which the scripts were tried."""

TABLES = f"""
[limits]
receive_maximum = {RECEIVE_MAXIMUM}
[store]
path = "broker.db"
key = "broker-store.key"
"""
"""Without a store no session outlives its connection."""

RULES = tuple(
    PolicyRule(
        id=f"conformance-{number}-{principal}",
        principal=principal,
        operations="read,write",
        resource=resource,
        description="conformance tests; nobody may write anywhere else",
    )
    for principal in ("sensor", "viewer")
    for number, resource in enumerate(("topic.conf.**", "topic.$conf.**", "topic..conf.**"))
)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Broker]:
    """The principals `sensor` and `viewer` may read and write below `conf`, `$conf` and `/conf`, and nowhere else."""
    site = make_site(tmp_path_factory.mktemp("conformance"), rules=RULES)
    site.limits = TABLES
    try:
        site.start_controller()
        site.start_broker(kernel_bundles=())
        yield broker_of(site)
    finally:
        site.stop()
    for log in site.folder.glob("*.log"):
        assert "Traceback" not in log.read_text()


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses, and a prefix for more of them."""
    return f"conf/{unique('topic')}"
