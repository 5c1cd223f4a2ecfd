// Shared code of all kernels: element types, vector access, reductions, asynchronous copies and tensor-core
// instructions. No header of the CUDA toolkit is included, so that NVRTC compiles the same text with no include path;
// on the CPU the emulator's shim takes the place of the PTX.
#pragma once

#include "sizes.cuh"

#ifdef AURORA_EMULATOR
#include "shim.h"
#else

#define KERNEL(symbol, Params, threads) \
    extern "C" __global__ void __launch_bounds__(threads) symbol(const __grid_constant__ Params p)

// Kernel with registers for so many blocks on one multiprocessor: neither fewer, which would spill, nor more.
#define KERNEL_RESIDENT(symbol, Params, threads, blocks)                  \
    extern "C" __global__ void __launch_bounds__(threads, blocks) symbol( \
        const __grid_constant__ Params p)

// Shared memory of a type, one for the block. Types with arrays of fixed size let the emulator see an index that
// leaves its array.
#define SHARED(Type, name) __shared__ Type name
#define DYNAMIC_SHARED(Type, name)                                   \
    extern __shared__ __align__(1024) unsigned char dynamic_shared[]; \
    Type *name = reinterpret_cast<Type *>(dynamic_shared)

#include "ptx.cuh"

#endif

#include "element.cuh"
#include "reduce.cuh"
