/* evaluation.c: frozen features, their nearest neighbours. See evaluation.h. */
#include "evaluation.h"
#include "support.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

smask_result evaluation_alone(const smask_parallel *hook,
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

smask_result evaluation_check_labels(const int32_t *label, size_t count,
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
    result = evaluation_check_labels(bank_label, bank_count, classes);
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
    return evaluation_alone(hook, knn_work, &job);
}
