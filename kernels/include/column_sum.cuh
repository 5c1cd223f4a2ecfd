// Column sums, in an order that the shape alone decides: first over the rows of a part, here, then over the parts, by
// column_sum_finish (norm/bias.cu) or a kernel like it.
#pragma once

#include "packs.cuh"

constexpr int kColumnThreads = 256;
constexpr int kColumnWarps = kColumnThreads / kWarpSize;

// Shared sums of the warps of a block. One number of padding after each 32 keeps lanes that write packs on different
// banks.
template <int N, int K>
struct ColumnScratch {
    float at[kColumnWarps][K][(kWarpSize + 1) * N];
};

// Calls add(row, column, sum) for every pack of N columns of a part's rows; `add` adds to sum[K][N]. A lane has a
// pack, a warp every eighth row. With `partial` (parts, K, columns) the sums are written; without, only `add` has an
// effect.
//
// Launch: (ceil(columns / (32 packs as wide as sixteen bytes hold)), parts) blocks of kColumnThreads. Where packs are
// narrower, a block does several groups of columns in turn.
template <class T, int N, int K, class Add>
__device__ __forceinline__ void column_sums(long long rows, int columns, int rows_of_part,
                                            float *partial, Add add) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const long long first = static_cast<long long>(blockIdx.y) * rows_of_part;
    const long long end = first + rows_of_part < rows ? first + rows_of_part : rows;
    constexpr int kGroup = kWarpSize * N;        // columns at a time
    constexpr int kGroups = Vector<T>::size / N;  // times
    using Scratch = ColumnScratch<N, K>;
    SHARED(Scratch, scratch);
    for (int group = 0; group < kGroups; group++) {
        const long long begin = (static_cast<long long>(blockIdx.x) * kGroups + group) * kGroup;
        if (begin >= columns) return;  // the whole block
        const long long column = begin + lane * N;
        float sum[K][N] = {};
        if (column < columns)
            for (long long row = first + warp; row < end; row += kColumnWarps)
                add(row, static_cast<int>(column), sum);
        if (!partial) continue;
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int i = 0; i < N; i++) {
                const int at = lane * N + i;
                scratch.at[warp][k][at + at / kWarpSize] = sum[k][i];
            }
        __syncthreads();
        for (int i = threadIdx.x; i < K * kGroup; i += kColumnThreads) {
            const int k = i / kGroup, at = i % kGroup;
            if (begin + at >= columns) continue;
            float total = 0.0f;
#pragma unroll
            for (int w = 0; w < kColumnWarps; w++) total += scratch.at[w][k][at + at / kWarpSize];
            partial[(static_cast<long long>(blockIdx.y) * K + k) * columns + begin + at] = total;
        }
        __syncthreads();
    }
}

// Shared sums over the parts, of the warps of a block.
template <int K>
struct FinishScratch {
    float at[kColumnWarps][K][kWarpSize];
};

// Sums over all parts of 32 columns, K of each, in the lanes of the first warp: true there where the column exists.
// All threads call, once.
template <int K>
__device__ __forceinline__ bool finish_columns(const float *partial, int parts, int columns,
                                               int &column, float (&total)[K]) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const long long wide = static_cast<long long>(blockIdx.x) * kWarpSize + lane;
    const bool exists = wide < columns;
    column = exists ? static_cast<int>(wide) : 0;
#pragma unroll
    for (int k = 0; k < K; k++) total[k] = 0.0f;
    if (exists)
        for (int part = warp; part < parts; part += kColumnWarps)
#pragma unroll
            for (int k = 0; k < K; k++)
                total[k] += partial[(static_cast<long long>(part) * K + k) * columns + column];
    SHARED(FinishScratch<K>, scratch);
#pragma unroll
    for (int k = 0; k < K; k++) scratch.at[warp][k][lane] = total[k];
    __syncthreads();
    if (warp != 0 || !exists) return false;
#pragma unroll
    for (int k = 0; k < K; k++) {
        total[k] = 0.0f;
        for (int w = 0; w < kColumnWarps; w++) total[k] += scratch.at[w][k][lane];
    }
    return true;
}
