/* probe.c: the linear probe on frozen features. See evaluation.h. */
#include "evaluation.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------- probe
   minimise  mean cross-entropy(softmax(W x + b)) + decay / 2 |W|^2

   The problem is convex and has one minimum, so the result does not depend
   on a learning rate or on luck; L-BFGS [Nocedal 1980] finds it in some
   tens of passes. The loss and its gradient come from the library's own head
   op; the few thousand unknowns are kept in double. */

#define PROBE_MEMORY 10              /* pairs that L-BFGS remembers        */
#define PROBE_PASSES 500             /* most iterations of one fit         */
#define PROBE_GRADIENT 1e-5          /* converged: no gradient larger         */
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
    double *at, *gradient, *next, *next_gradient, *direction;
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
        y[i] = job->next_gradient[i] - job->gradient[i];
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
                job->next_gradient);
            if (smask_error(c) != SMASK_OK) return;
            if (next_value <= value + 1e-4 * length * descent) break;
            if (-length * descent < noise * value) return;
            length *= 0.5;
        }
        if (halving == 20) return;
        job->found.iterations++;
        pairs = remember(job, pairs);
        memcpy(job->at, job->next, n * sizeof(double));
        memcpy(job->gradient, job->next_gradient, n * sizeof(double));
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
    job->next_gradient = (double *)smask_alloc(c, bytes);
    job->direction = (double *)smask_alloc(c, bytes);
    job->steps = (double *)smask_alloc(c, PROBE_MEMORY * bytes);
    job->changes = (double *)smask_alloc(c, PROBE_MEMORY * bytes);
    if (smask_error(c) != SMASK_OK) return smask_error(c);
    if (job->decay < 0) {
        choose_decay(c, job);
    } else {
        fit(c, job, job->count, job->decay, PROBE_GRADIENT);
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
    return evaluation_check_labels(label, count, classes);
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
            result = evaluation_alone(hook, probe_work, &job);
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
        result = evaluation_alone(hook, probe_work, &job);
    }
    free(no_label);
    free(rows);
    free(mean);
    return result;
}
