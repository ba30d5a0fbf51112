from __future__ import annotations

from gpu.errors import FaultCode, KernelFault


def test_number_cuda_may_add_one_day_is_a_device_fault() -> None:
    assert FaultCode.of(700) is FaultCode.ILLEGAL_ADDRESS
    assert FaultCode.of(999) is FaultCode.DEVICE


def test_fault_names_the_kernel_and_the_reason() -> None:
    fault = KernelFault("zscore", FaultCode.DEADLINE, "it did not end")
    assert str(fault) == "kernel `zscore`: it did not end"
