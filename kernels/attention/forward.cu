// Attention forward, multi-head: out = softmax(factor scale (q k^T) + mask) v, with online softmax (Milakov and
// Gimelshein 2018, arXiv:1805.02867; FlashAttention, Dao et al. 2022, arXiv:2205.14135).
//
// Derivation: docs/math/attention.md. Shapes and strides: AttentionForward in launch_params.h; q, k, v and out have
// one element type, all else is f32. A head is a range of columns, so that a packed projection is read in place. Rows
// need not be aligned; where all of a tensor's rows begin and end at multiples of 16 bytes its tiles are copied
// asynchronously, else number by number. attention_forward_D takes heads of up to D numbers (the rest counts as
// zero).
//
// A block owns kRows queries of one head of one row of queries and writes their out and log_sums; nothing is shared
// between blocks, and no sum depends on what runs beside it. It walks over the keys in tiles of N, two stages of
// copies deep. Of each row of scores it keeps the running maximum, the sum of exponentials relative to that, and the
// weighted sum of the values, which are rescaled when a larger score comes. No matrix of scores exists beyond a
// warp's 16 x N in registers.
//
// A query that sees no key gets zeros, and plus infinity in log_sums.
//
// Launch: kThreads threads; ceil(Tq / kRows) * heads * Bq blocks, the tile of queries fastest (those
// blocks read the same keys); sizeof(ForwardShared) bytes of dynamic shared memory.
#include "attention.cuh"

namespace {

// Keys of a tile: as many as leave room for at least three blocks of 16-bit numbers in 164 KiB.
template <class T, int D>
constexpr int kKeys = sizeof(T) == 2 && D <= 64 ? 64 : 32;

// Blocks per multiprocessor that registers are allotted for.
template <class T, int D>
constexpr int kResident = sizeof(T) == 2 && D <= 96 ? 3 : 2;

template <class T, int D, int N>
struct ForwardShared : Scratch<T, N> {
    Tile<T, D, kRows> q;
    Tile<T, D, N> k[2], v[2];
    Term terms[2][N];
};

// Online softmax: scores to unnormalized probabilities, against the running maximum; earlier sums are rescaled. `top`
// and `sum` are those of rows group and group + 8 (sum: of this lane's columns).
template <int D, int N>
__device__ __forceinline__ void soften(float (&s)[N / 8][4], float (&o)[D / 8][4], float (&top)[2],
                                       float (&sum)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = top[half];
#pragma unroll
        for (int n = 0; n < N / 8; n++)
            largest = fmaxf(largest, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(kWholeWarp, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(kWholeWarp, largest, 2));
        // No score yet: minus infinity less anything finite gives zeros.
        const float base = largest == -infinity() ? 0.0f : largest;
        const float keep = power_of_two(top[half] - base);
        top[half] = largest;
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = half * 2; e < half * 2 + 2; e++) {
                s[n][e] = power_of_two(s[n][e] - base);
                total += s[n][e];
            }
        sum[half] = sum[half] * keep + total;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            o[n][half * 2] *= keep;
            o[n][half * 2 + 1] *= keep;
        }
    }
}

template <class T, int D>
__device__ __forceinline__ void forward(const AttentionForward &p) {
    constexpr int N = kKeys<T, D>;
    using Shared = ForwardShared<T, D, N>;
    DYNAMIC_SHARED(Shared, shared);
    const AttentionScores &scores = p.scores;
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const int group = lane / 4, pair = lane % 4 * 2;

    const int tiles = (scores.q_len + kRows - 1) / kRows;
    const int block = static_cast<int>(blockIdx.x);
    // The last tile first: a causal attention has the most to do there.
    const int first = (tiles - 1 - block % tiles) * kRows;
    const int head = block / tiles % scores.heads, query = block / tiles / scores.heads;
    const int key = p.kv_rows ? static_cast<int>(p.kv_rows[query]) : query;
    const Head<T> q(p.q, query, head, scores.q_len, scores.head);
    const Head<T> k(p.k, key, head, scores.k_len, scores.head);
    const Head<T> v(p.v, key, head, scores.k_len, scores.head);

    const float base = scores.factor * kLog2E;
    // Query i sees the keys up to i + reach.
    const int reach = scores.causal ? scores.k_len - scores.q_len : scores.k_len;
    const int row = warp * kWarpRows, own = first + row;
    const int last = min(first + kRows, scores.q_len) - 1;
    const int key_tiles = (min(last + reach + 1, scores.k_len) + N - 1) / N;

    fetch(shared->q, q, first);
    fetch(shared->k[0], k, 0);
    fetch(shared->v[0], v, 0);
    async_commit();
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < N) shared->terms[0][thread] = key_term(scores, query, thread, base);

    float o[D / 8][4], top[2] = {-infinity(), -infinity()}, sum[2] = {0.0f, 0.0f};
    clear(o);
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
            if (thread < N) next = key_term(scores, query, start + N + thread, base);
        }
        if (own < scores.q_len) {  // the whole warp
            float s[N / 8][4];
            clear(s);
            multiply_transposed(s, shared->q, row, shared->k[stage]);
            const bool hides = start + N - 1 > own + reach;
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int column = n * 8 + pair + e;
                    const Term term = shared->terms[stage][column];
                    s[n][e] = s[n][e] * term.factor + term.addend;
                    s[n][e + 2] = s[n][e + 2] * term.factor + term.addend;
                    if (hides && start + column > own + group + reach) s[n][e] = -infinity();
                    if (hides && start + column > own + group + 8 + reach) s[n][e + 2] = -infinity();
                }
            soften<D, N>(s, o, top, sum);
            multiply<T, D, N>(o, s, shared->v[stage], row, *shared);
        }
        if (more && thread < N) shared->terms[stage ^ 1][thread] = next;
    }

    if (own >= scores.q_len) return;  // the whole warp
    float share[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(kWholeWarp, sum[half], 1);
        sum[half] += __shfl_xor_sync(kWholeWarp, sum[half], 2);
        share[half] = sum[half] == 0.0f ? 0.0f : 1.0f / sum[half];
        const int i = own + group + half * 8;
        if (p.log_sums && pair == 0 && i < scores.q_len)
            p.log_sums[(static_cast<long long>(query) * scores.heads + head) * scores.q_len + i] =
                sum[half] == 0.0f ? infinity() : top[half] * kLn2 + logf(sum[half]);
    }
    const Head<T> out(p.out, query, head, scores.q_len, scores.head);
    store(out, own, o, share[0], share[1], shared->q, row);
}

}  // namespace

#define DEFINE_HEAD(T, name, D)                                                        \
    KERNEL_RESIDENT(attention_forward_##D##_##name, AttentionForward, kThreads, (kResident<T, D>)) { \
        forward<T, D>(p);                                                              \
    }
#define DEFINE(T, name) FOR_EACH_HEAD(DEFINE_HEAD, T, name)
FOR_EACH_ELEMENT(DEFINE)
