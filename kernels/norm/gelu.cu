// GELU, exact form (Hendrycks and Gimpel 2016, arXiv:1606.08415): y = u Phi(u), u = x or x + bias (not rounded
// between).
//
// Forward: x (rows, columns), bias (columns) or null, y (rows, columns), all dense.
// Backward: dx = dy (Phi(u) + u phi(u)), phi the normal density. gelu_backward_columns computes the
// same and, for dbias, the sums of dx (before it is rounded) over the rows of each part, partial
// (parts, columns) in f32, which column_sum_finish (bias.cu) adds up.
//
// Phi is 0.5 (1 + erff(u / sqrt 2)): 1.2e-7 off at most in f32, which is absolute, not relative: far
// to the left y is lost in that. Shapes: GeluForward, GeluBackward in launch_params.h. The caller
// owns all memory; y may be x, dx may be x or dy. Nothing need be aligned; packs of 16 bytes are
// used where everything is and a row is whole packs (without a bias there are no rows, and what is
// left of the last pack goes element by element).
//
// Launch: a block of kThreads for each kThreads packs of 16 bytes; gelu_backward_columns see
// column_sum.cuh.
#include "aurora.cuh"
#include "column_sum.cuh"

namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float normal_cdf(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678f));
}

// Derivative of x Phi(x).
__device__ __forceinline__ float slope(float x) {
    return normal_cdf(x) + x * (0.39894228f * expf(-0.5f * x * x));
}

template <class T>
__device__ __forceinline__ bool rows_packed(const void *bias, int columns) {
    return !bias || (all_aligned(bias) && columns % Vector<T>::size == 0);
}

// Argument of the GELU: x, or x + bias.
template <class T, int N>
__device__ __forceinline__ void load_input(float (&u)[N], const void *x, const void *bias,
                                           long long index, long long column) {
    load(u, static_cast<const T *>(x) + index);
    if (!bias) return;
    float b[N];
    load(b, static_cast<const T *>(bias) + column);
#pragma unroll
    for (int i = 0; i < N; i++) u[i] += b[i];
}

template <class T>
struct ForwardPack {
    const GeluForward &p;

    template <int N>
    __device__ __forceinline__ void operator()(long long index, Width<N>) const {
        float u[N];
        load_input<T>(u, p.x, p.bias, index, p.bias ? index % p.columns : 0);
#pragma unroll
        for (int i = 0; i < N; i++) u[i] *= normal_cdf(u[i]);
        store(static_cast<T *>(p.y) + index, u);
    }
};

template <class T>
__device__ __forceinline__ void forward(const GeluForward &p) {
    const bool packed = rows_packed<T>(p.bias, p.columns) && all_aligned(p.x, p.y);
    each_pack<T>(p.count, packed, ForwardPack<T>{p});
}

template <class T, int N>
__device__ __forceinline__ void write_gradient(const GeluBackward &p, long long index,
                                               long long column, float (&dx)[N]) {
    float u[N];
    load_input<T>(u, p.x, p.bias, index, column);
    load(dx, static_cast<const T *>(p.dy) + index);
#pragma unroll
    for (int i = 0; i < N; i++) dx[i] *= slope(u[i]);
    store(static_cast<T *>(p.dx) + index, dx);
}

template <class T>
struct BackwardPack {
    const GeluBackward &p;

    template <int N>
    __device__ __forceinline__ void operator()(long long index, Width<N>) const {
        float dx[N];
        write_gradient<T>(p, index, p.bias ? index % p.columns : 0, dx);
    }
};

template <class T>
__device__ __forceinline__ void backward(const GeluBackward &p) {
    const bool packed = rows_packed<T>(p.bias, p.columns) && all_aligned(p.x, p.dy, p.dx);
    each_pack<T>(p.count, packed, BackwardPack<T>{p});
}

template <class T, int N>
__device__ __forceinline__ void backward_columns(const GeluBackward &p) {
    column_sums<T, N, 1>(p.count / p.columns, p.columns, p.rows_of_part, p.partial,
                         [&](long long row, int column, float(&sum)[1][N]) {
        float dx[N];
        write_gradient<T>(p, row * p.columns + column, column, dx);
#pragma unroll
        for (int i = 0; i < N; i++) sum[0][i] += dx[i];
    });
}

}  // namespace

#define DEFINE(T, name)                                                                   \
    KERNEL(gelu_forward_##name, GeluForward, kThreads) { forward<T>(p); }                 \
    KERNEL(gelu_backward_##name, GeluBackward, kThreads) { backward<T>(p); }              \
    KERNEL(gelu_backward_columns_##name, GeluBackward, kColumnThreads) {                  \
        if (p.columns % Vector<T>::size == 0 && all_aligned(p.x, p.bias, p.dy, p.dx))     \
            backward_columns<T, Vector<T>::size>(p);                                      \
        else backward_columns<T, 1>(p);                                                   \
    }
FOR_EACH_ELEMENT(DEFINE)
