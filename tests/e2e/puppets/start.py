"""Starts a puppet: `python -P start.py MODULE ARGUMENT...`, as the main module of a process of its own.

gmqtt's wheel brings a top-level package `tests` along. A package hides the folder of that name in this tree, which
has no `__init__.py` (and must not have), so the folder is put in its place before anything is imported from it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

tests = ModuleType("tests")
tests.__path__ = [str(Path(__file__).parents[2])]
sys.modules["tests"] = tests
runpy.run_module(sys.argv.pop(1), run_name="__main__")
