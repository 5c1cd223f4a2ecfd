// Shared code of the attention kernels: tiles in shared memory, products of a warp, terms of keys.
//
// A block has kRows rows of its own (queries, or keys in the gradient of the keys), a warp kWarpRows of them, and
// walks over tiles of the other side. All matrices in registers have the layout of a 16 x 8 accumulator of the tensor
// cores, whatever the type: with lane = 4 group + pair, c[n][r] is row group + 8 (r / 2) of the warp's rows, column 8
// n + 2 pair + r % 2. So a row lies in four neighboring lanes, and softmax, masks and gradients are written once for
// all types; only the two products differ (matrix instructions for 16 bits, FMA for f32).
#pragma once

#include "aurora.cuh"

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kWarpRows = 16;
constexpr int kRows = kWarps * kWarpRows;

// Scores are in units of ln 2, because the hardware's exponential has base 2.
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.69314718055994531f;

// Tile with rows of D numbers, padded by sixteen bytes: eight rows of a matrix load then lie in different banks for
// every D that is a multiple of sixteen.
template <class T, int D, int Rows>
struct alignas(16) Tile {
    T at[Rows][D + Vector<T>::size];
};

// One head of one batch in global memory.
template <class T>
struct Head {
    T *data;
    long long stride;
    int rows, width;
    bool vectors;  // whether every row begins and ends at a multiple of 16 bytes

    __device__ __forceinline__ Head(const AttentionRows &all, int batch, int head, int length,
                                    int size)
        : data(static_cast<T *>(all.data) + batch * all.batch_stride +
               static_cast<long long>(head) * size),
          stride(all.row_stride),
          rows(length),
          width(size),
          vectors(vector_aligned(static_cast<const T *>(all.data)) &&
                  (all.batch_stride | all.row_stride | size) % Vector<T>::size == 0) {}

    __device__ __forceinline__ T *row(int index) const { return data + index * stride; }
};

// Fills a tile with the rows from `first` on, zeros past the last row and the last column. Asynchronous where
// alignment allows: the tile is there after async_commit, async_wait and a barrier.
template <class T, int D, int Rows>
__device__ __forceinline__ void fetch(Tile<T, D, Rows> &tile, const Head<T> &from, int first) {
    if (from.vectors) {
        constexpr int width = Vector<T>::size, across = D / width;
#pragma unroll 2
        for (int i = 0; i < (Rows * across + kThreads - 1) / kThreads; i++) {
            const int chunk = i * kThreads + static_cast<int>(threadIdx.x);
            if (Rows * across % kThreads != 0 && chunk >= Rows * across) break;
            const int row = chunk / across, column = chunk % across * width;
            const bool valid = first + row < from.rows && column < from.width;
            async_copy_16(&tile.at[row][column],
                          valid ? from.row(first + row) + column : from.data, valid);
        }
    } else {
        for (int i = threadIdx.x; i < Rows * D; i += kThreads) {
            const int row = i / D, column = i % D;
            const bool valid = first + row < from.rows && column < from.width;
            tile.at[row][column] = valid ? from.row(first + row)[column] : round_to<T>(0.0f);
        }
    }
}

// Scratch for a matrix that becomes a left operand: none with 16 bits, whose accumulators are converted to operands
// in registers.
template <class T, int N>
struct Scratch {};
template <int N>
struct alignas(16) Scratch<float, N> {
    float left[kRows][N + Vector<float>::size];
};

// Product with a transpose: c += rows of `a` from `row` on, times the transpose of `b`.
template <class T, int D, int N>
__device__ __forceinline__ void multiply_transposed(float (&c)[N / 8][4],
                                                    const Tile<T, D, kRows> &a, int row,
                                                    const Tile<T, D, N> &b) {
    const int lane = threadIdx.x % kWarpSize;
    if constexpr (sizeof(T) == 2) {
#pragma unroll 2
        for (int k = 0; k < D; k += 16) {
            unsigned left[4];
            load_matrix_x4(left, &a.at[row + lane % 16][k + lane / 16 * 8]);
#pragma unroll
            for (int n = 0; n < N; n += 16) {
                unsigned right[4];
                load_matrix_x4(right, &b.at[n + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
                MMA_16X8X16(T, c[n / 8], left, right);
                MMA_16X8X16(T, c[n / 8 + 1], left, right + 2);
            }
        }
    } else {
        const int group = lane / 4, pair = lane % 4 * 2;
#pragma unroll 1
        for (int k = 0; k < D; k += 4) {
            const Vector<T> upper = load_vector(&a.at[row + group][k]);
            const Vector<T> lower = load_vector(&a.at[row + group + 8][k]);
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const Vector<T> right = load_vector(&b.at[n * 8 + pair + e][k]);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        c[n][e] += upper.at[i] * right.at[i];
                        c[n][e + 2] += lower.at[i] * right.at[i];
                    }
                }
        }
    }
}

// Product: c += `a` (rows of this warp, rounded to the element type) times `b`.
template <class T, int D, int N>
__device__ __forceinline__ void multiply(float (&c)[D / 8][4], const float (&a)[N / 8][4],
                                         const Tile<T, D, N> &b, int row, Scratch<T, N> &scratch) {
    const int lane = threadIdx.x % kWarpSize;
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (int k = 0; k < N; k += 16) {
            const float(&even)[4] = a[k / 8], (&odd)[4] = a[k / 8 + 1];
            const unsigned left[4] = {pack<T>(even[0], even[1]), pack<T>(even[2], even[3]),
                                      pack<T>(odd[0], odd[1]), pack<T>(odd[2], odd[3])};
#pragma unroll
            for (int n = 0; n < D; n += 16) {
                unsigned right[4];
                load_matrix_x4_transposed(right, &b.at[k + lane % 16][n + lane / 16 * 8]);
                MMA_16X8X16(T, c[n / 8], left, right);
                MMA_16X8X16(T, c[n / 8 + 1], left, right + 2);
            }
        }
    } else {
        const int group = lane / 4, pair = lane % 4 * 2;
        __syncwarp();  // what was there has been read
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                scratch.left[row + group + r / 2 * 8][n * 8 + pair + r % 2] = a[n][r];
        __syncwarp();
#pragma unroll 2
        for (int k = 0; k < N; k += 4) {
            const Vector<T> upper = load_vector(&scratch.left[row + group][k]);
            const Vector<T> lower = load_vector(&scratch.left[row + group + 8][k]);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int n = 0; n < D / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const float right = b.at[k + i][n * 8 + pair + e];
                        c[n][e] += upper.at[i] * right;
                        c[n][e + 2] += lower.at[i] * right;
                    }
        }
    }
}

template <int N>
__device__ __forceinline__ void clear(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int r = 0; r < 4; r++) c[n][r] = 0.0f;
}

// Writes a warp's rows, the upper eight times upper, the lower eight times lower, to the rows from `first` on.
// `stage` is for this warp's rows alone, from `row` on.
template <class T, int D>
__device__ __forceinline__ void store(const Head<T> &to, int first, const float (&c)[D / 8][4],
                                      float upper, float lower, Tile<T, D, kRows> &stage, int row) {
    const int lane = threadIdx.x % kWarpSize, group = lane / 4, pair = lane % 4 * 2;
    __syncwarp();  // what was there has been read
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            from_float(stage.at[row + group][n * 8 + pair + e], c[n][e] * upper);
            from_float(stage.at[row + group + 8][n * 8 + pair + e], c[n][e + 2] * lower);
        }
    __syncwarp();
    if (to.vectors) {
        constexpr int width = Vector<T>::size, across = D / width;
#pragma unroll
        for (int i = 0; i < kWarpRows * across / kWarpSize; i++) {
            const int chunk = i * kWarpSize + lane;
            const int r = chunk / across, column = chunk % across * width;
            if (first + r < to.rows && column < to.width)
                store_vector(to.row(first + r) + column, load_vector(&stage.at[row + r][column]));
        }
    } else {
        for (int i = lane; i < kWarpRows * D; i += kWarpSize) {
            const int r = i / D, column = i % D;
            if (first + r < to.rows && column < to.width)
                to.row(first + r)[column] = stage.at[row + r][column];
        }
    }
}

// Term of a key in the scores: dot * factor + addend, in units of ln 2.
struct alignas(8) Term {
    float factor, addend;
};

// Term of a key for a row of queries, its factor relative to `base`; a key past the last is masked.
__device__ __forceinline__ Term key_term(const AttentionScores &scores, int query, int key,
                                         float base) {
    if (key >= scores.k_len) return {0.0f, -infinity()};
    const long long at = static_cast<long long>(query) * scores.k_len + key;
    return {scores.scale ? base * scores.scale[at] : base,
            scores.mask ? scores.mask[at] * kLog2E : 0.0f};
}

// Kernels of each head size, for each element type.
#define FOR_EACH_HEAD(DEFINE, T, name) \
    DEFINE(T, name, 32) DEFINE(T, name, 64) DEFINE(T, name, 80) DEFINE(T, name, 96) \
        DEFINE(T, name, 128)
