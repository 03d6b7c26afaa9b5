/* report_pictures.c: images, their tokens and guesses, drawn for a report. */
#include "report_parts.h"
#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------- canvas
   Pictures are drawn patch by patch. Above 128 pixels they are shown at
   half their side, which is also the resolution of tokens cut in half. */

static unsigned char to_byte(float x)
{
    return (unsigned char)(x <= 0 ? 0 : x >= 1 ? 255 : x * 255 + 0.5f);
}

/* A patch (C, p, p) of normalised pixels as (q, q, 4), `stride` pixels from
   one row to the next. Larger patches are averaged, smaller ones repeated. */
static void draw_patch(const report *r, const float *row, int32_t C,
    int32_t p, int32_t q, unsigned char *to, int32_t stride, int opacity)
{
    int32_t y, x, i, j, k;

    for (y = 0; y < q; y++)
        for (x = 0; x < q; x++) {
            unsigned char *out = to + 4 * (y * stride + x);
            const int32_t top = y * p / q, left = x * p / q;
            const int32_t span = p > q ? p / q : 1;
            for (k = 0; k < 3; k++) {
                const int32_t from = C < 3 ? 0 : k;
                float sum = 0;
                for (i = top; i < top + span; i++)
                    for (j = left; j < left + span; j++)
                        sum += row[(from * p + i) * p + j];
                out[k] = to_byte(sum / (float)(span * span)
                    * r->deviation[from] + r->mean[from]);
            }
            out[3] = (unsigned char)opacity;
        }
}

static void draw_at(const report_canvas *v, int32_t n, const float *row,
    int32_t p, int opacity)
{
    const int32_t at = n / v->grid * v->patch * v->side
        + n % v->grid * v->patch;

    draw_patch(v->r, row, v->r->tokens->tokenizer->desc.channels, p, v->patch,
        v->pixel + 4 * at, v->side, opacity);
}

/* How tokens become pixels. */
enum { AS_CODEBOOK, AS_AVERAGE };

/* Token `id` as a patch (d). For a patch that is there to compare with, `row`
   and `raw` (as the tokenizer sees it, and before its mean was removed) give
   the best scale; otherwise they are NULL, and the token's mean scale is
   taken. */
static void token_patch(const report_tokens *w, int32_t id, const float *row,
    const float *raw, int style, float *out)
{
    const smask_tokenizer *t = w->tokenizer;
    const size_t d = (size_t)t->width;
    const float *vector = t->codebook + (size_t)id * d;
    const float *average = w->average + (size_t)id * d;
    const float scale = row != NULL ? report_best_scale(row, vector, d)
        : w->scale[id];
    float mean = 0;
    size_t i;

    if (style == AS_AVERAGE && w->count[id] > 0) {
        memcpy(out, average, d * sizeof *out);
        return;
    }
    for (i = 0; i < d && t->desc.centre; i++)
        mean += (row != NULL ? raw[i] - row[i] : average[i]) / (float)d;
    for (i = 0; i < d; i++) out[i] = scale * vector[i] + mean;
}

int report_canvas_open(report_canvas *v, const report *r)
{
    const smask_tokenizer_desc *d = &r->tokens->tokenizer->desc;
    const int32_t shrink = d->image > 128 && d->patch % 2 == 0 ? 2 : 1;
    const size_t C = (size_t)d->channels, S = (size_t)d->image;
    size_t rows = C * S * S;

    v->r = r;
    v->side = d->image / shrink;
    v->patch = d->patch / shrink;
    v->grid = d->image / d->patch;
    v->pixel = (unsigned char *)malloc(4 * (size_t)v->side
        * (size_t)v->side);
    v->row = (float *)malloc((2 * rows + C * S * S) * sizeof(float));
    v->raw = v->row == NULL ? NULL : v->row + rows;
    v->vector = v->row == NULL ? NULL : v->raw + rows;
    return v->pixel != NULL && v->row != NULL;
}

void report_canvas_close(report_canvas *v)
{
    free(v->pixel);
    free(v->row);
}

static const float *scene_image(const report *r, int32_t scene)
{
    const smask_tokenizer_desc *d = &r->tokens->tokenizer->desc;

    return r->scenes->image + (size_t)scene * (size_t)d->channels
        * (size_t)d->image * (size_t)d->image;
}

/* The pixels of a scene, where `seen` (N) is 1 or NULL. */
static void draw_pixels(const report_canvas *v, int32_t scene,
    const unsigned char *seen, int opacity)
{
    const smask_tokenizer_desc *d = &v->r->tokens->tokenizer->desc;
    const size_t C = (size_t)d->channels, P = (size_t)d->patch;
    int32_t n;

    memset(v->pixel, 0, 4 * (size_t)v->side * (size_t)v->side);
    smask_patches(scene_image(v->r, scene), 1, d->channels, d->image, d->patch,
        v->row);
    for (n = 0; n < v->grid * v->grid; n++)
        if (seen == NULL || seen[n])
            draw_at(v, n, v->row + (size_t)n * C * P * P, d->patch, opacity);
}

/* The true tokens of a scene. */
static void draw_tokens(const report_canvas *v, int32_t scene, int style)
{
    const report_tokens *w = v->r->tokens;
    const smask_tokenizer *t = w->tokenizer;
    const int32_t N = v->grid * v->grid;
    const size_t d = (size_t)t->width;
    int32_t n;

    smask_tokenizer_patches(t, scene_image(v->r, scene), 1, v->row);
    for (n = 0; n < N; n++) {
        report_raw_patch(t, scene_image(v->r, scene), n, v->raw);
        token_patch(w, v->r->scenes->token[scene * N + n],
            v->row + (size_t)n * d, v->raw, style, v->vector);
        draw_at(v, n, v->vector, report_token_side(t), 255);
    }
}

/* What was given, faint, and what the model made of the rest. */
static void draw_guess(const report_canvas *v, int32_t scene,
    const unsigned char *seen, const int32_t *guess, int style)
{
    const report_tokens *w = v->r->tokens;
    int32_t n;

    draw_pixels(v, scene, seen, 70);
    for (n = 0; n < v->grid * v->grid; n++)
        if (!seen[n]) {
            token_patch(w, guess[n], NULL, NULL, style, v->vector);
            draw_at(v, n, v->vector, report_token_side(w->tokenizer), 255);
        }
}

/* -------------------------------------------------------------- scenes */

/* A picture, with the border between seen and hidden patches drawn in. */
static void put_canvas(FILE *f, const report_canvas *v,
    const unsigned char *seen, const char *label)
{
    const int32_t G = v->grid;
    int32_t y, x;

    fprintf(f, "<figure><svg viewBox=\"0 0 %d %d\" role=\"img\" "
        "aria-label=\"%s\"><image width=\"%d\" height=\"%d\" href=\"",
        (int)G, (int)G, label, (int)G, (int)G);
    report_png(f, v->pixel, v->side, v->side);
    fprintf(f, "\"/>");
    if (seen != NULL) {
        fprintf(f, "<path class=\"cut\" d=\"");
        for (y = 0; y < G; y++)
            for (x = 0; x < G; x++) {
                const int here = seen[y * G + x];
                if (x + 1 < G && seen[y * G + x + 1] != here)
                    fprintf(f, "M%d %dv1", (int)x + 1, (int)y);
                if (y + 1 < G && seen[y * G + G + x] != here)
                    fprintf(f, "M%d %dh1", (int)x, (int)y + 1);
            }
        fprintf(f, "\"/>");
    }
    fprintf(f, "</svg><figcaption>%s</figcaption></figure>\n", label);
}

static void put_guess(FILE *f, const report_canvas *v, int32_t scene,
    int32_t branch, const int32_t *guess, const char *when, int style)
{
    const report_scenes *s = v->r->scenes;
    const int32_t N = v->grid * v->grid;
    const unsigned char *seen = s->visible[branch] + scene * N;
    char label[128], who[16] = "";
    int32_t n, right = 0, hidden = 0;

    for (n = 0; n < N; n++)
        if (!seen[n]) {
            hidden++;
            right += guess[scene * N + n] == s->token[scene * N + n];
        }
    if (s->branches > 1) snprintf(who, sizeof who, "from %c, ",
        branch ? 'B' : 'A');
    snprintf(label, sizeof label, "%s%s: %d of %d right", who, when,
        (int)right, (int)hidden);
    draw_guess(v, scene, seen, guess + scene * N, style);
    put_canvas(f, v, seen, label);
}

static void put_scenes(FILE *f, const report_canvas *v, int style)
{
    const report_scenes *s = v->r->scenes;
    const int32_t N = v->grid * v->grid;
    int32_t scene, b;

    for (scene = 0; scene < s->count; scene++) {
        fprintf(f, "<div class=\"scene %s\">\n",
            s->branches > 1 ? "wide" : "half");
        draw_pixels(v, scene, NULL, 255);
        put_canvas(f, v, NULL, "image");
        draw_tokens(v, scene, style);
        put_canvas(f, v, NULL, "its tokens");
        for (b = 0; b < s->branches; b++) {
            const unsigned char *seen = s->visible[b] + scene * N;
            draw_pixels(v, scene, seen, 255);
            put_canvas(f, v, seen, s->branches < 2 ? "what is left"
                : b ? "half B" : "half A");
        }
        for (b = 0; b < s->branches; b++) {
            put_guess(f, v, scene, b, s->previous[b], "before", style);
            put_guess(f, v, scene, b, s->after[b], "after", style);
        }
        fprintf(f, "</div>\n");
    }
}

void report_pictures(FILE *f, const report *r, const report_canvas *v)
{
    const smask_tokenizer_desc *d = &r->tokens->tokenizer->desc;
    const int random = d->kind == SMASK_TOKENS_PROJECTION;
    const int32_t p = report_token_side(r->tokens->tokenizer);

    fprintf(f, "<h2>What the model sees, and what it makes of it</h2>\n");
    fprintf(f, "<p>An image is cut into %d&nbsp;&times;&nbsp;%d patches of "
        "%d&nbsp;&times;&nbsp;%d pixels, and each patch gets the one of %d "
        "<em>visual tokens</em> that looks most like it. ", (int)v->grid,
        (int)v->grid, (int)d->patch, (int)d->patch, (int)d->vocabulary);
    if (r->beit)
        fprintf(f, "Part of the patches is hidden, and the model predicts "
            "their tokens from the rest.");
    else
        fprintf(f, "Then the patches are split into two parts, A and B. The "
            "model looks at A alone and predicts the tokens of the patches "
            "it does not see; and the same from B. ");
    fprintf(f, "</p>\n<p>No label is used anywhere: to say what is missing, "
        "the model has to learn what things look like. The images below %s; "
        "<em>before</em> is the model with its first random weights, "
        "<em>after</em> the model now, on the same images with the same "
        "splits.</p>\n", r->scenes->held_out
        ? "come from the test split, which training never shows"
        : "are training images, shown without augmentation");
    put_scenes(f, v, AS_CODEBOOK);
    fprintf(f, "<p class=\"quiet\">How it is painted: a token's codebook "
        "vector has %d numbers, a patch of %d&nbsp;&times;&nbsp;%d pixels "
        "without a length. Under <em>its tokens</em> the vector is scaled "
        "to fit the patch that it stands for%s. A predicted token "
        "has no patch to fit, so it gets the mean scale that it has in a "
        "sample of %ld patches%s. What was given to the model is faint, and "
        "the line is the border between the halves.</p>\n",
        (int)r->tokens->tokenizer->width, (int)p, (int)p,
        d->centre ? ", and the patch's mean, which this tokenizer removes, "
        "is added back" : "", (long)r->tokens->patches,
        d->centre ? ", and the mean brightness of the patches that carry it"
        : "");
    if (!random) return;
    fprintf(f, "<h3 style=\"margin-top:2.2rem\">The same, each token painted "
        "as the mean of its patches</h3>\n<p>This tokenizer's codebook holds "
        "random directions in pixel space, so pictures painted with them "
        "look like noise. The patches that carry a token show better what "
        "it stands for: here each token is painted as the mean of those "
        "patches in the sample.</p>\n");
    put_scenes(f, v, AS_AVERAGE);
}

/* --------------------------------------------------------------- tokens */

static int more_often(const void *a, const void *b)
{
    const int32_t *x = *(const int32_t *const *)a;
    const int32_t *y = *(const int32_t *const *)b;

    if (*x != *y) return *x < *y ? 1 : -1;
    return x < y ? -1 : x > y;
}

static void put_token(FILE *f, const report_canvas *v, int32_t id)
{
    const report_tokens *w = v->r->tokens;
    const int32_t p = report_token_side(w->tokenizer);
    const int32_t C = w->tokenizer->desc.channels;

    token_patch(w, id, NULL, NULL, AS_CODEBOOK, v->vector);
    draw_patch(v->r, v->vector, C, p, p, v->pixel, p, 255);
    token_patch(w, id, NULL, NULL, AS_AVERAGE, v->vector);
    draw_patch(v->r, v->vector, C, p, p, v->pixel + 4 * p * p, p, 255);
    fprintf(f, "<figure><img alt=\"token %d\" src=\"", (int)id);
    report_png(f, v->pixel, p, 2 * p);
    fprintf(f, "\"><figcaption>%.2g&nbsp;%%</figcaption></figure>\n",
        100.0 * w->count[id] / (double)w->patches);
}

int report_vocabulary(FILE *f, const report *r, const report_canvas *v)
{
    const report_tokens *w = r->tokens;
    const int32_t V = w->tokenizer->desc.vocabulary;
    const int32_t **rank;
    int32_t i, shown = w->use.used < 24 ? w->use.used : 24;

    if (w->use.used < 1 || v->grid < 2) return 1;
    rank = (const int32_t **)malloc((size_t)V * sizeof *rank);
    if (rank == NULL) return 0;
    for (i = 0; i < V; i++) rank[i] = w->count + i;
    qsort(rank, (size_t)V, sizeof *rank, more_often);
    fprintf(f, "<h2>The visual tokens</h2>\n<p>%d of the %d tokens occur. "
        "Their entropy is %.3f nats, so they are as hard to guess as "
        "%.0f tokens used alike (the <em>perplexity</em>). If few cover most "
        "patches there is little to learn from them.</p>\n",
        (int)w->use.used, (int)V, w->use.entropy, w->use.perplexity);
    report_ranks(f, r, rank);
    fprintf(f, "<div class=\"tokens\">\n");
    for (i = 0; i < shown; i++)
        put_token(f, v, (int32_t)(rank[i] - w->count));
    fprintf(f, "</div>\n<p class=\"quiet\">The %d commonest tokens and their "
        "share. Above, the token at its mean scale; below, the mean of the "
        "patches that carry it.</p>\n", (int)shown);
    free((void *)rank);
    return 1;
}
