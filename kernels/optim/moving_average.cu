// Exponential moving average of every trained tensor, in one launch: average <- decay average + rest live, rest = 1 -
// decay, each operation rounded on its own, as on the CPU.
//
// average is f32, dense and updated in place (in 16 bits a slow average would stand still); live
// has the element type of the kernel. Where they are is in an array of AveragedTensor in device
// memory, owned by the caller like all else. Tensors do not overlap. Block b works on tensor
// tensor_of_block[b], on its chunk b - first_block of kChunk elements. Nothing need be aligned; four
// elements are moved at once where both pointers allow.
//
// Launch: kThreads threads, the number of blocks that the plan counted.
#include "aurora.cuh"
#include "packs.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 2048;

template <class T, int N>
__device__ __forceinline__ void move(const MovingAverage &p, const AveragedTensor &tensor,
                                     long long index) {
    float average[N], live[N];
    load(average, tensor.average + index);
    load(live, static_cast<const T *>(tensor.live) + index);
#pragma unroll
    for (int i = 0; i < N; i++)
        average[i] = __fadd_rn(__fmul_rn(average[i], p.decay), __fmul_rn(live[i], p.rest));
    store(tensor.average + index, average);
}

template <class T>
__device__ __forceinline__ void advance(const MovingAverage &p) {
    const AveragedTensor tensor = p.tensors[p.tensor_of_block[blockIdx.x]];
    const long long begin = static_cast<long long>(blockIdx.x - tensor.first_block) * kChunk;
    const long long end = begin + kChunk < tensor.length ? begin + kChunk : tensor.length;
    const bool packed = all_aligned(tensor.average) &&
                        reinterpret_cast<unsigned long long>(tensor.live) % (4 * sizeof(T)) == 0;
    if (!packed) {
        for (long long i = begin + threadIdx.x; i < end; i += kThreads) move<T, 1>(p, tensor, i);
        return;
    }
    for (long long i = begin + threadIdx.x * 4; i < end; i += kThreads * 4) {
        if (i + 4 <= end) move<T, 4>(p, tensor, i);
        else
            for (long long j = i; j < end; j++) move<T, 1>(p, tensor, j);
    }
}

}  // namespace

#define DEFINE(T, name) \
    KERNEL(moving_average_##name, MovingAverage, kThreads) { advance<T>(p); }
FOR_EACH_ELEMENT(DEFINE)
