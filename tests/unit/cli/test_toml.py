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


KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
TABLE = st.dictionaries(KEYS, st.one_of(TEXT, st.booleans(), st.integers(0, 9)), max_size=4)


@given(values=TABLE, tables=st.dictionaries(KEYS, TABLE, max_size=3))
def test_file_with_tables_is_read_back_as_it_was(
    values: dict[str, Value], tables: dict[str, dict[str, Value]]
) -> None:
    plain = {key: value for key, value in values.items() if key not in tables}
    read = tomllib.loads(render_file(["what it is"], plain, tables))
    assert read == {**plain, **tables}


def test_table_stands_behind_the_plain_keys() -> None:
    text = render_file([], {"a": 1}, {"store": {"path": "x"}})
    assert text == 'a = 1\n\n[store]\npath = "x"\n'
