/* parts.c: what a step does besides the network: the commands tokenizer and
   adam. See bench.h. */
#include "bench.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double tokenizer_seconds(smask_ctx *c, const model *m, int repeat)
{
    const size_t side = (size_t)(m->o->image / m->o->patch);
    int32_t *ids = (int32_t *)allocate((size_t)m->o->batch * side * side
        * sizeof *ids);
    samples s;
    int i;

    s.count = 0;
    for (i = -1; i < repeat; i++) {  /* the first warms the caches         */
        double start;

        smask_begin_step(c);
        start = seconds_now();
        smask_tokenize(c, &m->tokenizer, m->images, m->o->batch, ids);
        if (i >= 0) sample_add(&s, seconds_now() - start);
        smask_end_step(c);
    }
    must(c, smask_error(c), "visual tokens");
    free(ids);
    return sample_median(&s);
}

double adam_seconds(smask_ctx *c, model *m, int repeat)
{
    const smask_params *p = &m->vit.params;
    samples s;
    size_t k;
    int i, j;

    s.count = 0;
    for (i = -1; i < repeat; i++) {
        double start;

        /* the update sets gradients to 0, and zeros lead to denormals */
        if (!smask_is_dry(c))
            for (j = 0; j < p->count; j++)
                for (k = 0; k < smask_count(p->item[j].t); k++)
                    p->item[j].t->dx[k] = 0.01f;
        smask_begin_step(c);
        start = seconds_now();
        smask_adam_update(c, &m->adam, p);
        if (i >= 0) sample_add(&s, seconds_now() - start);
        smask_end_step(c);
    }
    must(c, smask_error(c), "AdamW");
    return sample_median(&s);
}

/* -------------------------------------------------------------- k-means */

typedef struct kmeans {
    smask_tokenizer t;
    const float *patches;
    progress line;
} kmeans;

enum { KMEANS_PATCHES = 200000, KMEANS_WIDTH = 4 * 4 * 3,
    KMEANS_CODES = 1024, KMEANS_ROUNDS = 20 };

static int show_kmeans(void *user, int done, int total, double distance)
{
    (void)total;
    (void)distance;
    progress_at(&((kmeans *)user)->line, done);
    return 1;
}

static smask_result kmeans_work(smask_ctx *c, void *user)
{
    kmeans *k = (kmeans *)user;
    smask_tokenizer_desc d;

    memset(&d, 0, sizeof d);
    d.kind = SMASK_TOKENS_KMEANS;
    d.image = 32;
    d.patch = 4;
    d.vocabulary = KMEANS_CODES;
    smask_tokenizer_init(c, &k->t, &d);
    return smask_tokenizer_fit(c, &k->t, k->patches, KMEANS_PATCHES,
        KMEANS_ROUNDS, smask_is_dry(c) ? NULL : show_kmeans, k);
}

static void run_kmeans(const bench *b)
{
    smask_ctx c;
    smask_sizes sizes;
    kmeans k;
    double seconds;

    memset(&k, 0, sizeof k);
    k.patches = random_floats((size_t)KMEANS_PATCHES * KMEANS_WIDTH,
        b->o.seed);
    bench_context(b, &c, 1, kmeans_work, &k, &sizes);
    progress_start(&k.line, "k-means", KMEANS_ROUNDS);
    seconds = seconds_now();
    must(&c, kmeans_work(&c, &k), "k-means");
    seconds = seconds_now() - seconds;
    progress_end(&k.line);
    figure("kmeans_s", seconds);
    figure("kmeans_gflops", 2e-9 * KMEANS_ROUNDS * KMEANS_PATCHES
        * KMEANS_WIDTH * KMEANS_CODES / seconds);
    figure("kmeans_mb", (double)sizes.bytes / 1e6);
    smask_shutdown(&c);
    free((void *)k.patches);
}

/* ------------------------------------------------------------- commands */

void run_tokenizer(bench *b)
{
    const options *o = &b->o;
    double tokens, step, flops;
    smask_ctx c;
    smask_sizes sizes;
    model m;

    model_describe(o);
    model_open(b, &c, &m, o, &sizes);
    tokens = tokenizer_seconds(&c, &m, o->repeat);
    step = model_seconds(b, &c, &m, o->steps);
    flops = 2.0 * o->batch * (double)smask_tokenizer_rows(&m.tokenizer)
        * m.tokenizer.width * o->vocab;
    figure("tokenize_ms", 1e3 * tokens);
    figure("tokenize_gflops", 1e-9 * flops / tokens);
    figure("step_ms", 1e3 * step);
    figure("tokenizer_share", tokens / step);
    figure("peak_gflops", peak_median(b));
    model_close(&c, &m);
    run_kmeans(b);
}

void run_adam(bench *b)
{
    double seconds, count;
    smask_ctx c;
    smask_sizes sizes;
    model m;

    model_describe(&b->o);
    model_open(b, &c, &m, &b->o, &sizes);
    count = (double)smask_params_count(&m.vit.params);
    seconds = adam_seconds(&c, &m, b->o.repeat);
    figure("parameters", count);
    figure("ms", 1e3 * seconds);
    /* It reads weight, gradient and two moments and writes all four back;
       the norm for clipping reads the gradient once more. */
    figure("gb_per_s", 36e-9 * count / seconds);
    model_close(&c, &m);
}
