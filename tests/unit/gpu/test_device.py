from __future__ import annotations

from gpu.device import DeviceFault
from gpu.errors import FaultCode


def test_fault_carries_its_code_and_reason() -> None:
    fault = DeviceFault(FaultCode.ASSERT, "an assertion failed")
    assert (fault.code, fault.reason, str(fault)) == (FaultCode.ASSERT, fault.reason, fault.reason)
