/* report.h: what a pre-training run did, as one HTML file to look at.

   The file holds everything it shows: curves as inline SVG, pictures as PNG
   inside data URIs, no script, nothing fetched. It is written for someone
   who meets the method for the first time.                              */
#ifndef REPORT_H
#define REPORT_H

#include "splitmask.h"
#include <stdio.h>

typedef struct report_pair { const char *name, *value; } report_pair;

/* A row of log.csv: what update number `step` (1 the first) saw. */
typedef struct report_step {
    int64_t step;
    double lr, loss, inpaint, match, accuracy, match_accuracy;
    double images_per_s;
    double noise;                    /* match accuracy on pure noise, as last
                                        measured; NAN: not yet             */
} report_step;

/* What the visual tokens stand for, learnt from a sample of images. The
   codebook vector of a token is a direction in pixel space; `scale` is the
   mean projection on it of the patches that carry the token. */
typedef struct report_tokens {
    const smask_tokenizer *tokenizer;
    int64_t patches;                 /* in the sample                      */
    int32_t *count;                  /* (V) of each token                  */
    float *scale;                    /* (V)                                */
    float *average;                  /* (V, d) the mean patch of each token */
    float *work;                     /* ((N + 1) d) one image as patches   */
    smask_token_use use;
} report_tokens;

/* A few images, and what the model made of each. */
typedef struct report_scenes {
    int32_t count, branches;         /* branches: SplitMask 2, BEiT 1      */
    int32_t held_out;                /* 1: not among the training images   */
    float *image;                    /* (count, C, S, S) normalised        */
    int32_t *token;                  /* (count, N)                         */
    unsigned char *visible[2];       /* (count, N) by branch               */
    int32_t *previous[2], *after[2];   /* (count, N) tokens, where not seen   */
} report_scenes;

typedef struct report {
    const char *title, *command;     /* command: how to run it again       */
    int64_t done, steps;             /* updates made and planned           */
    int32_t batch, beit;             /* beit: 1: BEiT, 0: SplitMask        */
    int32_t no_inpaint, no_match;
    double chance;                   /* of a right match, 0 .. 1           */
    double noise;                    /* match accuracy on pure noise now;
                                        NAN: not measured                  */
    const report_pair *result, *option;
    int32_t results, options;
    const report_step *row;
    size_t rows;
    const report_tokens *tokens;
    const report_scenes *scenes;
    float mean[4], deviation[4];     /* pixels were (x - mean) / deviation */
} report;

/* Bytes of a report_tokens' four arrays together, and of its patches. */
size_t report_tokens_bytes(const smask_tokenizer *t);
/* Take memory of that size (zeroed) into use. */
void report_tokens_begin(report_tokens *w, const smask_tokenizer *t,
    void *memory);
/* Count the tokens ids (B, N) of images (B,C,S,S). */
void report_tokens_add(report_tokens *w, const float *images, int32_t B,
    const int32_t *ids);
/* From sums to means. */
void report_tokens_end(report_tokens *w);

/* Write the file. Returns 1, or 0 with errno set; then `path` still holds
   what it held. */
int report_write(const report *r, const char *path);

/* Write a PNG as a data URI: pixels (height, width, 4) are red, green, blue
   and opacity. Returns 1, or 0 when memory is short. */
int report_png(FILE *stream, const unsigned char *pixels, int32_t width,
    int32_t height);

#endif /* REPORT_H */
