// Attention backward, queries: delta = rowsum(out * dout), and dq (FlashAttention, Dao et al. 2022,
// arXiv:2205.14135).
//
// Derivation: docs/math/attention.md. Probabilities are recomputed from q, k and log_sums:
//     p = exp(factor scale (q . k) + mask - log_sum)
//     ds = p (dout . v - delta) scale,   delta = out . dout
//     dq = factor (ds k)
// Shapes and strides: AttentionDelta and AttentionBackward in launch_params.h; rows and alignment as in forward.cu.
// ds is rounded to the element type for its product with k; factor comes last, so that small numbers keep their
// digits in f16.
//
// attention_delta has to run first: one warp for each query of each head. Launch: kThreads threads,
// a block for every kWarps of Bq Tq heads.
//
// attention_backward_query_D: a block owns kRows queries of one head of one row of queries, whose dq
// it writes, and walks over the keys in tiles of N as the forward pass does. Nothing is shared
// between blocks. Launch: kThreads threads; ceil(Tq / kRows) * heads * Bq blocks, the tile of queries
// fastest; sizeof(QueryShared) bytes of dynamic shared memory.
#include "attention.cuh"

namespace {

template <class T>
__device__ __forceinline__ void delta(const AttentionDelta &p) {
    const int lane = threadIdx.x % kWarpSize;
    // The heads of a query lie side by side, and so do their warps.
    const long long index =
        static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
    const int head = static_cast<int>(index % p.heads);
    const long long vector = index / p.heads;
    const int i = static_cast<int>(vector % p.q_len);
    if (vector / p.q_len >= p.queries) return;  // the whole warp
    const int query = static_cast<int>(vector / p.q_len);
    const T *out = Head<T>(p.out, query, head, p.q_len, p.head).row(i);
    const T *dout = Head<T>(p.dout, query, head, p.q_len, p.head).row(i);
    float sum = 0.0f;
    for (int column = lane; column < p.head; column += kWarpSize)
        sum += to_float(out[column]) * to_float(dout[column]);
    sum = warp_sum(sum);
    if (lane == 0) p.deltas[(static_cast<long long>(query) * p.heads + head) * p.q_len + i] = sum;
}

// Keys of a tile: as many as leave the accumulators in registers.
template <class T, int D>
constexpr int kKeys = sizeof(T) == 2 && D <= 64 ? 64 : 32;

template <class T, int D, int N>
struct QueryShared : Scratch<T, N> {
    Tile<T, D, kRows> q, dout;
    Tile<T, D, N> k[2], v[2];
    Term terms[2][N];
};

template <class T, int D>
__device__ __forceinline__ void backward_query(const AttentionBackward &p) {
    constexpr int N = kKeys<T, D>;
    using Shared = QueryShared<T, D, N>;
    DYNAMIC_SHARED(Shared, shared);
    const AttentionScores &scores = p.scores;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kWarpSize, warp = thread / kWarpSize;
    const int group = lane / 4, pair = lane % 4 * 2;

    const int tiles = (scores.q_len + kRows - 1) / kRows;
    const int block = static_cast<int>(blockIdx.x);
    const int first = (tiles - 1 - block % tiles) * kRows;
    const int head = block / tiles % scores.heads, query = block / tiles / scores.heads;
    const int key = p.kv_rows ? static_cast<int>(p.kv_rows[query]) : query;
    const Head<T> k(p.k, key, head, scores.k_len, scores.head);
    const Head<T> v(p.v, key, head, scores.k_len, scores.head);

    const float base = scores.factor * kLog2E;
    // Query i sees the keys up to i + reach.
    const int reach = scores.causal ? scores.k_len - scores.q_len : scores.k_len;
    const int row = warp * kWarpRows, own = first + row;
    const int last = min(first + kRows, scores.q_len) - 1;
    const int key_tiles = (min(last + reach + 1, scores.k_len) + N - 1) / N;

    fetch(shared->q, Head<T>(p.q, query, head, scores.q_len, scores.head), first);
    fetch(shared->dout, Head<T>(p.dout, query, head, scores.q_len, scores.head), first);
    fetch(shared->k[0], k, 0);
    fetch(shared->v[0], v, 0);
    async_commit();
    if (thread < N) shared->terms[0][thread] = key_term(scores, query, thread, 1.0f);

    // Of rows group and group + 8; a row past the last has no probabilities.
    float log_sum[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = own + group + half * 8;
        const long long at =
            (static_cast<long long>(query) * scores.heads + head) * scores.q_len + i;
        log_sum[half] = i < scores.q_len ? p.log_sums[at] * kLog2E : infinity();
        delta[half] = i < scores.q_len ? p.deltas[at] : 0.0f;
    }

    float dq[D / 8][4];
    clear(dq);
    for (int tile = 0; tile < key_tiles; tile++) {
        const int stage = tile % 2, start = tile * N;
        const bool more = tile + 1 < key_tiles;
        async_wait<0>();
        __syncthreads();
        Term next{};
        if (more) {  // into the stage that everyone has left
            fetch(shared->k[stage ^ 1], k, start + N);
            fetch(shared->v[stage ^ 1], v, start + N);
            async_commit();
            if (thread < N) next = key_term(scores, query, start + N + thread, 1.0f);
        }
        if (own < scores.q_len) {  // the whole warp
            float s[N / 8][4], ds[N / 8][4];
            clear(s);
            multiply_transposed(s, shared->q, row, shared->k[stage]);
            clear(ds);
            multiply_transposed(ds, shared->dout, row, shared->v[stage]);
            const bool hides = start + N - 1 > own + reach;
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    const int half = r / 2, column = n * 8 + pair + r % 2;
                    const Term term = shared->terms[stage][column];
                    float score = s[n][r] * base * term.factor + term.addend;
                    if (hides && start + column > own + group + half * 8 + reach)
                        score = -infinity();
                    const float probability = power_of_two(score - log_sum[half]);
                    ds[n][r] = probability * (ds[n][r] - delta[half]) * term.factor;
                }
            multiply<T, D, N>(dq, ds, shared->k[stage], row, *shared);
        }
        if (more && thread < N) shared->terms[stage ^ 1][thread] = next;
    }
    if (own >= scores.q_len) return;  // the whole warp
    const Head<T> to(p.dq, query, head, scores.q_len, scores.head);
    store(to, own, dq, scores.factor, scores.factor, shared->q, row);
}

}  // namespace

#define DEFINE_HEAD(T, name, D)                                                        \
    KERNEL_RESIDENT(attention_backward_query_##D##_##name, AttentionBackward, kThreads, 2) { \
        backward_query<T, D>(p);                                                              \
    }
#define DEFINE(T, name)                                                              \
    KERNEL(attention_delta_##name, AttentionDelta, kThreads) { delta<T>(p); }        \
    FOR_EACH_HEAD(DEFINE_HEAD, T, name)
FOR_EACH_ELEMENT(DEFINE)
