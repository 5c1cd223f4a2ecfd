/* What kernels take, by value: the one place where host and device agree on it.
 *
 * Plain C, read by bindgen. Pointers are device pointers; sizes are in elements unless they say
 * bytes. Fields are ordered by size, so that no struct has padding inside. Every struct has a
 * static_assert of its size in sizes.cuh; the Rust side has layout tests.
 */
#ifndef AURORA_LAUNCH_PARAMS_H
#define AURORA_LAUNCH_PARAMS_H

/* Layer normalisation of x, or of x + residual: see norm/layer_norm.cu. */
typedef struct LayerNormForward {
    /* (rows, columns), rows x_stride elements apart. */
    const void *x;
    /* (rows, columns), dense, or null. */
    const void *residual;
    /* (columns). */
    const void *weight;
    /* (columns). */
    const void *bias;
    /* (rows, columns), dense. */
    void *y;
    /* x + residual as it was normalised, (rows, columns), dense; null where not wanted. */
    void *sum;
    /* Mean of each row, (rows), f32; null where no backward pass will come. */
    float *mean;
    /* One over the standard deviation of each row, (rows), f32; null likewise. */
    float *rstd;
    /* Distance between rows of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Added to the variance. */
    float eps;
} LayerNormForward;

/* ---- attention/ ---- */

/* Vectors of all heads, (batch, length, heads * head), the heads side by side in a row: queries,
 * keys, values, results, or their gradients. */
typedef struct AttentionRows {
    /* The first element; read or written as the field says that has it. */
    void *data;
    /* Distance between batches. */
    long long batch_stride;
    /* Distance between the rows of a batch. */
    long long row_stride;
} AttentionRows;

/* Sizes of an attention, and what is done to its scores:
 * factor * scale * (q . k) + mask, then keys out of sight are hidden. */
typedef struct AttentionScores {
    /* Added to the scores of each key, (queries, k_len), or null. */
    const float *mask;
    /* Multiplies the dot products of each key, (queries, k_len), or null. */
    const float *scale;
    /* Rows of queries, Bq. */
    int queries;
    /* Rows of keys and values, Bk. */
    int keys;
    /* Queries in a row, Tq. */
    int q_len;
    /* Keys in a row, Tk. */
    int k_len;
    /* Heads. */
    int heads;
    /* Width of a head, as it lies in memory. */
    int head;
    /* Whether query i sees only the keys up to i + k_len - q_len (not zero), or all (zero). */
    int causal;
    /* Multiplies every dot product: one over the root of the width of a head. */
    float factor;
} AttentionScores;

/* See attention/forward.cu. */
typedef struct AttentionForward {
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows q;
    /* Read: (Bk, Tk, heads * head). */
    AttentionRows k;
    /* Read: (Bk, Tk, heads * head). */
    AttentionRows v;
    /* Written: (Bq, Tq, heads * head). */
    AttentionRows out;
    /* The row of keys of each row of queries, (Bq), below Bk; null where each has its own. */
    const unsigned *kv_rows;
    /* Logarithm of the sum of the exponentials of each query's scores, (Bq, heads, Tq), plus
     * infinity for a query that sees no key; null where no backward pass will come. */
    float *log_sums;
    /* Sizes and scores. */
    AttentionScores scores;
} AttentionForward;

/* Sums of products of results and their gradients: see attention/backward_query.cu. */
typedef struct AttentionDelta {
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows out;
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows dout;
    /* Written: (Bq, heads, Tq). */
    float *deltas;
    /* Rows of queries, Bq. */
    int queries;
    /* Queries in a row, Tq. */
    int q_len;
    /* Heads. */
    int heads;
    /* Width of a head. */
    int head;
} AttentionDelta;

/* See attention/backward_query.cu and attention/backward_key.cu. */
typedef struct AttentionBackward {
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows q;
    /* Read: (Bk, Tk, heads * head). */
    AttentionRows k;
    /* Read: (Bk, Tk, heads * head). */
    AttentionRows v;
    /* Read: gradient of the result, (Bq, Tq, heads * head). */
    AttentionRows dout;
    /* Written by backward_query: (Bq, Tq, heads * head). */
    AttentionRows dq;
    /* Written by backward_key where data is not null: (Bk, Tk, heads * head). */
    AttentionRows dk;
    /* Written by backward_key where data is not null: (Bk, Tk, heads * head). */
    AttentionRows dv;
    /* From the forward pass, (Bq, heads, Tq). */
    const float *log_sums;
    /* From attention_delta, (Bq, heads, Tq). */
    const float *deltas;
    /* The row of keys of each row of queries, (Bq); null where each has its own. */
    const unsigned *kv_rows;
    /* Where in query_rows those of each row of keys begin and end, (Bk + 1); null with kv_rows. */
    const unsigned *query_offsets;
    /* The rows of queries in the order of their rows of keys, (Bq); null with kv_rows. */
    const unsigned *query_rows;
    /* Sizes and scores. */
    AttentionScores scores;
} AttentionBackward;

#endif
