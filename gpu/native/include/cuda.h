// Stands in for <cuda.h> in kernel sources: everything it would bring is in cuda_on_cpu.h already.
#pragma once
