"""docs/configuration.md names every key that a daemon's configuration file may hold."""

from __future__ import annotations

import importlib
import re
from typing import cast

import msgspec
import pytest

from tests.house.tree import ROOT

CONFIGURATIONS = (("broker.config", "BrokerConfig"), ("controller.config", "ControllerConfig"))


def keys(type_: object) -> set[str]:
    """The keys of a struct and of the structs inside it."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        found = set()
        for field in msgspec.structs.fields(type_):
            found |= {field.encode_name} | keys(field.type)
        return found
    found = set()
    for argument in cast("tuple[object, ...]", getattr(type_, "__args__", ())):
        found |= keys(argument)
    return found


@pytest.mark.parametrize(("module", "name"), CONFIGURATIONS)
def test_configuration_reference_names_every_key(module: str, name: str) -> None:
    struct = cast("object", getattr(importlib.import_module(module), name))
    section = (ROOT / "docs" / "configuration.md").read_text().split(f"(`{name}`)")
    assert len(section) == 2, f"one heading that ends in (`{name}`)"
    text = re.split(r"\n## ", section[1])[0]
    missing = sorted(key for key in keys(struct) if f"`{key}`" not in text)
    assert not missing
