/* evaluation.h: how much does a frozen encoder know about the classes?

   Two classical answers, both without touching the encoder:
     kNN     an image gets the class of the training images nearest to it in
             feature space. Nothing is learnt, so nothing can be tuned.
     probe   multinomial logistic regression on the features, trained to
             convergence. Asks whether classes can be told apart by planes.
   Every function gives the same answer for any number of threads, plans
   its memory before it works, and gives that memory back. */
#ifndef EVALUATION_H
#define EVALUATION_H

#include "splitmask.h"

/* --------------------------------------------------------- model files */

/* What a model file says before its weights are read. */
typedef struct evaluation_model {
    char path[1024];                 /* empty: no file, random weights     */
    smask_vit_desc desc;             /* the encoder alone: no decoder, no
                                        vocabulary head, no mask token     */
    int foreign;                     /* not written by this project        */
    int guessed_heads;               /* desc.heads is a guess              */
    int32_t channels;                /* of mean and deviation; 0: not told */
    float mean[4], deviation[4];     /* of the pixels it was trained on    */
    size_t spare;                    /* bytes to plan for reading it       */
    char heads_line[160], pixels_line[160];    /* printed with the weights */
} evaluation_model;

/* Read the header of a model file. Returns SMASK_OK, or the reason in words
   in `trouble` (cause and fix, no full stop). */
smask_result evaluation_model_open(evaluation_model *m, const char *path,
    char *trouble, size_t trouble_bytes);

/* Options about the model. Pixels: "0.5,0.5,0.5", or NULL. */
typedef struct model_options {
    const char *model, *mean, *std;
    int image, patch, dim, depth, heads;
} model_options;

/* The same in a table of options; o is a model_options. */
#define PIXEL_OPTIONS(o)                                                    \
    { "--mean", OPTION_TEXT, &(o).mean, 0, 0,                               \
      "of the pixels, one number a channel, 0 .. 1; default: as the model " \
      "file says" },                                                        \
    { "--std", OPTION_TEXT, &(o).std, 0, 0, "of the pixels" }
#define SIZE_OPTIONS(o)                                                     \
    { "--dim", OPTION_INT, &(o).dim, 8, 8192, "width D, with random" },     \
    { "--depth", OPTION_INT, &(o).depth, 1, 128, "blocks L, with random" }, \
    { "--heads", OPTION_INT, &(o).heads, 0, 512,                            \
      "heads H, with random or a file that does not say; 0: D / 32, at "    \
      "least 1; of such a file D / 64" },                                   \
    { "--image", OPTION_INT, &(o).image, 4, 1024,                           \
      "side in pixels, with random" },                                      \
    { "--patch", OPTION_INT, &(o).patch, 1, 256, "P in pixels, with random" }

/* The model of --model, or one of these options if that is "random". Fails with
   a line where it cannot be, or where an option contradicts the file. */
void evaluation_model_choose(evaluation_model *m, const model_options *o);

/* One rule for all programs: how pixels are normalised, into m->mean and
   m->deviation. From --mean and --std; else from the file; else, for a file of
   others, from config.json beside it; else, for a model of ours, from the
   data (or NULL). Fails where none says it. evaluation_model_read prints what
   holds and why. */
void evaluation_model_pixels(evaluation_model *m, const model_options *o,
    const float *data_mean, const float *data_deviation);

/* Fill the weights of `v` except its classifier from the file, between steps.
   Weights that only the file has are skipped. *missing: those that only the
   model has. In a dry run, plans the memory that this takes. */
smask_result evaluation_model_read(smask_ctx *c, const evaluation_model *m,
    smask_vit *v, int32_t *missing, char *trouble, size_t trouble_bytes);

/* ------------------------------------------------------------ features */

/* Run `work` in a context of its own: once dry, to learn its size, then for
   real. `work` is the only place that says what is allocated. */
smask_result evaluation_alone(const smask_parallel *hook,
    smask_result (*work)(smask_ctx *c, void *user), void *user);

/* RANGE if a label is not in 0 .. classes - 1, else OK. */
smask_result evaluation_check_labels(const int32_t *label, size_t count,
    int32_t classes);

/* 1 if none of x is infinite or NaN. */
int evaluation_finite(const float *x, size_t count);

/* Fill images (count,C,S,S), normalised, with number first, first + 1, ...
   of a split. */
typedef void (*evaluation_images)(void *user, size_t first, int32_t count,
    float *images);

/* Pooled features of a whole split, layer by layer, in batches.
     layer   0 .. L: only this one, out (count, D); negative: all of them,
             out (L + 1, count, D). Layer l < L is the output of block l as
             it stands, layer L the output of the final norm.
   In a dry run one batch is planned, and out may be NULL.
   errors     those of smask_vit_features; NUMERIC: not finite          */
smask_result evaluation_features(smask_ctx *c, const smask_vit *v,
    size_t count, int32_t batch, int32_t layer, evaluation_images fill,
    void *user, float *out);

/* ------------------------------------------------------- kNN and probe */

/* x / |x| row by row; a row of zeros stays as it is. */
void evaluation_unit_rows(float *x, size_t count, size_t width);

/* Average images (count,C,S,S) down to side `small`, into (count, C small
   small): the yardstick for features is what plain pixels would give. */
void evaluation_shrink(const float *images, size_t count, size_t channels,
    size_t side, size_t small, float *out);

/* Weighted k nearest neighbours by cosine, as in DINO's protocol.
     bank (bank_count, width), query (query_count, width): unit rows
     the k nearest vote for their class with exp(cosine / temperature)
     guess (query_count): the class with the most votes
   Equal cosines: the earlier image counts as nearer; equal votes: the
   lower class wins. k is cut to bank_count.
   cost       2 query_count bank_count width operations
   errors     ARG, MEMORY
   source     Wu et al. 2018; Caron et al. 2021                         */
smask_result evaluation_knn(const smask_parallel *hook, const float *bank,
    const int32_t *bank_label, size_t bank_count, const float *query,
    size_t query_count, size_t width, int32_t classes, int32_t k,
    float temperature, int32_t *guess);

/* What the probe learnt about its own strength of regularisation. */
typedef struct evaluation_probe {
    double weight_decay;             /* chosen on held-out training images */
    double held_accuracy;            /* 0 .. 1, on those                   */
    size_t held_count;               /* how many there were                */
    int iterations;                  /* of L-BFGS, over all fits           */
} evaluation_probe;

/* Choose the weight decay: fit on four fifths of the training images of
   each class, once per decay, and keep the one that is right most often on
   the last fifth. Never sees the test images.
     x (count, width), label (count): 0 .. classes - 1
   errors     ARG, RANGE (a label), NUMERIC (a feature), MEMORY          */
smask_result evaluation_probe_choose(const smask_parallel *hook,
    const float *x, const int32_t *label, size_t count, size_t width,
    int32_t classes, uint64_t seed, evaluation_probe *out);

/* Fit on all training images with the given decay and guess the class of
   each test image. Features are standardised by the training images.
     test (test_count, width), guess (test_count)                       */
smask_result evaluation_probe_test(const smask_parallel *hook,
    const float *x, const int32_t *label, size_t count, const float *test,
    size_t test_count, size_t width, int32_t classes, double weight_decay,
    int32_t *guess);

/* Choose `limit` of `count` images, by turns from each class in an order
   drawn from the seed, so that the classes are as even as they can be.
   Writes the chosen positions into chosen (count) in rising order; returns
   how many, or 0 if memory is short. limit 0 or >= count: all of them. */
size_t evaluation_balanced(const int32_t *label, size_t count,
    int32_t classes, size_t limit, uint64_t seed, int32_t *chosen);

/* Share of guesses that are right, 0 .. 1. */
double evaluation_accuracy(const int32_t *guess, const int32_t *label,
    size_t count);

#endif /* EVALUATION_H */
