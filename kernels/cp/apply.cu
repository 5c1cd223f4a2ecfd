// Low-rank delta of an adapted linear layer for few tokens: y += (x A^T) B^T (LoRA, arXiv:2106.09685), in one launch.
//
// Shapes and types: CpApply in launch_params.h; x (tokens, in), A (rank, in), B (out, rank) and y
// (tokens, out) have one element type. y holds x W^T + b from a library's product, or zeros.
// z = x A^T is summed in f32 and rounded once to the element type, in which the second product
// takes it; the second is summed in f32, y added last, and the result rounded once. Pointers and
// rows need not be aligned. Nothing but y is written, each element by one thread; y may not overlap
// what is read.
// Derivation: docs/math/adapted-linear.md, "Forward".
//
// A block takes 32 tokens and outputs_of_block outputs. z stays in shared memory and is the block's
// own: blocks of other outputs form it again, which few tokens make cheap. Beyond 64 components z
// is formed a chunk at a time for each 64 outputs. Operations: 2 tokens rank (in blocks + out) with
// blocks = out / outputs_of_block along y. For 32 tokens of BLIP-base at rank 64 it reads x, A
// and B, 0.25 MB in bf16, so that latency decides: 12 steps of 64 along the input, two stages deep.
//
// Launch: 128 threads; grid (tokens / 32, out / outputs_of_block), rounded up.
#include "skinny.cuh"

namespace {

constexpr int kOutputs = 64;

template <class T>
struct alignas(16) Tiles {
    ProjectTiles<T> project;
    T z[kProjectTokens * pitch<T>(kProjectRank)];
};

// Rounds a block's (32, 64) sums to a tile.
template <class T>
__device__ __forceinline__ void keep(T *z, const float (&c)[4][4]) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
    for (int t = 0; t < 4; t++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int token = warp % 2 * 16 + lane / 4 + r / 2 * 8;
            const int component = warp / 2 * 32 + 8 * t + lane % 4 * 2 + r % 2;
            from_float(z[token * pitch<T>(kProjectRank) + component], c[t][r]);
        }
}

template <class T>
__device__ __forceinline__ void apply(const CpApply &p) {
    SHARED(Tiles<T>, tiles);
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const long long token = static_cast<long long>(blockIdx.x) * kProjectTokens;
    const Matrix x{p.x, p.x_stride, p.tokens, p.input, false};
    const Matrix a{p.a, p.input, p.rank, p.input, false};
    const Matrix b{p.b, p.rank, p.output, p.rank, false};
    const long long first = static_cast<long long>(blockIdx.y) * p.outputs_of_block;
    const long long last = min(first + p.outputs_of_block, static_cast<long long>(p.output));
    for (long long output = first; output < last; output += kOutputs) {
        float sum[4][4] = {};
        for (int component = 0; component < p.rank; component += kProjectRank) {
            if (p.rank > kProjectRank || output == first) {
                float z[4][4] = {};
                project<T>(z, tiles.project, x, a, true, token, component);
                keep(tiles.z, z);
            }
            // The tiles of `project` are free: B goes there, as deep as a tile at a time.
            for (int depth = 0; depth < kProjectRank; depth += kDepth<T>) {
                T *factor = tiles.project.factor[0];
                stage(factor, kOutputs, kDepth<T>, b, output, component + depth, kProjectThreads);
                async_commit();
                async_wait<0>();
                __syncthreads();
                constexpr int z_pitch = pitch<T>(kProjectRank), b_pitch = pitch<T>(kDepth<T>);
                warp_product<T>(sum, tiles.z + warp % 2 * 16 * z_pitch + depth, z_pitch, false,
                                factor + warp / 2 * 32 * b_pitch, b_pitch, false);
                __syncthreads();
            }
        }
#pragma unroll
        for (int t = 0; t < 4; t++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const long long row = token + warp % 2 * 16 + lane / 4 + r / 2 * 8;
                const long long column = output + warp / 2 * 32 + 8 * t + lane % 4 * 2 + r % 2;
                if (row >= p.tokens || column >= last) continue;
                T &y = static_cast<T *>(p.y)[row * p.y_stride + column];
                from_float(y, to_float(y) + sum[t][r]);
            }
    }
}

}  // namespace

#define DEFINE(T, name) \
    KERNEL(cp_apply_##name, CpApply, kProjectThreads) { apply<T>(p); }
FOR_EACH_ELEMENT(DEFINE)
