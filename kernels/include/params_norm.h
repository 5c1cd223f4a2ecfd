/* Parameters of layer normalization, biases and GELU: norm/. See launch_params.h. */
#ifndef AURORA_PARAMS_NORM_H
#define AURORA_PARAMS_NORM_H

/* Layer normalization of x, or of x + residual: see norm/layer_norm.cu. */
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
    /* Distance between rows of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Added to the variance. */
    float eps;
} LayerNormForward;

/* Gradient of x and residual of a layer normalization: see norm/layer_norm.cu. */
typedef struct LayerNormBackward {
    /* What was normalized, (rows, columns), rows x_stride elements apart: x, or sum. */
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

/* Gradients of weight and bias of a layer normalization, part by part: see norm/layer_norm.cu. */
typedef struct LayerNormParameters {
    /* What was normalized, (rows, columns), rows x_stride elements apart: x, or sum. */
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

#endif
