"""The command line: parse, call, print.

Knows: the `stockade` commands, their options, and how results look in a terminal.
Never: decides, stores, or holds logic that a room below should have.
Doors: `typer`, `rich`.
"""

from __future__ import annotations
