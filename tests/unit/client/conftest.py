from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.client.scripted_broker import ScriptedBroker, running_broker


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[ScriptedBroker]:
    async with running_broker(tmp_path) as broker:
        yield broker
