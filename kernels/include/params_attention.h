/* Parameters of attention and gated query transformation: attention/. See launch_params.h. */
#ifndef AURORA_PARAMS_ATTENTION_H
#define AURORA_PARAMS_ATTENTION_H

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

/* Gated query transformation: see attention/gated_query.cu. */
typedef struct GatedQueryForward {
    /* (rows, columns), dense. */
    const void *ffn;
    /* (rows, columns), dense. */
    const void *h_self;
    /* (rows, columns), dense. */
    const void *h_cross;
    /* (columns). */
    const void *scale_self;
    /* (columns). */
    const void *shift_self;
    /* (columns). */
    const void *scale_cross;
    /* (columns). */
    const void *shift_cross;
    /* a of the gate tanh(a), (1); null where the gate is constant. */
    const void *gate_self;
    /* Likewise. */
    const void *gate_cross;
    /* (rows, columns), dense. */
    void *out;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Rows of one block. */
    int rows_of_part;
    /* The gate where a is null. */
    float constant;
    /* Nothing: for the size. */
    int unused;
} GatedQueryForward;

/* Its backward pass over rows: see attention/gated_query.cu. */
typedef struct GatedQueryBackward {
    /* Gradient of out, (rows, columns), dense. */
    const void *dout;
    /* (rows, columns), dense; not read without partial. */
    const void *h_self;
    /* Likewise. */
    const void *h_cross;
    /* (columns). */
    const void *scale_self;
    /* (columns). */
    const void *scale_cross;
    /* a of the gate tanh(a), (1); null where the gate is constant. */
    const void *gate_self;
    /* Likewise. */
    const void *gate_cross;
    /* (rows, columns), dense, or null. */
    void *dh_self;
    /* Likewise. */
    void *dh_cross;
    /* Sums of dout h_self, dout h_cross and dout over each part's rows, (parts, 3, columns), f32;
     * null where no vector and no gate has a gradient. */
    float *partial;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Rows of one block. */
    int rows_of_part;
    /* The gate where a is null. */
    float constant;
    /* Nothing: for the size. */
    int unused;
} GatedQueryBackward;

/* Gradients of its vectors: see attention/gated_query.cu. */
typedef struct GatedQueryFinish {
    /* (parts, 3, columns), f32. */
    const float *partial;
    /* partial added up, (3, columns), f32; null where no gate has a gradient. */
    float *sums;
    /* a of the gate tanh(a), (1); null where the gate is constant. */
    const void *gate_self;
    /* Likewise. */
    const void *gate_cross;
    /* (columns), or null. */
    void *dscale_self;
    /* Likewise. */
    void *dshift_self;
    /* Likewise. */
    void *dscale_cross;
    /* Likewise. */
    void *dshift_cross;
    /* Number of parts. */
    int parts;
    /* Length of a row. */
    int columns;
    /* The gate where a is null. */
    float constant;
    /* Nothing: for the size. */
    int unused;
} GatedQueryFinish;

/* Gradients of its gates: see attention/gated_query.cu. */
typedef struct GatedQueryGates {
    /* (3, columns), f32. */
    const float *sums;
    /* (columns). */
    const void *scale_self;
    /* (columns). */
    const void *shift_self;
    /* (columns). */
    const void *scale_cross;
    /* (columns). */
    const void *shift_cross;
    /* a of the gate tanh(a), (1). */
    const void *gate_self;
    /* Likewise. */
    const void *gate_cross;
    /* (1), or null. */
    void *dgate_self;
    /* Likewise. */
    void *dgate_cross;
    /* Length of a row. */
    int columns;
    /* Nothing: for the size. */
    int unused;
} GatedQueryGates;

#endif
