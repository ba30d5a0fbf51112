from __future__ import annotations

import inspect

from vault import errors


def test_errors_all_descend_from_the_rooms_base() -> None:
    found = [item for _, item in inspect.getmembers(errors, inspect.isclass)]
    assert len(found) > 1
    assert all(issubclass(item, errors.VaultError) for item in found)
