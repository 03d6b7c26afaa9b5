/* ######################################################################
   splitmask.h 0.2.0                                             >>cover

   Pre-train vision transformers on a few thousand images of your own, on a
   CPU, without other data. Depends only on libc and libm.

   Copy this file. In ONE C (or C++) file of your program write

```c
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
```

   and include it without the define everywhere else. Build: cc -O2 main.c
   -lm. The library finds the processor's vector instructions at run time;
   it needs no flags. If you rename the file, define SPLITMASK_FILE as the
   new name, because the file includes itself.

   A whole training program. Replace the noise by your images (B,C,S,S),
   with mean 0 and standard deviation 1:

```c
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <stdio.h>

int main(void)
{
    static float images[8 * 3 * 32 * 32];
    smask_vit_desc model = { 0 };
    smask_tokenizer_desc codebook;
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_losses out;
    int step, i;

    model.vocabulary = 256;
    model.decoder_depth = 2;
    model.depth = 2;
    smask_setup(&c, NULL);
    smask_vit_init(&c, &vit, &model);
    codebook = smask_tokenizer_desc_for(&vit);
    smask_tokenizer_init(&c, &tok, &codebook);
    smask_adam_init(&c, &adam, NULL, &vit.params);
    for (step = 0; step < 3 && smask_error(&c) == SMASK_OK; step++) {
        smask_tensor *loss;
        for (i = 0; i < 8 * 3 * 32 * 32; i++)
            images[i] = smask_normal(&c.random);
        smask_begin_step(&c);
        loss = smask_splitmask_loss(&c, &vit, &tok, NULL, images, 8, &out);
        smask_backward(&c, loss);
        smask_adam_update(&c, &adam, &vit.params);
        smask_end_step(&c);
        printf("step %d: inpaint %.3f, match %.3f\n", step,
            (double)out.inpaint, (double)out.match);
    }
    if (smask_error(&c) != SMASK_OK) printf("%s\n", smask_detail(&c));
    smask_shutdown(&c);
    return 0;
}
```

   What the file does not have: GPU code; 16-bit floats, except bfloat16 in
   matrix products (desc.isa); convolution; general broadcasting; readers
   of image files and data sets (examples/ has some). It implements one
   family of algorithms, completely, and is written to be fast and readable.

   ----------------------------------------------------------------------
   CONTENTS                                                   >>contents

   Search for an anchor to go to its section.

   I    Manual          >>cover >>tour >>notation >>memory-model >>errors
                        >>threads >>repeat >>options >>numbers
   II   Interface       >>config >>types >>api
   III  The algorithm, to be read in order
     1  >>basics        errors, checked sizes
     2  >>memory        one arena with two ends
     3  >>random        the random number generator
     4  >>engine        what part IV computes: loops and the matrix product
     5  >>kernels       forward and backward of every op, on pointers
     6  >>context       setup, plan, steps
     7  >>tape          tensors, recording, backpropagation on one page
     8  >>ops           what each op checks and records, and its derivative
     9  >>vit           patches, blocks, encoder, decoder
    10  >>tokenizers    three tokenizers that need no training set
    11  >>masks         blocks, halves, quarters
    12  >>objectives    BEiT and SplitMask
    13  >>adam          AdamW
    14  >>files         safetensors
   IV   The engine, for those who want to know why it is fast
    15  >>gemm          the matrix product, from three loops to full speed
    16  >>pool          threads (optional)
    17  >>simd          vector loops; all code for single instruction sets
   V    Endnotes        >>choices >>changing >>sources >>changes >>licence

   ----------------------------------------------------------------------
   A TOUR                                                         >>tour

   Supervised training tells a model what an image shows. Here no labels
   are used. A part of each image is hidden, and the model predicts it. To
   predict well it must learn how images are structured: that a wheel goes
   with another wheel, that sky stays blue upwards. The features it learns
   then need few labels, or none, to be useful.

     image (C,S,S)
       |  cut into squares of P x P pixels
     patches (N, C P P)  ------------------------ tokenizer
       |  patch embedding + position embedding       |  nearest of V
       |                                             |  codebook vectors
     patch tokens (N, D)                          visual tokens (N)
       |                                             |
       |  split: half of the patches to A,           |
       |  the others to B                            |
     A (N/2, D)          B (N/2, D)                  |
       |  encoder          |  the same encoder,      |
       |                   |  each half by itself    |
     features of A       features of B               |
       |  + mask tokens    |  + mask tokens          |
       |  where B was      |  where A was            |
     (N, D)              (N, D)                      |
       |  decoder          |  the same decoder       |
     (N, D)              (N, D)                      |
       |  at B's places    |  at A's places          |
     logits (V)          logits (V) -----------------+
                              cross-entropy: INPAINT

     mean of A's features (D), mean of B's features (D)
       +--- same image? --- InfoNCE: MATCH

   The loss is the sum of INPAINT and MATCH. The target of a patch is its
   visual token, not its pixels: the kind of content matters more than its
   exact shade. A codebook may be as simple as 1024 random directions in
   pixel space (>>tokenizers). The encoder never sees a mask token, so after
   training it can take whole images unchanged; the decoder is discarded.

   BEiT, an older method, masks patches inside the encoder: a learnt mask
   token replaces each masked patch token, and the encoder itself predicts
   the visual tokens. This file has it, too (>>objectives), because the
   SplitMask paper [ElN21] compares the two to ask whether self-supervised
   pre-training needs a large data set. Its answer: no, a few thousand images
   of one's own are enough.

   Further reading: chapter 12 has the objectives; 9, 10 and 11 have model,
   tokenizers and masks; 7 has backpropagation, 5 and 8 the derivatives; 15
   to 17 have the reasons for the speed. >>sources resolves [Bao21] and others.

   Terms, in alphabetical order:

     arena               the one memory block that holds everything
     attention           gives each token a weighted mean of all tokens of
                         its image; the better two fit, the larger the weight
     backpropagation     computes all gradients, from the loss backwards
     block               attention, then an MLP, each with a residual
     class token         an extra token that stands for the whole image
     codebook            V vectors e_i in the space of patches
     cross-entropy       -log of the probability given to the right answer,
                         in nats; 0 if it was certain
     decoder             blocks that turn features into predictions
     encoder             blocks that turn patch tokens into features
     feature             a vector of D floats that describes a patch or image
     GELU                x Phi(x), Phi the normal distribution function
     gradient            of the loss by a weight: the change of the loss per
                         change of the weight
     head                the last linear layer; in attention, one of H parts
                         of K floats that attend separately
     InfoNCE             cross-entropy of picking an image's other half out
                         of the batch
     label               what a person says an image shows, as an integer
     LayerNorm           shifts and scales a token to mean 0, deviation 1,
                         then applies a learnt gain and bias
     LayerScale          multiplies the output of attention or MLP by
                         learnt factors, one for each of D elements
     logits              scores of the possible answers, before softmax
     mask token          a learnt vector in the place of a hidden patch
     MLP                 linear, GELU, linear, on each token by itself
     nat                 the unit of entropy to base e; 1 nat is 1.44 bits
     patch embedding     the linear layer from a patch to its patch token
     patch token         a patch inside the model: a vector of D floats;
                         also just `token`
     position embedding  a vector per place, added to the patch token there
     residual            y = x + f(x): a layer adds its output to its input
     softmax             turns scores into positive numbers with sum 1
     stochastic depth    skips blocks at random during training
     tape                the list of the ops of a step; backpropagation
                         walks it from its end
     visual token        the target of a patch: the id, 0 .. V-1, of its
                         nearest codebook vector

   ----------------------------------------------------------------------
   NOTATION                                                   >>notation

     B  images in a batch          F  hidden width of the MLP
     N  patches of an image, G G   L  blocks of the encoder
     G  patches along a side, S/P  C  channels
     T  tokens: N, or N + 1 with   P  side of a patch, pixels
        the class token            S  side of an image, pixels;
     D  width of a token              in masks: visible patches
     H  heads                      M  masked patches
     K  width of a head, D / H     V  size of the vocabulary
     R  rows of a list: B T tokens, or the views that a decoder receives
     d  floats of a patch as the tokenizer sees it, C p p; p is P, or P / 2
        if desc.half_resolution

   Shapes are written (B,N,D); the last dimension is contiguous in memory.
   w' is w transposed; f' is the derivative only if f is a function. dx is
   the gradient of the loss by x and has the shape of x. smask_losses.tokens
   holds visual tokens.

   ----------------------------------------------------------------------
   MEMORY                                                >>memory-model

   A context owns one memory block, the arena. smask_setup takes it from you
   (desc.memory) or from an allocator (default malloc). Nothing is allocated
   afterwards. A pointer made outside a step (weights, moments, codebooks)
   is valid until smask_shutdown; one made between smask_begin_step and
   smask_end_step is valid until smask_end_step, which frees all memory of
   the step at once. Nothing is freed one by one.

   How large must the block be? smask_plan runs your own code without data
   and returns the exact size. One byte less gives SMASK_MEMORY: an error
   like any other, not a crash. smask_open and smask_read are exceptions:
   their memory depends on the file, as their comments say.

   You own smask_ctx, smask_vit, smask_tokenizer, smask_adam and the other
   structs. They may lie on the stack, but they must not move while in use.
   Arrays that you pass (images, labels, keep factors, index lists) must
   exist until the end of the step: the tape keeps the pointer.

   ----------------------------------------------------------------------
   ERRORS                                                       >>errors

   The first error stays in the context (a sticky error). smask_error returns
   its code, smask_detail where it arose and why: "linear: w (8,5), x (4,6)".
   After it, functions do nothing, except that smask_end_step still ends the
   step. Functions that return tensors return NULL, also if an argument is
   NULL. So a model needs no checks: one `if` at its end finds any error.
   smask_clear removes the error; then you can go on, for instance with a
   smaller batch. SMASK_NUMERIC leaves the weights unchanged: skip the batch
   and go on.

   The library never aborts, prints, exits or changes errno. desc.logger
   receives a line of text about the error. SPLITMASK_DEBUG makes the library
   report tensors of earlier steps and outputs of ops that are not finite.

   ----------------------------------------------------------------------
   THREADS                                                     >>threads

   Only one thread at a time may use a context; contexts share nothing. The
   library passes parallel work to one hook, smask_parallel.run, which is a
   loop over the pieces by default. Set it to your own thread pool, or
   define SPLITMASK_THREADS and use the pool of chapter 16:

```c
#define SPLITMASK_THREADS
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"

int main(void)
{
    smask_threads pool;
    smask_desc desc = { 0 };
    smask_ctx c;

    if (smask_threads_start(&pool, 0) != SMASK_OK) return 1;
    desc.parallel = smask_threads_hook(&pool);
    smask_setup(&c, &desc);
    smask_shutdown(&c);
    smask_threads_stop(&pool);
    return 0;
}
```

   ----------------------------------------------------------------------
   REPEATING A RUN                                              >>repeat

   Two runs give the same bits if seed, data, build and instruction set are
   the same, for any number of threads: pieces of work do not depend on the
   number of workers, and partial sums are added in a fixed order. Another
   instruction set (desc.isa) or compiler rounds the last digits differently.
   The generator's integers and uniform numbers are the same on every
   machine. Normal numbers and mask rectangles use logf, cosf and expf of
   the C library, whose last bits may differ. A run that is saved with its
   optimiser and loaded again continues with the same bits.

   ----------------------------------------------------------------------
   OPTIONS                                                     >>options

   Define options before the include that has SPLITMASK_IMPLEMENTATION. Those
   with a star must be defined before every include.

     SPLITMASK_IMPLEMENTATION  compile part III here
     SPLITMASK_STATIC *        all functions static: private to this file
     SMASK_API *               your own linkage, as __declspec(dllexport)
     SPLITMASK_FILE            this file's name, if not "splitmask.h"
     SPLITMASK_THREADS *       chapter 16: a pthread pool; link -lpthread
     SPLITMASK_NO_SIMD         plain C only: about 10 times slower
     SPLITMASK_NO_DISPATCH     only instruction sets that your compiler flags
                               allow; about half the code size
     SPLITMASK_CBLAS           products by cblas_sgemm; link your BLAS
     SPLITMASK_NO_MALLOC       no malloc and free: memory comes from desc;
                               with SPLITMASK_THREADS, one worker only
     SPLITMASK_NO_STDIO *      no smask_stdio, and no <stdio.h>
     SPLITMASK_NO_AUTOGRAD     inference only: no backward, no gradients
     SPLITMASK_NO_TEXT         no error texts, only codes
     SPLITMASK_DEBUG           additional checks; slow

   No option changes a public struct. All other settings are fields of a desc
   struct, where 0 always means the default.

   ----------------------------------------------------------------------
   NUMBERS                                                     >>numbers

   All arithmetic is 32-bit float, with two exceptions: matrix products round
   their operands to bfloat16 if desc.isa says so, and sums over whole
   batches (losses, the norm of the gradient) are double. Compared with the
   same model in double, values agree to 1e-5, and gradients to 1e-4 of the
   largest; tests/test_objectives.c checks both against PyTorch. exp(-x) has
   a relative error of 2e-7 (1 + x), GELU an error of 5e-7 times the
   magnitude of its argument. LayerNorm uses eps = 1e-6.

   Limits: 4 dimensions, each below 2^31; at most 199 blocks; labels and
   indices are int32_t. A loss or gradient that is not finite gives
   SMASK_NUMERIC before any weight changes. Weights near 1e18 overflow the
   squares in the norm; trained weights stay far below. Denormal numbers are
   slow on some processors; AdamW does not produce any in practice.

   Files are little-endian on all machines, as safetensors requires. The
   library assumes that `float` is IEEE 754 binary32.
   ###################################################################### */

/* ######################################################################
   PART II                                                     INTERFACE
   ###################################################################### */
#ifndef SPLITMASK_INCLUDED
#define SPLITMASK_INCLUDED

/* ---------------------------------------------------------- >>config */

#define SMASK_VERSION_MAJOR 0
#define SMASK_VERSION_MINOR 2
#define SMASK_VERSION_PATCH 0
#define SMASK_VERSION "0.2.0"

#include <stddef.h>
#include <stdint.h>
#ifndef SPLITMASK_NO_STDIO
#include <stdio.h>
#endif

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

/* Result codes. The context keeps the first error: see >>errors. */
#define SMASK_RESULTS(X)                                                    \
    X(OK,      "ok")                                                        \
    X(SHAPE,   "tensor shapes do not match")                                \
    X(MEMORY,  "the arena is full; smask_plan reports the size it needs")   \
    X(NODES,   "more tape nodes than desc.nodes allows")                    \
    X(ARG,     "an argument is missing or out of range")                    \
    X(STATE,   "wrong order of calls, or another version's struct")         \
    X(RANGE,   "a label or index is outside its table")                     \
    X(IO,      "a read or write callback moved too few bytes")              \
    X(FORMAT,  "the file has an invalid or unsupported format")             \
    X(NUMERIC, "a value is NaN or infinite")

#define SMASK__ENUM(name, text) SMASK_##name,
typedef enum smask_result { SMASK_RESULTS(SMASK__ENUM) SMASK_RESULT_COUNT }
    smask_result;

/* Source of memory. Setup calls alloc once; shutdown calls release. */
typedef struct smask_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*release)(void *user, void *block);
    void *user;
} smask_allocator;

/* Called once, on the first error. `text` is valid during the call. */
typedef struct smask_logger {
    void (*log)(void *user, smask_result code, const char *text);
    void *user;
} smask_logger;

/* Run fn(arg, piece, worker) for piece = 0 .. count-1, in any order, on at
   most `workers` threads at once. Return when all pieces are done. `worker`
   is 0 .. workers-1; two calls that overlap never share it. The pieces do
   not depend on `workers`, so results are the same bit for bit. */
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

/* The instruction set. AUTO selects the best one the processor has that
   multiplies in float. BF16 is AVX512 with other matrix products (except
   in attention and tokenizers): it rounds their operands to bfloat16, 8 bits
   of precision, and adds in float. Weights, gradients and moments stay
   float. BF16 is nearly twice as fast on AMD's Zen 4. Other processors may
   have the instruction without the speed, so AUTO never selects it. */
#define SMASK_ISAS(X) X(AUTO, "auto") X(SCALAR, "scalar")                   \
    X(VECTOR4, "vector4") X(AVX2, "avx2") X(AVX512, "avx512")               \
    X(BF16, "bf16")
#define SMASK__ISA_ENUM(name, text) SMASK_ISA_##name,
typedef enum smask_isa { SMASK_ISAS(SMASK__ISA_ENUM)
    SMASK_ISA_COUNT } smask_isa;

/* Setup. All fields 0 is a working default. */
typedef struct smask_desc {
    void *memory;                    /* the arena; NULL: use allocator     */
    size_t memory_size;              /* bytes; 0 without memory: 64 MiB    */
    smask_allocator allocator;       /* default: malloc and free           */
    smask_parallel parallel;         /* default: a loop on this thread     */
    smask_logger logger;             /* default: silent                    */
    uint64_t seed;                   /* of the context's generator         */
    int nodes;                       /* limit of tape nodes; 0: no limit   */
    smask_isa isa;                   /* instruction set; default: AUTO     */
    int inference;                   /* 1: parameters get no gradients     */
} smask_desc;

/* Result of a dry run: see smask_plan. */
typedef struct smask_sizes {
    size_t bytes;                    /* the arena: exact, for any alignment*/
    size_t kept_bytes;               /* part that lives until shutdown     */
    size_t step_bytes;               /* part for the step, at its peak     */
    int nodes;                       /* most tape nodes alive at once      */
} smask_sizes;

/* Generator: PCG32 (O'Neill 2014). 16 bytes of state; copy it to save it. */
typedef struct smask_random { uint64_t state, stream; } smask_random;

/* Ops of the tape. Each NAME has a function smask__name_back in chapter 8. */
#define SMASK_OPS(X)                                                        \
    X(INPUT, input) X(PARAM, param) X(ADD, add) X(SUB, sub) X(MUL, mul)     \
    X(SCALE, scale) X(SCALE_ROWS, scale_rows) X(LINEAR, linear)             \
    X(LAYERNORM, layernorm) X(GELU, gelu) X(ATTENTION, attention)           \
    X(GATHER, gather) X(MEAN_TOKENS, mean_tokens)                           \
    X(L2_NORMALIZE, l2_normalize) X(CROSS_ENTROPY, cross_entropy)           \
    X(LINEAR_CROSS_ENTROPY, linear_cross_entropy) X(INFO_NCE, info_nce)     \
    X(SLICE, slice) X(JOIN, join) X(RECOMPUTE, recompute) X(USER, user)
#define SMASK__OP_ENUM(NAME, name) SMASK_OP_##NAME,
typedef enum smask_op { SMASK_OPS(SMASK__OP_ENUM) SMASK_OP_COUNT } smask_op;

struct smask_ctx;
struct smask_tensor;

/* A differentiable function of your own: y = forward(source...).
   `forward` fills y->x from y->source[i]->x. `backward` reads y->dx and ADDS
   to y->source[i]->dx, which is NULL where no gradient is needed. */
typedef struct smask_user_op {
    const char *name;
    void (*forward)(struct smask_tensor *y, void *user);
    void (*backward)(struct smask_tensor *y, void *user);   /* may be NULL */
    void *user;
} smask_user_op;

/* A tensor is a node of the tape. You may read x; other fields are internal.
   Valid until shutdown if made outside a step, otherwise until its end. */
#define SMASK_SOURCES 6
typedef struct smask_tensor {
    float *x;                        /* values, row-major                  */
    float *dx;                       /* d loss / d x, or NULL              */
    int32_t shape[4], rank;          /* shape[rank - 1] runs fastest       */
    int32_t op;                      /* smask_op                           */
    int32_t requires_grad;           /* 1: backward computes its gradient  */
    int32_t generation;              /* step count, for the debug build    */
    struct smask_tensor *source[SMASK_SOURCES];
    struct smask_tensor *previous;   /* the node recorded before this one  */
    float *save[3];                  /* what backward needs: see each op   */
    const int32_t *index;
    const void *extra;
    float scalar[1];
    int32_t arg[2];
    int32_t dx_state;                /* who owns dx's memory: SMASK__DX_...*/
    int32_t x_state;                 /* how long x is valid: SMASK__X_...  */
} smask_tensor;

/* A named parameter. Those of the encoder and the classifier have the names of
   timm, the usual PyTorch library of image models, so files work in both
   directions; those of the decoder begin with "decoder.". */
typedef struct smask_param {
    smask_tensor *t;
    char name[56];
    int32_t decay;                   /* 1: weight decay applies            */
    int32_t layer;                   /* 0 embedding, 1..L blocks, L+1 head */
    int32_t shape[4], rank;          /* as written to a file               */
} smask_param;

typedef struct smask_params {
    smask_param *item;               /* valid until shutdown               */
    int32_t count, capacity;
} smask_params;

/* A vision transformer. 0 selects the default in brackets. */
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
    int32_t sincos;                  /* 1: fixed 2-D sin-cos position
                                        embedding, encoder only        [0] */
    int32_t relative_bias;           /* 1: shared, 2: per layer (BEiT) [0] */
    int32_t no_position;             /* 1: no position embedding       [0] */
    int32_t no_decoder_embed;        /* 1: no linear before decoder    [0] */
    int32_t decoder_shares_position; /* 1: the encoder's table, at masked
                                        patches only                   [0] */
    int32_t mask_token;              /* 1: BEiT's, inside the encoder  [0] */
    int32_t recompute;               /* 1: backward recomputes blocks  [0] */
    int32_t group;                   /* tokens of one group of images. A
                                        group passes all blocks before the
                                        next starts: it stays in cache.
                                        Raise above 16 threads      [1024] */
    int32_t classes;                 /* of the classifier; 0: none         */
    float layer_scale;               /* initial LayerScale; 0: none        */
    float drop_path;                 /* last block's stochastic depth  [0] */
    float init_std;                  /* initial weights are normal, cut at
                                        +-2 deviations             [0.02f] */
    const float *weights;            /* use these, in the order of params;
                                        the caller's, until shutdown, read-
                                        only: needs smask_desc.inference   */
} smask_vit_desc;

/* The weights of a block: field, timm's name, rows, columns (0: a vector),
   initial value (N normal, S normal / sqrt(2 l) as BEiT, 1, 0, G LayerScale).
   l is the block's number, from 1; all decoder blocks have l = L + 1.
   The struct, the initialiser, the order in files and the count all come
   from this list. */
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
    smask_tensor *bias;              /* relative: ((2G-1)^2 + 3, H) or NULL*/
    int32_t heads;
    float drop;                      /* stochastic depth: skip probability */
} smask_block;

typedef struct smask_vit {
    smask_vit_desc desc;             /* with defaults filled in            */
    int32_t grid, tokens;            /* G patches a side; N = G G patches  */
    smask_params params;             /* all tensors below, in file order   */
    smask_tensor *patch_w, *patch_b; /* patch embedding (D, C P P) (D)     */
    smask_tensor *position;          /* position embedding (N or N + 1, D) */
    smask_tensor *cls;               /* class token (D), or NULL           */
    smask_tensor *mask;              /* BEiT's mask token (D), or NULL     */
    smask_tensor *bias;              /* shared relative position bias      */
    smask_block *blocks;             /* desc.depth blocks                  */
    smask_tensor *norm_w, *norm_b;   /* (D)                                */
    smask_tensor *decoder_embed_w, *decoder_embed_b; /* (D, D)  (D)        */
    smask_tensor *decoder_mask;      /* mask token (D)                     */
    smask_tensor *decoder_position;  /* position embedding (N, D)          */
    smask_block *decoder;            /* desc.decoder_depth blocks          */
    smask_tensor *decoder_norm_w, *decoder_norm_b; /* (D)                  */
    smask_tensor *head_w, *head_b;   /* (V, D)  (V): decoder.head.* in files */
    smask_tensor *classifier_w, *classifier_b; /* (classes, D)  (classes):
                                        head.* in files, as timm has it    */
    const int32_t *bias_index;       /* (T, T) rows of the bias table      */
    int32_t training;                /* 1: stochastic depth is on          */
} smask_vit;

/* Patch tokenizers. A codebook has V vectors e_i of length 1. The visual
   token of patch x is argmax_i x . e_i; with `euclidean`, learnt vectors keep
   their length and the nearest one wins. */
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
    int32_t half_resolution;         /* 1: tokenize a copy of half the
                                        side, as in the paper          [0] */
    int32_t centre;                  /* 1: remove each patch's mean    [0] */
    int32_t uniform01;               /* 1: draw from U[0,1], 0: U[-1,1]
                                                                       [0] */
    int32_t euclidean;               /* 1: nearest by L2, 0: by cosine [0] */
} smask_tokenizer_desc;

typedef struct smask_tokenizer {
    smask_tokenizer_desc desc;
    int32_t width;                   /* d = C p p, p = P or P / 2          */
    float *codebook;                 /* (V, d) vectors e_i; until shutdown */
    float *offset;                   /* (V) -|e_i|^2 / 2 if euclidean      */
    const int32_t *given;            /* (B, N) for GIVEN, the caller's     */
} smask_tokenizer;

/* How evenly visual tokens are used: see smask_token_stats. */
typedef struct smask_token_use {
    double entropy;                  /* of the histogram, nats             */
    double perplexity;               /* exp(entropy): effective number     */
    int32_t used;                    /* ids that occur at least once       */
} smask_token_use;

/* Masks. */
typedef enum smask_mask_kind {
    SMASK_MASK_BLOCKS,               /* BEiT's rectangles                  */
    SMASK_MASK_UNIFORM,              /* any patches, equally likely        */
    SMASK_MASK_QUARTERS,             /* 75 %: two disjoint random quarters */
    SMASK_MASK_INDEPENDENT           /* 75 %: two quarters that may overlap*/
} smask_mask_kind;

/* A random mask for B images of N patches. Each image has `branches` views.
   A view sees its visible patches and predicts its masked patches. Entries
   are patch numbers 0 .. N-1, ascending. Valid until end of step. */
typedef struct smask_mask {
    int32_t B, N, branches;          /* SplitMask: 2; BEiT: 1              */
    int32_t visible[2], masked[2];   /* counts per image, by branch        */
    int32_t *visible_at[2];          /* (B, visible)                       */
    int32_t *masked_at[2];           /* (B, masked)                        */
} smask_mask;

/* Options of the objectives. All 0: inpaint + match, BEiT's blocks, half of the
   patches masked. The paper has splits = B and match_decoder = 1; for other
   differences see >>choices. */
typedef struct smask_objective {
    smask_mask_kind mask;            /*                           [BLOCKS] */
    float ratio;                     /* masked share; 0: one half, for BEiT
                                        75 of 196                          */
    int32_t no_inpaint, no_match;    /* 1: leave that part out             */
    float inpaint_weight;            /*                                [1] */
    float match_weight;              /*                                [1] */
    float temperature;               /* tau of InfoNCE, .001 .. 1000 [0.2] */
    int32_t raw_features;            /* 1: no L2 norm before the match     */
    int32_t all_negatives;           /* 1: 2B - 2 negatives, 0: B - 1      */
    int32_t stop_keys;               /* 1: no gradient through the keys    */
    int32_t match_decoder;           /* 1: match the means of the decoder's
                                        outputs, as in the paper; 0: of the
                                        encoder's                      [0] */
    int32_t splits;                  /* different splits in a batch; B or
                                        more: one an image, as in the paper;
                                        2 .. B-1: negatives come only from
                                        images of the same split       [1] */
    const float *view_images[2];     /* (B,C,S,S) or NULL: the images that A
                                        and B are cut from, if not `images`,
                                        whose visual tokens are predicted;
                                        the caller's, until end of step    */
} smask_objective;

typedef struct smask_losses {
    float total;                     /* weighted sum that backward uses    */
    float inpaint;                   /* mean cross-entropy, nats           */
    float match;                     /* (l_a + l_b) / 2, nats              */
    float accuracy;                  /* of the predicted tokens, 0 .. 1    */
    float match_accuracy;            /* positives ranked first, 0 .. 1     */
    int32_t predictions;             /* number of patches predicted        */
    const int32_t *guess;            /* (predictions) most likely ids, in
                                        the order of masked_at; until end
                                        of step                            */
    smask_mask mask;                 /* the mask that was drawn            */
    const int32_t *tokens;           /* (B, N) targets; until end of step  */
} smask_losses;

typedef struct smask_adam_desc {
    float lr;                        /* peak learning rate        [1.5e-3] */
    float beta1, beta2;              /*                        [0.9, 0.98] */
    float eps;                       /*                             [1e-8] */
    float weight_decay;              /* negative: none              [0.05] */
    float clip;                      /* global norm; negative: none    [3] */
    float layer_decay;               /* rate *= this ^ (L + 1 - layer), at
                                        most 1                         [1] */
    int64_t warmup;                  /* steps, linear: update 0 has rate 0,
                                        update `warmup` has lr         [0] */
    int64_t steps;                   /* cosine ends here; 0: constant  [0] */
    float final_lr;                  /* rate at the cosine's end, at most
                                        lr; negative: 0             [1e-5] */
} smask_adam_desc;

typedef struct smask_adam {
    smask_adam_desc desc;
    float **m, **v;                  /* moments, one of each per parameter;
                                        NULL for fixed parameters          */
    int64_t step;                    /* updates made                       */
    float norm;                      /* of the last gradient, before clip  */
    float rate;                      /* the last learning rate             */
} smask_adam;

/* A running mean (EMA) of the weights: mean <- decay mean + (1 - decay) w.
   NULL for fixed parameters. */
typedef struct smask_ema { float **mean; float decay; } smask_ema;

/* One metadata entry of a file: UTF-8. */
typedef struct smask_metadata { const char *key, *value; } smask_metadata;

/* One tensor of a file to be written in portions: see smask_write_begin. */
typedef struct smask_shape {
    const char *name;
    int32_t rank, shape[4];
} smask_shape;

typedef struct smask_writer { smask_io io; uint64_t left; } smask_writer;

/* An open safetensors file: the header is parsed, the data not yet read. */
typedef struct smask_file_entry {
    const char *name;                /* in the header: JSON escapes not yet
                                        decoded, not NUL-terminated        */
    size_t name_bytes, begin, end;   /* data offsets in bytes              */
    int32_t shape[4], rank, type;    /* 0 F32, 1 F16, 2 BF16, 3 F64; a higher
                                        type or rank > 4 cannot be read    */
} smask_file_entry;

typedef struct smask_file {
    smask_io io;
    const char *header;              /* JSON text, in the arena            */
    size_t header_bytes, at;         /* at: data bytes consumed so far     */
    const char *metadata;            /* its object in the header, or NULL  */
    smask_file_entry *entry;         /* sorted by `begin`                  */
    int32_t *by_name;                /* numbers of entries, sorted by name */
    int32_t count;
} smask_file;

/* The context. You own the struct; its fields are internal. */
typedef struct smask_ctx {
    uint32_t magic;                  /* same version and sizes: see setup  */
    smask_result error;
    char detail[96];
    smask_desc desc;
    smask_random random;             /* the library draws from this only   */
    int isa;                         /* smask_isa in use                   */
    unsigned char *base;             /* arena, 64-byte aligned             */
    size_t size, low, high;          /* bytes usable, used at each end     */
    size_t peak;                     /* maximum of low + high so far       */
    size_t kept_low, kept_high;      /* marks of begin_step                */
    size_t kept_peak, step_peak;
    void *block;                     /* to release at shutdown             */
    int dry, in_step, not_recording, generation;
    int nodes, kept_nodes, peak_nodes;
    smask_tensor *last;              /* newest node of the tape            */
    smask_tensor *kept_last;
    struct smask__free *free_list;   /* gradient memory ready for reuse    */
} smask_ctx;

/* -------------------------------------------------------------- >>api
   Functions are grouped by the chapter that implements them. A function that
   fails leaves its reason in the context. A function that returns a tensor
   returns NULL on error and when an input is NULL, so one check at the end
   of a model is enough. "The caller's" marks memory that you own.     */

/* ---- 1  Basics ---- */

/* The text of a result code: a constant string. */
SMASK_API const char *smask_result_text(smask_result code);
/* The first error since setup or smask_clear; OK if there was none. */
SMASK_API smask_result smask_error(const smask_ctx *c);
/* Function and detail of that error ("linear: w (8,5), x (4,6)"). */
SMASK_API const char *smask_detail(const smask_ctx *c);
/* Forget the error; functions work again. */
SMASK_API void smask_clear(smask_ctx *c);

/* ---- 2  Memory ---- */

/* Bytes of the arena, zeroed, 64-byte aligned. Valid until the end of the
   step or, if allocated outside a step, until shutdown. NULL in a dry run.
   memory     bytes, rounded up to 64
   errors     MEMORY: returns NULL, the arena is unchanged             */
SMASK_API void *smask_alloc(smask_ctx *c, size_t bytes);
/* 1 in a dry run. */
SMASK_API int smask_is_dry(const smask_ctx *c);

/* ---- 3  Random numbers ---- */

/* Start a generator. The same (seed, stream) gives the same sequence on every
   machine, except for smask_normal. There are 2^64 seeds and 2^63 streams:
   the top bit of `stream` is ignored.
   source     O'Neill 2014 [ONe14]                                     */
SMASK_API void smask_seed(smask_random *r, uint64_t seed, uint64_t stream);
/* 32 random bits. */
SMASK_API uint32_t smask_next(smask_random *r);
/* One of the 2^24 multiples of 2^-24 in [0, 1); one draw. */
SMASK_API float smask_uniform(smask_random *r);
/* 0 .. n-1, unbiased; one draw, rarely more. n = 0 gives 0. */
SMASK_API uint32_t smask_below(smask_random *r, uint32_t n);
/* Mean 0, standard deviation 1, within +-5.8; two draws. It uses libm's log
   and cos, whose last bits differ between libraries. So weights drawn on
   another system may differ in the last bits. So may, very rarely, a
   rectangle of a mask, because its sides are rounded from exp and sqrt. */
SMASK_API float smask_normal(smask_random *r);
/* Put items (count) into a random order. All orders are equally
   likely; count - 1 draws of smask_below (Fisher-Yates). */
SMASK_API void smask_shuffle(smask_random *r, int32_t *items, int32_t count);

/* ---- 6  Context ---- */

/* Start a context. `desc` may be NULL for the defaults; it is copied.
   memory     desc.memory_size bytes, from the allocator or desc.memory
   errors     MEMORY if the allocator fails or the block is too small;
              ARG if `isa` is not available here; STATE if the calling
              code was compiled against another version of this file   */
#define smask_setup(c, desc) smask_setup_v(c, desc, SMASK__MAGIC)
#define SMASK__MAGIC ((uint32_t)(SMASK_VERSION_MAJOR << 28                  \
    | SMASK_VERSION_MINOR << 20 | SMASK_VERSION_PATCH << 14)                \
    ^ (uint32_t)(sizeof(smask_ctx) + sizeof(smask_tensor) * 16              \
    + sizeof(smask_vit) * 64 + sizeof(smask_objective) * 256                \
    + sizeof(smask_tokenizer) * 1024 + sizeof(smask_adam) * 4096))
SMASK_API smask_result smask_setup_v(smask_ctx *c, const smask_desc *desc,
    uint32_t magic);
/* The name of the instruction set in use: "avx512", "avx2", ... */
SMASK_API const char *smask_isa_text(const smask_ctx *c);
/* Release the memory. All pointers from this context become invalid. */
SMASK_API void smask_shutdown(smask_ctx *c);

/* Dry run: call `fn` in a context without data memory and report what it
   would need. Shapes are computed, kernels are skipped. `fn` must do what the
   real program does: make the model and the optimiser, then run one step (or
   evaluation) of each kind. Its control flow must not depend on tensor
   values: all x are NULL, and smask_alloc returns NULL.
     desc    as for setup; its memory, if any, holds the structs during
             the plan: 192 bytes a tensor, 96 a parameter, and lists
   Functions without a context run in a dry run, too: skip them if
   smask_is_dry. Losses are then 0 and their pointers NULL.
   A dry run cannot open files: add the memory stated at smask_open.
   memory     desc.memory_size, or 4 MiB of the allocator without memory,
              released at the end
   errors     those that `fn` returns or leaves in the context, whose detail
              goes to desc.logger; MEMORY if the structs do not fit; ARG as
              in setup                                                 */
SMASK_API smask_result smask_plan(const smask_desc *desc,
    smask_result (*fn)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes);

/* A step: end_step frees everything that was made since begin_step.
   errors     STATE if a step begins inside a step, or ends outside one */
SMASK_API void smask_begin_step(smask_ctx *c);
SMASK_API void smask_end_step(smask_ctx *c);

/* 0: stop recording for backward (inference); 1: record again. */
SMASK_API void smask_record(smask_ctx *c, int on);

/* ---- 7  Tape ---- */

/* Elements; rows (all dimensions except the last); columns (the last). */
SMASK_API size_t smask_count(const smask_tensor *t);
SMASK_API size_t smask_row_count(const smask_tensor *t);
SMASK_API size_t smask_columns(const smask_tensor *t);

/* Backpropagation: add the gradient of `loss` (1) to dx of every parameter
   that it depends on. Parameters keep dx until smask_params_zero or
   smask_adam_update. So a batch larger than memory is trained in parts: a step
   and a backward for each part, its loss scaled by 1 / parts (smask_scale),
   then one smask_adam_update. Backward reuses the memory of values inside
   blocks, so losses that share blocks are added first. Losses built apart may
   each have their backward in one step.
   cost       about twice forward, or three times with recompute
   memory     a gradient lives from its first contribution until its node is
              processed; later gradients reuse its memory where it fits
   errors     ARG if loss is NULL; SHAPE if it is not a scalar; NUMERIC if it
              is not finite; MEMORY; STATE if nothing was recorded, in a
              NO_AUTOGRAD build, if a user op has no backward, or the
              second time through a block. After any of these except NUMERIC
              call smask_params_zero: gradients may be incomplete      */
SMASK_API smask_result smask_backward(smask_ctx *c, smask_tensor *loss);

/* Compare backward with central differences. fn must rebuild the loss from
   scratch. The check moves each of `tries` random elements of `t`, a
   parameter, by +-eps. *worst receives the largest of
   |d - n| / max(1e-3 |g|, |d| + |n|): d is the derivative from backward, n
   the central difference, |g| the largest element of the gradient. In float,
   an eps near 1e-2 and a result below 1e-2 mean a correct derivative. Where
   the true gradient is 0, as for a key's bias, the result is only rounding.
   t's gradient is 0 afterwards.
   cost       fn and backward once, then fn 2 `tries` times, a step each
   errors     ARG unless t is a parameter, tries and eps are positive and fn
              returns a loss; STATE in a step, in a dry run, for inference,
              in a NO_AUTOGRAD build, or if the loss does not depend on t;
              fn's                                                     */
SMASK_API smask_result smask_gradcheck(smask_ctx *c, smask_tensor *t,
    smask_tensor *(*fn)(smask_ctx *c, void *user), void *user, int32_t tries,
    float eps, float *worst);

/* ---- 8  Ops ---- */

/* A leaf around the caller's floats. They are never written and must stay
   valid until the end of the step. Pass 0 for unused trailing dimensions.
   memory     only the node
   errors     ARG if x is NULL (not in a dry run); SHAPE if a dimension is
              not positive or the size in bytes overflows size_t; NODES and
              MEMORY: every op may fail with these two, so other comments
              do not repeat them                                       */
SMASK_API smask_tensor *smask_input(smask_ctx *c, const float *x, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3);
/* A trainable leaf: values 0, gradient 0. Valid until shutdown.
   memory     2 floats an element; 1 with desc.inference
   errors     STATE in a step; SHAPE                                   */
SMASK_API smask_tensor *smask_parameter(smask_ctx *c, int32_t d0, int32_t d1,
    int32_t d2, int32_t d3);
/* y = a + b     y = a - b     y = a b, element by element. Same shape.
   gradient   a, b (a may be b)        memory  y
   errors     SHAPE                                                    */
SMASK_API smask_tensor *smask_add(smask_ctx *c, smask_tensor *a,
    smask_tensor *b);
SMASK_API smask_tensor *smask_sub(smask_ctx *c, smask_tensor *a,
    smask_tensor *b);
SMASK_API smask_tensor *smask_mul(smask_ctx *c, smask_tensor *a,
    smask_tensor *b);
/* y = s x.      gradient  x        memory  y */
SMASK_API smask_tensor *smask_scale(smask_ctx *c, smask_tensor *x, float s);
/* y[i, ...] = g[i] x[i, ...]: x (R, ...), g (R). LayerScale uses it on the
   rows of the weight of the linear layer before it.
   gradient   x, g                     memory  y
   errors     SHAPE if g is not (x->shape[0])
   source     Touvron et al. 2021, eq. 4 [Tou21]                       */
SMASK_API smask_tensor *smask_scale_rows(smask_ctx *c, smask_tensor *x,
    smask_tensor *g);

/* A linear layer, fused with the op before it and the residual after it.
     x (..., in)   w (out, in)   b (out) or NULL   ->   y (..., out)
     linear           y = x w' + b
     linear_add       y = r + keep * (x w' + b)
     norm_linear      y = layernorm(x) w' + b
     gelu_linear_add  y = r + keep * (gelu(x) w' + b)
     r (..., out): the residual. keep: NULL, or one factor per shape[0]
     entry of x (stochastic depth: 0 or 1 / (1 - p)); the caller's, until
     end of step
   gradient   x, w, b, r, ln_w, ln_b      saves   norm: 2 floats a row
   cost       2 rows in out operations; backward twice that
   memory     y; w packed, (in, out) floats, while it runs
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
   cost       8 operations an element     memory  y
   errors     SHAPE if w or b is not (D)
   source     Ba et al. 2016, eq. 3-4 [Ba16]                           */
SMASK_API smask_tensor *smask_layernorm(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b);

/* y = x Phi(x), Phi the normal distribution function. This is the exact
   form, not the tanh approximation; absolute error below 5e-7 for |x| < 4.
   gradient   x                        memory  y
   source     Hendrycks & Gimpel 2016 [HG16]                           */
SMASK_API smask_tensor *smask_gelu(smask_ctx *c, smask_tensor *x);

/* Multi-head self-attention over the tokens of each image.
     qkv (B, N, 3D): q, k, v, each H heads of K = D / H   ->   y (B, N, D)
     y_h = softmax(q_h k_h' / sqrt(K) + bias_h) v_h
     bias (.., H) or NULL: a table. index (N, N): its rows; the caller's,
     until end of step. bias_h[i,j] = bias[index[i,j], h]
   gradient   qkv, bias          saves   two floats a row and head
   cost       4 B N N D operations; backward 10 B N N D
   memory     y; per worker (N, N), in backward twice; with a bias also
              (H, N, N), in backward twice if the bias has a gradient. Never
              (B, H, N, N)
   errors     SHAPE; ARG (bias without index, or index without bias); RANGE
              if an index is outside the table
   source     Vaswani et al. 2017, eq. 1 [Vas17]                       */
SMASK_API smask_tensor *smask_attention(smask_ctx *c, smask_tensor *qkv,
    int32_t heads, smask_tensor *bias, const int32_t *index);

/* Select rows by index, with a fill value and a position embedding.
     x (..., D), R rows   ->   y (B, N, D)
     y[b,n] = (index[b,n] >= 0 ? x[index[b,n]] : fill) + position[n]
     index (B, N): NULL for 0, 1, 2, ...; -1 selects `fill` (D); the
     caller's, not copied, until end of step
     position (N, D) or NULL
   One op gathers the visible patches, inserts mask tokens, prepends a class
   token and adds the position embedding.
   gradient   x, fill, position        memory  y
   errors     SHAPE; RANGE if an index is not in 0 .. R-1 (or is -1 without
              fill)                                                    */
SMASK_API smask_tensor *smask_gather(smask_ctx *c, smask_tensor *x, int32_t B,
    int32_t N, const int32_t *index, smask_tensor *fill,
    smask_tensor *position);

/* Mean over tokens, without the first `skip` (a class token).
     x (B, N, D)   ->   y (B, D)
   gradient   x                        memory  y
   errors     SHAPE unless x is 3-dimensional and skip is in 0 .. N-1  */
SMASK_API smask_tensor *smask_mean_tokens(smask_ctx *c, smask_tensor *x,
    int32_t skip);

/* y = x / |x| for each row; a zero row stays zero. The sum of squares is a
   float, so keep |x| 0 or within 1e-18 .. 1e18. If the sum overflows, the row
   becomes 0; if it underflows, some or all digits are lost.
   gradient   x (0 where y is 0)       saves   1 / |x|: one float a row
   memory     y                                                        */
SMASK_API smask_tensor *smask_l2_normalize(smask_ctx *c, smask_tensor *x);

/* Cross-entropy with probabilities as targets (mixed labels).
     x (R, classes)   t (R, classes), the caller's   ->   y (1)
     y = mean over rows of -sum_j t_j log softmax(x)_j, nats
   gradient   x                  saves   its gradient: R classes floats
   cost       one exp an element; on one worker
   errors     ARG if t is NULL (not in a dry run)                      */
SMASK_API smask_tensor *smask_cross_entropy(smask_ctx *c, smask_tensor *x,
    const float *t);

/* The prediction head and its cross-entropy as one op. The logits exist for
   r rows at a time; the gradient is computed while they exist.
     x (R, D)   w (V, D)   b (V) or NULL   label (R): 0 .. V-1   ->   y (1)
     y = mean over rows of -log softmax(x w' + b)[label], nats
     r = 7 * 2^18 / V, at least 224, up to a multiple of 112, at most R
     guess (R) or NULL: receives the most likely id of each row
     hits or NULL: receives the number of rows with guess == label
     label and guess are the caller's
   gradient   x, w, b            saves   their gradients for d loss / dy = 1
   cost       2 R D V operations; with gradients 6 R D V
   memory     with gradients R D + V D + V floats until end of step; while
              it runs: up to r (V + 31) floats of logits (9 MB at V = 1024,
              11 MB at 8192); w packed, V D floats, with gradients twice;
              blocks as smask_gemm
   errors     SHAPE; RANGE if a label is not in 0 .. V-1; ARG if label is
              NULL (not in a dry run)                                  */
SMASK_API smask_tensor *smask_linear_cross_entropy(smask_ctx *c,
    smask_tensor *x, smask_tensor *w, smask_tensor *b, const int32_t *label,
    int32_t *guess, int32_t *hits);

/* InfoNCE between the first B rows, a_i, and the last B rows, b_i.
     x (2B, D): row i and row B + i are two views of one image   ->   y (1)
     l(a_i) = -log( exp(a_i.b_i/t) / sum_y exp(a_i.y/t) ), y in {b_j}; with
     all_negatives also {a_j, j != i}. y = mean of l(a_i) and l(b_i), nats
     stop_keys: no gradient through the second factor of each product
     hits or NULL: receives the number of rows, of 2B, whose own other view
     has the largest product
   t is `temperature`, without a unit. x is not normalised here: see
   smask_l2_normalize. With B = 1 and without all_negatives y is 0. The
   quotients a.b/t are float: y is exact to 2^-22 of the largest.
   gradient   x                  saves   (2B, 2B) floats
   cost       8 B B D operations; backward twice that, once if stop_keys
   memory     in backward (2B, D) floats; both products pack their factors
   errors     SHAPE if the number of rows is odd; ARG if t is not in
              0.001 .. 1000
   source     van den Oord et al. 2018 [Oord18]; El-Nouby et al., sec. 4 */
SMASK_API smask_tensor *smask_info_nce(smask_ctx *c, smask_tensor *x,
    float temperature, int all_negatives, int stop_keys, int32_t *hits);

/* Items first .. first + count - 1 of x's first dimension. No copy.
     x (B, ...)   ->   y (count, ...), in x's memory
   gradient   x
   errors     RANGE if they are not all in 0 .. B-1                    */
SMASK_API smask_tensor *smask_slice(smask_ctx *c, smask_tensor *x,
    int32_t first, int32_t count);

/* Concatenate the rows of several tensors.
     part[i] (..., D), R_i rows   ->   y (sum of R_i, D)
   gradient   all parts
   memory     y                     errors     SHAPE                   */
SMASK_API smask_tensor *smask_join(smask_ctx *c, smask_tensor *const *part,
    int32_t parts);

/* Gradient checkpointing: run fn(c, x, user), keep only x and the result, and
   run fn again in backward. This saves memory and costs time. fn must be a
   pure function of x and of parameters: it draws no random numbers. `user`
   must stay valid until the end of the step.
     x any   ->   y, shaped as fn's result
   gradient   x, and every parameter that fn uses
   cost       fn once more, in backward
   memory     y. The tensors of fn are temporary: they are freed after either
              run, so the step's peak holds those of one node only
   errors     fn's; NULL if fn returns NULL
   source     Chen et al. 2016 [Chen16]                                */
typedef smask_tensor *(*smask_fn)(smask_ctx *c, smask_tensor *x,
    const void *user);
SMASK_API smask_tensor *smask_recompute(smask_ctx *c, smask_tensor *x,
    smask_fn fn, const void *user);

/* A node with your own op.
     a, b, d: sources; d, or b and d, may be NULL
     d0 .. d3: the shape of y, 0 for unused trailing dimensions
   y->x is not cleared: op->forward must write all of it. op->backward finds
   y->source[i]->dx initialised, so it only adds; dx is NULL where no gradient
   is needed. Neither runs in a dry run. `op` is the caller's, until end of
   step.
   gradient   what op->backward adds       memory  y
   errors     ARG without op->forward; SHAPE if d0 .. d3 is not a shape; STATE
              when smask_backward reaches it and op->backward is NULL  */
SMASK_API smask_tensor *smask_user(smask_ctx *c, const smask_user_op *op,
    smask_tensor *a, smask_tensor *b, smask_tensor *d, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3);

/* ---- 9  The vision transformer ---- */

/* Make the weights: drawn from the context's generator in the order of
   v->params, or those at desc->weights. `desc` may be NULL for the defaults;
   it is copied. On error *v is all zeros.
   memory     until shutdown: 2 floats a weight (1 for inference, 0 with
              desc->weights), 288 bytes a parameter, 128 a block; with
              relative_bias T T int32_t
   errors     ARG if a field is out of range or two fields contradict each
              other (smask_detail names them); STATE in a step, or with
              desc->weights unless the context is for inference; NODES, MEMORY
   source     initial values: Bao et al. 2021 [Bao21]; sincos: He et al. 2022
              [He22]                                                   */
SMASK_API smask_result smask_vit_init(smask_ctx *c, smask_vit *v,
    const smask_vit_desc *desc);
/* Number of floats in all parameters. */
SMASK_API size_t smask_params_count(const smask_params *p);
/* A parameter by name, or NULL. Cost: one comparison a parameter. */
SMASK_API smask_param *smask_params_find(const smask_params *p,
    const char *name);
/* Set all gradients to zero; smask_adam_update also does this at its end. */
SMASK_API void smask_params_zero(smask_ctx *c, const smask_params *p);

/* images (B,C,S,S) -> rows (B N, C P P): each patch flattened as (C,P,P),
   patches in reading order. P is at least 1 and divides S. */
SMASK_API void smask_patches(const float *images, int32_t B, int32_t C,
    int32_t S, int32_t P, float *rows);
/* Pictures as bytes -> the images that all functions here take.
     bytes (B,H,W,C): 0 .. 255, channels interleaved, as decoders give them
     -> images (B,C,S,S): the square in the middle, resized to S x S with a
     triangle filter (bilinear; wider when it shrinks, so that no pixel is
     skipped), then (value / 255 - mean[c]) / std[c]
     mean, std (C): 0 .. 1; NULL: 0.5 and 0.5. Weights from elsewhere need
     those that they were trained with
   cost       about 20 C operations for each pixel of the square in the middle
              or, if that is larger, of the result                     */
SMASK_API void smask_images_from_bytes(const unsigned char *bytes, int32_t B,
    int32_t H, int32_t W, int32_t C, int32_t S, const float *mean,
    const float *std, float *images);

/* Patch embedding, without position embedding.
     images (B,C,S,S), the caller's   ->   (B, N, D)
   gradient   patch_w, patch_b
   cost       2 B N C P P D operations
   memory     (B, N, C P P) floats and y, until end of step
   errors     ARG: no model, no images (not in a dry run), or B not in
              1 .. 2^30 / (N + 2)                                      */
SMASK_API smask_tensor *smask_vit_embed(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B);
/* One block of `v`: k is an element of v->blocks or v->decoder.
     x (B, T, D)   ->   (B, T, D)
     x += attention(layernorm(x));  x += mlp(layernorm(x))
     bias: v->bias, k->bias or NULL; v->bias_index selects its rows
   Stochastic depth: with v->training and k->drop > 0, each image skips each
   of the two residual steps with probability k->drop: 2 B draws.
   gradient   x, the weights, bias
   cost       2 B T (D (4 D + 2 F) + 2 T D) operations; backward 2 to 2.5
              times that
   memory     6 D + F + 2 H + 4 floats a token, until end of step; with
              LayerScale D (D + F + 2) more
   errors     SHAPE and those of the ops
   source     Dosovitskiy et al. 2021, eq. 2-3 [Dos21]                 */
SMASK_API smask_tensor *smask_vit_block(smask_ctx *c, const smask_vit *v,
    const smask_block *k, smask_tensor *x, smask_tensor *bias);
/* All encoder blocks, without the final norm: (B, T, D) -> (B, T, D).
   Images are independent of each other, so a group of images, desc.group
   tokens, passes all blocks before the next group starts. The output of one
   layer is then still in cache when the next layer reads it.
   cost       as the blocks'; backward adds 2 B T T D operations a block to
              recompute the output of attention, which is not kept
   memory     a token L (5 D + F + 2 H + 4) + D floats, until end of step;
              with desc.recompute (L / 3 + 1) D and, once, three blocks of
              one group; after smask_record(c, 0) D and one block of one
              group                                                    */
SMASK_API smask_tensor *smask_vit_blocks(smask_ctx *c, const smask_vit *v,
    smask_tensor *x);
/* The encoder: patch embedding, position embedding, blocks, final norm.
     images (B,C,S,S), mean 0, deviation 1   ->   tokens (B, T, D)
   The class token, if any, comes first: T = N or N + 1.
   errors     as smask_vit_embed; those of the ops                     */
SMASK_API smask_tensor *smask_vit_encode(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B);
/* Decoder: visible tokens -> all tokens of each of R views, after its norm.
     a (.., S, D)   b (.., S, D) or NULL   index (R, N)   ->   (R, N, D)
     a and b come from smask_vit_blocks; the encoder's final norm and
     decoder_embed are applied here
     index: a row of a, or rows of a + a row of b, or -1 for the mask
     token; the caller's, until end of step
   cost       decoder_depth blocks on (R, N, D)
   memory     (R, N, D) floats and the blocks'; b, needed only if A and B
              see different numbers of patches, costs 3 copies of a and b
   errors     STATE without decoder; ARG if R is not in 1 .. 2^30 / (N + 2);
              SHAPE; RANGE if an index names no row                    */
SMASK_API smask_tensor *smask_vit_decode(smask_ctx *c, const smask_vit *v,
    smask_tensor *a, smask_tensor *b, const int32_t *index, int32_t R);
/* Store a second copy of the block weights in the layout that matrix products
   read. Inference gets up to a tenth faster with one image, less with many.
   Call it after loading the weights and after each change of them. smask_read
   makes the copy invalid: call it again.
   memory     at the first call, until shutdown: one float a weight of the
              blocks, with rows rounded up to whole panels
   errors     STATE in a step, or in a context that is not for inference;
              MEMORY                                                   */
SMASK_API smask_result smask_vit_pack(smask_ctx *c, smask_vit *v);
/* tokens (B, T, D) -> (B, D): mean over patches, or with desc.pool_class
   the class token.
   gradient   tokens                   memory  y
   errors     SHAPE unless tokens is 3-dimensional                     */
SMASK_API smask_tensor *smask_vit_pool(smask_ctx *c, const smask_vit *v,
    smask_tensor *tokens);
/* Frozen features of every layer; call it in a step.
     images (B,C,S,S)   ->   out (L + 1, B, D), the caller's
     out[l]: pooled output of block l, without norm, for l = 0 .. L-1;
     out[L]: pooled after the final norm
   memory     nothing is recorded: the patches, B T D floats and one block's
   errors     as smask_vit_encode                                      */
SMASK_API smask_result smask_vit_features(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B, float *out);
/* Logits of the classifier, from the pooled tokens: images (B,C,S,S) ->
   (B, classes).
   gradient   all weights of the encoder and the classifier
   errors     STATE without desc.classes; as smask_vit_encode          */
SMASK_API smask_tensor *smask_vit_classify(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B);

/* ---- 10  Tokenizers ---- */

/* A desc with the sizes of the model: image, patch, channels, vocabulary. The
   other fields are 0, the default; so is the vocabulary if the model has no
   head for visual tokens. */
SMASK_API smask_tokenizer_desc smask_tokenizer_desc_for(const smask_vit *v);
/* Allocate the codebook. PROJECTION draws it at once from the context's
   generator. PATCHES and KMEANS learn it in smask_tokenizer_fit. GIVEN has no
   codebook: set t->given to your ids. `desc` may be NULL for the defaults; it
   is copied.
   memory     until shutdown: V d floats; with euclidean V more
   errors     ARG if a field is out of range, image is not a multiple of
              patch, or half_resolution has an odd patch; STATE in a step;
              MEMORY
   source     El-Nouby et al. 2021, sec. 3.2 [ElN21]                   */
SMASK_API smask_result smask_tokenizer_init(smask_ctx *c,
    smask_tokenizer *t, const smask_tokenizer_desc *desc);
/* Learn the codebook from patches (count, d), the caller's, as
   smask_tokenizer_patches makes them. PATCHES samples V of them. KMEANS runs
   Lloyd's iterations (0: 20); a codebook vector without patches restarts at
   the patch that is farthest from its own vector.
     progress or NULL: called after each iteration with the mean squared
     distance from patches to their codebook vectors; return 0 to stop early
   PROJECTION and GIVEN do not learn: OK. In a dry run `patches` may be NULL,
   and all iterations count as one.
   cost       PATCHES: V V / 2 comparisons of patches, more if many patches
              are equal; KMEANS: 2 count V d operations an iteration
   memory     while it runs: 4 bytes a patch; KMEANS: 8 bytes a patch, 12 a
              float of the codebook, 8 a codebook vector, and a worker 1 MB,
              or 56 bytes a codebook vector
   errors     ARG if there is no codebook or no patches, count is below V,
              fewer than V patches differ from each other (PATCHES by cosine:
              and from 0), or iterations < 0; NUMERIC if a codebook vector is
              not finite; MEMORY. The codebook is then undefined
   source     Lloyd 1982 [Llo82]                                       */
SMASK_API smask_result smask_tokenizer_fit(smask_ctx *c, smask_tokenizer *t,
    const float *patches, int32_t count, int32_t iterations,
    int (*progress)(void *user, int done, int total, double distance),
    void *user);
/* The tokenizer's input: images (B,C,S,S) -> rows (B N, d), d = t->width.
   As smask_patches, with two options. half_resolution: patches of a copy of
   half the resolution (means of 2 x 2 pixels), which is not stored. centre:
   each patch minus its own mean. */
SMASK_API void smask_tokenizer_patches(const smask_tokenizer *t,
    const float *images, int32_t B, float *rows);
/* Rows per image: N. */
SMASK_API int32_t smask_tokenizer_rows(const smask_tokenizer *t);
/* The visual token of each patch: the nearest codebook vector.
     images (B,C,S,S), size as in t->desc   ->   ids (B, N): 0 .. V-1
     id = argmax_i x . e_i; the lowest i if equal. GIVEN: copies t->given
   cost       2 B N d V operations
   memory     while it runs: the codebook packed, V d floats; patches of
              some images, 1 MB or one image's; a worker 1 MB, or 56
              bytes a codebook vector
   errors     ARG if B < 1, or images or ids is NULL (not in a dry run);
              STATE if the codebook is still empty, or t->given NULL; RANGE
              if a given id is not in 0 .. V-1; MEMORY
   source     El-Nouby et al. 2021, eq. 1 [ElN21]                      */
SMASK_API smask_result smask_tokenize(smask_ctx *c, const smask_tokenizer *t,
    const float *images, int32_t B, int32_t *ids);
/* How many visual tokens are in use, and how evenly.
     ids (count): 0 .. V-1; counts (V) or NULL: receives their histogram
   memory     without counts V int32_t, while it runs
   errors     ARG if V or count is not positive; RANGE if an id is not in
              0 .. V-1; MEMORY                                         */
SMASK_API smask_result smask_token_stats(smask_ctx *c, const int32_t *ids,
    int32_t count, int32_t V, int32_t *counts, smask_token_use *stats);

/* ---- 11  Masks ---- */

/* BEiT's sampler on a grid rows x columns [Bao21]: add rectangles of
   min_area .. max_area patches until `target` patches are masked or ten tries
   in a row fail. So the count may be below `target`, never above it.
     mask (rows, columns), the caller's: 1 where masked, otherwise 0
     min_area or max_area below 1 counts as 1. A grid without rows or columns is
     left as it is
   returns    the number of masked patches
   cost       each try up to 4 draws and one pass over the rectangle
   source     Bao et al. 2021, algorithm 1 [Bao21]                     */
SMASK_API int32_t smask_mask_blocks(smask_random *r, int32_t rows,
    int32_t columns, int32_t target, int32_t min_area, int32_t max_area,
    uint8_t *mask);
/* The same, then mask random visible patches until `target` are masked.
   min_area and max_area: 8 % and 38 % of the grid when 0. */
SMASK_API void smask_mask_exact(smask_random *r, int32_t rows,
    int32_t columns, int32_t target, int32_t min_area, int32_t max_area,
    uint8_t *mask);
/* Two views A and B of each image (>>tour), drawn from the context's
   generator. Each image gets a split of its own; smask_splitmask_loss lets
   the images of a batch share one (objective.splits).
     BLOCKS, UNIFORM          A sees N - M patches, B sees M = round(ratio N);
                              each predicts the patches the other one sees
     QUARTERS, INDEPENDENT    each sees N / 4 and predicts the rest
     grid: G, N = G G; ratio in [0, 1): 0 means one half; M is 1 .. N-1
   memory     2 B N int32_t until end of step; N bytes while it runs
   errors     ARG if B < 1, grid < 2 or > 46340, ratio is not in [0, 1), or
              kind is invalid; MEMORY
   source     El-Nouby et al. 2021, sec. 3.3 [ElN21]                   */
SMASK_API smask_result smask_mask_split(smask_ctx *c, int32_t B,
    int32_t grid, smask_mask_kind kind, float ratio, smask_mask *out);
/* BEiT: one view that sees N - M patches and predicts M = round(ratio N), the
   same M in each image; ratio 0 means 75 of 196.
   memory     B N int32_t until end of step; N bytes while it runs
   errors     as smask_mask_split; ARG for QUARTERS and INDEPENDENT    */
SMASK_API smask_result smask_mask_beit(smask_ctx *c, int32_t B, int32_t grid,
    smask_mask_kind kind, float ratio, smask_mask *out);

/* ---- 12  Objectives ---- */

/* SplitMask [ElN21]: split, inpaint, match. The match compares the means of
   the encoder's outputs, with match_decoder those of the decoder's.
     images (B,C,S,S) normalised, the caller's, until end of step
     o: NULL for the defaults. out: NULL, or receives the parts of the loss;
     its pointers are valid until end of step
   returns    the loss (1): nats, weighted; pass it to smask_backward
   gradient   all weights except the classifier's
   cost       a forward pass, per image, with an MLP of 4 D:
              2 L N (12 D D + N D)            the encoder, on A and on B
              4 l N (12 D D + 2 N D)          l = decoder_depth, two views
              2 N D V                         the head: each patch once
              2 N C P P (D + V)               patch embedding (twice with
                                              view_images), tokenizer
                                              (without half_resolution)
   memory     use smask_plan: the encoder's blocks on (2B, N / 2, D), the
              decoder's on (2B, N, D), head and match, and between them about
              B N (C P P + 8 D) floats and 9 B N int32_t
   errors     STATE without decoder or head; ARG if tokenizer and model
              disagree, B is not in 1 .. 2^30 / (N + 2), the model has a class
              token or relative positions, splits is below 0 or, with the
              match, in B / 2 + 1 .. B - 1, or no_inpaint and no_match are
              both set; STATE if the codebook is empty; those of
              smask_mask_split and of the ops
   source     El-Nouby et al. 2021, sec. 4 [ElN21]                     */
SMASK_API smask_tensor *smask_splitmask_loss(smask_ctx *c,
    const smask_vit *v, const smask_tokenizer *t, const smask_objective *o,
    const float *images, int32_t B, smask_losses *out);
/* BEiT [Bao21]: mask tokens inside the encoder, loss on masked patches.
     images, o, out as above. Only mask (BLOCKS or UNIFORM), ratio and
     inpaint_weight of *o are used. out->match and match_accuracy are 0
   returns    the loss (1): nats, weighted; pass it to smask_backward
   gradient   encoder, mask token and head
   cost       a forward pass, per image, with an MLP of 4 D:
              2 L N (12 D D + 2 N D)          the encoder, all N patches
              2 M D V                         the head, masked patches only
              2 N C P P (D + V)               patch embedding, tokenizer
                                              (without half_resolution)
   memory     use smask_plan: the encoder's blocks on (B, T, D), the head
   errors     STATE without head or desc.mask_token; ARG if tokenizer and
              model disagree or B is out of range; STATE if the codebook is
              empty; those of smask_mask_beit and of the ops
   source     Bao et al. 2021, sec. 2 [Bao21]                          */
SMASK_API smask_tensor *smask_beit_loss(smask_ctx *c, const smask_vit *v,
    const smask_tokenizer *t, const smask_objective *o, const float *images,
    int32_t B, smask_losses *out);

/* ---- 13  The optimiser ---- */

/* Allocate the moments and set them to 0. `desc` may be NULL for the
   defaults; it is copied.
   memory     until shutdown: 2 floats a trained weight
   errors     STATE in a step or for inference; ARG if a setting is out of
              range; MEMORY                                            */
SMASK_API smask_result smask_adam_init(smask_ctx *c, smask_adam *a,
    const smask_adam_desc *desc, const smask_params *p);
/* The learning rate of update number `step`, counted from 0. */
SMASK_API float smask_adam_rate(const smask_adam *a, int64_t step);
/* One AdamW update with clipping; gradients are zero afterwards.
     g *= min(1, clip / |g|), first, over all parameters together
     m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g g
     w -= rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
                + weight_decay w)     t = 1, 2, ...
     rate: smask_adam_rate * layer_decay ^ (L + 1 - layer); weight_decay
     only where smask_param.decay
   cost       memory-bound: 8 floats moved a weight, and one for the norm
   memory     8 bytes per 16,384 weights, while it runs
   errors     STATE before smask_adam_init; MEMORY; NUMERIC if the gradient
              is not finite: weights and moments are unchanged, gradients
              are zero
   source     Loshchilov & Hutter 2019, algorithm 2 [LH19]             */
SMASK_API smask_result smask_adam_update(smask_ctx *c, smask_adam *a,
    const smask_params *p);
/* Start a running mean (EMA) at the current weights; decay in [0, 1).
   memory     until shutdown: 1 float a trained weight
   errors     STATE in a step or for inference; ARG if decay is out
              of range; MEMORY                                         */
SMASK_API smask_result smask_ema_init(smask_ctx *c, smask_ema *e,
    float decay, const smask_params *p);
/* mean = decay mean + (1 - decay) w, for each weight. */
SMASK_API void smask_ema_update(smask_ctx *c, smask_ema *e,
    const smask_params *p);
/* Exchange the weights and their running mean. A second call undoes it. */
SMASK_API void smask_ema_swap(smask_ctx *c, smask_ema *e,
    const smask_params *p);

/* ---- 14  Files ---- */

#ifndef SPLITMASK_NO_STDIO
/* Read from, or write to, a stream that you opened in binary mode. After
   writing, check fclose: the last bytes may still be in its buffer. NULL, as
   fopen returns it, gives ARG in the function that gets the io. */
SMASK_API smask_io smask_stdio(FILE *stream);
#endif
/* Write safetensors: the weights under timm's names, the architecture and
   `metadata` as metadata entries. `t` adds the codebook, `e` the mean, `a` the
   moments, the step and the generator: with them a resumed run continues bit
   for bit. t, a, e, metadata may be NULL. Writes nothing in a dry run.
   cost       io->write receives the header in small pieces and floats by
              the KB: let it fill a buffer     memory  none
   errors     ARG without callback or model; IO if it takes too few bytes
   source     the format [HF22]                                        */
SMASK_API smask_result smask_write(smask_ctx *c, const smask_io *io,
    const smask_vit *v, const smask_tokenizer *t, const smask_adam *a,
    const smask_ema *e, const smask_metadata *metadata,
    int32_t metadata_count);
/* Write any tensors as float32, which need not be in memory as a whole.
   write_begin writes the header; write_floats takes their floats in the order
   of `shapes`, in portions of any size; write_end checks that all have come.
   Nothing is written in a dry run. The names must differ.
     shapes (count), metadata (metadata_count) or NULL: the caller's, only
     while write_begin runs
   errors     as smask_write; STATE if there are more or fewer floats than
              `shapes` says                                            */
SMASK_API smask_result smask_write_begin(smask_ctx *c, smask_writer *w,
    const smask_io *io, const smask_shape *shapes, int32_t count,
    const smask_metadata *metadata, int32_t metadata_count);
SMASK_API smask_result smask_write_floats(smask_ctx *c, smask_writer *w,
    const float *x, size_t count);
SMASK_API smask_result smask_write_end(smask_ctx *c, smask_writer *w);
/* Read and check the header. *f uses memory of the arena: if opened in a
   step, it is valid until end of step. On error *f is all zeros and uses no
   memory.
   memory     the header's bytes, 56 and 4 for each tensor, each rounded up
              to 64. smask_plan does not count them, because a dry run opens
              no file: add them to its result
   errors     STATE in a dry run; ARG without callback; IO if the file ends
              before the header does; FORMAT if it is not a safetensors
              header, is above 100 MB, has gaps or overlaps between tensors, a
              name twice, a type whose size is unknown, or more than 65,535
              tensors; MEMORY
   source     the format [HF22]; JSON [RFC8259]                        */
SMASK_API smask_result smask_open(smask_ctx *c, smask_file *f,
    const smask_io *io);
/* A metadata value by key into out: UTF-8, NUL-terminated, cut if too long.
   Returns its full length in bytes, or -1 if there is none. */
SMASK_API int smask_read_metadata(const smask_file *f, const char *key,
    char *out, size_t bytes);
/* The architecture of the file, for smask_vit_init. It comes from the metadata
   or, without metadata, from the names and shapes of the tensors (timm's ViT
   and DeiT), with defaults for the rest. No name or shape shows the number of
   heads (here: 64 columns each), the activation (here: GELU), or a norm after
   instead of before a sublayer: if the model differs, its features are wrong.
   errors     FORMAT if it is neither, was written by a later version, a number
              is invalid, or, without metadata, the encoder holds a tensor that
              is not computed here or lacks one (smask_detail names it)   */
SMASK_API smask_result smask_read_vit_desc(smask_ctx *c, const smask_file *f,
    smask_vit_desc *desc);
/* The tokenizer of the file, for smask_tokenizer_init.
   errors     FORMAT if it has none, or a number is invalid            */
SMASK_API smask_result smask_read_tokenizer_desc(smask_ctx *c,
    const smask_file *f, smask_tokenizer_desc *desc);
/* Read the data, in one pass. Weights that only the file has are skipped.
   Weights that only the model has keep their values; *missing (may be NULL)
   receives their number. t, a, e: NULL, or receive what smask_write wrote of
   them; `a` also restores the generator. F16, BF16 and F64 are converted to
   float. Does nothing in a dry run.
   memory     while it runs: a pointer for each tensor of the file, which
              smask_plan does not count
   errors     ARG without model, or with desc.weights; STATE if it was read
              already, or lacks what t, a or e ask for; FORMAT if a shape or
              a type does not fit: up to here nothing is changed. IO if the
              file ends early, FORMAT if bytes follow the last tensor: then
              weights may be read in part                              */
SMASK_API smask_result smask_read(smask_ctx *c, smask_file *f, smask_vit *v,
    smask_tokenizer *t, smask_adam *a, smask_ema *e, int32_t *missing);
/* smask_read for some of the weights: those whose name begins with `prefix` or,
   with `except`, all others ("head.", 1: a new classifier keeps its values).
   The rest of the model is unchanged and not counted in *missing. */
SMASK_API smask_result smask_read_prefix(smask_ctx *c, smask_file *f,
    smask_vit *v, const char *prefix, int except, int32_t *missing);
/* Read one tensor by name into out (count floats, the caller's). Call it in
   the order of the file: it skips all tensors before this one.
   errors     FORMAT if it is not there, has not `count` floats, or has a type
              other than F32, F16, BF16, F64; STATE if it was already passed;
              IO                                                       */
SMASK_API smask_result smask_read_tensor(smask_ctx *c, smask_file *f,
    const char *name, float *out, size_t count);

/* ---- 15  The matrix product ---- */

typedef enum smask_trans { SMASK_NN, SMASK_NT, SMASK_TN } smask_trans;

/* C = A B, A B' or A' B; with `add`, C += the product.
     NN  A (m,k)  B (k,n)      NT  A (m,k)  B (n,k)      TN  A (k,m)  B (k,n)
     C (m,n); lda, ldb, ldc: floats from one row to the next
   `out` must be neither `a` nor `b`. All three are the caller's.
   cost       2 m n k operations
   memory     while it runs: NN, NT: up to k n floats (B packed, n rounded up
              to 32), and about 45,000 a worker; TN: up to about 240,000 a
              worker
   errors     ARG if trans is none of the three, or a leading dimension is too
              small; MEMORY
   source     Goto & van de Geijn 2008 [GG08], Van Zee 2015 [BLIS15]   */
SMASK_API smask_result smask_gemm(smask_ctx *c, smask_trans trans, size_t m,
    size_t n, size_t k, const float *a, size_t lda, const float *b,
    size_t ldb, float *out, size_t ldc, int add);

/* ---- 16  Threads ---- */

#ifdef SPLITMASK_THREADS
/* A thread pool that implements the parallel hook. */
typedef struct smask_threads { void *state; int workers; } smask_threads;
/* `workers` includes the calling thread; 0 means the number of processors, at
   most 1024. Any number of contexts may share the hook. A context that finds
   the pool busy works alone.
   memory     about 200 bytes and 24 a thread, by malloc, and their stacks
   errors     ARG if workers is not in 0 .. 1024: *pool then runs on the calling
              thread alone. MEMORY if malloc returns NULL, if a thread cannot
              be started, or, in a NO_MALLOC build, for more than one worker */
SMASK_API smask_result smask_threads_start(smask_threads *pool, int workers);
/* Stop the threads and wait for them to end. Call it after the shutdown of
   the last context that uses the hook. A second call does nothing. */
SMASK_API void smask_threads_stop(smask_threads *pool);
/* The value for desc.parallel; valid until smask_threads_stop. */
SMASK_API smask_parallel smask_threads_hook(smask_threads *pool);
#endif

#ifdef __cplusplus
}
#endif
#endif /* SPLITMASK_INCLUDED */

/* ######################################################################
   PART III                                                THE ALGORITHM

   Read it from here on, in order. The file includes itself once for each
   instruction set (see >>simd). During such a pass SMASK__PASS is defined,
   and only the section between `#ifdef SMASK__PASS` and its #endif compiles.
   ###################################################################### */
#if defined(SPLITMASK_IMPLEMENTATION) && !defined(SPLITMASK_IMPLEMENTED)
#define SPLITMASK_IMPLEMENTED
#define SMASK__BUILD
#endif

#if defined(SMASK__BUILD) && !defined(SMASK__PASS)

/* ======================================================================
   1  BASICS                                                    >>basics
   Question   What do all later chapters rely on?
   Idea       Two system headers, size arithmetic that detects overflow,
              and a sticky error: the context keeps the first error and
              the place where it happened.
   May call   nothing.           Called by   all.
   ====================================================================== */

#include <math.h>
#include <string.h>

#if defined(__GNUC__)
#define SMASK__FN __attribute__((unused)) static
#define SMASK__INLINE __attribute__((unused, always_inline)) static inline
#define SMASK__PREFETCH(p) __builtin_prefetch(p)
#else
#define SMASK__FN static
#define SMASK__INLINE static
#define SMASK__PREFETCH(p) ((void)0)
#endif

/* SPLITMASK_STATIC makes the public functions static as well. */
#ifdef SPLITMASK_STATIC
#define SMASK__DEF SMASK_API
#else
#define SMASK__DEF
#endif

/* Checked size arithmetic: on overflow return 0 and leave *out alone. */
SMASK__FN int smask__mul_sizes(size_t a, size_t b, size_t *out)
{
    if (a != 0 && b > (size_t)-1 / a) return 0;
    *out = a * b;
    return 1;
}

SMASK__FN int smask__add_sizes(size_t a, size_t b, size_t *out)
{
    if (b > (size_t)-1 - a) return 0;
    *out = a + b;
    return 1;
}

/* a b, saturated at SIZE_MAX / 16. No arena is that large, and the sum of
   four such sizes does not overflow. */
SMASK__FN size_t smask__mul_sat(size_t a, size_t b)
{
    size_t n;

    return smask__mul_sizes(a, b, &n) && n < (size_t)-1 / 16 ? n
        : (size_t)-1 / 16;
}

SMASK__INLINE size_t smask__min(size_t a, size_t b) { return a < b ? a : b; }
SMASK__INLINE size_t smask__max(size_t a, size_t b) { return a > b ? a : b; }
/* a / b rounded up; a rounded up to a multiple of b. */
SMASK__INLINE size_t smask__ceil_div(size_t a, size_t b)
{ return (a + b - 1) / b; }
SMASK__INLINE size_t smask__round_up(size_t a, size_t b)
{ return smask__ceil_div(a, b) * b; }

/* 1 if x is neither infinite nor NaN. The test reads the bits, because
   -ffast-math lets the compiler remove isnan. */
SMASK__FN int smask__finite(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

#ifdef SPLITMASK_NO_TEXT
#define SMASK__TEXT(text) ""
#else
#define SMASK__TEXT(text) text
#endif
#define SMASK__CASE(name, text) case SMASK_##name: return SMASK__TEXT(text);
SMASK__DEF const char *smask_result_text(smask_result code)
{
    switch (code) {
    SMASK_RESULTS(SMASK__CASE)
    case SMASK_RESULT_COUNT: break;
    }
    return SMASK__TEXT("unknown result");
}
#undef SMASK__CASE

SMASK__DEF smask_result smask_error(const smask_ctx *c)
{ return c->error; }

SMASK__DEF const char *smask_detail(const smask_ctx *c)
{ return c->detail; }

SMASK__DEF void smask_clear(smask_ctx *c)
{
    c->error = SMASK_OK;
    c->detail[0] = '\0';
}

SMASK__INLINE int smask__ok(const smask_ctx *c) { return c->error == SMASK_OK; }

/* These two write one part of a text and return its end, where the next part
   continues. The caller's buffer must be large enough. */
SMASK__FN char *smask__append_text(char *to, const char *text)
{
    const size_t n = strlen(text);

    memcpy(to, text, n + 1);
    return to + n;
}

SMASK__FN char *smask__append_digits(char *to, uint64_t n)
{
    if (n > 9) to = smask__append_digits(to, n / 10);
    to[0] = (char)('0' + n % 10);
    to[1] = '\0';
    return to + 1;
}

/* Append text to c->detail; what does not fit is cut off. */
SMASK__FN void smask__add_detail(smask_ctx *c, const char *text)
{
    size_t at = strlen(c->detail);

#ifdef SPLITMASK_NO_TEXT
    text = "";
#endif
    while (*text != '\0' && at + 1 < sizeof c->detail)
        c->detail[at++] = *text++;
    c->detail[at] = '\0';
}

/* Set the sticky error and begin its text with "where: ". Returns 0 and
   changes nothing if an error is set already: later errors are usually
   consequences of the first. */
SMASK__FN int smask__set_error(smask_ctx *c, smask_result code,
    const char *where)
{
    if (c->error != SMASK_OK) return 0;
    c->error = code;
    c->detail[0] = '\0';
    smask__add_detail(c, where);
    smask__add_detail(c, ": ");
    return 1;
}

SMASK__FN void smask__log_error(const smask_ctx *c)
{
    const smask_logger *to = &c->desc.logger;

    if (to->log != NULL) to->log(to->user, c->error, c->detail);
}

SMASK__FN smask_result smask__fail(smask_ctx *c, smask_result code,
    const char *where, const char *what)
{
    if (smask__set_error(c, code, where)) {
        smask__add_detail(c, what);
        smask__log_error(c);
    }
    return c->error;
}

/* ======================================================================
   2  MEMORY                                                    >>memory
   Question   Where is all data stored, and how is its size known before
              anything runs?
   Idea       The arena is one block with two ends. Data grows from the low
              end, the small structs that describe it grow from the high
              end. A step marks both ends when it begins and rewinds to the
              marks when it ends. In a dry run the low end is only a number:
              the same calls add the same sizes, so the plan is exact.

              base                                               base + size
              | weights moments | activations scratch ->  <- nodes | params |
              | kept            | the step                    step | kept   |
   May call   1.                 Called by   all later chapters.
   ====================================================================== */

#define SMASK__ALIGN ((size_t)64)        /* cache line and 512-bit vector */

#ifndef SPLITMASK_NO_MALLOC
#include <stdlib.h>
SMASK__FN void *smask__default_alloc(size_t bytes) { return malloc(bytes); }
SMASK__FN void smask__default_release(void *block) { free(block); }
#else
SMASK__FN void *smask__default_alloc(size_t bytes)
{
    (void)bytes;
    return NULL;
}
SMASK__FN void smask__default_release(void *block) { (void)block; }
#endif

/* count * size bytes from the low end, 64-byte aligned, not initialised. In
   a dry run only the size is counted and the result is NULL. */
SMASK__FN void *smask__data(smask_ctx *c, size_t count, size_t size)
{
    size_t bytes, end;

    if (!smask__ok(c)) return NULL;
    if (!smask__mul_sizes(count, size, &bytes)
        || !smask__add_sizes(bytes, SMASK__ALIGN - 1, &end)
        || !smask__add_sizes(c->low, end & ~(SMASK__ALIGN - 1), &end)
        || end > (size_t)-1 / 4) {
        smask__fail(c, SMASK_MEMORY, "arena",
            "the size overflows; check the shapes");
        return NULL;
    }
    if (!c->dry && end > c->size - c->high) {
        smask__fail(c, SMASK_MEMORY, "arena",
            "full; set memory_size to what smask_plan reports");
        return NULL;
    }
    void *p = c->dry ? NULL : c->base + c->low;
    c->low = end;
    if (c->low + c->high > c->peak) c->peak = c->low + c->high;
    return p;
}

SMASK__FN float *smask__floats(smask_ctx *c, size_t count)
{ return (float *)smask__data(c, count, sizeof(float)); }

SMASK__FN int32_t *smask__indices(smask_ctx *c, size_t count)
{ return (int32_t *)smask__data(c, count, sizeof(int32_t)); }

/* Structs and lists of pointers from the high end, zeroed. They take real
   memory even in a dry run, because the code follows their pointers. The low
   end of a dry run has no limit, so it is not compared with the high end. */
SMASK__FN void *smask__structs(smask_ctx *c, size_t count, size_t size)
{
    size_t bytes, high;

    if (!smask__ok(c)) return NULL;
    if (!smask__mul_sizes(count, size, &bytes)
        || !smask__add_sizes(bytes, SMASK__ALIGN - 1, &bytes)
        || !smask__add_sizes(c->high, bytes & ~(SMASK__ALIGN - 1), &high)
        || high > c->size || (!c->dry && c->low > c->size - high)) {
        smask__fail(c, SMASK_MEMORY, "arena", c->dry
            ? "the dry run's nodes do not fit; raise memory_size"
            : "full; set memory_size to what smask_plan reports");
        return NULL;
    }
    c->high = high;
    if (c->low + c->high > c->peak) c->peak = c->low + c->high;
    return memset(c->base + c->size - high, 0, bytes & ~(SMASK__ALIGN - 1));
}

/* Scratch data lives from a mark to the rewind: after smask__rewind it must not
   be used. A debug build overwrites it with 0xee, so that such use shows. */
SMASK__INLINE size_t smask__mark(const smask_ctx *c) { return c->low; }

SMASK__FN void smask__rewind(smask_ctx *c, size_t mark)
{
#ifdef SPLITMASK_DEBUG
    if (!c->dry && c->low > mark)
        memset(c->base + mark, 0xee, c->low - mark);
#endif
    c->low = mark;
}

SMASK__DEF void *smask_alloc(smask_ctx *c, size_t bytes)
{
    void *p = smask__data(c, bytes, 1);

    return p != NULL ? memset(p, 0, bytes) : NULL;
}

SMASK__DEF int smask_is_dry(const smask_ctx *c)
{ return c->dry; }

/* Run fn for the pieces 0 .. count - 1, through the parallel hook if there is
   one. Does nothing after an error or in a dry run. A single piece runs on the
   calling thread: waking a worker would cost more than it saves. */
SMASK__FN void smask__run(smask_ctx *c, size_t count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    const smask_parallel *p = &c->desc.parallel;

    if (c->dry || !smask__ok(c)) return;
    if (p->run != NULL && count > 1)
        p->run(p->user, (int)count, fn, arg);
    else
        for (size_t i = 0; i < count; i++) fn(arg, (int)i, 0);
}

SMASK__INLINE size_t smask__workers(const smask_ctx *c)
{
    return c->desc.parallel.run != NULL && c->desc.parallel.workers > 1
        ? (size_t)c->desc.parallel.workers : 1;
}

/* ======================================================================
   3  RANDOM NUMBERS                                            >>random
   Question   How can a run be repeated bit for bit on another machine?
   Idea       PCG32: a 64-bit linear congruential generator. A permutation
              of its output hides the regular patterns of the low bits. The
              state has 16 bytes. All numbers are drawn on the calling
              thread, in program order, so threads do not change them.
   May call   1.                 Called by   6, 7, 9 to 11.
   Source     O'Neill 2014, see >>sources [ONe14].
   ====================================================================== */

SMASK__DEF uint32_t smask_next(smask_random *r)
{
    const uint64_t old = r->state;
    const uint32_t mixed = (uint32_t)(((old >> 18) ^ old) >> 27);
    const uint32_t turn = (uint32_t)(old >> 59);

    r->state = old * 6364136223846793005u + r->stream;
    return mixed >> turn | mixed << ((0u - turn) & 31);
}

SMASK__DEF void smask_seed(smask_random *r, uint64_t seed, uint64_t stream)
{
    r->state = 0;
    r->stream = stream << 1 | 1;         /* the increment must be odd      */
    smask_next(r);
    r->state += seed;
    smask_next(r);
}

SMASK__DEF float smask_uniform(smask_random *r)
{ return (float)(smask_next(r) >> 8) * (1.0f / 16777216); }

/* x % n is uniform only over a whole number of intervals of n. So the lowest
   2^32 mod n values of x are rejected and drawn again. n = 0 returns 0. */
SMASK__DEF uint32_t smask_below(smask_random *r, uint32_t n)
{
    const uint32_t uneven = n != 0 ? (0u - n) % n : 0;
    uint32_t x;

    do x = smask_next(r); while (x < uneven);
    return n != 0 ? x % n : 0;
}

/* Box-Muller: one uniform number gives the radius, another one the angle. The
   second normal number that they yield is not kept: no hidden state. */
SMASK__DEF float smask_normal(smask_random *r)
{
    const float u = 1 - smask_uniform(r);          /* (0, 1]: log is finite */
    const float angle = 6.28318531f * smask_uniform(r);

    return sqrtf(-2 * logf(u)) * cosf(angle);
}

SMASK__DEF void smask_shuffle(smask_random *r, int32_t *items, int32_t count)
{
    for (int32_t i = count; i > 1; i--) {
        const uint32_t j = smask_below(r, (uint32_t)i);
        const int32_t keep = items[i - 1];
        items[i - 1] = items[j];
        items[j] = keep;
    }
}

/* ======================================================================
   4  WHAT THE ENGINE COMPUTES                                   >>engine
   Question   What does the algorithm ask of the machine?
   Idea       A few loops over arrays and one matrix product. This page is
              the contract: what each function computes, as a formula. Part
              IV, the engine, defines them; it may be read last or never.
              `isa` is the context's instruction set. Pointers need no
              alignment. Arrays do not overlap unless the comment allows it.
   May call   1 to 3.            Called by   5, 6, 8, 10, 13, 15 to 17.
   ====================================================================== */

/* ---- Instruction sets ---- */

/* 1 if this build and this processor have it. */
SMASK__FN int smask__isa_available(smask_isa isa);

/* The instruction set of the loops if desc.isa is `isa`: AUTO is the best one,
   BF16 is AVX512, because only products round to bfloat16. */
SMASK__FN smask_isa smask__isa_resolve(smask_isa isa);
SMASK__FN int smask__isa_is_bf16(smask_isa isa);

/* ---- Loops over arrays of n floats ---- */

/* y += x     y += a x     y = a x (y may be x)     return the sum of x y */
SMASK__FN void smask__add(int isa, float *y, const float *x, size_t n);
SMASK__FN void smask__axpy(int isa, float *y, float a, const float *x,
    size_t n);
SMASK__FN void smask__scale(int isa, float *y, float a, const float *x,
    size_t n);
SMASK__FN float smask__dot(int isa, const float *x, const float *y, size_t n);

/* y[j] += sum_i x[i, j]: x (rows, n), row stride ld. */
SMASK__FN void smask__sum_rows(int isa, float *y, const float *x, size_t ld,
    size_t rows, size_t n);

/* *sum = the sum of x - about, *squares = the sum of (x - about)^2. */
SMASK__FN void smask__moments(int isa, const float *x, size_t n, float about,
    float *sum, float *squares);

/* Return the maximum of x. */
SMASK__FN float smask__row_max(int isa, const float *x, size_t n);

/* y = exp(a (x - top)), *sum = its sum; top is the maximum of x, a >= 0. y may
   be x. */
SMASK__FN void smask__exp_row(int isa, float *y, const float *x, float a,
    float top, size_t n, float *sum);

/* y = gelu(x) = x Phi(x), Phi the normal distribution. y may be x. */
SMASK__FN void smask__gelu(int isa, float *y, const float *x, size_t n);

/* dx = dy gelu'(x), or dx += if `add`. dx may be x. */
SMASK__FN void smask__gelu_bwd(int isa, float *dx, const float *dy,
    const float *x, size_t n, int add);

/* One row of LayerNorm: y = z w + b with z = (x - mean) rstd. */
SMASK__FN void smask__norm_row(int isa, float *y, const float *x, float mean,
    float rstd, const float *w, const float *b, size_t n);

/* Its derivative. Rows share the gradients of w and b, so these are added to.
     dw += dy z        db += dy
     dx  = rstd (w dy - mean(w dy) - z mean(w dy z))      (+= if `add`)     */
SMASK__FN void smask__norm_row_bwd(int isa, float *dx, const float *dy,
    const float *x, float mean, float rstd, const float *w, float *dw,
    float *db, size_t n, int add);

/* LayerNorm statistics of each row of x (rows, n), row stride ld:
     stat[2 i] = mean       stat[2 i + 1] = rstd = 1 / sqrt(var + 1e-6)     */
SMASK__FN void smask__norm_stat(int isa, const float *x, size_t ld,
    size_t rows, size_t n, float *stat);

/* Softmax over each column of s (rows, columns), row stride ld, in place:
     e = exp(scale s + bias - top)    inverse[j] = 1 / sum of e in column j
     top[j] = max of scale s + bias in column j
   bias is (rows, columns), row stride b_ld, or NULL. e is not divided by its
   sum: the caller multiplies by `inverse`. */
SMASK__FN void smask__softmax(int isa, float *s, size_t ld, size_t rows,
    size_t columns, float scale, const float *bias, size_t b_ld, float *top,
    float *inverse);

/* Its derivative, in place. In: s holds the recomputed scores, dp the gradient
   of p. Out: s holds p, dp holds ds, the gradient of s.
     p = exp(scale s + bias - top) inverse     d = sum of p dp in a column
     ds = scale p (dp - d)                     dbias += p (dp - d)          */
SMASK__FN void smask__softmax_bwd(int isa, float *s, float *dp, size_t ld,
    size_t rows, size_t columns, float scale, const float *bias, size_t b_ld,
    const float *top, const float *inverse, float *dbias);

/* AdamW on n weights, with h = clip g. Sets g to 0 in the same pass, while it
   is in the cache. decay = rate * weight_decay, or 0.
     m = beta1 m + (1 - beta1) h       v = beta2 v + (1 - beta2) h^2
     w = (1 - decay) w - rate correct1 m / (sqrt(correct2 v) + eps)         */
typedef struct smask__adam_step {
    float rate, beta1, beta2, eps, decay, clip, correct1, correct2;
} smask__adam_step;
SMASK__FN void smask__adam(int isa, float *w, float *g, float *m, float *v,
    size_t n, const smask__adam_step *s);

/* ---- Operands of a product ---- */

/* A matrix with a lens, an operand of a product. A lens is a fused prologue:
   the product applies the layer before a linear layer while it fetches the
   operand, so the result of that layer is never stored.
     PLAIN  x      KEEP  keep[row / group] * x      GELU  gelu(x)
     NORM   (x - mean[row]) * rstd[row] * w + b     stat: mean, rstd by row */
typedef enum smask__lens { SMASK__PLAIN, SMASK__KEEP, SMASK__GELU,
    SMASK__NORM } smask__lens;
typedef struct smask__operand {
    const float *x;
    size_t ld;                       /* floats from one row to the next    */
    smask__lens lens;
    const float *stat, *w, *b;       /* NORM                               */
    const float *keep;               /* KEEP                               */
    size_t group;                    /* KEEP: rows that share a factor     */
} smask__operand;

SMASK__FN smask__operand smask__operand_of(const float *x, size_t ld)
{
    const smask__operand v = { x, ld, SMASK__PLAIN, NULL, NULL, NULL, NULL, 0 };

    return v;
}

/* Copy rows row .. row + rows - 1 and columns column .. column + columns - 1
   of an operand, with its lens applied, into panels `width` columns wide:
     (i, j) -> to[j / width * stride + i * pitch + j % width]
   Missing columns of the last panel become 0. Whole vectors are stored even if
   width is not a multiple of a vector: the excess lies where the next row is
   written afterwards, so `to` must have space for 16 floats behind the last
   row. If `paired`, two rows become one row of bf16 pairs (an odd last row is
   paired with zeros), and the source may then start at `to`. */
SMASK__FN void smask__fetch(int isa, const smask__operand *v, size_t row,
    size_t rows, size_t column, size_t columns, float *to, size_t pitch,
    size_t width, size_t stride, int paired);

/* Transpose x (columns, k), row stride ld, into one panel nr columns wide:
   to[p * nr + i] = x[i, p], and 0 for i >= columns. */
SMASK__FN void smask__transpose(int isa, const float *x, size_t ld,
    size_t columns, size_t k, float *to, size_t nr);

/* Two columns of x (rows, columns) become one column of bf16 pairs. An odd last
   column is paired with zeros. `to` may be x if pitch <= ld. */
SMASK__FN void smask__pair_columns(int isa, const float *x, size_t ld,
    size_t rows, size_t columns, float *to, size_t pitch);

/* Can a product read a right factor, `columns` wide, in place? */
SMASK__FN int smask__in_place(const smask__operand *v, size_t columns,
    size_t nr);

/* ---- The matrix product ---- */

/* Upper limit of the rows in a piece. */
#define SMASK__MC ((size_t)112)

/* A product and the work fused with it. Unused fields are zero.
     C = r + keep[row / group] * (A B + bias); with `add`: (C + A B + bias)
   Tile: a few rows and columns of C in registers. Panel: columns of B, a tile
   wide, stored contiguously; to pack is to make panels. See >>gemm. */
typedef struct smask__product {
    /* the result: C (m,n) = A B */
    size_t m, n, k;
    smask__operand a;                /* (m,k); for A' B: (k,m)             */
    smask__operand b;                /* (k,n); b_transposed: (n,k)         */
    int b_transposed;
    float *c;
    size_t c_ld;
    int own;                         /* rows of C live until `after` ends  */
    int add;                         /* C += A B                           */
    const float *bias, *r;           /* as in smask__block_product         */
    size_t r_ld;
    const float *keep;               /* one factor per `group` rows of C   */
    size_t group;
    float *sums;                     /* A' B: += column sums of A, (m)     */
    float *stat;                     /* NORM: computed here, before use    */
    /* called when rows row .. row + rows - 1 are complete, stored at `c` */
    void (*after)(void *arg, size_t row, size_t rows, float *c, int piece);
    void *arg;
    /* how it is computed */
    int isa;
    int exact;                       /* use floats even if bf16 is on      */
    int paired;                      /* convert operands to bf16 pairs     */
    size_t mr, nr, kc, mc, nc;       /* tile; block of k, of rows, columns */
    float *packed;                   /* B in panels; NULL: B in place      */
    int ready;                       /* `packed` is already filled         */
    float *work;                     /* one buffer per worker              */
    size_t work_floats;              /* size of each                       */
} smask__product;

SMASK__FN smask__product smask__product_of(size_t m, size_t n, size_t k,
    float *c, size_t c_ld)
{
    smask__product p;

    memset(&p, 0, sizeof p);
    p.m = m;
    p.n = n;
    p.k = k;
    p.c = c;
    p.c_ld = c_ld;
    return p;
}

/* C = A B, from plan to result. */
SMASK__FN void smask__product_do(smask_ctx *c, smask__product *p);

/* The same in three steps: set the sizes of tiles and pieces; pack B, unless it
   is `ready` or can be read in place; multiply. A caller may reuse what the
   first two prepared. smask__pack_now packs without the test. */
SMASK__FN void smask__product_plan(const smask_ctx *c, smask__product *p);
SMASK__FN void smask__pack(smask_ctx *c, smask__product *p);
SMASK__FN void smask__pack_now(smask_ctx *c, smask__product *p);
SMASK__FN void smask__product_nn(smask_ctx *c, smask__product *p);

/* The number of pieces in which a planned product calls `after`. */
SMASK__FN size_t smask__pieces_down(const smask__product *p);

/* C = A' B, from plan to result. */
SMASK__FN void smask__product_tn(smask_ctx *c, smask__product *p);

/* ---- The block product: one thread, operands in the cache ---- */

/* A block product: C (m,n) = r + scale[row] * (A B + bias), with `add`:
   (C + A B + bias). See >>gemm for the layout. */
typedef struct smask__block_product {
    size_t m, n, k;
    const float *a;                  /* rows: a[i * a_ld + p]; a_transposed:
                                        groups of rows, a[p * a_ld + i]    */
    size_t a_ld, a_group;            /* floats from group to group         */
    int a_transposed;
    const float *b;                  /* panels of columns: b[p * b_ld + j] */
    size_t b_ld, b_panel;            /* floats from panel to panel         */
    float *c;
    size_t c_ld;
    int paired;                      /* 1: bf16 pairs, two values of k     */
    int add;                         /* 1: C += A B                        */
    const float *bias;               /* (n)                                */
    const float *scale;              /* (m)                                */
    const float *r;                  /* (m,n), added last                  */
    size_t r_ld;
} smask__block_product;
SMASK__FN void smask__multiply_block(int isa, const smask__block_product *t);

/* The same without the CBLAS hook. */
SMASK__FN void smask__multiply_tiles(int isa, const smask__block_product *t);

/* Rows and columns of a tile of C. */
SMASK__FN size_t smask__tile_rows(int isa);
SMASK__FN size_t smask__tile_columns(int isa);

/* ======================================================================
   5  KERNELS                                                  >>kernels
   Question   What are the functions a transformer is made of, and what
              are their derivatives?
   Idea       Functions come in pairs. x_fwd computes y. x_bwd takes dy, the
              gradient of the loss with respect to y, and computes the
              gradients with respect to x and the weights. Each backward
              function quotes the forward formula. There are no tensors
              yet, only pointers and sizes. Work is cut into pieces that
              depend on the sizes alone, and the partial sums of pieces are
              added in a fixed order, so the number of threads never
              changes a bit of the result.
   May call   1 to 4.            Called by   7, 8, 10, 13.
   Source     Backward of matrix products and softmax: any textbook;
              LayerNorm [Ba16]; GELU [HG16]; attention [Vas17], recomputed
              as in [Dao22]; InfoNCE [Oord18].
   ====================================================================== */

/* Floats per piece of a memory-bound loop: 64 KB are enough work to pay for
   waking a thread. */
#define SMASK__PIECE ((size_t)16384)

/* Rows per piece: whole rows, about SMASK__PIECE floats. */
SMASK__FN size_t smask__piece_rows(size_t rows, size_t columns)
{
    return smask__min(smask__max(rows, 1),
        smask__max(1, SMASK__PIECE / smask__max(columns, 1)));
}

/* The first index of the maximum of x; *top is its value. Vectors find the
   maximum of each block of 128, and only the best block is searched. */
SMASK__FN size_t smask__argmax(int isa, const float *x, size_t n, float *top)
{
    size_t at = 0;
    float best = 0;

    for (size_t i = 0; i < n; i += 128) {
        const float block = smask__row_max(isa, x + i, smask__min(n - i, 128));
        if (i > 0 && !(block > best)) continue;
        best = block;
        at = i;
    }
    while (at + 1 < n && x[at] < best) at++;
    *top = best;
    return at;
}

/* ---- Elementwise loops, by kind:
     AXPY y += a x     SCALE y = a x     MUL y += x z
     GELU y = gelu(x)                    GELU_BWD y += x gelu'(z) ---- */

typedef enum smask__list_kind { SMASK__LIST_AXPY, SMASK__LIST_SCALE,
    SMASK__LIST_MUL, SMASK__LIST_GELU, SMASK__LIST_GELU_BWD } smask__list_kind;
typedef struct smask__list {
    smask__list_kind kind;
    int isa;
    float *y;
    const float *x, *z;
    float a;
    size_t count;
} smask__list;

SMASK__FN void smask__list_piece(void *arg, int piece, int worker)
{
    const smask__list *l = (const smask__list *)arg;
    const size_t at = (size_t)piece * SMASK__PIECE;
    const size_t n = smask__min(l->count - at, SMASK__PIECE);
    float *y = l->y + at;
    const float *x = l->x + at;

    (void)worker;
    switch (l->kind) {
    case SMASK__LIST_AXPY: smask__axpy(l->isa, y, l->a, x, n); break;
    case SMASK__LIST_SCALE:
        smask__scale(l->isa, y, l->a, x, n);
        break;
    case SMASK__LIST_MUL:
        for (size_t i = 0; i < n; i++) y[i] += x[i] * l->z[at + i];
        break;
    case SMASK__LIST_GELU: smask__gelu(l->isa, y, x, n); break;
    case SMASK__LIST_GELU_BWD:           /* y = dx, x = dy, z = x          */
        smask__gelu_bwd(l->isa, y, x, l->z + at, n, 1);
        break;
    }
}

SMASK__FN void smask__list_do(smask_ctx *c, smask__list_kind kind, float *y,
    float a, const float *x, const float *z, size_t count)
{
    smask__list l;

    l.kind = kind;
    l.isa = c->isa;
    l.y = y;
    l.x = x;
    l.z = z;
    l.a = a;
    l.count = count;
    smask__run(c, smask__ceil_div(count, SMASK__PIECE), smask__list_piece, &l);
}

/* ---- Linear, fused with a lens before it and a residual after it:
     y = r + keep * (f(x) w' + b)      f: identity, LayerNorm or GELU     */

typedef struct smask__linear {
    size_t rows, in, out;            /* w is (out, in)                     */
    const float *x, *w, *b;
    smask__lens lens;                /* PLAIN, NORM or GELU                */
    float *stat;                     /* NORM: mean, 1 / std by row         */
    const float *ln_w, *ln_b;
    const float *r, *keep;           /* residual; stochastic depth factors */
    size_t group;                    /* rows that share a keep factor      */
    int ready;                       /* `panels` holds w packed            */
    float *panels;
} smask__linear;

SMASK__FN smask__operand smask__linear_input(const smask__linear *l)
{
    smask__operand v = smask__operand_of(l->x, l->in);

    v.lens = l->lens;
    v.stat = l->stat;
    v.w = l->ln_w;
    v.b = l->ln_b;
    return v;
}

SMASK__FN void smask__linear_fwd(smask_ctx *c, const smask__linear *l,
    float *y)
{
    smask__product p = smask__product_of(l->rows, l->out, l->in, y, l->out);

    p.a = smask__linear_input(l);
    p.stat = l->lens == SMASK__NORM ? l->stat : NULL;
    p.b = smask__operand_of(l->w, l->in);
    p.b_transposed = 1;                              /* w is (out,in)      */
    p.ready = l->ready;
    p.packed = l->panels;
    p.bias = l->b;
    p.r = l->r;
    p.r_ld = l->out;
    p.keep = l->keep;
    p.group = l->group;
    smask__product_do(c, &p);
}

typedef struct smask__lens_after {
    const smask__linear *l;
    float *dx, *partial;             /* partial: (pieces, 2, in)           */
    int add, isa;
} smask__lens_after;

/* Backpropagation through the lens. The product has just computed df, the
   gradient of f(x), for some rows, and df is still in the cache. So `after`
   turns it into dx at once, and df is never stored as a whole. For GELU, dx may
   be the memory of x. */
SMASK__FN void smask__gelu_after(void *arg, size_t row, size_t rows,
    float *df, int piece)
{
    const smask__lens_after *a = (const smask__lens_after *)arg;
    const size_t at = row * a->l->in;

    (void)piece;
    smask__gelu_bwd(a->isa, a->dx + at, df, a->l->x + at, rows * a->l->in,
        a->add);
}

SMASK__FN void smask__norm_after(void *arg, size_t row, size_t rows,
    float *df, int piece)
{
    const smask__lens_after *a = (const smask__lens_after *)arg;
    const size_t D = a->l->in;
    float *dw = a->partial + 2 * (size_t)piece * D, *db = dw + D;

    memset(dw, 0, 2 * D * sizeof *dw);
    for (size_t i = row; i < row + rows; i++, df += D)
        smask__norm_row_bwd(a->isa, a->dx + i * D, df, a->l->x + i * D,
            a->l->stat[2 * i], a->l->stat[2 * i + 1], a->l->ln_w, dw, db, D,
            a->add);
}

/* Add the partial sums that pieces left in part (parts, 2, count), in order:
     first[i] += sum_q part[q,0,i]      second[i] += sum_q part[q,1,i]    */
SMASK__FN void smask__add_parts(smask_ctx *c, const float *part, size_t parts,
    size_t count, float *first, float *second)
{
    if (c->dry || !smask__ok(c)) return;
    for (size_t q = 0; q < parts; q++, part += 2 * count) {
        if (first != NULL)
            smask__add(c->isa, first, part, count);
        if (second != NULL)
            smask__add(c->isa, second, part + count, count);
    }
}

/* Which gradients to compute, and whether dx is added to or overwritten. A NULL
   pointer cannot say it, because all pointers are NULL in a dry run. */
typedef struct smask__grads_wanted {
    int w, b, x, norm, dx_add;
} smask__grads_wanted;

/* Backpropagation through y = r + keep * (f(x) w' + b), without the residual r:
     dw += (keep dy)' f(x)      db += sum over rows of keep dy
     df  = (keep dy) w          dx = df, df gelu'(x), or by norm_row_bwd
                                (+= if wanted->dx_add)
   dw, db, dln_w and dln_b are always added to; all except dw may be NULL. dw
   is computed before dx, because for GELU dx may overwrite x. */
SMASK__FN void smask__linear_bwd(smask_ctx *c, const smask__linear *l,
    const smask__grads_wanted *wanted, const float *dy, float *dw, float *db,
    float *dx, float *dln_w, float *dln_b)
{
    const size_t mark = smask__mark(c);
    smask__operand v = smask__operand_of(dy, l->out);
    smask__product p;
    smask__lens_after after;
    size_t pieces;

    if (l->keep != NULL) {
        v.lens = SMASK__KEEP;
        v.keep = l->keep;
        v.group = l->group;
    }
    if (wanted->w || wanted->b) {    /* the product for dw also sums db    */
        p = smask__product_of(l->out, l->in, l->rows, wanted->w ? dw
            : smask__floats(c, l->out * l->in), l->in);
        p.a = v;
        p.b = smask__linear_input(l);
        p.add = wanted->w;
        p.sums = db;
        smask__product_tn(c, &p);
    }
    if (!wanted->x && !wanted->norm) {
        smask__rewind(c, mark);
        return;
    }
    p = smask__product_of(l->rows, l->in, l->out, dx, l->in);
    p.a = v;
    p.b = smask__operand_of(l->w, l->in);            /* (out,in): k rows   */
    p.add = wanted->dx_add;
    if (l->lens != SMASK__PLAIN) {
        p.own = 1;                   /* df stays in the worker's buffer    */
        p.add = 0;
        p.arg = &after;
    }
    smask__product_plan(c, &p);
    pieces = smask__pieces_down(&p);
    after.l = l;
    after.dx = dx;
    after.add = wanted->dx_add;
    after.isa = c->isa;
    if (l->lens == SMASK__NORM) {
        p.after = smask__norm_after;
        if (!wanted->x) after.dx = smask__floats(c, l->rows * l->in);
        after.partial = smask__floats(c, pieces * 2 * l->in);
    } else if (l->lens == SMASK__GELU) {
        p.after = smask__gelu_after;
    }
    smask__pack(c, &p);
    smask__product_nn(c, &p);
    if (l->lens == SMASK__NORM)
        smask__add_parts(c, after.partial, pieces, l->in, dln_w, dln_b);
    smask__rewind(c, mark);
}

/* ---- LayerNorm as a separate op ---- */

typedef struct smask__norm {
    size_t rows, D, piece;
    const float *x, *w, *b, *dy;
    float *y, *stat, *dx, *partial;
    int add, isa;
} smask__norm;

SMASK__FN void smask__norm_piece(void *arg, int piece, int worker)
{
    const smask__norm *a = (const smask__norm *)arg;
    const size_t D = a->D;
    size_t i = (size_t)piece * a->piece;
    const size_t end = smask__min(a->rows, i + a->piece);
    float *dw = a->partial != NULL
        ? a->partial + 2 * (size_t)piece * D : NULL;

    (void)worker;
    if (a->dy == NULL)
        smask__norm_stat(a->isa, a->x + i * D, D, end - i, D,
            a->stat + 2 * i);
    else
        memset(dw, 0, 2 * D * sizeof *dw);
    for (; i < end; i++) {
        if (a->dy == NULL)
            smask__norm_row(a->isa, a->y + i * D, a->x + i * D, a->stat[2 * i],
                a->stat[2 * i + 1], a->w, a->b, D);
        else
            smask__norm_row_bwd(a->isa, a->dx + i * D, a->dy + i * D,
                a->x + i * D, a->stat[2 * i], a->stat[2 * i + 1], a->w, dw,
                dw + D, D, a->add);
    }
}

/* LayerNorm forward or, if `back`, backward. dw and db are added to. If dx is
   not `wanted`, it goes to a scratch buffer. */
SMASK__FN void smask__norm_do(smask_ctx *c, smask__norm *a, int back,
    int wanted, float *dw, float *db)
{
    const size_t mark = smask__mark(c);
    size_t pieces;

    a->piece = smask__piece_rows(a->rows, a->D);
    a->isa = c->isa;
    pieces = smask__ceil_div(a->rows, a->piece);
    if (back && !wanted) a->dx = smask__floats(c, a->rows * a->D);
    if (back) a->partial = smask__floats(c, pieces * 2 * a->D);
    smask__run(c, pieces, smask__norm_piece, a);
    if (back) smask__add_parts(c, a->partial, pieces, a->D, dw, db);
    smask__rewind(c, mark);
}

/* ---- Attention, one head of one image at a time:
     S = q k' / sqrt(K) + bias     P = softmax(S), row by row     y = P v
   Each token has three vectors, side by side in qkv: a query q, a key k and a
   value v. Token i receives the mean of all v_j, weighted by how well q_i
   matches k_j. The D columns are cut into H heads of K columns. Heads work
   independently, so that a token can attend to H patterns at once. All
   values of one head stay in the worker's cache. S and P are stored
   transposed, one column per query: softmax then runs down as many columns as
   a vector has elements, and no sum crosses the elements of a vector. Forward
   saves the maximum of each row of S and 1 / sum exp. Backward recomputes P
   from them.                                                             */

typedef struct smask__attention {
    size_t B, N, D, H, K;
    const float *qkv;                /* (B,N,3D)                           */
    const float *bias;               /* (H,N,N), transposed, or NULL       */
    float *y, *stat;                 /* (B,N,D)   (B,H,2,N) or NULL        */
    /* backward */
    const float *dy;
    float *dqkv, *dbias;             /* dbias (H,N,N), transposed, +=      */
    int add, again;                  /* dqkv +=; recompute y, too          */
    /* one buffer per worker, of `floats` floats */
    int isa;
    size_t mr, nr, s_ld, n_up, k_up, floats;
    float *work;
} smask__attention;

SMASK__FN size_t smask__attention_plan(const smask_ctx *c,
    smask__attention *a, int backward)
{
    a->isa = c->isa;
#ifdef SPLITMASK_CBLAS
    a->mr = a->N;
    a->nr = 0;
#else
    a->mr = smask__tile_rows(c->isa);
    a->nr = smask__tile_columns(c->isa);
#endif
    a->n_up = smask__round_up(a->N, a->nr > 0 ? a->nr : 1);
    a->k_up = smask__round_up(a->K, a->nr > 0 ? a->nr : 1);
    a->s_ld = smask__round_up(a->N, 16) + 16;
    a->floats = a->K * a->n_up + a->N * a->k_up + 2 * a->N
        + smask__mul_sat(a->N, a->s_ld);
    if (backward)
        a->floats += a->K * a->n_up + smask__mul_sat(a->N, a->s_ld);
    a->floats = smask__round_up(a->floats, 16);
    return smask__mul_sat(smask__workers(c), a->floats);
}

/* A right factor in panels: floats from row to row and from panel to panel. */
typedef struct smask__factor {
    const float *b;
    size_t ld, panel;
} smask__factor;

/* Make x (N,K), with row stride ld, the right factor, or x' if `transposed`. x
   is packed unless tiles can read it in place. */
SMASK__FN smask__factor smask__attention_pack(const smask__attention *a,
    const float *x, size_t ld, int transposed, float *to)
{
    const size_t columns = transposed ? a->N : a->K;
    const size_t k = transposed ? a->K : a->N;
    const size_t nr = a->nr > 0 ? a->nr : columns;
    const smask__operand v = smask__operand_of(x, ld);
    smask__factor f;

    f.b = to;
    f.ld = nr;
    f.panel = nr * k;
    if (!transposed && smask__in_place(&v, columns, nr)) {
        f.b = x;
        f.ld = ld;
        f.panel = nr;
        return f;
    }
    if (!transposed) {
        smask__fetch(a->isa, &v, 0, k, 0, columns, to, nr, nr, nr * k, 0);
        return f;
    }
    for (size_t j = 0; j < columns; j += nr, to += nr * k)
        smask__transpose(a->isa, x + j * ld, ld, smask__min(columns - j, nr),
            k, to, nr);
    return f;
}

/* C (N,n) = A B with A = x (N,k), or A' B with A = x (k,N) if a_transposed. Row
   i of C is multiplied by scale[i] unless `scale` is NULL. */
SMASK__FN void smask__attention_times(const smask__attention *a,
    const float *x, size_t ld, int a_transposed, smask__factor f, size_t n,
    size_t k, float *out, size_t out_ld, int add, const float *scale)
{
    smask__block_product t;

    memset(&t, 0, sizeof t);
    t.m = a->N;
    t.n = n;
    t.k = k;
    t.a = x;
    t.a_ld = ld;
    t.a_transposed = a_transposed;
    t.a_group = a_transposed ? a->mr : a->mr * ld;
    t.b = f.b;
    t.b_ld = f.ld;
    t.b_panel = f.panel;
    t.c = out;
    t.c_ld = out_ld;
    t.add = add;
    t.scale = scale;
    smask__multiply_block(a->isa, &t);
}

SMASK__FN void smask__attention_fwd_piece(void *arg, int piece, int worker)
{
    const smask__attention *a = (const smask__attention *)arg;
    const size_t N = a->N, D = a->D, K = a->K;
    const size_t b = (size_t)piece / a->H, h = (size_t)piece % a->H;
    const float *q = a->qkv + b * N * 3 * D + h * K;
    const float *bias = a->bias != NULL ? a->bias + h * N * N : NULL;
    float *work = a->work + (size_t)worker * a->floats;
    float *s = work + K * a->n_up + N * a->k_up;
    float *top = a->stat != NULL ? a->stat + 2 * N * (size_t)piece
        : s + N * a->s_ld;
    const smask__factor qt = smask__attention_pack(a, q, 3 * D, 1, work);
    const smask__factor v = smask__attention_pack(a, q + 2 * D, 3 * D, 0,
        work + K * a->n_up);

    smask__attention_times(a, q + D, 3 * D, 0, qt, N, K, s, a->s_ld, 0,
        NULL);
    smask__softmax(a->isa, s, a->s_ld, N, N, 1 / sqrtf((float)K), bias, N, top,
        top + N);
    smask__attention_times(a, s, a->s_ld, 1, v, K, N, a->y + b * N * D
        + h * K, D, 0, top + N);
}

SMASK__FN void smask__attention_fwd(smask_ctx *c, smask__attention *a)
{
    const size_t mark = smask__mark(c);

    a->work = smask__floats(c, smask__attention_plan(c, a, 0));
    smask__run(c, a->B * a->H, smask__attention_fwd_piece, a);
    smask__rewind(c, mark);
}

/* Backpropagation through one head. P and dS, (N,N), exist only in the worker's
   buffer `work`.
     y = P v             dv = P' dy        dP = dy v'
     s = q k'            P = softmax(scale s + bias)
     ds = scale P (dP - d), d_i = sum_j P_ij dP_ij
     dq = ds k           dk = ds' q                                       */
SMASK__FN void smask__attention_bwd_head(const smask__attention *a, size_t b,
    size_t h, float *work)
{
    const size_t N = a->N, D = a->D, K = a->K;
    const float *q = a->qkv + b * N * 3 * D + h * K, *k = q + D;
    const float *dy = a->dy + b * N * D + h * K;
    const float *top = a->stat + 2 * N * (b * a->H + h);
    const float *bias = a->bias != NULL ? a->bias + h * N * N : NULL;
    float *dbias = a->dbias != NULL ? a->dbias + h * N * N : NULL;
    float *dq = a->dqkv + b * N * 3 * D + h * K;
    float *pack = work + 2 * K * a->n_up;
    float *p = pack + N * a->k_up, *ds = p + N * a->s_ld;
    const smask__factor qt = smask__attention_pack(a, q, 3 * D, 1, work);
    const smask__factor dyt = smask__attention_pack(a, dy, D, 1,
        work + K * a->n_up);

    smask__attention_times(a, k, 3 * D, 0, qt, N, K, p, a->s_ld, 0, NULL);
    smask__attention_times(a, k + D, 3 * D, 0, dyt, N, K, ds, a->s_ld, 0,
        NULL);
    smask__softmax_bwd(a->isa, p, ds, a->s_ld, N, N, 1 / sqrtf((float)K), bias,
        N, top, top + N, dbias);
    if (a->again)                        /* y was transient: recompute it  */
        smask__attention_times(a, p, a->s_ld, 1,
            smask__attention_pack(a, q + 2 * D, 3 * D, 0, pack), K, N,
            a->y + b * N * D + h * K, D, 0, NULL);
    smask__attention_times(a, p, a->s_ld, 0,
        smask__attention_pack(a, dy, D, 0, pack), K, N, dq + 2 * D, 3 * D,
        a->add, NULL);
    smask__attention_times(a, ds, a->s_ld, 1,
        smask__attention_pack(a, k, 3 * D, 0, pack), K, N, dq, 3 * D, a->add,
        NULL);
    smask__attention_times(a, ds, a->s_ld, 0,
        smask__attention_pack(a, q, 3 * D, 0, pack), K, N, dq + D, 3 * D,
        a->add, NULL);
}

SMASK__FN void smask__attention_bwd_piece(void *arg, int piece, int worker)
{
    const smask__attention *a = (const smask__attention *)arg;
    float *work = a->work + (size_t)worker * a->floats;
    size_t b;

    if (a->dbias == NULL) {
        smask__attention_bwd_head(a, (size_t)piece / a->H,
            (size_t)piece % a->H, work);
        return;
    }
    for (b = 0; b < a->B; b++)           /* dbias sums over images         */
        smask__attention_bwd_head(a, b, (size_t)piece, work);
}

SMASK__FN void smask__attention_bwd(smask_ctx *c, smask__attention *a)
{
    const size_t mark = smask__mark(c);

    a->work = smask__floats(c, smask__attention_plan(c, a, 1));
    smask__run(c, a->dbias != NULL ? a->H : a->B * a->H,
        smask__attention_bwd_piece, a);
    smask__rewind(c, mark);
}

/* Relative position bias: gather the table (rows,H) by index (N,N) into bias
   (H,N,N), transposed like the scores. Backward adds dbias to the table. */
SMASK__FN void smask__bias_fwd(const float *table, const int32_t *index,
    size_t N, size_t H, float *bias)
{
    for (size_t h = 0; h < H; h++)
        for (size_t j = 0; j < N; j++)
            for (size_t i = 0; i < N; i++)
                *bias++ = table[(size_t)index[i * N + j] * H + h];
}

SMASK__FN void smask__bias_bwd(float *dtable, const int32_t *index, size_t N,
    size_t H, const float *dbias)
{
    for (size_t h = 0; h < H; h++)
        for (size_t j = 0; j < N; j++)
            for (size_t i = 0; i < N; i++)
                dtable[(size_t)index[i * N + j] * H + h] += *dbias++;
}

/* ---- Gather rows: y[b,n] = x[index[b,n]] + position[n]. An index of -1 takes
   `fill` instead; without an index, row i of y is row i of x. ---- */

typedef struct smask__gather {
    size_t count, N, D, piece;
    const float *x, *fill, *position;
    const int32_t *index;
    float *y;
    int isa;
} smask__gather;

SMASK__FN void smask__gather_fwd_piece(void *arg, int piece, int worker)
{
    const smask__gather *g = (const smask__gather *)arg;
    const size_t D = g->D;
    size_t i = (size_t)piece * g->piece;
    const size_t end = smask__min(g->count, i + g->piece);

    (void)worker;
    for (; i < end; i++) {
        const int32_t at = g->index != NULL ? g->index[i] : (int32_t)i;
        float *y = g->y + i * D;
        memcpy(y, at >= 0 ? g->x + (size_t)at * D : g->fill, D * sizeof *y);
        if (g->position != NULL)
            smask__add(g->isa, y, g->position + i % g->N * D, D);
    }
}

/* dx[index] += dy; dfill += dy where the index is -1; dposition[n] += dy. One
   thread adds in order, because an index may repeat and the work is small. */
SMASK__FN void smask__gather_bwd(smask_ctx *c, const smask__gather *g,
    const float *dy, float *dx, float *dfill, float *dposition)
{
    const size_t D = g->D;

    if (c->dry || !smask__ok(c)) return;
    for (size_t i = 0; i < g->count; i++, dy += D) {
        const int32_t at = g->index != NULL ? g->index[i] : (int32_t)i;
        if (at >= 0 && dx != NULL)
            smask__add(c->isa, dx + (size_t)at * D, dy, D);
        if (at < 0 && dfill != NULL)
            smask__add(c->isa, dfill, dy, D);
        if (dposition != NULL)
            smask__add(c->isa, dposition + i % g->N * D, dy, D);
    }
}

/* ---- The visual token head and its cross-entropy, a block of rows at a time:
     z = x w' + b     p = softmax(z)     loss = mean of -log p[label]
     dz = (p - [label]) / rows     dx = dz w     dw = dz' x     db = sum dz
   Only one block of rows has logits z at a time: about 7 MB, and at least 224
   rows. z becomes dz in place while it is in the cache. dx, dw and db are
   updated from dz before the next block overwrites it. */

typedef struct smask__head_loss {
    size_t rows, D, V;
    const float *x, *w, *b;
    const int32_t *label;
    int32_t *guess;
    int gradients;                   /* 0: compute only the loss           */
    float *dx, *dw, *db;             /* for a loss gradient of 1           */
    /* the current block */
    int isa;
    size_t first, count, ld;         /* its rows; row stride of z          */
    float *z;                        /* (count, ld)                        */
    double *loss;                    /* one per piece of 16 rows           */
    int32_t *hits;
} smask__head_loss;

SMASK__FN void smask__head_softmax_piece(void *arg, int piece, int worker)
{
    const smask__head_loss *a = (const smask__head_loss *)arg;
    const float share = 1 / (float)a->rows;
    size_t i = 16 * (size_t)piece;
    const size_t end = smask__min(a->count, i + 16);
    double loss = 0;
    int32_t hits = 0;

    (void)worker;
    for (; i < end; i++) {
        float *z = a->z + i * a->ld, top, sum;
        const size_t row = a->first + i;
        const size_t label = (size_t)a->label[row];
        const size_t guess = smask__argmax(a->isa, z, a->V, &top);
        const float right = z[label];
        smask__exp_row(a->isa, z, z, 1, top, a->V, &sum);
        loss += (double)(top - right) + log((double)sum);
        hits += guess == label;
        if (a->guess != NULL) a->guess[row] = (int32_t)guess;
        if (!a->gradients) continue;
        smask__scale(a->isa, z, share / sum, z, a->V);
        z[label] -= share;
    }
    a->loss[piece] = loss;
    a->hits[piece] = hits;
}

/* Return the mean loss. *hits gets the number of rows whose label has the
   largest logit. dx and dw are overwritten; db is added to. */
SMASK__FN double smask__head_loss_do(smask_ctx *c, smask__head_loss *a,
    int32_t *hits)
{
    const size_t mark = smask__mark(c);
    const size_t block = smask__min(a->rows, smask__round_up(smask__max(
        (size_t)7 * 262144 / a->V, 224), 112));
    const size_t pieces = smask__ceil_div(block, 16);
    smask__product z, dx, dw;
    double loss = 0;
    size_t i;

    *hits = 0;
    a->isa = c->isa;
    a->ld = smask__round_up(a->V, 16) + 16;
    a->z = smask__floats(c, block * a->ld);
    a->loss = (double *)smask__data(c, pieces, sizeof *a->loss);
    a->hits = (int32_t *)smask__data(c, pieces, sizeof *a->hits);
    z = smask__product_of(block, a->V, a->D, a->z, a->ld);
    z.mc = SMASK__MC;
    z.nc = 512;                          /* these panels fit the cache     */
    z.b = smask__operand_of(a->w, a->D);
    z.b_transposed = 1;
    z.bias = a->b;
    smask__product_plan(c, &z);
    smask__pack(c, &z);
    dx = z;
    dx.n = a->D;
    dx.k = a->V;
    dx.mc = 56;
    dx.nc = 0;
    dx.b_transposed = 0;
    dx.bias = NULL;
    dx.c_ld = a->D;
    smask__product_plan(c, &dx);
    if (a->gradients) smask__pack(c, &dx);
    for (a->first = 0; a->first < a->rows && smask__ok(c);
        a->first += block) {
        a->count = smask__min(block, a->rows - a->first);
        z.m = a->count;
        z.a = smask__operand_of(c->dry ? NULL : a->x + a->first * a->D, a->D);
        smask__product_nn(c, &z);
        smask__run(c, smask__ceil_div(a->count, 16), smask__head_softmax_piece,
            a);
        for (i = 0; !c->dry && smask__ok(c)
            && i < smask__ceil_div(a->count, 16); i++) {
            loss += a->loss[i];
            *hits += a->hits[i];
        }
        if (!a->gradients) continue;
        dx.m = a->count;
        dx.a = smask__operand_of(a->z, a->ld);
        dx.c = c->dry ? NULL : a->dx + a->first * a->D;
        smask__product_nn(c, &dx);
        dw = smask__product_of(a->V, a->D, a->count, a->dw, a->D);
        dw.a = dx.a;
        dw.b = z.a;
        dw.add = a->first > 0;
        dw.sums = a->db;
        smask__product_tn(c, &dw);
    }
    smask__rewind(c, mark);
    return loss / (double)a->rows;
}

/* ---- Cross-entropy with probabilities as targets t (rows,C):
     loss = mean over rows of -sum_j t_j log softmax(x)_j
     dx = (softmax(x) sum_j t_j - t) / rows      for a loss gradient of 1 */
SMASK__FN double smask__cross_entropy_fwd(int isa, const float *x,
    const float *t, size_t rows, size_t C, float *dx)
{
    double loss = 0;

    for (size_t i = 0; i < rows; i++, x += C, t += C, dx += C) {
        float top, sum, total = 0;
        double lse;
        top = smask__row_max(isa, x, C);
        smask__exp_row(isa, dx, x, 1, top, C, &sum);
        lse = (double)top + log((double)sum);
        for (size_t j = 0; j < C; j++) {
            loss += (double)t[j] * (lse - (double)x[j]);
            total += t[j];
        }
        for (size_t j = 0; j < C; j++)
            dx[j] = (dx[j] / sum * total - t[j]) / (float)rows;
    }
    return loss / (double)rows;
}

/* ---- InfoNCE. Rows 0 .. B-1 are one view of each image, B .. 2B-1 the
   other; u(i) is the other view of i.
     s_ij = x_i . x_j / tau       p_i = softmax of s_ij over j in set(i)
     loss = mean over i of -log p_i[u(i)]
     ds_ij = (p_ij - [j = u(i)]) / 2B     dx_i += sum_j ds_ij x_j / tau
                                          dx_j += sum_i ds_ij x_i / tau
   set(i) holds all views of the other side and, with `all`, the remaining views
   of i's own side. With stop_keys, backward omits the second line of dx.
   s (2B,2B): in, x x'; out, ds / tau, so that backward is two matrix products.
   *hits counts the rows whose largest x_i . x_j is that of u(i). */
SMASK__FN double smask__info_nce_fwd(int isa, float *s, size_t rows,
    float tau, int all, int32_t *hits)
{
    const size_t half = rows / 2;
    double loss = 0;
    size_t j;

    *hits = 0;
    for (size_t i = 0; i < rows; i++) {
        float *row = s + i * rows, top, sum, right;
        const size_t u = (i + half) % rows;
        for (j = 0; j < rows; j++)
            if (all ? j == i : (j < half) == (i < half)) row[j] = -1e30f;
        *hits += smask__argmax(isa, row, rows, &top) == u;
        right = row[u];
        smask__exp_row(isa, row, row, 1 / tau, top, rows, &sum);
        for (j = 0; j < rows; j++)       /* exp_row's minimum is not 0     */
            if (all ? j == i : (j < half) == (i < half)) row[j] = 0;
        loss += (double)((top - right) / tau) + log((double)sum);
        smask__scale(isa, row, 1 / (sum * (float)rows * tau), row, rows);
        row[u] -= 1 / ((float)rows * tau);
    }
    return loss / (double)rows;
}

/* ======================================================================
   6  CONTEXT                                                   >>context
   Question   Who owns the memory, and what happens in a training step?
   Idea       A context owns one arena. Setup takes it, a step marks its
              ends and gives back what was allocated between begin and end.
              A plan runs the caller's function on a dry context, which
              counts bytes and touches no values.
   May call   1 to 4.            Called by   the user, 7.
   ====================================================================== */

/* Alignment to 64 bytes can cost 0 to 63 bytes of the block. The arena always
   subtracts 63, so a size that is enough is enough at any address. */
SMASK__FN void smask__start(smask_ctx *c, const smask_desc *desc, int dry)
{
    const smask_allocator *a = &c->desc.allocator;

    memset(c, 0, sizeof *c);
    if (desc != NULL) c->desc = *desc;
    c->magic = SMASK__MAGIC;
    c->dry = dry;
    if (c->desc.parallel.workers < 1) c->desc.parallel.workers = 1;
    smask_seed(&c->random, c->desc.seed, 0);
    c->isa = (int)smask__isa_resolve(c->desc.isa);
    if (c->desc.isa != SMASK_ISA_AUTO
        && !smask__isa_available(c->desc.isa)) {
        smask__fail(c, SMASK_ARG, "setup",
            "this machine or build lacks desc.isa; use SMASK_ISA_AUTO");
        return;
    }
    size_t bytes = c->desc.memory_size;
    void *block = c->desc.memory;
    if (block == NULL && bytes == 0) bytes = (size_t)(dry ? 4 : 64) << 20;
    if (block == NULL && bytes >= SMASK__ALIGN)
        block = c->block = a->alloc != NULL ? a->alloc(a->user, bytes)
            : smask__default_alloc(bytes);
    if (block == NULL || bytes < SMASK__ALIGN) {
        smask__fail(c, SMASK_MEMORY, "setup", bytes < SMASK__ALIGN
            ? "memory_size is too small; set it to what smask_plan reports"
            : "the allocator returned NULL");
        return;
    }
    const size_t skew = (size_t)(0 - (uintptr_t)block) & (SMASK__ALIGN - 1);
    c->base = (unsigned char *)block + skew;
    c->size = (bytes - (SMASK__ALIGN - 1)) & ~(SMASK__ALIGN - 1);
}

#define SMASK__CASE(name, text) case SMASK_ISA_##name: return text;
SMASK__DEF const char *smask_isa_text(const smask_ctx *c)
{
    switch (smask__isa_is_bf16(c->desc.isa) ? c->desc.isa
        : (smask_isa)c->isa) {
    SMASK_ISAS(SMASK__CASE)
    case SMASK_ISA_COUNT: break;
    }
    return "unknown";
}
#undef SMASK__CASE

SMASK__DEF smask_result smask_setup_v(smask_ctx *c, const smask_desc *desc,
    uint32_t magic)
{
    if (magic != SMASK__MAGIC) {         /* only fields of all versions    */
        c->magic = magic;
        c->error = SMASK_STATE;
        c->detail[0] = '\0';
        return c->error;
    }
    smask__start(c, desc, 0);
    return c->error;
}

SMASK__DEF void smask_shutdown(smask_ctx *c)
{
    const smask_allocator *a = &c->desc.allocator;

    if (c->magic != SMASK__MAGIC) return;
    if (c->block != NULL) {
        if (a->alloc == NULL) smask__default_release(c->block);
        else if (a->release != NULL) a->release(a->user, c->block);
    }
    memset(c, 0, sizeof *c);
}

SMASK__DEF smask_result smask_plan(const smask_desc *desc,
    smask_result (*fn)(smask_ctx *c, void *user), void *user,
    smask_sizes *sizes)
{
    smask_ctx c;

    memset(sizes, 0, sizeof *sizes);
    smask__start(&c, desc, 1);
    smask_result result = smask__ok(&c) ? fn(&c, user) : c.error;
    if (result == SMASK_OK) result = c.error;
    if (c.in_step) smask_end_step(&c);
    sizes->bytes = c.peak + SMASK__ALIGN - 1;
    sizes->kept_bytes = c.low + c.high;
    sizes->step_bytes = c.step_peak;
    sizes->nodes = c.peak_nodes;
    smask_shutdown(&c);
    return result;
}

SMASK__DEF void smask_begin_step(smask_ctx *c)
{
    if (c->magic != SMASK__MAGIC) return;            /* setup has failed   */
    if (c->in_step) {
        smask__fail(c, SMASK_STATE, "begin_step",
            "smask_end_step was not called");
        return;
    }
    c->in_step = 1;
    c->generation = c->generation < INT32_MAX ? c->generation + 1 : 1;
    c->kept_low = c->low;
    c->kept_high = c->high;
    c->kept_last = c->last;
    c->kept_nodes = c->nodes;
    c->kept_peak = c->peak;
    c->peak = c->low + c->high;          /* the peak of this step only     */
}

SMASK__DEF void smask_end_step(smask_ctx *c)
{
    if (c->magic != SMASK__MAGIC) return;
    if (!c->in_step) {
        smask__fail(c, SMASK_STATE, "end_step",
            "smask_begin_step was not called");
        return;
    }
    c->step_peak = smask__max(c->step_peak,
        c->peak - c->kept_low - c->kept_high);
    c->peak = smask__max(c->peak, c->kept_peak);
    c->in_step = 0;
    smask__rewind(c, c->kept_low);
    c->high = c->kept_high;
    c->last = c->kept_last;
    c->nodes = c->kept_nodes;
    c->free_list = NULL;
}

SMASK__DEF void smask_record(smask_ctx *c, int on)
{ c->not_recording = !on; }

/* ======================================================================
   7  THE TAPE                                                    >>tape
   Question   How does backpropagation find the gradient of a scalar loss
              with respect to every parameter?
   Idea       Every op records one node. A node is recorded after its
              sources, so backpropagation walks the list from its end. When
              the walk reaches a node, every node that used it has already
              added its part, so its dx is complete. A gradient lives from
              its first part until the walk has passed its node. Then the
              next gradient reuses its memory. Values that are cheap to
              compute are not saved. Backpropagation recomputes them: norms,
              GELU, the output of attention inside a stack of blocks.
   May call   1 to 6.            Called by   8, 9, 12, 13.
   Source     Griewank & Walther 2008, ch. 3 [GW08]; recomputation [Chen16].
   ====================================================================== */

/* ---- Error reports ---- */

SMASK__FN void smask__add_shape(smask_ctx *c, const char *name,
    const smask_tensor *t)
{
    char digits[24];

    smask__add_detail(c, name);
    for (int32_t i = 0; i < t->rank; i++) {
        smask__append_digits(digits, (uint64_t)t->shape[i]);
        smask__add_detail(c, i == 0 ? " (" : ",");
        smask__add_detail(c, digits);
    }
    smask__add_detail(c, ")");
}

#define SMASK__CASE(NAME, name)                                             \
    case SMASK_OP_##NAME: return SMASK__TEXT(#name);
SMASK__FN const char *smask__op_text(smask_op op)
{
    switch (op) {
    SMASK_OPS(SMASK__CASE)
    case SMASK_OP_COUNT: break;
    }
    return "";
}
#undef SMASK__CASE

/* Report an error from a function that returns a tensor. Returns NULL. */
SMASK__FN smask_tensor *smask__fail_null(smask_ctx *c, smask_result code,
    const char *where, const char *what)
{
    smask__fail(c, code, where, what);
    return NULL;
}

/* Report shapes that do not fit: "where: a (2,3), b (4)". b may be NULL.
   Returns NULL. */
SMASK__FN smask_tensor *smask__fail_shapes(smask_ctx *c, const char *where,
    const char *a_name, const smask_tensor *a, const char *b_name,
    const smask_tensor *b)
{
    if (!smask__set_error(c, SMASK_SHAPE, where)) return NULL;
    smask__add_shape(c, a_name, a);
    if (b != NULL) {
        smask__add_detail(c, ", ");
        smask__add_shape(c, b_name, b);
    }
    smask__log_error(c);
    return NULL;
}

/* ---- Nodes ---- */

SMASK__DEF size_t smask_count(const smask_tensor *t)
{
    size_t n = t != NULL;                /* 0 for NULL                     */

    for (int32_t i = 0; t != NULL && i < t->rank; i++) n *= (size_t)t->shape[i];
    return n;
}

SMASK__DEF size_t smask_columns(const smask_tensor *t)
{ return t != NULL ? (size_t)t->shape[t->rank - 1] : 0; }

SMASK__DEF size_t smask_row_count(const smask_tensor *t)
{ return t != NULL ? smask_count(t) / smask_columns(t) : 0; }

/* 1 if t is a vector of n floats, as biases, norms and gains must be. */
SMASK__FN int smask__is_vector(const smask_tensor *t, size_t n)
{ return smask_count(t) == n && smask_columns(t) == n; }

/* Floats in one item of the first dimension. */
SMASK__FN size_t smask__item(const smask_tensor *t)
{ return smask_count(t) / (size_t)t->shape[0]; }

/* Make t source i of y. y requires a gradient if t does. */
SMASK__FN void smask__link(smask_ctx *c, smask_tensor *y, int i,
    smask_tensor *t)
{
    if (t == NULL) return;
    y->source[i] = t;
    if (t->requires_grad && !c->not_recording) y->requires_grad = 1;
#ifdef SPLITMASK_DEBUG
    if (t->generation != 0 && t->generation != c->generation)
        smask__fail(c, SMASK_STATE, "tape",
            "a tensor of an earlier step is used; its memory was reused");
#endif
}

/* Record a node without memory for its values. Up to three sources. */
SMASK__FN smask_tensor *smask__new_node(smask_ctx *c, smask_op op, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3, smask_tensor *s0, smask_tensor *s1,
    smask_tensor *s2)
{
    const int32_t d[4] = { d0, d1, d2, d3 };
    size_t count = sizeof(float);
    int32_t i, rank;

    if (!smask__ok(c)) return NULL;
    if (c->desc.nodes > 0 && c->nodes >= c->desc.nodes)
        return smask__fail_null(c, SMASK_NODES, smask__op_text(op),
            "desc.nodes is used up; set it to what smask_plan reports");
    for (i = 0; i < 4 && d[i] > 0; i++)
        if (!smask__mul_sizes(count, (size_t)d[i], &count)) break;
    rank = i;
    while (i < 4 && d[i] == 0) i++;
    if (rank == 0 || i < 4)
        return smask__fail_null(c, SMASK_SHAPE, smask__op_text(op),
            "a dimension is not positive, or the size overflows");
    smask_tensor *t = (smask_tensor *)smask__structs(c, 1, sizeof *t);
    if (t == NULL) return NULL;
    memcpy(t->shape, d, sizeof t->shape);
    t->rank = rank;
    t->op = (int32_t)op;
    t->generation = c->in_step ? c->generation : 0;
    t->previous = c->last;
    c->last = t;
    c->nodes++;
    if (c->nodes > c->peak_nodes) c->peak_nodes = c->nodes;
    smask__link(c, t, 0, s0);
    smask__link(c, t, 1, s1);
    smask__link(c, t, 2, s2);
    return smask__ok(c) ? t : NULL;
}

/* Record a node and allocate its values, not initialised. */
SMASK__FN smask_tensor *smask__new_tensor(smask_ctx *c, smask_op op,
    int32_t d0, int32_t d1, int32_t d2, int32_t d3, smask_tensor *s0,
    smask_tensor *s1, smask_tensor *s2)
{
    smask_tensor *y = smask__new_node(c, op, d0, d1, d2, d3, s0, s1, s2);

    if (y != NULL) y->x = smask__floats(c, smask_count(y));
    return smask__ok(c) ? y : NULL;
}

/* Record a node with the shape of its first source x. NULL if x is NULL. */
SMASK__FN smask_tensor *smask__new_like(smask_ctx *c, smask_op op,
    smask_tensor *x, smask_tensor *s1, smask_tensor *s2)
{
    return x == NULL ? NULL : smask__new_tensor(c, op, x->shape[0], x->shape[1],
        x->shape[2], x->shape[3], x, s1, s2);
}

/* Every op returns through here: y, or NULL after an error. A debug build also
   checks that all values are finite. */
SMASK__FN smask_tensor *smask__finish(smask_ctx *c, smask_tensor *y)
{
#ifdef SPLITMASK_DEBUG
    for (size_t i = 0; y != NULL && y->x != NULL && i < smask_count(y); i++)
        if (!smask__finite(y->x[i])) {
            smask__fail(c, SMASK_NUMERIC, smask__op_text((smask_op)y->op),
                "its output is not finite");
            break;
        }
#endif
    return smask__ok(c) ? y : NULL;
}

/* ---- Tape marks ---- */

/* A tape mark. Rewinding to it drops all nodes and data recorded later. */
typedef struct smask__tape_mark {
    size_t low, high;
    smask_tensor *last;
    int nodes;
} smask__tape_mark;

SMASK__FN smask__tape_mark smask__tape_mark_of(const smask_ctx *c)
{
    const smask__tape_mark start = { c->low, c->high, c->last, c->nodes };

    return start;
}

SMASK__FN void smask__tape_rewind(smask_ctx *c, smask__tape_mark start)
{
    c->low = start.low;
    c->high = start.high;
    c->last = start.last;
    c->nodes = start.nodes;
}

/* Rewind to the tape mark, keeping only the values of t. They move down to the
   mark, and a new node without sources holds them. t itself is dropped: its
   struct is read before the rewind and its values before they move. */
SMASK__FN smask_tensor *smask__tape_rewind_keeping(smask_ctx *c, smask_op op,
    smask_tensor *t, smask__tape_mark start)
{
    int32_t d[4];

    if (t == NULL) return NULL;
    memcpy(d, t->shape, sizeof d);
    const float *from = t->x;
    smask__tape_rewind(c, start);
    smask_tensor *y = smask__new_tensor(c, op, d[0], d[1], d[2], d[3], NULL,
        NULL, NULL);
    if (y != NULL && y->x != NULL && y->x != from)
        memmove(y->x, from, smask_count(y) * sizeof(float));
    return y;
}

/* ---- Gradient memory ---- */

/* ---- Who owns a gradient, and how long values live ----

   dx_state: whose memory dx is. The pointer cannot say it, because all data
   pointers are NULL in a dry run.
     NONE   No part of the gradient has arrived, or dx was given away.
            set by    new_node, grad_release, grad_pass (in y)
     TAPE   dx is step memory, and this node alone owns it.
            set by    grad_alloc, at the first part; grad_pass (in the source)
            released  by grad_release to the free list, after the walk has
                      passed the node
     FIXED  dx is memory that must not reach the free list as a gradient:
            - a parameter: its own, until shutdown. The walk skips it.
            - the input x of a GELU linear, if x is REUSABLE: dx is the
              memory of x. The free list gets it once, as x.
            - the output of fn in recompute_back: dx belongs to the outer
              RECOMPUTE node.
            set by    parameter_on, linear_back, recompute_back
            released  grad_release only clears the pointer

   x_state: how long the values x live.
     STAYS     until the step ends (a parameter: until shutdown). The default,
               because a caller may hold the tensor.
     REUSABLE  until the walk has passed the node: no caller can hold it.
               set by    smask__reusable (chapter 9)
     REUSED    the free list has the memory; x is NULL. A second
               smask_backward in the step would need x, so it fails.
               set by    grad_release, if x was REUSABLE

   Transient values: the output of attention inside a stack of blocks. All
   blocks share one buffer, which is source 2 of the node.
     valid       from attention_op until the one linear that uses them has
                 run; then the next block overwrites the buffer
     recomputed  by attention_back, which linear_back calls
     x_state     STAYS, because the node does not own the buffer           */
enum { SMASK__DX_NONE, SMASK__DX_TAPE, SMASK__DX_FIXED };
enum { SMASK__X_STAYS, SMASK__X_REUSABLE, SMASK__X_REUSED };

/* Entry of the free list: released memory, which later gradients reuse. Valid
   until smask_end_step. */
typedef struct smask__free {
    struct smask__free *next;
    float *x;
    size_t floats;
} smask__free;

/* Allocate dx of t, not initialised: from the smallest free entry that is large
   enough, otherwise from the arena. A larger entry keeps its remainder. */
SMASK__FN void smask__grad_alloc(smask_ctx *c, smask_tensor *t)
{
    const size_t floats = smask__round_up(smask_count(t), 16);
    smask__free **at = &c->free_list, **best = NULL;

    for (; *at != NULL; at = &(*at)->next)
        if ((*at)->floats >= floats
            && (best == NULL || (*at)->floats < (*best)->floats)) best = at;
    t->dx_state = SMASK__DX_TAPE;
    if (best == NULL) {
        t->dx = smask__floats(c, floats);
        return;
    }
    t->dx = (*best)->x;
    if ((*best)->x != NULL) (*best)->x += floats;    /* NULL when dry      */
    (*best)->floats -= floats;
    if ((*best)->floats == 0) *best = (*best)->next;
}

/* Put memory of at least `count` floats on the free list. Sizes are rounded up
   to 16 floats, as the arena rounds them to 64 bytes. */
SMASK__FN void smask__free_push(smask_ctx *c, float *x, size_t count)
{
    smask__free *f = (smask__free *)smask__structs(c, 1, sizeof *f);

    if (f == NULL) return;
    f->x = x;
    f->floats = smask__round_up(count, 16);
    f->next = c->free_list;
    c->free_list = f;
}

/* Called when the walk has passed t. All nodes that used t and t itself have
   run their backward, so nothing in the tape needs t->dx any more, nor t->x. A
   TAPE gradient goes to the free list, a FIXED one stays with its owner.
   Values go to the free list only if they are REUSABLE. */
SMASK__FN void smask__grad_release(smask_ctx *c, smask_tensor *t)
{
    if (t->dx_state == SMASK__DX_TAPE)
        smask__free_push(c, t->dx, smask_count(t));
    t->dx_state = SMASK__DX_NONE;
    t->dx = NULL;
    if (t->x_state == SMASK__X_STAYS) return;
    smask__free_push(c, t->x, smask_count(t));
    t->x = NULL;
    t->x_state = SMASK__X_REUSED;
}

/* Memory for a part of t's gradient. *add is 1 if earlier parts are there and
   the caller must add, 0 if this is the first part and the caller must write
   all of dx. NULL if t requires no gradient, and in a dry run. t owns dx. */
SMASK__FN float *smask__grad(smask_ctx *c, smask_tensor *t, int *add)
{
    *add = 0;
    if (t == NULL || !t->requires_grad) return NULL;
    *add = t->dx_state != SMASK__DX_NONE;
    if (!*add) smask__grad_alloc(c, t);
    return t->dx;
}

/* The same for callers that can only add: a first part finds zeros. */
SMASK__FN float *smask__grad_zeroed(smask_ctx *c, smask_tensor *t)
{
    int add;
    float *dx = smask__grad(c, t, &add);

    if (dx != NULL && !add) memset(dx, 0, smask_count(t) * sizeof *dx);
    return dx;
}

/* t->dx += s * from; the first part is written, not added. */
SMASK__FN void smask__grad_add(smask_ctx *c, smask_tensor *t, float s,
    const float *from)
{
    int add;
    float *dx = smask__grad(c, t, &add);

    if (dx != NULL)
        smask__list_do(c, add ? SMASK__LIST_AXPY : SMASK__LIST_SCALE, dx, s,
            from, NULL, smask_count(t));
}

/* t->dx += y->dx. If y owns its dx (TAPE) and t has none, no copy is made: t
   takes over the memory and y has no gradient any more. So this must be the
   last use of y->dx in the backward of y. This way one piece of memory serves
   the residuals of all blocks. A FIXED dx has another owner: it is copied. */
SMASK__FN void smask__grad_pass(smask_ctx *c, smask_tensor *y,
    smask_tensor *t)
{
    if (t == NULL || !t->requires_grad) return;
    if (y->dx_state == SMASK__DX_TAPE && t->dx_state == SMASK__DX_NONE) {
        t->dx = y->dx;
        t->dx_state = SMASK__DX_TAPE;
        y->dx_state = SMASK__DX_NONE;
        y->dx = NULL;
        return;
    }
    smask__grad_add(c, t, 1, y->dx);
}

/* ---- The walk back, and recomputing ---- */

/* Backward of one node: below, when all ops are there. */
SMASK__FN void smask__backward_one(smask_ctx *c, smask_tensor *y);

/* The nodes from `from` back to `to`, which is left out. */
SMASK__FN void smask__walk(smask_ctx *c, smask_tensor *from,
    const smask_tensor *to)
{
    for (smask_tensor *t = from; t != to && t != NULL && smask__ok(c);
        t = t->previous) {
        if (t->op == SMASK_OP_PARAM || t->dx_state == SMASK__DX_NONE) continue;
        for (int i = 0; i < SMASK_SOURCES; i++)
            if (t->source[i] != NULL
                && t->source[i]->x_state == SMASK__X_REUSED) {
                smask__fail(c, SMASK_STATE, "backward",
                    "smask_backward was already called in this step; add "
                    "the losses and call it once");
                return;
            }
        smask__backward_one(c, t);
        if (t->op != SMASK_OP_INPUT) smask__grad_release(c, t);
    }
}

SMASK__DEF smask_result smask_backward(smask_ctx *c, smask_tensor *loss)
{
    if (!smask__ok(c)) return c->error;
#ifdef SPLITMASK_NO_AUTOGRAD
    return smask__fail(c, SMASK_STATE, "backward",
        "built with SPLITMASK_NO_AUTOGRAD");
#endif
    if (loss == NULL)
        return smask__fail(c, SMASK_ARG, "backward", "loss is NULL");
    if (smask_count(loss) != 1) {
        smask__fail_shapes(c, "backward", "loss must be a scalar; got", loss,
            "", NULL);
        return c->error;
    }
    if (!c->dry && !smask__finite(loss->x[0]))
        return smask__fail(c, SMASK_NUMERIC, "backward",
            "the loss is not finite");
    if (!loss->requires_grad)
        return smask__fail(c, SMASK_STATE, "backward",
            "no parameter of the loss requires a gradient, or recording is "
            "off");
    if (loss->op == SMASK_OP_PARAM) {
        if (loss->dx != NULL) loss->dx[0] += 1;
        return c->error;
    }
    smask__grad_alloc(c, loss);
    if (loss->dx != NULL && smask__ok(c)) loss->dx[0] = 1;
    smask__walk(c, loss, NULL);
    return c->error;
}

/* One evaluation of the loss, in a step of its own. The random state is reset,
   so every call draws the same numbers. */
SMASK__FN double smask__gradcheck_at(smask_ctx *c,
    smask_tensor *(*fn)(smask_ctx *c, void *user), void *user,
    const smask_random *random, int backward)
{
    double value = 0;

    c->random = *random;
    smask_begin_step(c);
    smask_tensor *loss = fn(c, user);
    if (loss != NULL && loss->x != NULL) value = (double)loss->x[0];
    if (backward) smask_backward(c, loss);
    else if (loss == NULL && smask__ok(c))
        smask__fail(c, SMASK_ARG, "gradcheck", "fn returned NULL");
    smask_end_step(c);
    return value;
}

SMASK__DEF smask_result smask_gradcheck(smask_ctx *c, smask_tensor *t,
    smask_tensor *(*fn)(smask_ctx *c, void *user), void *user, int32_t tries,
    float eps, float *worst)
{
    const smask_random random = c->random;
    smask_random pick;
    float top = 0;

    *worst = 0;
    if (!smask__ok(c)) return c->error;
    if (t == NULL || t->op != SMASK_OP_PARAM || tries < 1 || !(eps > 0))
        return smask__fail(c, SMASK_ARG, "gradcheck",
            "t must be a parameter, tries and eps above 0");
    if (c->in_step || t->dx == NULL)
        return smask__fail(c, SMASK_STATE, "gradcheck",
            "call it outside a step; not in a dry run, inference or "
            "NO_AUTOGRAD");
    /* Freeze all other parameters, so that their gradients do not change. */
    for (smask_tensor *p = c->last; p != NULL; p = p->previous)
        if (p->op == SMASK_OP_PARAM && p != t) {
            p->arg[0] = p->requires_grad;
            p->requires_grad = 0;
        }
    const size_t count = smask_count(t);
    memset(t->dx, 0, count * sizeof *t->dx);
    smask__gradcheck_at(c, fn, user, &random, 1);
    for (size_t i = 0; i < count; i++)
        if (fabsf(t->dx[i]) > top) top = fabsf(t->dx[i]);
    smask_seed(&pick, 1, 7);
    for (int k = 0; k < tries && smask__ok(c); k++) {
        const size_t at = smask_below(&pick, (uint32_t)count);
        const float x = t->x[at], gradient = t->dx[at];
        double above, below, n, apart;
        t->x[at] = x + eps;
        above = smask__gradcheck_at(c, fn, user, &random, 0);
        t->x[at] = x - eps;
        below = smask__gradcheck_at(c, fn, user, &random, 0);
        t->x[at] = x;
        n = (above - below) / ((double)(x + eps) - (double)(x - eps));
        apart = fabs((double)gradient - n) / fmax(fmax(1e-3 * (double)top,
            1e-30), fabs((double)gradient) + fabs(n));
        if (!smask__finite((float)apart)) apart = 1e30;
        if (apart > (double)*worst) *worst = (float)apart;
    }
    memset(t->dx, 0, count * sizeof *t->dx);
    for (smask_tensor *p = c->last; p != NULL; p = p->previous)
        if (p->op == SMASK_OP_PARAM && p != t) p->requires_grad = p->arg[0];
    c->random = random;
    return c->error;
}

/* ======================================================================
   8  OPS                                                           >>ops
   Question   What does an op check, what does it record, and what is its
              derivative?
   Idea       Each op has its functions side by side. smask_NAME checks the
              shapes, records a node, calls the kernel and notes what
              backward needs. Right below it smask__NAME_back adds y's
              gradient to the gradients of the sources. SMASK_OPS yields
              the dispatch, so an op without a backward function does not
              compile.
   May call   1 to 7.            Called by   9, 12.
   Source     As in >>kernels; recomputation [Chen16].
   ====================================================================== */

/* ---- What each op stores in its node ----
     op             source               save           arg      other field
     ADD, SUB, MUL  a b
     SCALE          x                                            scalar
     SCALE_ROWS     x g
     LINEAR         x w b r ln_w ln_b    mean, 1 / std  lens     extra: keep
     LAYERNORM      x w b                mean, 1 / std
     GELU           x
     ATTENTION      qkv bias buffer      max, 1 / sum   heads    index
     GATHER         x fill position                              index
     MEAN_TOKENS    x                                   skip
     L2_NORMALIZE   x                    1 / |x|
     CROSS_ENTROPY  x                    dx
     LINEAR_CROSS.. x w b                dx, dw, db
     INFO_NCE       x                    ds             stop_keys
     SLICE          x                                   first
     JOIN           buffer part                         first
     RECOMPUTE      x                                            extra: fn
     USER           a b d                free to use             extra: op
     PARAM                               panels         [0] for gradcheck
                                                        [1] panel state    */

/* Leaves keep the gradient that they got. */
SMASK__FN void smask__input_back(smask_ctx *c, smask_tensor *y)
{
    (void)c;
    (void)y;
}

SMASK__FN void smask__param_back(smask_ctx *c, smask_tensor *y)
{
    (void)c;
    (void)y;
}

SMASK__DEF smask_tensor *smask_input(smask_ctx *c, const float *x, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3)
{
    smask_tensor *t = smask__new_node(c, SMASK_OP_INPUT, d0, d1, d2, d3, NULL,
        NULL, NULL);

    if (t == NULL) return NULL;
    if (!c->dry && x == NULL)
        return smask__fail_null(c, SMASK_ARG, "input", "x is NULL");
    if (!c->dry) t->x = (float *)(uintptr_t)x;       /* only read          */
    return t;
}

/* Make a parameter. x NULL: its values are allocated and zero. Otherwise they
   are the caller's x (read only, for inference); the caller owns x. */
SMASK__FN smask_tensor *smask__parameter_on(smask_ctx *c, const float *x,
    int32_t d0, int32_t d1, int32_t d2, int32_t d3)
{
    if (c->in_step)
        return smask__fail_null(c, SMASK_STATE, "parameter",
            "called inside a step; call smask_end_step first");
    smask_tensor *t = smask__new_node(c, SMASK_OP_PARAM, d0, d1, d2, d3, NULL,
        NULL, NULL);
    if (t == NULL) return NULL;
    const size_t bytes = smask_count(t) * sizeof(float);
    if (x != NULL) t->x = c->dry ? NULL : (float *)(uintptr_t)x;
    else t->x = (float *)smask_alloc(c, bytes);
#ifndef SPLITMASK_NO_AUTOGRAD
    if (!c->desc.inference) {
        t->requires_grad = 1;
        t->dx = (float *)smask_alloc(c, bytes);
        t->dx_state = SMASK__DX_FIXED;
    }
#endif
    return smask__ok(c) ? t : NULL;
}

SMASK__DEF smask_tensor *smask_parameter(smask_ctx *c, int32_t d0, int32_t d1,
    int32_t d2, int32_t d3)
{ return smask__parameter_on(c, NULL, d0, d1, d2, d3); }

/* y = a + s b, element by element. */
SMASK__FN smask_tensor *smask__sum_op(smask_ctx *c, smask_op op,
    smask_tensor *a, smask_tensor *b, float s)
{
    if (a == NULL || b == NULL) return NULL;
    if (memcmp(a->shape, b->shape, sizeof a->shape) != 0)
        return smask__fail_shapes(c, smask__op_text(op), "a", a, "b", b);
    smask_tensor *y = smask__new_like(c, op, a, b, NULL);
    if (y == NULL) return NULL;
    smask__list_do(c, SMASK__LIST_SCALE, y->x, 1, a->x, NULL, smask_count(y));
    smask__list_do(c, SMASK__LIST_AXPY, y->x, s, b->x, NULL, smask_count(y));
    return smask__finish(c, y);
}

SMASK__DEF smask_tensor *smask_add(smask_ctx *c, smask_tensor *a,
    smask_tensor *b)
{ return smask__sum_op(c, SMASK_OP_ADD, a, b, 1); }

/* y = a + b:   da += dy     db += dy */
SMASK__FN void smask__add_back(smask_ctx *c, smask_tensor *y)
{
    smask__grad_add(c, y->source[1], 1, y->dx);
    smask__grad_pass(c, y, y->source[0]);
}

SMASK__DEF smask_tensor *smask_sub(smask_ctx *c, smask_tensor *a,
    smask_tensor *b)
{ return smask__sum_op(c, SMASK_OP_SUB, a, b, -1); }

/* y = a - b:   da += dy     db -= dy */
SMASK__FN void smask__sub_back(smask_ctx *c, smask_tensor *y)
{
    smask__grad_add(c, y->source[1], -1, y->dx);
    smask__grad_pass(c, y, y->source[0]);
}

SMASK__DEF smask_tensor *smask_mul(smask_ctx *c, smask_tensor *a,
    smask_tensor *b)
{
    if (a == NULL || b == NULL) return NULL;
    if (memcmp(a->shape, b->shape, sizeof a->shape) != 0)
        return smask__fail_shapes(c, "mul", "a", a, "b", b);
    smask_tensor *y = smask__new_like(c, SMASK_OP_MUL, a, b, NULL);
    if (y == NULL) return NULL;
    if (!c->dry) memset(y->x, 0, smask_count(y) * sizeof *y->x);
    smask__list_do(c, SMASK__LIST_MUL, y->x, 0, a->x, b->x, smask_count(y));
    return smask__finish(c, y);
}

/* y = a b:   da += dy b     db += dy a */
SMASK__FN void smask__mul_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *a = y->source[0], *b = y->source[1];
    float *da = smask__grad_zeroed(c, a), *db = smask__grad_zeroed(c, b);

    if (a->requires_grad) smask__list_do(c, SMASK__LIST_MUL, da, 0, y->dx,
        b->x, smask_count(y));
    if (b->requires_grad) smask__list_do(c, SMASK__LIST_MUL, db, 0, y->dx,
        a->x, smask_count(y));
}

SMASK__DEF smask_tensor *smask_scale(smask_ctx *c, smask_tensor *x, float s)
{
    smask_tensor *y = smask__new_like(c, SMASK_OP_SCALE, x, NULL, NULL);

    if (y == NULL) return NULL;
    y->scalar[0] = s;
    smask__list_do(c, SMASK__LIST_SCALE, y->x, s, x->x, NULL, smask_count(y));
    return smask__finish(c, y);
}

/* y = s x:   dx += s dy */
SMASK__FN void smask__scale_back(smask_ctx *c, smask_tensor *y)
{ smask__grad_add(c, y->source[0], y->scalar[0], y->dx); }

SMASK__DEF smask_tensor *smask_scale_rows(smask_ctx *c, smask_tensor *x,
    smask_tensor *g)
{
    if (x == NULL || g == NULL) return NULL;
    if (!smask__is_vector(g, (size_t)x->shape[0]))
        return smask__fail_shapes(c, "scale_rows", "x", x, "g", g);
    smask_tensor *y = smask__new_like(c, SMASK_OP_SCALE_ROWS, x, g, NULL);
    if (y == NULL) return NULL;
    const size_t each = smask_count(x) / smask_count(g);
    for (size_t i = 0; !c->dry && i < smask_count(g); i++)
        smask__scale(c->isa, y->x + i * each, g->x[i], x->x + i * each, each);
    return smask__finish(c, y);
}

/* y_i = g_i x_i for each row i:   dx_i += g_i dy_i     dg_i += dy_i . x_i */
SMASK__FN void smask__scale_rows_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *x = y->source[0], *g = y->source[1];
    float *dx = smask__grad_zeroed(c, x), *dg = smask__grad_zeroed(c, g);
    const size_t rows = smask_count(g), each = smask_count(x) / rows;

    if (c->dry || !smask__ok(c)) return;
    for (size_t i = 0; i < rows; i++) {
        const float *dy = y->dx + i * each;
        if (dx != NULL) smask__axpy(c->isa, dx + i * each, g->x[i], dy,
            each);
        if (dg != NULL) dg[i] += smask__dot(c->isa, dy, x->x + i * each,
            each);
    }
}

SMASK__FN smask__attention smask__attention_of(const smask_tensor *y)
{
    smask__attention a;

    memset(&a, 0, sizeof a);
    a.B = (size_t)y->shape[0];
    a.N = (size_t)y->shape[1];
    a.D = (size_t)y->shape[2];
    a.H = (size_t)y->arg[0];
    a.K = a.D / a.H;
    a.qkv = y->source[0]->x;
    a.y = y->x;
    a.stat = y->save[0];
    return a;
}

/* Expand the bias table to (H,N,N), transposed, as the kernels read it. The
   result lives in scratch until the caller's rewind. NULL without a bias. */
SMASK__FN const float *smask__attention_bias(smask_ctx *c,
    const smask_tensor *y, const smask__attention *a)
{
    if (y->source[1] == NULL) return NULL;
    float *bias = smask__floats(c, smask__mul_sat(a->H * a->N, a->N));
    if (bias != NULL)
        smask__bias_fwd(y->source[1]->x, y->index, a->N, a->H, bias);
    return bias;
}

/* 1 if the values lie in a shared buffer (source 2), valid only until the next
   linear has read them. linear_back makes attention_back recompute them. */
SMASK__FN int smask__transient(const smask_tensor *t)
{ return t->op == SMASK_OP_ATTENTION && t->source[2] != NULL; }

/* buffer: NULL, or a tensor at least as large as y whose values nobody needs.
   y uses it if backpropagation will recompute y, or if nothing is recorded.
   Otherwise y keeps its own memory: a frozen attention has no backward pass
   that could recompute y, and the linear after it may need y for its dw. */
SMASK__FN smask_tensor *smask__attention_op(smask_ctx *c, smask_tensor *qkv,
    int32_t heads, smask_tensor *bias, const int32_t *index,
    smask_tensor *buffer)
{
    if (qkv == NULL) return NULL;
    if (heads < 1 || qkv->rank != 3 || heads > qkv->shape[2] / 3
        || qkv->shape[2] % (3 * heads) != 0)
        return smask__fail_shapes(c, "attention",
            "qkv must be (B,N,3D), D a multiple of heads; got", qkv, "", NULL);
    if (!c->dry && (bias == NULL) != (index == NULL))
        return smask__fail_null(c, SMASK_ARG, "attention",
            "pass both bias and index, or neither");
    if (bias != NULL && smask_columns(bias) != (size_t)heads)
        return smask__fail_shapes(c, "attention", "bias", bias, "qkv", qkv);
    smask_tensor *y = smask__new_node(c, SMASK_OP_ATTENTION, qkv->shape[0],
        qkv->shape[1], qkv->shape[2] / 3, 0, qkv, bias, NULL);
    if (y == NULL) return NULL;
    y->arg[0] = heads;
    if (y->requires_grad || c->not_recording) y->source[2] = buffer;
    y->x = smask__transient(y) ? buffer->x : smask__floats(c, smask_count(y));
    y->index = index;
    if (y->requires_grad)
        y->save[0] = smask__floats(c, 2 * (size_t)heads
            * (size_t)qkv->shape[0] * (size_t)qkv->shape[1]);
    smask__attention a = smask__attention_of(y);
    for (size_t i = 0; !c->dry && index != NULL && i < a.N * a.N; i++)
        if (index[i] < 0 || (size_t)index[i] >= smask_row_count(bias))
            return smask__fail_null(c, SMASK_RANGE, "attention",
                "an index is outside the bias table");
    const size_t mark = smask__mark(c);
    a.bias = smask__attention_bias(c, y, &a);
    smask__attention_fwd(c, &a);
    smask__rewind(c, mark);
    return smask__finish(c, y);
}

SMASK__DEF smask_tensor *smask_attention(smask_ctx *c, smask_tensor *qkv,
    int32_t heads, smask_tensor *bias, const int32_t *index)
{ return smask__attention_op(c, qkv, heads, bias, index, NULL); }

/* Backpropagation through attention y. dqkv is written or added to; dtable, the
   gradient of the bias table, is added to. If y is transient, its values are
   recomputed into the shared buffer, and the caller may read them on return.
   Without a gradient for qkv the kernel still needs dqkv: it gets scratch. */
SMASK__FN void smask__attention_grad(smask_ctx *c, smask_tensor *y)
{
    smask__attention a = smask__attention_of(y);
    float *dtable = smask__grad_zeroed(c, y->source[1]);
    const size_t pairs = smask__mul_sat(a.H * a.N, a.N);

    a.dqkv = smask__grad(c, y->source[0], &a.add);
    const size_t mark = smask__mark(c);
    if (!y->source[0]->requires_grad)
        a.dqkv = smask__floats(c, 3 * smask_count(y));
    a.dy = y->dx;
    a.again = smask__transient(y);
    a.bias = smask__attention_bias(c, y, &a);
    if (y->source[1] != NULL && y->source[1]->requires_grad)
        a.dbias = (float *)smask_alloc(c, pairs * sizeof(float));
    smask__attention_bwd(c, &a);
    if (dtable != NULL && smask__ok(c))
        smask__bias_bwd(dtable, y->index, a.N, a.H, a.dbias);
    smask__rewind(c, mark);
}

/* y = softmax(q k') v. The linear layer that reads transient values calls
   attention_grad itself. */
SMASK__FN void smask__attention_back(smask_ctx *c, smask_tensor *y)
{ if (!smask__transient(y)) smask__attention_grad(c, y); }

/* arg[1] of a parameter: state of the packed panels in save[0]. OLD: w may have
   been loaded after packing. See smask_vit_pack. */
enum { SMASK__PANELS_NONE, SMASK__PANELS_READY, SMASK__PANELS_OLD };

/* The arguments of chapter 5's kernels, read from a LINEAR node. */
SMASK__FN smask__linear smask__linear_of(const smask_tensor *y)
{
    const smask_tensor *const *s = (const smask_tensor *const *)y->source;
    smask__linear l;

    memset(&l, 0, sizeof l);
    l.rows = smask_row_count(y);
    l.in = smask_columns(s[0]);
    l.out = smask_columns(y);
    l.x = s[0]->x;
    l.w = s[1]->x;
    l.ready = s[1]->op == SMASK_OP_PARAM
        && s[1]->arg[1] == SMASK__PANELS_READY;
    l.panels = l.ready ? s[1]->save[0] : NULL;
    l.b = s[2] != NULL ? s[2]->x : NULL;
    l.r = s[3] != NULL ? s[3]->x : NULL;
    l.ln_w = s[4] != NULL ? s[4]->x : NULL;
    l.ln_b = s[5] != NULL ? s[5]->x : NULL;
    l.lens = (smask__lens)y->arg[0];
    l.stat = y->save[0];
    l.keep = (const float *)y->extra;
    l.group = l.rows / (size_t)y->shape[0];
    return l;
}

SMASK__FN smask_tensor *smask__linear_op(smask_ctx *c, const char *where,
    smask__lens lens, smask_tensor *x, smask_tensor *w, smask_tensor *b,
    smask_tensor *r, smask_tensor *ln_w, smask_tensor *ln_b,
    const float *keep)
{
    int32_t d[4];

    if (x == NULL || w == NULL) return NULL;
    const size_t in = smask_columns(x);
    const size_t out = (size_t)w->shape[0];
    if (smask_count(w) / out != in)
        return smask__fail_shapes(c, where, "w", w, "x", x);
    if (b != NULL && !smask__is_vector(b, out))
        return smask__fail_shapes(c, where, "b", b, "w", w);
    if (lens == SMASK__NORM && !smask__is_vector(ln_w, in))
        return smask__fail_shapes(c, where, "ln_w", ln_w, "x", x);
    if (lens == SMASK__NORM && !smask__is_vector(ln_b, in))
        return smask__fail_shapes(c, where, "ln_b", ln_b, "x", x);
    if (r != NULL && (smask_columns(r) != out
        || smask_row_count(r) != smask_row_count(x)))
        return smask__fail_shapes(c, where, "r", r, "x", x);
    if (keep != NULL && x->rank < 2)
        return smask__fail_shapes(c, where,
            "keep needs x of rank 2 or more; x", x, "w", w);
    memcpy(d, x->shape, sizeof d);
    d[x->rank - 1] = w->shape[0];
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_LINEAR, d[0], d[1], d[2],
        d[3], x, w, b);
    if (y == NULL) return NULL;
    smask__link(c, y, 3, r);
    smask__link(c, y, 4, ln_w);
    smask__link(c, y, 5, ln_b);
    y->arg[0] = (int32_t)lens;
    y->extra = keep;
    if (lens == SMASK__NORM)
        y->save[0] = smask__floats(c, 2 * smask_row_count(x));
    smask__linear l = smask__linear_of(y);
    smask__linear_fwd(c, &l, y->x);
    return smask__finish(c, y);
}

/* Store a parameter w (out, in) a second time, as the packed panels that the
   product x w' reads. */
SMASK__FN void smask__pack_weight(smask_ctx *c, smask_tensor *w)
{
    const size_t n = (size_t)w->shape[0];
    smask__product p = smask__product_of(1, n, smask_count(w) / n, NULL, 0);

    p.b = smask__operand_of(w->x, p.k);
    p.b_transposed = 1;
    smask__product_plan(c, &p);
    if (w->arg[1] == SMASK__PANELS_NONE)
        w->save[0] = smask__floats(c, smask__mul_sat(p.k,
            smask__round_up(p.n, p.nr)));
    if (!smask__ok(c)) return;
    w->arg[1] = SMASK__PANELS_READY;
    p.packed = w->save[0];
    smask__pack_now(c, &p);
}

SMASK__DEF smask_tensor *smask_linear(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b)
{
    return smask__linear_op(c, "linear", SMASK__PLAIN, x, w, b, NULL, NULL,
        NULL, NULL);
}

SMASK__DEF smask_tensor *smask_linear_add(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b, smask_tensor *r, const float *keep)
{
    return r == NULL ? NULL : smask__linear_op(c, "linear_add", SMASK__PLAIN,
        x, w, b, r, NULL, NULL, keep);
}

SMASK__DEF smask_tensor *smask_norm_linear(smask_ctx *c, smask_tensor *x,
    smask_tensor *ln_w, smask_tensor *ln_b, smask_tensor *w, smask_tensor *b)
{
    return ln_w == NULL || ln_b == NULL ? NULL : smask__linear_op(c,
        "norm_linear", SMASK__NORM, x, w, b, NULL, ln_w, ln_b, NULL);
}

SMASK__DEF smask_tensor *smask_gelu_linear_add(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b, smask_tensor *r, const float *keep)
{
    return r == NULL ? NULL : smask__linear_op(c, "gelu_linear_add",
        SMASK__GELU, x, w, b, r, NULL, NULL, keep);
}

/* Backpropagation through y = r + keep * (f(x) w' + b), x = source 0.

   If x is transient, other blocks have overwritten its values. Only dw needs
   them, so the order is
     1. dx of this linear. It is complete: no other node uses x.
     2. attention_back on x, early: it uses that dx and recomputes x.
     3. dw and db of this linear, from the recomputed x.
   When the walk reaches the attention node, it only releases its dx.

   If f is GELU and x is REUSABLE without a gradient yet, dx overwrites x: the
   kernel computes dw first, and no later node needs x. dx is FIXED, so that
   grad_release frees this memory once, as x.

   The residual r comes last, because grad_pass may take y->dx away. */
SMASK__FN void smask__linear_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *const *s = y->source;
    const smask__linear l = smask__linear_of(y);
    float *dw = smask__grad_zeroed(c, s[1]), *db = smask__grad_zeroed(c, s[2]);
    float *dln_w = smask__grad_zeroed(c, s[4]);
    float *dln_b = smask__grad_zeroed(c, s[5]), *dx;
    smask__grads_wanted wanted;

    memset(&wanted, 0, sizeof wanted);
    if (l.lens == SMASK__GELU && s[0]->x_state == SMASK__X_REUSABLE
        && s[0]->dx_state == SMASK__DX_NONE) {
        s[0]->dx = s[0]->x;              /* the gradient overwrites x      */
        s[0]->dx_state = SMASK__DX_FIXED;
        dx = s[0]->dx;
    } else {
        dx = smask__grad(c, s[0], &wanted.dx_add);
    }
    wanted.x = s[0]->requires_grad;
    if (smask__transient(s[0])) {
        smask__linear_bwd(c, &l, &wanted, y->dx, dw, db, dx, dln_w, dln_b);
        smask__attention_grad(c, s[0]);
        wanted.x = 0;
    }
    wanted.w = s[1]->requires_grad;
    wanted.b = s[2] != NULL && s[2]->requires_grad;
    wanted.norm = (s[4] != NULL && s[4]->requires_grad)
        || (s[5] != NULL && s[5]->requires_grad);
    smask__linear_bwd(c, &l, &wanted, y->dx, dw, db, dx, dln_w, dln_b);
    smask__grad_pass(c, y, s[3]);
}

SMASK__FN smask__norm smask__norm_of(const smask_tensor *y)
{
    smask__norm a;

    memset(&a, 0, sizeof a);
    a.rows = smask_row_count(y);
    a.D = smask_columns(y);
    a.x = y->source[0]->x;
    a.w = y->source[1]->x;
    a.b = y->source[2]->x;
    a.stat = y->save[0];
    a.y = y->x;
    return a;
}

SMASK__DEF smask_tensor *smask_layernorm(smask_ctx *c, smask_tensor *x,
    smask_tensor *w, smask_tensor *b)
{
    if (x == NULL || w == NULL || b == NULL) return NULL;
    const size_t D = smask_columns(x);
    if (!smask__is_vector(w, D))
        return smask__fail_shapes(c, "layernorm", "w", w, "x", x);
    if (!smask__is_vector(b, D))
        return smask__fail_shapes(c, "layernorm", "b", b, "x", x);
    smask_tensor *y = smask__new_like(c, SMASK_OP_LAYERNORM, x, w, b);
    if (y == NULL) return NULL;
    y->save[0] = smask__floats(c, 2 * smask_row_count(x));
    smask__norm a = smask__norm_of(y);
    smask__norm_do(c, &a, 0, 0, NULL, NULL);
    return smask__finish(c, y);
}

/* y = z w + b, z the normalised x */
SMASK__FN void smask__layernorm_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *const *s = y->source;
    float *dw = smask__grad_zeroed(c, s[1]), *db = smask__grad_zeroed(c, s[2]);
    smask__norm n = smask__norm_of(y);

    n.dx = smask__grad(c, s[0], &n.add);
    n.dy = y->dx;
    smask__norm_do(c, &n, 1, s[0]->requires_grad, dw, db);
}

SMASK__DEF smask_tensor *smask_gelu(smask_ctx *c, smask_tensor *x)
{
    smask_tensor *y = smask__new_like(c, SMASK_OP_GELU, x, NULL, NULL);

    if (y == NULL) return NULL;
    smask__list_do(c, SMASK__LIST_GELU, y->x, 0, x->x, NULL, smask_count(y));
    return smask__finish(c, y);
}

/* y = gelu(x):   dx += dy gelu'(x) */
SMASK__FN void smask__gelu_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *x = y->source[0];

    smask__list_do(c, SMASK__LIST_GELU_BWD, smask__grad_zeroed(c, x), 0,
        y->dx, x->x, smask_count(y));
}

SMASK__FN smask__gather smask__gather_of(smask_ctx *c, const smask_tensor *y)
{
    smask__gather g;

    memset(&g, 0, sizeof g);
    g.N = (size_t)y->shape[1];
    g.D = (size_t)y->shape[2];
    g.count = (size_t)y->shape[0] * g.N;
    g.piece = smask__piece_rows(g.count, g.D);
    g.x = y->source[0]->x;
    g.fill = y->source[1] != NULL ? y->source[1]->x : NULL;
    g.position = y->source[2] != NULL ? y->source[2]->x : NULL;
    g.index = y->index;
    g.y = y->x;
    g.isa = c->isa;
    return g;
}

SMASK__DEF smask_tensor *smask_gather(smask_ctx *c, smask_tensor *x, int32_t B,
    int32_t N, const int32_t *index, smask_tensor *fill,
    smask_tensor *position)
{
    if (x == NULL) return NULL;
    const size_t D = smask_columns(x);
    if ((fill != NULL && smask_count(fill) != D)
        || (position != NULL && smask_count(position) != (size_t)N * D))
        return smask__fail_shapes(c, "gather", "x", x, fill != NULL ? "fill"
            : "position", fill != NULL ? fill : position);
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_GATHER, B, N, (int32_t)D,
        0, x, fill, position);
    if (y == NULL) return NULL;
    y->index = index;
    smask__gather g = smask__gather_of(c, y);
    for (size_t i = 0; !c->dry && i < g.count; i++) {
        const int32_t at = index != NULL ? index[i] : (int32_t)i;
        if (at < -1 || (at == -1 && fill == NULL)
            || (at >= 0 && (size_t)at >= smask_row_count(x)))
            return smask__fail_null(c, SMASK_RANGE, "gather", at == -1
                ? "index -1 needs fill" : "an index is outside the rows of x");
    }
    smask__run(c, smask__ceil_div(g.count, g.piece), smask__gather_fwd_piece,
        &g);
    return smask__finish(c, y);
}

/* y = x[index] or fill, + position */
SMASK__FN void smask__gather_back(smask_ctx *c, smask_tensor *y)
{
    float *dx = smask__grad_zeroed(c, y->source[0]);
    float *dfill = smask__grad_zeroed(c, y->source[1]);
    float *dposition = smask__grad_zeroed(c, y->source[2]);
    const smask__gather g = smask__gather_of(c, y);

    smask__gather_bwd(c, &g, y->dx, dx, dfill, dposition);
}

SMASK__DEF smask_tensor *smask_mean_tokens(smask_ctx *c, smask_tensor *x,
    int32_t skip)
{
    if (x == NULL) return NULL;
    if (x->rank != 3 || skip < 0 || skip >= x->shape[1])
        return smask__fail_shapes(c, "mean_tokens",
            "x must be (B,N,D), skip in 0 .. N-1; got", x, "", NULL);
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_MEAN_TOKENS, x->shape[0],
        x->shape[2], 0, 0, x, NULL, NULL);
    if (y == NULL) return NULL;
    y->arg[0] = skip;
    const size_t N = (size_t)x->shape[1];
    const size_t D = (size_t)x->shape[2];
    const size_t left = N - (size_t)skip;
    for (size_t b = 0; !c->dry && b < (size_t)x->shape[0]; b++) {
        float *row = y->x + b * D;
        memset(row, 0, D * sizeof *row);
        smask__sum_rows(c->isa, row, x->x + (b * N + (size_t)skip) * D, D,
            left, D);
        smask__scale(c->isa, row, 1 / (float)left, row, D);
    }
    return smask__finish(c, y);
}

/* y = mean of x over tokens skip .. N-1:   dx += dy / (N - skip) */
SMASK__FN void smask__mean_tokens_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *x = y->source[0];
    float *dx = smask__grad_zeroed(c, x);
    const size_t N = (size_t)x->shape[1], D = (size_t)x->shape[2];
    const size_t skip = (size_t)y->arg[0];

    if (dx == NULL || !smask__ok(c)) return;
    for (size_t b = 0; b < (size_t)x->shape[0]; b++)
        for (size_t n = skip; n < N; n++)
            smask__axpy(c->isa, dx + (b * N + n) * D,
                1 / (float)(N - skip), y->dx + b * D, D);
}

SMASK__DEF smask_tensor *smask_l2_normalize(smask_ctx *c, smask_tensor *x)
{
    smask_tensor *y = smask__new_like(c, SMASK_OP_L2_NORMALIZE, x, NULL, NULL);
    const size_t D = smask_columns(x);

    if (y == NULL) return NULL;
    y->save[0] = smask__floats(c, smask_row_count(x));
    for (size_t i = 0; !c->dry && smask__ok(c) && i < smask_row_count(x); i++) {
        const float *row = x->x + i * D;
        const float square = smask__dot(c->isa, row, row, D);
        const float inverse = square > 0 ? 1 / sqrtf(square) : 0;
        y->save[0][i] = inverse;
        smask__scale(c->isa, y->x + i * D, inverse, row, D);
    }
    return smask__finish(c, y);
}

/* y = x / |x|:   dx += (dy - y (y . dy)) / |x| */
SMASK__FN void smask__l2_normalize_back(smask_ctx *c, smask_tensor *y)
{
    float *dx = smask__grad_zeroed(c, y->source[0]);
    const size_t D = smask_columns(y), rows = smask_row_count(y);

    if (dx == NULL || !smask__ok(c)) return;
    for (size_t i = 0; i < rows; i++) {
        const float *row = y->x + i * D, *dy = y->dx + i * D;
        const float inverse = y->save[0][i];
        const float along = smask__dot(c->isa, row, dy, D);
        smask__axpy(c->isa, dx + i * D, inverse, dy, D);
        smask__axpy(c->isa, dx + i * D, -inverse * along, row, D);
    }
}

SMASK__DEF smask_tensor *smask_cross_entropy(smask_ctx *c, smask_tensor *x,
    const float *t)
{
    if (x == NULL) return NULL;
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_CROSS_ENTROPY, 1, 0, 0, 0,
        x, NULL, NULL);
    if (y == NULL) return NULL;
    y->save[0] = smask__floats(c, smask_count(x));
    if (!c->dry && t == NULL)
        smask__fail(c, SMASK_ARG, "cross_entropy", "t is NULL");
    if (!c->dry && smask__ok(c))
        y->x[0] = (float)smask__cross_entropy_fwd(c->isa, x->x, t,
            smask_row_count(x), smask_columns(x), y->save[0]);
    return smask__finish(c, y);
}

/* The gradient of a loss node, a scalar; 1 unless the loss is weighted. */
SMASK__FN float smask__loss_dx(const smask_tensor *y)
{ return y->dx != NULL ? y->dx[0] : 0; }

/* Forward saved dx for a loss whose own gradient is 1. */
SMASK__FN void smask__cross_entropy_back(smask_ctx *c, smask_tensor *y)
{ smask__grad_add(c, y->source[0], smask__loss_dx(y), y->save[0]); }

SMASK__DEF smask_tensor *smask_linear_cross_entropy(smask_ctx *c,
    smask_tensor *x, smask_tensor *w, smask_tensor *b, const int32_t *label,
    int32_t *guess, int32_t *hits)
{
    smask__head_loss a;
    int32_t right = 0;

    if (x == NULL || w == NULL) return NULL;
    memset(&a, 0, sizeof a);
    a.rows = smask_row_count(x);
    a.D = smask_columns(x);
    a.V = (size_t)w->shape[0];
    if (smask_count(w) / a.V != a.D)
        return smask__fail_shapes(c, "linear_cross_entropy", "w", w, "x", x);
    if (b != NULL && !smask__is_vector(b, a.V))
        return smask__fail_shapes(c, "linear_cross_entropy", "b", b, "w", w);
    if (label == NULL && !c->dry)
        return smask__fail_null(c, SMASK_ARG, "linear_cross_entropy",
            "label is NULL");
    for (size_t i = 0; !c->dry && i < a.rows; i++)
        if (label[i] < 0 || (size_t)label[i] >= a.V)
            return smask__fail_null(c, SMASK_RANGE, "linear_cross_entropy",
                "a label is outside 0 .. V-1");
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_LINEAR_CROSS_ENTROPY, 1,
        0, 0, 0, x, w, b);
    if (y == NULL) return NULL;
    a.x = x->x;
    a.w = w->x;
    a.b = b != NULL ? b->x : NULL;
    a.label = label;
    a.guess = guess;
    if (y->requires_grad) {
        a.gradients = 1;
        a.dx = y->save[0] = smask__floats(c, a.rows * a.D);
        a.dw = y->save[1] = smask__floats(c, a.V * a.D);
        a.db = y->save[2] = (float *)smask_alloc(c, a.V * sizeof *a.db);
    }
    const double loss = smask__head_loss_do(c, &a, &right);
    if (y->x != NULL && smask__ok(c)) y->x[0] = (float)loss;
    if (hits != NULL) *hits = right;
    return smask__finish(c, y);
}

/* Forward saved dx, dw and db for a loss whose own gradient is 1. */
SMASK__FN void smask__linear_cross_entropy_back(smask_ctx *c,
    smask_tensor *y)
{
    for (int i = 0; i < 3; i++)
        smask__grad_add(c, y->source[i], smask__loss_dx(y), y->save[i]);
}

SMASK__DEF smask_tensor *smask_info_nce(smask_ctx *c, smask_tensor *x,
    float temperature, int all_negatives, int stop_keys, int32_t *hits)
{
    int32_t right = 0;

    if (x == NULL) return NULL;
    const size_t rows = smask_row_count(x);
    const size_t D = smask_columns(x);
    if (rows % 2 != 0)
        return smask__fail_shapes(c, "info_nce",
            "x must have an even number of rows; got", x, "", NULL);
    if (!(temperature >= 1e-3f && temperature <= 1e3f))
        return smask__fail_null(c, SMASK_ARG, "info_nce",
            "temperature must be in 0.001 .. 1000");
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_INFO_NCE, 1, 0, 0, 0, x,
        NULL, NULL);
    if (y == NULL) return NULL;
    y->arg[0] = stop_keys != 0;
    y->save[0] = smask__floats(c, smask__mul_sat(rows, rows));
    smask_gemm(c, SMASK_NT, rows, rows, D, x->x, D, x->x, D, y->save[0],
        rows, 0);
    if (!c->dry && smask__ok(c))
        y->x[0] = (float)smask__info_nce_fwd(c->isa, y->save[0], rows,
            temperature, all_negatives, &right);
    if (hits != NULL) *hits = right;
    return smask__finish(c, y);
}

/* s = x x' / tau. ds, saved by the forward pass, contains 1 / tau:
     dx += (ds + ds') x,   without ds' if stop_keys */
SMASK__FN void smask__info_nce_back(smask_ctx *c, smask_tensor *y)
{
    smask_tensor *x = y->source[0];
    const size_t rows = smask_row_count(x), D = smask_columns(x);
    int add;
    float *part, *dx = smask__grad(c, x, &add);
    const size_t mark = smask__mark(c);

    part = smask__floats(c, rows * D);
    smask_gemm(c, SMASK_NN, rows, D, rows, y->save[0], rows, x->x, D, part,
        D, 0);
    if (!y->arg[0])
        smask_gemm(c, SMASK_TN, rows, D, rows, y->save[0], rows, x->x, D,
            part, D, 1);
    if (!c->dry && smask__ok(c))
        smask__list_do(c, add ? SMASK__LIST_AXPY : SMASK__LIST_SCALE, dx,
            y->dx[0], part, NULL, rows * D);
    smask__rewind(c, mark);
}

SMASK__DEF smask_tensor *smask_slice(smask_ctx *c, smask_tensor *x,
    int32_t first, int32_t count)
{
    if (x == NULL) return NULL;
    if (first < 0 || count < 1 || count > x->shape[0] - first)
        return smask__fail_null(c, SMASK_RANGE, "slice",
            "first .. first + count - 1 is outside x");
    smask_tensor *y = smask__new_node(c, SMASK_OP_SLICE, count, x->shape[1],
        x->shape[2], x->shape[3], x, NULL, NULL);
    if (y == NULL) return NULL;
    y->arg[0] = first;
    if (!c->dry) y->x = x->x + (size_t)first * smask__item(x);
    return y;
}

/* y = x[first ..]:   dx[first ..] += dy */
SMASK__FN void smask__slice_back(smask_ctx *c, smask_tensor *y)
{
    float *dx = smask__grad_zeroed(c, y->source[0]);

    if (dx != NULL)
        smask__list_do(c, SMASK__LIST_AXPY, dx + (size_t)y->arg[0]
            * smask__item(y), 1, y->dx, NULL, smask_count(y));
}

/* Copy part into buffer, from item `first` on. Returns a node for the buffer
   with the part in it; it shares the buffer's memory. Parts must not overlap,
   because the gradient of an item goes to one part. */
SMASK__FN smask_tensor *smask__join_one(smask_ctx *c, smask_tensor *buffer,
    smask_tensor *part, int32_t first)
{
    if (buffer == NULL || part == NULL) return NULL;
    smask_tensor *y = smask__new_node(c, SMASK_OP_JOIN, buffer->shape[0],
        buffer->shape[1], buffer->shape[2], buffer->shape[3], buffer, part,
        NULL);
    if (y == NULL) return NULL;
    y->x = buffer->x;
    y->arg[0] = first;
    if (!c->dry)
        smask__list_do(c, SMASK__LIST_SCALE, y->x + (size_t)first
            * smask__item(y), 1, part->x, NULL, smask_count(part));
    return y;
}

SMASK__DEF smask_tensor *smask_join(smask_ctx *c, smask_tensor *const *part,
    int32_t parts)
{
    int32_t rows = 0, first = 0;

    for (int i = 0; i < parts; i++) {
        if (part[i] == NULL) return NULL;
        if (smask_row_count(part[i]) > (size_t)(INT32_MAX - rows))
            return smask__fail_null(c, SMASK_SHAPE, "join",
                "more than 2^31 - 1 rows in total");
        if (smask_columns(part[i]) != smask_columns(part[0]))
            return smask__fail_shapes(c, "join", "part", part[i], "part[0]",
                part[0]);
        rows += (int32_t)smask_row_count(part[i]);
    }
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_INPUT, rows, parts > 0
        ? (int32_t)smask_columns(part[0]) : 0, 0, 0, NULL, NULL, NULL);
    for (int i = 0; i < parts && y != NULL; i++) {
        y = smask__join_one(c, y, part[i], first);
        first += (int32_t)smask_row_count(part[i]);
    }
    return y;
}

/* y = whole, with y[first ..] = part */
SMASK__FN void smask__join_back(smask_ctx *c, smask_tensor *y)
{
    smask__grad_add(c, y->source[1], 1, c->dry ? NULL
        : y->dx + (size_t)y->arg[0] * smask__item(y));
    smask__grad_pass(c, y, y->source[0]);
}

SMASK__DEF smask_tensor *smask_user(smask_ctx *c, const smask_user_op *op,
    smask_tensor *a, smask_tensor *b, smask_tensor *d, int32_t d0,
    int32_t d1, int32_t d2, int32_t d3)
{
    if (a == NULL) return NULL;
    if (op == NULL || op->forward == NULL)
        return smask__fail_null(c, SMASK_ARG, "user",
            "op or op->forward is NULL");
    smask_tensor *y = smask__new_tensor(c, SMASK_OP_USER, d0, d1, d2, d3, a,
        b, d);
    if (y == NULL) return NULL;
    y->extra = op;
    if (!c->dry) op->forward(y, op->user);
    return smask__finish(c, y);
}

/* A user op adds to every non-NULL dx of its sources. A source that requires no
   gradient may still have a dx: a parameter frozen by gradcheck or by the user.
   Its pointer is NULL during the call, so that its gradient does not change. */
SMASK__FN void smask__user_back(smask_ctx *c, smask_tensor *y)
{
    const smask_user_op *op = (const smask_user_op *)y->extra;
    float *hidden[3];                    /* dx pointers, put back below    */

    if (op->backward == NULL) {
        smask__fail(c, SMASK_STATE, op->name != NULL ? op->name : "user",
            "op->backward is NULL; training needs it");
        return;
    }
    for (int i = 0; i < 3; i++) smask__grad_zeroed(c, y->source[i]);
    if (c->dry || !smask__ok(c)) return;
    for (int i = 0; i < 3; i++) {
        smask_tensor *t = y->source[i];
        hidden[i] = t != NULL && !t->requires_grad ? t->dx : NULL;
        if (hidden[i] != NULL) t->dx = NULL;
    }
    op->backward(y, op->user);
    for (int i = 0; i < 3; i++)
        if (hidden[i] != NULL) y->source[i]->dx = hidden[i];
}

typedef struct smask__recompute_call {
    smask_fn fn;
    const void *user;
} smask__recompute_call;

SMASK__DEF smask_tensor *smask_recompute(smask_ctx *c, smask_tensor *x,
    smask_fn fn, const void *user)
{
    const int not_recording = c->not_recording;

    if (x == NULL) return NULL;
    smask__recompute_call *again = (smask__recompute_call *)smask__structs(c,
        1, sizeof *again);
    if (again == NULL) return NULL;
    again->fn = fn;
    again->user = user;
    smask__tape_mark start = smask__tape_mark_of(c);
    c->not_recording = 1;
    smask_tensor *t = fn(c, x, user);
    c->not_recording = not_recording;
    if (t != NULL && t->op == SMASK_OP_PARAM)
        return smask__fail_null(c, SMASK_ARG, "recompute",
            "fn returned a parameter; return the output of an op");
    smask_tensor *y = smask__tape_rewind_keeping(c, SMASK_OP_RECOMPUTE, t,
        start);
    if (y == NULL) return NULL;
    y->source[0] = x;
    y->extra = again;
#ifndef SPLITMASK_NO_AUTOGRAD
    y->requires_grad = !not_recording && !c->desc.inference;
#endif
    return smask__finish(c, y);
}

/* Run fn a second time, now recording, and walk the inner tape it records.
   - Its input is a leaf that shares the values of x. The walk stops there, and
     leaf->dx is added to the outer dx of x.
   - Its output gets y->dx as a FIXED gradient: the outer node y owns it.
   - The rewind drops all memory taken inside, gradients as well. So the inner
     walk has its own free list, which ends with it; and fn may use only x and
     parameters, because any other outer gradient would be lost here. */
SMASK__FN void smask__recompute_back(smask_ctx *c, smask_tensor *y)
{
    const smask__recompute_call *again =
        (const smask__recompute_call *)y->extra;
    smask_tensor *x = y->source[0], *leaf, *t;
    const int not_recording = c->not_recording;
    int add;
    float *dx = smask__grad(c, x, &add);
    struct smask__free *const list = c->free_list;
    const smask__tape_mark start = smask__tape_mark_of(c);

    c->not_recording = 0;
    c->free_list = NULL;
    leaf = smask__new_node(c, SMASK_OP_INPUT, x->shape[0], x->shape[1],
        x->shape[2], x->shape[3], NULL, NULL, NULL);
    if (leaf != NULL) {
        leaf->x = x->x;
        leaf->requires_grad = x->requires_grad;
    }
    t = leaf != NULL ? again->fn(c, leaf, again->user) : NULL;
    if (t != NULL) {
        t->dx = y->dx;
        t->dx_state = SMASK__DX_FIXED;
        smask__walk(c, t, leaf);
        if (leaf->requires_grad && leaf->dx_state != SMASK__DX_NONE)
            smask__list_do(c, add ? SMASK__LIST_AXPY : SMASK__LIST_SCALE, dx,
                1, leaf->dx, NULL, smask_count(x));
        else if (dx != NULL && !add)
            memset(dx, 0, smask_count(x) * sizeof *dx);
    }
    smask__tape_rewind(c, start);
    c->free_list = list;
    c->not_recording = not_recording;
}

#define SMASK__CASE(NAME, name)                                             \
    case SMASK_OP_##NAME: smask__##name##_back(c, y); break;
SMASK__FN void smask__backward_one(smask_ctx *c, smask_tensor *y)
{
    switch ((smask_op)y->op) {
    SMASK_OPS(SMASK__CASE)
    case SMASK_OP_COUNT: break;
    }
}
#undef SMASK__CASE

/* ======================================================================
   9  THE VISION TRANSFORMER                                       >>vit
   Question   How does a list of patches become a list of features?
   Idea       The patch embedding turns each patch into a patch token: a
              vector of width D. A position embedding is added to it. A
              block mixes the tokens of an image (attention), then
              transforms each token alone (MLP). Each of the two adds its
              output to the token (residual). L blocks; then a layer norm.

              images (B,C,S,S) -> patches (B,N,CPP) -> tokens (B,N,D)
                -> block 1 .. block L -> norm -> mean over N -> (B,D)

              Attention does not mix images. So a group of images (`group`
              tokens) passes through all blocks before the next group
              starts: a layer finds its input still in the cache.
   May call   1 to 8.            Called by   10, 12 to 14.
   Source     Dosovitskiy et al. 2021 [Dos21]; initial values and relative
              position bias: BEiT [Bao21]; LayerScale [Tou21];
              stochastic depth [Hua16].
   ====================================================================== */

/* ---- Fields of a description ---- */

/* One field: its key in files (timm's name if timm has one), its C name, its
   minimum and its maximum. Each field has four bytes, and a file stores it as
   one integer. A float is stored as its bit pattern, so nothing is rounded.
   Bit patterns of floats >= 0 sort like the floats, so integer limits work
   for them too. Negative floats and NaN sort above all limits: they fail. */
typedef struct smask__field {
    char key[28], field[24];
    size_t at;
    uint32_t low, high;
} smask__field;

#define SMASK__V(key, field, low, high)                                     \
    { key, #field, offsetof(smask_vit_desc, field), low, high },
static const smask__field smask__vit_fields[] = {
    SMASK__V("img_size", image, 1, 16384)
    SMASK__V("patch_size", patch, 1, 1024)
    SMASK__V("in_chans", channels, 1, 1024)
    SMASK__V("embed_dim", dim, 1, 65536)
    SMASK__V("depth", depth, 1, 199)
    SMASK__V("num_heads", heads, 1, 65536)
    SMASK__V("mlp_ratio", mlp_ratio, 1, 64)
    SMASK__V("sincos", sincos, 0, 1)
    SMASK__V("num_classes", classes, 0, 1 << 24)
    SMASK__V("vocab_size", vocabulary, 0, 1 << 24)
    SMASK__V("decoder_depth", decoder_depth, 0, 199)
    SMASK__V("class_token", class_token, 0, 1)
    SMASK__V("pool_class", pool_class, 0, 1)
    SMASK__V("mask_token", mask_token, 0, 1)
    SMASK__V("relative_bias", relative_bias, 0, 2)
    SMASK__V("no_position", no_position, 0, 1)
    SMASK__V("no_bridge", no_decoder_embed, 0, 1)
    SMASK__V("decoder_shares_position", decoder_shares_position, 0, 1)
    SMASK__V("init_values_bits", layer_scale, 0, 0x7f7fffff) /* finite     */
    SMASK__V("drop_path_bits", drop_path, 0, 0x3f7fffff)     /* below 1    */
    { "", "", 0, 0, 0 } };
#undef SMASK__V

/* 1 if every field is in its range and c has no error. */
SMASK__FN int smask__fields_in_range(smask_ctx *c, const char *where,
    const smask__field *list, const void *desc)
{
    char text[48];
    uint32_t n;

    for (; list->key[0] != '\0'; list++) {
        memcpy(&n, (const char *)desc + list->at, sizeof n);
        if (n >= list->low && n <= list->high) continue;
        smask__append_text(smask__append_text(text, list->field),
            " is out of range");
        smask__fail(c, SMASK_ARG, where, text);
    }
    return smask__ok(c);
}

/* ---- Weights ---- */

typedef struct smask__builder {
    smask_ctx *c;
    smask_vit *v;
    const float *at;                 /* the caller's next weights; or NULL */
    const char *prefix;              /* of the current block's names       */
    int32_t number, layer;
} smask__builder;

/* Initial values: see SMASK_BLOCK_WEIGHTS; TINY is a thousandth of N. */
typedef enum smask__init_kind { SMASK__INIT_0, SMASK__INIT_1, SMASK__INIT_N,
    SMASK__INIT_S, SMASK__INIT_G, SMASK__INIT_TINY } smask__init_kind;

/* A standard normal draw; draws beyond 2 deviations are repeated. */
SMASK__FN float smask__normal_within(smask_random *r)
{
    float x;

    do x = smask_normal(r); while (x > 2 || x < -2);
    return x;
}

SMASK__FN void smask__init_values(const smask__builder *m, smask_tensor *t,
    smask__init_kind first)
{
    const smask_vit_desc *d = &m->v->desc;
    float std = 0, constant = 0;

    switch (first) {
    case SMASK__INIT_0: break;
    case SMASK__INIT_1: constant = 1; break;
    case SMASK__INIT_G: constant = d->layer_scale; break;
    case SMASK__INIT_N: std = d->init_std; break;
    case SMASK__INIT_S: std = d->init_std / sqrtf(2 * (float)m->layer); break;
    case SMASK__INIT_TINY: std = d->init_std * 0.001f; break;
    }
    for (size_t i = 0; i < smask_count(t); i++)
        t->x[i] = std > 0 ? std * smask__normal_within(&m->c->random)
            : constant;
}

/* Add one parameter: a tensor (rows), or (rows, columns), and its name. */
SMASK__FN smask_tensor *smask__add_param(smask__builder *m, const char *name,
    int32_t rows, int32_t columns, smask__init_kind first)
{
    smask_params *list = &m->v->params;
    char *end;

    smask_tensor *t = smask__parameter_on(m->c, m->at, rows, columns, 0, 0);
    if (t == NULL || list->count == list->capacity) return NULL;
    if (m->at != NULL) m->at += smask_count(t);
    else if (t->x != NULL) smask__init_values(m, t, first);
    smask_param *p = &list->item[list->count++];
    p->t = t;
    end = smask__append_text(p->name, m->prefix);       /* blocks.3.name  */
    if (m->number >= 0)
        end = smask__append_text(smask__append_digits(end, (uint64_t)m->number),
            ".");
    smask__append_text(end, name);
    p->decay = columns != 0;
    p->layer = m->layer;
    p->rank = t->rank;
    memcpy(p->shape, t->shape, sizeof p->shape);
    return t;
}

/* The same; files store it with shape (d0, .., d3), as timm does. */
SMASK__FN smask_tensor *smask__add_param_as(smask__builder *m, const char *name,
    int32_t rows, int32_t columns, int32_t decay, int32_t d0, int32_t d1,
    int32_t d2, int32_t d3)
{
    const int32_t shape[4] = { d0, d1, d2, d3 };
    smask_tensor *t = smask__add_param(m, name, rows, columns, SMASK__INIT_N);

    if (t == NULL) return NULL;
    smask_param *p = &m->v->params.item[m->v->params.count - 1];
    memcpy(p->shape, shape, sizeof shape);
    p->rank = d3 != 0 ? 4 : 3;
    p->decay = decay;
    return t;
}

#define SMASK__ADD(field, name, rows, columns, first)                      \
    field = smask__add_param(m, name, rows, columns, SMASK__INIT_##first)

SMASK__FN smask_block *smask__add_blocks(smask__builder *m, int encoder)
{
    const smask_vit_desc *d = &m->v->desc;
    const int32_t D = d->dim, F = d->mlp_ratio * D;
    const int32_t side = 2 * m->v->grid - 1;         /* -(G-1) .. G-1     */
    const int32_t depth = encoder ? d->depth : d->decoder_depth;
    smask_block *k = (smask_block *)smask__structs(m->c, (size_t)depth,
        sizeof *k);

    if (k == NULL) return NULL;
    m->prefix = encoder ? "blocks." : "decoder.blocks.";
    for (int32_t l = 0; l < depth; l++) {
        m->number = l;
        m->layer = encoder ? l + 1 : d->depth + 1;
#define SMASK__ADD_FIELD(field, name, rows, columns, first)                \
        if (SMASK__INIT_##first != SMASK__INIT_G || d->layer_scale > 0)   \
            SMASK__ADD(k[l].field, name, rows, columns, first);
        SMASK_BLOCK_WEIGHTS(SMASK__ADD_FIELD)
#undef SMASK__ADD_FIELD
        if (encoder && d->relative_bias == 2)
            SMASK__ADD(k[l].bias, "attn.relative_position_bias_table",
                side * side + 3, d->heads, 0);
        k[l].heads = d->heads;
        if (encoder && depth > 1)        /* drop rises linearly with depth */
            k[l].drop = d->drop_path * (float)l / (float)(depth - 1);
    }
    m->prefix = "";
    m->number = -1;
    m->layer = d->depth + 1;             /* of later parameters            */
    return k;
}

/* Fixed position embedding x (grid grid, D): sin and cos of the column, then
   of the row. Wavelengths run from 2 pi to 20000 pi patches [He22]. */
SMASK__FN void smask__sincos(float *x, int32_t grid, int32_t D)
{
    const int32_t quarter = D / 4;

    for (int32_t n = 0; n < grid * grid; n++, x += D)
        for (int32_t i = 0; i < quarter; i++) {
            const double pace = pow(10000, -(double)i / quarter);
            const double across = n % grid * pace, down = n / grid * pace;
            x[i] = (float)sin(across);
            x[quarter + i] = (float)cos(across);
            x[2 * quarter + i] = (float)sin(down);
            x[3 * quarter + i] = (float)cos(down);
        }
}

/* index (T, T): the row of the bias table for each pair of tokens. A pair of
   patches uses the row of its offset (rows, columns). The last three rows are
   for class token -> patch, patch -> class token, and class token -> itself. */
SMASK__FN int32_t *smask__bias_index(smask_ctx *c, int32_t G, int32_t skip)
{
    const int32_t T = G * G + skip, last = (2 * G - 1) * (2 * G - 1) + 2;
    int32_t *index = smask__indices(c, smask__mul_sat((size_t)T, (size_t)T));
    int32_t *at = index, i, j;

    for (i = 0; i < T && index != NULL; i++)
        for (j = 0; j < T; j++) {
            const int32_t a = i - skip, b = j - skip;
            *at++ = a < 0 ? (b < 0 ? last : last - 2)
                : b < 0 ? last - 1
                : (a / G - b / G + G - 1) * (2 * G - 1)
                + a % G - b % G + G - 1;
        }
    return index;
}

SMASK__FN smask_result smask__vit_check(smask_ctx *c, const smask_vit_desc *d)
{
    const char *what = NULL;

    if (!smask__fields_in_range(c, "vit_init", smask__vit_fields, d))
        return c->error;
    if (d->group < 1)
        what = "group must be at least 1";
    else if (!smask__finite(d->init_std) || !(d->init_std > 0))
        what = "init_std must be finite and above 0";
    else if (d->image % d->patch != 0)
        what = "image must be a multiple of patch";
    else if (d->dim % d->heads != 0)
        what = "dim must be a multiple of heads";
    else if (d->sincos && (d->dim % 4 != 0 || d->no_position))
        what = "sincos needs no_position = 0 and dim a multiple of 4";
    else if (d->pool_class && !d->class_token)
        what = "pool_class needs class_token = 1";
    else if (d->decoder_shares_position && d->no_position)
        what = "decoder_shares_position needs no_position = 0";
    if (what != NULL) return smask__fail(c, SMASK_ARG, "vit_init", what);
    if (c->in_step)
        return smask__fail(c, SMASK_STATE, "vit_init",
            "called inside a step; call smask_end_step first");
    if (d->weights != NULL && !c->desc.inference)
        return smask__fail(c, SMASK_STATE, "vit_init",
            "desc->weights is read-only; set smask_desc.inference, or "
            "weights = NULL");
    return c->error;
}

SMASK__FN void smask__vit_defaults(smask_vit_desc *d)
{
    if (d->image == 0) d->image = 32;
    if (d->patch == 0) d->patch = 4;
    if (d->channels == 0) d->channels = 3;
    if (d->dim == 0) d->dim = 128;
    if (d->depth == 0) d->depth = 6;
    if (d->heads == 0) d->heads = d->dim >= 64 ? d->dim / 64 : 1;
    if (d->mlp_ratio == 0) d->mlp_ratio = 4;
    if (d->group == 0) d->group = 1024;
    if (d->init_std == 0) d->init_std = 0.02f;
    if (d->layer_scale < 0) d->layer_scale = 0;
}

/* The decoder and the prediction head; in files all are `decoder.*`. */
SMASK__FN void smask__add_decoder(smask__builder *m)
{
    smask_vit *v = m->v;
    const smask_vit_desc *d = &v->desc;
    const int32_t D = d->dim, N = v->tokens, V = d->vocabulary;

    if (d->decoder_depth > 0) {
        if (!d->no_decoder_embed) {
            SMASK__ADD(v->decoder_embed_w, "decoder.bridge.weight", D, D, N);
            SMASK__ADD(v->decoder_embed_b, "decoder.bridge.bias", D, 0, 0);
        }
        v->decoder_mask = smask__add_param_as(m, "decoder.mask_token", D, 0, 1,
            1, 1, D, 0);
        if (!d->decoder_shares_position)
            v->decoder_position = smask__add_param_as(m, "decoder.pos_embed", N,
                D, 0, 1, N, D, 0);
        v->decoder = smask__add_blocks(m, 0);
        SMASK__ADD(v->decoder_norm_w, "decoder.norm.weight", D, 0, 1);
        SMASK__ADD(v->decoder_norm_b, "decoder.norm.bias", D, 0, 0);
    }
    if (V > 0) {
        SMASK__ADD(v->head_w, "decoder.head.weight", V, D, N);
        SMASK__ADD(v->head_b, "decoder.head.bias", V, 0, 0);
    }
}

/* Add all parameters. Their order is the order of a file. */
SMASK__FN void smask__add_all_params(smask_ctx *c, smask_vit *v)
{
    const smask_vit_desc *d = &v->desc;
    const int32_t D = d->dim, C = d->channels, P = d->patch;
    const int32_t G = d->image / P, skip = d->class_token;
    const int32_t T = G * G + skip, side = 2 * G - 1;
    smask__builder maker = { c, v, d->weights, "", -1, 0 }, *m = &maker;

    v->grid = G;
    v->tokens = G * G;
    v->params.capacity = 15 * (d->depth + d->decoder_depth) + 24;
    v->params.item = (smask_param *)smask__structs(c,
        (size_t)v->params.capacity, sizeof(smask_param));
    if (skip) v->cls = smask__add_param_as(m, "cls_token", D, 0, 0, 1, 1, D, 0);
    if (!d->no_position)
        v->position = smask__add_param_as(m, "pos_embed", T, D, 0, 1, T, D, 0);
    if (d->sincos && v->position != NULL) {          /* fixed: no gradient    */
        v->position->requires_grad = 0;
        if (v->position->x != NULL && m->at == NULL) {
            memset(v->position->x, 0, smask_count(v->position)
                * sizeof(float));
            smask__sincos(v->position->x + skip * D, G, D);
        }
    }
    v->patch_w = smask__add_param_as(m, "patch_embed.proj.weight", D, C * P * P,
        1, D, C, P, P);
    SMASK__ADD(v->patch_b, "patch_embed.proj.bias", D, 0, 0);
    if (d->mask_token)
        v->mask = smask__add_param_as(m, "mask_token", D, 0, 1, 1, 1, D, 0);
    if (d->relative_bias == 1)
        SMASK__ADD(v->bias, "rel_pos_bias.relative_position_bias_table",
            side * side + 3, d->heads, 0);
    v->blocks = smask__add_blocks(m, 1);
    SMASK__ADD(v->norm_w, "norm.weight", D, 0, 1);
    SMASK__ADD(v->norm_b, "norm.bias", D, 0, 0);
    if (d->classes > 0) {
        SMASK__ADD(v->classifier_w, "head.weight", d->classes, D, TINY);
        SMASK__ADD(v->classifier_b, "head.bias", d->classes, 0, 0);
    }
    smask__add_decoder(m);
    if (d->relative_bias != 0) v->bias_index = smask__bias_index(c, G, skip);
}
#undef SMASK__ADD

SMASK__DEF smask_result smask_vit_init(smask_ctx *c, smask_vit *v,
    const smask_vit_desc *desc)
{
    const smask__tape_mark start = smask__tape_mark_of(c);
    smask_vit_desc d;

    memset(&d, 0, sizeof d);
    if (desc != NULL) d = *desc;
    smask__vit_defaults(&d);
    memset(v, 0, sizeof *v);
    v->desc = d;
    if (smask__ok(c) && smask__vit_check(c, &d) == SMASK_OK)
        smask__add_all_params(c, v);
    if (!smask__ok(c)) {                 /* never a partial model          */
        memset(v, 0, sizeof *v);
        smask__tape_rewind(c, start);
    }
    return c->error;
}

SMASK__DEF size_t smask_params_count(const smask_params *p)
{
    size_t n = 0;

    for (int32_t i = 0; i < p->count; i++) n += smask_count(p->item[i].t);
    return n;
}

SMASK__DEF smask_param *smask_params_find(const smask_params *p,
    const char *name)
{
    for (int32_t i = 0; i < p->count; i++)
        if (strcmp(p->item[i].name, name) == 0) return &p->item[i];
    return NULL;
}

SMASK__DEF void smask_params_zero(smask_ctx *c, const smask_params *p)
{
    (void)c;                             /* works after an error, too      */
    for (int32_t i = 0; i < p->count; i++)
        if (p->item[i].t->dx != NULL)
            memset(p->item[i].t->dx, 0,
                smask_count(p->item[i].t) * sizeof(float));
}

/* ---- From pixels to patches ---- */

/* Cut images into patches; one piece of work is one image. */
typedef struct smask__patchify {
    const float *images;
    float *rows;
    size_t C, S, P;
    int half_resolution;             /* 1: downsample by 2 first           */
    int centre;                      /* 1: subtract each patch's mean      */
} smask__patchify;

/* x -= mean(x). The sum of n equal floats is exact in double, so a constant
   patch becomes exactly 0. Rounding noise would give it a random direction. */
SMASK__FN void smask__centre(float *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) sum += (double)x[i];
    for (size_t i = 0; i < n; i++) x[i] -= (float)(sum / (double)n);
}

/* The half-resolution copy is never stored. A tokenizer's P is then even, so
   no 2 x 2 square crosses a patch border: two pixel rows give one patch row. */
SMASK__FN void smask__patchify_piece(void *arg, int piece, int worker)
{
    const smask__patchify *k = (const smask__patchify *)arg;
    const size_t S = k->S, G = S / k->P, by = k->half_resolution ? 2 : 1;
    const size_t p = k->P / by, d = k->C * p * p;
    float *row = k->rows + (size_t)piece * G * G * d;

    (void)worker;
    for (size_t i = 0; i < G * G; i++) {
        for (size_t channel = 0; channel < k->C; channel++)
            for (size_t y = 0; y < p; y++, row += p) {
                const float *a = k->images + i % G * k->P + S * (i / G * k->P
                    + by * y + S * (channel + k->C * (size_t)piece));
                if (!k->half_resolution) memcpy(row, a, p * sizeof *row);
                for (size_t x = 0; k->half_resolution && x < p; x++, a += 2)
                    row[x] = 0.25f * (a[0] + a[1] + a[S] + a[S + 1]);
            }
        if (k->centre) smask__centre(row - d, d);
    }
}

SMASK__FN void smask__patchify_all(smask__patchify k, int32_t B)
{ for (int32_t b = 0; b < B; b++) smask__patchify_piece(&k, b, 0); }

SMASK__DEF void smask_patches(const float *images, int32_t B, int32_t C,
    int32_t S, int32_t P, float *rows)
{
    const smask__patchify k = { images, rows, (size_t)C, (size_t)S, (size_t)P,
        0, 0 };

    smask__patchify_all(k, B);
}

/* The pixels that output pixel i of S is made of, in a row of `side` pixels:
   their first, their number, and the filter's centre and half width. */
typedef struct smask__span { size_t first, count; float centre, reach; }
    smask__span;

SMASK__FN smask__span smask__span_of(size_t i, size_t S, size_t side)
{
    const float scale = (float)side / (float)S;
    smask__span s = { 0, 0, ((float)i + 0.5f) * scale, scale > 1 ? scale : 1 };

    if (s.centre > s.reach) s.first = (size_t)(s.centre - s.reach + 0.5f);
    s.count = smask__min(side, (size_t)(s.centre + s.reach + 0.5f)) - s.first;
    return s;
}

SMASK__INLINE float smask__span_weight(const smask__span *s, size_t k)
{
    const float apart = fabsf((float)(s->first + k) + 0.5f - s->centre);

    return apart < s->reach ? 1 - apart / s->reach : 0;
}

SMASK__DEF void smask_images_from_bytes(const unsigned char *bytes, int32_t B,
    int32_t H, int32_t W, int32_t C, int32_t S, const float *mean,
    const float *std, float *images)
{
    const size_t h = (size_t)H, w = (size_t)W, channels = (size_t)C;
    const size_t s = (size_t)S, side = smask__min(h, w);
    const size_t corner = ((h - side) / 2 * w + (w - side) / 2) * channels;

    for (int32_t b = 0; b < B; b++, bytes += h * w * channels)
        for (size_t ch = 0; ch < channels; ch++)
            for (size_t at = 0; at < s * s; at++) {
                const smask__span down = smask__span_of(at / s, s, side);
                const smask__span right = smask__span_of(at % s, s, side);
                float sum = 0, total = 0;
                for (size_t i = 0; i < down.count; i++)
                    for (size_t j = 0; j < right.count; j++) {
                        const float weight = smask__span_weight(&down, i)
                            * smask__span_weight(&right, j);
                        sum += weight * (float)bytes[corner + ch + channels
                            * ((down.first + i) * w + right.first + j)];
                        total += weight;
                    }
                *images++ = (sum / total / 255 - (mean != NULL ? mean[ch]
                    : 0.5f)) / (std != NULL ? std[ch] : 0.5f);
            }
}

/* Row counts are int32_t: the rows of two views of B images must fit. */
SMASK__FN int smask__batch_fits(const smask_vit *v, int32_t B)
{ return B >= 1 && B <= INT32_MAX / 2 / (v->tokens + 2); }

SMASK__DEF smask_tensor *smask_vit_embed(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B)
{
    const smask_vit_desc *d = &v->desc;
    const int32_t wide = d->channels * d->patch * d->patch;
    smask__patchify cut = { images, NULL, (size_t)d->channels, (size_t)d->image,
        (size_t)d->patch, 0, 0 };

    if (v->patch_w == NULL || !smask__batch_fits(v, B)
        || (images == NULL && !c->dry))
        return smask__fail_null(c, SMASK_ARG, "vit_embed", v->patch_w == NULL
            ? "the model is not initialised; call smask_vit_init"
            : images == NULL && !c->dry
            ? "images is NULL" : "B must be in 1 .. 2^30 / (N + 2)");
    cut.rows = smask__floats(c, (size_t)B * (size_t)v->tokens
        * (size_t)wide);
    smask__run(c, (size_t)B, smask__patchify_piece, &cut);
    return smask_linear(c, smask_input(c, cut.rows, B, v->tokens, wide, 0),
        v->patch_w, v->patch_b);
}

/* ---- Blocks ---- */

typedef struct smask__block_call {
    const smask_vit *v;
    const smask_block *k;
    smask_tensor *bias;
    const float *keep[2];            /* (B) scale of each branch, or NULL  */
    smask_tensor *buffer;            /* for attention's output, or NULL    */
} smask__block_call;

/* Mark a tensor that no caller can hold. Its node owns its values, and
   backpropagation reuses that memory as soon as it has passed the node. A
   transient tensor does not own its values: they lie in the shared buffer. */
SMASK__FN smask_tensor *smask__reusable(smask_tensor *t)
{
    if (t != NULL)
        t->x_state = smask__transient(t) ? SMASK__X_STAYS : SMASK__X_REUSABLE;
    return t;
}

/* LayerScale multiplies each output of a branch. Scaling the rows of the
   branch's last weights and bias gives the same, at a cost without B T. */
SMASK__FN smask_block smask__block_scaled(smask_ctx *c, const smask_block *k)
{
    smask_block y = *k;

    if (k->ls1 == NULL) return y;
    y.out_w = smask_scale_rows(c, k->out_w, k->ls1);
    y.out_b = smask_scale_rows(c, k->out_b, k->ls1);
    y.down_w = smask_scale_rows(c, k->down_w, k->ls2);
    y.down_b = smask_scale_rows(c, k->down_b, k->ls2);
    y.ls1 = y.ls2 = NULL;
    return y;
}

/* Attention's output is transient: call->buffer holds it only until the next
   linear has read it. Backpropagation recomputes those values. */
SMASK__FN smask_tensor *smask__block_run(smask_ctx *c, smask_tensor *x,
    const void *user)
{
    const smask__block_call *call = (const smask__block_call *)user;
    const smask_block scaled = smask__block_scaled(c, call->k);
    const smask_block *k = &scaled;
    smask_tensor *h;

    h = smask_norm_linear(c, x, k->ln1_w, k->ln1_b, k->qkv_w, k->qkv_b);
    h = smask__attention_op(c, smask__reusable(h), k->heads, call->bias,
        call->bias != NULL ? call->v->bias_index : NULL, call->buffer);
    x = smask_linear_add(c, smask__reusable(h), k->out_w, k->out_b, x,
        call->keep[0]);
    h = smask_norm_linear(c, smask__reusable(x), k->ln2_w, k->ln2_b, k->up_w,
        k->up_b);                                              /* (B,N,F)  */
    return smask_gelu_linear_add(c, smask__reusable(h), k->down_w, k->down_b, x,
        call->keep[1]);
}

/* Stochastic depth. A random subset of the images skips a whole branch; the
   others scale it by 1 / (1 - drop), which keeps the expected value. */
SMASK__FN const float *smask__draw_keep(smask_ctx *c, float drop, int32_t B)
{
    float *keep = smask__floats(c, (size_t)B);

    for (int32_t b = 0; b < B && keep != NULL; b++)
        keep[b] = smask_uniform(&c->random) < drop ? 0 : 1 / (1 - drop);
    return keep;
}

SMASK__FN smask__block_call smask__block_call_of(smask_ctx *c,
    const smask_vit *v, const smask_block *k, const smask_tensor *x,
    smask_tensor *bias)
{
    smask__block_call call = { v, k, bias, { NULL, NULL }, NULL };

    if (v->training && k->drop > 0 && x != NULL) {
        call.keep[0] = smask__draw_keep(c, k->drop, x->shape[0]);
        call.keep[1] = smask__draw_keep(c, k->drop, x->shape[0]);
    }
    return call;
}

SMASK__DEF smask_tensor *smask_vit_block(smask_ctx *c, const smask_vit *v,
    const smask_block *k, smask_tensor *x, smask_tensor *bias)
{
    const smask__block_call call = smask__block_call_of(c, v, k, x, bias);

    return x == NULL ? NULL : smask__block_run(c, x, &call);
}

/* Run a list of blocks; k NULL ends it. If c records no tape, each output
   moves to where the first one was: L blocks need the memory of one. */
SMASK__FN smask_tensor *smask__stack_run(smask_ctx *c, smask_tensor *x,
    const void *user)
{
    const smask__block_call *call = (const smask__block_call *)user;
    const smask__tape_mark start = smask__tape_mark_of(c);

    for (; call->k != NULL && x != NULL; call++) {
        x = smask__block_run(c, x, call);
        if (c->not_recording)
            x = smask__tape_rewind_keeping(c, SMASK_OP_INPUT, x, start);
    }
    return x;
}

/* The same for one group of images. With desc.recompute, backpropagation
   recomputes runs of three blocks. Shorter runs store more inputs between
   them; longer runs hold more recomputed values at once. All random draws
   are made here, so that the second run uses the same keep values. */
SMASK__FN smask_tensor *smask__stack_of(smask_ctx *c, const smask_vit *v,
    const smask_block *k, int32_t depth, smask_tensor *x, smask_tensor *bias,
    smask_tensor *buffer)
{
    const int again = v->desc.recompute && !c->not_recording;
    const int32_t run = again ? 3 : depth;

    for (int32_t l = 0; l < depth && x != NULL; l += run) {
        smask__block_call *call = (smask__block_call *)smask__structs(c,
            (size_t)run + 1, sizeof *call);
        if (call == NULL) return NULL;
        for (int32_t at = 0; at < run && l + at < depth; at++) {
            call[at] = smask__block_call_of(c, v, &k[l + at], x,
                k[l + at].bias != NULL ? k[l + at].bias : bias);
            call[at].buffer = buffer;
        }
        x = again ? smask_recompute(c, x, smask__stack_run, call)
            : smask__stack_run(c, x, call);
    }
    return x;
}

/* One group of images after the other. All groups share one attention buffer
   and one output, `whole`. While recording, a group's output is copied into
   `whole`; its own memory is the last taken, so the arena takes it back.
   part->x then points into `whole`, the only copy left. */
SMASK__FN smask_tensor *smask__block_list(smask_ctx *c, const smask_vit *v,
    const smask_block *k, int32_t depth, smask_tensor *x, smask_tensor *bias)
{
    if (x == NULL || depth < 1) return x;
    if (x->rank != 3)
        return smask__fail_shapes(c, "vit_blocks", "x must be (B,T,D); got", x,
            "", NULL);
    const int32_t B = x->shape[0];
    int32_t each = v->desc.group / x->shape[1];      /* images a group     */
    if (each < 1) each = 1;
    if (each > B) each = B;
    each = (B - 1) / ((B - 1) / each + 1) + 1;       /* of nearly one size */
    smask_tensor *buffer = smask__new_tensor(c, SMASK_OP_INPUT, each,
        x->shape[1], x->shape[2], 0, NULL, NULL, NULL);
    if (each == B) return smask__stack_of(c, v, k, depth, x, bias, buffer);
    if (k->ls1 != NULL && !v->desc.recompute && !c->not_recording) {
        smask_block *once = (smask_block *)smask__structs(c, (size_t)depth,
            sizeof *once);
        if (once == NULL) return NULL;
        for (int32_t l = 0; l < depth; l++)
            once[l] = smask__block_scaled(c, &k[l]);
        k = once;                        /* scaled once for all groups     */
    }
    smask_tensor *whole = smask__new_tensor(c, SMASK_OP_INPUT, B, x->shape[1],
        x->shape[2], 0, NULL, NULL, NULL);
    for (int32_t b = 0; b < B; b += each) {
        const smask__tape_mark start = smask__tape_mark_of(c);
        smask_tensor *part = smask__stack_of(c, v, k, depth, smask_slice(c, x,
            b, b + each < B ? each : B - b), bias, buffer);
        smask_tensor *joined = smask__join_one(c, whole, part, b);
        if (joined == NULL) return NULL;
        if (c->not_recording) {
            smask__tape_rewind(c, start);
            continue;
        }
        whole = joined;
        if (!c->dry) part->x = whole->x + (size_t)b * smask__item(whole);
        smask__rewind(c, smask__mark(c)  /* frees the part's own copy      */
            - smask__round_up(smask_count(part) * sizeof(float), SMASK__ALIGN));
    }
    return whole;
}

SMASK__DEF smask_tensor *smask_vit_blocks(smask_ctx *c, const smask_vit *v,
    smask_tensor *x)
{ return smask__block_list(c, v, v->blocks, v->desc.depth, x, v->bias); }

/* Add the position embeddings; put the class token, if any, first. */
SMASK__FN smask_tensor *smask__vit_place(smask_ctx *c, const smask_vit *v,
    smask_tensor *x, int32_t B)
{
    const int32_t N = v->tokens;

    if (v->cls == NULL)
        return v->position != NULL ? smask_gather(c, x, B, N, NULL, NULL,
            v->position) : x;
    int32_t *index = smask__indices(c, (size_t)B * (size_t)(N + 1));
    for (int32_t b = 0; b < B && index != NULL; b++)
        for (int32_t n = 0; n <= N; n++)
            index[b * (N + 1) + n] = n == 0 ? -1 : b * N + n - 1;
    return smask_gather(c, x, B, N + 1, index, v->cls, v->position);
}

SMASK__DEF smask_tensor *smask_vit_encode(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B)
{
    smask_tensor *x = smask_vit_embed(c, v, images, B);

    x = smask_vit_blocks(c, v, smask__vit_place(c, v, x, B));
    return smask_layernorm(c, x, v->norm_w, v->norm_b);
}

/* ---- Decoder ---- */

/* The encoder's final norm, then decoder_embed unless no_decoder_embed. */
SMASK__FN smask_tensor *smask__decoder_embed(smask_ctx *c, const smask_vit *v,
    smask_tensor *x)
{
    return v->decoder_embed_w != NULL
        ? smask_norm_linear(c, x, v->norm_w, v->norm_b, v->decoder_embed_w,
            v->decoder_embed_b)
        : smask_layernorm(c, x, v->norm_w, v->norm_b);
}

/* With desc.decoder_shares_position visible tokens get no second position
   embedding; a masked patch n is the mask token + the encoder's position
   embedding n. All images share these N masked tokens. They precede the
   visible tokens in one list, so row k of x is row k + N there. An index that
   names no row stays invalid, and smask_gather reports it. */
SMASK__FN smask_tensor *smask__decoder_shared(smask_ctx *c,
    const smask_vit *v, smask_tensor *x, const int32_t *index, int32_t R)
{
    const int32_t N = v->tokens;
    int32_t *none = smask__indices(c, (size_t)N), i;
    int32_t *at = smask__indices(c, (size_t)R * (size_t)N);
    smask_tensor *part[2];

    for (i = 0; i < N && at != NULL; i++) none[i] = -1;
    for (i = 0; i < R * N && at != NULL; i++) {
        const int32_t k = index != NULL ? index[i] : i;
        at[i] = k > INT32_MAX - N ? -2 : k >= 0 ? k + N       /* no such row */
            : k == -1 ? i % N : k;
    }
    part[0] = smask_gather(c, x, 1, N, none, v->decoder_mask, smask_slice(c,
        v->position, v->desc.class_token, N));
    part[1] = x;
    return smask_gather(c, smask_join(c, part, 2), R, N, at, NULL, NULL);
}

SMASK__DEF smask_tensor *smask_vit_decode(smask_ctx *c, const smask_vit *v,
    smask_tensor *a, smask_tensor *b, const int32_t *index, int32_t R)
{
    smask_tensor *x, *part[2];

    if (v->decoder == NULL || !smask__batch_fits(v, R))
        return smask__fail_null(c, v->decoder == NULL ? SMASK_STATE : SMASK_ARG,
            "vit_decode", v->decoder == NULL
            ? "the model has no decoder; set desc.decoder_depth"
            : "R must be in 1 .. 2^30 / (N + 2)");
    x = part[0] = smask__decoder_embed(c, v, a);
    part[1] = b != NULL ? smask__decoder_embed(c, v, b) : NULL;
    if (b != NULL) x = smask_join(c, part, 2);
    if (v->desc.decoder_shares_position)
        x = smask__decoder_shared(c, v, x, index, R);
    else
        x = smask_gather(c, x, R, v->tokens, index, v->decoder_mask,
            v->decoder_position);
    x = smask__block_list(c, v, v->decoder, v->desc.decoder_depth, x, NULL);
    return smask_layernorm(c, x, v->decoder_norm_w, v->decoder_norm_b);
}

/* ---- Inference ---- */

SMASK__DEF smask_result smask_vit_pack(smask_ctx *c, smask_vit *v)
{
    if (c->in_step || !c->desc.inference)
        return smask__fail(c, SMASK_STATE, "vit_pack",
            "call it outside a step, with desc.inference set");
    for (int32_t l = 0; v->blocks != NULL && l < v->desc.depth; l++) {
        const smask_block *k = &v->blocks[l];
        smask__pack_weight(c, k->qkv_w);
        smask__pack_weight(c, k->up_w);
        if (k->ls1 != NULL) continue;    /* LayerScale: scaled at each run */
        smask__pack_weight(c, k->out_w);
        smask__pack_weight(c, k->down_w);
    }
    return c->error;
}

SMASK__DEF smask_tensor *smask_vit_pool(smask_ctx *c, const smask_vit *v,
    smask_tensor *tokens)
{
    if (tokens == NULL) return NULL;
    if (tokens->rank != 3)
        return smask__fail_shapes(c, "vit_pool", "x must be (B,T,D); got",
            tokens, "", NULL);
    if (!v->desc.pool_class)
        return smask_mean_tokens(c, tokens, v->desc.class_token);
    const int32_t B = tokens->shape[0], T = tokens->shape[1];
    int32_t *index = smask__indices(c, (size_t)B);
    for (int32_t b = 0; b < B && index != NULL; b++) index[b] = b * T;
    tokens = smask_gather(c, tokens, B, 1, index, NULL, NULL);
    return smask_mean_tokens(c, tokens, 0);      /* one token: (B,D)   */
}

SMASK__DEF smask_result smask_vit_features(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B, float *out)
{
    const int not_recording = c->not_recording;
    const size_t each = (size_t)B * (size_t)v->desc.dim;

    c->not_recording = 1;
    smask_tensor *x = smask_vit_embed(c, v, images, B);
    x = smask__vit_place(c, v, x, B);
    const smask__tape_mark start = smask__tape_mark_of(c);
    for (int32_t l = 0; l <= v->desc.depth && x != NULL; l++) {
        if (l < v->desc.depth)
            x = smask__block_list(c, v, v->blocks + l, 1, x, v->bias);
        else
            x = smask_layernorm(c, x, v->norm_w, v->norm_b);
        smask_tensor *pooled = smask_vit_pool(c, v, x);
        if (pooled != NULL && pooled->x != NULL)
            memcpy(out + (size_t)l * each, pooled->x, each * sizeof *out);
        x = smask__tape_rewind_keeping(c, SMASK_OP_INPUT, x, start);
    }
    c->not_recording = not_recording;
    return c->error;
}

SMASK__DEF smask_tensor *smask_vit_classify(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B)
{
    if (v->classifier_w == NULL)
        return smask__fail_null(c, SMASK_STATE, "vit_classify",
            "the model has no classifier; set desc.classes");
    smask_tensor *x = smask_vit_pool(c, v, smask_vit_encode(c, v, images, B));
    return smask_linear(c, x, v->classifier_w, v->classifier_b);
}

/* ======================================================================
   10  TOKENIZERS                                           >>tokenizers
   Question   Which target does the model predict for a masked patch, if
              no tokenizer has been trained?
   Idea       The visual token of patch x: the id of its nearest codebook
              vector. Codebook vectors e_i are unit vectors in the space
              of patches, and nearest means the smallest angle:

                token(x) = argmax_i  x . e_i

              Scaling x does not change the argmax, so x stays as it is.
              The paper finds that the source of the codebook matters
              little: random directions, random patches of the data, or
              cluster centres (k-means). A codebook is a matrix (V, d).
              Tokenizing is one matrix product; each row of scores keeps
              only the index of its maximum.

              image  ->  rows of patches  ->  scores     ->  ids
              (C,S,S)    (N, d)               (N, V)         (N)

              The score matrix is never stored whole. A worker computes
              some rows of it in its cache and takes their argmax there.
   May call   1 to 9.            Called by   12.
   Source     El-Nouby et al. 2021, sec. 3.2, eq. 1; Lloyd 1982
              [ElN21] [Llo82].
   ====================================================================== */

#define SMASK__SCORES ((size_t)1 << 17)  /* floats of scores per worker    */

typedef struct smask__nearest { smask__product p; int32_t *id; } smask__nearest;

/* The argmax of each row that a worker has just scored. */
SMASK__FN void smask__nearest_rows(void *arg, size_t row, size_t rows,
    float *scores, int piece)
{
    const smask__nearest *k = (const smask__nearest *)arg;
    float top;

    (void)piece;
    for (size_t i = 0; i < rows; i++, scores += k->p.n)
        k->id[row + i] = (int32_t)smask__argmax(k->p.isa, scores, k->p.n,
            &top);
}

/* x (rows, d) -> id (rows): argmax of x . e_i, or of x . e_i + offset_i. */
SMASK__FN void smask__token_ids(smask_ctx *c, const smask_tokenizer *t,
    const float *x, size_t rows, int32_t *id)
{
    smask__nearest k;

    memset(&k, 0, sizeof k);
    k.id = id;
    k.p = smask__product_of(rows, (size_t)t->desc.vocabulary,
        (size_t)t->width, NULL, 0);
    k.p.a = smask__operand_of(x, k.p.k);
    k.p.b = smask__operand_of(t->codebook, k.p.k);
    k.p.b_transposed = 1;
    k.p.bias = t->offset;
    k.p.own = 1;
    k.p.exact = 1;
    k.p.after = smask__nearest_rows;
    k.p.arg = &k;
    k.p.mc = smask__min(smask__min(smask__ceil_div(rows, 16), SMASK__MC),
        smask__max(SMASK__SCORES / k.p.n, 1));
    smask__product_do(c, &k.p);
}

/* -- Setup ---------------------------------------------------------------- */

#define SMASK__T(key, field, low, high) { "tokenizer." key, #field,         \
    offsetof(smask_tokenizer_desc, field), low, high },
static const smask__field smask__tokenizer_fields[] = {
    SMASK__T("img_size", image, 1, 16384)
    SMASK__T("patch_size", patch, 1, 1024)
    SMASK__T("in_chans", channels, 1, 1024)
    SMASK__T("half", half_resolution, 0, 1)
    SMASK__T("vocab_size", vocabulary, 1, 1 << 24)
    SMASK__T("centre", centre, 0, 1)
    SMASK__T("uniform01", uniform01, 0, 1)
    SMASK__T("euclidean", euclidean, 0, 1) { "", "", 0, 0, 0 } };
#undef SMASK__T

/* Fill in the defaults, check all fields, and set t->width. */
SMASK__FN int smask__tokenizer_check(smask_ctx *c, smask_tokenizer *t)
{
    smask_tokenizer_desc *s = &t->desc;
    const char *wrong = NULL;

    if (s->image == 0) s->image = 32;
    if (s->patch == 0) s->patch = 4;
    if (s->channels == 0) s->channels = 3;
    if (s->vocabulary == 0) s->vocabulary = 1024;
    if (!smask__fields_in_range(c, "tokenizer", smask__tokenizer_fields, s))
        return 0;
    if ((int)s->kind < 0 || s->kind > SMASK_TOKENS_GIVEN)
        wrong = "kind is not a smask_token_kind";
    else if (s->image % s->patch != 0
        || (s->half_resolution && s->patch % 2 != 0))
        wrong = "image must be a multiple of patch, and patch even if "
            "half_resolution";
    else if ((size_t)-1 / 16 / (size_t)s->channels / (size_t)s->image
        < (size_t)s->image)
        wrong = "image and channels are too large for memory";
    if (wrong != NULL) smask__fail(c, SMASK_ARG, "tokenizer", wrong);
    const size_t p = (size_t)(s->half_resolution ? s->patch / 2 : s->patch);
    t->width = (int32_t)(p * p * (size_t)s->channels);
    return smask__ok(c);
}

/* |x|^2, summed in double and in order: the same on every machine. */
SMASK__FN double smask__square(const float *x, size_t d)
{
    double sum = 0;

    for (size_t k = 0; k < d; k++) sum += (double)x[k] * (double)x[k];
    return sum;
}

/* Prepare a codebook for use. Cosine (unit = 1): e = x / |x|. A zero vector
   has no direction and stays zero: its score 0 wins only if no other score is
   positive. L2: |x - c|^2 = |x|^2 - 2 (x . c - |c|^2 / 2), so the nearest c
   maximises x . c + offset, offset = -|c|^2 / 2. Returns 1 if all norms are
   finite. */
SMASK__FN int smask__codebook_finish(smask_tokenizer *t, int unit)
{
    const size_t d = (size_t)t->width, V = (size_t)t->desc.vocabulary;
    int finite = 1;

    for (size_t i = 0; i < V; i++) {
        float *x = t->codebook + i * d;
        const double square = smask__square(x, d);
        for (size_t k = 0; unit && square > 0 && k < d; k++)
            x[k] = (float)((double)x[k] / sqrt(square));
        if (t->offset != NULL)
            t->offset[i] = (float)(-0.5 * smask__square(x, d));
        finite &= smask__finite((float)square);
    }
    return finite;
}

SMASK__DEF smask_tokenizer_desc smask_tokenizer_desc_for(const smask_vit *v)
{
    smask_tokenizer_desc desc;

    memset(&desc, 0, sizeof desc);
    desc.image = v->desc.image;
    desc.patch = v->desc.patch;
    desc.channels = v->desc.channels;
    desc.vocabulary = v->desc.vocabulary;
    return desc;
}

/* PROJECTION draws points of the cube [-1, 1]^d, or [0, 1]^d, and normalises
   them. All have length 1, so with `euclidean` every offset is -1/2 and no
   token changes. The other kinds start with a codebook of zeros, which marks
   it as not yet learnt. */
SMASK__DEF smask_result smask_tokenizer_init(smask_ctx *c,
    smask_tokenizer *t, const smask_tokenizer_desc *desc)
{
    const size_t mark = smask__mark(c);
    smask_tokenizer made;

    memset(&made, 0, sizeof made);
    if (desc != NULL) made.desc = *desc;
    *t = made;
    if (!smask__tokenizer_check(c, t)) return c->error;
    if (c->in_step)
        return smask__fail(c, SMASK_STATE, "tokenizer",
            "called inside a step; call smask_end_step first");
    if (t->desc.kind == SMASK_TOKENS_GIVEN) return c->error;
    const size_t V = (size_t)t->desc.vocabulary;
    const size_t d = (size_t)t->width;
    t->codebook = (float *)smask__data(c, V, d * sizeof(float));
    if (t->desc.euclidean) t->offset = smask__floats(c, V);
    if (!smask__ok(c)) {
        smask__rewind(c, mark);
        t->codebook = t->offset = NULL;
    }
    if (t->codebook == NULL) return c->error;        /* or a dry run       */
    memset(t->codebook, 0, V * d * sizeof(float));
    for (size_t i = 0; i < V && t->desc.kind == SMASK_TOKENS_PROJECTION; i++)
        do for (size_t k = 0; k < d; k++) {
            const float u = smask_uniform(&c->random);
            t->codebook[i * d + k] = t->desc.uniform01 ? u : 2 * u - 1;
        } while (!(smask__square(t->codebook + i * d, d) > 0));
    smask__codebook_finish(t, 1);
    return c->error;
}

SMASK__DEF int32_t smask_tokenizer_rows(const smask_tokenizer *t)
{
    const int32_t G = t->desc.patch > 0      /* 0: not initialised         */
        ? t->desc.image / t->desc.patch : 0;

    return G * G;
}

SMASK__FN smask__patchify smask__patchify_of(const smask_tokenizer *t,
    const float *images, float *rows)
{
    const smask_tokenizer_desc *s = &t->desc;
    const smask__patchify k = { images, rows, (size_t)s->channels,
        (size_t)s->image, (size_t)s->patch, s->half_resolution, s->centre };

    return k;
}

SMASK__DEF void smask_tokenizer_patches(const smask_tokenizer *t,
    const float *images, int32_t B, float *rows)
{ smask__patchify_all(smask__patchify_of(t, images, rows), B); }

/* -- Tokenizing ------------------------------------------------------------ */

#define SMASK__PATCH_FLOATS ((size_t)1 << 18)    /* patches cut at a time  */

/* For each group of images: cut them into patches, then score the patches.
   A group has about 1 MB of patches, or one image. */
SMASK__FN void smask__tokens_of(smask_ctx *c, const smask_tokenizer *t,
    const float *images, size_t B, int32_t *ids)
{
    const size_t N = (size_t)smask_tokenizer_rows(t), d = (size_t)t->width;
    const size_t group = smask__min(B,
        smask__ceil_div(SMASK__PATCH_FLOATS, N * d));
    smask__patchify cut = smask__patchify_of(t, images,
        (float *)smask__data(c, group, N * d * sizeof(float)));
    const size_t pixels = cut.C * cut.S * cut.S;

    for (size_t b = 0; b < B && smask__ok(c); b += group) {
        const size_t count = smask__min(B - b, group);
        smask__run(c, count, smask__patchify_piece, &cut);
        smask__token_ids(c, t, cut.rows, count * N, ids);
        if (c->dry) continue;
        cut.images += count * pixels;
        ids += count * N;
    }
}

/* 1 if the codebook has a nonzero value. Only a cluster of all-zero patches
   gives a zero vector, so the search is short unless the codebook is empty. */
SMASK__FN int smask__codebook_ready(const smask_tokenizer *t)
{
    const size_t count = (size_t)t->desc.vocabulary * (size_t)t->width;
    size_t i = 0;

    if (t->desc.kind == SMASK_TOKENS_GIVEN) return t->given != NULL;
    if (t->codebook == NULL) return 0;
    while (i < count && !(t->codebook[i] < 0 || t->codebook[i] > 0)) i++;
    return i < count;
}

SMASK__DEF smask_result smask_tokenize(smask_ctx *c, const smask_tokenizer *t,
    const float *images, int32_t B, int32_t *ids)
{
    const int given = t->desc.kind == SMASK_TOKENS_GIVEN;
    const size_t mark = smask__mark(c);

    if (!smask__ok(c)) return c->error;
    if (B < 1 || (!c->dry && (ids == NULL || (images == NULL && !given))))
        return smask__fail(c, SMASK_ARG, "tokenize",
            "B < 1, or images or ids is NULL");
    if (smask_tokenizer_rows(t) == 0 || (!c->dry && !smask__codebook_ready(t)))
        return smask__fail(c, SMASK_STATE, "tokenize",
            "the codebook is empty (smask_tokenizer_fit), or t->given is NULL");
    if (!given) smask__tokens_of(c, t, images, (size_t)B, ids);
    const size_t count = (size_t)B * (size_t)smask_tokenizer_rows(t);
    for (size_t i = 0; given && !c->dry && i < count; i++) {
        ids[i] = t->given[i];
        if (ids[i] < 0 || ids[i] >= t->desc.vocabulary)
            return smask__fail(c, SMASK_RANGE, "tokenize",
                "an id in t->given is outside 0 .. V-1");
    }
    smask__rewind(c, mark);
    return c->error;
}

/* -- Learning a codebook --------------------------------------------------- */

typedef struct smask__lloyd {
    smask_tokenizer *t;
    const float *x;                  /* (count, d) the points: patches     */
    size_t count, V, d;
    int32_t *id;                     /* (count) nearest codebook vector    */
    float *gap;                      /* (count) |x - c|^2                  */
    double *sum;                     /* (V, d) sum of a vector's points    */
    int32_t *size;                   /* (V) number of a vector's points    */
} smask__lloyd;

/* Choose V different patches at random. The walk follows a random order and
   shuffles only as far as it goes (Fisher-Yates from the front). It skips
   patches equal to a chosen one (flat areas give many equal patches) and,
   unless `zero`, patches of norm 0: they have no direction for a cosine. */
SMASK__FN void smask__codebook_sample(smask_ctx *c, const smask__lloyd *l,
    int zero)
{
    float *const vectors = l->t->codebook;
    size_t found = 0, i, v;

    if (c->dry || !smask__ok(c)) return;
    for (i = 0; i < l->count; i++) l->id[i] = (int32_t)i;
    for (i = 0; i < l->count && found < l->V; i++) {
        const size_t j = i + smask_below(&c->random,
            (uint32_t)(l->count - i));
        const float *x = l->x + (size_t)l->id[j] * l->d;
        l->id[j] = l->id[i];
        if (!zero && !(smask__square(x, l->d) > 0)) continue;
        for (v = 0; v < found; v++)
            if (memcmp(vectors + v * l->d, x, l->d * sizeof *x) == 0) break;
        if (v == found) memcpy(vectors + found++ * l->d, x, l->d * sizeof *x);
    }
    if (found < l->V)
        smask__fail(c, SMASK_ARG, "tokenizer_fit",
            "fewer different patches than codebook vectors (V)");
}

/* K-means by Lloyd's iterations. Two steps alternate; neither can increase
   the mean squared distance between points and their codebook vectors.
     assign   each point to its nearest codebook vector
     update   each codebook vector to the mean of its points
   A piece of the update owns some codebook vectors. It walks all points and
   sums its own in point order: results do not depend on the thread count.
   |x - c|^2 comes from the difference x - c. |x|^2 - 2 x . c + |c|^2 would
   lose the digits of a small distance. */
#define SMASK__PIECES ((size_t)8)

SMASK__FN void smask__lloyd_update(void *arg, int piece, int worker)
{
    const smask__lloyd *l = (const smask__lloyd *)arg;
    const size_t each = smask__ceil_div(l->V, SMASK__PIECES), d = l->d;
    const size_t first = smask__min((size_t)piece * each, l->V);
    const size_t count = smask__min(each, l->V - first);
    float *const vectors = l->t->codebook + first * d;
    double *const sum = l->sum + first * d;
    int32_t *const size = l->size + first;

    (void)worker;
    memset(sum, 0, count * d * sizeof *sum);
    memset(size, 0, count * sizeof *size);
    for (size_t i = 0; i < l->count; i++) {
        const size_t v = (size_t)l->id[i] - first;
        const float *x = l->x + i * d, *y = vectors;
        float gap = 0;
        if (v >= count) continue;
        y += v * d;
        for (size_t k = 0; k < d; k++) gap += (x[k] - y[k]) * (x[k] - y[k]);
        for (size_t k = 0; k < d; k++) sum[v * d + k] += (double)x[k];
        l->gap[i] = gap;
        size[v]++;
    }
    for (size_t i = 0; i < count * d; i++)
        if (size[i / d] > 0) vectors[i] = (float)(sum[i] / size[i / d]);
}

/* A codebook vector without points moves to the point with the largest
   distance. The gap of all equal points becomes 0: none is chosen again. */
SMASK__FN void smask__lloyd_reseed(const smask__lloyd *l, int isa)
{
    const size_t bytes = l->d * sizeof(float);
    float gap;

    for (size_t v = 0; v < l->V; v++) {
        if (l->size[v] > 0) continue;
        const float *x = l->x
            + smask__argmax(isa, l->gap, l->count, &gap) * l->d;
        if (!(gap > 0)) return;
        memcpy(l->t->codebook + v * l->d, x, bytes);
        for (size_t i = 0; i < l->count; i++)
            if (memcmp(l->x + i * l->d, x, bytes) == 0) l->gap[i] = 0;
    }
}

/* Iterate until the distance stops falling: then the assignment is final.
   Lloyd assigns by L2, so a cosine tokenizer gets temporary offsets here. */
SMASK__FN void smask__lloyd_run(smask_ctx *c, smask__lloyd *l, int total,
    int (*progress)(void *user, int done, int total, double distance),
    void *user)
{
    float *const offset = l->t->offset;
    double before = 0;

    if (!l->t->desc.euclidean) l->t->offset = smask__floats(c, l->V);
    l->gap = smask__floats(c, l->count);
    l->size = smask__indices(c, l->V);
    l->sum = (double *)smask__data(c, l->V, l->d * sizeof(double));
    for (int i = 0; i < total && smask__ok(c); i++) {
        if (!c->dry) smask__codebook_finish(l->t, 0);
        smask__token_ids(c, l->t, l->x, l->count, l->id);
        if (c->dry || !smask__ok(c)) break;
        smask__run(c, SMASK__PIECES, smask__lloyd_update, l);
        double distance = 0;
        for (size_t k = 0; k < l->count; k++) distance += (double)l->gap[k];
        distance /= (double)l->count;
        smask__lloyd_reseed(l, c->isa);
        if ((progress != NULL && !progress(user, i + 1, total, distance))
            || (i > 0 && !(distance < before))) break;
        before = distance;
    }
    l->t->offset = offset;
}

/* PROJECTION and GIVEN have nothing to learn: the result is OK. */
SMASK__DEF smask_result smask_tokenizer_fit(smask_ctx *c, smask_tokenizer *t,
    const float *patches, int32_t count, int32_t iterations,
    int (*progress)(void *user, int done, int total, double distance),
    void *user)
{
    const int kmeans = t->desc.kind == SMASK_TOKENS_KMEANS;
    const size_t mark = smask__mark(c);
    smask__lloyd l = { t, patches, (size_t)count, (size_t)t->desc.vocabulary,
        (size_t)t->width, NULL, NULL, NULL, NULL };

    if (!smask__ok(c)
        || (!kmeans && t->desc.kind != SMASK_TOKENS_PATCHES)) return c->error;
    if (count < t->desc.vocabulary || iterations < 0
        || (!c->dry && (!patches || !t->codebook)))
        return smask__fail(c, SMASK_ARG, "tokenizer_fit",
            count < t->desc.vocabulary
            ? "fewer patches than codebook vectors (V)"
            : iterations < 0 ? "iterations must be 0 (means 20) or more"
            : patches == NULL ? "patches is NULL"
            : "no codebook; call smask_tokenizer_init");
    l.id = smask__indices(c, l.count);
    smask__codebook_sample(c, &l, kmeans || t->desc.euclidean);
    if (kmeans && smask__ok(c))
        smask__lloyd_run(c, &l, iterations > 0 ? iterations : 20, progress,
            user);
    if (!c->dry && smask__ok(c)
        && !smask__codebook_finish(t, t->offset == NULL))
        smask__fail(c, SMASK_NUMERIC, "tokenizer_fit",
            "patches hold NaN, infinite or too large values");
    smask__rewind(c, mark);
    return c->error;
}

/* H = -sum_v p_v ln p_v with p_v = n_v / n, so n H = n ln n - sum n_v ln n_v.
   The best cross-entropy of a model that ignores the image is H. So compare a
   loss with H, not with ln V. */
SMASK__DEF smask_result smask_token_stats(smask_ctx *c, const int32_t *ids,
    int32_t count, int32_t V, int32_t *counts, smask_token_use *stats)
{
    const size_t mark = smask__mark(c);
    double sum = 0;

    memset(stats, 0, sizeof *stats);
    if (V < 1 || count < 1)
        return smask__fail(c, SMASK_ARG, "token_stats",
            "V and count must be positive");
    if (counts == NULL)
        counts = smask__indices(c, (size_t)V);
    smask__rewind(c, mark);              /* valid until the next request   */
    if (c->dry || !smask__ok(c)) return c->error;
    memset(counts, 0, (size_t)V * sizeof *counts);
    for (int32_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= V)
            return smask__fail(c, SMASK_RANGE, "token_stats",
                "an id is outside 0 .. V-1");
        counts[ids[i]]++;
    }
    for (int32_t v = 0; v < V; v++) {
        stats->used += counts[v] > 0;
        if (counts[v] > 0) sum += counts[v] * log((double)counts[v]);
    }
    if (stats->used > 1)
        stats->entropy = log((double)count) - sum / (double)count;
    stats->perplexity = exp(stats->entropy);
    return c->error;
}

/* ======================================================================
   11  MASKS                                                     >>masks
   Question   Which patches are masked, and for which view?
   Idea       Each patch carries a mark: view A sees it, or view B does.
              BEiT's rectangles hide whole objects; a single hidden patch
              could be guessed from its neighbours. A rectangle sampler may
              fall short of the wanted number, so random patches fill the
              rest: all images have sequences of one length. The model
              reads lists of indices, which are collected from the marks in
              reading order.

                marks     A B B A      A sees     0 3 4 5: B predicts them
                          A A B B      B sees     1 2 6 7: A predicts them
                With quarters some patches carry no mark: both predict them.

              The images of a batch share one split by default. If each
              image drew its own, A's shape would tell which B belongs to
              it, and the match could be solved without a look at a pixel.
   May call   1 to 3.            Called by   12.
   Source     Bao et al. 2021, algorithm 1, and their code [Bao21];
              El-Nouby et al. 2021, sec. 3.3 [ElN21]; Knuth, vol. 2,
              algorithm 3.4.2 S [Knu97].
   ====================================================================== */

/* One rectangle: its area is uniform between min_area and cap, in either
   order; its aspect is log-uniform between 0.3 and 1 / 0.3. It must be
   smaller than the grid in both directions and mask at least one new patch,
   at most cap of them. Ten tries; returns the number of new patches. */
SMASK__FN int32_t smask__mask_block(smask_random *r, int32_t rows,
    int32_t columns, int32_t min_area, int32_t cap, uint8_t *mask)
{
    for (int32_t tries = 0; tries < 10; tries++) {
        const float area = (float)min_area
            + (float)(cap - min_area) * smask_uniform(r);
        const float aspect = expf(1.2039728f * (2 * smask_uniform(r) - 1));
        const int32_t h = (int32_t)(sqrtf(area * aspect) + 0.5f);
        const int32_t w = (int32_t)(sqrtf(area / aspect) + 0.5f);
        uint8_t *at = mask;
        int32_t fresh = 0;

        if (h >= rows || w >= columns) continue;
        at += (int32_t)smask_below(r, (uint32_t)(rows - h + 1)) * columns;
        at += smask_below(r, (uint32_t)(columns - w + 1));
        for (int32_t y = 0; y < h; y++)
            for (int32_t x = 0; x < w; x++) fresh += !at[y * columns + x];
        if (fresh == 0 || fresh > cap) continue;
        for (int32_t y = 0; y < h; y++)
            memset(at + y * columns, 1, (size_t)w);
        return fresh;
    }
    return 0;
}

SMASK__DEF int32_t smask_mask_blocks(smask_random *r, int32_t rows,
    int32_t columns, int32_t target, int32_t min_area, int32_t max_area,
    uint8_t *mask)
{
    int32_t hidden = 0, fresh;

    if (rows < 1 || columns < 1) return 0;
    memset(mask, 0, (size_t)rows * (size_t)columns);
    if (min_area < 1) min_area = 1;
    if (max_area < 1) max_area = 1;
    while (hidden < target) {
        const int32_t left = target - hidden;
        fresh = smask__mask_block(r, rows, columns, min_area,
            max_area < left ? max_area : left, mask);
        if (fresh == 0) break;
        hidden += fresh;
    }
    return hidden;
}

/* Mark `count` of the patches without the mark `taken`; all choices are
   equally likely. The next patch is chosen with probability count / left
   (Knuth's algorithm S), which needs no list and no shuffle. */
SMASK__FN void smask__mark_any(smask_random *r, uint8_t *cell, size_t N,
    uint8_t taken, uint8_t mark, int32_t count)
{
    uint32_t left = 0;

    for (size_t i = 0; i < N; i++) left += (cell[i] & taken) == 0;
    for (size_t i = 0; i < N && count > 0; i++) {
        if (cell[i] & taken) continue;
        if (smask_below(r, left--) >= (uint32_t)count) continue;
        cell[i] = (uint8_t)(cell[i] | mark);
        count--;
    }
}

/* part / 196 of N patches, rounded. BEiT's bounds are 16 and 75 of 196
   patches; on an 8 x 8 grid they become 5 and 24, on 16 x 16 21 and 98. */
SMASK__FN int32_t smask__of_196(int32_t N, int32_t part)
{ return (int32_t)(((int64_t)N * part + 98) / 196); }

SMASK__DEF void smask_mask_exact(smask_random *r, int32_t rows,
    int32_t columns, int32_t target, int32_t min_area, int32_t max_area,
    uint8_t *mask)
{
    const int32_t N = rows * columns;

    if (min_area <= 0) min_area = smask__of_196(N, 16);
    if (max_area <= 0) max_area = smask__of_196(N, 75);
    const int32_t hidden = smask_mask_blocks(r, rows, columns, target, min_area,
        max_area, mask);
    smask__mark_any(r, mask, (size_t)N, 1, 1, target - hidden);
}

/* -- From marks to lists --------------------------------------------------- */

#define SMASK__VISIBLE_A 1
#define SMASK__VISIBLE_B 2

/* Image b's lists for each view: the patches it sees, and those it does
   not. */
SMASK__FN void smask__mask_lists(const uint8_t *cell, int32_t b,
    const smask_mask *m)
{
    for (int32_t k = 0; k < m->branches; k++) {
        const int bit = k == 0 ? SMASK__VISIBLE_A : SMASK__VISIBLE_B;
        int32_t *visible = m->visible_at[k] + (size_t)b * (size_t)m->visible[k];
        int32_t *masked = m->masked_at[k]
            + (size_t)b * (size_t)m->masked[k];
        for (int32_t i = 0; i < m->N; i++)
            if (cell[i] & bit) *visible++ = i;
            else *masked++ = i;
    }
}

/* Mark the patches of one split. With two complementary halves A sees what B
   does not; with BEiT the only view sees what is not masked. */
SMASK__FN void smask__mask_draw(smask_random *r, const smask_mask *m,
    int32_t grid, smask_mask_kind kind, uint8_t *cell)
{
    const size_t N = (size_t)m->N;
    const int halves = kind < SMASK_MASK_QUARTERS;

    memset(cell, 0, N);
    if (kind == SMASK_MASK_BLOCKS)
        smask_mask_exact(r, grid, grid, m->masked[0], 0, 0, cell);
    else
        smask__mark_any(r, cell, N, 0, SMASK__VISIBLE_A,
            halves ? m->masked[0] : m->visible[0]);
    for (size_t i = 0; i < N && halves; i++)
        cell[i] = cell[i] ? SMASK__VISIBLE_B : SMASK__VISIBLE_A;
    if (!halves)
        smask__mark_any(r, cell, N, kind == SMASK_MASK_QUARTERS
            ? SMASK__VISIBLE_A : 0, SMASK__VISIBLE_B, m->visible[1]);
}

/* The number of the split that image b has: consecutive images share one, in
   `splits` groups of nearly equal size. */
SMASK__FN int32_t smask__split_of(int32_t b, int32_t B, int32_t splits)
{ return splits < B ? (int32_t)((int64_t)b * splits / B) : b; }

/* M = round(ratio N), or of_196 / 196 of N if ratio is 0; at least one patch
   is visible and one masked. The lists are allocated first because they live
   until the end of the step; the grid of marks is scratch. */
SMASK__FN smask_result smask__mask_make(smask_ctx *c, smask_mask *m,
    int32_t branches, int32_t B, int32_t grid, smask_mask_kind kind,
    float ratio, int32_t of_196, int32_t splits)
{
    const int32_t N = grid > 1 && grid <= 46340 ? grid * grid : 0;
    const char *wrong = B < 1 || N == 0
        ? "give at least one image and a grid of 2 x 2 to 46340 x 46340 patches"
        : !(ratio >= 0 && ratio < 1)
        ? "ratio, the masked share, must be 0 or more and below 1"
        : (int)kind < 0 || (int)kind >= 2 * branches
        ? "unknown kind of mask; BEiT takes BLOCKS or UNIFORM" : NULL;

    memset(m, 0, sizeof *m);
    if (wrong != NULL) smask__fail(c, SMASK_ARG, "mask", wrong);
    if (!smask__ok(c)) return c->error;
    int32_t M = ratio > 0 ? (int32_t)(ratio * (float)N + 0.5f)
        : smask__of_196(N, of_196);
    M = M < 1 ? 1 : M > N - 1 ? N - 1 : M;
    m->B = B;
    m->N = N;
    m->branches = branches;
    for (int32_t k = 0; k < branches; k++) {
        m->visible[k] = kind >= SMASK_MASK_QUARTERS ? N / 4 : k > 0 ? M : N - M;
        m->masked[k] = N - m->visible[k];
        m->visible_at[k] = (int32_t *)smask__data(c, (size_t)B,
            (size_t)m->visible[k] * sizeof(int32_t));
        m->masked_at[k] = (int32_t *)smask__data(c, (size_t)B,
            (size_t)m->masked[k] * sizeof(int32_t));
    }
    const size_t mark = smask__mark(c);
    uint8_t *cell = (uint8_t *)smask__data(c, (size_t)N, 1);
    for (int32_t k = 0; k < B && !c->dry && smask__ok(c); k++) {
        if (k == 0 || smask__split_of(k, B, splits)
            != smask__split_of(k - 1, B, splits))
            smask__mask_draw(&c->random, m, grid, kind, cell);
        smask__mask_lists(cell, k, m);
    }
    smask__rewind(c, mark);
    return c->error;
}

SMASK__DEF smask_result smask_mask_split(smask_ctx *c, int32_t B,
    int32_t grid, smask_mask_kind kind, float ratio, smask_mask *out)
{ return smask__mask_make(c, out, 2, B, grid, kind, ratio, 98, B); }

SMASK__DEF smask_result smask_mask_beit(smask_ctx *c, int32_t B, int32_t grid,
    smask_mask_kind kind, float ratio, smask_mask *out)
{ return smask__mask_make(c, out, 1, B, grid, kind, ratio, 75, B); }

/* ======================================================================
   12  OBJECTIVES                                           >>objectives
   Question   What can a model learn from images without any label?
   Idea       Hide a part of each image and predict it. BEiT masks patches
              inside the encoder and predicts their visual tokens. SplitMask
              splits each image into two halves, A and B:
                split      each half goes through the encoder by itself;
                inpaint    the decoder receives half A, with mask tokens in
                           the places of B, and predicts the visual tokens
                           of B; likewise A from B. Cross-entropy: each
                           patch of the image is predicted once;
                match      the mean of A's features must be more similar to
                           the mean of B's than to other images' (InfoNCE).
              The loss is the sum of inpaint and match.
   May call   1 to 11.           Called by   the user.
   Source     El-Nouby et al. 2021, section 4 [ElN21]; BEiT [Bao21];
              InfoNCE [Oord18]. >>choices lists what the papers leave open and
              what differs here.
   ====================================================================== */

SMASK__FN smask_objective smask__objective(const smask_objective *o)
{
    smask_objective d;

    memset(&d, 0, sizeof d);
    if (o != NULL) d = *o;
    if (d.inpaint_weight == 0) d.inpaint_weight = 1;
    if (d.match_weight == 0) d.match_weight = 1;
    if (d.temperature == 0) d.temperature = 0.2f;
    if (d.splits == 0) d.splits = 1;
    return d;
}

/* Do the model and the tokenizer agree on patches and vocabulary? */
SMASK__FN int smask__objective_fits(smask_ctx *c, const char *where,
    const smask_vit *v, const smask_tokenizer *t, int32_t B)
{
    const char *what = NULL;

    if (!smask__ok(c)) return 0;
    if (v == NULL || t == NULL)
        what = v == NULL ? "the model is NULL" : "the tokenizer is NULL";
    else if (!smask__batch_fits(v, B))
        what = "the batch must be 1 or more, and 2^30 / (N + 2) at most";
    else if (v->head_w == NULL)
        smask__fail(c, SMASK_STATE, where,
            "the model has no vocabulary head; set desc.vocabulary");
    else if (t->desc.vocabulary != v->desc.vocabulary)
        what = "tokenizer and model differ in vocabulary";
    else if (smask_tokenizer_rows(t) != v->tokens)
        what = "tokenizer and model differ in patches per image";
    else if (t->desc.kind != SMASK_TOKENS_GIVEN
        && (t->desc.image != v->desc.image
        || t->desc.channels != v->desc.channels))
        what = "tokenizer and model differ in image size or channels";
    if (what != NULL) smask__fail(c, SMASK_ARG, where, what);
    return smask__ok(c);
}

/* The visual tokens of all patches: (B,N). */
SMASK__FN const int32_t *smask__targets(smask_ctx *c,
    const smask_tokenizer *t, const float *images, int32_t B)
{
    int32_t *ids = smask__indices(c, (size_t)B
        * (size_t)smask_tokenizer_rows(t));

    smask_tokenize(c, t, images, B, ids);
    return ids;
}

/* Cross-entropy of the visual tokens at the masked patches of x (views, T, D);
   patch n of a view is its row skip + n. `norm`: apply the encoder's final
   LayerNorm to those rows first. */
SMASK__FN smask_tensor *smask__inpaint(smask_ctx *c, const smask_vit *v,
    smask_tensor *x, int32_t skip, int norm, float weight, smask_losses *l)
{
    const smask_mask *m = &l->mask;
    int32_t *at, *label, *guess, hits = 0, r, b;
    size_t count = 0, i = 0, k;

    if (x == NULL) return NULL;
    for (r = 0; r < m->branches; r++)
        count += (size_t)m->B * (size_t)m->masked[r];
    at = smask__indices(c, count);
    label = smask__indices(c, count);
    guess = smask__indices(c, count);
    for (r = 0; r < m->branches && guess != NULL; r++)
        for (b = 0; b < m->B; b++)
            for (k = 0; k < (size_t)m->masked[r]; k++, i++) {
                const int32_t n = m->masked_at[r][(size_t)b
                    * (size_t)m->masked[r] + k];
                at[i] = (r * m->B + b) * x->shape[1] + skip + n;
                label[i] = l->tokens[(size_t)b * (size_t)m->N + (size_t)n];
            }
    x = smask_gather(c, x, 1, (int32_t)count, at, NULL, NULL);
    if (norm) x = smask_layernorm(c, x, v->norm_w, v->norm_b);
    x = smask_linear_cross_entropy(c, x, v->head_w, v->head_b, label, guess,
        &hits);
    l->predictions = (int32_t)count;
    l->guess = guess;
    l->accuracy = (float)hits / (float)count;
    if (x != NULL && x->x != NULL) l->inpaint = x->x[0];
    return weight != 1 ? smask_scale(c, x, weight) : x;
}

/* For each place of the decoder's sequences the row of the encoder's output
   that goes there, or -1 for the mask token: (2B,N). */
SMASK__FN int32_t *smask__decoder_index(smask_ctx *c, const smask_mask *m)
{
    const int32_t N = m->N;
    int32_t *index = smask__indices(c, (size_t)(2 * m->B) * (size_t)N);
    int32_t r, b, k, row = 0;

    for (k = 0; k < 2 * m->B * N && index != NULL; k++) index[k] = -1;
    for (r = 0; r < 2 && index != NULL; r++)
        for (b = 0; b < m->B; b++)
            for (k = 0; k < m->visible[r]; k++)
                index[(r * m->B + b) * N
                    + m->visible_at[r][b * m->visible[r] + k]] = row++;
    return index;
}

/* Patch and position embeddings of the images that the halves are cut from:
   (B,N,D), or two such one after the other if the views have images of their
   own. */
SMASK__FN smask_tensor *smask__embed_views(smask_ctx *c, const smask_vit *v,
    const float *images, const smask_objective *objective, int32_t B, int two)
{
    smask_tensor *part[2];

    for (int r = 0; r <= two; r++) {
        const float *own = objective->view_images[r];
        part[r] = smask__vit_place(c, v, smask_vit_embed(c, v, own != NULL
            ? own : images, B), B);
    }
    return two ? smask_join(c, part, 2) : part[0];
}

/* The visible tokens of view r (of both views in one batch of 2B, if they are
   equally long) through the encoder. `two` as in embed_views. */
SMASK__FN smask_tensor *smask__encode_visible(smask_ctx *c,
    const smask_vit *v, smask_tensor *x, const smask_mask *m, int32_t r,
    int32_t branches, int two)
{
    const int32_t S = m->visible[r];
    int32_t *index = smask__indices(c, (size_t)(branches * m->B)
        * (size_t)S), b, k, i = 0, to;

    for (to = r + branches; r < to && index != NULL; r++)
        for (b = 0; b < m->B; b++)
            for (k = 0; k < S; k++)
                index[i++] = ((two ? r * m->B : 0) + b) * m->N
                    + m->visible_at[r][b * S + k];
    x = smask_gather(c, x, branches * m->B, S, index, NULL, NULL);
    return smask_vit_blocks(c, v, x);
}

/* The mean of the encoder's outputs of each view, after the final LayerNorm:
   (2B,D). b is NULL if a holds both views. */
SMASK__FN smask_tensor *smask__encoder_means(smask_ctx *c,
    const smask_vit *v, smask_tensor *a, smask_tensor *b)
{
    smask_tensor *part[2];

    a = smask_layernorm(c, a, v->norm_w, v->norm_b);
    part[0] = smask_mean_tokens(c, a, 0);
    if (b == NULL) return part[0];
    b = smask_layernorm(c, b, v->norm_w, v->norm_b);
    part[1] = smask_mean_tokens(c, b, 0);
    return smask_join(c, part, 2);
}

/* InfoNCE within each group of images that share a split, weighted by the
   size of the group: a view of another split is no negative, because the
   split alone would tell it from the positive. */
SMASK__FN smask_tensor *smask__match_groups(smask_ctx *c,
    const smask_objective *objective, smask_tensor *z, int32_t B,
    int32_t *hits)
{
    smask_tensor *sum = NULL, *y;
    int32_t first, end, found, k;

    for (first = 0; first < B; first = end) {
        const int32_t group = smask__split_of(first, B, objective->splits);
        for (end = first + 1; end < B && group
            == smask__split_of(end, B, objective->splits);) end++;
        const int32_t n = end - first;
        int32_t *index = smask__indices(c, (size_t)(2 * n));
        for (k = 0; k < 2 * n && index != NULL; k++)
            index[k] = first + (k < n ? k : B + k - n);
        found = 0;
        y = smask_gather(c, z, 1, 2 * n, index, NULL, NULL);
        y = smask_info_nce(c, y, objective->temperature,
            objective->all_negatives, objective->stop_keys, &found);
        y = smask_scale(c, y, (float)n / (float)B);
        sum = first == 0 ? y : smask_add(c, sum, y);
        *hits += found;
    }
    return sum;
}

/* Is each view's most similar mean that of the same image's other view?
   z (2B,D): the means of all A, then of all B. */
SMASK__FN smask_tensor *smask__match_views(smask_ctx *c,
    const smask_objective *objective, smask_tensor *z, smask_losses *l)
{
    const int32_t B = l->mask.B;
    int32_t hits = 0;

    if (!objective->raw_features) z = smask_l2_normalize(c, z);
    z = objective->splits > 1 && objective->splits < B
        ? smask__match_groups(c, objective, z, B, &hits)
        : smask_info_nce(c, z, objective->temperature,
            objective->all_negatives, objective->stop_keys, &hits);
    l->match_accuracy = (float)hits / (float)(2 * B);
    if (z != NULL && z->x != NULL) l->match = z->x[0];
    return objective->match_weight != 1
        ? smask_scale(c, z, objective->match_weight) : z;
}

SMASK__DEF smask_tensor *smask_splitmask_loss(smask_ctx *c,
    const smask_vit *v, const smask_tokenizer *t, const smask_objective *o,
    const float *images, int32_t B, smask_losses *out)
{
    const smask_objective objective = smask__objective(o);
    const int two = objective.view_images[0] != NULL
        || objective.view_images[1] != NULL;
    smask_losses none, *l = out != NULL ? out : &none;
    smask_tensor *x, *a, *b, *z = NULL, *inpaint = NULL, *match = NULL, *loss;

    memset(l, 0, sizeof *l);
    if (!smask__objective_fits(c, "splitmask_loss", v, t, B)) return NULL;
    if (v->decoder == NULL)
        smask__fail(c, SMASK_STATE, "splitmask_loss",
            "the model has no decoder; set desc.decoder_depth");
    const int lone = objective.splits > B / 2 && objective.splits < B
        && !objective.no_match;
    if (v->cls != NULL || v->desc.relative_bias != 0 || objective.splits < 0
        || lone || (objective.no_inpaint && objective.no_match))
        smask__fail(c, SMASK_ARG, "splitmask_loss", v->cls != NULL
            ? "class tokens are not supported; clear desc.class_token"
            : v->desc.relative_bias
            ? "relative positions are not supported by SplitMask"
            : objective.splits < 0 ? "splits must be 0 or more"
            : lone ? "splits leaves an image without negatives: give B / 2 at "
            "most, or B"
            : "no_inpaint and no_match leave no loss; clear one");
    if (!smask__ok(c)) return NULL;
    l->tokens = smask__targets(c, t, images, B);
    if (smask__mask_make(c, &l->mask, 2, B, v->grid, objective.mask,
        objective.ratio, 98, objective.splits) != SMASK_OK) return NULL;

    const int equal = l->mask.visible[0] == l->mask.visible[1];
    int32_t *index = smask__decoder_index(c, &l->mask);
    x = smask__embed_views(c, v, images, &objective, B, two);
    a = smask__encode_visible(c, v, x, &l->mask, 0, equal ? 2 : 1, two);
    b = equal ? NULL : smask__encode_visible(c, v, x, &l->mask, 1, 1, two);
    if (!objective.no_inpaint || objective.match_decoder)
        z = smask_vit_decode(c, v, a, b, index, 2 * B);        /* (2B,N,D) */
    if (!objective.no_inpaint)
        inpaint = smask__inpaint(c, v, z, 0, 0, objective.inpaint_weight, l);
    if (!objective.no_match)
        match = smask__match_views(c, &objective, objective.match_decoder
            ? smask_mean_tokens(c, z, 0)
            : smask__encoder_means(c, v, a, b), l);
    loss = objective.no_inpaint ? match : objective.no_match ? inpaint
        : smask_add(c, inpaint, match);
    if (loss != NULL && loss->x != NULL) l->total = loss->x[0];
    return loss;
}

/* Replace masked patch embeddings by the mask token, before the encoder. */
SMASK__FN smask_tensor *smask__replace_masked(smask_ctx *c,
    const smask_vit *v, smask_tensor *x, const smask_mask *m)
{
    int32_t *index = smask__indices(c, (size_t)m->B * (size_t)m->N), b, k;

    for (k = 0; k < m->B * m->N && index != NULL; k++) index[k] = k;
    for (b = 0; b < m->B && index != NULL; b++)
        for (k = 0; k < m->masked[0]; k++)
            index[b * m->N + m->masked_at[0][b * m->masked[0] + k]] = -1;
    return smask_gather(c, x, m->B, m->N, index, v->mask, NULL);
}

SMASK__DEF smask_tensor *smask_beit_loss(smask_ctx *c, const smask_vit *v,
    const smask_tokenizer *t, const smask_objective *o, const float *images,
    int32_t B, smask_losses *out)
{
    const smask_objective objective = smask__objective(o);
    smask_losses none, *l = out != NULL ? out : &none;
    smask_tensor *x, *loss;

    memset(l, 0, sizeof *l);
    if (!smask__objective_fits(c, "beit_loss", v, t, B)) return NULL;
    if (v->mask == NULL)
        return smask__fail_null(c, SMASK_STATE, "beit_loss",
            "the model has no mask token; set desc.mask_token");
    l->tokens = smask__targets(c, t, images, B);
    if (smask_mask_beit(c, B, v->grid, objective.mask, objective.ratio,
        &l->mask) != SMASK_OK) return NULL;

    x = smask_vit_embed(c, v, images, B);
    x = smask__replace_masked(c, v, x, &l->mask);
    x = smask_vit_blocks(c, v, smask__vit_place(c, v, x, B));
    loss = smask__inpaint(c, v, x, v->cls != NULL, 1,
        objective.inpaint_weight, l);
    if (loss != NULL && loss->x != NULL) l->total = loss->x[0];
    return loss;
}

/* ======================================================================
   13  THE OPTIMISER                                              >>adam
   Question   Given all gradients, how far does each weight move?
   Idea       AdamW. m and v are running means of the gradient and of its
              square. A step moves a weight by rate * m / sqrt(v), so each
              weight has its own step size. Weight decay shrinks the weights
              directly and leaves the gradients alone (decoupled). If the
              norm of all gradients together is above `clip`, they are first
              scaled down to it. The learning rate rises linearly (warmup),
              then falls along half a cosine.
   May call   1 to 9.            Called by   the user.
   Source     Loshchilov & Hutter 2019, algorithm 2 [LH19].
   ====================================================================== */

SMASK__FN void smask__adam_defaults(smask_adam_desc *d)
{
    if (d->lr == 0) d->lr = 1.5e-3f;
    if (d->beta1 == 0) d->beta1 = 0.9f;
    if (d->beta2 == 0) d->beta2 = 0.98f;
    if (d->eps == 0) d->eps = 1e-8f;
    if (d->weight_decay == 0) d->weight_decay = 0.05f;
    if (d->clip == 0) d->clip = 3;
    if (d->layer_decay == 0) d->layer_decay = 1;
    if (d->final_lr == 0) d->final_lr = 1e-5f;
    if (d->final_lr < 0) d->final_lr = 0;
    if (d->final_lr > d->lr) d->final_lr = d->lr;
    if (d->weight_decay < 0) d->weight_decay = 0;
}

/* The text of the first invalid setting, or NULL if all are valid. */
SMASK__FN const char *smask__adam_wrong(const smask_adam_desc *d)
{
    if (!smask__finite(d->lr) || !(d->lr > 0))
        return "lr must be finite and above 0";
    if (!(d->beta1 > 0 && d->beta1 < 1)) return "beta1 must be in (0, 1)";
    if (!(d->beta2 > 0 && d->beta2 < 1)) return "beta2 must be in (0, 1)";
    if (!smask__finite(d->eps) || !(d->eps > 0))
        return "eps must be finite and above 0";
    if (!(d->layer_decay > 0 && d->layer_decay <= 1))
        return "layer_decay must be in (0, 1]";
    if (!smask__finite(d->final_lr) || !smask__finite(d->clip)
        || !smask__finite(d->weight_decay))
        return "final_lr, clip and weight_decay must be finite";
    if (d->warmup < 0 || d->steps < 0)
        return "warmup and steps must be 0 or more";
    return NULL;
}

/* One array per parameter: zeros, or a copy of the values if `copy`. The entry
   of a parameter that requires no gradient, such as a fixed position
   embedding, is NULL. Lives until shutdown. */
SMASK__FN float **smask__like_params(smask_ctx *c, const smask_params *p,
    int copy)
{
    float **list = (float **)smask__structs(c, (size_t)p->count, sizeof *list);

    for (int32_t i = 0; i < p->count && list != NULL; i++) {
        const smask_tensor *t = p->item[i].t;
        const size_t bytes = smask_count(t) * sizeof(float);
        if (t->requires_grad) list[i] = (float *)smask_alloc(c, bytes);
        if (list[i] != NULL && copy) memcpy(list[i], t->x, bytes);
    }
    return smask__ok(c) ? list : NULL;
}

/* An error if this context cannot train, or not inside a step. */
SMASK__FN smask_result smask__can_learn(smask_ctx *c, const char *where)
{
    if (!c->desc.inference && !c->in_step) return c->error;
    return smask__fail(c, SMASK_STATE, where, c->in_step
        ? "called inside a step; call smask_end_step first"
        : "desc.inference is set; set it to 0 for training");
}

SMASK__DEF smask_result smask_adam_init(smask_ctx *c, smask_adam *a,
    const smask_adam_desc *desc, const smask_params *p)
{
    const smask__tape_mark start = smask__tape_mark_of(c);

    memset(a, 0, sizeof *a);
    if (desc != NULL) a->desc = *desc;
    if (smask__can_learn(c, "adam_init") != SMASK_OK) return c->error;
    smask__adam_defaults(&a->desc);
    const char *wrong = smask__adam_wrong(&a->desc);
    if (wrong != NULL) return smask__fail(c, SMASK_ARG, "adam_init", wrong);
    a->m = smask__like_params(c, p, 0);
    a->v = smask__like_params(c, p, 0);
    if (!smask__ok(c)) smask__tape_rewind(c, start);
    return c->error;
}

SMASK__DEF float smask_adam_rate(const smask_adam *a, int64_t step)
{
    const smask_adam_desc *d = &a->desc;

    if (step < d->warmup)
        return (float)((double)d->lr * (double)step / (double)d->warmup);
    if (d->steps <= d->warmup) return d->lr;
    double t = (double)(step - d->warmup) / (double)(d->steps - d->warmup);
    if (t > 1) t = 1;
    return (float)((double)d->final_lr + 0.5 * (1 + cos(3.14159265358979 * t))
        * ((double)d->lr - (double)d->final_lr));
}

typedef struct smask__adam_work {
    smask_adam *a;
    const smask_params *p;
    double *sum;                     /* squared gradients of each piece    */
    float clip, correct1, correct2;
    int isa, largest;                /* largest: layer of the head, L + 1  */
} smask__adam_work;

/* 1 / (1 - beta^t), the bias correction of m and v in step t = 1, 2, ...
   Near underflow of beta^t the result is 1, without pow: pow would set errno,
   which this library never changes. */
SMASK__FN float smask__adam_correct(float beta, double t)
{
    return log((double)beta) * t < -700 ? 1
        : (float)(1 / (1 - pow((double)beta, t)));
}

/* Each parameter is split into pieces of SMASK__PIECE floats; its last piece
   may be shorter. Pieces are numbered through all parameters. Returns the
   parameter of a piece, and its floats *at .. *at + *count - 1. */
SMASK__FN int32_t smask__adam_find(const smask_params *p, int piece,
    size_t *at, size_t *count)
{
    size_t first = (size_t)piece * SMASK__PIECE;
    int32_t i = 0;

    for (; first >= smask__round_up(smask_count(p->item[i].t), SMASK__PIECE);
        i++)
        first -= smask__round_up(smask_count(p->item[i].t), SMASK__PIECE);
    *at = first;
    *count = smask__min(smask_count(p->item[i].t) - first, SMASK__PIECE);
    return i;
}

/* The sum of squared gradients of one piece. The caller adds the sums in order,
   so the norm does not depend on the number of threads. */
SMASK__FN void smask__adam_norm_piece(void *arg, int piece, int worker)
{
    const smask__adam_work *w = (const smask__adam_work *)arg;
    size_t at, n;
    const int32_t i = smask__adam_find(w->p, piece, &at, &n);
    const smask_tensor *t = w->p->item[i].t;

    (void)worker;
    w->sum[piece] = t->requires_grad && w->a->m[i] != NULL
        ? (double)smask__dot(w->isa, t->dx + at, t->dx + at, n) : 0;
}

/* One AdamW step for one piece; the kernel also sets its gradients to zero.
     rate of a parameter = rate * layer_decay^(L + 1 - layer)              */
SMASK__FN void smask__adam_piece(void *arg, int piece, int worker)
{
    const smask__adam_work *w = (const smask__adam_work *)arg;
    const smask_adam_desc *d = &w->a->desc;
    size_t at, n;
    const int32_t i = smask__adam_find(w->p, piece, &at, &n);
    const smask_param *p = &w->p->item[i];
    const double below = (double)(w->largest - p->layer);
    const double part = below * log((double)d->layer_decay) > -80
        ? pow((double)d->layer_decay, below) : 0;    /* pow sets no errno  */
    const float rate = w->a->rate * (float)part;
    const smask__adam_step s = { rate, d->beta1, d->beta2, d->eps,
        p->decay ? rate * d->weight_decay : 0, w->clip, w->correct1,
        w->correct2 };

    (void)worker;
    if (!p->t->requires_grad) return;
    if (w->a->m[i] == NULL) {            /* frozen when adam_init ran      */
        memset(p->t->dx + at, 0, n * sizeof(float));
        return;
    }
    smask__adam(w->isa, p->t->x + at, p->t->dx + at, w->a->m[i] + at,
        w->a->v[i] + at, n, &s);
}

SMASK__DEF smask_result smask_adam_update(smask_ctx *c, smask_adam *a,
    const smask_params *p)
{
    const size_t mark = smask__mark(c);
    smask__adam_work w = { a, p, NULL, 1, 1, 1, c->isa, 0 };
    size_t pieces = 0;
    double sum = 0;

    if (!smask__ok(c)) return c->error;
    if (a->m == NULL || a->v == NULL)
        return smask__fail(c, SMASK_STATE, "adam_update",
            "call smask_adam_init first");
    for (int32_t k = 0; k < p->count; k++) {
        pieces += smask__ceil_div(smask_count(p->item[k].t), SMASK__PIECE);
        if (p->item[k].layer > w.largest) w.largest = p->item[k].layer;
    }
    w.sum = (double *)smask__data(c, pieces, sizeof *w.sum);
    if (c->dry || !smask__ok(c)) {
        smask__rewind(c, mark);
        return c->error;
    }
    smask__run(c, pieces, smask__adam_norm_piece, &w);
    for (size_t i = 0; i < pieces; i++) sum += w.sum[i];
    smask__rewind(c, mark);
    a->norm = (float)sqrt(sum);
    if (!smask__finite(a->norm)) {
        smask_params_zero(c, p);
        return smask__fail(c, SMASK_NUMERIC, "adam_update",
            "the gradient is not finite");
    }
    if (a->desc.clip > 0 && a->norm > a->desc.clip)
        w.clip = a->desc.clip / a->norm;
    a->rate = smask_adam_rate(a, a->step);
    w.correct1 = smask__adam_correct(a->desc.beta1, (double)a->step + 1);
    w.correct2 = smask__adam_correct(a->desc.beta2, (double)a->step + 1);
    smask__run(c, pieces, smask__adam_piece, &w);
    a->step++;
    return c->error;
}

SMASK__DEF smask_result smask_ema_init(smask_ctx *c, smask_ema *e,
    float decay, const smask_params *p)
{
    const smask__tape_mark start = smask__tape_mark_of(c);

    memset(e, 0, sizeof *e);
    if (smask__can_learn(c, "ema_init") != SMASK_OK) return c->error;
    if (!smask__finite(decay) || !(decay >= 0 && decay < 1))
        return smask__fail(c, SMASK_ARG, "ema_init", "decay must be in [0, 1)");
    e->decay = decay;
    e->mean = smask__like_params(c, p, 1);
    if (!smask__ok(c)) smask__tape_rewind(c, start);
    return c->error;
}

SMASK__DEF void smask_ema_update(smask_ctx *c, smask_ema *e,
    const smask_params *p)
{
    for (int32_t i = 0; i < p->count && smask__ok(c) && e->mean != NULL; i++) {
        const size_t n = smask_count(p->item[i].t);
        if (e->mean[i] == NULL) continue;
        smask__list_do(c, SMASK__LIST_SCALE, e->mean[i], e->decay,
            e->mean[i], NULL, n);
        smask__list_do(c, SMASK__LIST_AXPY, e->mean[i], 1 - e->decay,
            p->item[i].t->x, NULL, n);
    }
}

SMASK__DEF void smask_ema_swap(smask_ctx *c, smask_ema *e,
    const smask_params *p)
{
    for (int32_t i = 0; i < p->count && !c->dry && e->mean != NULL; i++)
        for (size_t k = 0; e->mean[i] != NULL && k < smask_count(p->item[i].t);
            k++) {
            const float w = p->item[i].t->x[k];
            p->item[i].t->x[k] = e->mean[i][k];
            e->mean[i][k] = w;
        }
}

/* ======================================================================
   14  FILES                                                     >>files
   Question   How do weights reach other tools and come back? How does a
              reader survive a file with arbitrary bytes?
   Idea       safetensors: eight bytes with the length of a JSON header,
              the header, the floats. The header gives each tensor a name,
              a type, a shape and data offsets. The writer makes three
              passes over its tensors: it measures the header, writes the
              header, writes the floats. The reader checks the whole
              header before it uses any of it. Then it reads the floats in
              one pass, in file order: it never seeks.
   May call   1 to 13.           Called by   the user.
   Source     The format's own description [HF22]; JSON [RFC8259].
   ====================================================================== */

#ifndef SPLITMASK_NO_STDIO
SMASK__FN size_t smask__stdio_read(void *user, void *data, size_t bytes)
{ return fread(data, 1, bytes, (FILE *)user); }

SMASK__FN size_t smask__stdio_write(void *user, const void *data, size_t bytes)
{ return fwrite(data, 1, bytes, (FILE *)user); }

SMASK__DEF smask_io smask_stdio(FILE *stream)
{
    const smask_io none = { NULL, NULL, NULL };
    const smask_io io = { smask__stdio_read, smask__stdio_write, stream };

    return stream != NULL ? io : none;
}
#endif

typedef struct smask__array {
    int kind;                        /* 0 weight, 1 m, 2 v, 3 mean,
                                        4 codebook or its offsets          */
    const char *name;
    const int32_t *shape;
    int32_t rank;
    float *x;
} smask__array;

/* Call fn(arg, array) for each array that a file holds of v, t, a and e; only
   v may not be NULL. Writer and reader share this list and its order. The
   array and its name are valid until fn returns. */
SMASK__FN void smask__for_each_array(const smask_vit *v,
    const smask_tokenizer *t, const smask_adam *a, const smask_ema *e,
    void (*fn)(void *arg, const smask__array *s), void *arg)
{
    static const char prefix[][8] = { "", "adam.m.", "adam.v.", "ema." };
    float *const *list[4] = { NULL, a != NULL ? a->m : NULL,
        a != NULL ? a->v : NULL, e != NULL ? e->mean : NULL };
    char name[72];

    for (int kind = 0; kind < 4; kind++)
        for (int32_t i = 0; i < v->params.count; i++) {
            const smask_param *p = &v->params.item[i];
            float *x = kind == 0 ? p->t->x
                : list[kind] != NULL ? list[kind][i] : NULL;
            const smask__array s = { kind, name, p->shape, p->rank, x };
            smask__append_text(smask__append_text(name, prefix[kind]), p->name);
            if (kind == 0 || x != NULL) fn(arg, &s);
        }
    if (t == NULL) return;
    const int32_t shape[2] = { t->desc.vocabulary, t->width };
    const smask__array codebook = { 4, "tokenizer.codebook", shape, 2,
        t->codebook };
    const smask__array offset = { 4, "tokenizer.offset", shape, 1, t->offset };
    if (t->codebook != NULL) fn(arg, &codebook);
    if (t->offset != NULL) fn(arg, &offset);
}

typedef struct smask__json_writer {
    smask_ctx *c;
    const smask_io *io;
    int pass;                        /* 0 measure, 1 header, 2 floats      */
    size_t header, offset;           /* bytes of JSON; of floats so far    */
} smask__json_writer;

SMASK__FN void smask__writer_bytes(smask__json_writer *p, const void *data,
    size_t n)
{
    if (smask__ok(p->c) && p->io->write(p->io->user, data, n) != n)
        smask__fail(p->c, SMASK_IO, "write",
            "io->write took too few bytes");
}

SMASK__FN void smask__emit_text(smask__json_writer *p, const char *text,
    size_t n)
{
    if (p->pass == 0) p->header += n;
    if (p->pass == 1) smask__writer_bytes(p, text, n);
}

/* Emit `form` as JSON text. $ becomes `text` as a quoted string, # becomes n.
   Quotes and backslashes are escaped; control codes become spaces, because
   JSON forbids them in strings. UTF-8 passes unchanged. */
SMASK__FN void smask__emit(smask__json_writer *p, const char *form,
    const char *text, uint64_t n)
{
    char digits[24];

    for (; *form != '\0'; form++)
        if (*form == '#') {
            smask__append_digits(digits, n);
            smask__emit_text(p, digits, strlen(digits));
        } else if (*form == '$') {
            smask__emit_text(p, "\"", 1);
            for (; *text != '\0'; text++) {
                if (*text == '"' || *text == '\\') smask__emit_text(p, "\\", 1);
                smask__emit_text(p, (unsigned char)*text < 0x20 ? " " : text,
                    1);
            }
            smask__emit_text(p, "\"", 1);
        } else {
            smask__emit_text(p, form, 1);
        }
}

/* A negative or NaN LayerScale means none (chapter 9): the file stores 0. */
SMASK__FN void smask__emit_fields(smask__json_writer *p,
    const smask__field *list, const void *desc)
{
    uint32_t n;

    for (; list->key[0] != '\0'; list++) {
        memcpy(&n, (const char *)desc + list->at, sizeof n);
        smask__emit(p, ",$:\"#\"", list->key, n > 0x7f7fffff ? 0 : n);
    }
}

/* Little-endian floats. Shifts make the same bytes on any machine. */
SMASK__FN void smask__emit_floats(smask__json_writer *p, const float *x,
    size_t count)
{
    unsigned char bytes[1024];
    uint32_t bits;

    for (size_t i = 0; i < count; i++) {
        unsigned char *to = bytes + 4 * i % sizeof bytes;
        memcpy(&bits, x + i, 4);
        for (size_t k = 0; k < 4; k++, bits >>= 8)
            to[k] = (unsigned char)(bits & 0xff);
        if (i + 1 == count || to + 4 == bytes + sizeof bytes)
            smask__writer_bytes(p, bytes, (size_t)(to + 4 - bytes));
    }
}

/* One tensor: its header entry (passes 0, 1) or its floats (pass 2). */
SMASK__FN void smask__emit_tensor(void *arg, const smask__array *s)
{
    smask__json_writer *p = (smask__json_writer *)arg;
    size_t count = 1;

    for (int32_t i = 0; i < s->rank; i++) count *= (size_t)s->shape[i];
    if (p->pass == 2) smask__emit_floats(p, s->x, count);
    if (p->pass == 2) return;
    smask__emit(p, ",$:{\"dtype\":\"F32\",\"shape\":[", s->name, 0);
    for (int32_t i = 0; i < s->rank; i++)
        smask__emit(p, i > 0 ? ",#" : "#", NULL, (uint64_t)s->shape[i]);
    smask__emit(p, "],\"data_offsets\":[#", NULL, p->offset);
    smask__emit(p, ",#]}", NULL, p->offset += 4 * count);
}

/* End a pass and begin the next; returns 0 after the last. Spaces pad the
   header to a multiple of 8: the floats of a memory-mapped file are aligned.
   PyTorch's loaders require the metadata entry "format". */
SMASK__FN int smask__writer_pass(smask__json_writer *p)
{
    unsigned char bytes[8];

    if (p->pass >= 0) smask__emit_text(p, "}", 1);
    const size_t full = smask__round_up(p->header, 8);
    if (p->pass == 1) smask__writer_bytes(p, "       ", full - p->header);
    if (++p->pass > 2) return 0;
    for (size_t i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)full >> (8 * i) & 0xff);
    if (p->pass == 1) smask__writer_bytes(p, bytes, 8);
    p->offset = 0;
    smask__emit(p, "{\"__metadata__\":{\"format\":\"pt\"", NULL, 0);
    return 1;
}

SMASK__FN void smask__emit_metadata(smask__json_writer *p,
    const smask_metadata *metadata, int32_t count)
{
    for (int32_t i = 0; metadata != NULL && i < count; i++) {
        if (metadata[i].key == NULL || metadata[i].value == NULL) {
            smask__fail(p->c, SMASK_ARG, "write",
                "a metadata key or value is NULL");
            return;
        }
        smask__emit(p, ",$:", metadata[i].key, 0);
        smask__emit(p, "$", metadata[i].value, 0);
    }
}

SMASK__DEF smask_result smask_write(smask_ctx *c, const smask_io *io,
    const smask_vit *v, const smask_tokenizer *t, const smask_adam *a,
    const smask_ema *e, const smask_metadata *metadata, int32_t metadata_count)
{
    smask__json_writer p = { c, io, -1, 0, 0 };

    if (!smask__ok(c) || c->dry) return c->error;
    if (io == NULL || io->write == NULL || v == NULL || v->params.count < 1)
        return smask__fail(c, SMASK_ARG, "write",
            "io->write is NULL, or there is no model");
    if ((a != NULL && a->m == NULL) || (e != NULL && e->mean == NULL))
        return smask__fail(c, SMASK_ARG, "write",
            "the optimiser or the EMA is not initialised");
    while (smask__writer_pass(&p)) {
        smask__emit(&p, ",\"splitmask\":\"1\"", NULL, 0);    /* version     */
        smask__emit_fields(&p, smask__vit_fields, &v->desc);
        if (t != NULL) {
            smask__emit(&p, ",$:\"#\"", "tokenizer.kind",
                (uint64_t)t->desc.kind);
            smask__emit_fields(&p, smask__tokenizer_fields, &t->desc);
        }
        if (a != NULL) {
            smask__emit(&p, ",$:\"#\"", "adam.step", (uint64_t)a->step);
            smask__emit(&p, ",$:\"#\"", "random.state", c->random.state);
            smask__emit(&p, ",$:\"#\"", "random.stream", c->random.stream);
        }
        smask__emit_metadata(&p, metadata, metadata_count);
        smask__emit_text(&p, "}", 1);
        smask__for_each_array(v, t, a, e, smask__emit_tensor, &p);
    }
    return c->error;
}

SMASK__DEF smask_result smask_write_begin(smask_ctx *c, smask_writer *w,
    const smask_io *io, const smask_shape *shapes, int32_t count,
    const smask_metadata *metadata, int32_t metadata_count)
{
    smask__json_writer p = { c, &w->io, -1, 0, 0 };

    memset(w, 0, sizeof *w);
    if (!smask__ok(c) || c->dry) return c->error;
    if (io == NULL || io->write == NULL)
        return smask__fail(c, SMASK_ARG, "write_begin", "io->write is NULL");
    for (int32_t i = 0; i < count; i++) {
        int good = shapes != NULL && shapes[i].name != NULL
            && shapes[i].rank >= 0 && shapes[i].rank <= 4;
        for (int32_t k = 0; good && k < shapes[i].rank; k++)
            good = shapes[i].shape[k] >= 0;
        if (!good)
            return smask__fail(c, SMASK_ARG, "write_begin",
                "a name is NULL, a rank above 4, or a dimension below 0");
    }
    w->io = *io;
    while (smask__writer_pass(&p) && p.pass < 2) {
        smask__emit_metadata(&p, metadata, metadata_count);
        smask__emit_text(&p, "}", 1);
        for (int32_t i = 0; i < count; i++) {
            const smask__array s = { 0, shapes[i].name, shapes[i].shape,
                shapes[i].rank, NULL };
            smask__emit_tensor(&p, &s);
        }
        w->left = p.offset / 4;
    }
    return c->error;
}

SMASK__DEF smask_result smask_write_floats(smask_ctx *c, smask_writer *w,
    const float *x, size_t count)
{
    smask__json_writer p = { c, &w->io, 2, 0, 0 };

    if (!smask__ok(c) || c->dry) return c->error;
    if (count > w->left)
        return smask__fail(c, SMASK_STATE, "write_floats",
            "more floats than the shapes of smask_write_begin hold");
    w->left -= count;
    smask__emit_floats(&p, x, count);
    return c->error;
}

SMASK__DEF smask_result smask_write_end(smask_ctx *c, smask_writer *w)
{
    if (smask__ok(c) && !c->dry && w->left > 0)
        smask__fail(c, SMASK_STATE, "write_end",
            "fewer floats than the shapes of smask_write_begin hold");
    return c->error;
}

/* ---- Header ----
   The parser accepts only the JSON that the format allows; a value under an
   unknown key is skipped without a close look. No function recurses, so no
   input can exhaust the stack. Each function consumes what its name says and
   returns 1, or returns 0 and j->at is near the error. Reads stop at j->end:
   the text has no NUL at its end. */

typedef struct smask__json {
    const char *at, *end;
    const char *name, *field;        /* what is being read, for messages   */
    size_t name_bytes;
} smask__json;

/* Skip spaces, then consume `sign`. */
SMASK__FN int smask__json_char(smask__json *j, char sign)
{
    while (j->at < j->end && memchr(" \n\r\t", *j->at, 4) != NULL) j->at++;
    if (j->at == j->end || *j->at != sign) return 0;
    j->at++;
    return 1;
}

/* Four hexadecimal digits at s. */
SMASK__FN int smask__json_hex(const unsigned char *s, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < 4; i++) {
        const uint32_t digit = s[i], letter = digit | 32u;
        if (digit >= '0' && digit <= '9') *out = *out << 4 | (digit - '0');
        else if (letter >= 'a' && letter <= 'f')
            *out = *out << 4 | (letter - 'a' + 10);
        else return 0;
    }
    return 1;
}

/* Read one character of a JSON string at *at: an escape or UTF-8. With `plain`
   a backslash is an ordinary character. Returns 0 if it is not valid. */
SMASK__FN int smask__json_code(const char **at, const char *end, int plain,
    uint32_t *code)
{
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const unsigned char *s = (const unsigned char *)*at;
    const size_t left = (size_t)(end - *at);
    size_t n = 1;
    uint32_t c, low;

    if (left == 0 || (s[0] < 0x20 && !plain)) return 0;
    c = s[0];
    if (c == '\\' && !plain) {
        const char *e = left < 2 || s[1] == 0 ? NULL
            : (const char *)memchr(escapes, s[1], 8);
        n = e != NULL ? 2 : 6;
        if (e != NULL) c = (unsigned char)meant[e - escapes];
        else if (left < 6 || s[1] != 'u' || !smask__json_hex(s + 2, &c))
            return 0;
        if (c >= 0xd800 && c < 0xe000) {             /* a surrogate pair   */
            if (c >= 0xdc00 || left < 12 || s[6] != '\\' || s[7] != 'u'
                || !smask__json_hex(s + 8, &low) || low < 0xdc00
                || low >= 0xe000) return 0;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            n = 12;
        }
    } else if (c >= 0x80) {
        n = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
        if (n == 0 || n > left) return 0;
        c &= 0x7fu >> n;
        for (size_t k = 1; k < n; k++) {
            if ((s[k] & 0xc0) != 0x80) return 0;
            c = c << 6 | (s[k] & 0x3fu);
        }
        if (c < (n == 2 ? 0x80u : n == 3 ? 0x800u : 0x10000u) || c > 0x10ffff
            || (c >= 0xd800 && c < 0xe000)) return 0;
    }
    *at += n;
    *code = c;
    return 1;
}

/* *s, *n: the text between the quotes, in place, escapes not decoded. */
SMASK__FN int smask__json_string(smask__json *j, const char **s, size_t *n)
{
    uint32_t code;

    if (!smask__json_char(j, '"')) return 0;
    for (*s = j->at; j->at < j->end && *j->at != '"';)
        if (!smask__json_code(&j->at, j->end, 0, &code)) return 0;
    *n = (size_t)(j->at - *s);
    return smask__json_char(j, '"');
}

/* The order of two names by code points: below, equal to or above 0. The first
   may hold escapes; so may the second, unless it is `plain`. */
SMASK__FN int smask__json_order(const char *a, size_t a_bytes, const char *b,
    size_t b_bytes, int plain)
{
    const char *const a_end = a + a_bytes, *const b_end = b + b_bytes;
    uint32_t x = 0, y = 0;           /* 0: not a valid character           */

    while (a < a_end && b < b_end)
        if (!smask__json_code(&a, a_end, 0, &x)
            || !smask__json_code(&b, b_end, plain, &y) || x != y)
            return x < y ? -1 : 1;
    return (a < a_end) - (b < b_end);
}

/* Skip any value: unknown fields are allowed. Depth is a counter. */
SMASK__FN int smask__json_skip(smask__json *j)
{
    const char *s;
    size_t n;
    int depth = 0;

    do {
        smask__json_char(j, ' ');        /* skips spaces                   */
        if (j->at == j->end) return 0;
        if (*j->at == '"') {
            if (!smask__json_string(j, &s, &n)) return 0;
        } else if (memchr("{[}]", *j->at, 4) != NULL) {
            depth += *j->at == '{' || *j->at == '[' ? 1 : -1;
            j->at++;
        } else if (depth > 0) {
            j->at++;
        } else {                         /* a number, true, false, null    */
            for (s = j->at; j->at < j->end
                && memchr(",:}] \n\r\t", *j->at, 8) == NULL;) j->at++;
            if (j->at == s) return 0;
        }
    } while (depth > 0);
    return depth == 0;
}

/* "key": with a comma before it unless it is the first. */
SMASK__FN int smask__json_key(smask__json *j, int first, const char **s,
    size_t *n)
{
    return (first || smask__json_char(j, ',')) && smask__json_string(j, s, n)
        && smask__json_char(j, ':');
}

/* Parse digits at *s and move *s past them. Returns 0 without a digit, above
   2^64 - 1, or with a leading 0, which JSON forbids. */
SMASK__FN int smask__json_integer(const char **s, const char *end,
    uint64_t *out)
{
    const char *first = *s;

    for (*out = 0; *s < end && **s >= '0' && **s <= '9'; ++*s) {
        const uint64_t digit = (uint64_t)(**s - '0');
        if (*out > ((uint64_t)-1 - digit) / 10) return 0;
        *out = 10 * *out + digit;
    }
    return *s - first == 1 || (*s > first && *first != '0');
}

/* [1,2,...]: counts all numbers, stores the first four in `list`. */
SMASK__FN int smask__json_list(smask__json *j, size_t *list, size_t *count)
{
    uint64_t n;

    if (!smask__json_char(j, '[')) return 0;
    for (*count = 0; !smask__json_char(j, ']'); ++*count) {
        if (*count > 0 && !smask__json_char(j, ',')) return 0;
        smask__json_char(j, ' ');        /* skips spaces                   */
        if (!smask__json_integer(&j->at, j->end, &n) || n > (size_t)-1)
            return 0;
        if (*count < 4) list[*count] = (size_t)n;
    }
    return 1;
}

/* 1 if the JSON string s, n bytes, means `text`. */
SMASK__FN int smask__text_is(const char *s, size_t n, const char *text)
{ return smask__json_order(s, n, text, strlen(text), 1) == 0; }

/* The format's types and their bytes. The first four can be read. A type above
   marks a tensor that this library cannot read, as do more than 4 dimensions
   or one above 2^31 - 1: an error only if the model needs that tensor. */
static const struct { char name[12]; size_t bytes; } smask__types[] = {
    { "F32", 4 }, { "F16", 2 }, { "BF16", 2 }, { "F64", 8 }, { "BOOL", 1 },
    { "U8", 1 }, { "I8", 1 }, { "F8_E5M2", 1 }, { "F8_E4M3", 1 },
    { "F8_E8M0", 1 }, { "I16", 2 }, { "U16", 2 }, { "I32", 4 }, { "U32", 4 },
    { "I64", 8 }, { "U64", 8 }, { "C64", 8 } };
#define SMASK__TYPES 4
#define SMASK__ALL_TYPES 17

/* {"dtype":...,"shape":[...],"data_offsets":[...]}: each of these keys exactly
   once, in any order, others ignored (`seen` has one bit a key). begin <= end,
   and with at most 4 dimensions the data has exactly as many bytes as type and
   shape require. j->field names the part that fails. */
SMASK__FN int smask__json_entry(smask__json *j, smask_file_entry *e)
{
    size_t shape[4] = { 1, 1, 1, 1 }, place[4] = { 0, 0, 0, 0 };
    size_t n, rank = 0, two = 2, i;
    const char *s;
    int seen = 0, part;

    j->field = "";
    if (!smask__json_char(j, '{')) return 0;
    for (int first = 1; !smask__json_char(j, '}'); first = 0) {
        if (!smask__json_key(j, first, &s, &n)) return 0;
        part = smask__text_is(s, n, "dtype") ? 1
            : smask__text_is(s, n, "shape") ? 2
            : smask__text_is(s, n, "data_offsets") ? 4 : 0;
        j->field = part == 1 ? "dtype" : part == 2 ? "shape"
            : part == 4 ? "data_offsets" : "";
        if ((seen & part) != 0
            || !(part == 1 ? smask__json_string(j, &s, &n)
                : part == 2 ? smask__json_list(j, shape, &rank)
                : part == 4 ? smask__json_list(j, place, &two)
                : smask__json_skip(j)) || two != 2) return 0;
        seen |= part;
        while (part == 1 && e->type < SMASK__ALL_TYPES
            && !smask__text_is(s, n, smask__types[e->type].name)) e->type++;
        if (e->type == SMASK__ALL_TYPES) return 0;
    }
    j->field = (seen & 1) == 0 ? "dtype" : (seen & 2) == 0 ? "shape"
        : "data_offsets";
    n = smask__types[e->type].bytes;
    for (i = 0; i < rank && i < 4; i++) {
        if (!smask__mul_sizes(n, shape[i], &n)) return 0;
        if (shape[i] > 0x7fffffff) e->type = SMASK__TYPES;
        e->shape[i] = (int32_t)(shape[i] & 0x7fffffff);
    }
    if (rank > 4) e->type = SMASK__TYPES;
    else e->rank = (int32_t)rank;
    e->begin = place[0];
    e->end = place[1];
    return seen == 7 && e->begin <= e->end
        && (rank > 4 || n == e->end - e->begin);
}

/* {"key":"value",...}: s, n get the first value of `key`, if it exists. */
SMASK__FN int smask__json_pairs(smask__json *j, const char *key,
    const char **s, size_t *n)
{
    const char *k, *value;
    size_t k_bytes, bytes;

    if (!smask__json_char(j, '{')) return 0;
    for (int i = 0; !smask__json_char(j, '}'); i++) {
        if (!smask__json_key(j, i == 0, &k, &k_bytes)
            || !smask__json_string(j, &value, &bytes)) return 0;
        if (*s != NULL || !smask__text_is(k, k_bytes, key)) continue;
        *s = value;
        *n = bytes;
    }
    return 1;
}

/* The whole header. `list` gets its entries (NULL: only count them); *metadata
   is where the metadata object begins, or NULL. */
SMASK__FN int smask__json_header(smask__json *j, smask_file_entry *list,
    int32_t *count, const char **metadata)
{
    smask_file_entry e;
    const char *none = NULL;
    size_t n;

    *count = 0;
    *metadata = NULL;
    if (!smask__json_char(j, '{')) return 0;
    for (int first = 1; !smask__json_char(j, '}'); first = 0) {
        memset(&e, 0, sizeof e);
        j->field = "";
        j->name = NULL;
        if (!smask__json_key(j, first, &e.name, &e.name_bytes)) return 0;
        j->name = e.name;
        j->name_bytes = e.name_bytes;
        if (smask__text_is(e.name, e.name_bytes, "__metadata__")) {
            smask__json_char(j, ' ');    /* skips spaces                   */
            const char *const at = j->at;
            if (*metadata != NULL) return 0;
            if (j->end - at >= 4 && memcmp(at, "null", 4) == 0) j->at += 4;
            else if (!smask__json_pairs(j, "", &none, &n)) return 0;
            *metadata = at;
            continue;
        }
        if (!smask__json_entry(j, &e)) return 0;
        j->field = "this is tensor 65,536: too many";
        if (*count == 65535) return 0;
        if (list != NULL) list[*count] = e;
        ++*count;
    }
    j->name = NULL;
    smask__json_char(j, ' ');            /* skips spaces                   */
    return j->at == j->end;
}

/* The order of places a and b: of entries in the file or, if by_name is there,
   of entry numbers by name. In the file begin + end rises along tensors that
   lie end to end, empty ones too. */
SMASK__FN int smask__entry_order(const smask_file *f, int32_t a, int32_t b)
{
    const smask_file_entry *x = &f->entry[a], *y = &f->entry[b];

    if (f->by_name == NULL)
        return (x->begin + x->end > y->begin + y->end)
            - (x->begin + x->end < y->begin + y->end);
    x = &f->entry[f->by_name[a]];
    y = &f->entry[f->by_name[b]];
    return smask__json_order(x->name, x->name_bytes, y->name, y->name_bytes,
        0);
}

SMASK__FN void smask__entry_swap(smask_file *f, int32_t a, int32_t b)
{
    if (f->by_name != NULL) {
        const int32_t i = f->by_name[a];
        f->by_name[a] = f->by_name[b];
        f->by_name[b] = i;
    } else {
        const smask_file_entry e = f->entry[a];
        f->entry[a] = f->entry[b];
        f->entry[b] = e;
    }
}

/* Heap sort: count log count comparisons, whatever the file says. */
SMASK__FN void smask__entry_sort(smask_file *f)
{
    for (int32_t end = f->count, top = end / 2; end > 1;) {
        int32_t at, next;
        if (top > 0) top--;
        else smask__entry_swap(f, 0, --end);
        for (at = top; (next = 2 * at + 1) < end; at = next) {
            if (next + 1 < end && smask__entry_order(f, next, next + 1) < 0)
                next++;
            if (smask__entry_order(f, at, next) >= 0) break;
            smask__entry_swap(f, at, next);
        }
    }
}

/* Read `bytes` bytes; with data NULL skip them. */
SMASK__FN int smask__read_bytes(smask_ctx *c, smask_file *f, void *data,
    size_t bytes)
{
    unsigned char waste[512];

    while (bytes > 0 && smask__ok(c)) {
        const size_t n = data != NULL ? bytes : smask__min(bytes, 512);
        if (f->io.read(f->io.user, data != NULL ? data : waste, n) != n)
            smask__fail(c, SMASK_IO, "read", "the file is truncated");
        bytes -= n;
    }
    return smask__ok(c);
}

/* Report an invalid header: "open: invalid header at byte 17 (name, shape)". */
SMASK__FN void smask__fail_header(smask_ctx *c, const smask_file *f,
    const smask__json *j)
{
    char text[48] = "invalid header at byte ";

    smask__append_digits(text + strlen(text), (uint64_t)(j->at - f->header));
    if (!smask__set_error(c, SMASK_FORMAT, "open")) return;
    smask__add_detail(c, text);
    if (j->name != NULL) {
        const size_t n = smask__min(j->name_bytes, sizeof text - 1);
        memcpy(text, j->name, n);
        text[n] = '\0';
        smask__add_detail(c, " (");
        smask__add_detail(c, text);
        smask__add_detail(c, ", ");
        smask__add_detail(c, j->field);
        smask__add_detail(c, ")");
    }
    smask__log_error(c);
}

/* Fill f->entry from f->header. The tensors must lie end to end from the
   first byte of data. Entry names point into f->header: no copies. */
SMASK__FN void smask__header_parse(smask_ctx *c, smask_file *f)
{
    smask__json j = { f->header, f->header + f->header_bytes, NULL, "", 0 };
    size_t end = 0;

    if (!smask__json_header(&j, NULL, &f->count, &f->metadata))
        smask__fail_header(c, f, &j);
    f->entry = (smask_file_entry *)smask__data(c, (size_t)f->count,
        sizeof *f->entry);
    int32_t *by_name = smask__indices(c, (size_t)f->count);
    if (!smask__ok(c) || f->count == 0) return;
    j.at = f->header;
    smask__json_header(&j, f->entry, &f->count, &f->metadata);
    smask__entry_sort(f);
    for (int32_t i = 0; i < f->count; end = f->entry[i++].end) {
        by_name[i] = i;
        if (f->entry[i].begin != end)
            smask__fail(c, SMASK_FORMAT, "open",
                "the tensors overlap or have a gap between them");
    }
    f->by_name = by_name;
    smask__entry_sort(f);
    for (int32_t i = 1; i < f->count; i++)
        if (smask__entry_order(f, i - 1, i) == 0) {
            j.name = f->entry[f->by_name[i]].name;
            j.name_bytes = f->entry[f->by_name[i]].name_bytes;
            j.at = j.name;
            j.field = "is there twice";
            smask__fail_header(c, f, &j);
        }
}

SMASK__DEF smask_result smask_open(smask_ctx *c, smask_file *f,
    const smask_io *io)
{
    const size_t mark = smask__mark(c);
    unsigned char length[8] = { 0 };
    uint64_t bytes = 0;
    char *text;

    memset(f, 0, sizeof *f);
    if (!smask__ok(c)) return c->error;
    if (c->dry || io == NULL || io->read == NULL)
        return smask__fail(c, c->dry ? SMASK_STATE : SMASK_ARG, "open",
            "io->read is NULL, or this is a dry run: open files before it");
    f->io = *io;
    smask__read_bytes(c, f, length, 8);
    for (int i = 7; i >= 0; i--) bytes = bytes << 8 | length[i];
    if (smask__ok(c) && (bytes < 2 || bytes > 100000000))    /* the format */
        smask__fail(c, SMASK_FORMAT, "open",
            "not a safetensors file: impossible header length");
    f->header_bytes = (size_t)bytes;
    f->header = text = (char *)smask__data(c, f->header_bytes, 1);
    if (smask__read_bytes(c, f, text, f->header_bytes))
        smask__header_parse(c, f);
    if (smask__ok(c)) return SMASK_OK;
    smask__rewind(c, mark);
    memset(f, 0, sizeof *f);
    return c->error;
}

/* Write a code point as UTF-8; returns its bytes. */
SMASK__FN size_t smask__utf8(uint32_t code, char out[4])
{
    const size_t n = code < 0x80 ? 1 : code < 0x800 ? 2
        : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    for (size_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(unsigned char)(0x80 | (code & 0x3f));
    out[0] = (char)(unsigned char)(lead[n] | code);
    return n;
}

SMASK__DEF int smask_read_metadata(const smask_file *f, const char *key,
    char *out, size_t bytes)
{
    smask__json j = { f->metadata, NULL, NULL, "", 0 };
    const char *s = NULL, *end;
    char part[4];
    size_t n = 0, length = 0;
    uint32_t code;

    if (bytes > 0) out[0] = '\0';
    if (f->metadata == NULL) return -1;
    j.end = f->header + f->header_bytes;
    smask__json_pairs(&j, key, &s, &n);
    if (s == NULL) return -1;
    for (end = s + n; s < end && smask__json_code(&s, end, 0, &code);) {
        n = smask__utf8(code, part);
        if (length + n < bytes) {
            memcpy(out + length, part, n);
            out[length + n] = '\0';
        } else {
            bytes = 0;                   /* cut before this character      */
        }
        length += n;
    }
    return (int)length;
}

/* A metadata entry as an integer 0 .. limit. Returns 0 without such an entry;
   any other value is an error. */
SMASK__FN int smask__metadata_integer(smask_ctx *c, const smask_file *f,
    const char *key, uint64_t limit, uint64_t *out)
{
    char text[24];
    const char *s = text;
    const int n = smask_read_metadata(f, key, text, sizeof text);

    if (n < 0) return 0;
    if (n < (int)sizeof text && smask__json_integer(&s, text + n, out)
        && s == text + n && *out <= limit) return 1;
    smask__fail(c, SMASK_FORMAT, key, "is not an integer in the valid range");
    return 0;
}

/* Read the fields that the metadata has; all others keep their value in
   desc. Both must be at most the field's maximum. */
SMASK__FN smask_result smask__metadata_fields(smask_ctx *c,
    const smask_file *f, const smask__field *list, void *desc)
{
    for (; list->key[0] != '\0'; list++) {
        char *field = (char *)desc + list->at;
        uint32_t bits;
        uint64_t n;
        memcpy(&bits, field, sizeof bits);
        if (smask__metadata_integer(c, f, list->key, list->high, &n))
            bits = (uint32_t)n;
        if (bits > list->high)
            smask__fail(c, SMASK_FORMAT, list->key, "is above its maximum");
        memcpy(field, &bits, sizeof bits);
    }
    return c->error;
}

SMASK__FN const smask_file_entry *smask__file_find(const smask_file *f,
    const char *name)
{
    const size_t n = strlen(name);
    int32_t low = 0, high = f->count;

    while (low < high) {                 /* binary search                  */
        const int32_t middle = low + (high - low) / 2;
        const smask_file_entry *e = &f->entry[f->by_name[middle]];
        const int order = smask__json_order(e->name, e->name_bytes, name, n, 1);
        if (order == 0) return e;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* Dimension i of tensor `name`; 0 if it is missing or of another rank. */
SMASK__FN int32_t smask__file_dim(const smask_file *f, const char *name,
    int32_t rank, int32_t i)
{
    const smask_file_entry *e = smask__file_find(f, name);

    return e != NULL && e->rank == rank ? e->shape[i] : 0;
}

/* 1 if the name of an entry begins with `prefix`. */
SMASK__FN int smask__name_begins(const smask_file_entry *e, const char *prefix)
{
    const char *at = e->name, *const end = at + e->name_bytes;
    uint32_t code;

    while (*prefix != '\0' && at < end
        && smask__json_code(&at, end, 0, &code)
        && code == (unsigned char)*prefix) prefix++;
    return *prefix == '\0';
}

/* The tensors of a block in timm's ViT and DeiT. The last three are in all
   blocks or in none, and the two of LayerScale go together. */
static const char smask__timm_block[15][20] = { "norm1.weight", "norm1.bias",
    "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "norm2.weight",
    "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight",
    "mlp.fc2.bias", "ls1.gamma", "ls2.gamma", "attn.qkv.bias", "" };
static const char smask__timm_rest[7][24] = { "patch_embed.proj.weight",
    "patch_embed.proj.bias", "pos_embed", "norm.weight", "norm.bias",
    "cls_token", "" };

/* Is `name` one of the list? For a block, `name` goes "blocks.7." and on. */
SMASK__FN int smask__timm_knows(const smask_file_entry *e, int32_t depth)
{
    char name[48];

    for (int i = 0; smask__timm_rest[i][0] != '\0'; i++)
        if (smask__text_is(e->name, e->name_bytes, smask__timm_rest[i]))
            return 1;
    for (int32_t k = 0; k < depth; k++) {
        smask__append_text(smask__append_digits(smask__append_text(name,
            "blocks."), (uint64_t)k), ".");
        if (!smask__name_begins(e, name)) continue;
        char *const rest = name + strlen(name);
        for (int i = 0; smask__timm_block[i][0] != '\0'; i++) {
            smask__append_text(rest, smask__timm_block[i]);
            if (smask__text_is(e->name, e->name_bytes, name)) return 1;
        }
    }
    return 0;
}

/* A file without our metadata must hold exactly the tensors that this file
   computes. Any other in the encoder would change the features, so it is an
   error that names it, as is a tensor that only some blocks have. */
SMASK__FN void smask__infer_check(smask_ctx *c, const smask_file *f,
    int32_t depth)
{
    static const char encoder[11][12] = { "blocks.", "norm", "patch_embed",
        "pos_", "rel_pos", "cls_", "dist_token", "reg_token", "fc_norm",
        "pre_logits", "attn_pool" };
    char name[48];

    for (int32_t i = 0; i < f->count && smask__ok(c); i++) {
        const smask_file_entry *e = &f->entry[i];
        int inside = 0;
        for (int k = 0; k < 11; k++)
            inside |= smask__name_begins(e, encoder[k]);
        if (!inside || smask__timm_knows(e, depth)) continue;
        const size_t n = smask__min(e->name_bytes, sizeof name - 1);
        memcpy(name, e->name, n);
        name[n] = '\0';
        smask__fail(c, SMASK_FORMAT, name,
            "is not part of the ViT that is computed here");
    }
    for (int i = 0; smask__timm_block[i][0] != '\0'; i++)
        for (int32_t k = 0, first = 0; k < depth && smask__ok(c); k++) {
            smask__append_text(smask__append_text(smask__append_digits(
                smask__append_text(name, "blocks."), (uint64_t)k), "."),
                smask__timm_block[i]);
            const int there = smask__file_find(f, name) != NULL;
            if (k == 0) first = there;
            if (there != (i < 11 ? 1 : first))
                smask__fail(c, SMASK_FORMAT, name, there
                    ? "is there, but not in every block" : "is missing");
        }
    for (int i = 0; i < 5 && smask__ok(c); i++)
        if (smask__file_find(f, smask__timm_rest[i]) == NULL)
            smask__fail(c, SMASK_FORMAT, smask__timm_rest[i], "is missing");
    if ((smask__file_find(f, "blocks.0.ls1.gamma") == NULL)
        != (smask__file_find(f, "blocks.0.ls2.gamma") == NULL))
        smask__fail(c, SMASK_FORMAT, "file",
            "has one of ls1.gamma and ls2.gamma; both or none are computed");
}

/* Infer a timm ViT or DeiT from the shapes of its tensors. If a class token
   exists, timm pools it, so pool_class is set. Shapes do not determine
   num_heads: without metadata heads are 64 wide. */
SMASK__FN void smask__infer_vit_desc(smask_ctx *c, const smask_file *f,
    smask_vit_desc *d)
{
    static const char patch[] = "patch_embed.proj.weight";
    static const char up[] = "blocks.0.mlp.fc1.weight";
    const int32_t F = smask__file_dim(f, up, 2, 0);
    int32_t N, grid = 0, i;

    d->dim = smask__file_dim(f, patch, 4, 0);
    d->channels = smask__file_dim(f, patch, 4, 1);
    d->patch = smask__file_dim(f, patch, 4, 2);
    for (i = 0; i < f->count; i++)
        if (smask__name_begins(&f->entry[i], "blocks.")) {
            const char *at = f->entry[i].name + 7;
            uint64_t k;
            if (smask__json_integer(&at, f->entry[i].name
                    + f->entry[i].name_bytes, &k) && k < 200
                && (int32_t)k >= d->depth) d->depth = (int32_t)k + 1;
        }
    if (d->dim < 1 || d->depth < 1)
        smask__fail(c, SMASK_FORMAT, "file", "holds no vision transformer "
            "with timm's names (patch_embed.proj.weight, blocks.0. ...)");
    smask__infer_check(c, f, d->depth);
    if (!smask__ok(c)) return;
    d->class_token = smask__file_find(f, "cls_token") != NULL;
    d->pool_class = d->class_token;
    if (smask__file_find(f, "blocks.0.ls1.gamma") != NULL)
        d->layer_scale = 1e-5f;          /* timm's initial value            */
    if (smask__file_dim(f, "head.weight", 2, 1) == d->dim)
        d->classes = smask__file_dim(f, "head.weight", 2, 0);
    N = smask__file_dim(f, "pos_embed", 3, 1) - d->class_token;
    while (grid < 16384 && grid * grid < N) grid++;
    if (d->patch < 1 || grid < 1 || grid * grid != N
        || grid > 16384 / d->patch || F < 1 || F % d->dim
        || smask__file_dim(f, patch, 4, 3) != d->patch
        || smask__file_dim(f, "pos_embed", 3, 2) != d->dim
        || smask__file_dim(f, up, 2, 1) != d->dim)
        smask__fail(c, SMASK_FORMAT, "file", "not a vision transformer "
            "with square patches and consistent widths");
    if (!smask__ok(c)) return;
    d->image = grid * d->patch;
    d->mlp_ratio = F / d->dim;
}

SMASK__DEF smask_result smask_read_vit_desc(smask_ctx *c, const smask_file *f,
    smask_vit_desc *desc)
{
    uint64_t version = 0;

    memset(desc, 0, sizeof *desc);
    if (!smask__ok(c)) return c->error;
    if (!smask__metadata_integer(c, f, "splitmask", (uint64_t)-1, &version))
        smask__infer_vit_desc(c, f, desc);
    if (version > 1)
        smask__fail(c, SMASK_FORMAT, "file",
            "written by a later version of splitmask.h: use that one");
    smask__metadata_fields(c, f, smask__vit_fields, desc);
    if (smask__ok(c)) smask__vit_defaults(desc);
    if (smask__ok(c) && desc->dim % desc->heads != 0)
        smask__fail(c, SMASK_FORMAT, "file",
            "embed_dim is not a multiple of num_heads");
    return c->error;
}

SMASK__DEF smask_result smask_read_tokenizer_desc(smask_ctx *c,
    const smask_file *f, smask_tokenizer_desc *desc)
{
    uint64_t kind = 0;

    memset(desc, 0, sizeof *desc);
    if (!smask__ok(c)) return c->error;
    if (!smask__metadata_integer(c, f, "tokenizer.kind", SMASK_TOKENS_GIVEN,
            &kind))
        smask__fail(c, SMASK_FORMAT, "file", "has no tokenizer");
    desc->kind = (smask_token_kind)kind;
    return smask__metadata_fields(c, f, smask__tokenizer_fields, desc);
}

/* float16 bits to float bits. Exponent 0 marks a subnormal, below 2^-14: its
   fraction counts steps of 2^-24. */
SMASK__FN uint32_t smask__float16_bits(uint32_t h)
{
    const uint32_t sign = (h & 0x8000) << 16;
    const uint32_t exponent = h >> 10 & 31, fraction = h & 0x3ff;
    uint32_t bits;

    if (exponent == 31) return sign | 0x7f800000 | fraction << 13;
    if (exponent > 0) return sign | (exponent + 112) << 23 | fraction << 13;
    const float subnormal = (float)fraction * (1.0f / 16777216);
    memcpy(&bits, &subnormal, 4);
    return sign | bits;
}

/* Read the data of one entry into `out`; with out NULL skip it. */
SMASK__FN void smask__read_entry(smask_ctx *c, smask_file *f,
    const smask_file_entry *e, float *out)
{
    const size_t width = smask__types[e->type].bytes, bytes = e->end - e->begin;
    unsigned char raw[1024];

    f->at = e->end;
    if (out == NULL) smask__read_bytes(c, f, NULL, bytes);
    for (size_t at = 0, n; out != NULL && at < bytes; at += n) {
        n = smask__min(bytes - at, sizeof raw);
        if (!smask__read_bytes(c, f, raw, n)) return;
        for (size_t i = 0; i < n; i += width) {
            uint64_t bits = 0;
            uint32_t single;
            double wide;
            for (size_t k = width; k-- > 0;) bits = bits << 8 | raw[i + k];
            memcpy(&wide, &bits, 8);
            single = e->type == 1 ? smask__float16_bits((uint32_t)bits)
                : (uint32_t)(e->type == 2 ? bits << 16 : bits);
            if (e->type == 3) *out++ = (float)wide;
            else memcpy(out++, &single, 4);
        }
    }
}

/* Result of the check that precedes the first float. */
typedef struct smask__lookup {
    smask_ctx *c;
    const smask_file *f;
    float **destination;             /* by entry: where it goes, or NULL   */
    int32_t missing[2];              /* arrays not in the file: weights,
                                        all others                         */
    const char *prefix;              /* only names that begin with it, or  */
    int except;                      /* only those that do not             */
} smask__lookup;

/* Find the entry of array s and set its destination. A classifier with
   another number of classes belongs to another task: it counts as missing and
   keeps its present values. */
SMASK__FN void smask__lookup_array(void *arg, const smask__array *s)
{
    smask__lookup *m = (smask__lookup *)arg;
    const char *wrong = NULL;
    const smask_file_entry *e;

    if ((strncmp(s->name, m->prefix, strlen(m->prefix)) != 0) != m->except)
        return;
    e = smask__file_find(m->f, s->name);
    if (e != NULL && (e->rank != s->rank || memcmp(e->shape, s->shape,
            (size_t)s->rank * sizeof *s->shape) != 0)) {
        if (strncmp(s->name, "head.", 5) == 0) e = NULL;
        else wrong = "its shape in the file differs from the model's";
    }
    if (e != NULL && e->type >= SMASK__TYPES)
        wrong = "is not F32, F16, BF16 or F64";
    if (wrong != NULL) smask__fail(m->c, SMASK_FORMAT, s->name, wrong);
    if (e != NULL) m->destination[e - m->f->entry] = s->x;
    m->missing[s->kind > 0] += e == NULL;
}

/* Check everything first: until then no float, step or generator changes.
   Packed weights count as stale even if the read fails. */
SMASK__FN smask_result smask__read_some(smask_ctx *c, smask_file *f,
    smask_vit *v, smask_tokenizer *t, smask_adam *a, smask_ema *e,
    const char *prefix, int except, int32_t *missing)
{
    const size_t mark = smask__mark(c);
    const uint64_t limit = (uint64_t)-1;
    smask__lookup m = { c, f, NULL, { 0, 0 }, prefix, except };
    smask_random r = c->random;
    uint64_t step = 0;
    unsigned char extra;

    if (missing != NULL) *missing = 0;
    for (int32_t i = 0; v != NULL && i < v->params.count; i++)
        if (v->params.item[i].t->arg[1] == SMASK__PANELS_READY)
            v->params.item[i].t->arg[1] = SMASK__PANELS_OLD;
    if (!smask__ok(c) || c->dry) return c->error;
    if (v == NULL || v->params.count < 1 || v->desc.weights != NULL)
        return smask__fail(c, SMASK_ARG, "read",
            "there is no model, or desc.weights is read-only");
    if ((a != NULL && a->m == NULL) || (e != NULL && e->mean == NULL))
        return smask__fail(c, SMASK_ARG, "read",
            "the optimiser or the EMA is not initialised");
    if (f->header == NULL || f->at != 0)
        return smask__fail(c, SMASK_STATE, "read",
            "the file is not open or was read already; call smask_open");
    m.destination = (float **)smask__data(c, (size_t)f->count,
        sizeof *m.destination);
    if (m.destination == NULL) return c->error;
    for (int32_t i = 0; i < f->count; i++) m.destination[i] = NULL;
    smask__for_each_array(v, t, a, e, smask__lookup_array, &m);
    if (a != NULL)
        m.missing[1] += 3
            - smask__metadata_integer(c, f, "adam.step", limit >> 2, &step)
            - smask__metadata_integer(c, f, "random.state", limit, &r.state)
            - smask__metadata_integer(c, f, "random.stream", limit, &r.stream);
    if (m.missing[1] > 0)
        smask__fail(c, SMASK_STATE, "read",
            "the file lacks the requested training state, EMA or codebook");
    if (a != NULL && (r.stream & 1) == 0)            /* PCG needs it odd   */
        smask__fail(c, SMASK_FORMAT, "read", "random.stream must be odd");
    if (missing != NULL) *missing = m.missing[0];
    for (int32_t i = 0; i < f->count && smask__ok(c); i++)
        smask__read_entry(c, f, &f->entry[i], m.destination[i]);
    if (smask__ok(c) && f->io.read(f->io.user, &extra, 1) != 0)
        smask__fail(c, SMASK_FORMAT, "read",
            "bytes follow the last tensor: the file is damaged");
    smask__rewind(c, mark);
    if (!smask__ok(c)) return c->error;
    c->random = r;
    if (a != NULL) a->step = (int64_t)step;
    return SMASK_OK;
}

SMASK__DEF smask_result smask_read(smask_ctx *c, smask_file *f, smask_vit *v,
    smask_tokenizer *t, smask_adam *a, smask_ema *e, int32_t *missing)
{ return smask__read_some(c, f, v, t, a, e, "", 0, missing); }

SMASK__DEF smask_result smask_read_prefix(smask_ctx *c, smask_file *f,
    smask_vit *v, const char *prefix, int except, int32_t *missing)
{
    return smask__read_some(c, f, v, NULL, NULL, NULL, prefix != NULL ? prefix
        : "", except != 0, missing);
}

SMASK__DEF smask_result smask_read_tensor(smask_ctx *c, smask_file *f,
    const char *name, float *out, size_t count)
{
    const smask_file_entry *e = smask__file_find(f, name);

    if (!smask__ok(c) || c->dry) return c->error;
    if (e == NULL)
        return smask__fail(c, SMASK_FORMAT, name, "is not in the file");
    if (e->type >= SMASK__TYPES
        || (e->end - e->begin) / smask__types[e->type].bytes != count)
        return smask__fail(c, SMASK_FORMAT, name,
            "has another size than `count`, or is not F32, F16, BF16 or F64");
    if (f->at > e->begin)
        return smask__fail(c, SMASK_STATE, name,
            "lies before the read position; open the file again");
    if (smask__read_bytes(c, f, NULL, e->begin - f->at))
        smask__read_entry(c, f, e, out);
    return c->error;
}

/* ######################################################################
   PART IV                                                    THE ENGINE

   How the functions of >>engine run at the processor's speed. The
   algorithm above does not depend on how; it can be read without this part.
   ###################################################################### */

/* ======================================================================
   15  THE MATRIX PRODUCT                                         >>gemm
   Question   A training step spends nearly all its time in C = A B. How
              can plain C compute it at the processor's limit?
   Idea       Four versions, each of which removes the bottleneck of the
              one before, and a fifth with smaller operands.

     1. Three loops (smask__gemm_plain, below). Each multiplication loads
        two floats from memory. The result is right and slow: the tests
        compare with it.
     2. A tile of C in registers. MR rows and NR columns of C stay in
        registers while k runs, so MR + NR loads serve MR * NR
        multiplications. With AVX-512 the tile is 14 x 32: 28 registers
        hold sums, 2 hold B, and each element of A comes from memory and
        is used twice. The 28 sums do not depend on each other, which
        hides the latency of a multiply-add (4 cycles, two per cycle: 8
        sums would do). AVX2 has 16 registers, so its tile is 6 x 16: 12
        hold sums, 2 hold B, 1 holds A.
     3. Packing. The tile reads NR columns of B for each k. Packing copies
        them once into panels: NR floats are contiguous, and those of the
        next k follow, so the hardware prefetcher finds them. The copy
        multiplies nothing and takes up to a fifth of the time. So the
        product reads an operand in place if its layout allows: A nearly
        always, B when few rows of A use it (smask__in_place).
     4. Blocks that fit the caches. k is cut at KC = 384. A panel of B
        (KC x NR floats, 48 KB) then stays near the first-level cache
        while MC = 112 rows of A (KC x MC floats, 172 KB) stream from the
        second-level cache.
     5. Bfloat16 operands, if the context asks for them (SMASK_ISA_BF16).
        A bfloat16 is the upper 16 bits of a float. The values of k and
        k + 1 form a bf16 pair, as long as one float, and one instruction
        adds both products of two pairs to a float. So everything above
        holds with pairs in place of floats and half as many k. Packing
        converts the operands, so it is never skipped. Sums remain floats;
        only the operands are rounded, by at most 2^-9, 0.2 %.

              n                          one tile, per k:
         +--+--+--+--+                    b0        b1
       k | panels of B, NR wide      a0   c0,0      c0,1
         +--+--+--+--+               a1   c1,0      c1,1
       +---+ +--+--+--+--+           ..   ..        ..
     m | A | |  | C|  |  | MR        a13  c13,0     c13,1
       +---+ +--+--+--+--+

              Contract of a tile: it reads k rows of B in whole vectors
              (the packer fills missing columns with zeros). It reads only
              the rows of A that it computes. It reads C only to add to
              it. Bias, residual, stochastic depth factor and gelu' are
              applied while the tile is in registers or in the first-level
              cache.
              A' B uses the same loop with A transposed: MR columns of A
              take the place of MR rows.
   May call   1 to 4.            Called by   5, 8, 10, through >>engine.
   Source     Goto and van de Geijn 2008; Van Zee and van de Geijn 2015
              [GG08] [BLIS15]; on training with bfloat16, Kalamkar et al.
              2019 [Kal19].
   ====================================================================== */

#define SMASK__KC ((size_t)384)

#ifdef SPLITMASK_CBLAS
/* The CBLAS hook. With one panel as wide as the matrix and one group as tall,
   blocks are plain matrices, and the CBLAS library multiplies them. */
extern
#ifdef __cplusplus
"C"
#endif
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k,
    float alpha, const float *a, int lda, const float *b, int ldb,
    float beta, float *c, int ldc);
#endif

/* Version 1, the reference: all others must agree with it up to rounding. */
SMASK__FN void smask__gemm_plain(smask_trans trans, size_t m, size_t n,
    size_t k, const float *a, size_t lda, const float *b, size_t ldb,
    float *c, size_t ldc, int add)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = add ? c[i * ldc + j] : 0;
            for (size_t p = 0; p < k; p++)
                sum += (trans == SMASK_TN ? a[p * lda + i] : a[i * lda + p])
                    * (trans == SMASK_NT ? b[j * ldb + p] : b[p * ldb + j]);
            c[i * ldc + j] = sum;
        }
}

/* Set what depends on the instruction set and the sizes. k is cut into equal
   parts of at most KC floats or bf16 pairs. Rows are cut into about sixteen
   pieces of at most MC rows, so that all threads finish together. */
SMASK__FN void smask__product_plan(const smask_ctx *c, smask__product *p)
{
    size_t parts;

    p->isa = c->isa;
    p->paired = smask__isa_is_bf16(c->desc.isa) && !p->exact;
    parts = smask__ceil_div(p->k, p->paired ? 2 * SMASK__KC : SMASK__KC);
#ifdef SPLITMASK_CBLAS
    p->mr = smask__max(p->m, 1);
    p->nr = smask__max(p->n, 1);
#else
    p->mr = smask__tile_rows(c->isa);
    p->nr = smask__tile_columns(c->isa);
#endif
    p->kc = parts > 1 ? smask__round_up(smask__ceil_div(p->k, parts), 4) : p->k;
    if (p->mc == 0)
        p->mc = smask__min(smask__ceil_div(p->m, 16), SMASK__MC);
    p->mc = smask__round_up(smask__max(p->mc, 1), smask__tile_rows(c->isa));
    if (p->nc == 0 || p->nc > p->n) p->nc = p->n;
    p->nc = smask__round_up(smask__max(p->nc, 1), p->nr);
}

SMASK__FN void smask__multiply_block(int isa, const smask__block_product *t)
{
#ifdef SPLITMASK_CBLAS
    cblas_sgemm(101, t->a_transposed ? 112 : 111, 111, (int)t->m, (int)t->n,
        (int)t->k, 1, t->a, (int)t->a_ld, t->b, (int)t->b_ld,
        t->add ? 1 : 0, t->c, (int)t->c_ld);
    for (size_t i = 0; i < t->m; i++)
        for (size_t j = 0; j < t->n; j++) {
            float *y = t->c + i * t->c_ld + j;
            if (t->bias != NULL) *y += t->bias[j];
            if (t->scale != NULL) *y *= t->scale[i];
            if (t->r != NULL) *y += t->r[i * t->r_ld + j];
        }
    (void)isa;
#else
    smask__multiply_tiles(isa, t);
#endif
}

/* -- Packing B. The parts of k follow each other; part k0 starts at
   k0 * (n rounded up to NR) and holds its panels side by side. A piece is two
   panels, because long reads use memory better. A panel of bf16 pairs fills
   only the first half of its buffer: its floats need the whole buffer before
   they are paired in place. */

#define SMASK__PANELS_A_PIECE ((size_t)2)

SMASK__FN void smask__pack_piece(void *arg, int piece, int worker)
{
    const smask__product *p = (const smask__product *)arg;
    const size_t begin = (size_t)piece * SMASK__PANELS_A_PIECE * p->nr;
    const size_t end = smask__min(p->n,
        begin + SMASK__PANELS_A_PIECE * p->nr);

    (void)worker;
    for (size_t k0 = 0; k0 < p->k; k0 += p->kc) {
        const size_t len = smask__min(p->kc, p->k - k0);
        float *to = p->packed + k0 * smask__round_up(p->n, p->nr) + begin * len;
        if (!p->b_transposed)
            smask__fetch(p->isa, &p->b, k0, len, begin, end - begin, to, p->nr,
                p->nr, p->nr * len, p->paired);
        for (size_t j = begin; p->b_transposed && j < end; j += p->nr) {
            const float *b = p->b.x + j * p->b.ld + k0;
            const size_t columns = smask__min(end - j, p->nr);
            smask__transpose(p->isa, b, p->b.ld, columns, len, to, p->nr);
            if (p->paired) {             /* in place                       */
                const smask__operand v = smask__operand_of(to, p->nr);
                smask__fetch(p->isa, &v, 0, len, 0, p->nr, to, p->nr, p->nr, 0,
                    1);
            }
            to += p->nr * len;
        }
    }
}

/* Can the first-level cache hold several rows at once? Rows a multiple of 4 KB
   apart fall on one cache set and evict each other. */
SMASK__FN int smask__rows_near(const smask__operand *v)
{ return v->lens == SMASK__PLAIN && v->ld % 1024 != 0; }

/* Can tiles read a right factor in place? They read whole vectors, so rows must
   be a multiple of 16 columns wide. The scalar version (nr 2) always copies:
   some compilers vectorise it so that it reads one row too many. */
SMASK__FN int smask__in_place(const smask__operand *v, size_t columns,
    size_t nr)
{
    return smask__rows_near(v) && v->ld % 16 == 0 && columns % 16 == 0
        && nr > 2;
}

SMASK__FN void smask__pack_now(smask_ctx *c, smask__product *p)
{
    smask__run(c, smask__ceil_div(p->n, SMASK__PANELS_A_PIECE * p->nr),
        smask__pack_piece, p);
}

/* Pack B unless tiles can read it in place and few rows of A use it: the copy
   pays only if it is read often. */
SMASK__FN void smask__pack(smask_ctx *c, smask__product *p)
{
    if (p->ready) return;
    p->packed = NULL;
    if (p->m <= 1024 && !p->b_transposed && !p->paired
        && smask__in_place(&p->b, p->n, p->nr)) return;
    p->packed = smask__floats(c, smask__mul_sat(p->k,
        smask__round_up(p->n, p->nr)));
    smask__pack_now(c, p);
}

/* LayerNorm statistics: mean and 1 / sqrt(var + eps) of each row. Two passes,
   because E[x^2] - mean^2 loses its digits if the mean is large and the
   deviation small. */
SMASK__FN void smask__norm_stat(int isa, const float *x, size_t ld,
    size_t rows, size_t D, float *stat)
{
    for (size_t i = 0; i < rows; i++, x += ld) {
        float sum, squares, mean, none;
        smask__moments(isa, x, D, 0, &sum, &none);
        mean = sum / (float)D;
        smask__moments(isa, x, D, mean, &sum, &squares);
        stat[2 * i] = mean;
        stat[2 * i + 1] = 1 / sqrtf(squares / (float)D + 1e-6f);
    }
}

/* Number of pieces that m rows are cut into: a multiple of four, so that
   threads finish together, but at most one piece per row of tiles. */
SMASK__FN size_t smask__pieces_down(const smask__product *p)
{
    return smask__min(smask__round_up(smask__ceil_div(p->m, p->mc), 4),
        smask__ceil_div(p->m, smask__tile_rows(p->isa)));
}

/* Return columns k0 .. k0 + len - 1 of some rows of A, as the tiles read them:
   in place, or copied with a row stride that spreads rows over the cache sets.
   Bf16 pairs are always in `copy`, made from A or from the copy in place. */
SMASK__FN const float *smask__rows_of_a(const smask__product *p, size_t row,
    size_t rows, size_t k0, size_t len, float *copy, size_t *ld)
{
    const float *x = p->a.x + row * p->a.ld + k0;
    const int fit = p->paired ? p->a.lens == SMASK__PLAIN
        : smask__rows_near(&p->a);

    *ld = p->a.ld;
    if (!fit) {
        *ld = len + 16;
        smask__fetch(p->isa, &p->a, row, rows, k0, len, copy, *ld, len, 0, 0);
        x = copy;
    }
    if (p->paired) {
        smask__pair_columns(p->isa, x, *ld, rows, len, copy, len / 2 + 16);
        *ld = len / 2 + 16;
        x = copy;
    }
    return x;
}

/* Compute one piece of A B: whole tiles, at most `mc` rows and `nc` columns. */
SMASK__FN void smask__nn_piece(void *arg, int piece, int worker)
{
    const smask__product *p = (const smask__product *)arg;
    const size_t mr = smask__tile_rows(p->isa);
    const size_t tiles = smask__ceil_div(p->m, mr);
    const size_t down = smask__pieces_down(p), at = (size_t)piece % down;
    const size_t row = at * tiles / down * mr;
    const size_t column = (size_t)piece / down * p->nc;
    const size_t n_up = smask__round_up(p->n, p->nr);
    float *work = p->work + (size_t)worker * p->work_floats;
    float *scale = work + p->mc * (p->kc + 16);
    smask__block_product t;

    memset(&t, 0, sizeof t);
    t.paired = p->paired;
    t.m = smask__min(p->m, (at + 1) * tiles / down * mr) - row;
    t.n = smask__min(p->n - column, p->nc);
    t.c_ld = p->own ? p->n : p->c_ld;
    t.c = p->own ? scale + p->mc : p->c + row * p->c_ld + column;
    if (p->stat != NULL)
        smask__norm_stat(p->isa, p->a.x + row * p->a.ld, p->a.ld, t.m,
            p->k, p->stat + 2 * row);
    for (size_t k0 = 0; k0 < p->k; k0 += p->kc) {
        const size_t len = smask__min(p->kc, p->k - k0);
        t.a = smask__rows_of_a(p, row, t.m, k0, len, work, &t.a_ld);
        t.k = p->paired ? smask__ceil_div(len, 2) : len;
        t.a_group = p->mr * t.a_ld;
        if (p->packed != NULL) {
            t.b = p->packed + k0 * n_up + column * len;
            t.b_ld = p->nr;
            t.b_panel = p->nr * len;
        } else {
            t.b = p->b.x + k0 * p->b.ld + column;
            t.b_ld = p->b.ld;
            t.b_panel = p->nr;
        }
        t.add = p->add || k0 > 0;
        if (k0 + len == p->k) {          /* last part: the sums are final  */
            t.bias = p->bias != NULL ? p->bias + column : NULL;
            t.r = p->r != NULL ? p->r + row * p->r_ld + column : NULL;
            t.r_ld = p->r_ld;
            t.scale = p->keep != NULL ? scale : NULL;
            for (size_t i = 0; p->keep != NULL && i < t.m; i++)
                scale[i] = p->keep[(row + i) / p->group];
        }
        smask__multiply_block(p->isa, &t);
    }
    if (p->after != NULL) p->after(p->arg, row, t.m, t.c, piece);
}

/* C = A B after smask__product_plan and smask__pack. */
SMASK__FN void smask__product_nn(smask_ctx *c, smask__product *p)
{
    const size_t mark = smask__mark(c);
    size_t floats = p->mc * (p->kc + 16) + p->mc;

    if (p->own) floats += p->mc * p->n;
    p->work_floats = smask__round_up(floats, 16);
    p->work = smask__floats(c, smask__mul_sat(smask__workers(c),
        p->work_floats));
    smask__run(c, smask__pieces_down(p) * smask__ceil_div(p->n, p->nc),
        smask__nn_piece, p);
    smask__rewind(c, mark);
}

SMASK__FN void smask__product_do(smask_ctx *c, smask__product *p)
{
    const size_t mark = smask__mark(c);

    smask__product_plan(c, p);
    smask__pack(c, p);
    smask__product_nn(c, p);
    smask__rewind(c, mark);
}

/* Floats in a packed group of MR columns of A. The packer may write up to 16
   floats past the group. */
SMASK__FN size_t smask__group(const smask__product *p)
{ return smask__round_up(p->mr * p->kc + 16, 16); }

/* sums[j] += sum_i A[i, j] over rows k0 .. k0 + len - 1 of A, for columns from
   j. The product has just read these rows, so they are in the cache. */
SMASK__FN void smask__sum_columns(const smask__product *p, size_t k0,
    size_t len, size_t j, size_t columns)
{
    const float *x = p->a.x + k0 * p->a.ld + j;

    if (p->a.lens == SMASK__PLAIN)
        smask__sum_rows(p->isa, p->sums + j, x, p->a.ld, len, columns);
    else                                             /* KEEP               */
        for (size_t i = 0; i < len; i++, x += p->a.ld)
            smask__axpy(p->isa, p->sums + j, p->a.keep[(k0 + i) / p->a.group],
                x, columns);
}

/* Compute one piece of A' B: a rectangle of C over all of k. Operands that need
   packing are packed here, one part of k at a time. */
SMASK__FN void smask__tn_piece(void *arg, int piece, int worker)
{
    const smask__product *p = (const smask__product *)arg;
    const size_t down = smask__ceil_div(p->m, p->mc);
    const size_t row = (size_t)piece % down * p->mc;
    const size_t column = (size_t)piece / down * p->nc;
    /* Each k reads one cache line of A, whatever the row stride. Next to the
       28 multiply-adds of a large tile that costs nothing; in a small tile it
       takes half the time, so A is packed. Vectors of B that straddle two
       cache lines cost more than packing B. */
    const int pack_a = p->paired || p->a.lens != SMASK__PLAIN || p->nr <= 16;
    const int pack_b = p->paired || !smask__in_place(&p->b, p->n, p->nr)
        || (uintptr_t)p->b.x % 64 != 0;
    float *a = p->work + (size_t)worker * p->work_floats;
    float *b = a + smask__ceil_div(p->mc, p->mr) * smask__group(p);
    smask__block_product t;
    size_t k0, len;

    memset(&t, 0, sizeof t);
    t.a_transposed = 1;
    t.paired = p->paired;
    t.m = smask__min(p->m - row, p->mc);
    t.n = smask__min(p->n - column, p->nc);
    t.a_ld = pack_a ? p->mr : p->a.ld;
    t.a_group = pack_a ? smask__group(p) : p->mr;
    t.b_ld = pack_b ? p->nr : p->b.ld;
    t.b_panel = pack_b ? p->nr * p->kc : p->nr;
    t.c = p->c + row * p->c_ld + column;
    t.c_ld = p->c_ld;
    for (k0 = 0; k0 < p->k; k0 += p->kc) {
        len = smask__min(p->kc, p->k - k0);
        t.k = p->paired ? smask__ceil_div(len, 2) : len;
        t.add = p->add || k0 > 0;
        t.a = pack_a ? a : p->a.x + k0 * p->a.ld + row;
        t.b = pack_b ? b : p->b.x + k0 * p->b.ld + column;
        if (pack_a)
            smask__fetch(p->isa, &p->a, k0, len, row, t.m, a, p->mr, p->mr,
                t.a_group, p->paired);
        if (pack_b)
            smask__fetch(p->isa, &p->b, k0, len, column, t.n, b, t.b_ld,
                t.b_ld, t.b_panel, p->paired);
        smask__multiply_block(p->isa, &t);
        if (p->sums != NULL && column == 0)
            smask__sum_columns(p, k0, len, row, t.m);
    }
}

/* C (m,n) = A' B. C is cut into rectangles of at most about 196 x 384. Their
   number is a multiple of four, so that threads finish together. */
SMASK__FN void smask__product_tn(smask_ctx *c, smask__product *p)
{
    const size_t mark = smask__mark(c);
    size_t down = smask__ceil_div(p->m, 196),
        over = smask__ceil_div(p->n, 384);

    while (down * over % 4 != 0 && p->m / down + p->n / over > 64) {
        if (p->m / down >= p->n / over) down++;
        else over++;
    }
    p->mc = smask__ceil_div(p->m, down);
    p->nc = smask__ceil_div(p->n, over);
    smask__product_plan(c, p);
    p->mc = smask__round_up(p->mc, p->mr);
    p->work_floats = smask__ceil_div(p->mc, p->mr) * smask__group(p)
        + smask__round_up(p->nc * p->kc, 16);
    p->work = smask__floats(c, smask__mul_sat(smask__workers(c),
        p->work_floats));
    smask__run(c, smask__ceil_div(p->m, p->mc) * smask__ceil_div(p->n, p->nc),
        smask__tn_piece, p);
    smask__rewind(c, mark);
}

SMASK__DEF smask_result smask_gemm(smask_ctx *c, smask_trans trans, size_t m,
    size_t n, size_t k, const float *a, size_t lda, const float *b,
    size_t ldb, float *out, size_t ldc, int add)
{
    if (trans != SMASK_NN && trans != SMASK_NT && trans != SMASK_TN)
        return smask__fail(c, SMASK_ARG, "gemm",
            "trans is not SMASK_NN, SMASK_NT or SMASK_TN");
    if (lda < (trans == SMASK_TN ? m : k) || ldc < n
        || ldb < (trans == SMASK_NT ? k : n))
        return smask__fail(c, SMASK_ARG, "gemm",
            "lda, ldb or ldc is below the length of its rows");
    if (m == 0 || n == 0 || !smask__ok(c)) return c->error;
    if (k == 0) {
        for (size_t i = 0; i < m && !add && !c->dry; i++)
            memset(out + i * ldc, 0, n * sizeof *out);
        return c->error;
    }
    smask__product p = smask__product_of(m, n, k, out, ldc);
    p.a = smask__operand_of(a, lda);
    p.b = smask__operand_of(b, ldb);
    p.b_transposed = trans == SMASK_NT;
    p.add = add;
    if (trans == SMASK_TN) smask__product_tn(c, &p);
    else smask__product_do(c, &p);
    return c->error;
}

/* ======================================================================
   16  THREADS                                                    >>pool
   Question   How do several cores share a job of a few microseconds?
   Idea       A job is one call of fn for each of `count` pieces. One 64-bit
              integer, `word`, holds the state of the thread pool: the
              number of the job and how many of its pieces are not yet
              taken. A thread takes a piece with one compare-and-swap that
              decrements `word`. It fails if `word` has changed, so a late
              thread can never take a piece of the next job.
              The caller takes pieces, too. Then it waits for the pieces
              that workers have taken, never for a worker that sleeps.
              Idle workers spin for a few microseconds before they sleep,
              because the next job usually comes within that time.
   May call   1, 2.              Called by   smask__run, through the hook.
   Source     Dekker's algorithm: each side first writes its own state, then
              reads the other's [Dij65].
   ====================================================================== */
#ifdef SPLITMASK_THREADS

#ifndef __GNUC__
#error "SPLITMASK_THREADS needs the __atomic functions of gcc and clang"
#endif
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define SMASK__POOL_MAX 1024             /* upper limit of threads         */
#define SMASK__POOL_SPINS 2000           /* first: 1 to 2 us               */
#define SMASK__POOL_YIELDS 200           /* then sched_yield: about 100 us */

/* The threads that sleep until a condition holds, and how many they are. */
typedef struct smask__sleepers {
    pthread_cond_t wakes;
    int sleepers;
} smask__sleepers;

struct smask__pool;

typedef struct smask__worker {
    struct smask__pool *pool;
    pthread_t thread;
} smask__worker;

typedef struct smask__pool {
    uint64_t state __attribute__((aligned(8))); /* job << 32 | pieces left */
    void (*fn)(void *arg, int piece, int worker);
    void *arg;
    int count;                           /* pieces of the job              */
    int done;                            /* of these, finished             */
    int taken;                           /* 1: a job is running            */
    int stop;                            /* 1: workers return              */
    int helpers;                         /* workers, without the caller    */
    pthread_mutex_t lock;                /* only to sleep and to wake      */
    smask__sleepers work, home;          /* work: workers; home: caller    */
    smask__worker *worker;               /* (helpers)                      */
} smask__pool;

/* 1 if a worker must stop waiting: pieces are left, or the pool stops. */
SMASK__FN int smask__pool_has_work(smask__pool *s)
{
    return (uint32_t)__atomic_load_n(&s->state, __ATOMIC_SEQ_CST) != 0
        || __atomic_load_n(&s->stop, __ATOMIC_SEQ_CST) != 0;
}

/* 1 if all pieces of the job are finished. */
SMASK__FN int smask__pool_finished(smask__pool *s)
{ return __atomic_load_n(&s->done, __ATOMIC_SEQ_CST) == s->count; }

/* Wait until `ready`: spin, then yield, then sleep. No wake-up is lost. The
   sleeper first adds itself to `sleepers`, then tests `ready`. The waker first
   makes the change, then pool_wake reads `sleepers`. All four accesses are
   SEQ_CST, so at least one side sees what the other wrote. */
SMASK__FN void smask__pool_wait(smask__pool *s, smask__sleepers *queue,
    int (*ready)(smask__pool *s))
{
    for (int i = 0; i < SMASK__POOL_SPINS + SMASK__POOL_YIELDS; i++) {
        if (ready(s)) return;
        if (i >= SMASK__POOL_SPINS) sched_yield();
    }
    pthread_mutex_lock(&s->lock);
    __atomic_add_fetch(&queue->sleepers, 1, __ATOMIC_SEQ_CST);
    while (!ready(s)) pthread_cond_wait(&queue->wakes, &s->lock);
    __atomic_sub_fetch(&queue->sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&s->lock);
}

/* Wake `limit` threads at most. Costs one load if none sleeps. The lock ensures
   that a thread counted in `sleepers` is inside pthread_cond_wait. */
SMASK__FN void smask__pool_wake(smask__pool *s, smask__sleepers *queue,
    int limit)
{
    if (__atomic_load_n(&queue->sleepers, __ATOMIC_SEQ_CST) == 0) return;
    pthread_mutex_lock(&s->lock);
    if (limit > queue->sleepers) limit = queue->sleepers;
    for (int i = 0; i < limit; i++) pthread_cond_signal(&queue->wakes);
    pthread_mutex_unlock(&s->lock);
}

/* Take pieces until none is left. fn, arg and count are read before a piece is
   taken: if a new job replaces them in between, `state` has changed, too, and
   the compare-and-swap fails. A job does not end before every taken piece is
   counted in `done`, so a thread adds its pieces once, at the end. */
SMASK__FN void smask__pool_take(smask__pool *s, int worker)
{
    uint64_t state = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
    int finished = 0;

    while ((uint32_t)state != 0) {
        void (*fn)(void *, int, int) =
            __atomic_load_n(&s->fn, __ATOMIC_RELAXED);
        void *arg = __atomic_load_n(&s->arg, __ATOMIC_RELAXED);
        const int count = __atomic_load_n(&s->count, __ATOMIC_RELAXED);
        const int left = (int)(uint32_t)state;
        if (!__atomic_compare_exchange_n(&s->state, &state, state - 1, 0,
                __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
        fn(arg, count - left, worker);
        finished++;
        state = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
    }
    if (finished == 0) return;
    __atomic_add_fetch(&s->done, finished, __ATOMIC_SEQ_CST);
    if (worker != 0) smask__pool_wake(s, &s->home, 1);
}

SMASK__FN void *smask__pool_worker(void *arg)
{
    smask__worker *worker = (smask__worker *)arg;
    smask__pool *s = worker->pool;

    for (;;) {
        smask__pool_wait(s, &s->work, smask__pool_has_work);
        if (__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST)) return NULL;
        smask__pool_take(s, (int)(worker - s->worker) + 1);
    }
}

/* The number of the calling thread: 1 .. helpers for a worker, otherwise 0. */
SMASK__FN int smask__pool_self(const smask__pool *s)
{
    const pthread_t self = pthread_self();

    for (int i = 0; s != NULL && i < s->helpers; i++)
        if (pthread_equal(self, s->worker[i].thread)) return i + 1;
    return 0;
}

/* The hook. A job that starts inside another job finds `taken` set. Then the
   calling thread runs all its pieces alone: waiting for the pool, which waits
   for this thread, would be a deadlock. */
SMASK__FN void smask__pool_run(void *user, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    smask__pool *s = (smask__pool *)user;
    uint64_t job;

    if (s == NULL || count < 2
        || __atomic_exchange_n(&s->taken, 1, __ATOMIC_ACQUIRE) != 0) {
        const int self = smask__pool_self(s);
        for (int i = 0; i < count; i++) fn(arg, i, self);
        return;
    }
    __atomic_store_n(&s->fn, fn, __ATOMIC_RELAXED);
    __atomic_store_n(&s->arg, arg, __ATOMIC_RELAXED);
    __atomic_store_n(&s->count, count, __ATOMIC_RELAXED);
    __atomic_store_n(&s->done, 0, __ATOMIC_RELAXED);
    job = (__atomic_load_n(&s->state, __ATOMIC_RELAXED) >> 32) + 1;
    __atomic_store_n(&s->state, job << 32 | (uint64_t)count,
        __ATOMIC_SEQ_CST);
    smask__pool_wake(s, &s->work, count - 1);
    smask__pool_take(s, 0);
    smask__pool_wait(s, &s->home, smask__pool_finished);
    __atomic_store_n(&s->taken, 0, __ATOMIC_RELEASE);
}

SMASK__DEF smask_parallel smask_threads_hook(smask_threads *pool)
{
    const smask_parallel hook = { smask__pool_run, pool->state,
        pool->workers };

    return hook;
}

SMASK__DEF void smask_threads_stop(smask_threads *pool)
{
    smask__pool *s = (smask__pool *)pool->state;

    pool->state = NULL;
    pool->workers = 1;
    if (s == NULL) return;
    __atomic_store_n(&s->stop, 1, __ATOMIC_SEQ_CST);
    smask__pool_wake(s, &s->work, s->helpers);
    for (int i = 0; i < s->helpers; i++)
        pthread_join(s->worker[i].thread, NULL);
    pthread_cond_destroy(&s->work.wakes);
    pthread_cond_destroy(&s->home.wakes);
    pthread_mutex_destroy(&s->lock);
    smask__default_release(s);
}

/* A pool of one thread has no state and needs no memory. */
SMASK__DEF smask_result smask_threads_start(smask_threads *pool, int workers)
{
    const long limit = workers > 0 ? workers : sysconf(_SC_NPROCESSORS_ONLN);
    const int helpers = limit < 1 ? 0 : limit > SMASK__POOL_MAX
        ? SMASK__POOL_MAX - 1 : (int)limit - 1;

    pool->state = NULL;
    pool->workers = 1;
    if (workers < 0 || workers > SMASK__POOL_MAX) return SMASK_ARG;
    pool->workers = helpers + 1;
    if (helpers == 0) return SMASK_OK;
    smask__pool *s = (smask__pool *)smask__default_alloc(sizeof *s
        + (size_t)helpers * sizeof *s->worker);
    if (s == NULL) return SMASK_MEMORY;
    memset(s, 0, sizeof *s);
    s->worker = (smask__worker *)(void *)(s + 1);
    pool->state = s;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work.wakes, NULL);
    pthread_cond_init(&s->home.wakes, NULL);
    for (; s->helpers < helpers; s->helpers++) {
        smask__worker *worker = &s->worker[s->helpers];
        worker->pool = s;
        if (pthread_create(&worker->thread, NULL, smask__pool_worker, worker)) {
            smask_threads_stop(pool);
            return SMASK_MEMORY;
        }
    }
    return SMASK_OK;
}

#endif /* SPLITMASK_THREADS */

/* ======================================================================
   17  SIMD                                                        >>simd
   Question   How does a plain `cc -O2` build use the widest vectors that
              the processor has, without writing assembly?
   Idea       Each hot loop is written once, below, on vectors v_t of some
              width. This file includes itself once per instruction set:
              each pass defines v_t and its few operations and yields its
              own functions (smask__gelu_avx2, ...). Setup stores the best
              instruction set of the processor in the context. At the end
              stand the functions of >>engine, which call the version for
              it. No other chapter contains code for one instruction set.
              This chapter is the last because the file includes itself
              here.
   May call   1, 2, 4.           Called by   all, through >>engine.
   ====================================================================== */

#endif /* SMASK__BUILD and no pass */

#ifdef SMASK__PASS
/* ----------------------------------------------------------------------
   17a  The vector operations of one pass. v_t holds SMASK__PASS floats.
   ---------------------------------------------------------------------- */

/* Under -march=native clang schedules these loops for the processor it detects
   and runs out of registers: twice as slow. Generic tuning avoids that. */
#if defined(__clang__) && __clang_major__ >= 12
#define SMASK__TUNE ",tune=x86-64"
#else
#define SMASK__TUNE ""
#endif

#if SMASK__PASS == 16
#ifdef SMASK__HAS_BF16
#define SMASK__BF16 ",avx512bf16"
#else
#define SMASK__BF16 ""
#endif
#ifdef __clang__
#pragma clang attribute push(__attribute__((                                \
    target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma" SMASK__BF16        \
    SMASK__TUNE))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#ifdef SMASK__HAS_BF16
#pragma GCC target("avx512bf16")
#endif
#define v_stay(v) __asm__("" : "+v"(v))
#endif
#undef SMASK__BF16
#define SMASK__N(name) smask__##name##_avx512
#define SMASK__MR 14
#define v_t __m512
#define v_set(x) _mm512_set1_ps(x)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
/* Masked forms with all elements selected: some compilers warn that the plain
   forms read an uninitialised value. */
#define SMASK__ALL ((__mmask16)0xffff)
#define v_max(a, b) _mm512_maskz_max_ps(SMASK__ALL, a, b)
#define v_min(a, b) _mm512_maskz_min_ps(SMASK__ALL, a, b)
#define v_sqrt(a) _mm512_maskz_sqrt_ps(SMASK__ALL, a)
#define v_round(a)                                                          \
    _mm512_maskz_cvtepi32_ps(SMASK__ALL,                                    \
    _mm512_maskz_cvtps_epi32(SMASK__ALL, a))
#define v_times2(a, n) _mm512_maskz_scalef_ps(SMASK__ALL, a, n)  /* a 2^n  */
#define v_load_part(p, n)                                                   \
    _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), p)
#define v_store_part(p, v, n)                                               \
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1), v)
#define v_sum(v) smask__sum_avx512(v)
#define v_top(v) smask__top_avx512(v)
/* Four floats from each of the rows 0, 4, 8 and 12 at p, 128 bits a row. */
#define v_quad(p, ld)                                                       \
    _mm512_insertf32x4(_mm512_insertf32x4(_mm512_insertf32x4(               \
    _mm512_castps128_ps512(_mm_loadu_ps(p)), _mm_loadu_ps((p) + 4 * (ld)),  \
    1), _mm_loadu_ps((p) + 8 * (ld)), 2), _mm_loadu_ps((p) + 12 * (ld)), 3)
/* These four work within each 128 bits. */
#define v_low(a, b) _mm512_maskz_unpacklo_ps(SMASK__ALL, a, b)  /* a0 b0.. */
#define v_high(a, b) _mm512_maskz_unpackhi_ps(SMASK__ALL, a, b) /* a2 b2.. */
#define v_low64(a, b) _mm512_shuffle_ps(a, b, 0x44)  /* a0 a1 b0 b1        */
#define v_high64(a, b) _mm512_shuffle_ps(a, b, 0xee)  /* a2 a3 b2 b3       */
#ifdef SMASK__HAS_BF16
/* A bf16 pair is two bfloat16 values in the place of one float.
     v_dot              a0 b0 + a1 b1 + c for each pair
     v_bf16_pairs       a, then b; two neighbours make one pair
     v_bf16_interleave  element i of a and element i of b make pair i      */
#define v_dot(a, b, c) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
#define v_bf16_pairs(a, b) ((v_t)_mm512_cvtne2ps_pbh(b, a))
#define v_bf16_interleave(a, b)                                             \
    ((v_t)_mm512_permutexvar_epi16(_mm512_set_epi16(                        \
    31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,           \
    23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),                \
    (__m512i)_mm512_cvtne2ps_pbh(b, a)))
#endif

/* Combine the upper and the lower part of a vector until one float is left. */
#define SMASK__FOLD(v, op8, op4, op1)                                       \
    const __m256 h = op8(                                                   \
        _mm512_maskz_extractf32x8_ps((__mmask8)0xff, v, 0),                 \
        _mm512_maskz_extractf32x8_ps((__mmask8)0xff, v, 1));                \
    const __m128 q = op4(_mm256_castps256_ps128(h),                         \
        _mm256_extractf128_ps(h, 1));                                       \
    const __m128 d = op4(q, _mm_movehl_ps(q, q));                           \
    return _mm_cvtss_f32(op1(d, _mm_shuffle_ps(d, d, 1)));
SMASK__INLINE float smask__sum_avx512(__m512 v)
{ SMASK__FOLD(v, _mm256_add_ps, _mm_add_ps, _mm_add_ss) }
SMASK__INLINE float smask__top_avx512(__m512 v)
{ SMASK__FOLD(v, _mm256_max_ps, _mm_max_ps, _mm_max_ss) }
#undef SMASK__FOLD

#elif SMASK__PASS == 8
#ifdef __clang__
#pragma clang attribute push(__attribute__((                                \
    target("avx2,fma" SMASK__TUNE))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define v_stay(v) __asm__("" : "+x"(v))
#endif
#define SMASK__N(name) smask__##name##_avx2
#define SMASK__MR 6
#define v_t __m256
#define v_set(x) _mm256_set1_ps(x)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_min(a, b) _mm256_min_ps(a, b)
#define v_sqrt(a) _mm256_sqrt_ps(a)
#define v_round(a) _mm256_round_ps(a, 8)
#define v_times2(a, n) _mm256_mul_ps(a, _mm256_castsi256_ps(                \
    _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n),               \
    _mm256_set1_epi32(127)), 23)))
#define v_quad(p, ld)                                                       \
    _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)),           \
    _mm_loadu_ps((p) + 4 * (ld)), 1)
#define v_low(a, b) _mm256_unpacklo_ps(a, b)
#define v_high(a, b) _mm256_unpackhi_ps(a, b)
#define v_low64(a, b) _mm256_shuffle_ps(a, b, 0x44)
#define v_high64(a, b) _mm256_shuffle_ps(a, b, 0xee)

#elif SMASK__PASS == 4
/* Four floats in the compiler's vector type: SSE2, NEON, WASM SIMD128. */
typedef float smask__four __attribute__((vector_size(16)));
typedef int32_t smask__four_int __attribute__((vector_size(16)));
#define SMASK__N(name) smask__##name##_vector4
#if defined(__aarch64__)
#define SMASK__MR 12
#else
#define SMASK__MR 6
#endif
#define v_t smask__four
#define v_set(x) smask__set_vector4(x)
#define v_load(p) smask__load_vector4(p)
#define v_store(p, v) smask__store_vector4(p, v)
#if defined(__aarch64__)
#define v_fma(a, b, c) ((v_t)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a),  \
    (float32x4_t)(b)))
#else
#define v_fma(a, b, c) ((a) * (b) + (c))
#endif
#define v_max(a, b) smask__pick_vector4((a) > (b), a, b)
#define v_min(a, b) smask__pick_vector4((a) < (b), a, b)
#define v_sqrt(a) smask__sqrt_vector4(a)
#define v_round(a) smask__round_vector4(a)
#define v_times2(a, n) smask__times2_vector4(a, n)
#define v_quad(p, ld) smask__load_vector4(p)
#define v_low(a, b) smask__mix_vector4(a, b, 0, 1)
#define v_high(a, b) smask__mix_vector4(a, b, 2, 3)
#define v_low64(a, b) smask__join64_vector4(a, b, 0)
#define v_high64(a, b) smask__join64_vector4(a, b, 2)

SMASK__INLINE v_t smask__set_vector4(float x)
{
    const v_t v = { x, x, x, x };
    return v;
}
SMASK__INLINE v_t smask__load_vector4(const float *p)
{
    v_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
SMASK__INLINE void smask__store_vector4(float *p, v_t v)
{ memcpy(p, &v, sizeof v); }
/* Comparisons yield `which`: in each element all bits are set or none. */
SMASK__INLINE v_t smask__pick_vector4(smask__four_int which, v_t a, v_t b)
{ return (v_t)((which & (smask__four_int)a) | (~which & (smask__four_int)b)); }
SMASK__INLINE v_t smask__sqrt_vector4(v_t a)
{
    const v_t v = { sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3]) };
    return v;
}
SMASK__INLINE v_t smask__round_vector4(v_t a)
{
    const v_t half = smask__pick_vector4(a < 0, v_set(-0.5f), v_set(0.5f));
    const v_t b = a + half;
    const v_t v = { (float)(int32_t)b[0], (float)(int32_t)b[1],
        (float)(int32_t)b[2], (float)(int32_t)b[3] };
    return v;
}
SMASK__INLINE v_t smask__times2_vector4(v_t a, v_t n)
{
    const smask__four_int e = { (int32_t)n[0] + 127, (int32_t)n[1] + 127,
        (int32_t)n[2] + 127, (int32_t)n[3] + 127 };
    return a * (v_t)(e << 23);
}
SMASK__INLINE v_t smask__mix_vector4(v_t a, v_t b, const int i, const int j)
{
    const v_t v = { a[i], b[i], a[j], b[j] };
    return v;
}
SMASK__INLINE v_t smask__join64_vector4(v_t a, v_t b, const int i)
{
    const v_t v = { a[i], a[i + 1], b[i], b[i + 1] };
    return v;
}

#else
/* One float: any C compiler. */
#define SMASK__N(name) smask__##name##_scalar
#define SMASK__MR 4
#define v_t float
#define v_set(x) (x)
#define v_load(p) (*(p))
#define v_store(p, v) (*(p) = (v))
#define v_fma(a, b, c) ((a) * (b) + (c))
#define v_max(a, b) smask__max_scalar(a, b)
#define v_min(a, b) smask__min_scalar(a, b)
#define v_sqrt(a) sqrtf(a)
#define v_round(a) floorf((a) + 0.5f)
#define v_times2(a, n) smask__times2_scalar(a, n)
#define v_load_part(p, n) ((n) > 0 ? *(p) : 0.0f)
#define v_store_part(p, v, n) ((n) > 0 ? (void)(*(p) = (v)) : (void)0)

SMASK__INLINE float smask__max_scalar(float a, float b)
{ return a > b ? a : b; }
SMASK__INLINE float smask__min_scalar(float a, float b)
{ return a < b ? a : b; }
SMASK__INLINE float smask__times2_scalar(float a, float n)
{
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return a * power;
}
#endif

#define SMASK__W ((size_t)SMASK__PASS)               /* floats in a vector */
#define SMASK__NR (2 * SMASK__W)                     /* columns of a tile  */

/* Forces v into a register here. Without it gcc moves sums between the steps of
   the product until some of them are on the stack (a tenth slower). */
#ifndef v_stay
#define v_stay(v) ((void)0)
#endif

/* Only one pass has bf16 pairs. In the others these are never executed. */
#ifdef v_dot
#define SMASK__BF16_PAIRS 1
#else
#define SMASK__BF16_PAIRS 0
#define v_dot(a, b, c) v_fma(a, b, c)
#define v_bf16_pairs(a, b) ((void)(b), (a))
#define v_bf16_interleave(a, b) ((void)(b), (a))
#endif

/* The first n elements; the others read as 0 and are not written. */
#ifndef v_load_part
#define v_load_part(p, n) SMASK__N(load_part)(p, n)
#define v_store_part(p, v, n) SMASK__N(store_part)(p, v, n)
SMASK__INLINE v_t SMASK__N(load_part)(const float *p, size_t n)
{
    float x[SMASK__PASS] = { 0 };

    if (n == SMASK__W) return v_load(p);
    for (size_t i = 0; i < n; i++) x[i] = p[i];
    return v_load(x);
}
SMASK__INLINE void SMASK__N(store_part)(float *p, v_t v, size_t n)
{
    float x[SMASK__PASS];

    if (n == SMASK__W) {
        v_store(p, v);
        return;
    }
    v_store(x, v);
    for (size_t i = 0; i < n; i++) p[i] = x[i];
}
#endif

/* Sum and maximum of the elements of v. The order of the sum is fixed (upper
   part onto lower part), so results can be repeated. */
#ifndef v_sum
#define v_sum(v) SMASK__N(sum_of)(v)
#define v_top(v) SMASK__N(max_of)(v)
SMASK__INLINE float SMASK__N(sum_of)(v_t v)
{
    float x[SMASK__PASS];

    v_store(x, v);
    for (size_t half = SMASK__W / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
SMASK__INLINE float SMASK__N(max_of)(v_t v)
{
    float x[SMASK__PASS];

    v_store(x, v);
    for (size_t i = 1; i < SMASK__W; i++) if (x[i] > x[0]) x[0] = x[i];
    return x[0];
}
#endif

/* 2^x = 2^n 2^r with n = round(x), |r| <= 1/2. A minimax polynomial that is
   exact at 2^0 = 1 gives 2^r. The relative error is below 2e-7 for x in
   [-126, 127]. Below -126 the result is 0 to within 1e-37; above 127 it is
   undefined. Callers need exp(a d) with a d <= 0 and pass x = (a log2 e) d.
   The rounding of this product adds 2e-7 |a d| to their relative error, about
   as much as the rounding of d itself. */
#define SMASK__LOG2_E 1.44269504f
SMASK__INLINE v_t SMASK__N(exp2)(v_t x)
{
    v_t n, r, p;

    x = v_max(v_set(-126.0f), x);
    n = v_round(x);
    r = x - n;
    p = v_fma(v_set(0.00132647273f), r, v_set(0.00967151299f));
    p = v_fma(p, r, v_set(0.0555073358f));
    p = v_fma(p, r, v_set(0.240222424f));
    p = v_fma(p, r, v_set(0.693147004f));
    p = v_fma(p, r, v_set(1.0f));
    return v_times2(p, n);
}

/* Phi(x) - 1/2 = x P(u), where Phi is the normal distribution function and P a
   minimax polynomial in u = 2 x^2 / 5.2^2 - 1. u lies in [-1, 1], which keeps
   the coefficients small. Beyond |x| = 5.2 Phi is 0 or 1 to the precision of a
   float. The absolute error is below 1.3e-7 everywhere. */
SMASK__INLINE v_t SMASK__N(phi)(v_t x)
{
    const v_t y = v_min(v_set(5.2f), v_max(v_set(-5.2f), x));
    const v_t u = v_fma(y * v_set(0.0739644970f), y, v_set(-1.0f));
    v_t p = v_fma(v_set(0.00020239377f), u, v_set(-0.000562292f));

    p = v_fma(p, u, v_set(0.000600746716f));
    p = v_fma(p, u, v_set(-0.000978510943f));
    p = v_fma(p, u, v_set(0.00266245939f));
    p = v_fma(p, u, v_set(-0.00506737363f));
    p = v_fma(p, u, v_set(0.00801007915f));
    p = v_fma(p, u, v_set(-0.0123533569f));
    p = v_fma(p, u, v_set(0.0181339271f));
    p = v_fma(p, u, v_set(-0.02476345f));
    p = v_fma(p, u, v_set(0.0319623239f));
    p = v_fma(p, u, v_set(-0.0399253964f));
    p = v_fma(p, u, v_set(0.0500261113f));
    p = v_fma(p, u, v_set(-0.067743808f));
    p = v_fma(p, u, v_set(0.135949984f));
    return y * p;
}

/* gelu(x) = x Phi(x). */
SMASK__INLINE v_t SMASK__N(gelu_of)(v_t x)
{ return v_fma(x, SMASK__N(phi)(x), v_set(0.5f) * x); }

/* The derivative of GELU: gelu'(x) = Phi(x) + x phi(x). gelu'(x) - 1/2 is odd,
   like Phi(x) - 1/2, so it is x times another polynomial, in
   u = 2 x^2 / 5.5^2 - 1. The absolute error is below 5e-7. */
SMASK__INLINE v_t SMASK__N(gelu_derivative)(v_t x)
{
    const v_t y = v_min(v_set(5.5f), v_max(v_set(-5.5f), x));
    const v_t u = v_fma(y * v_set(0.0661157025f), y, v_set(-1.0f));
    v_t p = v_fma(v_set(-0.00490987441f), u, v_set(0.0121202599f));

    p = v_fma(p, u, v_set(-0.00642487686f));
    p = v_fma(p, u, v_set(0.00410066918f));
    p = v_fma(p, u, v_set(-0.027823668f));
    p = v_fma(p, u, v_set(0.0495664962f));
    p = v_fma(p, u, v_set(-0.0530860946f));
    p = v_fma(p, u, v_set(0.0606563948f));
    p = v_fma(p, u, v_set(-0.072919488f));
    p = v_fma(p, u, v_set(0.0753351897f));
    p = v_fma(p, u, v_set(-0.0688571483f));
    p = v_fma(p, u, v_set(0.060187228f));
    p = v_fma(p, u, v_set(-0.0537258238f));
    p = v_fma(p, u, v_set(0.053670872f));
    p = v_fma(p, u, v_set(-0.0657401383f));
    p = v_fma(p, u, v_set(0.128759176f));
    return v_fma(y, p, v_set(0.5f));
}

/* ----------------------------------------------------------------------
   17b  The inner loops of the matrix product. >>gemm explains their form.
   ---------------------------------------------------------------------- */

/* X(i, g, q): row i of a tile reads its operand at a_g[q * ld]. An x86 address
   is a base plus an index times 1, 2, 4 or 8. With ld as the index a base
   reaches its own row and the next two, so five pointers serve 14 rows. */
#define SMASK__TILE_ROWS(X) X(0, 0, 0) X(1, 0, 1) X(2, 0, 2) X(3, 1, 0)     \
    X(4, 1, 1) X(5, 1, 2) X(6, 2, 0) X(7, 2, 1) X(8, 2, 2) X(9, 3, 0)       \
    X(10, 3, 1) X(11, 3, 2) X(12, 4, 0) X(13, 4, 1)

#define SMASK__ZERO(i, g, q) v_t c##i##_0 = v_set(0.0f), c##i##_1 = c##i##_0;
/* Add one element of A times two vectors of B to row i. */
#define SMASK__ROW(i, g, q)                                                 \
    if (i < rows) {                                                         \
        const v_t s = v_set(a_transposed ? a0[i]                            \
            : a##g[(q) * ld + u]);                                          \
        c##i##_0 = paired ? v_dot(s, b0, c##i##_0)                          \
            : v_fma(s, b0, c##i##_0);                                       \
        v_stay(c##i##_0);                                                   \
        if (wide) {                                                         \
            c##i##_1 = paired ? v_dot(s, b1, c##i##_1)                      \
                : v_fma(s, b1, c##i##_1);                                   \
            v_stay(c##i##_1);                                               \
        }                                                                   \
    }
/* Finish row i: + C, + bias, * scale, + r, in this order. */
#define SMASK__OUT(i, g, q)                                                 \
    if (i < rows) {                                                         \
        float *y = t->c + (at + i) * t->c_ld + j;                           \
        if (t->add) {                                                       \
            c##i##_0 = c##i##_0 + v_load_part(y, n0);                       \
            if (wide) c##i##_1 = c##i##_1 + v_load_part(y + SMASK__W, n1);  \
        }                                                                   \
        if (t->bias != NULL) {                                              \
            c##i##_0 = c##i##_0 + b0;                                       \
            if (wide) c##i##_1 = c##i##_1 + b1;                             \
        }                                                                   \
        if (t->scale != NULL) {                                             \
            const v_t s = v_set(t->scale[at + i]);                          \
            c##i##_0 = c##i##_0 * s;                                        \
            if (wide) c##i##_1 = c##i##_1 * s;                              \
        }                                                                   \
        if (t->r != NULL) {                                                 \
            const float *r = t->r + (at + i) * t->r_ld + j;                 \
            c##i##_0 = c##i##_0 + v_load_part(r, n0);                       \
            if (wide) c##i##_1 = c##i##_1 + v_load_part(r + SMASK__W, n1);  \
        }                                                                   \
        v_store_part(y, c##i##_0, n0);                                      \
        if (wide) v_store_part(y + SMASK__W, c##i##_1, n1);                 \
    }

/* The micro-kernel: `rows` rows of C from row `at`, and columns from j: two
   vectors of them if `wide`, otherwise one. Every caller passes constants for
   rows, a_transposed, wide and paired. So the compiler removes every `if` on
   them, and c0_0 .. c13_1 are registers. */
SMASK__INLINE void SMASK__N(tile)(const smask__block_product *t, const float *a,
    const float *b, size_t at, size_t j, const size_t rows,
    const int a_transposed, const int wide, const int paired)
{
    const size_t ld = a_transposed ? 1 : t->a_ld,
        step = a_transposed ? t->a_ld : 1;
    const size_t b_ld = t->b_ld;
    const size_t n0 = smask__min(t->n - j, SMASK__W);
    const size_t n1 = smask__min(t->n - j - n0, SMASK__W);
    const float *a0 = a, *a1 = a + 3 * ld, *a2 = a + 6 * ld;
    const float *a3 = a + 9 * ld, *a4 = a + 12 * ld;
    size_t p = t->k;
    v_t b0, b1 = v_set(0.0f);
    const float *later = a + 24 * step + (rows - 1);
    const float *soon = t->c + at * t->c_ld + j;
    const float *const last = soon + (rows - 1) * t->c_ld;
    SMASK__TILE_ROWS(SMASK__ZERO)

#define SMASK__STEP(offset)                                                 \
    {                                                                       \
        const size_t u = offset;                                            \
        b0 = v_load(b);                                                     \
        if (wide) b1 = v_load(b + SMASK__W);                                \
        SMASK__TILE_ROWS(SMASK__ROW)                                        \
        (void)u;                                                            \
        b += b_ld;                                                          \
        if (a_transposed) a0 += step;                                       \
    }
#define SMASK__ALONG(n)                                                     \
    if (!a_transposed) { a0 += n; a1 += n; a2 += n; a3 += n; a4 += n; }
    /* Each round prefetches one row of C: to fetch all its cache lines at once
       would delay the operands. If a_transposed, rows of A are prefetched some
       700 cycles before they are needed: each row is a new line, often in a
       new page, which the processor does not predict. These four prefetches
       stay together and do not test where A ends, because clang would run out
       of registers. A prefetch behind the end of A is harmless: nothing there
       is read. */
    for (; p >= 4; p -= 4) {
        SMASK__STEP(0) SMASK__STEP(1)
        SMASK__PREFETCH(soon);
        SMASK__STEP(2) SMASK__STEP(3)
        if (wide) SMASK__PREFETCH(soon + SMASK__W);
        if (a_transposed) {
            SMASK__PREFETCH(later);
            SMASK__PREFETCH(later + step);
            SMASK__PREFETCH(later + 2 * step);
            SMASK__PREFETCH(later + 3 * step);
            later += 4 * step;
        }
        if (soon != last) soon += t->c_ld;
        SMASK__ALONG(4)
    }
    for (; p > 0; p--) {
        SMASK__STEP(0)
        SMASK__ALONG(1)
    }
#undef SMASK__STEP
#undef SMASK__ALONG
    b0 = b1;                             /* defined even if k is 0     */
    if (t->bias != NULL) {
        b0 = v_load_part(t->bias + j, n0);
        b1 = v_load_part(t->bias + j + n0, n1);
    }
    SMASK__TILE_ROWS(SMASK__OUT)
    (void)a1; (void)a2; (void)a3; (void)a4; (void)b1; (void)soon;
    (void)later;
}

#undef SMASK__TILE_ROWS
#undef SMASK__ZERO
#undef SMASK__ROW
#undef SMASK__OUT

/* All rows of A times one panel of B, which stays in the first-level cache.
   Rows that do not fill a tile go to smaller tiles, so no row is computed
   that C does not have. */
#define SMASK__TILE(count)                                                  \
    while (rows >= count) {                                                 \
        SMASK__N(tile)(t, a, b, at, j, count, a_transposed, wide, paired);  \
        rows -= count;                                                      \
        at += count;                                                        \
        a += a_transposed ? (size_t)count : count * t->a_ld;                \
    }
SMASK__INLINE void SMASK__N(panel)(const smask__block_product *t, size_t j,
    const int a_transposed, const int wide, const int paired)
{
    const float *b = t->b + j / SMASK__NR * t->b_panel;

    for (size_t i = 0; i < t->m; i += SMASK__MR) {
        const float *a = t->a + i / SMASK__MR * t->a_group;
        size_t rows = smask__min(t->m - i, SMASK__MR), at = i;
        if (rows == SMASK__MR) {
            SMASK__N(tile)(t, a, b, at, j, SMASK__MR, a_transposed, wide,
                paired);
        } else {
#if SMASK__MR > 8
            SMASK__TILE(8)
#endif
            SMASK__TILE(4)
            SMASK__TILE(2)
            SMASK__TILE(1)
        }
    }
}
#undef SMASK__TILE

SMASK__INLINE void SMASK__N(panels)(const smask__block_product *t,
    const int a_transposed, const int paired)
{
    for (size_t j = 0; j < t->n; j += SMASK__NR)
        if (t->n - j > SMASK__W) SMASK__N(panel)(t, j, a_transposed, 1, paired);
        else SMASK__N(panel)(t, j, a_transposed, 0, paired);
}

/* Kept as separate functions: at -O0 a single function with all tile variants
   would need megabytes of stack. */
SMASK__FN void SMASK__N(block_nn)(const smask__block_product *t)
{ SMASK__N(panels)(t, 0, 0); }
SMASK__FN void SMASK__N(block_tn)(const smask__block_product *t)
{ SMASK__N(panels)(t, 1, 0); }
#if SMASK__BF16_PAIRS
SMASK__FN void SMASK__N(bf16_nn)(const smask__block_product *t)
{ SMASK__N(panels)(t, 0, 1); }
SMASK__FN void SMASK__N(bf16_tn)(const smask__block_product *t)
{ SMASK__N(panels)(t, 1, 1); }
#endif

/* The values a and b that the lens of a row needs. NORM: a is the mean, b is
   1 / std. KEEP: a is the factor. */
SMASK__INLINE v_t SMASK__N(lens_a)(const smask__operand *v, size_t row,
    const smask__lens lens)
{
    return v_set(lens == SMASK__NORM ? v->stat[2 * row]
        : lens == SMASK__KEEP ? v->keep[row / v->group] : 0.0f);
}
SMASK__INLINE v_t SMASK__N(lens_b)(const smask__operand *v, size_t row,
    const smask__lens lens)
{ return v_set(lens == SMASK__NORM ? v->stat[2 * row + 1] : 0.0f); }

/* Columns j .. j + n - 1 of a row x with the lens applied, n <= W. */
SMASK__INLINE v_t SMASK__N(lens_apply)(const smask__operand *v, const float *x,
    size_t j, size_t n, v_t a, v_t b, const smask__lens lens)
{
    const v_t y = n == SMASK__W ? v_load(x + j) : v_load_part(x + j, n);

    switch (lens) {
    case SMASK__KEEP: return y * a;
    case SMASK__GELU: return SMASK__N(gelu_of)(y);
    case SMASK__NORM: return v_fma((y - a) * b, v_load_part(v->w + j, n),
        v_load_part(v->b + j, n));
    case SMASK__PLAIN: break;
    }
    return y;
}

/* The loop of fetch, below, for a constant lens and a constant `paired`. */
SMASK__INLINE void SMASK__N(fetch_as)(const smask__operand *v, size_t row,
    size_t rows, size_t column, size_t columns, float *to, size_t pitch,
    size_t width, size_t stride, const smask__lens lens, const int paired)
{
    const size_t end = column + columns, stop = row + rows;

    for (size_t i = row; i < stop; i += paired ? 2 : 1, to += pitch) {
        const size_t i1 = i + 1 < stop ? i + 1 : i;
        const float *x = v->x + i * v->ld, *x1 = v->x + i1 * v->ld;
        const v_t a = SMASK__N(lens_a)(v, i, lens);
        const v_t b = SMASK__N(lens_b)(v, i, lens);
        const v_t a1 = SMASK__N(lens_a)(v, i1, lens);
        const v_t b1 = SMASK__N(lens_b)(v, i1, lens);
        const size_t ahead = i1 + 8 < stop ? 8 * v->ld : 0;
        float *y = to;
        for (size_t j = column; j < end; j += width, y += stride) {
            const size_t w = smask__min(width, end - j);
            for (size_t k = 0; k < w; k += SMASK__W) {
                const size_t n = smask__min(end - j - k, SMASK__W);
                v_t s = SMASK__N(lens_apply)(v, x, j + k, n, a, b, lens);
                SMASK__PREFETCH(x + j + k + ahead);
                if (paired) {
                    SMASK__PREFETCH(x1 + j + k + ahead);
                    s = v_bf16_interleave(s, i1 == i ? v_set(0.0f)
                        : SMASK__N(lens_apply)(v, x1, j + k, n, a1, b1, lens));
                }
                if (n == SMASK__W) v_store(y + k, s);
                else v_store_part(y + k, s, n);
            }
            for (size_t k = w; k < width; k++) y[k] = 0;
        }
    }
}

SMASK__FN void SMASK__N(fetch)(const smask__operand *v, size_t row, size_t rows,
    size_t column, size_t columns, float *to, size_t pitch, size_t width,
    size_t stride, int paired)
{
#define SMASK__AS(lens)                                                     \
    case lens:                                                              \
        if (SMASK__BF16_PAIRS && paired)                                    \
            SMASK__N(fetch_as)(v, row, rows, column, columns, to, pitch,    \
                width, stride, lens, 1);                                    \
        else                                                                \
            SMASK__N(fetch_as)(v, row, rows, column, columns, to, pitch,    \
                width, stride, lens, 0);                                    \
        break;
    switch (v->lens) {
    SMASK__AS(SMASK__PLAIN)
    SMASK__AS(SMASK__KEEP)
    SMASK__AS(SMASK__GELU)
    SMASK__AS(SMASK__NORM)
    }
#undef SMASK__AS
}

SMASK__FN void SMASK__N(pair_columns)(const float *x, size_t ld, size_t rows,
    size_t columns, float *to, size_t pitch)
{
    for (size_t i = 0; i < rows; i++, x += ld, to += pitch)
        for (size_t j = 0; j < columns; j += 2 * SMASK__W) {
            const size_t left = columns - j;
            const size_t n0 = smask__min(left, SMASK__W);
            const size_t n1 = smask__min(left - n0, SMASK__W);
            v_store_part(to + j / 2, v_bf16_pairs(v_load_part(x + j, n0),
                v_load_part(x + j + n0, n1)), (n0 + n1 + 1) / 2);
        }
}

/* Transpose x (rows, k) with row stride ld into one panel:
   to[p * NR + i] = x[i][p], and 0 for i >= rows. Squares of 4 x 4 floats are
   transposed in registers, so memory is read and written in runs. */
SMASK__FN void SMASK__N(transpose)(const float *x, size_t ld, size_t rows,
    size_t k, float *to)
{
    for (size_t half = 0; half < SMASK__NR; half += SMASK__W) {
        size_t p = 0;
#if SMASK__PASS > 1
        if (rows >= half + SMASK__W)
            for (; p + 4 <= k; p += 4) {
                const float *from = x + half * ld + p;
                const v_t a = v_quad(from, ld), b = v_quad(from + ld, ld);
                const v_t c = v_quad(from + 2 * ld, ld);
                const v_t d = v_quad(from + 3 * ld, ld);
                const v_t ab0 = v_low(a, b), ab1 = v_high(a, b);
                const v_t cd0 = v_low(c, d), cd1 = v_high(c, d);
                float *y = to + p * SMASK__NR + half;
                v_store(y, v_low64(ab0, cd0));
                v_store(y + SMASK__NR, v_high64(ab0, cd0));
                v_store(y + 2 * SMASK__NR, v_low64(ab1, cd1));
                v_store(y + 3 * SMASK__NR, v_high64(ab1, cd1));
            }
#endif
        for (; p < k; p++)
            for (size_t i = half; i < half + SMASK__W; i++)
                to[p * SMASK__NR + i] = i < rows ? x[i * ld + p] : 0;
    }
}

/* ----------------------------------------------------------------------
   17c  Loops over rows and arrays: >>engine has their formulas.
   ---------------------------------------------------------------------- */

/* For each vector of an array: j is its first index, n <= W its length. */
#define SMASK__EACH(j, n, count)                                            \
    for (size_t j = 0, n; j < count; j += SMASK__W)                         \
        if ((n = smask__min(count - j, SMASK__W)) != 0)

SMASK__FN void SMASK__N(add)(float *y, const float *x, size_t count)
{
    SMASK__EACH(j, n, count)
        v_store_part(y + j, v_load_part(y + j, n) + v_load_part(x + j, n), n);
}

SMASK__FN void SMASK__N(sum_rows)(float *y, const float *x, size_t ld,
    size_t rows, size_t count)
{
    size_t i, j, n;

    for (j = 0; j + 4 * SMASK__W <= count; j += 4 * SMASK__W) {
        const float *at = x + j;
        v_t s0 = v_load(y + j), s1 = v_load(y + j + SMASK__W);
        v_t s2 = v_load(y + j + 2 * SMASK__W);
        v_t s3 = v_load(y + j + 3 * SMASK__W);
        for (i = 0; i < rows; i++, at += ld) {
            s0 = s0 + v_load(at);
            s1 = s1 + v_load(at + SMASK__W);
            s2 = s2 + v_load(at + 2 * SMASK__W);
            s3 = s3 + v_load(at + 3 * SMASK__W);
        }
        v_store(y + j, s0);
        v_store(y + j + SMASK__W, s1);
        v_store(y + j + 2 * SMASK__W, s2);
        v_store(y + j + 3 * SMASK__W, s3);
    }
    for (; j < count; j += SMASK__W) {
        v_t s;
        n = smask__min(count - j, SMASK__W);
        s = v_load_part(y + j, n);
        for (i = 0; i < rows; i++) s = s + v_load_part(x + i * ld + j, n);
        v_store_part(y + j, s, n);
    }
}

SMASK__FN void SMASK__N(axpy)(float *y, float a, const float *x, size_t count)
{
    SMASK__EACH(j, n, count)
        v_store_part(y + j, v_fma(v_set(a), v_load_part(x + j, n),
            v_load_part(y + j, n)), n);
}

SMASK__FN void SMASK__N(scale)(float *y, float a, const float *x,
    size_t count)
{
    SMASK__EACH(j, n, count)
        v_store_part(y + j, v_set(a) * v_load_part(x + j, n), n);
}

SMASK__FN void SMASK__N(dot)(const float *x, const float *y, size_t count,
    float *out)
{
    v_t s = v_set(0.0f);
    SMASK__EACH(j, n, count)
        s = v_fma(v_load_part(x + j, n), v_load_part(y + j, n), s);
    *out = v_sum(s);
}

SMASK__FN void SMASK__N(moments)(const float *x, size_t count, float about,
    float *sum, float *squares)
{
    v_t s = v_set(0.0f), q = v_set(0.0f);
    const v_t m = v_set(about);
    size_t j;

    for (j = 0; j + SMASK__W <= count; j += SMASK__W) {
        const v_t d = v_load(x + j) - m;
        s = s + d;
        q = v_fma(d, d, q);
    }
    *sum = v_sum(s);
    *squares = v_sum(q);
    for (size_t left = j; left < count; left++) {
        *sum += x[left] - about;
        *squares += (x[left] - about) * (x[left] - about);
    }
}

SMASK__FN void SMASK__N(row_max)(const float *x, size_t count, float *out)
{
    v_t m = v_set(-3.0e38f);
    size_t j;
    float best;

    for (j = 0; j + SMASK__W <= count; j += SMASK__W)
        m = v_max(m, v_load(x + j));
    best = v_top(m);
    for (; j < count; j++) if (x[j] > best) best = x[j];
    *out = best;
}

SMASK__FN void SMASK__N(exp_row)(float *y, const float *x, float a,
    float top, size_t count, float *sum)
{
    const v_t scale = v_set(a * SMASK__LOG2_E), less = v_set(top);
    v_t s = v_set(0.0f);
    size_t j;
    float rest = 0;

    for (j = 0; j + SMASK__W <= count; j += SMASK__W) {
        const v_t e = SMASK__N(exp2)((v_load(x + j) - less) * scale);
        v_store(y + j, e);
        s = s + e;
    }
    if (j < count) {
        float part[SMASK__PASS];
        const size_t n = count - j;
        v_store(part, SMASK__N(exp2)((v_load_part(x + j, n) - less)
            * scale));
        for (size_t i = 0; i < n; i++) rest += y[j + i] = part[i];
    }
    *sum = v_sum(s) + rest;
}

SMASK__FN void SMASK__N(gelu)(float *y, const float *x, size_t count)
{
    SMASK__EACH(j, n, count)
        v_store_part(y + j, SMASK__N(gelu_of)(v_load_part(x + j, n)), n);
}

SMASK__FN void SMASK__N(gelu_bwd)(float *dx, const float *dy, const float *x,
    size_t count, int add)
{
    SMASK__EACH(j, n, count) {
        v_t d = v_load_part(dy + j, n)
            * SMASK__N(gelu_derivative)(v_load_part(x + j, n));
        if (add) d = d + v_load_part(dx + j, n);
        v_store_part(dx + j, d, n);
    }
}

SMASK__FN void SMASK__N(norm_row)(float *y, const float *x, float mean,
    float rstd, const float *w, const float *b, size_t D)
{
    const v_t m = v_set(mean), s = v_set(rstd);
    SMASK__EACH(j, n, D)
        v_store_part(y + j, v_fma((v_load_part(x + j, n) - m) * s,
            v_load_part(w + j, n), v_load_part(b + j, n)), n);
}

SMASK__FN void SMASK__N(norm_row_bwd)(float *dx, const float *dy,
    const float *x, float mean, float rstd, const float *w, float *dw,
    float *db, size_t D, int add)
{
    const v_t m = v_set(mean), s = v_set(rstd);
    v_t sum = v_set(0.0f), dot = v_set(0.0f), a, b;

    SMASK__EACH(j, n, D) {
        const v_t g = v_load_part(dy + j, n);
        const v_t z = (v_load_part(x + j, n) - m) * s;
        const v_t h = g * v_load_part(w + j, n);
        v_store_part(dw + j, v_fma(g, z, v_load_part(dw + j, n)), n);
        v_store_part(db + j, g + v_load_part(db + j, n), n);
        sum = sum + h;
        dot = v_fma(h, z, dot);
    }
    a = v_set(v_sum(sum) / (float)D);
    b = v_set(v_sum(dot) / (float)D);
    SMASK__EACH(j, n, D) {
        const v_t z = (v_load_part(x + j, n) - m) * s;
        const v_t h = v_load_part(dy + j, n) * v_load_part(w + j, n);
        v_t d = (h - a - z * b) * s;
        if (add) d = d + v_load_part(dx + j, n);
        v_store_part(dx + j, d, n);
    }
}

SMASK__FN void SMASK__N(softmax)(float *s, size_t ld, size_t rows,
    size_t columns, float scale, const float *bias, size_t b_ld, float *top,
    float *inverse)
{
    const v_t a = v_set(bias != NULL ? SMASK__LOG2_E : scale * SMASK__LOG2_E);

    SMASK__EACH(j, n, columns) {
        v_t best = v_set(-3.0e38f), sum = v_set(0.0f), less;
        for (size_t i = 0; i < rows; i++) {
            float *x = s + i * ld + j;
            v_t v = v_load_part(x, n);
            if (bias != NULL) {
                v = v_fma(v, v_set(scale),
                    v_load_part(bias + i * b_ld + j, n));
                v_store_part(x, v, n);
            }
            best = v_max(best, v);
        }
        less = best * a;
        if (bias == NULL) best = best * v_set(scale);
        for (size_t i = 0; i < rows; i++) {
            float *x = s + i * ld + j;
            const v_t e = SMASK__N(exp2)(v_fma(v_load_part(x, n), a, -less));
            v_store_part(x, e, n);
            sum = sum + e;
        }
        v_store_part(top + j, best, n);
        v_store_part(inverse + j, v_set(1.0f) / sum, n);
    }
}

SMASK__FN void SMASK__N(softmax_bwd)(float *s, float *dp, size_t ld,
    size_t rows, size_t columns, float scale, const float *bias, size_t b_ld,
    const float *top, const float *inverse, float *dbias)
{
    const v_t a = v_set(scale * SMASK__LOG2_E);

    SMASK__EACH(j, n, columns) {
        const v_t less = v_load_part(top + j, n) * v_set(SMASK__LOG2_E);
        const v_t inv = v_load_part(inverse + j, n);
        v_t d = v_set(0.0f);
        for (size_t i = 0; i < rows; i++) {
            float *x = s + i * ld + j;
            v_t v = v_fma(v_load_part(x, n), a, -less);
            if (bias != NULL)
                v = v_fma(v_load_part(bias + i * b_ld + j, n),
                    v_set(SMASK__LOG2_E), v);
            v = SMASK__N(exp2)(v) * inv;
            v_store_part(x, v, n);
            d = v_fma(v, v_load_part(dp + i * ld + j, n), d);
        }
        for (size_t i = 0; i < rows; i++) {
            float *x = dp + i * ld + j;
            const v_t v = v_load_part(s + i * ld + j, n)
                * (v_load_part(x, n) - d);
            v_store_part(x, v * v_set(scale), n);
            if (dbias == NULL) continue;
            v_store_part(dbias + i * b_ld + j, v
                + v_load_part(dbias + i * b_ld + j, n), n);
        }
    }
}

SMASK__FN void SMASK__N(adam)(float *w, float *g, float *m, float *v,
    size_t count, const smask__adam_step *s)
{
    const v_t b1 = v_set(s->beta1), b2 = v_set(s->beta2);
    const v_t one_b1 = v_set(1 - s->beta1), one_b2 = v_set(1 - s->beta2);
    const v_t clip = v_set(s->clip), eps = v_set(s->eps);
    const v_t rate = v_set(s->rate * s->correct1);
    const v_t correct2 = v_set(s->correct2), left = v_set(1 - s->decay);

    SMASK__EACH(j, n, count) {
        const v_t d = v_load_part(g + j, n) * clip;
        const v_t m1 = v_fma(b1, v_load_part(m + j, n), one_b1 * d);
        const v_t v1 = v_fma(b2, v_load_part(v + j, n), one_b2 * d * d);
        const v_t size = v_sqrt(v1 * correct2) + eps;
        v_store_part(m + j, m1, n);
        v_store_part(v + j, v1, n);
        v_store_part(w + j, v_load_part(w + j, n) * left
            - rate * m1 / size, n);
        v_store_part(g + j, v_set(0.0f), n);
    }
}

#undef SMASK__EACH
#undef SMASK__LOG2_E
#undef SMASK__ALL
#undef SMASK__N
#undef SMASK__MR
#undef SMASK__W
#undef SMASK__NR
#undef v_t
#undef v_set
#undef v_load
#undef v_store
#undef v_fma
#undef v_max
#undef v_min
#undef v_sqrt
#undef v_round
#undef v_times2
#undef v_load_part
#undef v_store_part
#undef v_sum
#undef v_top
#undef v_quad
#undef v_low
#undef v_high
#undef v_low64
#undef v_high64
#undef v_stay
#undef v_dot
#undef v_bf16_pairs
#undef v_bf16_interleave
#undef SMASK__BF16_PAIRS
#undef SMASK__TUNE
#if SMASK__PASS > 4
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#endif /* SMASK__PASS */

#if defined(SMASK__BUILD) && !defined(SMASK__PASS)

/* ----------------------------------------------------------------------
   17d  Instruction sets: which this build has and which the processor has.
   ---------------------------------------------------------------------- */

/* The name by which this file includes itself. */
#ifndef SPLITMASK_FILE
#define SPLITMASK_FILE "splitmask.h"
#endif

#if defined(__GNUC__) && !defined(SPLITMASK_NO_SIMD)
#if !defined(__i386__) || defined(__SSE2__)
#define SMASK__HAS_VECTOR4
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(__x86_64__) && (!defined(SPLITMASK_NO_DISPATCH)                 \
    || (defined(__AVX2__) && defined(__FMA__)))
#define SMASK__HAS_AVX2
#endif
#if defined(__x86_64__) && (!defined(SPLITMASK_NO_DISPATCH)                 \
    || (defined(__AVX512F__) && defined(__AVX512VL__)                       \
    && defined(__AVX512DQ__) && defined(__AVX512BW__)))
#define SMASK__HAS_AVX512
#endif
#if defined(SMASK__HAS_AVX512) && !defined(SPLITMASK_CBLAS)                 \
    && (__GNUC__ >= 10 || (defined(__clang__) && __clang_major__ >= 9))     \
    && (!defined(SPLITMASK_NO_DISPATCH) || defined(__AVX512BF16__))
#define SMASK__HAS_BF16
#endif
#if defined(SMASK__HAS_AVX2) || defined(SMASK__HAS_AVX512)
#include <immintrin.h>
#include <cpuid.h>
#endif
#endif

/* 1 if the processor has FMA and all `bits` of CPUID leaf 7, and the operating
   system saves these registers. Feature flags decide, not the model number:
   so processors newer than this file are recognised, too. */
#if defined(SMASK__HAS_AVX2) || defined(SMASK__HAS_AVX512)
SMASK__FN int smask__cpu_has(unsigned bits, unsigned registers)
{
    unsigned a, b, c, d, saved, high;

    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (!(c & 1u << 27) || !(c & 1u << 12)) return 0;      /* OSXSAVE, FMA */
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    return (saved & registers) == registers
        && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bits) == bits;
}
#endif

SMASK__FN int smask__isa_available(smask_isa isa)
{
#ifdef SMASK__HAS_AVX2
    if (isa == SMASK_ISA_AVX2)
        return smask__cpu_has(1u << 5, 0x06);        /* AVX2; xmm, ymm */
#endif
#ifdef SMASK__HAS_AVX512
    if (isa == SMASK_ISA_AVX512)             /* F, DQ, BW, VL; zmm */
        return smask__cpu_has(1u << 16 | 1u << 17 | 1u << 30 | 1u << 31,
            0xe6);
#endif
#ifdef SMASK__HAS_BF16
    if (isa == SMASK_ISA_BF16) {
        unsigned a, b, c, d;
        return smask__isa_available(SMASK_ISA_AVX512)
            && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
    }
#endif
#ifdef SMASK__HAS_VECTOR4
    if (isa == SMASK_ISA_VECTOR4) return 1;
#endif
    return isa == SMASK_ISA_SCALAR;
}

SMASK__FN smask_isa smask__isa_resolve(smask_isa isa)
{
    if (isa == SMASK_ISA_BF16) return SMASK_ISA_AVX512;
    if (isa != SMASK_ISA_AUTO) return isa;
    if (smask__isa_available(SMASK_ISA_AVX512)) return SMASK_ISA_AVX512;
    if (smask__isa_available(SMASK_ISA_AVX2)) return SMASK_ISA_AVX2;
    if (smask__isa_available(SMASK_ISA_VECTOR4)) return SMASK_ISA_VECTOR4;
    return SMASK_ISA_SCALAR;
}

SMASK__FN int smask__isa_is_bf16(smask_isa isa)
{ return isa == SMASK_ISA_BF16; }

/* Rows and columns of a tile of C, by instruction set: see >>gemm. */
SMASK__FN size_t smask__tile_rows(int isa)
{
    switch (isa) {
    case SMASK_ISA_AVX512: return 14;
    case SMASK_ISA_AVX2: return 6;
#if defined(__aarch64__)
    case SMASK_ISA_VECTOR4: return 12;
#else
    case SMASK_ISA_VECTOR4: return 6;
#endif
    default: return 4;
    }
}

SMASK__FN size_t smask__tile_columns(int isa)
{
    switch (isa) {
    case SMASK_ISA_AVX512: return 32;
    case SMASK_ISA_AVX2: return 16;
    case SMASK_ISA_VECTOR4: return 8;
    default: return 2;
    }
}

/* One pass of this file per instruction set. */
#define SMASK__PASS 1
#include SPLITMASK_FILE
#undef SMASK__PASS
#ifdef SMASK__HAS_VECTOR4
#define SMASK__PASS 4
#include SPLITMASK_FILE
#undef SMASK__PASS
#endif
#ifdef SMASK__HAS_AVX2
#define SMASK__PASS 8
#include SPLITMASK_FILE
#undef SMASK__PASS
#endif
#ifdef SMASK__HAS_AVX512
#define SMASK__PASS 16
#include SPLITMASK_FILE
#undef SMASK__PASS
#endif

/* Call the version of a function for `isa`: SMASK__CALL(isa, gelu, (y, x, n)).
   The expansion is a switch statement and needs no semicolon. */
#ifdef SMASK__HAS_AVX512
#define SMASK__CASE512(name, args)                                          \
    case SMASK_ISA_AVX512: smask__##name##_avx512 args; break;
#else
#define SMASK__CASE512(name, args)
#endif
#ifdef SMASK__HAS_AVX2
#define SMASK__CASE256(name, args)                                          \
    case SMASK_ISA_AVX2: smask__##name##_avx2 args; break;
#else
#define SMASK__CASE256(name, args)
#endif
#ifdef SMASK__HAS_VECTOR4
#define SMASK__CASE128(name, args)                                          \
    case SMASK_ISA_VECTOR4: smask__##name##_vector4 args; break;
#else
#define SMASK__CASE128(name, args)
#endif
#define SMASK__CALL(isa, name, args)                                        \
    switch (isa) {                                                          \
    SMASK__CASE512(name, args)                                              \
    SMASK__CASE256(name, args)                                              \
    SMASK__CASE128(name, args)                                              \
    default: smask__##name##_scalar args; break;                            \
    }

/* ----------------------------------------------------------------------
   17e  The functions of >>engine, each for all instruction sets.
   ---------------------------------------------------------------------- */

SMASK__FN void smask__add(int isa, float *y, const float *x, size_t n)
{ SMASK__CALL(isa, add, (y, x, n)) }

SMASK__FN void smask__axpy(int isa, float *y, float a, const float *x,
    size_t n)
{ SMASK__CALL(isa, axpy, (y, a, x, n)) }

SMASK__FN void smask__scale(int isa, float *y, float a, const float *x,
    size_t n)
{ SMASK__CALL(isa, scale, (y, a, x, n)) }

SMASK__FN void smask__sum_rows(int isa, float *y, const float *x, size_t ld,
    size_t rows, size_t n)
{ SMASK__CALL(isa, sum_rows, (y, x, ld, rows, n)) }

SMASK__FN void smask__moments(int isa, const float *x, size_t n, float about,
    float *sum, float *squares)
{ SMASK__CALL(isa, moments, (x, n, about, sum, squares)) }

SMASK__FN void smask__exp_row(int isa, float *y, const float *x, float a,
    float top, size_t n, float *sum)
{ SMASK__CALL(isa, exp_row, (y, x, a, top, n, sum)) }

SMASK__FN void smask__gelu(int isa, float *y, const float *x, size_t n)
{ SMASK__CALL(isa, gelu, (y, x, n)) }

SMASK__FN void smask__gelu_bwd(int isa, float *dx, const float *dy,
    const float *x, size_t n, int add)
{ SMASK__CALL(isa, gelu_bwd, (dx, dy, x, n, add)) }

SMASK__FN void smask__norm_row(int isa, float *y, const float *x, float mean,
    float rstd, const float *w, const float *b, size_t n)
{ SMASK__CALL(isa, norm_row, (y, x, mean, rstd, w, b, n)) }

SMASK__FN void smask__norm_row_bwd(int isa, float *dx, const float *dy,
    const float *x, float mean, float rstd, const float *w, float *dw,
    float *db, size_t n, int add)
{ SMASK__CALL(isa, norm_row_bwd, (dx, dy, x, mean, rstd, w, dw, db, n, add)) }

SMASK__FN void smask__softmax(int isa, float *s, size_t ld, size_t rows,
    size_t columns, float scale, const float *bias, size_t b_ld, float *top,
    float *inverse)
{
    SMASK__CALL(isa, softmax, (s, ld, rows, columns, scale, bias, b_ld, top,
        inverse))
}

SMASK__FN void smask__softmax_bwd(int isa, float *s, float *dp, size_t ld,
    size_t rows, size_t columns, float scale, const float *bias, size_t b_ld,
    const float *top, const float *inverse, float *dbias)
{
    SMASK__CALL(isa, softmax_bwd, (s, dp, ld, rows, columns, scale, bias, b_ld,
        top, inverse, dbias))
}

SMASK__FN void smask__adam(int isa, float *w, float *g, float *m, float *v,
    size_t n, const smask__adam_step *s)
{ SMASK__CALL(isa, adam, (w, g, m, v, n, s)) }

SMASK__FN void smask__fetch(int isa, const smask__operand *v, size_t row,
    size_t rows, size_t column, size_t columns, float *to, size_t pitch,
    size_t width, size_t stride, int paired)
{
    SMASK__CALL(isa, fetch, (v, row, rows, column, columns, to, pitch, width,
        stride, paired))
}

SMASK__FN void smask__pair_columns(int isa, const float *x, size_t ld,
    size_t rows, size_t columns, float *to, size_t pitch)
{ SMASK__CALL(isa, pair_columns, (x, ld, rows, columns, to, pitch)) }

SMASK__FN float smask__dot(int isa, const float *x, const float *y, size_t n)
{
    float sum;
    SMASK__CALL(isa, dot, (x, y, n, &sum))
    return sum;
}

SMASK__FN float smask__row_max(int isa, const float *x, size_t n)
{
    float top;
    SMASK__CALL(isa, row_max, (x, n, &top))
    return top;
}

/* Tiles read panels NR wide. The CBLAS hook has one panel, as wide as the
   matrix. */
SMASK__FN void smask__transpose(int isa, const float *x, size_t ld,
    size_t columns, size_t k, float *to, size_t nr)
{
    if (nr == smask__tile_columns(isa)) {
        SMASK__CALL(isa, transpose, (x, ld, columns, k, to))
        return;
    }
    for (size_t q = 0; q < k; q++)
        for (size_t i = 0; i < columns; i++) to[q * nr + i] = x[i * ld + q];
}

SMASK__FN void smask__multiply_tiles(int isa, const smask__block_product *t)
{
#ifdef SMASK__HAS_BF16
    if (t->paired && t->a_transposed) smask__bf16_tn_avx512(t);
    else if (t->paired) smask__bf16_nn_avx512(t);
    if (t->paired) return;
#endif
    if (t->a_transposed) SMASK__CALL(isa, block_tn, (t))
    else SMASK__CALL(isa, block_nn, (t))
}

#undef SMASK__BUILD
#endif /* SMASK__BUILD and no pass */

/* ######################################################################
   PART V                                                       ENDNOTES

   CHOICES                                                      >>choices
   The paper leaves these points open, or this file decides them otherwise.
   A field in brackets selects an alternative.

     class token         none; features are means over patches
     position embedding  learnt, added before the split (desc.sincos)
     decoder positions   a table of its own, added to all N tokens
                         (desc.decoder_shares_position)
     encoder -> decoder  final norm, then one linear layer
                         (desc.no_decoder_embed)
     decoder             decoder_depth blocks (2 in the paper) with the
                         encoder's heads and MLP width, then a norm and the
                         head
     mask                BEiT's blocks, scaled to the grid: 8 to 38 % of it
                         each, filled up to exactly half (objective.mask)
     split               the images of a batch share one; with one per image
                         the shape of A would give away which B belongs to
                         it (objective.splits)
     75 %                one permutation: a quarter to A, the next to B;
                         each predicts the three quarters it does not see
     inpaint             mean over all predictions of both branches
     match               means of the encoder's outputs (match_decoder: the
                         decoder's, as in the paper), as unit vectors;
                         temperature 0.2; the other half against those of
                         the B - 1 other images (raw_features,
                         all_negatives); gradients through both (stop_keys)
     loss                inpaint + match, weight 1 each
     visual tokens       of the same pixels that the encoder sees, mean 0
                         and deviation 1; e_i from U[-1,1] (uniform01); from
                         a copy of half the resolution when P is 16
                         (half_resolution)
     k-means             Euclidean, 20 iterations of Lloyd, starting from
                         random patches; an empty cluster starts again
     LayerScale, relative positions, stochastic depth: off
     AdamW               beta 0.9, 0.98; clip 3; weight decay 0.05 on
                         matrices, bias tables and mask tokens

   HOW TO CHANGE THIS FILE                                     >>changing
   Add an op
     1. >>types: add it to SMASK_OPS. Declare its function in part II, with
        a doc comment: shapes, formula, gradient, saves, memory, errors.
     2. >>kernels: forward and backward on pointers, from the loops of
        >>engine. A new hot loop: its prototype and formula in >>engine, the
        loop on vectors in >>simd, and its dispatcher at the end of >>simd.
     3. >>ops: a line in `What each op stores`, then the function. It returns
        NULL for NULL sources, checks shapes, calls smask__new_tensor
        (sources 3 to 5: smask__link), and returns smask__finish. In a dry
        run it allocates the saves but touches no values.
     4. Right below it smask__NAME_back, which SMASK_OPS makes the dispatch
        call. It adds to the gradients of the sources (smask__grad_add, or
        smask__grad_zeroed and a kernel; the latter returns NULL if no
        gradient is wanted).
     5. tests/test_tape.c: a loss and a line in `registry`, for the check
        against finite differences; an op without one fails the test.
     6. tests/fixtures/reference.py, ops(): the op in PyTorch. The same case
        in tests/test_reference.c; `sh tests/fixtures/make.sh`.
   Add a field to a desc
     The struct, with the default in the comment, where 0 means the default;
     smask__vit_defaults sets it. smask__vit_check rejects combinations.
     If a saved model depends on it: a line in smask__vit_fields, the list of
     integers and floats (as bits) in files. Files without the key get 0, so
     0 must mean what the file did before. smask__tokenizer_fields likewise.
   Add a test
     A function in tests/test_NAME.c and RUN(function) in its main; then
     `sh tests/run.sh NAME`. The runner finds new files by itself. `make
     check` runs all tests, the lint rules and the compiler matrix.
   Add an instruction set
     >>types: SMASK_ISAS. >>simd: SMASK__HAS_..., smask__isa_available and
     smask__isa_resolve; a case in SMASK__CALL; tile sizes in
     smask__tile_rows and smask__tile_columns; v_t, SMASK__N, SMASK__MR and
     the v_ operations of its pass; the pass itself. SMASK__PASS is the
     vector width in floats and selects the operations: two sets of one
     width need another key. smask__tile_rows equals SMASK__MR, at most 14;
     smask__tile_columns equals SMASK__NR, twice the width.
     tests/test_gemm.c and test_kernels.c loop over all sets; tests/lint.sh
     lists the suffixes of functions.
   Measure
     `make bench` before and after. build/bench step --profile shows the time
     of each op, build/bench gemm --isa NAME one instruction set.

   SOURCES                                                      >>sources
   [Ba16]    Ba, Kiros, Hinton: Layer normalization. 2016.
   [Bao21]   Bao et al.: BEiT: BERT pre-training of image transformers. 2021.
   [BLIS15]  Van Zee, van de Geijn: BLIS, a framework for BLAS. TOMS 2015.
   [Chen16]  Chen et al.: Training nets with sublinear memory cost. 2016.
   [Dao22]   Dao, Fu, Ermon, Rudra, Re: FlashAttention. 2022.
   [Dij65]   Dijkstra: Solution of a problem in concurrent programming. 1965.
   [Dos21]   Dosovitskiy et al.: An image is worth 16x16 words. 2021.
   [ElN21]   El-Nouby et al.: Are large-scale datasets necessary for
             self-supervised pre-training? arXiv 2112.10740, 2021.
   [GG08]    Goto, van de Geijn: Anatomy of high-performance matrix
             multiplication. TOMS 2008.
   [GW08]    Griewank, Walther: Evaluating derivatives. 2nd ed., 2008.
   [He22]    He et al.: Masked autoencoders are scalable learners. 2022.
   [HG16]    Hendrycks, Gimpel: Gaussian error linear units. 2016.
   [HF22]    Hugging Face: safetensors, the format. 2022.
   [Hua16]   Huang et al.: Deep networks with stochastic depth. 2016.
   [Kal19]   Kalamkar et al.: A study of bfloat16 for training. 2019.
   [LH19]    Loshchilov, Hutter: Decoupled weight decay. 2019.
   [Knu97]   Knuth: The art of computer programming, vol. 2. 3rd ed., 1997.
   [Llo82]   Lloyd: Least squares quantization in PCM. 1982.
   [ONe14]   O'Neill: PCG: random number generators. 2014.
   [Oord18]  van den Oord, Li, Vinyals: Contrastive predictive coding. 2018.
   [RFC8259] Bray: The JSON data interchange format. 2017.
   [Tou21]   Touvron et al.: Going deeper with image transformers. 2021.
   [Vas17]   Vaswani et al.: Attention is all you need. 2017.

   CHANGES                                                      >>changes
   0.2.0     SplitMask shares one split among the images of a batch and
             matches the encoder's means; objective.splits = B and
             match_decoder = 1 give the losses of 0.1.0. New: view_images,
             smask_sub, smask_mul, smask_images_from_bytes, smask_stdio,
             smask_tokenizer_desc_for, smask_read_prefix, smask_write_begin.
             Files of 0.1.0 are read; their keys are unchanged.
     API CHANGE, old -> new
             smask_lanes, desc.lanes          smask_isa, desc.isa
             smask_text, smask_lanes_text     smask_result_text, smask_isa_text
             smask_grad, smask_crew_...       smask_record, smask_threads_...
             smask_contrast, smask_rows       smask_info_nce, smask_gather
             smask_unit, smask_gain           smask_l2_normalize,
                                              smask_scale_rows
             smask_mean_rows, smask_half      smask_mean_tokens, gone
             smask_note, smask_file_note      smask_metadata,
                                              smask_read_metadata
             smask_file_vit, _tokenizer       smask_read_vit_desc,
                                              smask_read_tokenizer_desc
             smask_write_tensors              smask_write_begin
             gradcheck(c, fn, user, t, ...)   gradcheck(c, t, fn, user, ...)
             recompute(c, fn, x, user)        recompute(c, x, fn, user)
             size_t of batches and counts     int32_t
             tokenizer desc.half              half_resolution
             desc.no_bridge, bridge_w         no_decoder_embed,
                                              decoder_embed_w
             mask.seen, seen_at               visible, visible_at
             tensor.wants, born, before       requires_grad, generation,
                                              previous
             tensor.owns, inner               dx_state, x_state
   0.1.0     The first version.

   LICENCE                                                      >>licence
   MIT. Copyright (c) 2026 the splitmask.h authors.

   Permission is hereby granted, free of charge, to any person obtaining a
   copy of this software and associated documentation files (the
   "Software"), to deal in the Software without restriction, including
   without limitation the rights to use, copy, modify, merge, publish,
   distribute, sublicense, and/or sell copies of the Software, and to
   permit persons to whom the Software is furnished to do so, subject to
   the following conditions:

   The above copyright notice and this permission notice shall be included
   in all copies or substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS
   OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
   MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
   IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
   CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
   TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
   SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
   ###################################################################### */
