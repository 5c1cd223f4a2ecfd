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

/* Gradient of x and residual of a layer normalisation: see norm/layer_norm.cu. */
typedef struct LayerNormBackward {
    /* What was normalised, (rows, columns), rows x_stride elements apart: x, or sum. */
    const void *x;
    /* (columns). */
    const void *weight;
    /* Gradient of y, (rows, columns), dense. */
    const void *dy;
    /* Gradient that comes to sum by other ways, (rows, columns), dense, or null. */
    const void *dsum;
    /* As the forward pass wrote it, (rows), f32. */
    const float *mean;
    /* Likewise. */
    const float *rstd;
    /* Gradient of x and of residual, (rows, columns), dense. */
    void *dx;
    /* Distance between rows of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Nothing: for the size. */
    int unused;
} LayerNormBackward;

/* Gradients of weight and bias of a layer normalisation, part by part: see norm/layer_norm.cu. */
typedef struct LayerNormParameters {
    /* What was normalised, (rows, columns), rows x_stride elements apart: x, or sum. */
    const void *x;
    /* Gradient of y, (rows, columns), dense. */
    const void *dy;
    /* As the forward pass wrote it, (rows), f32. */
    const float *mean;
    /* Likewise. */
    const float *rstd;
    /* Sums for weight and bias over each part's rows, (parts, 2, columns), f32. */
    float *partial;
    /* Distance between rows of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Rows that one block adds up. */
    int rows_of_part;
} LayerNormParameters;

/* y += bias: see norm/bias.cu. */
typedef struct AddBias {
    /* (rows, columns), dense, changed in place. */
    void *y;
    /* (columns). */
    const void *bias;
    /* Elements of y. */
    long long count;
    /* Length of a row. */
    int columns;
    /* Nothing: for the size. */
    int unused;
} AddBias;

/* Sums over the rows of each part, column by column: see norm/bias.cu. */
typedef struct ColumnSum {
    /* (rows, columns), rows x_stride elements apart. */
    const void *x;
    /* (parts, columns), f32. */
    float *partial;
    /* Distance between rows of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Rows that one block adds up. */
    int rows_of_part;
} ColumnSum;

/* Sums over parts: see norm/bias.cu. */
typedef struct ColumnSumFinish {
    /* (parts, sums, columns), f32. */
    const float *partial;
    /* Each (columns), or null; the first `sums` count. */
    void *out[2];
    /* Number of parts. */
    int parts;
    /* Sums of each column: 1 or 2. */
    int sums;
    /* Length of a row. */
    int columns;
    /* Nothing: for the size. */
    int unused;
} ColumnSumFinish;

/* y = u Phi(u), u = x + bias: see norm/gelu.cu. */
typedef struct GeluForward {
    /* (rows, columns), dense. */
    const void *x;
    /* (columns), or null. */
    const void *bias;
    /* (rows, columns), dense. */
    void *y;
    /* Elements of x. */
    long long count;
    /* Length of a row; without bias of no meaning. */
    int columns;
    /* Nothing: for the size. */
    int unused;
} GeluForward;

/* Gradient of x, and of bias part by part: see norm/gelu.cu. */
typedef struct GeluBackward {
    /* (rows, columns), dense. */
    const void *x;
    /* (columns), or null. */
    const void *bias;
    /* Gradient of y, (rows, columns), dense. */
    const void *dy;
    /* (rows, columns), dense. */
    void *dx;
    /* Sums of dx over each part's rows, (parts, columns), f32; for the kernel with columns only. */
    float *partial;
    /* Elements of x. */
    long long count;
    /* Length of a row; without bias of no meaning. */
    int columns;
    /* Rows that one block adds up; for the kernel with columns only. */
    int rows_of_part;
} GeluBackward;

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

/* A tensor and what AdamW does to it in this step: an element of an array in device memory. See
 * optim/adamw.cu. */
typedef struct AdamWTensor {
    /* (length), f32, changed in place. */
    float *parameter;
    /* (length), of the kernel's element type. */
    const void *gradient;
    /* Running mean of the gradient, (length), f32, changed in place. */
    float *first;
    /* Running mean of its square, likewise. */
    float *second;
    /* Number of elements. */
    long long length;
    /* Block of the launch that has its first elements. */
    int first_block;
    /* 1 - rate decay. */
    float shrink;
    /* 1 - beta1. */
    float blend1;
    /* beta2. */
    float beta2;
    /* 1 - beta2. */
    float blend2;
    /* sqrt(1 - beta2^t). */
    float root_correction2;
    /* Added to the root. */
    float eps;
    /* rate / (1 - beta1^t). */
    float step_size;
} AdamWTensor;

/* A step of AdamW: see optim/adamw.cu. */
typedef struct AdamW {
    /* In device memory. */
    const AdamWTensor *tensors;
    /* Which of them a block is for, (blocks), in device memory. */
    const int *tensor_of_block;
} AdamW;

/* A tensor and its moving average: an element of an array in device memory. See
 * optim/moving_average.cu. */
typedef struct AveragedTensor {
    /* (length), f32, changed in place. */
    float *average;
    /* (length), of the kernel's element type. */
    const void *live;
    /* Number of elements. */
    long long length;
    /* Block of the launch that has its first elements. */
    int first_block;
    /* Nothing: for the size. */
    int unused;
} AveragedTensor;

/* A step of all moving averages: see optim/moving_average.cu. */
typedef struct MovingAverage {
    /* In device memory. */
    const AveragedTensor *tensors;
    /* Which of them a block is for, (blocks), in device memory. */
    const int *tensor_of_block;
    /* Share of the average that stays. */
    float decay;
    /* 1 - decay. */
    float rest;
} MovingAverage;

/* Cross-entropy of rows of logits: see loss/soft_cross_entropy.cu. */
typedef struct SoftCrossEntropyForward {
    /* (rows, classes), rows logits_stride elements apart. */
    const void *logits;
    /* (rows, classes), rows targets_stride elements apart; not read where there are labels. */
    const void *targets;
    /* (rows), or null. */
    const unsigned *labels;
    /* (rows, slices, 4), f32; null where a row is one slice. */
    float *partial;
    /* (rows), f32. */
    float *loss;
    /* (rows), f32. */
    float *log_sum;
    /* Sum of each row's targets, (rows), f32, or null. */
    float *weight;
    /* Distance between rows of logits. */
    long long logits_stride;
    /* Distance between rows of targets. */
    long long targets_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int classes;
    /* Blocks of a row. */
    int slices;
    /* Classes of a slice; the last may have fewer. */
    int slice_length;
    /* Share of a label's weight that goes to all classes alike. */
    float smoothing;
} SoftCrossEntropyForward;

/* Its gradient: see loss/soft_cross_entropy.cu. */
typedef struct SoftCrossEntropyBackward {
    /* (rows, classes), rows logits_stride elements apart. */
    const void *logits;
    /* (rows, classes), rows targets_stride elements apart; not read where there are labels. */
    const void *targets;
    /* (rows), or null. */
    const unsigned *labels;
    /* As the forward pass wrote it, (rows), f32. */
    const float *log_sum;
    /* Likewise; not read where there are labels. */
    const float *weight;
    /* Gradient of each row's loss, dloss_stride apart, f32. */
    const float *dloss;
    /* (rows, classes), dense. */
    void *dlogits;
    /* Distance between rows of logits. */
    long long logits_stride;
    /* Distance between rows of targets. */
    long long targets_stride;
    /* Distance between gradients of losses: 0 where all rows have one. */
    long long dloss_stride;
    /* Length of a row. */
    int classes;
    /* Blocks of a row. */
    int slices;
    /* Classes of a slice; the last may have fewer. */
    int slice_length;
    /* Share of a label's weight that goes to all classes alike. */
    float smoothing;
    /* Factor of dloss. */
    float scale;
    /* Nothing: for the size. */
    int unused;
} SoftCrossEntropyBackward;

/* Mean of losses: see loss/soft_cross_entropy.cu. */
typedef struct LossMean {
    /* (rows), f32. */
    const float *loss;
    /* (1), f32. */
    float *mean;
    /* Number of rows. */
    long long rows;
} LossMean;
/* ---- CP factors: cp/reconstruct.cu, cp/factor_gradient.cu, cp/apply.cu ---- */

/* One slice of a site's map, in the table that CpReconstruct reads. */
typedef struct CpSlice {
    /* The frozen W, (out, in), rows weight_stride elements apart. */
    const void *weight;
    /* W + delta, (out, in), rows effective_stride elements apart; no part of another slice's. */
    void *effective;
    /* The slice's p (rank), or its core G (rank, rank), row-major; f32. */
    const float *modes;
    /* Distance between rows of weight. */
    long long weight_stride;
    /* Distance between rows of effective. */
    long long effective_stride;
} CpSlice;

/* Factors, and the slices (neighbours in the table) that share them. */
typedef struct CpPair {
    /* (in, rank), dense, f32. */
    const float *u;
    /* (out, rank), dense, f32. */
    const float *v;
    /* Width of the slices' inputs. */
    int input;
    /* Width of the slices' outputs. */
    int output;
    /* The first slice of the pair in the table. */
    int first_slice;
    /* Number of the pair's slices. */
    int slices;
    /* The first block that works on this pair. */
    int first_block;
    /* How many slices a block takes, one after the other. */
    int slices_of_block;
} CpPair;

/* Effective weights of all slices of all sites: see cp/reconstruct.cu. */
typedef struct CpReconstruct {
    /* The table of slices, those of one pair behind each other. */
    const CpSlice *slices;
    /* The table of pairs, by first_block. */
    const CpPair *pairs;
    /* Weights of the components, (rank), f32; null for ones and with cores. */
    const float *lambda;
    /* Number of pairs. */
    int pair_count;
    /* Number of components. */
    int rank;
} CpReconstruct;

/* Gradients of one map's factors: see cp/factor_gradient.cu. Three launches take this struct. */
typedef struct CpFactorGradient {
    /* (tokens, in), rows x_stride elements apart. */
    const void *x;
    /* (tokens, out), rows dy_stride elements apart. */
    const void *dy;
    /* (in, rank), or (rank, in) where u_by_rank; dense. */
    const void *u;
    /* (out, rank), or (rank, out) where v_by_rank; dense. */
    const void *v;
    /* x U, (tokens, rank), dense, of the element type. */
    void *z;
    /* dy V, (tokens, rank), dense, of the element type. */
    void *g;
    /* Workspace: (splits, in + out, rank), f32. */
    float *parts;
    /* Workspace: (blocks of tokens, rank), f32; null where dscale is. */
    float *scale_parts;
    /* s of the slice, (rank), f32; null for ones. */
    const float *scale;
    /* Gradient of u, in u's layout. */
    void *du;
    /* Gradient of v, in v's layout. */
    void *dv;
    /* Gradient of scale, (rank), f32; null where not wanted. */
    float *dscale;
    /* Number of tokens. */
    long long tokens;
    /* Distance between rows of x. */
    long long x_stride;
    /* Distance between rows of dy. */
    long long dy_stride;
    /* Tokens that one split sums over. */
    long long tokens_of_split;
    /* Width of the map's input. */
    int input;
    /* Width of the map's output. */
    int output;
    /* Number of components. */
    int rank;
    /* Number of splits. */
    int splits;
    /* Number of blocks of tokens. */
    int token_blocks;
    /* Whether u has its components as rows. */
    int u_by_rank;
    /* Whether v has its components as rows. */
    int v_by_rank;
    /* Whether u and v are f32, else they have the element type. */
    int factors_f32;
    /* Whether du and dv are f32, else they have the element type. */
    int gradients_f32;
    /* Whether du, dv and dscale are added to, else they are written. */
    int accumulate;
} CpFactorGradient;

/* y += (x A^T) B^T: see cp/apply.cu. */
typedef struct CpApply {
    /* (tokens, in), rows x_stride elements apart. */
    const void *x;
    /* (rank, in), dense. */
    const void *a;
    /* (out, rank), dense. */
    const void *b;
    /* (tokens, out), rows y_stride elements apart; added to. */
    void *y;
    /* Number of tokens. */
    long long tokens;
    /* Distance between rows of x. */
    long long x_stride;
    /* Distance between rows of y. */
    long long y_stride;
    /* Width of the map's input. */
    int input;
    /* Width of the map's output. */
    int output;
    /* Number of components. */
    int rank;
    /* Outputs that one block makes, a multiple of 64. */
    int outputs_of_block;
} CpApply;

#endif
