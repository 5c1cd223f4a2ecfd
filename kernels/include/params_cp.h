/* Parameters of CP factors: cp/. See launch_params.h. */
#ifndef AURORA_PARAMS_CP_H
#define AURORA_PARAMS_CP_H

/* One slice of a site's linear layer, in the table that CpReconstruct reads. */
typedef struct CpSlice {
    /* The frozen W, (out, in), rows weight_stride elements apart. */
    const void *weight;
    /* W + delta, (out, in), rows merged_stride elements apart; no part of another slice's. */
    void *merged;
    /* The slice's p (rank), or its core G (rank, rank), row-major; f32. */
    const float *modes;
    /* Distance between rows of weight. */
    long long weight_stride;
    /* Distance between rows of merged. */
    long long merged_stride;
} CpSlice;

/* Factors, and the slices (neighbors in the table) that share them. */
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

/* Merged weights of all slices of all sites: see cp/reconstruct.cu. */
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

/* Gradients of one linear layer's factors: see cp/factor_gradient.cu. Three launches take this struct. */
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
    /* Width of the linear layer's input. */
    int input;
    /* Width of the linear layer's output. */
    int output;
    /* Number of components. */
    int rank;
    /* Outputs that one block makes, a multiple of 64. */
    int outputs_of_block;
} CpApply;

#endif
