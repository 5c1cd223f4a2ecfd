// Cross-entropy over rows of logits, with soft targets (weights of every class) or one label per row.
//
// With lse = ln(sum(exp(x))) of a row x of C logits:
//   soft:  loss = sum(t (lse - x)), over classes with t not zero; w = sum(t);
//          dx = d (w softmax(x) - t);
//   label: loss = (1 - s)(lse - x[label]) + s (lse - mean(x)), s the smoothing; w = 1;
//          dx = d (softmax(x) - (1 - s) onehot(label) - s / C),
// with d = scale dloss[row dloss_stride]. A logit of minus infinity is an impossible class; its target has to be
// zero. A label that is not below C gives NaN, and no access out of bounds.
//
// Each pass reads the logits and targets once. Forward keeps a running maximum and rescales its sums when that moves
// (online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867). Rows that are few and long are cut into slices,
// one a block, and soft_cross_entropy_combine joins them in order; with one slice a row, forward writes the result.
// loss_mean adds up the losses of all rows in a fixed order, in one block.
//
// logits (rows, C), rows logits_stride apart; targets likewise; dlogits dense; all of one element
// type. labels u32 (rows). loss, log_sum, weight (rows), dloss and partial (rows, slices, 4) are
// f32. The caller owns all memory; dlogits may be logits or targets if that has its strides. Nothing
// need be aligned: where the operands are misaligned alike, packs of 16 bytes begin at the first
// address that allows them.
//
// Launch: forward and backward kThreads threads, rows * slices blocks; combine a thread a row;
// loss_mean one block of kThreads. Structs: SoftCrossEntropy*, LossMean in launch_params.h.
#include "aurora.cuh"
#include "packs.cuh"

namespace {

constexpr int kThreads = 256;

// Partial sums of a row, or a slice of one: sum(exp(x - top)), sum(t) and sum(t x). For labels the last is sum(x).
struct Part {
    float top, exponentials, weight, products;
};

__device__ __forceinline__ Part nothing() { return {-infinity(), 0.0f, 0.0f, 0.0f}; }

// Shift of the exponents: zero before the first class, because -inf - -inf would be no number.
__device__ __forceinline__ float shift_of(float top) { return top == -infinity() ? 0.0f : top; }

__device__ __forceinline__ Part join(const Part &a, const Part &b) {
    const float top = fmaxf(a.top, b.top), shift = shift_of(top);
    return {top, a.exponentials * expf(a.top - shift) + b.exponentials * expf(b.top - shift),
            a.weight + b.weight, a.products + b.products};
}

__device__ __forceinline__ Part warp_join(Part own) {
#pragma unroll
    for (int bits = kWarpSize / 2; bits > 0; bits /= 2) {
        Part other;
        other.top = __shfl_xor_sync(kWholeWarp, own.top, bits);
        other.exponentials = __shfl_xor_sync(kWholeWarp, own.exponentials, bits);
        other.weight = __shfl_xor_sync(kWholeWarp, own.weight, bits);
        other.products = __shfl_xor_sync(kWholeWarp, own.products, bits);
        // The lane with the bit unset comes first, in both.
        own = (threadIdx.x & bits) ? join(other, own) : join(own, other);
    }
    return own;
}

struct Parts {
    Part at[kThreads / kWarpSize];
};

// Slice of a row: the classes that a block works on.
struct Slice {
    long long row;
    int index, begin, end;
};

__device__ __forceinline__ Slice slice_of_block(int slices, int length, int classes) {
    Slice slice;
    slice.row = blockIdx.x / static_cast<unsigned>(slices);
    slice.index = static_cast<int>(blockIdx.x % static_cast<unsigned>(slices));
    const long long begin = static_cast<long long>(slice.index) * length;
    const long long end = begin + length;
    slice.begin = begin < classes ? static_cast<int>(begin) : classes;
    slice.end = end < classes ? static_cast<int>(end) : classes;
    return slice;
}

// Elements until the next multiple of 16 bytes.
template <class T>
__device__ __forceinline__ int until_aligned(const T *p) {
    const unsigned past = static_cast<unsigned>(reinterpret_cast<unsigned long long>(p) % 16);
    return static_cast<int>((16 - past) % 16 / sizeof(T));
}

// Calls body(class, width) for this thread's classes of a slice; packs begin `head` classes after
// the slice does, or nowhere where head is negative.
template <class T, class Body>
__device__ __forceinline__ void each_class(const Slice &slice, int head, Body body) {
    constexpr int N = Vector<T>::size;
    const int length = slice.end - slice.begin;
    if (head < 0 || head > length) head = length;
    const int packs = (length - head) / N, tail = head + packs * N;
    for (int i = threadIdx.x; i < head; i += kThreads) body(slice.begin + i, Width<1>{});
    for (int i = threadIdx.x; i < packs; i += kThreads)
        body(slice.begin + head + i * N, Width<N>{});
    for (int i = tail + threadIdx.x; i < length; i += kThreads) body(slice.begin + i, Width<1>{});
}

// Loss and log-sum-exp of a row, from its sums.
template <class T>
__device__ __forceinline__ void finish(const SoftCrossEntropyForward &p, long long row,
                                       const Part &part) {
    const float log_sum =
        part.top == -infinity() ? part.top : part.top + logf(part.exponentials);
    float loss;
    if (p.labels) {
        const unsigned label = p.labels[row];
        if (label < static_cast<unsigned>(p.classes)) {
            const float x = to_float(static_cast<const T *>(p.logits)[row * p.logits_stride + label]);
            loss = (1.0f - p.smoothing) * (log_sum - x);
            if (p.smoothing != 0.0f)
                loss += p.smoothing * (log_sum - part.products / static_cast<float>(p.classes));
        } else {
            loss = __int_as_float(0x7fc00000);
        }
    } else {
        loss = (part.weight == 0.0f ? 0.0f : part.weight * log_sum) - part.products;
    }
    p.loss[row] = loss;
    p.log_sum[row] = log_sum;
    if (p.weight) p.weight[row] = p.labels ? 1.0f : part.weight;
}

// Adds classes to a thread's sums.
template <class T>
struct AddClasses {
    const T *logits, *targets;
    bool soft, sums;
    Part &own;

    template <int N>
    __device__ __forceinline__ void operator()(int c, Width<N>) const {
        float x[N], t[N];
        load(x, logits + c);
        float top = own.top;
#pragma unroll
        for (int i = 0; i < N; i++) top = fmaxf(top, x[i]);
        const float shift = shift_of(top);
        float sum = own.exponentials * expf(own.top - shift);
#pragma unroll
        for (int i = 0; i < N; i++) sum += expf(x[i] - shift);
        own.top = top, own.exponentials = sum;
        if (soft) {
            load(t, targets + c);
#pragma unroll
            for (int i = 0; i < N; i++) {
                own.weight += t[i];
                own.products += t[i] == 0.0f ? 0.0f : t[i] * x[i];
            }
        } else if (sums) {
#pragma unroll
            for (int i = 0; i < N; i++) own.products += x[i];
        }
    }
};

template <class T>
__device__ __forceinline__ void forward(const SoftCrossEntropyForward &p) {
    const Slice slice = slice_of_block(p.slices, p.slice_length, p.classes);
    const T *logits = static_cast<const T *>(p.logits) + slice.row * p.logits_stride;
    const T *targets = static_cast<const T *>(p.targets) + slice.row * p.targets_stride;
    const bool soft = !p.labels, sums = p.smoothing != 0.0f;
    int head = until_aligned(logits + slice.begin);
    if (soft && head != until_aligned(targets + slice.begin)) head = -1;

    Part own = nothing();
    each_class<T>(slice, head, AddClasses<T>{logits, targets, soft, sums, own});

    SHARED(Parts, scratch);
    own = warp_join(own);
    if (threadIdx.x % kWarpSize == 0) scratch.at[threadIdx.x / kWarpSize] = own;
    __syncthreads();
    if (threadIdx.x != 0) return;
    own = scratch.at[0];
    for (int warp = 1; warp < kThreads / kWarpSize; warp++) own = join(own, scratch.at[warp]);
    if (p.slices == 1) return finish<T>(p, slice.row, own);
    float *partial = p.partial + (slice.row * p.slices + slice.index) * 4;
    partial[0] = own.top, partial[1] = own.exponentials;
    partial[2] = own.weight, partial[3] = own.products;
}

template <class T>
__device__ __forceinline__ void combine(const SoftCrossEntropyForward &p) {
    const long long row = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (row >= p.rows) return;
    Part all = nothing();
    for (int slice = 0; slice < p.slices; slice++) {
        const float *partial = p.partial + (row * p.slices + slice) * 4;
        all = join(all, {partial[0], partial[1], partial[2], partial[3]});
    }
    finish<T>(p, row, all);
}

// Writes the gradient of classes.
template <class T>
struct WriteGradient {
    const T *logits, *targets;
    T *dlogits;
    bool soft;
    float d, log_sum, factor, spread, at_label;
    unsigned label;

    template <int N>
    __device__ __forceinline__ void operator()(int c, Width<N>) const {
        float x[N], t[N];
        load(x, logits + c);
        if (soft) {
            load(t, targets + c);
#pragma unroll
            for (int i = 0; i < N; i++) t[i] *= d;
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                t[i] = static_cast<unsigned>(c + i) == label ? spread + at_label : spread;
        }
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = factor * expf(x[i] - log_sum) - t[i];
        store(dlogits + c, x);
    }
};

template <class T>
__device__ __forceinline__ void backward(const SoftCrossEntropyBackward &p) {
    const Slice slice = slice_of_block(p.slices, p.slice_length, p.classes);
    const T *logits = static_cast<const T *>(p.logits) + slice.row * p.logits_stride;
    const T *targets = static_cast<const T *>(p.targets) + slice.row * p.targets_stride;
    T *dlogits = static_cast<T *>(p.dlogits) + slice.row * p.classes;
    const bool soft = !p.labels;
    int head = until_aligned(logits + slice.begin);
    if (head != until_aligned(dlogits + slice.begin)) head = -1;
    if (soft && head != until_aligned(targets + slice.begin)) head = -1;

    const float d = p.scale * p.dloss[slice.row * p.dloss_stride];
    const float log_sum = p.log_sum[slice.row];
    const float factor = soft ? d * p.weight[slice.row] : d;
    const unsigned label = soft ? 0 : p.labels[slice.row];
    const float at_label = d * (1.0f - p.smoothing);
    const float spread = d * (p.smoothing / static_cast<float>(p.classes));
    each_class<T>(slice, head, WriteGradient<T>{logits, targets, dlogits, soft, d, log_sum, factor,
                                                spread, at_label, label});
}

__device__ __forceinline__ void mean(const LossMean &p) {
    SHARED(WarpNumbers, scratch);
    float total = 0.0f;
    for (long long row = threadIdx.x; row < p.rows; row += kThreads) total += p.loss[row];
    total = block_sum(total, scratch);
    if (threadIdx.x == 0) *p.mean = total / static_cast<float>(p.rows);
}

}  // namespace

#define DEFINE(T, name)                                                                          \
    KERNEL(soft_cross_entropy_forward_##name, SoftCrossEntropyForward, kThreads) {               \
        forward<T>(p);                                                                           \
    }                                                                                            \
    KERNEL(soft_cross_entropy_combine_##name, SoftCrossEntropyForward, kThreads) {               \
        combine<T>(p);                                                                           \
    }                                                                                            \
    KERNEL(soft_cross_entropy_backward_##name, SoftCrossEntropyBackward, kThreads) {             \
        backward<T>(p);                                                                          \
    }
FOR_EACH_ELEMENT(DEFINE)
KERNEL(loss_mean_f32, LossMean, kThreads) { mean(p); }
