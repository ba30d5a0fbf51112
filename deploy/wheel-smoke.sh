#!/bin/bash
# The wheel, as a stranger gets it: built, installed in a fresh environment, used from /. Argument: the python that builds.
set -euo pipefail

python=$(realpath -s "$1")
tree=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w "$work" "$tree"
"$python" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip --require-hashes -r "$tree/requirements/build.txt"
pip --require-hashes --no-build-isolation --use-pep517 -r "$tree/requirements/run.txt"
pip --no-deps --no-index "$work"/stockade-*.whl

cd /
"$work/venv/bin/python" -P - <<'PYTHON'
import importlib
import importlib.metadata
import sys

import cli

rooms = sorted({path.parts[0] for path in importlib.metadata.files("stockade") if path.name == "py.typed"})
if len(rooms) < 12:
    sys.exit(f"error: the wheel holds only {rooms}")
for path in importlib.metadata.files("stockade"):
    if path.suffix == ".py" and path.name not in {"__main__.py"}:
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        if name != "gpu.cuda_device":  # its one import is the extra `gpu`
            importlib.import_module(name)
if not cli.__file__.startswith(sys.prefix):
    sys.exit(f"error: {cli.__file__} is not the installed one")
print(f"every module of {', '.join(rooms)} imports from the wheel")
PYTHON
"$work/venv/bin/stockade" version
