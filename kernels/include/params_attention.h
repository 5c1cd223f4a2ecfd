/* Parameters of attention and gated query transformation: attention/. See launch_params.h. */
#ifndef AURORA_PARAMS_ATTENTION_H
#define AURORA_PARAMS_ATTENTION_H

/* Rows of all heads, (batch, length, heads * head), the heads side by side in a row: queries,
 * keys, values, outputs, or their gradients. */
typedef struct AttentionRows {
    /* The first element; read or written as the field says that has it. */
    void *data;
    /* Batch stride in elements. */
    long long batch_stride;
    /* Row stride in elements. */
    long long row_stride;
} AttentionRows;

/* Sizes of an attention, with the masks and scales of its scores:
 * factor * scale * (q . k) + mask, then keys after the causal limit are masked. */
typedef struct AttentionScores {
    /* Additive key mask, (queries, k_len), or null. */
    const float *mask;
    /* Factor on the dot products of each key, (queries, k_len), or null. */
    const float *scale;
    /* Number of rows of queries, Bq. */
    int queries;
    /* Number of rows of keys and values, Bk. */
    int keys;
    /* Queries in a row, Tq. */
    int q_len;
    /* Keys in a row, Tk. */
    int k_len;
    /* Number of heads. */
    int heads;
    /* Width of a head, as it lies in memory. */
    int head;
    /* Causal mask if not zero: query i sees only the keys up to i + k_len - q_len. */
    int causal;
    /* Factor on every dot product: one over the root of the width of a head. */
    float factor;
} AttentionScores;

/* Attention forward: see attention/forward.cu. */
typedef struct AttentionForward {
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows q;
    /* Read: (Bk, Tk, heads * head). */
    AttentionRows k;
    /* Read: (Bk, Tk, heads * head). */
    AttentionRows v;
    /* Written: (Bq, Tq, heads * head). */
    AttentionRows out;
    /* Row of keys of each row of queries, (Bq), below Bk; null where each has its own. */
    const unsigned *kv_rows;
    /* Log-sum-exp of each query's scores, (Bq, heads, Tq), plus
     * infinity for a query that sees no key; null where no backward pass will come. */
    float *log_sums;
    /* Sizes, masks and scales of the scores. */
    AttentionScores scores;
} AttentionForward;

/* Attention delta, rowsum(out * dout): see attention/backward_query.cu. */
typedef struct AttentionDelta {
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows out;
    /* Read: (Bq, Tq, heads * head). */
    AttentionRows dout;
    /* Written: (Bq, heads, Tq). */
    float *deltas;
    /* Number of rows of queries, Bq. */
    int queries;
    /* Queries in a row, Tq. */
    int q_len;
    /* Number of heads. */
    int heads;
    /* Width of a head. */
    int head;
} AttentionDelta;

/* Attention backward: see attention/backward_query.cu and attention/backward_key.cu. */
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
    /* Log-sum-exps from the forward pass, (Bq, heads, Tq). */
    const float *log_sums;
    /* Deltas from attention_delta, (Bq, heads, Tq). */
    const float *deltas;
    /* Row of keys of each row of queries, (Bq); null where each has its own. */
    const unsigned *kv_rows;
    /* Offsets in query_rows of those of each row of keys, (Bk + 1); null with kv_rows. */
    const unsigned *query_offsets;
    /* Rows of queries in the order of their rows of keys, (Bq); null with kv_rows. */
    const unsigned *query_rows;
    /* Sizes, masks and scales of the scores. */
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
    /* Parameter a of the gate tanh(a), (1); null where the gate is constant. */
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
    /* Gate where a is null. */
    float constant;
    /* Padding. */
    int unused;
} GatedQueryForward;

/* Gated query backward over rows: see attention/gated_query.cu. */
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
    /* Parameter a of the gate tanh(a), (1); null where the gate is constant. */
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
    /* Gate where a is null. */
    float constant;
    /* Padding. */
    int unused;
} GatedQueryBackward;

/* Gated query backward, gradients of the vectors: see attention/gated_query.cu. */
typedef struct GatedQueryFinish {
    /* (parts, 3, columns), f32. */
    const float *partial;
    /* Sums of partial over the parts, (3, columns), f32; null where no gate has a gradient. */
    float *sums;
    /* Parameter a of the gate tanh(a), (1); null where the gate is constant. */
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
    /* Gate where a is null. */
    float constant;
    /* Padding. */
    int unused;
} GatedQueryFinish;

/* Gated query backward, gradients of the gates: see attention/gated_query.cu. */
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
    /* Parameter a of the gate tanh(a), (1). */
    const void *gate_self;
    /* Likewise. */
    const void *gate_cross;
    /* (1), or null. */
    void *dgate_self;
    /* Likewise. */
    void *dgate_cross;
    /* Length of a row. */
    int columns;
    /* Padding. */
    int unused;
} GatedQueryGates;

#endif
