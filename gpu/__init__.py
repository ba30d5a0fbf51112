"""Kernels: bundles, batches in shared memory, worker processes, the CUDA device and its CPU twin.

Knows: manifests, batch slots, the worker protocol, PyCUDA, and how CUDA source runs on the host.
Never: runs a kernel in the broker's process, trusts a worker's sizes, waits for a batch without a deadline.
Doors: `pycuda` (in `gpu.cuda_device`), the host C++ compiler (in `gpu.cpu_device`).
"""

from __future__ import annotations
