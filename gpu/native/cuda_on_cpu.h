// Runs CUDA C++ kernels on the CPU: force-included before a .cu file that a host C++17 compiler makes a shared
// object of. The only thing the source needs changed is `extern __shared__` (gpu/cuda_source.py does that).
//
// Theory of operation
//   fibers.h      a stack of its own for a CUDA thread that has to wait
//   launch.h      blocks, barriers, warps, faults: how threads take turns
//   vocabulary.h  what CUDA C++ adds to the language: vector types, atomics, shuffles, mathematics
//
// A host thread that serves a launch acts as one streaming multiprocessor: it runs block after block, and the
// threads of a block one at a time. Threads are started in order on one fiber, as an ordinary loop; only a thread
// that waits (barrier, shuffle) keeps the fiber it is on, and the loop goes on upon another. So a kernel without
// barriers costs what a loop costs, and one with barriers a stack switch a thread and barrier.
//
// What is not there: textures, surfaces, half precision, tensor cores, cooperative groups, dynamic parallelism,
// inline PTX, device-side malloc limits. Threads of a block never run at the same time, so a data race inside a
// block stays hidden, and a thread that spins until another one of its block writes never ends.
#pragma once

#if !defined(__cplusplus) || __cplusplus < 201703L
#error "cuda_on_cpu.h needs C++17"
#endif

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <tuple>
#include <type_traits>
#include <utility>

#define __CUDACC__ 1
#define __STOCKADE_CPU__ 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 750  // the oldest architecture CUDA 13 compiles for: sources then choose their plainest path
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#undef __noinline__
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One copy for each host thread, which runs one block at a time: exactly the lifetime of shared memory.
#define __shared__ static thread_local

#include "vectors.h"

// One of each for each host thread. Not `initial-exec`, although that is faster: it would put all of the library's
// thread-local storage, so every `__shared__` array too, into the 1.6 KiB that glibc spares for loaded libraries.
#define STOCKADE_HOT static thread_local __attribute__((unused))

STOCKADE_HOT uint3 threadIdx;
STOCKADE_HOT uint3 blockIdx;
STOCKADE_HOT dim3 blockDim;
STOCKADE_HOT dim3 gridDim;
static constexpr int warpSize = 32;

#include "fibers.h"
#include "launch.h"
#include "vocabulary.h"
