"""The coverage-guided fuzzer: `python tests/fuzz/fuzz_mqtt.py TARGET [SECONDS]`.

Needs `atheris`, which is no locked requirement: it has wheels for few platforms, and nothing else
needs it. What it finds worth keeping goes to `build/fuzz/TARGET`, and bytes that break a promise to
`build/fuzz/TARGET-crash-*`: those belong into `tests/fuzz/corpus/TARGET` together with the fix.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT / "tests" / "fuzz" / "corpus"
BUILD: Final = ROOT / "build" / "fuzz"
DEFAULT_S: Final = 60
MAX_INPUT_BYTES: Final = 512
"""Longer inputs find no other branches, only slower."""


class Fuzzer(Protocol):
    """What is used of atheris."""

    def instrument_imports(self, include: Sequence[str]) -> AbstractContextManager[None]:
        """Follow the branches of what is imported meanwhile."""
        ...

    def Setup(self, argv: list[str], target: Callable[[bytes], None]) -> object:  # noqa: N802
        """Take libFuzzer's arguments."""
        ...

    def Fuzz(self) -> None:  # noqa: N802
        """Run; ends the process."""
        ...


def main(arguments: list[str]) -> None:
    """Fuzz the target named first, for as many seconds as named second."""
    name, *rest = arguments
    seconds = int(rest[0]) if rest else DEFAULT_S
    _own_tests()
    fuzzer = cast("Fuzzer", importlib.import_module("atheris"))
    with fuzzer.instrument_imports(include=["mqtt"]):
        targets = importlib.import_module("tests.fuzz.mqtt_targets")
    target = cast("dict[str, Callable[[bytes], None]]", targets.TARGETS)[name]
    (BUILD / name).mkdir(parents=True, exist_ok=True)
    options = [
        sys.argv[0],
        str(BUILD / name),
        str(CORPUS / name),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-artifact_prefix={BUILD / name}-",
        "-timeout=10",
    ]
    fuzzer.Setup(options, target)
    fuzzer.Fuzz()


def _own_tests() -> None:
    """Let `tests` be this tree's: some installed package brings one of its own, and would be first."""
    package = ModuleType("tests")
    package.__path__ = [str(ROOT / "tests")]
    sys.modules["tests"] = package
    sys.path.insert(0, str(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
