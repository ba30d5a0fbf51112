// Stands in for <cuda_runtime.h> in kernel sources: everything it would bring is in cuda_on_cpu.h already.
#pragma once
