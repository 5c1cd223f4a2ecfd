// Attention backward, keys and values: dk and dv (FlashAttention, Dao et al. 2022, arXiv:2205.14135).
//
// Derivation: docs/math/attention.md. Probabilities are recomputed, with keys as rows:
//     p = exp(factor scale (k . q) + mask - log_sum),   dv = p dout
//     ds = p (v . dout - delta) scale,                   dk = factor (ds q)
// Shapes and strides: AttentionBackward in launch_params.h; rows, alignment and rounding as in backward_query.cu,
// whose attention_delta has to run first. Where data of dk (or dv) is null that gradient, and what is only for it, is
// left out.
//
// A block owns kRows keys of one head of one row of keys, whose dk and dv it writes. It walks over the rows of
// queries that use these keys, in order, and over the queries of each in tiles of N: all sums in dk and dv are formed
// in one block, in an order that the shape alone decides. Keys that no row of queries uses get zeros.
//
// Launch: kThreads threads; ceil(Tk / kRows) * heads * Bk blocks, the tile of keys fastest (those
// blocks read the same queries); sizeof(KeyShared) bytes of dynamic shared memory.
#include "attention.cuh"

namespace {

// Queries of a tile: as many as leave the accumulators in registers.
template <class T, int D>
constexpr int kQueries = sizeof(T) == 2 && D <= 64 ? 64 : 32;

// Log-sum-exp of a query, in units of ln 2, and its delta.
struct alignas(8) QueryTerm {
    float log_sum, delta;
};

template <class T, int D, int N>
struct KeyShared : Scratch<T, N> {
    Tile<T, D, kRows> k, v;
    Tile<T, D, N> q[2], dout[2];
    QueryTerm terms[2][N];
};

template <class T, int D>
__device__ __forceinline__ void backward_key(const AttentionBackward &p) {
    constexpr int N = kQueries<T, D>;
    using Shared = KeyShared<T, D, N>;
    DYNAMIC_SHARED(Shared, shared);
    const AttentionScores &scores = p.scores;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kWarpSize, warp = thread / kWarpSize;
    const int group = lane / 4, pair = lane % 4 * 2;

    const int tiles = (scores.k_len + kRows - 1) / kRows;
    const int block = static_cast<int>(blockIdx.x);
    const int first = block % tiles * kRows;
    const int head = block / tiles % scores.heads, key = block / tiles / scores.heads;
    const int row = warp * kWarpRows, own = first + row;

    const float base = scores.factor * kLog2E;
    // Query i sees the keys up to i + reach: the first that sees any of this block's, at a tile's start.
    const int reach = scores.causal ? scores.k_len - scores.q_len : scores.k_len;
    const int from = max(first - reach, 0) / N * N;
    int entry = p.query_offsets ? static_cast<int>(p.query_offsets[key]) : key;
    int end = p.query_offsets ? static_cast<int>(p.query_offsets[key + 1]) : key + 1;
    if (from >= scores.q_len) end = entry;

    auto query_of = [&](int entry) {
        return p.query_rows ? static_cast<int>(p.query_rows[entry]) : entry;
    };
    auto bring = [&](int stage, int query, int start) {
        fetch(shared->q[stage], Head<T>(p.q, query, head, scores.q_len, scores.head), start);
        fetch(shared->dout[stage], Head<T>(p.dout, query, head, scores.q_len, scores.head), start);
        async_commit();
    };
    // A query past the last has no probabilities.
    auto query_term = [&](int query, int i) -> QueryTerm {
        if (i >= scores.q_len) return {infinity(), 0.0f};
        const long long at =
            (static_cast<long long>(query) * scores.heads + head) * scores.q_len + i;
        return {p.log_sums[at] * kLog2E, p.deltas[at]};
    };

    float dk[D / 8][4], dv[D / 8][4];
    clear(dk);
    clear(dv);
    Term term[2] = {};  // of rows group and group + 8
    int query = 0, start = from;
    if (entry < end) {
        fetch(shared->k, Head<T>(p.k, key, head, scores.k_len, scores.head), first);
        fetch(shared->v, Head<T>(p.v, key, head, scores.k_len, scores.head), first);
        query = query_of(entry);
        bring(0, query, start);
        if (thread < N) shared->terms[0][thread] = query_term(query, start + thread);
    }
    for (int stage = 0; entry < end; stage ^= 1) {
        const int here = start;
        if (here == from) {
            term[0] = key_term(scores, query, own + group, 1.0f);
            term[1] = key_term(scores, query, own + group + 8, 1.0f);
        }
        start += N;
        if (start >= scores.q_len) {
            start = from, entry++;
            if (entry < end) query = query_of(entry);
        }
        async_wait<0>();
        __syncthreads();
        QueryTerm next{};
        if (entry < end) {  // into the stage that everyone has left
            bring(stage ^ 1, query, start);
            if (thread < N) next = query_term(query, start + thread);
        }
        if (own < scores.k_len) {  // the whole warp
            float s[N / 8][4];
            clear(s);
            multiply_transposed(s, shared->k, row, shared->q[stage]);
            const bool hides = own + kWarpRows - 1 > here + reach;
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    const int half = r / 2, column = n * 8 + pair + r % 2;
                    float score = s[n][r] * base * term[half].factor + term[half].addend;
                    if (hides && own + group + half * 8 > here + column + reach)
                        score = -infinity();
                    s[n][r] = power_of_two(score - shared->terms[stage][column].log_sum);
                }
            if (p.dv.data) multiply<T, D, N>(dv, s, shared->dout[stage], row, *shared);
            if (p.dk.data) {
                float ds[N / 8][4];
                clear(ds);
                multiply_transposed(ds, shared->v, row, shared->dout[stage]);
#pragma unroll
                for (int n = 0; n < N / 8; n++)
#pragma unroll
                    for (int r = 0; r < 4; r++)
                        ds[n][r] = s[n][r] * term[r / 2].factor *
                                   (ds[n][r] - shared->terms[stage][n * 8 + pair + r % 2].delta);
                multiply<T, D, N>(dk, ds, shared->q[stage], row, *shared);
            }
        }
        if (entry < end && thread < N) shared->terms[stage ^ 1][thread] = next;
    }

    if (own >= scores.k_len) return;  // the whole warp
    if (p.dk.data) {
        const Head<T> to(p.dk, key, head, scores.k_len, scores.head);
        store(to, own, dk, scores.factor, scores.factor, shared->k, row);
    }
    if (p.dv.data) {
        const Head<T> to(p.dv, key, head, scores.k_len, scores.head);
        store(to, own, dv, 1.0f, 1.0f, shared->v, row);
    }
}

}  // namespace

#define DEFINE_HEAD(T, name, D)                                                        \
    KERNEL_RESIDENT(attention_backward_key_##D##_##name, AttentionBackward, kThreads, 2) { \
        backward_key<T, D>(p);                                                              \
    }
#define DEFINE(T, name) FOR_EACH_HEAD(DEFINE_HEAD, T, name)
FOR_EACH_ELEMENT(DEFINE)
