// AdamW: one step for every trained tensor, in one launch (Loshchilov and Hutter 2017, arXiv:1711.05101).
//
// With gradient g, parameter p, moments m and v, and the step's constants c of the tensor's group:
//   p <- p shrink,  m <- m + blend1 (g - m),  v <- v beta2 + (blend2 g) g,
//   p <- p - (step_size m) / (sqrt(v) / root_correction2 + eps),
// each operation rounded on its own (no fused multiply-add) in the order of the CPU optimizer, so
// that both have the same bits.
//
// p, m and v are f32, dense and updated in place; g has the element type of the kernel. Where they
// are is in an array of AdamWTensor in device memory, owned by the caller like all else. Tensors do
// not overlap. Block b works on tensor tensor_of_block[b], on its chunk b - first_block of kChunk
// elements. Nothing need be aligned; four elements are moved at once where all four pointers allow.
//
// Launch: kThreads threads, the number of blocks that the plan counted.
#include "aurora.cuh"
#include "packs.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 2048;

__device__ __forceinline__ void update(const AdamWTensor &c, float &p, float g, float &m, float &v) {
    p = __fmul_rn(p, c.shrink);
    m = __fadd_rn(m, __fmul_rn(c.blend1, __fsub_rn(g, m)));
    v = __fadd_rn(__fmul_rn(v, c.beta2), __fmul_rn(__fmul_rn(c.blend2, g), g));
    const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), c.root_correction2), c.eps);
    p = __fsub_rn(p, __fdiv_rn(__fmul_rn(c.step_size, m), denominator));
}

template <class T, int N>
__device__ __forceinline__ void update_pack(const AdamWTensor &tensor, long long index) {
    float p[N], g[N], m[N], v[N];
    load(p, tensor.parameter + index);
    load(g, static_cast<const T *>(tensor.gradient) + index);
    load(m, tensor.first + index);
    load(v, tensor.second + index);
#pragma unroll
    for (int i = 0; i < N; i++) update(tensor, p[i], g[i], m[i], v[i]);
    store(tensor.parameter + index, p);
    store(tensor.first + index, m);
    store(tensor.second + index, v);
}

template <class T>
__device__ __forceinline__ void step(const AdamW &p) {
    const AdamWTensor tensor = p.tensors[p.tensor_of_block[blockIdx.x]];
    const long long begin = static_cast<long long>(blockIdx.x - tensor.first_block) * kChunk;
    const long long end = begin + kChunk < tensor.length ? begin + kChunk : tensor.length;
    const bool packed =
        all_aligned(tensor.parameter, tensor.first, tensor.second) &&
        reinterpret_cast<unsigned long long>(tensor.gradient) % (4 * sizeof(T)) == 0;
    if (!packed) {
        for (long long i = begin + threadIdx.x; i < end; i += kThreads) update_pack<T, 1>(tensor, i);
        return;
    }
    for (long long i = begin + threadIdx.x * 4; i < end; i += kThreads * 4) {
        if (i + 4 <= end) update_pack<T, 4>(tensor, i);
        else
            for (long long j = i; j < end; j++) update_pack<T, 1>(tensor, j);
    }
}

}  // namespace

#define DEFINE(T, name) \
    KERNEL(adamw_##name, AdamW, kThreads) { step<T>(p); }
FOR_EACH_ELEMENT(DEFINE)
