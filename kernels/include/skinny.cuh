// Skinny GEMM: products of matrices of which one has few columns, from tiles in shared memory.
//
// A tile is filled from row-major memory by `stage`: 16 bytes at a time, asynchronously, where addresses allow it,
// else element by element, with zeros outside the matrix, so that no product has to handle tails. A product reads its
// operands in either orientation, as they lie in memory. Sums are f32; tensor cores for 16-bit elements,
// multiplications and additions for f32.
#pragma once

#include "rows.cuh"

// Depth (the dimension that is summed over) of a tile.
template <class T>
constexpr int kDepth = sizeof(T) == 2 ? 64 : 32;

// Pitch of a tile: rows are padded by 16 bytes, so that eight rows at one column lie in eight different groups of
// banks.
template <class T>
__host__ __device__ constexpr int pitch(int columns) {
    return columns + 16 / static_cast<int>(sizeof(T));
}

// Elements of a tile, in either orientation.
template <class T>
__host__ __device__ constexpr int tile_size(int wide) {
    return wide * pitch<T>(kDepth<T>) > kDepth<T> * pitch<T>(wide) ? wide * pitch<T>(kDepth<T>)
                                                                 : kDepth<T> * pitch<T>(wide);
}

// A row-major matrix in global memory, of the element type or of f32.
struct Matrix {
    const void *data;
    long long stride;
    long long rows;
    int columns;
    bool f32;
};

// Fills a tile (tile_rows, tile_columns) from `row`, `column` of a matrix on, by all threads. It is there after
// async_wait and a barrier; the caller commits.
template <class T>
__device__ __forceinline__ void stage(T *tile, int tile_rows, int tile_columns, const Matrix &m,
                                      long long row, int column, int threads) {
    constexpr int size = Vector<T>::size;
    const bool other = m.f32 && sizeof(T) == 2;
    const bool fast = !other && rows_aligned<T>(m.data, m.stride);
    const int of_row = tile_columns / size;
    for (int i = static_cast<int>(threadIdx.x); i < tile_rows * of_row; i += threads) {
        const int tile_row = i / of_row, tile_column = i % of_row * size;
        const long long r = row + tile_row;
        const int left = r < m.rows ? m.columns - column - tile_column : 0;
        T *to = tile + tile_row * pitch<T>(tile_columns) + tile_column;
        const long long offset = r * m.stride + column + tile_column;
        if (fast && (left <= 0 || left >= size)) {
            const T *from = static_cast<const T *>(m.data);
            async_copy_16(to, left > 0 ? from + offset : from, left > 0);
            continue;
        }
        Vector<T> v;
#pragma unroll
        for (int e = 0; e < size; e++) {
            if (e >= left) v.at[e] = round_to<T>(0.0f);
            else if (other) v.at[e] = round_to<T>(static_cast<const float *>(m.data)[offset + e]);
            else v.at[e] = static_cast<const T *>(m.data)[offset + e];
        }
        store_vector(to, v);
    }
}

// Tile product over a warp and the depth of a tile, c (16, 8 n_tiles) += A B; c[t] as of mma_16x8x16, columns 8 t on.
// `a` points at the warp's first row of a tile (rows, depth), or where a_by_depth at its first column of a tile
// (depth, rows); `b` at the first column of a tile (depth, columns) where b_by_depth, else at the first row of a tile
// (columns, depth). Pitches are of whole tiles.
template <class T, int n_tiles>
__device__ __forceinline__ void warp_product(float (&c)[n_tiles][4], const T *a, int a_pitch,
                                             bool a_by_depth, const T *b, int b_pitch,
                                             bool b_by_depth) {
    static_assert(n_tiles % 2 == 0, "two tiles are loaded at once");
    const int lane = threadIdx.x % kWarpSize;
    if constexpr (sizeof(T) == 2) {
        const int row = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;
#pragma unroll
        for (int k = 0; k < kDepth<T>; k += 16) {
            unsigned fa[4];
            if (a_by_depth) load_matrix_x4_transposed(fa, a + (k + high + row) * a_pitch + low);
            else load_matrix_x4(fa, a + (low + row) * a_pitch + k + high);
#pragma unroll
            for (int t = 0; t < n_tiles; t += 2) {
                unsigned fb[4];
                if (b_by_depth)
                    load_matrix_x4_transposed(fb, b + (k + low + row) * b_pitch + 8 * t + high);
                else load_matrix_x4(fb, b + (8 * t + high + row) * b_pitch + k + low);
                MMA_16X8X16(T, c[t], fa, fb);
                MMA_16X8X16(T, c[t + 1], fa, fb + 2);
            }
        }
    } else {
        const int group = lane / 4, pair = lane % 4 * 2;
        const int a_row = a_by_depth ? 1 : a_pitch, a_depth = a_by_depth ? a_pitch : 1;
        const int b_column = b_by_depth ? 1 : b_pitch, b_depth = b_by_depth ? b_pitch : 1;
#pragma unroll 4
        for (int k = 0; k < kDepth<T>; k++) {
            const float a0 = a[group * a_row + k * a_depth];
            const float a1 = a[(group + 8) * a_row + k * a_depth];
#pragma unroll
            for (int t = 0; t < n_tiles; t++) {
                const float b0 = b[(8 * t + pair) * b_column + k * b_depth];
                const float b1 = b[(8 * t + pair + 1) * b_column + k * b_depth];
                c[t][0] += a0 * b0, c[t][1] += a0 * b1;
                c[t][2] += a1 * b0, c[t][3] += a1 * b1;
            }
        }
    }
}

// Tokens, components and threads of a block that projects.
constexpr int kProjectTokens = 32;
constexpr int kProjectRank = 64;
constexpr int kProjectThreads = 128;

template <class T>
struct alignas(16) ProjectTiles {
    T rows[2][kProjectTokens * pitch<T>(kDepth<T>)];
    T factor[2][tile_size<T>(kProjectRank)];
};

// Projection over a block, c += x F: tokens from `token` on, components from `component` on, F (width, rank), or as
// it lies transposed (rank, width) where by_rank. Warp w has tokens 16 (w % 2) and components 32 (w / 2) on. Ends
// with a barrier; two stages, one filled while the other is multiplied.
template <class T>
__device__ __forceinline__ void project(float (&c)[4][4], ProjectTiles<T> &tiles, const Matrix &x,
                                        const Matrix &factor, bool by_rank, long long token,
                                        int component) {
    const int warp = threadIdx.x / kWarpSize;
    const int steps = (x.columns + kDepth<T> - 1) / kDepth<T>;
    const int factor_pitch = pitch<T>(by_rank ? kDepth<T> : kProjectRank);
    auto fill = [&](int step) {
        const int depth = step * kDepth<T>;
        stage(tiles.rows[step % 2], kProjectTokens, kDepth<T>, x, token, depth, kProjectThreads);
        if (by_rank)
            stage(tiles.factor[step % 2], kProjectRank, kDepth<T>, factor, component, depth,
                  kProjectThreads);
        else
            stage(tiles.factor[step % 2], kDepth<T>, kProjectRank, factor, depth, component,
                  kProjectThreads);
    };
    if (steps > 0) fill(0);
    async_commit();
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fill(step + 1);
        async_commit();
        async_wait<1>();
        __syncthreads();
        const T *rows = tiles.rows[step % 2] + warp % 2 * 16 * pitch<T>(kDepth<T>);
        const T *part = tiles.factor[step % 2] + warp / 2 * 32 * (by_rank ? factor_pitch : 1);
        warp_product<T>(c, rows, pitch<T>(kDepth<T>), false, part, factor_pitch, !by_rank);
        __syncthreads();
    }
    async_wait<0>();
}
