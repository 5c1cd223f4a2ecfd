// Kernels that are wrong on purpose, one fault each, and kernels that are right in the same way:
// what the emulator's own tests run.
#include "aurora.cuh"
#include "faults.h"

namespace {
struct Exchange {
    alignas(16) float at[64];
    float behind[64];  // what an index past `at` would hit
};
struct Tiles {
    alignas(16) unsigned short a[16 * 16], b[16 * 8];
};
}  // namespace

// Every thread writes its place of shared memory and reads another's. Fault 1: no barrier.
// Fault 2: a barrier of its own in each branch. Fault 3: some threads leave before
// the barrier. Fault 4: one place past the array. Fault 5: nobody wrote what is read.
// Fault 6: reads past the end of x. Fault 7: before its beginning. Fault 8: writes past the end of
// y. Fault 9: two blocks write one element. Fault 10: a sum past the range of int.
// Fault 11: reads what others have written since the last barrier. Fault 12: writes what another
// thread has read since then.
KERNEL(emulator_exchange, Exchanged, 64) {
    SHARED(Exchange, shared);
    const int i = threadIdx.x, n = blockDim.x;
    const float *x = p.x;
    float *y = p.y;
    if (p.fault == 3 && i >= 40) return;
    if (p.fault != 5 || i != 7)
        shared.at[p.fault == 4 ? i + p.one : i] = x[p.fault == 6 ? i + p.one : p.fault == 7 ? i - p.one : i];
    if (p.fault == 2) {
        if (i < 32) __syncthreads();
        else __syncthreads();
    } else if (p.fault != 1) {
        __syncthreads();
    }
    float value = shared.at[n - 1 - i];
    if (p.fault == 10) value += static_cast<float>(0x7fffffff - 62 + i * p.one);
    if (p.fault == 11) shared.at[i] = value;
    if (p.fault == 12 && i == 1) shared.at[n - 1] = value;
    const int block = p.fault == 9 ? 0 : static_cast<int>(blockIdx.x);
    y[p.fault == 8 ? block * n + i + p.one : block * n + i] = value;
}

// Exchange within a warp. Fault 1: no __syncwarp. Fault 2: a shuffle that half of the lanes miss.
// Fault 3: sixteen bytes read from an address that is no multiple of sixteen.
KERNEL(emulator_warp, Exchanged, 32) {
    SHARED(Exchange, shared);
    const int lane = threadIdx.x;
    if (p.fault == 3) {
        const Vector<float> v = load_vector(p.x + p.one);
        p.y[lane] = v.at[lane % 4];
        return;
    }
    shared.at[lane] = p.x[lane];
    if (p.fault != 1) __syncwarp();
    float value = shared.at[31 - lane];
    if (p.fault != 2 || lane < 16) value = __shfl_xor_sync(kWholeWarp, value, 1);
    p.y[lane] = __shfl_sync(kWholeWarp, value, lane ^ 1);
}

// Sixteen bytes a thread, copied in the background. Fault 1: not waited for. Fault 2: waited for,
// but no barrier before another thread's copy is read. Fault 3: past the end of x.
KERNEL(emulator_async, Exchanged, 8) {
    SHARED(Exchange, shared);
    const int i = threadIdx.x;
    async_copy_16(&shared.at[i * 4], p.x + (p.fault == 3 ? i * 4 + 4 * p.one : i * 4), i != 5);
    async_commit();
    if (p.fault != 1) async_wait<0>();
    if (p.fault != 2) __syncthreads();
    for (int k = 0; k < 4; k++) p.y[i * 4 + k] = shared.at[28 - i * 4 + k];
}

// c (16, 8) = a (16, 16) b (16, 8) with the matrix instructions, from row-major 16-bit elements.
template <class T>
static __device__ void multiply(const Multiplied &p) {
    SHARED(Tiles, tiles);
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) tiles.a[i] = p.a[i];
    for (int i = lane; i < 128; i += 32) tiles.b[i] = p.b[i];
    __syncthreads();
    unsigned a[4], b[2];
    float c[4] = {};
    load_matrix_x4(a, &tiles.a[lane % 16 * 16 + lane / 16 * 8]);
    load_matrix_x2_transposed(b, &tiles.b[lane % 16 * 8]);
    MMA_16X8X16(T, c, a, b);
    for (int r = 0; r < 4; r++) p.c[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = c[r];
}
KERNEL(emulator_multiply_f16, Multiplied, 32) { multiply<Half>(p); }
KERNEL(emulator_multiply_bf16, Multiplied, 32) { multiply<Bf16>(p); }

// Every number of x to a 16-bit type and back.
template <class T>
static __device__ void convert(const Exchanged &p) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < p.one) p.y[i] = to_float(round_to<T>(p.x[i]));
}
KERNEL(emulator_convert_f16, Exchanged, 256) { convert<Half>(p); }
KERNEL(emulator_convert_bf16, Exchanged, 256) { convert<Bf16>(p); }
