#!/bin/bash
# Installs PyCUDA into the virtual environment given as $1, built without a CUDA toolkit and without a GPU.
#
#     deploy/gpu-deps.sh .venv
#
# PyCUDA is published as source only, and its build asks for a whole CUDA toolkit by default. It really needs
# two headers (cuda.h, cudaProfiler.h), which NVIDIA publishes as small wheels, and it need not be linked
# against libcuda: `gpu.cuda_device` loads the driver before it imports PyCUDA. The result depends on no
# driver version below the one that CUDA 13.0 wants.
#
# Idempotent: what was built is kept in .gpu-wheels/ (wheels, and the headers that tests/cusim compiles
# with); a second run installs from there in seconds and needs no network.
# Needs: g++ and the Python headers (Debian: `apt install g++ python3-dev`); 90 s the first time.
set -euo pipefail

venv=${1:?usage: gpu-deps.sh VENV}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=$(CDPATH='' cd -- "$venv/bin" && pwd)/python
store=$(dirname -- "$here")/.gpu-wheels
pins=$here/gpu-requirements.txt

tag=$("$python" -c 'import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform(), sep="-")')
# What the build depends on, and not this text: raise the number when the options below change.
key=$({ cat "$pins" "$here/gpu-headers.txt"; echo "1 $tag"; } | sha256sum | cut -c1-16)
wheels=$store/$key
headers=$store/headers

if [ ! -e "$wheels/complete" ] || [ ! -e "$headers/complete" ]; then
    command -v g++ >/dev/null || {
        echo "building PyCUDA needs a C++ compiler: apt install g++" >&2
        exit 1
    }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT INT TERM
    mkdir -p "$store"

    "$python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: \
        --target "$work/headers" -r "$here/gpu-headers.txt"
    include=$("$python" -c 'import pathlib, sys; print(next(pathlib.Path(sys.argv[1]).rglob("cuda.h")).parent)' "$work/headers")

    # Two steps, since pip applies build options only to what is named on its command line, not to a file of pins.
    "$python" -m pip download --quiet --no-deps --require-hashes --no-binary pycuda --dest "$work/wheels" -r "$pins"
    sdist=$(ls "$work"/wheels/pycuda-*.tar.gz)
    echo "building PyCUDA (about 90 s, once)"
    # CURAND needs the toolkit's library; CUDADRV_LIBNAME=[] leaves the driver to be found when it is loaded.
    CPATH=$include "$python" -m pip wheel --no-deps --wheel-dir "$work/wheels" \
        "--config-settings=--global-option=--conf:CUDA_ENABLE_CURAND=False;CUDADRV_LIBNAME=[]" \
        "$sdist" >"$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        echo "PyCUDA did not build: the compiler's last lines are above" >&2
        exit 1
    }
    rm "$sdist"

    rm -rf "${store:?}"/*
    mkdir -p "$headers"
    cp -R "$include/." "$headers/"
    mv "$work/wheels" "$wheels"
    touch "$wheels/complete" "$headers/complete"
fi

"$python" -m pip install --quiet --no-index --find-links "$wheels" pycuda
"$python" -c 'import importlib.metadata as m; print("pycuda", m.version("pycuda"), "is installed")'
