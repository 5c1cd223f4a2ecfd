/* Parameters of layer normalization, biases and GELU: norm/. See launch_params.h. */
#ifndef AURORA_PARAMS_NORM_H
#define AURORA_PARAMS_NORM_H

/* Layer norm forward on x, or on x + residual: see norm/layer_norm.cu. */
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
    /* x + residual as it was normalized, (rows, columns), dense; null where not wanted. */
    void *sum;
    /* Mean of each row, (rows), f32; null where no backward pass will come. */
    float *mean;
    /* One over the standard deviation of each row, (rows), f32; null likewise. */
    float *rstd;
    /* Row stride of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Epsilon, added to the variance. */
    float eps;
} LayerNormForward;

/* Layer norm backward, gradient of x and residual: see norm/layer_norm.cu. */
typedef struct LayerNormBackward {
    /* Normalized input, (rows, columns), rows x_stride elements apart: x, or sum. */
    const void *x;
    /* (columns). */
    const void *weight;
    /* Gradient of y, (rows, columns), dense. */
    const void *dy;
    /* Gradient that reaches sum by other ways, (rows, columns), dense, or null. */
    const void *dsum;
    /* Output of the forward pass, (rows), f32. */
    const float *mean;
    /* Likewise. */
    const float *rstd;
    /* Gradient of x and of residual, (rows, columns), dense. */
    void *dx;
    /* Row stride of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Padding. */
    int unused;
} LayerNormBackward;

/* Layer norm backward, gradients of weight and bias, part by part: see norm/layer_norm.cu. */
typedef struct LayerNormParameters {
    /* Normalized input, (rows, columns), rows x_stride elements apart: x, or sum. */
    const void *x;
    /* Gradient of y, (rows, columns), dense. */
    const void *dy;
    /* Output of the forward pass, (rows), f32. */
    const float *mean;
    /* Likewise. */
    const float *rstd;
    /* Sums for weight and bias over each part's rows, (parts, 2, columns), f32. */
    float *partial;
    /* Row stride of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Rows per block. */
    int rows_of_part;
} LayerNormParameters;

/* Bias addition y += bias: see norm/bias.cu. */
typedef struct AddBias {
    /* (rows, columns), dense, changed in place. */
    void *y;
    /* (columns). */
    const void *bias;
    /* Elements of y. */
    long long count;
    /* Length of a row. */
    int columns;
    /* Padding. */
    int unused;
} AddBias;

/* Column sums over the rows of each part: see norm/bias.cu. */
typedef struct ColumnSum {
    /* (rows, columns), rows x_stride elements apart. */
    const void *x;
    /* (parts, columns), f32. */
    float *partial;
    /* Row stride of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Rows per block. */
    int rows_of_part;
} ColumnSum;

/* Column sums over parts: see norm/bias.cu. */
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
    /* Padding. */
    int unused;
} ColumnSumFinish;

/* GELU forward y = u Phi(u), u = x + bias: see norm/gelu.cu. */
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
    /* Padding. */
    int unused;
} GeluForward;

/* GELU backward, gradient of x, and of bias part by part: see norm/gelu.cu. */
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
    /* Rows per block; for the kernel with columns only. */
    int rows_of_part;
} GeluBackward;

#endif
