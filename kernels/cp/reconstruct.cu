// CP reconstruction: merged weights of all slices in its table in one launch (Wang et al. 2023, arXiv:2305.08381).
// W_eff = W + V diag(s) U^T with s = lambda * p for CP, W_eff = W + V G^T U^T for a full core G (Tucker).
//
// Shapes and types: CpSlice, CpPair and CpReconstruct in launch_params.h. W and W_eff have the
// element type, all else is f32. U (in, rank), V (out, rank), lambda and p (rank), G (rank, rank).
// Any sizes, any alignment; a slice that is part of a wider row (fc2) has the row's stride. The
// caller owns both tables, which stay as they are while W, W_eff and p keep their places.
// Derivation: docs/math/cp.md.
//
// A block takes one tile (64 outputs, 128 inputs) of several slices of a pair, one after the other: its tiles of U
// and V are read and rounded once. 16-bit elements go through tensor cores, in products of the rounded (V lambda p)
// with the rounded U, summed in f32; W is added in f32 last and the sum rounded once. With a core, V and G are
// rounded for their product, and that is rounded for the next. f32 is summed by multiplications and additions
// throughout.
//
// W never passes through shared memory. The columns of a product are assigned so that a lane's sums of one row are
// eight neighbors, 16 bytes: a lane reads W and writes W_eff with one access each for them, and the next slice's W is
// in flight while this one's product is formed. So the loop over slices has no barrier at all up to 64 components;
// with more, each slice reads its tiles of U and V anew, 64 components at a time.
//
// Cost: BLIP-base in bf16 at rank 64, 216 slices of 768 x 768: 255 MB read, 255 MB written, 1.63e10 operations. At
// 4.8 TB/s the bytes take 106 us, at 600 TFLOP/s the operations 27 us: memory-bound. U and V cost a block 48 KB from
// the L2 for the 256 KB of its eight slices. f32: 1.02 GB, 212 us, and 243 us of FMAs at 67 TFLOP/s: level.
//
// Launch: 256 threads, blocks of all pairs behind each other along x (pair, slices, tile, the
// tile along the input fastest). Nothing is shared between blocks.
#include "rows.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int kOutputs = 64;
constexpr int kInputs = 128;
constexpr int kChunk = 64;   // components at a time
constexpr int kSlices = 8;   // the most that a block takes

// Work of a block.
struct Work {
    CpPair pair;
    int output, input;     // where its tile begins
    int first_slice, end;  // its slices, in the table
};

__device__ __forceinline__ Work work_of(const CpReconstruct &p) {
    const int block = static_cast<int>(blockIdx.x);
    int index = 0;
    while (index + 1 < p.pair_count && p.pairs[index + 1].first_block <= block) index++;
    Work work;
    work.pair = p.pairs[index];
    const int across = (work.pair.input - 1) / kInputs + 1;
    const int tiles = across * ((work.pair.output - 1) / kOutputs + 1);
    const int local = block - work.pair.first_block;
    work.output = local % tiles / across * kOutputs;
    work.input = local % tiles % across * kInputs;
    const int begin = local / tiles * work.pair.slices_of_block;
    work.first_slice = work.pair.first_slice + begin;
    work.end = work.first_slice + min(work.pair.slices_of_block, work.pair.slices - begin);
    return work;
}

// Element of a factor, zero outside it.
__device__ __forceinline__ float factor(const float *data, int width, int rank, int row, int k) {
    return row < width && k < rank ? data[static_cast<long long>(row) * rank + k] : 0.0f;
}

// Scale s = lambda p of a slice, zero past the last component.
__device__ __forceinline__ float scale_of(const CpReconstruct &p, const float *modes, int k) {
    if (k >= p.rank) return 0.0f;
    return p.lambda ? p.lambda[k] * modes[k] : modes[k];
}

// ---- 16-bit elements, tensor cores. Warp w has outputs 16 (w % 4) on and inputs 64 (w / 4) on.

constexpr int kPitch = kChunk + 8;  // eight rows at one column in eight groups of banks

// Pitch padded by eight floats: a warp's reads of pairs go to all banks.
constexpr int kOutputPitch = kChunk + 8;

template <class T, bool with_core>
struct alignas(16) Tiles16 {
    T u[kInputs * kPitch];
    float v[kOutputs * kOutputPitch];
    float scale[kSlices * kChunk];  // lambda p of each slice
};
template <class T>
struct alignas(16) Tiles16<T, true> {
    T u[kInputs * kPitch];
    T v[kOutputs * kPitch];
    T core[kChunk * kPitch];
};

// Stages sixty-four rows of a factor, rounded.
template <class T>
__device__ __forceinline__ void stage_rounded(T *to, const float *data, int width, int rank, int row,
                                              int chunk) {
#pragma unroll 2
    for (int i = threadIdx.x; i < 64 * kChunk; i += kThreads)
        from_float(to[i / kChunk * kPitch + i % kChunk],
                   factor(data, width, rank, row + i / kChunk, chunk + i % kChunk));
}

// Stages the tile's rows of U, rounded. Within 32 of them, row 8 p + 2 t + e goes to 8 t + 2 p + e: column 2 p + e of
// a warp's t-th product is then the tile's column 8 p + 2 t + e, and the lane that has columns 2 p and 2 p + 1 of
// four products has eight neighbors. V as it is, in f32.
template <class T, bool with_core>
__device__ __forceinline__ void stage_tiles(Tiles16<T, with_core> &tiles, const CpReconstruct &p,
                                            const Work &work, int chunk) {
#pragma unroll 2
    for (int i = threadIdx.x; i < kInputs * kChunk; i += kThreads) {
        const int row = i / kChunk, k = i % kChunk;
        const int place = row / 32 * 32 + row % 8 / 2 * 8 + row % 32 / 8 * 2 + row % 2;
        from_float(tiles.u[place * kPitch + k],
                   factor(work.pair.u, work.pair.input, p.rank, work.input + row, chunk + k));
    }
    if constexpr (!with_core) {
#pragma unroll 2
        for (int i = threadIdx.x; i < kOutputs * kChunk; i += kThreads) {
            const int row = i / kChunk, k = i % kChunk;
            tiles.v[row * kOutputPitch + k] =
                factor(work.pair.v, work.pair.output, p.rank, work.output + row, chunk + k);
        }
        const int numbers = (work.end - work.first_slice) * kChunk;
        for (int i = threadIdx.x; i < numbers; i += kThreads)
            tiles.scale[i] = scale_of(p, p.slices[work.first_slice + i / kChunk].modes,
                                      chunk + i % kChunk);
    }
}

// Core product V G^T for the warp's 16 outputs and a chunk of components: l[t] as of mma_16x8x16, columns chunk + 8 t
// on. Up to 64 components V stays.
template <class T>
__device__ __forceinline__ void times_core(float (&l)[8][4], Tiles16<T, true> &tiles,
                                           const CpReconstruct &p, const Work &work,
                                           const float *core, bool fresh, int output, int chunk) {
    const int lane = threadIdx.x % kWarpSize, row = lane % 8;
    const int low = lane / 8 % 2 * 8, high = lane / 16 * 8;
    for (int depth = 0; depth < p.rank; depth += kChunk) {
        __syncthreads();
        if (fresh) stage_rounded(tiles.v, work.pair.v, work.pair.output, p.rank, work.output, depth);
        stage_rounded(tiles.core, core, p.rank, p.rank, chunk, depth);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kChunk; k += 16) {
            unsigned a[4];
            load_matrix_x4(a, tiles.v + (output + low + row) * kPitch + k + high);
#pragma unroll
            for (int t = 0; t < 8; t += 2) {
                unsigned b[4];
                load_matrix_x4(b, tiles.core + (8 * t + high + row) * kPitch + k + low);
                MMA_16X8X16(T, l[t], a, b);
                MMA_16X8X16(T, l[t + 1], a, b + 2);
            }
        }
    }
}

template <class T, bool with_core>
__device__ __forceinline__ void reconstruct_16(const CpReconstruct &p) {
    using Tiles = Tiles16<T, with_core>;
    SHARED(Tiles, tiles);
    const Work work = work_of(p);
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const int output = warp % 4 * 16, input = warp / 4 * 64;  // of the warp, in the tile
    // The lane has 8 elements each of rows `row`, `row` + 8 and columns `column`, `column` + 32.
    const int row = work.output + output + lane / 4, column = work.input + input + lane % 4 * 8;
    auto left = [&](int i) {
        return row + i % 2 * 8 < work.pair.output ? work.pair.input - column - i / 2 * 32 : 0;
    };

    Words next[4];
    auto fetch = [&](int n) {
        const CpSlice &slice = p.slices[n];
        const long long stride = slice.weight_stride;
        const T *weight = static_cast<const T *>(slice.weight);
        const bool aligned = rows_aligned<T>(weight, stride);
#pragma unroll
        for (int i = 0; i < 4; i++)
            next[i] = read_words(weight + (row + i % 2 * 8) * stride + column + i / 2 * 32, left(i),
                                 aligned);
    };
    // With a core, registers are for the product with it.
    constexpr bool ahead = !with_core;
    if (ahead) fetch(work.first_slice);
    for (int n = work.first_slice; n < work.end; n++) {
        if (!ahead) fetch(n);
        Words w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = next[i];
        if (ahead && n + 1 < work.end) fetch(n + 1);
        float c[2][4][4] = {};
        for (int chunk = 0; chunk < p.rank; chunk += kChunk) {
            const bool fresh = n == work.first_slice || p.rank > kChunk;
            if (fresh) {
                __syncthreads();
                stage_tiles<T, with_core>(tiles, p, work, chunk);
                __syncthreads();
            }
            float l[with_core ? 8 : 1][4] = {};
            if constexpr (with_core)
                times_core(l, tiles, p, work, p.slices[n].modes, fresh, output, chunk);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                unsigned a[4];
                if constexpr (with_core) {
                    // The accumulators of a product have the layout of the next one's operand.
#pragma unroll
                    for (int r = 0; r < 4; r++)
                        a[r] = pack<T>(l[2 * k + r / 2][r % 2 * 2], l[2 * k + r / 2][r % 2 * 2 + 1]);
                } else {
#pragma unroll
                    for (int r = 0; r < 4; r++) {
                        const int at = output + lane / 4 + r % 2 * 8;
                        const int depth = 16 * k + lane % 4 * 2 + r / 2 * 8;
                        const float *v = tiles.v + at * kOutputPitch + depth;
                        const float *scale = tiles.scale + (n - work.first_slice) * kChunk + depth;
                        a[r] = pack<T>(v[0] * scale[0], v[1] * scale[1]);
                    }
                }
#pragma unroll
                for (int half = 0; half < 2; half++)
#pragma unroll
                    for (int t = 0; t < 4; t += 2) {
                        unsigned b[4];
                        const int place = input + 32 * half + 8 * t + lane / 16 * 8 + lane % 8;
                        load_matrix_x4(b, tiles.u + place * kPitch + 16 * k + lane / 8 % 2 * 8);
                        MMA_16X8X16(T, c[half][t], a, b);
                        MMA_16X8X16(T, c[half][t + 1], a, b + 2);
                    }
            }
        }
        const long long stride = p.slices[n].merged_stride;
        T *merged = static_cast<T *>(p.slices[n].merged);
        const bool aligned = rows_aligned<T>(merged, stride);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int below = i % 2;
            Words sum;
#pragma unroll
            for (int t = 0; t < 4; t++) {
                const float *delta = c[i / 2][t] + below * 2;
                sum.at[t] = pack<T>(to_float(element<T>(w[i], 2 * t)) + delta[0],
                                    to_float(element<T>(w[i], 2 * t + 1)) + delta[1]);
            }
            write_words(merged + (row + below * 8) * stride + column + i / 2 * 32, left(i),
                        aligned, sum);
        }
    }
}

// ---- f32. Warp w has outputs 8 w on, lane l inputs 4 l on: V is read by all lanes at once, U and W
// a row at a time.

struct alignas(16) Tiles32 {
    float v[kChunk][kOutputs];
    float u[kChunk][kInputs];
};

// Stages rows of a factor from `row` on, a component a row. Neighbors write neighboring banks; reads come from the L1
// after the first component of a row.
template <int rows>
__device__ __forceinline__ void stage_factor(float (&to)[kChunk][rows], const float *data, int width,
                                             int rank, int row, int chunk) {
#pragma unroll 4
    for (int i = threadIdx.x; i < kChunk * rows; i += kThreads)
        to[i / rows][i % rows] = factor(data, width, rank, row + i % rows, chunk + i / rows);
}

// Stages a chunk of V G^T, likewise.
__device__ __forceinline__ void stage_core(float (&to)[kChunk][kOutputs], const CpReconstruct &p,
                                           const Work &work, const float *core, int chunk) {
    constexpr int kEach = 4;  // rows and components of a thread
    const int row = static_cast<int>(threadIdx.x) % (kOutputs / kEach) * kEach;
    const int component = static_cast<int>(threadIdx.x) / (kOutputs / kEach) * kEach;
    float sum[kEach][kEach] = {};
#pragma unroll 1
    for (int k = 0; k < p.rank; k++) {
        float a[kEach], g[kEach];
#pragma unroll
        for (int i = 0; i < kEach; i++) {
            a[i] = factor(work.pair.v, work.pair.output, p.rank, work.output + row + i, k);
            g[i] = factor(core, p.rank, p.rank, chunk + component + i, k);
        }
#pragma unroll
        for (int i = 0; i < kEach; i++)
#pragma unroll
            for (int j = 0; j < kEach; j++) sum[i][j] += g[i] * a[j];
    }
#pragma unroll
    for (int i = 0; i < kEach; i++)
#pragma unroll
        for (int j = 0; j < kEach; j++) to[component + i][row + j] = sum[i][j];
}

template <bool with_core>
__device__ __forceinline__ void reconstruct_32(const CpReconstruct &p) {
    SHARED(Tiles32, tiles);
    const Work work = work_of(p);
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const int row = work.output + warp * 8, column = work.input + lane * 4;
    auto left = [&](int i) { return row + i < work.pair.output ? work.pair.input - column : 0; };
    for (int n = work.first_slice; n < work.end; n++) {
        const CpSlice &slice = p.slices[n];
        const float *modes = slice.modes;
        float c[8][4] = {};
        for (int chunk = 0; chunk < p.rank; chunk += kChunk) {
            const bool fresh = n == work.first_slice || p.rank > kChunk;
            if (fresh || with_core) {
                __syncthreads();
                if (fresh)
                    stage_factor(tiles.u, work.pair.u, work.pair.input, p.rank, work.input, chunk);
                if (with_core) stage_core(tiles.v, p, work, modes, chunk);
                else stage_factor(tiles.v, work.pair.v, work.pair.output, p.rank, work.output, chunk);
                __syncthreads();
            }
            const int depth = min(kChunk, p.rank - chunk);
#pragma unroll 4
            for (int k = 0; k < depth; k++) {
                const float s = with_core ? 1.0f : scale_of(p, modes, chunk + k);
                const Vector<float> u = load_vector(&tiles.u[k][lane * 4]);
                const Vector<float> low = load_vector(&tiles.v[k][warp * 8]);
                const Vector<float> high = load_vector(&tiles.v[k][warp * 8 + 4]);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float scaled = with_core ? u.at[j] : s * u.at[j];
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        c[i][j] += low.at[i] * scaled;
                        c[i + 4][j] += high.at[i] * scaled;
                    }
                }
            }
        }
        const long long from = slice.weight_stride, to = slice.merged_stride;
        const float *weight = static_cast<const float *>(slice.weight) + column;
        float *merged = static_cast<float *>(slice.merged) + column;
        const bool reads = rows_aligned<float>(weight, from);
        const bool writes = rows_aligned<float>(merged, to);
        // Read this late, W displaces nothing; the other warps multiply meanwhile.
#pragma unroll
        for (int i = 0; i < 8; i++) {
            Words w = read_words(weight + (row + i) * from, left(i), reads);
#pragma unroll
            for (int j = 0; j < 4; j++)
                w.at[j] = static_cast<unsigned>(__float_as_int(element<float>(w, j) + c[i][j]));
            write_words(merged + (row + i) * to, left(i), writes, w);
        }
    }
}

template <class T, bool with_core>
__device__ __forceinline__ void reconstruct(const CpReconstruct &p) {
    if constexpr (sizeof(T) == 2) reconstruct_16<T, with_core>(p);
    else reconstruct_32<with_core>(p);
}

}  // namespace

#define DEFINE_ONE(symbol, T, with_core) \
    KERNEL_RESIDENT(symbol, CpReconstruct, kThreads, 2) { reconstruct<T, with_core>(p); }
#define DEFINE(T, name)                            \
    DEFINE_ONE(cp_reconstruct_##name, T, false)    \
    DEFINE_ONE(cp_reconstruct_core_##name, T, true)
FOR_EACH_ELEMENT(DEFINE)
