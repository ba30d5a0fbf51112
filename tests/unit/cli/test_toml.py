"""What is written as TOML is read back as it was."""

from __future__ import annotations

import tomllib

from hypothesis import given, strategies as st

from cli.toml import Value, render_file, render_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.lists(TEXT).map(tuple)))
def test_value_is_read_back_as_it_was(value: Value) -> None:
    read = tomllib.loads(f"key = {render_value(value)}")["key"]
    assert (tuple(read) if isinstance(value, tuple) else read) == value
    assert isinstance(read, bool) == isinstance(value, bool)


def test_file_starts_with_its_comment() -> None:
    text = render_file(["what it is"], {"a": 1, "b": ("x", "y")})
    assert text == '# what it is\na = 1\nb = ["x", "y"]\n'
