"""Settings files: TOML into a checked struct, with errors an operator can act on.

A key nobody knows is an error, never ignored: a misspelt `audit_flie` must not switch the audit off. The
message names the key that was probably meant. A relative path in the file means relative to the file, so that
a configuration folder can be moved as a whole.
"""

from __future__ import annotations

import difflib
import tomllib
import types
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A settings file is written by hand; a larger one is the wrong file. Chosen, not measured.
MAX_SETTINGS_BYTES = 1 << 20
# The deepest table inside a settings file that is searched for unknown keys.
MAX_SETTINGS_DEPTH = 8

T = TypeVar("T")


class SettingsError(Exception):
    """A settings file that cannot be used; the message says where and what to do."""


def load_settings(path: Path, type_: type[T]) -> T:
    """Read a TOML file into a msgspec struct.

    Args:
        path: the file; `Path` fields inside are resolved relative to its folder.
        type_: the struct type; its field names are the keys.

    Returns:
        The struct, every field checked.

    Raises:
        SettingsError: the file cannot be read, is no TOML, has an unknown or missing key or a value of the wrong type.
    """
    return parse_settings(_read_text(path), type_, path=path)


def parse_settings(text: str, type_: type[T], *, path: Path) -> T:
    """Turn the text of a TOML file into a msgspec struct.

    Args:
        text: what the file holds.
        type_: the struct type.
        path: the file, for messages; `Path` fields are resolved relative to its folder.

    Returns:
        The struct, every field checked.

    Raises:
        SettingsError: no TOML, an unknown or missing key or a value of the wrong type.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"`{path}` is not TOML: {error}") from error
    for where, key, known in _unknown_keys(table, type_, "", MAX_SETTINGS_DEPTH):
        raise SettingsError(f"`{path}`: {_explain_unknown(where, key, known)}")

    def decode_path(wanted: type, value: object) -> object:
        if wanted is Path and isinstance(value, str) and value:
            return (path.parent / value).absolute()
        raise ValueError(f"Expected a path, got `{value!r}`")  # msgspec adds where it was found

    try:
        return msgspec.convert(table, type_, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        raise SettingsError(f"`{path}`: {_explain_invalid(str(error))}") from error


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"cannot read `{path}`: {error.strerror or error}") from error
    if len(raw) > MAX_SETTINGS_BYTES:
        raise SettingsError(
            f"`{path}` is larger than {MAX_SETTINGS_BYTES} bytes: is it the right file?"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"`{path}` is not UTF-8 text (byte {error.start})") from error


def _unknown_keys(
    value: object, type_: object, where: str, depth: int
) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield (where, key, known keys) for every key no struct knows, outermost first."""
    if depth == 0:
        return
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        structs = [t for t in _alternatives(type_) if _is_struct(t)]
        if structs:
            known = _keys_of(structs)
            yield from ((where, key, sorted(known)) for key in table if key not in known)
            children: Mapping[str, object] = known
        else:
            children = {key: _argument(type_, -1) for key in table}
        for key, item in table.items():
            if key in children:
                yield from _unknown_keys(item, children[key], f"{where}{key}.", depth - 1)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _unknown_keys(item, _argument(type_, 0), where, depth - 1)


def _is_struct(type_: object) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _alternatives(type_: object) -> tuple[object, ...]:
    """Return the members of a union; of anything else, itself."""
    if get_origin(type_) in (Union, types.UnionType):
        return get_args(type_)
    return (type_,)


def _argument(type_: object, index: int) -> object:
    """Return the item type of the container among the alternatives of `type_`."""
    for alternative in _alternatives(type_):
        arguments = get_args(alternative)
        if arguments:
            return arguments[index] if arguments[-1] is not Ellipsis else arguments[0]
    return object


def _keys_of(structs: Sequence[object]) -> dict[str, object]:
    known: dict[str, object] = {}
    for struct in structs:
        hints = get_type_hints(struct)
        for field in msgspec.structs.fields(cast("type[msgspec.Struct]", struct)):
            known[field.encode_name] = hints[field.name]
    return known


def _explain_unknown(where: str, key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{where}{near[0]}`?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key `{where}{key}`: {hint}"


def _explain_invalid(message: str) -> str:
    """Turn msgspec's ``Expected `int`, got `str` - at `$.port` `` into our order: where, then what."""
    what, _, where = message.partition(" - at `$")
    what = what[:1].lower() + what[1:]
    where = where.rstrip("`").lstrip(".")
    return f"key `{where}`: {what}" if where else what
