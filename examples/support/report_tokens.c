/* report_tokens.c: what the visual tokens stand for, from a sample. */
#include "report_parts.h"
#include <math.h>
#include <string.h>

/* --------------------------------------------------------------- tokens */

/* Side in pixels of what the tokenizer looks at: P, or P / 2. */
int32_t report_token_side(const smask_tokenizer *t)
{
    return t->desc.half_resolution ? t->desc.patch / 2 : t->desc.patch;
}

static int32_t patches_of(const smask_tokenizer *t)
{
    const int32_t grid = t->desc.image / t->desc.patch;

    return grid * grid;
}

/* Patch n of an image as the tokenizer cuts it, before it removes a mean. */
void report_raw_patch(const smask_tokenizer *t, const float *image, int32_t n,
    float *row)
{
    const int32_t S = t->desc.image, P = t->desc.patch;
    const int32_t p = report_token_side(t);
    const int32_t top = n / (S / P) * P, left = n % (S / P) * P;
    int32_t channel, y, x;

    for (channel = 0; channel < t->desc.channels; channel++)
        for (y = 0; y < p; y++)
            for (x = 0; x < p; x++) {
                const float *at = image + (size_t)channel * (size_t)S
                    * (size_t)S;
                if (t->desc.half_resolution) {
                    at += (size_t)(top + 2 * y) * (size_t)S
                        + (size_t)(left + 2 * x);
                    *row++ = 0.25f * (at[0] + at[1] + at[S] + at[S + 1]);
                } else {
                    *row++ = at[(size_t)(top + y) * (size_t)S
                        + (size_t)(left + x)];
                }
            }
}

/* The factor that brings the codebook vector nearest to the row. */
float report_best_scale(const float *row, const float *vector, size_t d)
{
    double dot = 0, square = 0;
    size_t i;

    for (i = 0; i < d; i++) {
        dot += (double)row[i] * vector[i];
        square += (double)vector[i] * vector[i];
    }
    return square > 0 ? (float)(dot / square) : 0;
}

size_t report_tokens_bytes(const smask_tokenizer *t)
{
    const size_t V = (size_t)t->desc.vocabulary, d = (size_t)t->width;

    return sizeof(float) * (2 * V + V * d
        + ((size_t)patches_of(t) + 1) * d);
}

void report_tokens_begin(report_tokens *w, const smask_tokenizer *t,
    void *memory)
{
    const size_t V = (size_t)t->desc.vocabulary, d = (size_t)t->width;
    float *at = (float *)memory;

    memset(w, 0, sizeof *w);
    w->tokenizer = t;
    w->count = (int32_t *)memory;        /* as wide as a float             */
    w->scale = at + V;
    w->average = at + 2 * V;
    w->work = w->average + V * d;
}

void report_tokens_add(report_tokens *w, const float *images, int32_t B,
    const int32_t *ids)
{
    const smask_tokenizer *t = w->tokenizer;
    const size_t d = (size_t)t->width, N = (size_t)patches_of(t);
    const size_t pixels = (size_t)t->desc.channels * (size_t)t->desc.image
        * (size_t)t->desc.image;
    float *raw = w->work + N * d;
    int32_t b;
    size_t n, i;

    for (b = 0; b < B; b++) {
        const float *image = images + (size_t)b * pixels;
        smask_tokenizer_patches(t, image, 1, w->work);
        for (n = 0; n < N; n++) {
            const size_t id = (size_t)ids[(size_t)b * N + n];
            float *sum = w->average + id * d;
            w->count[id]++;
            w->scale[id] += report_best_scale(w->work + n * d,
                t->codebook + id * d, d);
            report_raw_patch(t, image, (int32_t)n, raw);
            for (i = 0; i < d; i++) sum[i] += raw[i];
        }
    }
    w->patches += (int64_t)B * (int64_t)N;
}

void report_tokens_end(report_tokens *w)
{
    const size_t d = (size_t)w->tokenizer->width;
    double entropy = 0, all = 0;
    int32_t id;
    size_t i;

    w->use.used = 0;
    for (id = 0; id < w->tokenizer->desc.vocabulary; id++) {
        const double share = w->count[id] / (double)w->patches;
        all += w->scale[id];
        if (w->count[id] == 0) continue;
        entropy -= share * log(share);
        w->use.used++;
        w->scale[id] /= (float)w->count[id];
        for (i = 0; i < d; i++)
            w->average[(size_t)id * d + i] /= (float)w->count[id];
    }
    /* A token that the sample lacks: as long as tokens are on average. */
    for (id = 0; id < w->tokenizer->desc.vocabulary; id++)
        if (w->count[id] == 0)
            w->scale[id] = (float)(all / (double)w->patches);
    w->use.entropy = entropy;
    w->use.perplexity = exp(entropy);
}
