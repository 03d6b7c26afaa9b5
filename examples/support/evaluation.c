/* evaluation.c: kNN and linear probe on frozen features. See evaluation.h. */
#include "evaluation.h"
#include "support.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Run `work` in a context of its own: once dry, to learn its size, then for
   real. `work` is the only place that says what is allocated. */
static smask_result in_own_context(const smask_parallel *hook,
    smask_result (*work)(smask_ctx *c, void *user), void *user)
{
    smask_desc desc;
    smask_sizes sizes;
    smask_ctx c;
    smask_result result;

    memset(&desc, 0, sizeof desc);
    if (hook != NULL) desc.parallel = *hook;
    result = smask_plan(&desc, work, user, &sizes);
    if (result != SMASK_OK) return result;
    desc.memory_size = sizes.bytes;
    result = smask_setup(&c, &desc);
    if (result != SMASK_OK) return result;
    result = work(&c, user);
    if (result == SMASK_OK) result = smask_error(&c);
    smask_shutdown(&c);
    return result;
}

/* ------------------------------------------------------------ features */

int evaluation_finite(const float *x, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) if (!isfinite(x[i])) return 0;
    return 1;
}

smask_result evaluation_features(smask_ctx *c, const smask_vit *v,
    size_t count, int32_t batch, int32_t layer, evaluation_images fill,
    void *user, float *out)
{
    const size_t D = (size_t)v->desc.dim;
    const size_t layers = (size_t)v->desc.depth + 1;
    const size_t pixels = (size_t)v->desc.channels * (size_t)v->desc.image
        * (size_t)v->desc.image;
    size_t first, l;

    if (batch < 1 || layer > v->desc.depth) return SMASK_ARG;
    for (first = 0; first < count; first += (size_t)batch) {
        const size_t left = count - first;
        const int32_t B = left < (size_t)batch ? (int32_t)left : batch;
        const size_t block = (size_t)B * D;
        float *images, *features;

        smask_begin_step(c);
        images = (float *)smask_alloc(c, (size_t)B * pixels * sizeof(float));
        features = (float *)smask_alloc(c, layers * block * sizeof(float));
        if (images != NULL) fill(user, first, B, images);
        if (smask_error(c) == SMASK_OK)
            smask_vit_features(c, v, images, B, features);
        if (smask_error(c) != SMASK_OK || smask_is_dry(c)) {
            smask_end_step(c);
            return smask_error(c);
        }
        if (!evaluation_finite(features, layers * block)) {
            smask_end_step(c);
            return SMASK_NUMERIC;
        }
        if (layer >= 0)
            memcpy(out + first * D, features + (size_t)layer * block,
                block * sizeof(float));
        else for (l = 0; l < layers; l++)
            memcpy(out + (l * count + first) * D, features + l * block,
                block * sizeof(float));
        smask_end_step(c);
    }
    return SMASK_OK;
}

void evaluation_unit_rows(float *x, size_t count, size_t width)
{
    size_t i, j;

    for (i = 0; i < count; i++) {
        float *row = x + i * width;
        double sum = 0;
        for (j = 0; j < width; j++) sum += (double)row[j] * row[j];
        if (sum > 0) sum = 1 / sqrt(sum);
        for (j = 0; j < width; j++) row[j] = (float)(row[j] * sum);
    }
}

void evaluation_shrink(const float *images, size_t count, size_t channels,
    size_t side, size_t small, float *out)
{
    size_t plane, y, x, i, j;

    for (plane = 0; plane < count * channels; plane++) {
        const float *from = images + plane * side * side;
        float *to = out + plane * small * small;
        for (y = 0; y < small; y++) {
            const size_t top = y * side / small;
            const size_t bottom = (y + 1) * side / small;
            for (x = 0; x < small; x++) {
                const size_t left = x * side / small;
                const size_t right = (x + 1) * side / small;
                float sum = 0;
                for (i = top; i < bottom; i++)
                    for (j = left; j < right; j++)
                        sum += from[i * side + j];
                to[y * small + x] = sum
                    / (float)((bottom - top) * (right - left));
            }
        }
    }
}

double evaluation_accuracy(const int32_t *guess, const int32_t *label,
    size_t count)
{
    size_t i, right = 0;

    for (i = 0; i < count; i++) right += guess[i] == label[i];
    return count > 0 ? (double)right / (double)count : 0;
}

static int by_value(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return (x > y) - (x < y);
}

size_t evaluation_balanced(const int32_t *label, size_t count,
    int32_t classes, size_t limit, uint64_t seed, int32_t *chosen)
{
    smask_random random;
    int32_t *round, round_at;
    int32_t *shuffled;
    size_t i, taken = 0;

    if (limit == 0 || limit >= count) {
        for (i = 0; i < count; i++) chosen[i] = (int32_t)i;
        return count;
    }
    round = (int32_t *)calloc((size_t)classes + count, sizeof(int32_t));
    if (round == NULL) return 0;
    shuffled = round + classes;
    for (i = 0; i < count; i++) shuffled[i] = (int32_t)i;
    smask_seed(&random, seed, 6);
    smask_shuffle(&random, shuffled, (int32_t)count);
    /* Image number r of its class is taken in round r. */
    for (round_at = 0; taken < limit; round_at++) {
        memset(round, 0, (size_t)classes * sizeof *round);
        for (i = 0; i < count && taken < limit; i++)
            if (round[label[shuffled[i]]]++ == round_at)
                chosen[taken++] = shuffled[i];
    }
    free(round);
    qsort(chosen, taken, sizeof *chosen, by_value);
    return taken;
}

/* ----------------------------------------------------------------- kNN
   The similarities of all pairs would not fit in memory, so they are made
   tile by tile, queries x bank, and each query keeps a short sorted list
   of the best so far. A tile of 512 x 2048 floats is 4 MiB: it stays in
   the cache between the product that writes it and the scan. */

#define KNN_QUERIES 512
#define KNN_BANK 2048
#define KNN_PIECE 16

typedef struct neighbour { float similarity; int32_t at; } neighbour;

typedef struct knn_job {
    const float *bank, *query;
    const int32_t *bank_label;
    size_t bank_count, query_count, width;
    int32_t classes, k;
    float temperature;
    int32_t *guess;
    const smask_parallel *hook;
    /* The current tile. */
    const float *similarity;         /* (queries, bank_end - bank_begin)   */
    size_t query_begin, queries, bank_begin, bank_end;
    neighbour *best;                 /* (KNN_QUERIES, k), nearest first    */
    int32_t *found;                  /* (KNN_QUERIES): neighbours so far   */
    double *votes;                   /* (workers, classes)                 */
} knn_job;

static void run_pieces(const smask_parallel *hook, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    int piece;

    if (hook != NULL && hook->run != NULL) {
        hook->run(hook->user, count, fn, arg);
        return;
    }
    for (piece = 0; piece < count; piece++) fn(arg, piece, 0);
}

/* Merge one row of similarities into the list of its query. */
static void keep_nearest(const knn_job *job, size_t q)
{
    const size_t width = job->bank_end - job->bank_begin;
    const float *row = job->similarity + q * width;
    neighbour *best = job->best + q * (size_t)job->k;
    int32_t found = job->found[q];
    size_t i;

    for (i = 0; i < width; i++) {
        int32_t at;
        if (found == job->k && !(row[i] > best[found - 1].similarity))
            continue;
        at = found < job->k ? found++ : found - 1;
        while (at > 0 && row[i] > best[at - 1].similarity) {
            best[at] = best[at - 1];
            at--;
        }
        best[at].similarity = row[i];
        best[at].at = (int32_t)(job->bank_begin + i);
    }
    job->found[q] = found;
}

static void scan_piece(void *arg, int piece, int worker)
{
    const knn_job *job = (const knn_job *)arg;
    size_t q = (size_t)piece * KNN_PIECE, end = q + KNN_PIECE;

    (void)worker;
    if (end > job->queries) end = job->queries;
    for (; q < end; q++) keep_nearest(job, q);
}

static void vote_piece(void *arg, int piece, int worker)
{
    const knn_job *job = (const knn_job *)arg;
    double *votes = job->votes + (size_t)worker * (size_t)job->classes;
    size_t q = (size_t)piece * KNN_PIECE, end = q + KNN_PIECE;
    int32_t i, most;

    if (end > job->queries) end = job->queries;
    for (; q < end; q++) {
        const neighbour *best = job->best + q * (size_t)job->k;
        for (i = 0; i < job->classes; i++) votes[i] = 0;
        /* Relative to the nearest, so that a small T cannot overflow. */
        for (i = 0; i < job->found[q]; i++)
            votes[job->bank_label[best[i].at]] +=
                exp(((double)best[i].similarity - best[0].similarity)
                    / job->temperature);
        for (most = 0, i = 1; i < job->classes; i++)
            if (votes[i] > votes[most]) most = i;
        job->guess[job->query_begin + q] = most;
    }
}

static smask_result knn_work(smask_ctx *c, void *user)
{
    knn_job *job = (knn_job *)user;
    const size_t workers = job->hook != NULL && job->hook->workers > 1
        ? (size_t)job->hook->workers : 1;
    float *similarity;
    int pieces;

    similarity = (float *)smask_alloc(c,
        KNN_QUERIES * KNN_BANK * sizeof(float));
    job->best = (neighbour *)smask_alloc(c,
        KNN_QUERIES * (size_t)job->k * sizeof(neighbour));
    job->found = (int32_t *)smask_alloc(c, KNN_QUERIES * sizeof(int32_t));
    job->votes = (double *)smask_alloc(c,
        workers * (size_t)job->classes * sizeof(double));
    job->similarity = similarity;
    for (job->query_begin = 0; job->query_begin < job->query_count;
         job->query_begin += job->queries) {
        job->queries = job->query_count - job->query_begin;
        if (job->queries > KNN_QUERIES) job->queries = KNN_QUERIES;
        pieces = (int)((job->queries + KNN_PIECE - 1) / KNN_PIECE);
        if (!smask_is_dry(c))
            memset(job->found, 0, KNN_QUERIES * sizeof(int32_t));
        for (job->bank_begin = 0; job->bank_begin < job->bank_count;
             job->bank_begin = job->bank_end) {
            job->bank_end = job->bank_begin + KNN_BANK;
            if (job->bank_end > job->bank_count)
                job->bank_end = job->bank_count;
            smask_begin_step(c);
            smask_gemm(c, SMASK_NT, job->queries,
                job->bank_end - job->bank_begin, job->width,
                job->query + job->query_begin * job->width, job->width,
                job->bank + job->bank_begin * job->width, job->width,
                similarity, job->bank_end - job->bank_begin, 0);
            smask_end_step(c);
            if (smask_error(c) != SMASK_OK) return smask_error(c);
            if (smask_is_dry(c)) return SMASK_OK;
            run_pieces(job->hook, pieces, scan_piece, job);
        }
        run_pieces(job->hook, pieces, vote_piece, job);
    }
    return SMASK_OK;
}

static smask_result check_labels(const int32_t *label, size_t count,
    int32_t classes)
{
    size_t i;

    for (i = 0; i < count; i++)
        if (label[i] < 0 || label[i] >= classes) return SMASK_RANGE;
    return SMASK_OK;
}

smask_result evaluation_knn(const smask_parallel *hook, const float *bank,
    const int32_t *bank_label, size_t bank_count, const float *query,
    size_t query_count, size_t width, int32_t classes, int32_t k,
    float temperature, int32_t *guess)
{
    knn_job job;
    smask_result result;

    if (bank_count < 1 || bank_count > INT32_MAX || query_count < 1
        || width < 1 || classes < 1 || k < 1 || !(temperature > 0))
        return SMASK_ARG;
    result = check_labels(bank_label, bank_count, classes);
    if (result != SMASK_OK) return result;
    memset(&job, 0, sizeof job);
    job.bank = bank;
    job.bank_label = bank_label;
    job.bank_count = bank_count;
    job.query = query;
    job.query_count = query_count;
    job.width = width;
    job.classes = classes;
    job.k = (size_t)k < bank_count ? k : (int32_t)bank_count;
    job.temperature = temperature;
    job.guess = guess;
    job.hook = hook;
    return in_own_context(hook, knn_work, &job);
}

/* --------------------------------------------------------------- probe
   minimise  mean cross-entropy(softmax(W x + b)) + decay / 2 |W|^2

   The problem is convex and has one minimum, so the result does not depend
   on a learning rate or on luck; L-BFGS [Nocedal 1980] finds it in some
   tens of passes. The loss and its gradient come from the library's own head
   op; the few thousand unknowns are kept in double. */

#define PROBE_MEMORY 10              /* pairs that L-BFGS remembers        */
#define PROBE_PASSES 500             /* most iterations of one fit         */
#define PROBE_SLOPE 1e-5             /* converged: no gradient larger         */
#define PROBE_SEARCH 1e-4            /* enough to compare decays by        */

static const double probe_decays[] = { 1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5 };
#define PROBE_DECAYS ((int)(sizeof probe_decays / sizeof probe_decays[0]))

typedef struct probe_job {
    const float *x;                  /* (count, width), standardised       */
    const int32_t *label;
    size_t count, fit_count, width;  /* fit on the first, hold out the rest*/
    int32_t classes;
    double decay;                    /* the one to use; < 0: choose        */
    const float *test;               /* standardised; NULL: none           */
    size_t test_count;
    int32_t *guess, *test_label;
    evaluation_probe found;
    /* At work. */
    smask_tensor *w, *b;
    double *at, *gradient, *next, *next_slope, *direction;
    double *steps, *changes;         /* (PROBE_MEMORY, unknowns) each      */
} probe_job;

static size_t probe_unknowns(const probe_job *job)
{
    return (size_t)job->classes * (job->width + 1);
}

static void set_weights(const probe_job *job, const double *at)
{
    const size_t weights = (size_t)job->classes * job->width;
    size_t i;

    for (i = 0; i < weights; i++) job->w->x[i] = (float)at[i];
    for (i = 0; i < (size_t)job->classes; i++)
        job->b->x[i] = (float)at[weights + i];
}

/* The head on rows first .. first + count - 1, recorded on the tape. */
static smask_tensor *head_loss(smask_ctx *c, const probe_job *job,
    const float *x, const int32_t *label, size_t count, int32_t *guess,
    int32_t *hits)
{
    smask_tensor *rows = smask_input(c, x, (int32_t)count,
        (int32_t)job->width, 0, 0);

    return smask_linear_cross_entropy(c, rows, job->w, job->b, label, guess,
        hits);
}

/* The function that L-BFGS descends, and its gradient. */
static double objective(smask_ctx *c, probe_job *job, size_t count,
    double decay, const double *at, double *gradient)
{
    const size_t weights = (size_t)job->classes * job->width;
    smask_tensor *loss;
    double value = 0;
    size_t i;

    if (!smask_is_dry(c)) {
        set_weights(job, at);
        memset(job->w->dx, 0, weights * sizeof(float));
        memset(job->b->dx, 0, (size_t)job->classes * sizeof(float));
    }
    smask_begin_step(c);
    loss = head_loss(c, job, job->x, job->label, count, NULL, NULL);
    smask_backward(c, loss);
    if (loss != NULL && loss->x != NULL) value = loss->x[0];
    smask_end_step(c);
    if (smask_is_dry(c) || smask_error(c) != SMASK_OK) return 0;
    for (i = 0; i < weights; i++) {
        value += 0.5 * decay * at[i] * at[i];
        gradient[i] = job->w->dx[i] + decay * at[i];
    }
    for (i = 0; i < (size_t)job->classes; i++)
        gradient[weights + i] = job->b->dx[i];
    return value;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    size_t i;

    for (i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static double largest(const double *a, size_t n)
{
    double most = 0;
    size_t i;

    for (i = 0; i < n; i++) if (fabs(a[i]) > most) most = fabs(a[i]);
    return most;
}

/* direction = -H gradient, H the curvature that the remembered pairs show.
   Pair number i, counted from the start, lives in place i % PROBE_MEMORY. */
static void quasi_newton(probe_job *job, int pairs)
{
    const size_t n = probe_unknowns(job);
    const int oldest = pairs > PROBE_MEMORY ? pairs - PROBE_MEMORY : 0;
    double alpha[PROBE_MEMORY], scale;
    size_t i;
    int p;

    for (i = 0; i < n; i++) job->direction[i] = -job->gradient[i];
    for (p = pairs - 1; p >= oldest; p--) {
        const double *s = job->steps + (size_t)(p % PROBE_MEMORY) * n;
        const double *y = job->changes + (size_t)(p % PROBE_MEMORY) * n;
        const double a = dot(s, job->direction, n) / dot(s, y, n);
        alpha[p % PROBE_MEMORY] = a;
        for (i = 0; i < n; i++) job->direction[i] -= a * y[i];
    }
    if (pairs > 0) {
        const size_t last = (size_t)((pairs - 1) % PROBE_MEMORY) * n;
        const double *s = job->steps + last, *y = job->changes + last;
        scale = dot(s, y, n) / dot(y, y, n);
    } else {
        scale = 1 / (1 + sqrt(dot(job->gradient, job->gradient, n)));
    }
    for (i = 0; i < n; i++) job->direction[i] *= scale;
    for (p = oldest; p < pairs; p++) {
        const double *s = job->steps + (size_t)(p % PROBE_MEMORY) * n;
        const double *y = job->changes + (size_t)(p % PROBE_MEMORY) * n;
        const double a = alpha[p % PROBE_MEMORY]
            - dot(y, job->direction, n) / dot(s, y, n);
        for (i = 0; i < n; i++) job->direction[i] += a * s[i];
    }
}

/* Remember the last step and the change of gradient it brought; a pair that
   shows no curvature (rounding, at the very bottom) is not kept. */
static int remember(probe_job *job, int pairs)
{
    const size_t n = probe_unknowns(job);
    double *s = job->steps + (size_t)(pairs % PROBE_MEMORY) * n;
    double *y = job->changes + (size_t)(pairs % PROBE_MEMORY) * n;
    double sy;
    size_t i;

    for (i = 0; i < n; i++) {
        s[i] = job->next[i] - job->at[i];
        y[i] = job->next_slope[i] - job->gradient[i];
    }
    sy = dot(s, y, n);
    return sy > 1e-12 * dot(y, y, n) ? pairs + 1 : pairs;
}

/* Descend from job->at to the minimum. Ends when no gradient is larger than
   `flat`, or when float rounding of the loss hides any further descent. */
static void fit(smask_ctx *c, probe_job *job, size_t count, double decay,
    double flat)
{
    const size_t n = probe_unknowns(job);
    const double noise = 1e-7;       /* relative rounding of the loss      */
    double value, next_value, length, descent;
    int pass, halving, pairs = 0;
    size_t i;

    value = objective(c, job, count, decay, job->at, job->gradient);
    if (smask_is_dry(c)) return;
    for (pass = 0; pass < PROBE_PASSES; pass++) {
        if (largest(job->gradient, n) < flat) return;
        quasi_newton(job, pairs);
        descent = dot(job->direction, job->gradient, n);
        if (!(descent < 0)) {
            if (pairs == 0) return;
            pairs = 0;               /* stale curvature: start afresh      */
            continue;
        }
        next_value = value;
        for (length = 1, halving = 0; halving < 20; halving++) {
            for (i = 0; i < n; i++)
                job->next[i] = job->at[i] + length * job->direction[i];
            next_value = objective(c, job, count, decay, job->next,
                job->next_slope);
            if (smask_error(c) != SMASK_OK) return;
            if (next_value <= value + 1e-4 * length * descent) break;
            if (-length * descent < noise * value) return;
            length *= 0.5;
        }
        if (halving == 20) return;
        job->found.iterations++;
        pairs = remember(job, pairs);
        memcpy(job->at, job->next, n * sizeof(double));
        memcpy(job->gradient, job->next_slope, n * sizeof(double));
        value = next_value;
    }
}

/* Right guesses of the present weights, without recording. */
static int32_t hits_of(smask_ctx *c, probe_job *job, const float *x,
    const int32_t *label, size_t count, int32_t *guess)
{
    int32_t hits = 0;

    if (count == 0) return 0;
    if (!smask_is_dry(c)) set_weights(job, job->at);
    smask_begin_step(c);
    smask_record(c, 0);
    head_loss(c, job, x, label, count, guess, &hits);
    smask_record(c, 1);
    smask_end_step(c);
    return hits;
}

/* From strong decay to weak, each fit starting where the last one ended.
   Two weaker decays in a row without a better score end the search: weak
   decays are the slow fits. */
static void choose_decay(smask_ctx *c, probe_job *job)
{
    const size_t held = job->count - job->fit_count;
    int32_t hits, most = -1;
    int i, worse = 0;

    for (i = 0; i < PROBE_DECAYS && worse < 2; i++) {
        fit(c, job, job->fit_count, probe_decays[i], PROBE_SEARCH);
        hits = hits_of(c, job, job->x + job->fit_count * job->width,
            job->label + job->fit_count, held, NULL);
        if (smask_is_dry(c) || smask_error(c) != SMASK_OK) return;
        if (hits > most) {
            most = hits;
            worse = 0;
            job->found.weight_decay = probe_decays[i];
            job->found.held_accuracy = (double)hits / (double)held;
        } else {
            worse++;
        }
    }
}

static smask_result probe_work(smask_ctx *c, void *user)
{
    probe_job *job = (probe_job *)user;
    const size_t n = probe_unknowns(job), bytes = n * sizeof(double);

    job->w = smask_parameter(c, job->classes, (int32_t)job->width, 0, 0);
    job->b = smask_parameter(c, job->classes, 0, 0, 0);
    job->at = (double *)smask_alloc(c, bytes);
    job->gradient = (double *)smask_alloc(c, bytes);
    job->next = (double *)smask_alloc(c, bytes);
    job->next_slope = (double *)smask_alloc(c, bytes);
    job->direction = (double *)smask_alloc(c, bytes);
    job->steps = (double *)smask_alloc(c, PROBE_MEMORY * bytes);
    job->changes = (double *)smask_alloc(c, PROBE_MEMORY * bytes);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (job->decay < 0) {
        choose_decay(c, job);
    } else {
        fit(c, job, job->count, job->decay, PROBE_SLOPE);
        hits_of(c, job, job->test, job->test_label, job->test_count,
            job->guess);
    }
    return smask_error(c);
}

/* Order the rows: of each class, in an order drawn from the seed, the last
   fifth goes to the end of the list. Returns the number kept for fitting.
   With too few images to hold any out, all are kept. */
static size_t hold_out(const int32_t *label, size_t count, int32_t classes,
    uint64_t seed, int32_t *order)
{
    smask_random random;
    int32_t *seen, *shuffled, *total;
    size_t i, kept = 0, held = count;

    seen = (int32_t *)calloc(2 * (size_t)classes + count, sizeof(int32_t));
    if (seen == NULL) return 0;
    total = seen + classes;
    shuffled = total + classes;
    for (i = 0; i < count; i++) {
        shuffled[i] = (int32_t)i;
        total[label[i]]++;
    }
    smask_seed(&random, seed, 5);
    smask_shuffle(&random, shuffled, (int32_t)count);
    for (i = 0; i < count; i++) {
        const int32_t at = shuffled[i], class_at = label[at];
        if (seen[class_at]++ < total[class_at] - total[class_at] / 5)
            order[kept++] = at;
        else
            order[--held] = at;
    }
    free(seen);
    return kept;
}

/* Mean and 1 / deviation of each feature; a feature that does not vary
   is worth nothing and gets factor 0. Returns 0 if one is not finite. */
static int measure(const float *x, size_t count, size_t width, double *mean,
    double *factor)
{
    size_t i, j;

    memset(mean, 0, width * sizeof(double));
    memset(factor, 0, width * sizeof(double));
    for (i = 0; i < count; i++)
        for (j = 0; j < width; j++) mean[j] += x[i * width + j];
    for (j = 0; j < width; j++) mean[j] /= (double)count;
    for (i = 0; i < count; i++)
        for (j = 0; j < width; j++) {
            const double d = x[i * width + j] - mean[j];
            factor[j] += d * d;
        }
    for (j = 0; j < width; j++) {
        const double variance = factor[j] / (double)count;
        if (!(variance < HUGE_VAL)) return 0;
        factor[j] = variance > 1e-12 * (1 + mean[j] * mean[j])
            ? 1 / sqrt(variance) : 0;
    }
    return 1;
}

static void standardise(const float *x, const int32_t *order, size_t count,
    size_t width, const double *mean, const double *factor, float *out)
{
    size_t i, j;

    for (i = 0; i < count; i++) {
        const float *row = x
            + (order != NULL ? (size_t)order[i] : i) * width;
        for (j = 0; j < width; j++)
            out[i * width + j] = (float)((row[j] - mean[j]) * factor[j]);
    }
}

static smask_result check_probe(const int32_t *label, size_t count,
    size_t width, int32_t classes)
{
    if (count < 1 || count > INT32_MAX || width < 1 || width > INT32_MAX
        || classes < 1)
        return SMASK_ARG;
    return check_labels(label, count, classes);
}

smask_result evaluation_probe_choose(const smask_parallel *hook,
    const float *x, const int32_t *label, size_t count, size_t width,
    int32_t classes, uint64_t seed, evaluation_probe *out)
{
    probe_job job;
    smask_result result = check_probe(label, count, width, classes);
    double *mean;
    float *rows;
    int32_t *order, *ordered;
    size_t i;

    memset(out, 0, sizeof *out);
    if (result != SMASK_OK) return result;
    memset(&job, 0, sizeof job);
    mean = (double *)malloc(2 * width * sizeof(double));
    rows = (float *)malloc(count * width * sizeof(float));
    order = (int32_t *)malloc(2 * count * sizeof(int32_t));
    if (mean == NULL || rows == NULL || order == NULL) {
        result = SMASK_MEMORY;
    } else if (!measure(x, count, width, mean, mean + width)) {
        result = SMASK_NUMERIC;
    } else {
        ordered = order + count;
        job.fit_count = hold_out(label, count, classes, seed, order);
        for (i = 0; i < count; i++) ordered[i] = label[order[i]];
        standardise(x, order, count, width, mean, mean + width, rows);
        job.x = rows;
        job.label = ordered;
        job.count = count;
        job.width = width;
        job.classes = classes;
        job.decay = -1;
        if (job.fit_count == 0) {
            result = SMASK_MEMORY;
        } else if (job.fit_count == count) {
            /* Nothing to choose by: a middling decay, and no score. */
            job.found.weight_decay = 1e-2;
        } else {
            result = in_own_context(hook, probe_work, &job);
        }
        *out = job.found;
        out->held_count = count - job.fit_count;
    }
    free(order);
    free(rows);
    free(mean);
    return result;
}

smask_result evaluation_probe_test(const smask_parallel *hook,
    const float *x, const int32_t *label, size_t count, const float *test,
    size_t test_count, size_t width, int32_t classes, double weight_decay,
    int32_t *guess)
{
    probe_job job;
    smask_result result = check_probe(label, count, width, classes);
    double *mean;
    float *rows;
    int32_t *no_label;

    if (result == SMASK_OK && (test_count < 1 || test_count > INT32_MAX
        || !(weight_decay >= 0)))
        result = SMASK_ARG;
    if (result != SMASK_OK) return result;
    memset(&job, 0, sizeof job);
    mean = (double *)malloc(2 * width * sizeof(double));
    rows = (float *)malloc((count + test_count) * width * sizeof(float));
    /* The head op wants labels; the test's own never come near the fit. */
    no_label = (int32_t *)calloc(test_count, sizeof(int32_t));
    if (mean == NULL || rows == NULL || no_label == NULL) {
        result = SMASK_MEMORY;
    } else if (!measure(x, count, width, mean, mean + width)) {
        result = SMASK_NUMERIC;
    } else {
        standardise(x, NULL, count, width, mean, mean + width, rows);
        standardise(test, NULL, test_count, width, mean, mean + width,
            rows + count * width);
        job.x = rows;
        job.label = label;
        job.count = count;
        job.fit_count = count;
        job.width = width;
        job.classes = classes;
        job.decay = weight_decay;
        job.test = rows + count * width;
        job.test_count = test_count;
        job.test_label = no_label;
        job.guess = guess;
        result = in_own_context(hook, probe_work, &job);
    }
    free(no_label);
    free(rows);
    free(mean);
    return result;
}
