// Stands in for <device_launch_parameters.h> in kernel sources: everything it would bring is in cuda_on_cpu.h already.
#pragma once
