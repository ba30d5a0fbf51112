from __future__ import annotations

import pytest

from cache import errors


@pytest.mark.parametrize("name", ["AuthorityUnavailable", "LimitsInvalid", "PrincipalMismatch"])
def test_every_error_of_the_room_has_one_base(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.CacheError)
