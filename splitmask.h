/* ######################################################################
   PART II                                                     INTERFACE
   ###################################################################### */
#ifndef SPLITMASK_INCLUDED
#define SPLITMASK_INCLUDED

/* ---------------------------------------------------------- >>config */

#define SMASK_VERSION_MAJOR 0
#define SMASK_VERSION_MINOR 1
#define SMASK_VERSION_PATCH 0
#define SMASK_VERSION "0.1.0"

#include <stddef.h>
#include <stdint.h>

#ifndef SMASK_API
#ifdef SPLITMASK_STATIC
#if defined(__GNUC__)
#define SMASK_API __attribute__((unused)) static
#else
#define SMASK_API static
#endif
#else
#define SMASK_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------- >>types */

/* What can go wrong. The first error sticks in the context: see >>errors. */
#define SMASK_RESULTS(X)                                                    \
    X(OK,      "ok")                                                        \
    X(SHAPE,   "shapes do not fit together")                                \
    X(MEMORY,  "the arena is full; smask_plan tells the size it needs")     \
    X(NODES,   "more nodes than desc.nodes allows")                         \
    X(ARG,     "an argument is missing or out of range")                    \
    X(STATE,   "not now: wrong order of calls, or another version's struct")\
    X(RANGE,   "a label or index lies outside its table")                   \
    X(IO,      "a read or write callback came up short")                    \
    X(FORMAT,  "the file is not what it claims to be")                      \
    X(NUMERIC, "a value that must be finite is not")

#define SMASK__ENUM(name, text) SMASK_##name,
typedef enum smask_result { SMASK_RESULTS(SMASK__ENUM) SMASK_RESULT_COUNT }
    smask_result;

/* Where memory comes from: asked once at setup, given back at shutdown. */
typedef struct smask_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*release)(void *user, void *block);
    void *user;
} smask_allocator;

/* Told of the first error, once. `text` lives during the call. */
typedef struct smask_logger {
    void (*log)(void *user, smask_result code, const char *text);
    void *user;
} smask_logger;

/* Run fn(arg, piece, worker) for piece = 0 .. count-1, in any order, on at
   most `workers` threads at once, and return when all are done. `worker`
   is 0 .. workers-1 and never shared by two calls that overlap. The pieces
   never depend on `workers`, so neither do the bits of any result. */
typedef struct smask_parallel {
    void (*run)(void *user, int count,
                void (*fn)(void *arg, int piece, int worker), void *arg);
    void *user;
    int workers;                     /* 0: 1                               */
} smask_parallel;

/* Bytes in and out. Return the number of bytes moved; fewer is an error. */
typedef struct smask_io {
    size_t (*read)(void *user, void *data, size_t bytes);
    size_t (*write)(void *user, const void *data, size_t bytes);
    void *user;
} smask_io;

/* Which vector code runs. AUTO takes the best that the processor has. */
#define SMASK_LANE_KINDS(X) X(AUTO, "auto") X(SCALAR, "scalar")             \
    X(VECTOR4, "vector4") X(AVX2, "avx2") X(AVX512, "avx512")
#define SMASK__LANE_ENUM(name, text) SMASK_LANES_##name,
typedef enum smask_lanes { SMASK_LANE_KINDS(SMASK__LANE_ENUM)
    SMASK_LANES_COUNT } smask_lanes;

/* Setup. Zero everywhere is a working default. */
typedef struct smask_desc {
    void *memory;                    /* the arena; NULL: ask the allocator */
    size_t memory_size;              /* bytes; 0 without memory: 64 MiB    */
    smask_allocator allocator;       /* default: malloc and free           */
    smask_parallel parallel;         /* default: a loop on this thread     */
    smask_logger logger;             /* default: silent                    */
    uint64_t seed;                   /* of the context's generator         */
    int nodes;                       /* limit of tape nodes; 0: no limit   */
    smask_lanes lanes;               /* force a vector version, for tests  */
    int inference;                   /* 1: parameters get no gradients     */
} smask_desc;

/* What a dry run found: see smask_plan. */
typedef struct smask_sizes {
    size_t bytes;                    /* the arena: exact, for any alignment*/
    size_t kept_bytes;               /* of these: live until shutdown      */
    size_t step_bytes;               /* of these: the step, at its peak    */
    int nodes;                       /* most tape nodes alive at once      */
} smask_sizes;

/* The generator: PCG32 (O'Neill 2014). 16 bytes of state, copy to save. */
typedef struct smask_random { uint64_t state, stream; } smask_random;

/* Ops of the tape. One line here, one case in smask__backward_one. */
#define SMASK_OPS(X)                                                        \
    X(INPUT) X(PARAM) X(ADD) X(SCALE) X(GAIN) X(LINEAR) X(LAYERNORM)        \
    X(GELU) X(ATTENTION) X(ROWS) X(MEAN_ROWS) X(UNIT) X(CROSS_ENTROPY)      \
    X(LINEAR_CROSS_ENTROPY) X(CONTRAST) X(RECOMPUTE) X(USER)
#define SMASK__OP_ENUM(name) SMASK_OP_##name,
typedef enum smask_op { SMASK_OPS(SMASK__OP_ENUM) SMASK_OP_COUNT } smask_op;

struct smask_ctx;
struct smask_tensor;

/* A differentiable function of your own: y = forward(source...).
   `forward` fills y->x from y->source[i]->x; `backward` ADDS to
   y->source[i]->dx (NULL where none is wanted) from y->dx. */
typedef struct smask_user_op {
    const char *name;
    void (*forward)(struct smask_tensor *y, void *user);
    void (*backward)(struct smask_tensor *y, void *user);   /* may be NULL */
    void *user;
} smask_user_op;

/* A tensor is a node of the tape. Read x freely; the rest is the tape's.
   Lives until shutdown when made outside a step, else until its end. */
#define SMASK_SOURCES 6
typedef struct smask_tensor {
    float *x;                        /* values, row-major                  */
    float *dx;                       /* d loss / d x, or NULL              */
    int32_t shape[4], rank;          /* shape[rank - 1] runs fastest       */
    int32_t op;                      /* smask_op                           */
    int32_t wants;                   /* 1: a gradient flows through here   */
    int32_t born;                    /* generation, for the debug build    */
    struct smask_tensor *source[SMASK_SOURCES];
    struct smask_tensor *before;     /* the node recorded before this one  */
    float *save[3];                  /* what backward needs: see each op   */
    const int32_t *index;
    const void *extra;
    float scalar[2];
    int32_t arg[3];
    int32_t owns;                    /* dx is the tape's to recycle        */
} smask_tensor;

/* A named parameter. Names are timm's, so that files move both ways. */
typedef struct smask_param {
    smask_tensor *t;
    char name[56];
    int32_t decay;                   /* 1: weight decay applies            */
    int32_t layer;                   /* 0 embedding, 1..L blocks, L+1 head */
    int32_t shape[4], rank;          /* as written to a file               */
} smask_param;

typedef struct smask_params {
    smask_param *item;               /* lives until shutdown               */
    int32_t count, capacity;
} smask_params;

/* A vision transformer. Zero: default, in brackets. */
typedef struct smask_vit_desc {
    int32_t image;                   /* side in pixels                [32] */
    int32_t patch;                   /* P, side in pixels              [4] */
    int32_t channels;                /* C                              [3] */
    int32_t dim;                     /* D                            [128] */
    int32_t depth;                   /* L, blocks                      [6] */
    int32_t heads;                   /* H                 [D / 64, min. 1] */
    int32_t mlp_ratio;               /* F = mlp_ratio * D              [4] */
    int32_t vocabulary;              /* V of the head; 0: no head          */
    int32_t decoder_depth;           /* 0: no decoder                      */
    int32_t class_token;             /* 1: prepend one                 [0] */
    int32_t pool_class;              /* 1: class token, 0: mean        [0] */
    int32_t sincos;                  /* 1: fixed 2-D sin-cos positions [0] */
    int32_t relative_bias;           /* 1: shared, 2: per layer (BEiT) [0] */
    int32_t no_position;             /* 1: no absolute positions       [0] */
    int32_t no_bridge;               /* 1: no linear before decoder    [0] */
    int32_t decoder_shares_position; /* 1: encoder's table, and only at
                                        the masked slots               [0] */
    int32_t mask_token;              /* 1: BEiT's, inside the encoder  [0] */
    int32_t recompute;               /* 1: blocks run again in backward[0] */
    int32_t classes;                 /* of the classifier; 0: none         */
    float layer_scale;               /* initial LayerScale; 0: none        */
    float drop_path;                 /* last block's stochastic depth  [0] */
    float init_std;                  /* of the weights            [0.02f]  */
    const float *weights;            /* read these, in the order of params,
                                        instead of drawing; never written  */
} smask_vit_desc;

/* The weights of a block: field, timm's name, rows, columns (0: a vector),
   first value (N normal, S normal / sqrt(2 l) as BEiT, 1, 0, G LayerScale).
   Yields the struct, the initialiser, the order in files and the count. */
#define SMASK_BLOCK_WEIGHTS(X)                                              \
    X(ln1_w,  "norm1.weight",     D,     0, 1)                              \
    X(ln1_b,  "norm1.bias",       D,     0, 0)                              \
    X(qkv_w,  "attn.qkv.weight",  3 * D, D, N)                              \
    X(qkv_b,  "attn.qkv.bias",    3 * D, 0, 0)                              \
    X(out_w,  "attn.proj.weight", D,     D, S)                              \
    X(out_b,  "attn.proj.bias",   D,     0, 0)                              \
    X(ln2_w,  "norm2.weight",     D,     0, 1)                              \
    X(ln2_b,  "norm2.bias",       D,     0, 0)                              \
    X(up_w,   "mlp.fc1.weight",   F,     D, N)                              \
    X(up_b,   "mlp.fc1.bias",     F,     0, 0)                              \
    X(down_w, "mlp.fc2.weight",   D,     F, S)                              \
    X(down_b, "mlp.fc2.bias",     D,     0, 0)                              \
    X(ls1,    "ls1.gamma",        D,     0, G)                              \
    X(ls2,    "ls2.gamma",        D,     0, G)

#define SMASK__FIELD(field, name, rows, columns, first) smask_tensor *field;
typedef struct smask_block {
    SMASK_BLOCK_WEIGHTS(SMASK__FIELD)
    smask_tensor *bias;              /* relative positions (2G-1)^2+3, H   */
    int32_t heads;
    float drop;                      /* stochastic depth: chance to skip   */
} smask_block;

typedef struct smask_vit {
    smask_vit_desc desc;             /* with defaults filled in            */
    int32_t grid, tokens;            /* patches a side; N = grid * grid    */
    smask_params params;             /* all of the below, in file order    */
    smask_tensor *patch_w, *patch_b; /* (D, C P P)   (D)                   */
    smask_tensor *position;          /* (N + class_token, D)               */
    smask_tensor *cls;               /* (D) or NULL                        */
    smask_tensor *mask;              /* (D) BEiT's mask token, or NULL     */
    smask_tensor *bias;              /* shared relative position bias      */
    smask_block *blocks;             /* desc.depth of them                 */
    smask_tensor *norm_w, *norm_b;   /* (D)                                */
    smask_tensor *bridge_w, *bridge_b;        /* (D, D)  (D)               */
    smask_tensor *decoder_mask;               /* (D)                       */
    smask_tensor *decoder_position;           /* (N, D)                    */
    smask_block *decoder;                     /* desc.decoder_depth        */
    smask_tensor *decoder_norm_w, *decoder_norm_b;
    smask_tensor *head_w, *head_b;            /* (V, D)  (V)               */
    smask_tensor *classifier_w, *classifier_b;/* (classes, D)  (classes)   */
    const int32_t *bias_index;       /* (N', N') rows of the bias table    */
    int32_t training;                /* 1: stochastic depth is on          */
} smask_vit;

/* Patch tokenizers: a codebook of unit vectors, token = argmax_i x . e_i. */
typedef enum smask_token_kind {
    SMASK_TOKENS_PROJECTION, SMASK_TOKENS_PATCHES, SMASK_TOKENS_KMEANS,
    SMASK_TOKENS_GIVEN
} smask_token_kind;

typedef struct smask_tokenizer_desc {
    smask_token_kind kind;
    int32_t image;                   /* side of the images, pixels    [32] */
    int32_t patch;                   /* P of the encoder, pixels       [4] */
    int32_t channels;                /* C                              [3] */
    int32_t vocabulary;              /* V                           [1024] */
    int32_t half;                    /* 1: tokens from a copy of half the
                                        resolution, as in the paper    [0] */
    int32_t centre;                  /* 1: remove each patch's mean    [0] */
    int32_t uniform01;               /* 1: draw from U[0,1], 0: U[-1,1][0] */
    int32_t euclidean;               /* 1: nearest by L2, 0: by cosine [0] */
} smask_tokenizer_desc;

typedef struct smask_tokenizer {
    smask_tokenizer_desc desc;
    int32_t width;                   /* d = C p p, p = P or P / 2          */
    float *codebook;                 /* (V, d) unit rows; until shutdown   */
    float *offset;                   /* (V) -|c|^2 / 2 where euclidean     */
    const int32_t *given;            /* (B, N) ids, kind GIVEN: yours      */
} smask_tokenizer;

/* How a set of tokens is used: see smask_token_stats. */
typedef struct smask_token_stats_t {
    double entropy;                  /* of token use, nats                 */
    double perplexity;               /* exp(entropy): words in real use    */
    int32_t used;                    /* words seen at least once           */
} smask_token_stats_t;

/* Masks. */
typedef enum smask_mask_kind {
    SMASK_MASK_BLOCKS,               /* BEiT's rectangles                  */
    SMASK_MASK_UNIFORM,              /* any patches, alike                 */
    SMASK_MASK_QUARTERS,             /* 75 %: two disjoint random quarters */
    SMASK_MASK_INDEPENDENT           /* 75 %: two quarters that may meet   */
} smask_mask_kind;

/* A drawn mask for B images of N tokens: what each of `branches` views of
   each image sees, and what it has to predict. Row indices 0 .. N-1, in
   rising order. All arrays live until the end of the step. */
typedef struct smask_mask {
    int32_t B, N, branches;          /* SplitMask: 2; BEiT: 1              */
    int32_t seen[2], masked[2];      /* counts per image, by branch        */
    int32_t *seen_at[2];             /* (B, seen)                          */
    int32_t *masked_at[2];           /* (B, masked)                        */
} smask_mask;

/* What the objectives weigh. Zero: the paper's method as METHOD settles it:
   inpaint + match, blocks, half and half. */
typedef struct smask_objective {
    smask_mask_kind mask;            /*                           [BLOCKS] */
    float ratio;                     /* masked share [SplitMask .5, BEiT .4,
                                        that is 75 of 196: 0.3827]         */
    int32_t no_inpaint, no_match;    /* 1: leave that part out             */
    float inpaint_weight;            /*                                [1] */
    float match_weight;              /*                                [1] */
    float temperature;               /* tau of InfoNCE               [0.2] */
    int32_t raw_features;            /* 1: no L2 norm before the match     */
    int32_t all_negatives;           /* 1: 2B - 2 negatives, 0: B - 1      */
    int32_t stop_keys;               /* 1: no gradient through the keys    */
} smask_objective;

typedef struct smask_losses {
    float total;                     /* what backward descends             */
    float inpaint;                   /* mean cross-entropy, nats           */
    float match;                     /* (l_a + l_b) / 2, nats              */
    float accuracy;                  /* of the token predictions, 0 .. 1   */
    float match_accuracy;            /* positives ranked first, 0 .. 1     */
    int32_t predictions;             /* patches predicted                  */
    const int32_t *guess;            /* (predictions) most likely tokens, in
                                        the order of masked_at; step life  */
    smask_mask mask;                 /* the one that was drawn             */
    const int32_t *tokens;           /* (B, N) targets; until end of step  */
} smask_losses;

typedef struct smask_adam_desc {
    float lr;                        /* peak rate                 [1.5e-3] */
    float beta1, beta2;              /*                       [0.9, 0.98]  */
    float eps;                       /*                             [1e-8] */
    float weight_decay;              /* [0.05]; negative: none             */
    float clip;                      /* global norm [3]; negative: never   */
    float layer_decay;               /* rate *= this ^ (L + 1 - layer) [1] */
    int64_t warmup;                  /* steps, linear from 0           [0] */
    int64_t steps;                   /* cosine ends here; 0: constant  [0] */
    float final_lr;                  /* where the cosine ends      [1e-5]  */
} smask_adam_desc;

typedef struct smask_adam {
    smask_adam_desc desc;
    float **m, **v;                  /* moments, one of each per parameter */
    int64_t step;                    /* updates made                       */
    float norm;                      /* of the last gradient, before clip  */
    float rate;                      /* the last learning rate             */
} smask_adam;

/* A running mean of the weights: mean <- decay mean + (1 - decay) w. */
typedef struct smask_ema { float **mean; float decay; } smask_ema;

/* One line of a file's metadata. */
typedef struct smask_note { const char *key, *value; } smask_note;

/* An open safetensors file: header parsed, data still to be read. */
typedef struct smask_file_entry {
    const char *name;                /* in the header; not NUL-terminated  */
    size_t name_bytes, begin, end;   /* data offsets in bytes              */
    int32_t shape[4], rank, type;    /* type: 0 F32, 1 F16, 2 BF16         */
} smask_file_entry;

typedef struct smask_file {
    smask_io io;
    const char *header;              /* JSON text, in the arena            */
    size_t header_bytes, at;         /* at: data bytes consumed so far     */
    smask_file_entry *entry;         /* sorted by `begin`                  */
    int32_t count;
} smask_file;

/* Everything that lives. The struct is yours; what is in it is not. */
typedef struct smask_ctx {
    uint32_t magic;                  /* version and size agree: see setup  */
    smask_result error;
    char detail[96];
    smask_desc desc;
    smask_random random;             /* every draw of the library          */
    int lanes;                       /* smask_lanes in use                 */
    unsigned char *base;             /* arena, 64-byte aligned             */
    size_t size, low, high;          /* usable; used from either end       */
    size_t peak;                     /* most of low + high so far          */
    size_t kept_low, kept_high;      /* marks of begin_step                */
    size_t kept_peak, step_peak;
    void *block;                     /* to release at shutdown             */
    int dry, in_step, no_grad, generation;
    int nodes, kept_nodes, peak_nodes;
    smask_tensor *last;              /* newest node of the tape            */
    smask_tensor *kept_last;
    struct smask__free *free_list;   /* gradients ready for reuse          */
} smask_ctx;

/* -------------------------------------------------------------- >>api
   Grouped under the numbers of the chapters that implement them. Every
   function that can fail leaves its reason in the context; functions that
   return a tensor return NULL on error and when given NULL, so that one
   check at the end of a model is enough. */

/* ---- 1  Ground ---- */

/* The text of a result code. Lives for ever. */
SMASK_API const char *smask_text(smask_result code);
/* The first error since setup or smask_clear, OK when none. */
SMASK_API smask_result smask_error(const smask_ctx *c);
/* Function and detail of that error ("linear: w is (8,5), x is (4,6)"). */
SMASK_API const char *smask_detail(const smask_ctx *c);
/* Forget the error and go on. */
SMASK_API void smask_clear(smask_ctx *c);

/* ---- 2  Memory ---- */

/* Bytes of the arena: rounded to 64, zeroed. Until the end of the step, or
   of the context when outside one. NULL when full, or in a dry run. */
SMASK_API void *smask_alloc(smask_ctx *c, size_t bytes);

/* ---- 3  Chance ---- */

/* The same (seed, stream) gives the same sequence on every machine. */
SMASK_API void smask_seed(smask_random *r, uint64_t seed, uint64_t stream);
SMASK_API uint32_t smask_next(smask_random *r);
/* [0, 1), 24 bits. */
SMASK_API float smask_uniform(smask_random *r);
/* 0 .. n-1, unbiased; n at least 1. */
SMASK_API uint32_t smask_below(smask_random *r, uint32_t n);
/* Mean 0, standard deviation 1; two draws of smask_next each. */
SMASK_API float smask_normal(smask_random *r);
/* Fisher-Yates. */
SMASK_API void smask_shuffle(smask_random *r, int32_t *items, size_t count);

/* ---- 4  Lanes ---- */

/* The name of the vector code in use: "avx512", "avx2", ... */
SMASK_API const char *smask_lanes_text(const smask_ctx *c);

/* ---- 5  The matrix product ---- */

typedef enum smask_trans { SMASK_NN, SMASK_NT, SMASK_TN } smask_trans;

/* C = A B, A B' or A' B, optionally added to what C holds.
     NN  A (m,k)  B (k,n)      NT  A (m,k)  B (n,k)      TN  A (k,m)  B (k,n)
     C (m,n); lda, ldb, ldc: floats from one row to the next
   cost       2 m n k operations      memory  packed panels, step scratch
   errors     ARG if a leading dimension is too small, MEMORY          */
SMASK_API smask_result smask_gemm(smask_ctx *c, smask_trans trans, size_t m,
    size_t n, size_t k, const float *a, size_t lda, const float *b,
    size_t ldb, float *out, size_t ldc, int add);

/* ---- 7  The tape ---- */

/* Start a context. `desc` may be NULL for the defaults.
   errors     MEMORY if the allocator fails or the block is too small,
              ARG if `lanes` is not to be had here, STATE if the calling
              unit was compiled against another version of this file   */
#define smask_setup(c, desc) smask_setup_v(c, desc, SMASK__MAGIC)
#define SMASK__MAGIC ((uint32_t)(SMASK_VERSION_MAJOR << 28                  \
    | SMASK_VERSION_MINOR << 20 | SMASK_VERSION_PATCH << 14)                \
    ^ (uint32_t)(sizeof(smask_ctx) + sizeof(smask_tensor) * 16              \
    + sizeof(smask_vit) * 64))
SMASK_API smask_result smask_setup_v(smask_ctx *c, const smask_desc *desc,
    uint32_t magic);
/* Give the memory back. Every pointer of this context dies. */
SMASK_API void smask_shutdown(smask_ctx *c);

/* Dry run: call `fn` in a context without data memory, where shapes are
   computed and kernels are skipped, and tell what it would need. Let `fn`
   do what the real program does: make the model, the optimiser, and run
   one step (or evaluation) of each kind. Its control flow must not depend
   on tensor values; tensors have x == NULL, smask_alloc gives NULL.
     desc    as for setup; its memory, if any, holds the nodes (about 250
             bytes each) during the plan
   errors     whatever `fn` returns or leaves in the context           */
SMASK_API smask_result smask_plan(const smask_desc *desc,
    smask_result (*fn)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes);
/* True in a dry run. */
SMASK_API int smask_is_dry(const smask_ctx *c);

/* A step: all that is made in between is gone at its end. */
SMASK_API void smask_begin_step(smask_ctx *c);
SMASK_API void smask_end_step(smask_ctx *c);

/* 0: record nothing for backward from here on (inference); 1: record. */
SMASK_API void smask_grad(smask_ctx *c, int on);

/* A leaf around the caller's floats, which must stay until the end of the
   step. Give the dimensions that exist and 0 for the rest. */
SMASK_API smask_tensor *smask_input(smask_ctx *c, const float *x, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3);
/* A leaf that learns: values zero, gradient zero. */
SMASK_API smask_tensor *smask_parameter(smask_ctx *c, int32_t d0, int32_t d1,
    int32_t d2, int32_t d3);
/* Elements; rows (all but the last dimension); columns (the last). */
SMASK_API size_t smask_count(const smask_tensor *t);
SMASK_API size_t smask_row_count(const smask_tensor *t);
SMASK_API size_t smask_columns(const smask_tensor *t);

/* y = a + b, same shape. */
SMASK_API smask_tensor *smask_add(smask_ctx *c, smask_tensor *a,
    smask_tensor *b);
/* y = s x. */
SMASK_API smask_tensor *smask_scale(smask_ctx *c, smask_tensor *x, float s);
/* y[i, ...] = g[i] x[i, ...]: x (R, ...), g (R). LayerScale is a gain on
   the rows of the weight before it [Tou21]. */
SMASK_API smask_tensor *smask_gain(smask_ctx *c, smask_tensor *x,
    smask_tensor *g);

/* A linear layer, with what stands before and after it done in passing.
     x (..., I)   w (O, I)   b (O) or NULL   ->   y (..., O)
     linear           y = x w' + b
     linear_add       y = r + keep * (x w' + b)
     norm_linear      y = layernorm(x) w' + b
     gelu_linear_add  y = r + keep * (gelu(x) w' + b)
     r (..., O); keep: NULL, or one factor per shape[0] entry of x
     (stochastic depth: 0 or 1 / (1 - p)), the caller's, until end of step
   gradient   x, w, b, r, ln_w, ln_b      saves   norm: 2 floats a row
   cost       2 rows I O operations; backward twice that
   memory     y; w packed, (I, O) floats, while it runs
   errors     SHAPE                                                    */
SMASK_API smask_tensor *smask_linear(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b);
SMASK_API smask_tensor *smask_linear_add(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b, smask_tensor *r, const float *keep);
SMASK_API smask_tensor *smask_norm_linear(smask_ctx *c, smask_tensor *x,
    smask_tensor *ln_w, smask_tensor *ln_b, smask_tensor *w,
    smask_tensor *b);
SMASK_API smask_tensor *smask_gelu_linear_add(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b, smask_tensor *r, const float *keep);

/* Normalise each row, then scale and shift.
     x (..., D)   w (D)   b (D)   ->   y (..., D)
     y = (x - mean) / sqrt(var + eps) * w + b          eps 1e-6
   gradient   x, w, b            saves   mean, 1 / std: 2 floats a row
   cost       8 operations an element
   errors     SHAPE if w or b is not (D)
   source     Ba et al. 2016, eq. 3-4 [Ba16]                           */
SMASK_API smask_tensor *smask_layernorm(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b);

/* y = x Phi(x), Phi the normal distribution function [HG16]. Exact form,
   not the tanh one; absolute error below 4e-7 for |x| < 4. */
SMASK_API smask_tensor *smask_gelu(smask_ctx *c, smask_tensor *x);

/* Multi-head self-attention over the tokens of each image.
     qkv (B, N, 3D): q, k, v, each H heads of K = D / H   ->   y (B, N, D)
     y_h = softmax(q_h k_h' / sqrt(K) + bias_h) v_h
     bias (T, H) or NULL, a table; index (N, N): rows of it, 0 .. T-1
   gradient   qkv, bias          saves   one float a row and head
   cost       4 B N N D; backward 10 B N N D
   memory     y; per worker (N, K) a few times. Never (B, H, N, N)
   errors     SHAPE, ARG (index without bias)
   source     Vaswani et al. 2017, eq. 1 [Vas17]                       */
SMASK_API smask_tensor *smask_attention(smask_ctx *c, smask_tensor *qkv,
    int32_t heads, smask_tensor *bias, const int32_t *index);

/* Rows by index, with a fill and a position.
     x (..., D), R rows   ->   y (B, N, D)
     y[b,n] = (index[b,n] >= 0 ? x[index[b,n]] : fill) + position[n]
     index (B, N): NULL for 0, 1, 2, ...; -1 takes `fill` (D)
     position (N, D) or NULL
   One op gathers the seen patches, puts mask tokens in the gaps, prepends
   a class token and adds positions.
   gradient   x, fill, position
   errors     SHAPE; RANGE if an index is out of 0 .. R-1 (or -1 without
              fill)                                                    */
SMASK_API smask_tensor *smask_rows(smask_ctx *c, smask_tensor *x, int32_t B,
    int32_t N, const int32_t *index, smask_tensor *fill,
    smask_tensor *position);

/* Mean over tokens: x (B, N, D) -> y (B, D), leaving out the first `skip`
   (a class token). */
SMASK_API smask_tensor *smask_mean_rows(smask_ctx *c, smask_tensor *x,
    int32_t skip);

/* y = x / |x| row by row (0 stays 0). */
SMASK_API smask_tensor *smask_unit(smask_ctx *c, smask_tensor *x);

/* Mean over rows of -sum_j t_j log softmax(x)_j. x (R, C); t (R, C)
   probabilities, the caller's, until end of step. y (1). */
SMASK_API smask_tensor *smask_cross_entropy(smask_ctx *c, smask_tensor *x,
    const float *t);

/* The vocabulary head and its loss as one op: the logits exist for a few
   rows at a time, and their gradient is taken while they do.
     x (R, D)   w (V, D)   b (V) or NULL   label (R): 0 .. V-1   ->   y (1)
     y = mean over rows of -log softmax(x w' + b)[label]
     guess (R) or NULL: gets the most likely word of each row
     hits or NULL: gets the number of rows guessed right
   gradient   x, w, b            saves   their gradients, at unit slope
   cost       2 R D V; with gradients 6 R D V
   errors     SHAPE; RANGE if a label is outside the vocabulary        */
SMASK_API smask_tensor *smask_linear_cross_entropy(smask_ctx *c,
    smask_tensor *x, smask_tensor *w, smask_tensor *b, const int32_t *label,
    int32_t *guess, int32_t *hits);

/* InfoNCE between the first and the second half of the rows.
     x (2B, D): row i and row B + i are two views of one image   ->   y (1)
     l(a_i) = -log( exp(a_i.b_i/t) / sum_y exp(a_i.y/t) ), y in {b_j}; with
     all_negatives also {a_j, j != i}. y = mean of l(a_i) and l(b_i)
     stop_keys: no gradient through the second factor of each product
   errors     SHAPE if the number of rows is odd; ARG if t is not > 0
   source     van den Oord et al. 2018 [Oord18]; El-Nouby et al., sec. 4  */
SMASK_API smask_tensor *smask_contrast(smask_ctx *c, smask_tensor *x,
    float temperature, int all_negatives, int stop_keys, int32_t *hits);

/* Run fn(c, x, user), keep only x and the result, and run it again when
   backward comes by: memory for time. fn must be a pure function of x and
   of parameters: no draws from the generator.
   source     Chen et al. 2016 [Chen16]                                */
typedef smask_tensor *(*smask_fn)(smask_ctx *c, smask_tensor *x,
    const void *user);
SMASK_API smask_tensor *smask_recompute(smask_ctx *c, smask_fn fn,
    smask_tensor *x, const void *user);

/* A node of your own kind; sources may be NULL from the first unused on. */
SMASK_API smask_tensor *smask_user(smask_ctx *c, const smask_user_op *op,
    smask_tensor *a, smask_tensor *b, smask_tensor *d, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3);

/* Fill dx of every parameter that `loss` (1) depends on, adding to what is
   there. errors: SHAPE if loss is no scalar; NUMERIC if it is not finite;
   STATE in a NO_AUTOGRAD build or if a user op has no backward. */
SMASK_API smask_result smask_backward(smask_ctx *c, smask_tensor *loss);

/* Compare backward with central differences: fn must rebuild the loss from
   scratch. Tries `tries` random entries of `t` (a parameter), moves each by
   +-eps and tells the largest of |d - n| / max(1e-3 |g|, |d| + |n|), where
   |g| is the largest entry of the gradient. In float an eps near 1e-2 and
   an answer below 1e-2 mean a right derivative. */
SMASK_API smask_result smask_gradcheck(smask_ctx *c,
    smask_tensor *(*fn)(smask_ctx *c, void *user), void *user,
    smask_tensor *t, int tries, float eps, float *worst);

/* ---- 8  The vision transformer ---- */

/* Make the weights, in kept memory, drawn from the context's generator.
   errors     ARG (image no multiple of patch, dim of heads), MEMORY,
              STATE inside a step                                      */
SMASK_API smask_result smask_vit_init(smask_ctx *c, smask_vit *v,
    const smask_vit_desc *desc);
/* Number of learnt floats. */
SMASK_API size_t smask_params_count(const smask_params *p);
/* A parameter by name, or NULL. */
SMASK_API smask_param *smask_params_find(const smask_params *p,
    const char *name);
/* Set all gradients to zero (smask_adam_update does so when done). */
SMASK_API void smask_params_zero(smask_ctx *c, const smask_params *p);

/* images (B,C,S,S) -> rows (B N, C P P), each patch flattened as (C,P,P),
   patches in reading order. */
SMASK_API void smask_patches(const float *images, size_t B, size_t C,
    size_t S, size_t P, float *rows);
/* A copy of half the side: means of 2 x 2 pixels. */
SMASK_API void smask_half(const float *images, size_t B, size_t C, size_t S,
    float *out);

/* Patch embedding, without positions: (B, N, D). */
SMASK_API smask_tensor *smask_vit_embed(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B);
/* One block: x (B, N, D) -> (B, N, D). index as for smask_attention. */
SMASK_API smask_tensor *smask_vit_block(smask_ctx *c, const smask_vit *v,
    const smask_block *k, smask_tensor *x, smask_tensor *bias);
/* All encoder blocks, without the final norm. */
SMASK_API smask_tensor *smask_vit_blocks(smask_ctx *c, const smask_vit *v,
    smask_tensor *x);
/* images -> tokens (B, N', D) after the final norm; N' counts the class
   token, which comes first. */
SMASK_API smask_tensor *smask_vit_encode(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B);
/* Seen tokens -> all tokens of each view, after the decoder's final norm.
   x (R, S, D) normed and bridged here; index (R, N): row of x or -1. */
SMASK_API smask_tensor *smask_vit_decode(smask_ctx *c, const smask_vit *v,
    smask_tensor *a, smask_tensor *b, const int32_t *index, int32_t R);
/* tokens (B, N', D) -> (B, D): mean over patches, or the class token. */
SMASK_API smask_tensor *smask_vit_pool(smask_ctx *c, const smask_vit *v,
    smask_tensor *tokens);
/* Frozen features of every layer: out (L + 1, B, D), pooled after block l
   as it stands for l = 0 .. L-1, and after the final norm as the last. */
SMASK_API smask_result smask_vit_features(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B, float *out);
/* Class scores (B, classes) from the pooled tokens. */
SMASK_API smask_tensor *smask_vit_classify(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B);

/* ---- 9  Tokens ---- */

/* Make room for the codebook; PROJECTION is drawn at once, PATCHES and
   KMEANS wait for smask_tokenizer_fit. */
SMASK_API smask_result smask_tokenizer_init(smask_ctx *c,
    smask_tokenizer *t, const smask_tokenizer_desc *desc);
/* Learn the codebook from patches (count, d), as smask_tokenizer_patches
   makes them. PATCHES takes V of them at random; KMEANS runs Lloyd's
   iterations (20 when 0), empty clusters restart at the worst-served patch.
     progress or NULL: called after each iteration with the mean squared
     distance; returning 0 stops early
   cost       2 count V d operations an iteration
   errors     ARG if there are fewer than V patches                    */
SMASK_API smask_result smask_tokenizer_fit(smask_ctx *c, smask_tokenizer *t,
    const float *patches, size_t count, int iterations,
    int (*progress)(void *user, int done, int total, double distance),
    void *user);
/* What the tokenizer looks at: images (B,C,S,S) -> rows (B N, d). */
SMASK_API void smask_tokenizer_patches(const smask_tokenizer *t,
    const float *images, size_t B, float *rows);
/* Rows the tokenizer makes per image, and their width d. */
SMASK_API size_t smask_tokenizer_rows(const smask_tokenizer *t);
/* images (B,C,S,S) -> ids (B, N). cost: 2 B N d V operations. */
SMASK_API smask_result smask_tokenize(smask_ctx *c, const smask_tokenizer *t,
    const float *images, int32_t B, int32_t *ids);
/* counts (V) or NULL receives the histogram of ids. */
SMASK_API smask_result smask_token_stats(smask_ctx *c, const int32_t *ids,
    size_t count, int32_t V, int32_t *counts, smask_token_stats_t *stats);

/* ---- 10  Masks ---- */

/* BEiT's sampler on a rows x columns grid [Bao21]: rectangles of area
   `least` .. `most`, until `target` patches are masked or ten tries in a
   row fail, so that the count may fall short, never over.
     mask (rows, columns): set to 1 where masked, else 0
   returns    the number masked                                        */
SMASK_API int32_t smask_mask_blocks(smask_random *r, int32_t rows,
    int32_t columns, int32_t target, int32_t least, int32_t most,
    uint8_t *mask);
/* The same, then random visible patches are masked until `target` are.
   least and most: 8 % and 38 % of the grid when 0. */
SMASK_API void smask_mask_exact(smask_random *r, int32_t rows,
    int32_t columns, int32_t target, int32_t least, int32_t most,
    uint8_t *mask);
/* Two views of each image (>>tour). Default: A sees n - m, B sees m, with
   m = round(ratio n), and each predicts what the other sees. */
SMASK_API smask_result smask_mask_split(smask_ctx *c, int32_t B,
    int32_t grid, smask_mask_kind kind, float ratio, smask_mask *out);
/* BEiT: one view, `masked` of it to predict; same count for each image. */
SMASK_API smask_result smask_mask_beit(smask_ctx *c, int32_t B, int32_t grid,
    smask_mask_kind kind, float ratio, smask_mask *out);

/* ---- 11  Objectives ---- */

/* SplitMask [ElN21]: split, inpaint, match.
     images (B,C,S,S) normalised, the caller's, until end of step
     o, out: may be NULL
   returns    the loss (1), ready for smask_backward
   errors     STATE without decoder or head; ARG if tokenizer and model
              disagree; those of the ops                               */
SMASK_API smask_tensor *smask_splitmask_loss(smask_ctx *c,
    const smask_vit *v, const smask_tokenizer *t, const smask_objective *o,
    const float *images, int32_t B, smask_losses *out);
/* BEiT [Bao21]: mask tokens inside the encoder, loss on masked patches. */
SMASK_API smask_tensor *smask_beit_loss(smask_ctx *c, const smask_vit *v,
    const smask_tokenizer *t, const smask_objective *o, const float *images,
    int32_t B, smask_losses *out);

/* ---- 12  The optimiser ---- */

SMASK_API smask_result smask_adam_init(smask_ctx *c, smask_adam *a,
    const smask_adam_desc *desc, const smask_params *p);
/* The learning rate of update number `step` (0 the first). */
SMASK_API float smask_adam_rate(const smask_adam *a, int64_t step);
/* One AdamW update [LH19] with clipping; gradients are zero afterwards.
   errors     NUMERIC if the gradient is not finite: nothing changes but
              that the gradients are zeroed                            */
SMASK_API smask_result smask_adam_update(smask_ctx *c, smask_adam *a,
    const smask_params *p);
SMASK_API smask_result smask_ema_init(smask_ctx *c, smask_ema *e,
    float decay, const smask_params *p);
SMASK_API void smask_ema_update(smask_ctx *c, smask_ema *e,
    const smask_params *p);
/* Exchange the weights with their running mean (twice: as before). */
SMASK_API void smask_ema_swap(smask_ctx *c, smask_ema *e,
    const smask_params *p);

/* ---- 13  Files ---- */

/* Write safetensors: the weights under timm's names, the architecture and
   the notes as metadata. With `t`, the codebook; with `a`, the moments, the
   step and the generator: all that a resumed run needs to go on bit for
   bit. t, a, e, notes may be NULL.
   errors     IO                                                       */
SMASK_API smask_result smask_write(smask_ctx *c, const smask_io *io,
    const smask_vit *v, const smask_tokenizer *t, const smask_adam *a,
    const smask_ema *e, const smask_note *notes, int32_t note_count);
/* Write any list of float32 tensors (the inputs' names in `names`). */
SMASK_API smask_result smask_write_tensors(smask_ctx *c, const smask_io *io,
    const char *const *names, smask_tensor *const *tensors, int32_t count);
/* Read and check the header. What it holds lives in the arena: until end of
   step if opened in one. errors: IO, FORMAT, MEMORY. */
SMASK_API smask_result smask_open(smask_ctx *c, smask_file *f,
    const smask_io *io);
/* A metadata text by key into out (NUL-terminated, cut if too long).
   Returns its length, or -1 if there is none. */
SMASK_API int smask_file_note(const smask_file *f, const char *key,
    char *out, size_t bytes);
/* The architecture of the file: from its metadata or, without, from the
   shapes of its tensors (timm's ViT and DeiT). errors: FORMAT. */
SMASK_API smask_result smask_file_vit(smask_ctx *c, const smask_file *f,
    smask_vit_desc *desc);
/* The tokenizer of the file; FORMAT if it has none. */
SMASK_API smask_result smask_file_tokenizer(smask_ctx *c,
    const smask_file *f, smask_tokenizer_desc *desc);
/* Read the data, in one pass. Weights the file has and the model has not
   are skipped; weights the model has and the file has not keep their
   values and are counted in *missing (may be NULL).
   errors     IO; FORMAT if a shape or a type does not fit; STATE if it
              has been read already, or has no training state but `a` is
              given                                                    */
SMASK_API smask_result smask_read(smask_ctx *c, smask_file *f, smask_vit *v,
    smask_tokenizer *t, smask_adam *a, smask_ema *e, int32_t *missing);
/* Read one tensor by name into out (count floats): in file order only. */
SMASK_API smask_result smask_read_tensor(smask_ctx *c, smask_file *f,
    const char *name, float *out, size_t count);

/* ---- 14  The crew ---- */

#ifdef SPLITMASK_THREADS
/* A pool of threads that fills the parallel hook. */
typedef struct smask_crew { void *state; int workers; } smask_crew;
/* workers: 0 takes the number of processors. errors: MEMORY. */
SMASK_API smask_result smask_crew_start(smask_crew *crew, int workers);
SMASK_API void smask_crew_stop(smask_crew *crew);
SMASK_API smask_parallel smask_crew_hook(smask_crew *crew);
#endif

#ifdef __cplusplus
}
#endif
#endif /* SPLITMASK_INCLUDED */

