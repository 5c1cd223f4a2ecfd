// Layer normalization over the last dimension, of x or of x + residual (Ba et al. 2016, arXiv:1607.06450).
//
// Forward: y = (s - mean) rstd weight + bias, s = x + residual (rounded to the element type where
// it is also stored), mean and variance of the row of s itself, rstd = 1 / sqrt(variance + eps).
//
// Backward, with n = (s - mean) rstd and g = dy weight:
//   ds = rstd (g - mean(g) - n mean(g n)) + dsum,  the gradient of x and of residual alike, where
//        dsum is what comes to s by other ways (a residual stream), or nothing;
//   dweight = colsum(dy n), dbias = colsum(dy): layer_norm_backward_parameters adds up the rows of
//        a part, column_sum_finish (bias.cu) the parts. Both orders depend on the shape alone.
//
// Shapes and types: LayerNorm* in launch_params.h; every tensor has one element type, mean, rstd
// and the partial sums are f32. The caller owns all memory; dx may not overlap an input. Nothing
// need be aligned: where all rows begin at multiples of 16 bytes and are whole packs of 16 bytes
// they are moved in those, else element by element.
//
// One warp takes a row: it is read once into registers where it fits (up to kRegisters elements a
// lane), so that the two passes over it (mean, then squares of differences from it, which keeps its
// digits where |mean| is large) cost memory only once. What is left of longer rows is read again,
// from cache.
//
// Launch: forward and backward kThreads threads, a block for every kThreads / 32 rows; parameters
// see column_sum.cuh. Nothing is shared between blocks.
#include "aurora.cuh"
#include "column_sum.cuh"

namespace {

constexpr int kThreads = 128;
constexpr int kRegisters = 32;  // elements of a row that a lane keeps: rows up to 1024

__device__ __forceinline__ long long row_of_warp() {
    return static_cast<long long>(blockIdx.x) * (kThreads / kWarpSize) + threadIdx.x / kWarpSize;
}

// Calls body(i, column) for the lane's packs of a row that are kept in registers, then
// rest(column) for those that are not.
template <int N, class Body, class Rest>
__device__ __forceinline__ void each_column(int columns, Body body, Rest rest) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int i = 0; i < kRegisters / N; i++) {
        const int column = (i * kWarpSize + lane) * N;
        if (column < columns) body(i, column);
    }
    for (long long column = kRegisters * kWarpSize + lane * N; column < columns;
         column += kWarpSize * N)
        rest(static_cast<int>(column));
}

template <class T, int N>
__device__ __forceinline__ void load_sum(float (&s)[N], const LayerNormForward &p, long long row,
                                         int column) {
    load(s, static_cast<const T *>(p.x) + row * p.x_stride + column);
    if (!p.residual) return;
    float r[N];
    load(r, static_cast<const T *>(p.residual) + row * p.columns + column);
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = p.sum ? to_float(round_to<T>(s[i] + r[i])) : s[i] + r[i];
}

template <class T, int N>
__device__ __forceinline__ void forward(const LayerNormForward &p) {
    const long long row = row_of_warp();
    if (row >= p.rows) return;  // the whole warp

    float kept[kRegisters / N][N];
    float total = 0.0f;
    auto add = [&](const float(&s)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) total += s[i];
    };
    each_column<N>(
        p.columns,
        [&](int i, int column) {
            load_sum<T>(kept[i], p, row, column);
            add(kept[i]);
        },
        [&](int column) {
            float s[N];
            load_sum<T>(s, p, row, column);
            add(s);
        });
    const float mean = warp_sum(total) / static_cast<float>(p.columns);

    float squares = 0.0f;
    auto square = [&](const float(&s)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) squares += (s[i] - mean) * (s[i] - mean);
    };
    each_column<N>(
        p.columns, [&](int i, int) { square(kept[i]); },
        [&](int column) {
            float s[N];
            load_sum<T>(s, p, row, column);
            square(s);
        });
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(p.columns) + p.eps);

    auto write = [&](int column, const float(&s)[N]) {
        float weight[N], bias[N], y[N];
        load(weight, static_cast<const T *>(p.weight) + column);
        load(bias, static_cast<const T *>(p.bias) + column);
#pragma unroll
        for (int i = 0; i < N; i++) y[i] = (s[i] - mean) * rstd * weight[i] + bias[i];
        store(static_cast<T *>(p.y) + row * p.columns + column, y);
        if (p.sum) store(static_cast<T *>(p.sum) + row * p.columns + column, s);
    };
    each_column<N>(
        p.columns, [&](int i, int column) { write(column, kept[i]); },
        [&](int column) {
            float s[N];
            load_sum<T>(s, p, row, column);
            write(column, s);
        });
    if (threadIdx.x % kWarpSize == 0) {
        if (p.mean) p.mean[row] = mean;
        if (p.rstd) p.rstd[row] = rstd;
    }
}

template <class T, int N>
__device__ __forceinline__ void backward(const LayerNormBackward &p) {
    const long long row = row_of_warp();
    if (row >= p.rows) return;  // the whole warp

    const T *x = static_cast<const T *>(p.x) + row * p.x_stride;
    const T *dy = static_cast<const T *>(p.dy) + row * p.columns;
    const float mean = p.mean[row], rstd = p.rstd[row];
    float normal[kRegisters / N][N], scaled[kRegisters / N][N];  // n and g
    float total_g = 0.0f, total_gn = 0.0f;
    auto read = [&](int column, float(&n)[N], float(&g)[N]) {
        float weight[N];
        load(n, x + column);
        load(g, dy + column);
        load(weight, static_cast<const T *>(p.weight) + column);
#pragma unroll
        for (int i = 0; i < N; i++) n[i] = (n[i] - mean) * rstd, g[i] *= weight[i];
    };
    auto add = [&](const float(&n)[N], const float(&g)[N]) {
#pragma unroll
        for (int i = 0; i < N; i++) total_g += g[i], total_gn += g[i] * n[i];
    };
    each_column<N>(
        p.columns,
        [&](int i, int column) {
            read(column, normal[i], scaled[i]);
            add(normal[i], scaled[i]);
        },
        [&](int column) {
            float n[N], g[N];
            read(column, n, g);
            add(n, g);
        });
    const float mean_g = warp_sum(total_g) / static_cast<float>(p.columns);
    const float mean_gn = warp_sum(total_gn) / static_cast<float>(p.columns);

    auto write = [&](int column, const float(&n)[N], const float(&g)[N]) {
        float dx[N];
        if (p.dsum) load(dx, static_cast<const T *>(p.dsum) + row * p.columns + column);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float own = rstd * (g[i] - mean_g - n[i] * mean_gn);
            dx[i] = p.dsum ? dx[i] + own : own;
        }
        store(static_cast<T *>(p.dx) + row * p.columns + column, dx);
    };
    each_column<N>(
        p.columns, [&](int i, int column) { write(column, normal[i], scaled[i]); },
        [&](int column) {
            float n[N], g[N];
            read(column, n, g);
            write(column, n, g);
        });
}

template <class T, int N>
__device__ __forceinline__ void parameters(const LayerNormParameters &p) {
    column_sums<T, N, 2>(p.rows, p.columns, p.rows_of_part, p.partial,
                         [&](long long row, int column, float(&sum)[2][N]) {
        float x[N], dy[N];
        load(x, static_cast<const T *>(p.x) + row * p.x_stride + column);
        load(dy, static_cast<const T *>(p.dy) + row * p.columns + column);
        const float mean = p.mean[row], rstd = p.rstd[row];
#pragma unroll
        for (int i = 0; i < N; i++) {
            sum[0][i] += dy[i] * ((x[i] - mean) * rstd);
            sum[1][i] += dy[i];
        }
    });
}

// True if rows are whole packs, in x and in the dense tensors.
template <class T>
__device__ __forceinline__ bool whole_packs(long long stride, int columns) {
    return stride % Vector<T>::size == 0 && columns % Vector<T>::size == 0;
}

}  // namespace

#define DEFINE(T, name)                                                                     \
    KERNEL(layer_norm_forward_##name, LayerNormForward, kThreads) {                         \
        if (whole_packs<T>(p.x_stride, p.columns) &&                                        \
            all_aligned(p.x, p.residual, p.weight, p.bias, p.y, p.sum))                     \
            forward<T, Vector<T>::size>(p);                                                 \
        else forward<T, 1>(p);                                                              \
    }                                                                                       \
    KERNEL(layer_norm_backward_##name, LayerNormBackward, kThreads) {                       \
        if (whole_packs<T>(p.x_stride, p.columns) &&                                        \
            all_aligned(p.x, p.weight, p.dy, p.dsum, p.dx))                                 \
            backward<T, Vector<T>::size>(p);                                                \
        else backward<T, 1>(p);                                                             \
    }                                                                                       \
    KERNEL(layer_norm_backward_parameters_##name, LayerNormParameters, kColumnThreads) {    \
        if (whole_packs<T>(p.x_stride, p.columns) && all_aligned(p.x, p.dy))                \
            parameters<T, Vector<T>::size>(p);                                              \
        else parameters<T, 1>(p);                                                           \
    }
FOR_EACH_ELEMENT(DEFINE)
