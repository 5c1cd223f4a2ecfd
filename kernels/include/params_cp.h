/* Parameters of CP factors: cp/. See launch_params.h. */
#ifndef AURORA_PARAMS_CP_H
#define AURORA_PARAMS_CP_H

/* Slice of a site's linear layer, in the table that CpReconstruct reads. */
typedef struct CpSlice {
    /* Frozen weight W, (out, in), rows weight_stride elements apart. */
    const void *weight;
    /* Merged weight W + delta, (out, in), rows merged_stride elements apart; no part of another slice's. */
    void *merged;
    /* Mode p (rank) of the slice, or its core G (rank, rank), row-major; f32. */
    const float *modes;
    /* Row stride of weight. */
    long long weight_stride;
    /* Row stride of merged. */
    long long merged_stride;
} CpSlice;

/* Pair of factors, and the slices (neighbors in the table) that share them. */
typedef struct CpPair {
    /* (in, rank), dense, f32. */
    const float *u;
    /* (out, rank), dense, f32. */
    const float *v;
    /* Width of the slices' inputs. */
    int input;
    /* Width of the slices' outputs. */
    int output;
    /* First slice of the pair in the table. */
    int first_slice;
    /* Number of the pair's slices. */
    int slices;
    /* First block that works on this pair. */
    int first_block;
    /* Number of slices that a block takes, one after the other. */
    int slices_of_block;
} CpPair;

/* Merged weights of all slices of all sites: see cp/reconstruct.cu. */
typedef struct CpReconstruct {
    /* Table of slices, those of one pair behind each other. */
    const CpSlice *slices;
    /* Table of pairs, by first_block. */
    const CpPair *pairs;
    /* Weights of the components, (rank), f32; null for ones and with cores. */
    const float *lambda;
    /* Number of pairs. */
    int pair_count;
    /* Number of components. */
    int rank;
} CpReconstruct;

/* Factor gradients of one linear layer: see cp/factor_gradient.cu. Three launches take this struct. */
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
    /* Scale s of the slice, (rank), f32; null for ones. */
    const float *scale;
    /* Gradient of u, in u's layout. */
    void *du;
    /* Gradient of v, in v's layout. */
    void *dv;
    /* Gradient of scale, (rank), f32; null where not wanted. */
    float *dscale;
    /* Number of tokens. */
    long long tokens;
    /* Row stride of x. */
    long long x_stride;
    /* Row stride of dy. */
    long long dy_stride;
    /* Tokens per split. */
    long long tokens_of_split;
    /* Width of the linear layer's input. */
    int input;
    /* Width of the linear layer's output. */
    int output;
    /* Number of components. */
    int rank;
    /* Number of splits. */
    int splits;
    /* Number of blocks of tokens. */
    int token_blocks;
    /* True if u has its components as rows. */
    int u_by_rank;
    /* True if v has its components as rows. */
    int v_by_rank;
    /* True if u and v are f32, else they have the element type. */
    int factors_f32;
    /* True if du and dv are f32, else they have the element type. */
    int gradients_f32;
    /* True if du, dv and dscale are added to, else they are written. */
    int accumulate;
} CpFactorGradient;

/* Low-rank delta y += (x A^T) B^T: see cp/apply.cu. */
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
    /* Row stride of x. */
    long long x_stride;
    /* Row stride of y. */
    long long y_stride;
    /* Width of the linear layer's input. */
    int input;
    /* Width of the linear layer's output. */
    int output;
    /* Number of components. */
    int rank;
    /* Outputs per block, a multiple of 64. */
    int outputs_of_block;
} CpApply;

#endif
