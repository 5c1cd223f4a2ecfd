// Layer normalisation over the last dimension, of x or of x + residual.
//
// Forward: y = (s - mean) rstd weight + bias, s = x + residual (rounded to the element type where
// it is also stored), mean and variance of the row of s itself, rstd = 1 / sqrt(variance + eps).
// Shapes and types: LayerNormForward in launch_params.h; x, residual, weight, bias, y and sum have
// one element type, mean and rstd are f32. Rows need not be aligned to anything.
//
// One warp takes a row: it is read once into registers where it fits (up to kRegisters elements a
// lane), so that the two passes over it (mean, then squares of differences from it, which keeps its
// digits where |mean| is large) cost memory only once. Longer rows are read again, from cache.
//
// Launch: kThreads threads, a block for every kThreads / 32 rows. Nothing is shared between blocks.
#include "aurora.cuh"

namespace {

constexpr int kThreads = 128;
constexpr int kRegisters = 32;  // elements of a row that a lane keeps: rows up to 1024

template <class T>
__device__ __forceinline__ float summed(const LayerNormForward &p, long long row, int column) {
    const float x = to_float(static_cast<const T *>(p.x)[row * p.x_stride + column]);
    if (!p.residual) return x;
    const float s = x + to_float(static_cast<const T *>(p.residual)[row * p.columns + column]);
    if (!p.sum) return s;
    return to_float(round_to<T>(s));
}

template <class T>
__device__ __forceinline__ void forward(const LayerNormForward &p) {
    const int lane = threadIdx.x % kWarpSize;
    const long long row =
        static_cast<long long>(blockIdx.x) * (kThreads / kWarpSize) + threadIdx.x / kWarpSize;
    if (row >= p.rows) return;  // the whole warp

    float kept[kRegisters];
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kRegisters; i++) {
        const int column = i * kWarpSize + lane;
        kept[i] = column < p.columns ? summed<T>(p, row, column) : 0.0f;
        total += kept[i];
    }
    const int first_left = kRegisters * kWarpSize + lane;
    for (int column = first_left; column < p.columns; column += kWarpSize)
        total += summed<T>(p, row, column);
    const float mean = warp_sum(total) / static_cast<float>(p.columns);

    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kRegisters; i++) {
        const float d = i * kWarpSize + lane < p.columns ? kept[i] - mean : 0.0f;
        squares += d * d;
    }
    for (int column = first_left; column < p.columns; column += kWarpSize) {
        const float d = summed<T>(p, row, column) - mean;
        squares += d * d;
    }
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(p.columns) + p.eps);

    const T *weight = static_cast<const T *>(p.weight), *bias = static_cast<const T *>(p.bias);
    T *y = static_cast<T *>(p.y) + row * p.columns;
    T *sum = static_cast<T *>(p.sum);
    auto write = [&](int column, float s) {
        from_float(y[column], (s - mean) * rstd * to_float(weight[column]) + to_float(bias[column]));
        if (sum) from_float(sum[row * p.columns + column], s);
    };
#pragma unroll
    for (int i = 0; i < kRegisters; i++)
        if (i * kWarpSize + lane < p.columns) write(i * kWarpSize + lane, kept[i]);
    for (int column = first_left; column < p.columns; column += kWarpSize)
        write(column, summed<T>(p, row, column));
    if (lane == 0) {
        if (p.mean) p.mean[row] = mean;
        if (p.rstd) p.rstd[row] = rstd;
    }
}

}  // namespace

#define DEFINE(T, name) \
    KERNEL(layer_norm_forward_##name, LayerNormForward, kThreads) { forward<T>(p); }
FOR_EACH_ELEMENT(DEFINE)
