"""The door's own refusals; what it does on a device is in tests/component/test_gpu_cuda.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpu.cuda_device import CudaDevice, load_driver
from gpu.errors import DeviceUnavailable
from tests.cusim.simulation import make_simulation, require_pycuda
from tests.kernels import make_bundle, make_plan


def test_missing_driver_is_unavailable_before_pycuda_is_touched(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="no CUDA driver"):
        CudaDevice(make_plan(make_bundle(tmp_path), backend="cuda"))
    assert "pycuda.driver" not in sys.modules


def test_file_that_is_no_library_is_no_driver(tmp_path: Path) -> None:
    wrong = tmp_path / "libcuda.so.1"
    wrong.write_text("text")
    with pytest.raises(DeviceUnavailable):
        load_driver(str(wrong))


def in_process_of_its_own(code: str, *arguments: str) -> str:
    """Run code where loading a driver leaves nothing behind for other tests; warnings are errors there too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, timeout=50, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD = """
import os, sys
from gpu.cuda_device import _pycuda, load_driver
load_driver(sys.argv[1])
"""


def test_driver_is_found_by_pycuda_once_it_is_loaded(tmp_path: Path) -> None:
    require_pycuda()
    cuda = make_simulation(tmp_path / "cusim")
    code = (
        LOAD
        + "driver = _pycuda(); driver.init(); print(driver.Device.count()); os._exit(os.EX_OK if not sys.stdout.flush() else 1)"
    )
    assert in_process_of_its_own(code, str(cuda.library)) == "1\n"


def test_pycuda_that_is_not_installed_is_unavailable_with_the_remedy(tmp_path: Path) -> None:
    require_pycuda()
    cuda = make_simulation(tmp_path / "cusim")
    code = (
        LOAD
        + """
sys.modules["pycuda"] = None
from gpu.errors import DeviceUnavailable
try:
    _pycuda()
except DeviceUnavailable as error:
    print(error)
"""
    )
    assert "run make gpu-deps" in in_process_of_its_own(code, str(cuda.library))
