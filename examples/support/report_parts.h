/* report_parts.h: what the parts of a report share. Programs use report.h. */
#ifndef REPORT_PARTS_H
#define REPORT_PARTS_H

#include "report.h"

/* report_tokens.c */

/* Side in pixels of what the tokenizer looks at: P, or P / 2. */
int32_t report_token_side(const smask_tokenizer *t);
/* Patch n of an image as the tokenizer cuts it, before it removes a mean. */
void report_raw_patch(const smask_tokenizer *t, const float *image, int32_t n,
    float *row);
/* The factor that brings the codebook vector nearest to the row. */
float report_best_scale(const float *row, const float *vector, size_t d);

/* report_plots.c */

/* The curves of training. */
void report_plots(FILE *f, const report *r);
/* How often each token occurs; rank (V) points to the counts, sorted. */
void report_ranks(FILE *f, const report *r, const int32_t *const *rank);

/* report_pictures.c */

typedef struct report_canvas {
    const report *r;
    int32_t side, patch, grid;       /* in pixels of the picture           */
    unsigned char *pixel;            /* (side, side, 4)                    */
    float *row, *raw, *vector;       /* patches in work                    */
} report_canvas;

/* Memory for the pictures: 1, or 0 when memory is short. */
int report_canvas_open(report_canvas *v, const report *r);
void report_canvas_close(report_canvas *v);
/* Some images, what each half sees, and what was made of it. */
void report_pictures(FILE *f, const report *r, const report_canvas *v);
/* The commonest tokens: 1, or 0 when memory is short. */
int report_vocabulary(FILE *f, const report *r, const report_canvas *v);

#endif /* REPORT_PARTS_H */
