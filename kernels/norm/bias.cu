// Bias of a linear layer, and its gradient, a column sum.
//
// add_bias: y (rows, columns) += bias (columns), in place.
// column_sum: x (rows, columns), rows x_stride elements apart, to partial (parts, columns) in f32,
// each part rows_of_part rows.
// column_sum_finish: partial (parts, K, columns) to K vectors (columns) of the element type, K
// being 1 or 2; a vector that is null is left out. Also the last step of other kernels'
// gradients. The order of all sums depends on the shape alone.
//
// Shapes: AddBias, ColumnSum, ColumnSumFinish in launch_params.h. Sums are f32. The caller owns
// all memory. Nothing need be aligned; packs of 16 bytes are used where everything is.
//
// Launch: add_bias a block of kThreads for each kThreads packs of 16 bytes; column_sum see
// column_sum.cuh; column_sum_finish a block of kColumnThreads for every 32 columns.
#include "aurora.cuh"
#include "column_sum.cuh"

namespace {

constexpr int kThreads = 256;

template <class T>
struct AddBiasToPack {
    const AddBias &p;

    template <int N>
    __device__ __forceinline__ void operator()(long long index, Width<N>) const {
        float y[N], bias[N];
        load(y, static_cast<const T *>(p.y) + index);
        load(bias, static_cast<const T *>(p.bias) + index % p.columns);
#pragma unroll
        for (int i = 0; i < N; i++) y[i] += bias[i];
        store(static_cast<T *>(p.y) + index, y);
    }
};

template <class T>
__device__ __forceinline__ void add_bias(const AddBias &p) {
    const bool packed = p.columns % Vector<T>::size == 0 && all_aligned(p.y, p.bias);
    each_pack<T>(p.count, packed, AddBiasToPack<T>{p});
}

template <class T, int N>
__device__ __forceinline__ void column_sum(const ColumnSum &p) {
    column_sums<T, N, 1>(p.rows, p.columns, p.rows_of_part, p.partial,
                         [&](long long row, int column, float(&sum)[1][N]) {
        float x[N];
        load(x, static_cast<const T *>(p.x) + row * p.x_stride + column);
#pragma unroll
        for (int i = 0; i < N; i++) sum[0][i] += x[i];
    });
}

template <class T, int K>
__device__ __forceinline__ void finish(const ColumnSumFinish &p) {
    int column;
    float total[K];
    if (!finish_columns<K>(p.partial, p.parts, p.columns, column, total)) return;
#pragma unroll
    for (int k = 0; k < K; k++)
        if (p.out[k]) from_float(static_cast<T *>(p.out[k])[column], total[k]);
}

}  // namespace

#define DEFINE(T, name)                                                                        \
    KERNEL(add_bias_##name, AddBias, kThreads) { add_bias<T>(p); }                             \
    KERNEL(column_sum_##name, ColumnSum, kColumnThreads) {                                     \
        if (p.x_stride % Vector<T>::size == 0 && p.columns % Vector<T>::size == 0 &&           \
            all_aligned(p.x))                                                                  \
            column_sum<T, Vector<T>::size>(p);                                                 \
        else column_sum<T, 1>(p);                                                              \
    }                                                                                          \
    KERNEL(column_sum_finish_##name, ColumnSumFinish, kColumnThreads) {                        \
        if (p.sums == 1) finish<T, 1>(p);                                                      \
        else finish<T, 2>(p);                                                                  \
    }
FOR_EACH_ELEMENT(DEFINE)
