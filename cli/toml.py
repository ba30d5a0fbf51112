"""TOML text for the files that `stockade up` writes (the standard library only reads TOML)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value = str | int | float | bool | tuple[str, ...]

# TOML 1.0, "Basic string": these have short escapes, every other control character is \uXXXX
SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}
FIRST_PRINTABLE = 0x20
DELETE = 0x7F


def _escaped(character: str) -> str:
    if character in SHORT_ESCAPES:
        return SHORT_ESCAPES[character]
    if ord(character) < FIRST_PRINTABLE or ord(character) == DELETE:
        return f"\\u{ord(character):04x}"
    return character


def render_value(value: Value) -> str:
    """One value: a basic string, a number, a boolean or a list of strings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    return "[" + ", ".join(map(render_value, value)) + "]"


def render_file(
    comments: Sequence[str],
    values: Mapping[str, Value],
    tables: Mapping[str, Mapping[str, Value]] | None = None,
) -> str:
    """A file of plain keys under a comment, and tables behind them.

    Args:
        comments: lines of the comment, without `#`.
        values: keys in the order of the file.
        tables: their names and keys.
    """
    lines = [f"# {comment}" for comment in comments]
    lines += _keys(values)
    for name, keys in (tables or {}).items():
        lines += ["", f"[{name}]", *_keys(keys)]
    return "\n".join(lines) + "\n"


def _keys(values: Mapping[str, Value]) -> list[str]:
    return [f"{key} = {render_value(value)}" for key, value in values.items()]
