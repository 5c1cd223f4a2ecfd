// Gated query transformation (Wang et al. 2023, arXiv:2305.08381), the last step of a fusion layer:
//   out = ffn + g_s (scale_s h_self + shift_s) + g_c (scale_c h_cross + shift_c),
// with g = tanh(a) of a trained number a each, or, where the pointer to a is null, g = constant.
//
// Backward: the gradient of ffn is dout itself. With P = colsum(dout h_self),
// Q = colsum(dout h_cross), S = colsum(dout):
//   dh_self = g_s scale_s dout             dscale_s = g_s P, dshift_s = g_s S
//   da_s = (1 - g_s^2) (scale_s . P + shift_s . S)       and likewise for cross, with Q.
// gated_query_backward writes dh and the sums over the rows of each part, gated_query_finish adds up
// the parts and writes the gradients of the vectors, and where a has one, gated_query_gates adds up
// over columns. The order of all sums depends on the shape alone.
//
// ffn, h_self, h_cross, dout, out, dh: (rows, columns), dense; vectors (columns); a one element;
// all of one element type. partial (parts, 3, columns) and sums (3, columns) are f32 and the
// caller's, like all memory. out may be ffn. Nothing need be aligned; packs of 16 bytes are used
// where everything is. Structs: GatedQuery* in launch_params.h.
//
// Launch: forward and backward see column_sum.cuh, finish a block of kColumnThreads for every 32
// columns, gates one block of kColumnThreads.
#include "aurora.cuh"
#include "column_sum.cuh"

namespace {

template <class T>
__device__ __forceinline__ float gate_of(const void *a, float constant) {
    return a ? tanhf(to_float(*static_cast<const T *>(a))) : constant;
}

template <class T, int N>
__device__ __forceinline__ void load_times(float (&to)[N], float factor, const void *from, int column) {
    load(to, static_cast<const T *>(from) + column);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] *= factor;
}

// Forward keeps the parameters of its columns and walks down its rows with them.
template <class T, int N>
__device__ __forceinline__ void forward(const GatedQueryForward &p) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const long long first = static_cast<long long>(blockIdx.y) * p.rows_of_part;
    const long long end = first + p.rows_of_part < p.rows ? first + p.rows_of_part : p.rows;
    constexpr int kGroups = Vector<T>::size / N;
    const float gate_self = gate_of<T>(p.gate_self, p.constant);
    const float gate_cross = gate_of<T>(p.gate_cross, p.constant);
    for (int group = 0; group < kGroups; group++) {
        const long long wide =
            ((static_cast<long long>(blockIdx.x) * kGroups + group) * kWarpSize + lane) * N;
        if (wide >= p.columns) return;
        const int column = static_cast<int>(wide);
        float scale_self[N], scale_cross[N], shift[N], other[N];
        load_times<T>(scale_self, gate_self, p.scale_self, column);
        load_times<T>(scale_cross, gate_cross, p.scale_cross, column);
        load_times<T>(shift, gate_self, p.shift_self, column);
        load_times<T>(other, gate_cross, p.shift_cross, column);
#pragma unroll
        for (int i = 0; i < N; i++) shift[i] += other[i];
        for (long long row = first + warp; row < end; row += kColumnWarps) {
            const long long at = row * p.columns + column;
            float out[N], h_self[N], h_cross[N];
            load(out, static_cast<const T *>(p.ffn) + at);
            load(h_self, static_cast<const T *>(p.h_self) + at);
            load(h_cross, static_cast<const T *>(p.h_cross) + at);
#pragma unroll
            for (int i = 0; i < N; i++)
                out[i] += scale_self[i] * h_self[i] + (scale_cross[i] * h_cross[i] + shift[i]);
            store(static_cast<T *>(p.out) + at, out);
        }
    }
}

template <class T, int N>
__device__ __forceinline__ void backward(const GatedQueryBackward &p) {
    const float gate_self = gate_of<T>(p.gate_self, p.constant);
    const float gate_cross = gate_of<T>(p.gate_cross, p.constant);
    column_sums<T, N, 3>(p.rows, p.columns, p.rows_of_part, p.partial,
                         [&](long long row, int column, float(&sum)[3][N]) {
        const long long at = row * p.columns + column;
        float dout[N];
        load(dout, static_cast<const T *>(p.dout) + at);
        // One branch after the other, for the registers.
        auto branch = [&](void *dh, const void *h, const void *scale, float gate, float(&with)[N]) {
            float d[N];
            if (dh) {
                load_times<T>(d, gate, scale, column);
#pragma unroll
                for (int i = 0; i < N; i++) d[i] *= dout[i];
                store(static_cast<T *>(dh) + at, d);
            }
            if (!p.partial) return;
            load(d, static_cast<const T *>(h) + at);
#pragma unroll
            for (int i = 0; i < N; i++) with[i] += dout[i] * d[i];
        };
        branch(p.dh_self, p.h_self, p.scale_self, gate_self, sum[0]);
        branch(p.dh_cross, p.h_cross, p.scale_cross, gate_cross, sum[1]);
#pragma unroll
        for (int i = 0; i < N; i++) sum[2][i] += dout[i];
    });
}

template <class T>
__device__ __forceinline__ void finish(const GatedQueryFinish &p) {
    int column;
    float total[3];
    if (!finish_columns<3>(p.partial, p.parts, p.columns, column, total)) return;
    auto write = [&](void *to, float x) {
        if (to) from_float(static_cast<T *>(to)[column], x);
    };
    const float gate_self = gate_of<T>(p.gate_self, p.constant);
    const float gate_cross = gate_of<T>(p.gate_cross, p.constant);
    write(p.dscale_self, gate_self * total[0]);
    write(p.dscale_cross, gate_cross * total[1]);
    write(p.dshift_self, gate_self * total[2]);
    write(p.dshift_cross, gate_cross * total[2]);
    if (!p.sums) return;
#pragma unroll
    for (int k = 0; k < 3; k++) p.sums[static_cast<long long>(k) * p.columns + column] = total[k];
}

template <class T>
__device__ __forceinline__ void gates(const GatedQueryGates &p) {
    SHARED(WarpNumbers, scratch);
    const float *with_self = p.sums, *with_cross = with_self + p.columns;
    const float *alone = with_cross + p.columns;
    auto reduce = [&](void *to, const void *a, const void *scale, const void *shift,
                      const float *with) {
        if (!to) return;  // the whole block
        float total = 0.0f;
        for (long long c = threadIdx.x; c < p.columns; c += kColumnThreads)
            total += to_float(static_cast<const T *>(scale)[c]) * with[c] +
                     to_float(static_cast<const T *>(shift)[c]) * alone[c];
        total = block_sum(total, scratch);
        const float gate = gate_of<T>(a, 0.0f);
        if (threadIdx.x == 0) from_float(*static_cast<T *>(to), (1.0f - gate * gate) * total);
    };
    reduce(p.dgate_self, p.gate_self, p.scale_self, p.shift_self, with_self);
    reduce(p.dgate_cross, p.gate_cross, p.scale_cross, p.shift_cross, with_cross);
}

}  // namespace

#define DEFINE(T, name)                                                                        \
    KERNEL(gated_query_forward_##name, GatedQueryForward, kColumnThreads) {                    \
        if (p.columns % Vector<T>::size == 0 &&                                                \
            all_aligned(p.ffn, p.h_self, p.h_cross, p.scale_self, p.shift_self, p.scale_cross, \
                        p.shift_cross, p.out))                                                 \
            forward<T, Vector<T>::size>(p);                                                    \
        else forward<T, 1>(p);                                                                 \
    }                                                                                          \
    KERNEL(gated_query_backward_##name, GatedQueryBackward, kColumnThreads) {                  \
        if (p.columns % Vector<T>::size == 0 &&                                                \
            all_aligned(p.dout, p.h_self, p.h_cross, p.scale_self, p.scale_cross, p.dh_self,   \
                        p.dh_cross))                                                           \
            backward<T, Vector<T>::size>(p);                                                   \
        else backward<T, 1>(p);                                                                \
    }                                                                                          \
    KERNEL(gated_query_finish_##name, GatedQueryFinish, kColumnThreads) { finish<T>(p); }      \
    KERNEL(gated_query_gates_##name, GatedQueryGates, kColumnThreads) { gates<T>(p); }
FOR_EACH_ELEMENT(DEFINE)
