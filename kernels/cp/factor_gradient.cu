// Factor gradients of a linear layer with a low-rank delta, without an (out, in) gradient.
//
// With z = x U and g = dy V, the delta being V diag(s) U^T:
//     ds = colsum(z * g),   dU = x^T (g s) = (x^T g) diag(s),   dV = (dy^T z) diag(s)
// and with s = 1, U = A^T, V = B the same for a LoRA's factors, A (rank, in) and B (out, rank):
//     dA = (dy B)^T x,   dB = dy^T (x A^T).
// Derivation: docs/math/cp.md and docs/math/adapted-linear.md, "Backward".
//
// Shapes and types: CpFactorGradient in launch_params.h. x, dy, z and g have the element type; u
// and v that or f32; du and dv that or f32; all else is f32. Where u and v are f32 they are rounded
// to the element type as they are read. z and g are summed in f32, ds is made of those sums, and they
// are rounded once to the element type for the two products: tensor cores would round them
// anyway, half the bytes go back and forth, and the caller has g for dx = dy W + g A. s multiplies
// the finished f32 sums, so it costs no digit and z, g do not depend on it. The caller owns z, g
// and both workspaces; none may overlap another array. Nothing needs to be aligned.
//
// Three launches, of which each needs the one before it to have ended:
//  project:  32 tokens and 64 components a block; z, g, and the block's share of ds.
//            128 threads, grid (token_blocks, rank / 64), rounded up.
//  products: 64 rows of dU or dV, 64 components and one split of the tokens a block, into `parts`.
//            128 threads, grid (in / 64 + out / 64, rank / 64, splits), each quotient rounded up.
//  finish:   adds splits up in order, times s, to (or instead of) what was there. 256 threads, one
//            for each element of dU, dV and ds.
// No atomics: sums have one order, which depends on the shape alone.
//
// Cost at T = 9,232, 768 x 768, R = 64 in bf16: 3.6e9 operations; x and dy are 28 MB,
// read twice, the second time from the L2 of a GPU that has 50 MB; z and g 2.4 MB; parts 4.3 MB
// (11 splits). At 4.8 TB/s the bytes take 8 us, at 600 TFLOP/s the operations 6 us.
#include "skinny.cuh"

namespace {

struct HalfSums {
    float at[2][kProjectRank];
};

template <class T>
__device__ __forceinline__ Matrix factor_of(const CpFactorGradient &p, const void *data, int width,
                                            bool by_rank) {
    if (by_rank) return {data, width, p.rank, width, p.factors_f32 != 0};
    return {data, p.rank, width, p.rank, p.factors_f32 != 0};
}

// Rounds a block's (32, 64) sums to z or g.
template <class T>
__device__ __forceinline__ void keep(const CpFactorGradient &p, void *to, const float (&c)[4][4],
                                     long long token, int component) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
    for (int t = 0; t < 4; t++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const long long row = token + warp % 2 * 16 + lane / 4 + r / 2 * 8;
            const int column = component + warp / 2 * 32 + 8 * t + lane % 4 * 2 + r % 2;
            if (row < p.tokens && column < p.rank)
                from_float(static_cast<T *>(to)[row * p.rank + column], c[t][r]);
        }
}

template <class T>
__device__ __forceinline__ void projections(const CpFactorGradient &p) {
    SHARED(ProjectTiles<T>, tiles);
    SHARED(HalfSums, halves);
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const long long token = static_cast<long long>(blockIdx.x) * kProjectTokens;
    const int component = static_cast<int>(blockIdx.y) * kProjectRank;
    const Matrix x{p.x, p.x_stride, p.tokens, p.input, false};
    const Matrix dy{p.dy, p.dy_stride, p.tokens, p.output, false};
    float z[4][4] = {}, g[4][4] = {};
    project<T>(z, tiles, x, factor_of<T>(p, p.u, p.input, p.u_by_rank), p.u_by_rank, token,
               component);
    keep<T>(p, p.z, z, token, component);
    project<T>(g, tiles, dy, factor_of<T>(p, p.v, p.output, p.v_by_rank), p.v_by_rank, token,
               component);
    keep<T>(p, p.g, g, token, component);
    if (!p.scale_parts) return;

    // Tokens past the last are zero in both. First the lanes with one column, then the two warps.
#pragma unroll
    for (int t = 0; t < 4; t++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float sum = z[t][e] * g[t][e] + z[t][e + 2] * g[t][e + 2];
#pragma unroll
            for (int bits = 4; bits < kWarpSize; bits *= 2)
                sum += __shfl_xor_sync(kWholeWarp, sum, bits);
            if (lane < 4) halves.at[warp % 2][warp / 2 * 32 + 8 * t + lane * 2 + e] = sum;
        }
    __syncthreads();
    const int column = static_cast<int>(threadIdx.x);
    if (column < kProjectRank && component + column < p.rank)
        p.scale_parts[static_cast<long long>(blockIdx.x) * p.rank + component + column] =
            halves.at[0][column] + halves.at[1][column];
}

constexpr int kRows = 64;  // of dU or dV, for a block of `products`

template <class T>
struct alignas(16) ProductTiles {
    T wide[2][kDepth<T> * pitch<T>(kRows)];
    T narrow[2][kDepth<T> * pitch<T>(kProjectRank)];
};

template <class T>
__device__ __forceinline__ void products(const CpFactorGradient &p) {
    SHARED(ProductTiles<T>, tiles);
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const int input_tiles = (p.input + kRows - 1) / kRows;
    const int tile = static_cast<int>(blockIdx.x);
    const bool of_input = tile < input_tiles;
    const int width = of_input ? p.input : p.output;
    const int first = (of_input ? tile : tile - input_tiles) * kRows;
    const int component = static_cast<int>(blockIdx.y) * kProjectRank;
    const long long begin = static_cast<long long>(blockIdx.z) * p.tokens_of_split;
    const long long end = min(begin + p.tokens_of_split, p.tokens);
    // Rows end with the split: what lies behind is zero.
    const Matrix wide{of_input ? p.x : p.dy, of_input ? p.x_stride : p.dy_stride, end, width, false};
    const Matrix narrow{of_input ? p.g : p.z, p.rank, end, p.rank, false};

    const int steps = static_cast<int>((end - begin + kDepth<T> - 1) / kDepth<T>);
    auto fill = [&](int step) {
        const long long token = begin + static_cast<long long>(step) * kDepth<T>;
        stage(tiles.wide[step % 2], kDepth<T>, kRows, wide, token, first, kProjectThreads);
        stage(tiles.narrow[step % 2], kDepth<T>, kProjectRank, narrow, token, component,
              kProjectThreads);
    };
    float c[8][4] = {};
    if (steps > 0) fill(0);
    async_commit();
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fill(step + 1);
        async_commit();
        async_wait<1>();
        __syncthreads();
        warp_product<T>(c, tiles.wide[step % 2] + warp * 16, pitch<T>(kRows), true,
                        tiles.narrow[step % 2], pitch<T>(kProjectRank), true);
        __syncthreads();
    }
    async_wait<0>();

    const long long height = static_cast<long long>(p.input) + p.output;
    const long long above = static_cast<long long>(blockIdx.z) * height + (of_input ? 0 : p.input);
#pragma unroll
    for (int t = 0; t < 8; t++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int row = first + warp * 16 + lane / 4 + r / 2 * 8;
            const int column = component + 8 * t + lane % 4 * 2 + r % 2;
            if (row < width && column < p.rank) p.parts[(above + row) * p.rank + column] = c[t][r];
        }
}

constexpr int kFinishThreads = 256;

// Sum of `count` numbers `distance` apart.
__device__ __forceinline__ float added(const float *parts, long long distance, int count) {
    float sum = 0.0f;
#pragma unroll 4
    for (int i = 0; i < count; i++) sum += parts[i * distance];
    return sum;
}

template <class T>
__device__ __forceinline__ void put(const CpFactorGradient &p, void *to, long long at, float x) {
    if (p.gradients_f32) {
        float &place = static_cast<float *>(to)[at];
        place = p.accumulate ? place + x : x;
    } else {
        T &place = static_cast<T *>(to)[at];
        from_float(place, p.accumulate ? to_float(place) + x : x);
    }
}

template <class T>
__device__ __forceinline__ void finish(const CpFactorGradient &p) {
    const long long height = static_cast<long long>(p.input) + p.output;
    const long long at = static_cast<long long>(blockIdx.x) * kFinishThreads + threadIdx.x;
    const long long row = at / p.rank;
    const int component = static_cast<int>(at % p.rank);
    if (row < height) {
        const float sum = added(p.parts + at, height * p.rank, p.splits);
        const float x = p.scale ? sum * p.scale[component] : sum;
        const bool of_input = row < p.input;
        const long long i = of_input ? row : row - p.input, width = of_input ? p.input : p.output;
        const bool by_rank = of_input ? p.u_by_rank : p.v_by_rank;
        put<T>(p, of_input ? p.du : p.dv, by_rank ? component * width + i : i * p.rank + component,
               x);
    } else if (row == height && p.dscale) {
        const float sum = added(p.scale_parts + component, p.rank, p.token_blocks);
        p.dscale[component] = p.accumulate ? p.dscale[component] + sum : sum;
    }
}

}  // namespace

#define DEFINE(T, name)                                                                        \
    KERNEL(cp_factor_project_##name, CpFactorGradient, kProjectThreads) { projections<T>(p); } \
    KERNEL_RESIDENT(cp_factor_products_##name, CpFactorGradient, kProjectThreads, 4) {         \
        products<T>(p);                                                                        \
    }                                                                                          \
    KERNEL(cp_factor_finish_##name, CpFactorGradient, kFinishThreads) { finish<T>(p); }
FOR_EACH_ELEMENT(DEFINE)
