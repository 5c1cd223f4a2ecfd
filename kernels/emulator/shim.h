// CUDA C++ for the CPU: the part that the kernels use, on top of the emulator's runtime.
//
// Functions here are not instrumented; where they touch memory on a kernel's behalf they report it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx emulator_thread_index()
#define blockIdx emulator_block_index()
#define blockDim emulator_block_size()
#define gridDim emulator_grid_size()

#define EMULATOR_PLAIN __attribute__((no_sanitize("thread")))

// Kernel: an exported function that takes its parameters by address, and a body.
#define KERNEL(symbol, Params, threads)                                     \
    static void symbol##_body(const Params p);                              \
    extern "C" EMULATOR_PLAIN void symbol(const void *params) {             \
        Params p;                                                           \
        memcpy(&p, params, sizeof p);                                       \
        symbol##_body(p);                                                   \
    }                                                                       \
    extern "C" const unsigned symbol##_size = sizeof(Params);               \
    extern "C" const unsigned symbol##_threads = (threads);                 \
    static void symbol##_body(const Params p)

#define KERNEL_RESIDENT(symbol, Params, threads, blocks) KERNEL(symbol, Params, threads)

#define SHARED(Type, name)                                                                    \
    static char name##_key;                                                                   \
    Type &name = *static_cast<Type *>(                                                        \
        emulator_static_shared(&name##_key, __LINE__, sizeof(Type), alignof(Type)))
#define DYNAMIC_SHARED(Type, name) Type *name = static_cast<Type *>(emulator_dynamic_shared())

#define __syncthreads() emulator_block_barrier(__LINE__)
#define __syncwarp(...) emulator_warp_barrier(__LINE__, 0xffffffffu)

namespace emulator {

struct Shuffle {
    uint64_t value;
    int source;
};

EMULATOR_PLAIN inline void shuffle(void *operands[32], unsigned mask) {
    uint64_t values[32];
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) values[lane] = static_cast<Shuffle *>(operands[lane])->value;
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        auto &own = *static_cast<Shuffle *>(operands[lane]);
        if (!(mask >> own.source & 1)) emulator_fail("a shuffle reads a lane that its mask leaves out");
        own.value = values[own.source];
    }
}

template <class T>
EMULATOR_PLAIN T shuffled(int site, unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most eight bytes");
    Shuffle operand{0, source};
    memcpy(&operand.value, &value, sizeof value);
    emulator_warp_operation(site, mask, shuffle, &operand);
    memcpy(&value, &operand.value, sizeof value);
    return value;
}

EMULATOR_PLAIN inline int lane() { return int(threadIdx.x % 32); }

struct Vote {
    bool value;
    unsigned ballot;
};

EMULATOR_PLAIN inline void vote(void *operands[32], unsigned mask) {
    unsigned ballot = 0;
    for (int lane = 0; lane < 32; lane++)
        if ((mask >> lane & 1) && static_cast<Vote *>(operands[lane])->value) ballot |= 1u << lane;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) static_cast<Vote *>(operands[lane])->ballot = ballot;
}

EMULATOR_PLAIN inline unsigned balloted(int site, unsigned mask, bool value) {
    Vote operand{value, 0};
    emulator_warp_operation(site, mask, vote, &operand);
    return operand.ballot;
}

}  // namespace emulator

#define __shfl_sync(mask, value, source) emulator::shuffled(__LINE__, mask, value, (source) % 32)
#define __shfl_xor_sync(mask, value, bits) \
    emulator::shuffled(__LINE__, mask, value, emulator::lane() ^ (bits))
#define __shfl_down_sync(mask, value, by)    \
    emulator::shuffled(__LINE__, mask, value, \
                       emulator::lane() + int(by) < 32 ? emulator::lane() + int(by) : emulator::lane())
#define __ballot_sync(mask, value) emulator::balloted(__LINE__, mask, value)
#define __any_sync(mask, value) (emulator::balloted(__LINE__, mask, value) != 0)
#define __all_sync(mask, value) (emulator::balloted(__LINE__, mask, value) == (mask))

EMULATOR_PLAIN inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
EMULATOR_PLAIN inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, 4);
    return bits;
}
// One rounding each: the compiler is told not to contract (-ffp-contract=off).
EMULATOR_PLAIN inline float __fadd_rn(float a, float b) { return a + b; }
EMULATOR_PLAIN inline float __fsub_rn(float a, float b) { return a - b; }
EMULATOR_PLAIN inline float __fmul_rn(float a, float b) { return a * b; }
EMULATOR_PLAIN inline float __fdiv_rn(float a, float b) { return a / b; }
EMULATOR_PLAIN inline float __fsqrt_rn(float x) { return sqrtf(x); }
EMULATOR_PLAIN inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T>
EMULATOR_PLAIN inline T min(T a, T b) { return b < a ? b : a; }
template <class T>
EMULATOR_PLAIN inline T max(T a, T b) { return a < b ? b : a; }

#include "portable.h"
