"""Reads just enough of a CUDA source to know its kernels and its dynamic shared memory.

Rules of this file: comments and string literals are blanked, never removed, so that every position and line
number stays what the author's editor shows; what a macro produces is not seen (docs/kernels.md says so).
"""

from __future__ import annotations

import re

# One alternative per thing that can hide code: line comment, block comment, string, character literal.
_HIDDEN = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)

_KERNEL = re.compile(
    r"""__global__ \s+
        (?: (?: static | inline | void | __launch_bounds__ \s* \( [^()]* \) ) \s+ )*
        (?P<name> [A-Za-z_]\w* ) \s* \(""",
    re.VERBOSE,
)
_DYNAMIC_SHARED = re.compile(
    r"""\bextern \s+ __shared__ \s+
        (?: __align__ \s* \( [^()]* \) \s* )?
        (?P<type> [A-Za-z_][\w:\s]*? (?: \s | \* )\s* )
        (?P<name> [A-Za-z_]\w* ) \s* \[ \s* \] \s* ;""",
    re.VERBOSE,
)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def without_comments(source: str) -> str:
    """Return `source` with comments and literals blanked, every character in its place."""
    return _HIDDEN.sub(_blank, source)


def find_kernels(source: str) -> tuple[str, ...]:
    """Return the names of the `__global__` functions in `source`, each once, in order."""
    bare = without_comments(source)
    return tuple(dict.fromkeys(match["name"] for match in _KERNEL.finditer(bare)))


def bind_dynamic_shared(source: str) -> str:
    """Return `source` with every `extern __shared__ T name[];` bound to the block's dynamic shared memory.

    The declaration has no meaning for a host compiler; the device header's macro takes its place on the same line.
    """
    parts: list[str] = []
    end = 0
    for match in _DYNAMIC_SHARED.finditer(without_comments(source)):
        lines = "\n" * match.group().count("\n")
        parts += [
            source[end : match.start()],
            f"STOCKADE_DYNAMIC_SHARED({' '.join(match['type'].split())}, {match['name']});{lines}",
        ]
        end = match.end()
    return "".join([*parts, source[end:]])
