/* bench.h: what the parts of the benchmark share. It shows how near the
   library comes to what this machine can do.

     main.c       commands, options, the threads and contexts of a run
     measure.c    memory, random values, medians, result lines, the peak
     gemm.c       matrix products, alone and beside those of peers.c
     peers.c      CBLAS and oneDNN, where the build has them
     op.c         one operation on its own, and the command attention
     model.c      a model and its step: the commands step and forward
     profile.c    step --profile: the time of each operation
     parts.c      the commands tokenizer and adam
     scale.c      how the cost grows; draws out/scale.svg

   Every command measures the processor's multiply-add peak in the same run,
   between the samples it is compared with, so that a share of the peak holds
   on a busy machine too. Samples are medians. Lines that start with # are
   tables for people; every other line of output is `name value`.         */
#ifndef BENCH_H
#define BENCH_H

#include "examples/support/support.h"

/* -------------------------------------------------------------- measure */

/* Times in seconds, or speeds. Past the last place the oldest ones go. */
#define SAMPLES 2048
typedef struct samples {
    double x[SAMPLES];
    int count;
} samples;

void sample_add(samples *s, double value);
/* 0 if there is none. */
double sample_median(const samples *s);

/* Zeroed, 64-byte aligned; free releases it. */
void *allocate(size_t bytes);
/* In -1 .. 1. */
float *random_floats(size_t count, uint64_t seed);
/* Fails with the context's own message. */
void must(const smask_ctx *c, smask_result r, const char *doing);
/* A result line with six significant digits, whole numbers in full. */
void figure(const char *name, double value);
/* The same, of a name made from two parts. */
void figure_of(const char *first, const char *second, double value);

/* ------------------------------------------------------------ a command */

/* Commands are bits, so that an option can name those it belongs to. */
enum { GEMM = 1, ATTENTION = 2, STEP = 4, FORWARD = 8, SCALE = 16,
    TOKENIZER = 32, ADAM = 64, PEAK = 128,
    MODEL = STEP | FORWARD | TOKENIZER | ADAM, ALL = 255 };
enum { SPLITMASK, BEIT };

typedef struct options {
    int command;
    int m, n, k, trans, suite;
    int method, model, dim, depth, heads;
    int image, patch, batch, vocab, steps;
    int profile, recompute, serve;
    int threads, repeat, isa;
    uint64_t seed;
} options;

typedef double peak_loop(size_t iterations, float *out);

typedef struct bench {
    options o;
    smask_threads pool;
    smask_parallel hook;
    int threads;
    peak_loop *peak;                 /* the fastest loop of this processor */
    size_t iterations;               /* of one sample: some milliseconds   */
    samples peaks;                   /* GFLOP/s of all threads together    */
} bench;

extern const char *const trans_names[3], *const method_names[2];

/* A context with exactly the memory that a dry run of `work` asks for. */
void bench_context(const bench *b, smask_ctx *c, int inference,
    smask_result (*work)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes);

/* Find the fastest loop; take one more sample; the median of all. */
void peak_choose(bench *b);
void peak_sample(bench *b);
double peak_median(const bench *b);

void run_gemm(bench *b);
void run_attention(bench *b);
void run_model(bench *b);
void run_scale(bench *b);
void run_tokenizer(bench *b);
void run_adam(bench *b);
void run_peak(bench *b);

/* ------------------------------------------------------ matrix products */

typedef struct product {
    smask_trans trans;
    size_t m, n, k, lda, ldb;
    float *a, *b, *out;
} product;

/* A linear layer's: NT forward, NN the gradient of x, TN that of the weights.
   Sizes alone; the caller sets a, b and out. */
product layer_product(smask_trans trans, size_t rows, size_t in, size_t out);
void product_run(smask_ctx *c, const product *p);

/* Another library's product, measured in turns with ours. */
typedef struct peer {
    const char *name, *ratio;        /* of the result lines                */
    const char *title;
    void (*run)(const product *p);
    void (*describe)(int threads);   /* fails if it runs another number    */
} peer;

#define MAX_PEERS 2
extern const peer peers[MAX_PEERS + 1];   /* ends with a name of NULL      */

/* ------------------------------------------------- an operation, a model */

typedef struct shape { int B, N, columns; } shape;

/* An operation between random values and a random gradient: x -> y. */
typedef struct op_timing op_timing;
struct op_timing {
    const char *name;
    smask_tensor *(*op)(smask_ctx *c, const op_timing *t, smask_tensor *x,
        smask_tensor *residual);
    shape in, out;                   /* of x and of y                      */
    int residual;                    /* 1: it adds a tensor of y's shape   */
    int loss;                        /* 1: y is a loss                     */
    int repeat;
    const void *user, *more;         /* of op                              */
    const float *values;             /* as many as the largest tensor has  */
    smask_tensor *seed;              /* a parameter: requires a gradient   */
    double forward, backward;        /* found: median seconds              */
};
/* c: a context with gradients, or a dry run. Sets forward and backward. */
void op_measure(smask_ctx *c, op_timing *t);
smask_tensor *op_attention(smask_ctx *c, const op_timing *t,
    smask_tensor *x, smask_tensor *residual);
/* Gives a tensor a gradient at the cost of one pass; user: the values. */
smask_user_op op_sink(const float *values);

/* Floating-point operations of the model, and nothing else. */
typedef struct model_cost {
    double tokens, masked;           /* of an image                        */
    double embed_macs;               /* multiply-adds per image, forward   */
    double flops;                    /* of the command, per image          */
} model_cost;
model_cost model_cost_of(const options *o);

typedef struct model {
    const options *o;
    const float *images;
    smask_vit vit;
    smask_tokenizer tokenizer;
    smask_adam adam;
    float loss;
} model;

smask_result model_make(smask_ctx *c, model *m);
/* Plan the memory, make the model and run one step, or one forward pass. */
void model_open(const bench *b, smask_ctx *c, model *m, const options *o,
    smask_sizes *sizes);
void model_close(smask_ctx *c, model *m);
/* Median seconds of a step, or of a forward pass. */
double model_seconds(bench *b, smask_ctx *c, model *m, int steps);
void model_describe(const options *o);
/* Median seconds to tokenize a batch, and of AdamW. */
double tokenizer_seconds(smask_ctx *c, const model *m, int repeat);
double adam_seconds(smask_ctx *c, model *m, int repeat);

void profile(bench *b, double step_seconds);

#endif /* BENCH_H */
