/* test_tokenizers.c: chapter 9. Tokens against a reference in double, the three
   codebooks and the properties of each, k-means, the same bits for any number
   of workers, the exact plan, and errors. */
#define SPLITMASK_THREADS
#include "splitmask.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIXELS (3 * 32 * 32)
#define ROWS 64                          /* patches of an image            */
#define WIDTH 48                         /* floats of a patch              */
#define MANY 4000                        /* patches to learn from          */

static float images[100 * PIXELS];
static float patches[MANY * WIDTH];
static int32_t ids[100 * ROWS], more_ids[100 * ROWS];

static void fill(float *x, size_t count, uint64_t seed)
{
    smask_random r;
    size_t i;

    smask_seed(&r, seed, 9);
    for (i = 0; i < count; i++) x[i] = smask_normal(&r);
}

static double dot(const float *x, const float *y, size_t d)
{
    double sum = 0;
    size_t k;

    for (k = 0; k < d; k++) sum += (double)x[k] * (double)y[k];
    return sum;
}

static double distance(const float *x, const float *y, size_t d)
{
    double sum = 0;
    size_t k;

    for (k = 0; k < d; k++)
        sum += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
    return sum;
}

static size_t vocabulary(const smask_tokenizer *t)
{
    return (size_t)t->desc.vocabulary;
}

static const float *vector_of(const smask_tokenizer *t, size_t i)
{
    return t->codebook + i * (size_t)t->width;
}

/* The number of codebook vectors whose length is not 1. */
static int not_unit(const smask_tokenizer *t)
{
    size_t i;
    int count = 0;

    for (i = 0; i < vocabulary(t); i++)
        count += !(fabs(dot(vector_of(t, i), vector_of(t, i),
                (size_t)t->width) - 1)
            < 1e-6);
    return count;
}

/* The number of rows whose codebook vector is worse than the best by more
   than rounding explains: only a tie may go either way. */
static int wrong_ids(const smask_tokenizer *t, const float *rows,
    size_t count, const int32_t *id)
{
    const size_t d = (size_t)t->width, V = vocabulary(t);
    int wrong = 0;
    size_t i, v;

    for (i = 0; i < count; i++) {
        const float *x = rows + i * d;
        double best = -1e300, got = -1e300, size = sqrt(dot(x, x, d));
        for (v = 0; v < V; v++) {
            const float *e = vector_of(t, v);
            const double score = dot(x, e, d)
                - (t->desc.euclidean ? 0.5 * dot(e, e, d) : 0);
            if (score > best) best = score;
            if ((size_t)id[i] == v) got = score;
            if (t->desc.euclidean) size += 1e-3 * dot(e, e, d);
        }
        wrong += !(got >= best - 4e-6 * (size + 1e-6));
    }
    return wrong;
}

/* ---------------------------------------------------------------- setup */

static void defaults(void)
{
    smask_tokenizer t;
    smask_ctx c;

    smask_setup(&c, NULL);
    SAME(smask_tokenizer_init(&c, &t, NULL), SMASK_OK);
    SAME(t.desc.image, 32);
    SAME(t.desc.patch, 4);
    SAME(t.desc.channels, 3);
    SAME(t.desc.vocabulary, 1024);
    SAME(t.width, WIDTH);
    SAME(smask_tokenizer_rows(&t), ROWS);
    CHECK(t.codebook != NULL && t.offset == NULL);
    smask_shutdown(&c);
}

/* The sizes come from the model, all else is the default, and the pair trains:
   the objective refuses a tokenizer whose sizes differ. */
static void desc_of_a_model(void)
{
    smask_vit_desc model;
    smask_tokenizer_desc got, right;
    smask_tokenizer t;
    smask_vit v;
    smask_ctx c;

    fill(images, 2 * 2 * 24 * 24, 1);
    memset(&model, 0, sizeof model);
    model.image = 24;
    model.patch = 6;
    model.channels = 2;
    model.dim = 16;
    model.depth = model.heads = model.decoder_depth = 1;
    model.vocabulary = 40;
    smask_setup(&c, NULL);
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    memset(&right, 0, sizeof right);
    right.image = 24;
    right.patch = 6;
    right.channels = 2;
    right.vocabulary = 40;
    got = smask_tokenizer_desc_for(&v);
    CHECK(memcmp(&got, &right, sizeof right) == 0);
    SAME(smask_tokenizer_init(&c, &t, &got), SMASK_OK);
    SAME(smask_tokenizer_rows(&t), v.tokens);
    smask_begin_step(&c);
    CHECK(smask_splitmask_loss(&c, &v, &t, NULL, images, 2, NULL) != NULL);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
    /* Defaults that the model filled in are sizes of the model, too. */
    smask_setup(&c, NULL);
    SAME(smask_vit_init(&c, &v, NULL), SMASK_OK);
    got = smask_tokenizer_desc_for(&v);
    SAME(got.image, 32);
    SAME(got.patch, 4);
    SAME(got.channels, 3);
    SAME(got.vocabulary, v.desc.vocabulary);
    smask_shutdown(&c);
}

static void refuse(smask_ctx *c, smask_result got, smask_result right)
{
    SAME(got, right);
    SAME(smask_error(c), right);
#ifndef SPLITMASK_NO_TEXT
    CHECK(smask_detail(c)[0] != '\0');
#endif
    smask_clear(c);
}

static void init_errors(void)
{
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t;
    smask_ctx c;

    smask_setup(&c, NULL);
    d.image = 30;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    d.patch = 3;
    d.half_resolution = 1;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    d.half_resolution = 0;
    SAME(smask_tokenizer_init(&c, &t, &d), SMASK_OK);
    SAME(t.width, 27);
    d.vocabulary = -1;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    d.vocabulary = 0;
    d.channels = -1;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    d.channels = 2000000000;
    d.image = d.patch = 2000000000;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    memset(&d, 0, sizeof d);
    d.kind = (smask_token_kind)9;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    d.kind = SMASK_TOKENS_PROJECTION;
    smask_begin_step(&c);
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_STATE);
    smask_end_step(&c);
    d.vocabulary = 1 << 24;
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_MEMORY);
    d.vocabulary = 2000000000;           /* more than a file may hold      */
    refuse(&c, smask_tokenizer_init(&c, &t, &d), SMASK_ARG);
    smask_shutdown(&c);
}

/* ----------------------------------------------------------- projection */

static void projection(void)
{
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t, again;
    smask_ctx c, e;
    double mean = 0, least = 1;
    size_t i, count = 2000 * WIDTH;

    d.vocabulary = 2000;
    smask_setup(&c, NULL);
    smask_setup(&e, NULL);
    smask_tokenizer_init(&c, &t, &d);
    smask_tokenizer_init(&e, &again, &d);
    SAME(not_unit(&t), 0);
    CHECK(memcmp(t.codebook, again.codebook, count * sizeof(float)) == 0);
    for (i = 0; i < count; i++) mean += (double)t.codebook[i];
    NEAR(mean / (double)count, 0, 5 / sqrt((double)count * WIDTH));
    d.uniform01 = 1;                     /* all of them in one corner      */
    smask_tokenizer_init(&c, &t, &d);
    SAME(not_unit(&t), 0);
    for (mean = 0, i = 0; i < count; i++) {
        mean += (double)t.codebook[i];
        if ((double)t.codebook[i] < least) least = (double)t.codebook[i];
    }
    CHECK(least >= 0);
    NEAR(mean / (double)count, sqrt(0.75 / WIDTH), 0.002);
    SAME(smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL),
        SMASK_OK);                       /* nothing to learn, no error     */
    smask_shutdown(&c);
    smask_shutdown(&e);
}

/* Every instruction set, odd sizes, more images than one chunk holds. */
static void tokens_against_double(void)
{
    static const int32_t size[][5] = {   /* image patch channels V B       */
        { 32, 4, 3, 1, 3 }, { 32, 4, 3, 7, 5 }, { 32, 4, 3, 1024, 9 },
        { 32, 4, 3, 130, 100 }, { 15, 3, 1, 33, 11 }, { 9, 1, 1, 5, 2 },
        { 32, 16, 3, 257, 3 }, { 32, 32, 3, 40, 1 }, { 32, 8, 3, 3000, 2 } };
    static float rows[100 * PIXELS];
    int isa;
    size_t i;

    fill(images, sizeof images / sizeof *images, 1);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++)
        for (i = 0; i < sizeof size / sizeof *size; i++) {
            smask_tokenizer_desc d = { 0 };
            smask_desc desc = { 0 };
            smask_tokenizer t;
            smask_ctx c;
            size_t count;
            desc.isa = (smask_isa)isa;
            if (smask_setup(&c, &desc) != SMASK_OK) {
                smask_shutdown(&c);
                continue;                /* not on this machine            */
            }
            d.image = size[i][0];
            d.patch = size[i][1];
            d.channels = size[i][2];
            d.vocabulary = size[i][3];
            SAME(smask_tokenizer_init(&c, &t, &d), SMASK_OK);
            count = (size_t)(size[i][4] * smask_tokenizer_rows(&t));
            smask_tokenizer_patches(&t, images, (size_t)size[i][4], rows);
            memset(more_ids, 99, sizeof more_ids);
            SAME(smask_tokenize(&c, &t, images, size[i][4], more_ids),
                SMASK_OK);
            SAME(wrong_ids(&t, rows, count, more_ids), 0);
            CHECK(count == 6400 || more_ids[count] == 0x63636363);
            smask_shutdown(&c);
        }
}

/* An image's tokens do not depend on the other images of its batch. */
static void batch_or_alone(void)
{
    smask_tokenizer t;
    smask_ctx c;
    int b;

    fill(images, sizeof images / sizeof *images, 2);
    smask_setup(&c, NULL);
    smask_tokenizer_init(&c, &t, NULL);
    smask_tokenize(&c, &t, images, 100, ids);
    for (b = 0; b < 100; b++)
        smask_tokenize(&c, &t, images + b * PIXELS, 1, more_ids + b * ROWS);
    SAME(smask_error(&c), SMASK_OK);
    CHECK(memcmp(ids, more_ids, sizeof ids) == 0);
    smask_shutdown(&c);
}

/* ------------------------------------------------------------- switches */

static void half_switch(void)
{
    static float rows[2 * PIXELS], small[2 * PIXELS], right[2 * PIXELS];
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t;
    smask_ctx c;
    size_t i, wrong = 0;

    fill(images, 2 * PIXELS, 3);
    smask_setup(&c, NULL);
    d.patch = 8;
    d.half_resolution = 1;
    SAME(smask_tokenizer_init(&c, &t, &d), SMASK_OK);
    SAME(t.width, 3 * 4 * 4);
    SAME(smask_tokenizer_rows(&t), 16);
    smask_tokenizer_patches(&t, images, 2, rows);
    for (i = 0; i < 2 * PIXELS / 4; i++) {           /* means of 2 x 2     */
        const float *a = images + i / 16 * 64 + i % 16 * 2;
        small[i] = 0.25f * (a[0] + a[1] + a[32] + a[33]);
    }
    smask_patches(small, 2, 3, 16, 4, right);
    for (i = 0; i < 2 * PIXELS / 4; i++)
        wrong += !(fabsf(rows[i] - right[i]) < 1e-6f);
    SAME(wrong, 0);
    SAME(smask_tokenize(&c, &t, images, 2, ids), SMASK_OK);
    SAME(wrong_ids(&t, right, 32, ids), 0);
    smask_shutdown(&c);
}

/* Flat patches become exactly 0 at any level; all others keep their
   shape. */
static void centre_switch(void)
{
    static float rows[PIXELS], plain[PIXELS];
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t, without;
    smask_ctx c;
    size_t i, k;

    fill(images, PIXELS, 4);
    for (i = 0; i < 3; i++)              /* the first patch, flat          */
        for (k = 0; k < 16; k++)
            images[i * 1024 + k / 4 * 32 + k % 4] = 0.3f;
    smask_setup(&c, NULL);
    smask_tokenizer_init(&c, &without, &d);
    d.centre = 1;
    smask_tokenizer_init(&c, &t, &d);
    smask_tokenizer_patches(&without, images, 1, plain);
    smask_tokenizer_patches(&t, images, 1, rows);
    for (k = 0; k < WIDTH; k++) CHECK(rows[k] == 0);
    for (i = 0; i < ROWS; i++) {
        double mean = 0, level = 0;
        for (k = 0; k < WIDTH; k++) {
            mean += (double)rows[i * WIDTH + k] / WIDTH;
            level += (double)plain[i * WIDTH + k] / WIDTH;
        }
        NEAR(mean, 0, 1e-6);
        for (k = 0; k < WIDTH; k++)
            NEAR(rows[i * WIDTH + k], (double)plain[i * WIDTH + k] - level,
                1e-6);
    }
    SAME(smask_tokenize(&c, &t, images, 1, ids), SMASK_OK);
    SAME(wrong_ids(&t, rows, ROWS, ids), 0);
    CHECK(ids[0] >= 0 && ids[0] < 1024);
    smask_shutdown(&c);
}

/* ------------------------------------------------- patches of the data */

/* Most patches are blank and many are copies; the codebook vectors
   still all differ, none is blank, and each has the direction of a patch. */
static void patches_kind(void)
{
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t;
    smask_ctx c;
    size_t i, v, w, duplicates = 0, strangers = 0;

    fill(patches, MANY * WIDTH, 5);
    for (i = 0; i < MANY; i++) {
        if (i % 10 != 0) memset(patches + i * WIDTH, 0,
            WIDTH * sizeof *patches);
        if (i % 20 == 0) memcpy(patches + i * WIDTH, patches + 10 * WIDTH,
            WIDTH * sizeof *patches);
    }
    smask_setup(&c, NULL);
    d.kind = SMASK_TOKENS_PATCHES;
    d.vocabulary = 200;                  /* 200 are there, and no more     */
    smask_tokenizer_init(&c, &t, &d);
    SAME(smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL),
        SMASK_OK);
    SAME(not_unit(&t), 0);
    for (v = 0; v < 200; v++) {
        double best = 0;
        for (w = 0; w < v; w++)
            duplicates += dot(vector_of(&t, v), vector_of(&t, w), WIDTH)
                > 0.999999;
        for (i = 0; i < MANY; i++) {
            const float *x = patches + i * WIDTH;
            const double size = sqrt(dot(x, x, WIDTH));
            const double cosine = size > 0
                ? dot(x, vector_of(&t, v), WIDTH) / size : 0;
            if (cosine > best) best = cosine;
        }
        strangers += best < 0.999999;
    }
    SAME(duplicates, 0);
    SAME(strangers, 0);
    d.vocabulary = 201;
    smask_tokenizer_init(&c, &t, &d);
    refuse(&c, smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL),
        SMASK_ARG);
    smask_shutdown(&c);
}

/* Over many draws each patch is taken equally often: V of count. */
static void patches_are_fair(void)
{
    enum { COUNT = 20, V = 5, DRAWS = 20000 };
    static int taken[COUNT];
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t;
    smask_ctx c;
    const double p = V / (double)COUNT;
    float x[COUNT * 4];
    int i, v, k;

    for (i = 0; i < COUNT; i++) {        /* each has its own direction     */
        x[4 * i] = cosf(0.3f * (float)i);
        x[4 * i + 1] = sinf(0.3f * (float)i);
        x[4 * i + 2] = x[4 * i + 3] = 0;
    }
    smask_setup(&c, NULL);
    d.kind = SMASK_TOKENS_PATCHES;
    d.image = d.patch = 2;
    d.channels = 1;
    d.vocabulary = V;
    smask_tokenizer_init(&c, &t, &d);
    for (k = 0; k < DRAWS; k++) {
        smask_tokenizer_fit(&c, &t, x, COUNT, 0, NULL, NULL);
        for (v = 0; v < V; v++)
            for (i = 0; i < COUNT; i++)
                taken[i] += distance(x + 4 * i, vector_of(&t, (size_t)v), 4)
                    < 1e-9;
    }
    SAME(smask_error(&c), SMASK_OK);
    for (i = 0; i < COUNT; i++)
        NEAR(taken[i] / (double)DRAWS, p, 5 * sqrt(p * (1 - p) / DRAWS));
    smask_shutdown(&c);
}

/* With L2, codebook vectors keep their length, and a patch that is one of
   them gets its id: nothing is nearer. With cosine a longer vector is as
   near. */
static void euclidean_switch(void)
{
    static float rows[4 * PIXELS];
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t, cosine;
    smask_ctx c;
    size_t i, v, wrong = 0, differ = 0;

    fill(images, 4 * PIXELS, 6);
    for (i = 0; i < 4 * PIXELS; i++)     /* of very unequal length         */
        images[i] *= 1 + 3 * (float)(i / 4 % 3);
    smask_setup(&c, NULL);
    d.kind = SMASK_TOKENS_PATCHES;
    d.vocabulary = 4 * ROWS;
    smask_tokenizer_init(&c, &cosine, &d);
    d.euclidean = 1;
    smask_tokenizer_init(&c, &t, &d);
    CHECK(t.offset != NULL);
    smask_tokenizer_patches(&t, images, 4, rows);
    SAME(smask_tokenizer_fit(&c, &t, rows, 4 * ROWS, 0, NULL, NULL),
        SMASK_OK);
    for (v = 0; v < 4 * ROWS; v++)
        NEAR(t.offset[v], -0.5 * dot(vector_of(&t, v), vector_of(&t, v), WIDTH),
            1e-4);
    SAME(smask_tokenize(&c, &t, images, 4, ids), SMASK_OK);
    for (i = 0; i < 4 * ROWS; i++)
        wrong += memcmp(vector_of(&t, (size_t)ids[i]), rows + i * WIDTH,
            WIDTH * sizeof *rows) != 0;
    SAME(wrong, 0);
    fill(images, 4 * PIXELS, 7);
    smask_tokenizer_patches(&t, images, 4, rows);
    smask_tokenize(&c, &t, images, 4, ids);
    SAME(wrong_ids(&t, rows, 4 * ROWS, ids), 0);
    smask_tokenizer_fit(&c, &cosine, rows, 4 * ROWS, 0, NULL, NULL);
    smask_tokenize(&c, &cosine, images, 4, more_ids);
    SAME(not_unit(&cosine), 0);
    for (i = 0; i < 4 * ROWS; i++) differ += ids[i] != more_ids[i];
    CHECK(differ > 0);
    d.kind = SMASK_TOKENS_PROJECTION;    /* directions have no length      */
    smask_tokenizer_init(&c, &t, &d);
    SAME(not_unit(&t), 0);
    NEAR(t.offset[17], -0.5, 1e-6);
    SAME(smask_tokenize(&c, &t, images, 4, ids), SMASK_OK);
    SAME(wrong_ids(&t, rows, 4 * ROWS, ids), 0);
    smask_shutdown(&c);
}

/* -------------------------------------------------------------- k-means */

static smask_tokenizer_desc kmeans_desc(int32_t V)
{
    smask_tokenizer_desc d = { 0 };

    d.kind = SMASK_TOKENS_KMEANS;
    d.euclidean = 1;                     /* so that the centres are seen   */
    d.vocabulary = V;
    return d;
}

/* The mean squared distance of patches to their codebook vectors. */
static double mean_distance(const smask_tokenizer *t, const float *x,
    size_t count)
{
    const size_t d = (size_t)t->width;
    double sum = 0;
    size_t i, v;

    for (i = 0; i < count; i++) {
        double best = 1e300;
        for (v = 0; v < vocabulary(t); v++) {
            const double r = distance(x + i * d, vector_of(t, v), d);
            if (r < best) best = r;
        }
        sum += best;
    }
    return sum / (double)count;
}

typedef struct watch {
    int calls, total, rises, stop_at;
    double last;
} watch;

static int watch_it(void *user, int done, int total, double distance_now)
{
    watch *w = (watch *)user;

    w->calls++;
    CHECK(done == w->calls);
    w->total = total;
    if (done > 1 && distance_now > w->last * (1 + 1e-9)) w->rises++;
    w->last = distance_now;
    return done != w->stop_at;
}

/* As many codebook vectors as different patches: each patch is one. */
static void kmeans_of_copies(void)
{
    smask_tokenizer_desc d = kmeans_desc(40);
    smask_tokenizer t;
    smask_ctx c;
    watch w = { 0, 0, 0, 0, 0 };
    size_t i, v, found = 0;

    fill(patches, 40 * WIDTH, 8);
    for (i = 40; i < MANY; i++)
        memcpy(patches + i * WIDTH, patches + i * 7 % 40 * WIDTH,
            WIDTH * sizeof *patches);
    smask_setup(&c, NULL);
    smask_tokenizer_init(&c, &t, &d);
    SAME(smask_tokenizer_fit(&c, &t, patches, MANY, 0, watch_it, &w),
        SMASK_OK);
    for (v = 0; v < 40; v++)
        for (i = 0; i < 40; i++)
            found += distance(vector_of(&t, v), patches + i * WIDTH, WIDTH)
                < 1e-9;
    SAME(found, 40);
    NEAR(w.last, 0, 1e-9);
    SAME(w.calls, 2);                    /* the second finds no change     */
    SAME(w.total, 20);
    smask_shutdown(&c);
}

/* Five clouds far apart. A start may put two vectors into one cloud, which
   Lloyd's iteration cannot undo; the best of twenty starts has one in each,
   and then each vector is the mean of its cloud. */
static void kmeans_finds_clouds(void)
{
    enum { CLOUDS = 5, EACH = MANY / CLOUDS };
    static float best[CLOUDS * WIDTH];
    static double mean[CLOUDS][WIDTH];
    smask_tokenizer_desc d = kmeans_desc(CLOUDS);
    double least = 1e300;
    smask_random r;
    smask_tokenizer t;
    smask_ctx c;
    size_t i, k, v;
    int start;

    smask_seed(&r, 9, 9);
    for (i = 0; i < MANY; i++)
        for (k = 0; k < WIDTH; k++) {
            const size_t cloud = i % CLOUDS;
            float *x = patches + i * WIDTH + k;
            *x = 20 * (float)(k % CLOUDS == cloud) + smask_normal(&r);
            mean[cloud][k] += (double)*x / EACH;
        }
    smask_setup(&c, NULL);
    for (start = 0; start < 20; start++) {
        double now;
        smask_tokenizer_init(&c, &t, &d);
        smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL);
        now = mean_distance(&t, patches, MANY);
        if (now < least) memcpy(best, t.codebook, sizeof best);
        if (now < least) least = now;
    }
    SAME(smask_error(&c), SMASK_OK);
    NEAR(least, WIDTH, 5 * sqrt(2.0 * WIDTH / MANY));
    for (i = 0; i < CLOUDS; i++) {
        size_t found = 0;
        for (v = 0; v < CLOUDS; v++) {
            double worst = 0;
            for (k = 0; k < WIDTH; k++) {
                const double gap = fabs((double)best[v * WIDTH + k]
                    - mean[i][k]);
                if (gap > worst) worst = gap;
            }
            found += worst < 1e-5;
        }
        SAME(found, 1);
    }
    smask_shutdown(&c);
}

/* Structureless data, where the iterations have most to do. */
static void kmeans_never_rises(void)
{
    smask_tokenizer_desc d = kmeans_desc(64);
    smask_tokenizer t;
    smask_ctx c;
    watch w = { 0, 0, 0, 0, 0 };
    double after_20;

    fill(patches, MANY * WIDTH, 10);
    smask_setup(&c, NULL);
    smask_tokenizer_init(&c, &t, &d);
    smask_tokenizer_fit(&c, &t, patches, MANY, 0, watch_it, &w);
    SAME(w.calls, 20);
    SAME(w.rises, 0);
    after_20 = mean_distance(&t, patches, MANY);
    CHECK(after_20 <= w.last);           /* the vectors moved once more    */
    NEAR(after_20, w.last, 0.01 * w.last);
    CHECK(w.last < 0.95 * WIDTH);        /* the mean alone would give 48   */

    memset(&w, 0, sizeof w);             /* until nothing changes          */
    smask_tokenizer_fit(&c, &t, patches, MANY, 1000, watch_it, &w);
    CHECK(w.calls > 20 && w.calls < 1000);
    SAME(w.rises, 0);
    NEAR(mean_distance(&t, patches, MANY), w.last, 1e-5 * w.last);

    memset(&w, 0, sizeof w);
    w.stop_at = 3;                       /* the caller stops it            */
    SAME(smask_tokenizer_fit(&c, &t, patches, MANY, 0, watch_it, &w),
        SMASK_OK);
    SAME(w.calls, 3);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* Few points in the plane, half as many codebook vectors: on the way some
   lose all their points. At the end every vector must be in use. */
static void kmeans_leaves_none_empty(void)
{
    enum { COUNT = 36, V = 18 };
    float x[COUNT * 4], *image = images;
    smask_tokenizer_desc d = kmeans_desc(V);
    smask_token_use s;
    smask_tokenizer t;
    smask_ctx c;
    int run, i, unused = 0, rises = 0;

    smask_setup(&c, NULL);
    d.image = d.patch = 2;
    d.channels = 1;
    smask_tokenizer_init(&c, &t, &d);
    for (run = 0; run < 3000; run++) {
        watch w = { 0, 0, 0, 0, 0 };
        fill(x, COUNT * 4, (uint64_t)run);
        for (i = 0; i < COUNT; i++) {    /* clumps, and some far away      */
            x[4 * i + 2] = x[4 * i + 3] = 0;
            if (i % 3 == 0) x[4 * i] *= 9;
        }
        memcpy(image, x, sizeof x);
        smask_tokenizer_fit(&c, &t, x, COUNT, 50, watch_it, &w);
        smask_tokenize(&c, &t, image, COUNT, ids);
        smask_token_stats(&c, ids, COUNT, V, NULL, &s);
        unused += s.used != V;
        rises += w.rises;
    }
    SAME(smask_error(&c), SMASK_OK);
    SAME(unused, 0);
    SAME(rises, 0);
    smask_shutdown(&c);
}

/* Half of all patches are blank: their centre has no direction, and must
   not become a row of NaN. */
static void kmeans_of_blanks(void)
{
    smask_tokenizer_desc d = kmeans_desc(32);
    smask_tokenizer t;
    smask_ctx c;
    size_t i, blank = 0, unit = 0;

    fill(patches, MANY * WIDTH, 11);
    for (i = 0; i < MANY; i += 2)
        memset(patches + i * WIDTH, 0, WIDTH * sizeof *patches);
    d.euclidean = 0;
    smask_setup(&c, NULL);
    smask_tokenizer_init(&c, &t, &d);
    SAME(smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL),
        SMASK_OK);
    for (i = 0; i < 32; i++) {
        const double square = dot(vector_of(&t, i), vector_of(&t, i), WIDTH);
        blank += square == 0;
        unit += fabs(square - 1) < 1e-6;
    }
    SAME(blank + unit, 32);
    CHECK(blank <= 1);
    memset(images, 0, PIXELS * sizeof *images);
    SAME(smask_tokenize(&c, &t, images, 1, ids), SMASK_OK);
    for (i = 0; i < ROWS; i++) CHECK(ids[i] >= 0 && ids[i] < 32);
    smask_shutdown(&c);
}

static void fit_errors(void)
{
    smask_tokenizer_desc d = kmeans_desc(MANY);
    smask_tokenizer t;
    smask_ctx c;

    fill(patches, MANY * WIDTH, 12);
    smask_setup(&c, NULL);
    smask_tokenizer_init(&c, &t, &d);
    refuse(&c, smask_tokenize(&c, &t, images, 1, ids), SMASK_STATE);
    refuse(&c, smask_tokenizer_fit(&c, &t, patches, MANY - 1, 0, NULL, NULL),
        SMASK_ARG);
    refuse(&c, smask_tokenizer_fit(&c, &t, NULL, MANY, 0, NULL, NULL),
        SMASK_ARG);
    refuse(&c, smask_tokenizer_fit(&c, &t, patches, MANY, -1, NULL, NULL),
        SMASK_ARG);
    memcpy(patches, patches + WIDTH, WIDTH * sizeof *patches);
    refuse(&c, smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL),
        SMASK_ARG);                      /* one of them is there twice     */
    d.vocabulary = 8;
    smask_tokenizer_init(&c, &t, &d);
    memset(patches + 5 * WIDTH, 0xff, sizeof *patches);      /* a NaN      */
    refuse(&c, smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL),
        SMASK_NUMERIC);
    refuse(&c, smask_tokenize(&c, &t, images, 0, ids), SMASK_ARG);
    refuse(&c, smask_tokenize(&c, &t, images, 1, NULL), SMASK_ARG);
    smask_shutdown(&c);
}

/* -------------------------------------------------------------- workers */

/* A hook that runs pieces in a strange order: odd ones first, from the
   last, and gives them to the workers round robin. */
typedef struct strange { int workers, calls; } strange;

static void strange_run(void *user, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    strange *s = (strange *)user;
    int i, calls = 0;

    s->calls++;
    for (i = count - 1; i >= 0; i--)
        if (i % 2 != 0) fn(arg, i, calls++ % s->workers);
    for (i = count - 1; i >= 0; i--)
        if (i % 2 == 0) fn(arg, i, calls++ % s->workers);
}

static float alone[128 * WIDTH];

/* The whole of chapter 9 with this hook; if `first`, store the results; then
   compare with them. */
static void learn_and_tokenize(smask_parallel hook, int first)
{
    smask_tokenizer_desc d = kmeans_desc(128);
    smask_desc desc = { 0 };
    smask_tokenizer t;
    smask_ctx c;

    desc.parallel = hook;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    smask_tokenizer_init(&c, &t, &d);
    smask_tokenizer_fit(&c, &t, patches, MANY, 0, NULL, NULL);
    SAME(smask_tokenize(&c, &t, images, 100, more_ids), SMASK_OK);
    if (first) {
        memcpy(alone, t.codebook, sizeof alone);
        memcpy(ids, more_ids, sizeof ids);
    }
    CHECK(memcmp(alone, t.codebook, sizeof alone) == 0);
    CHECK(memcmp(ids, more_ids, sizeof ids) == 0);
    smask_shutdown(&c);
}

/* No hook, pieces in a strange order, and real threads. */
static void same_bits_for_any_workers(void)
{
    smask_parallel hook;
    int workers;

    fill(patches, MANY * WIDTH, 13);
    fill(images, 100 * PIXELS, 14);
    memset(&hook, 0, sizeof hook);
    learn_and_tokenize(hook, 1);
    for (workers = 1; workers <= 5; workers++) {
        strange s = { 0, 0 };
        s.workers = workers;
        hook.run = strange_run;
        hook.user = &s;
        hook.workers = workers;
        learn_and_tokenize(hook, 0);
        CHECK(s.calls > 0);
    }
    for (workers = 2; workers <= 4; workers++) {
        smask_threads pool;
        SAME(smask_threads_start(&pool, workers), SMASK_OK);
        learn_and_tokenize(smask_threads_hook(&pool), 0);
        smask_threads_stop(&pool);
    }
}

/* -------------------------------------------------------------- the plan */

static smask_result whole_use(smask_ctx *c, void *user)
{
    const smask_tokenizer_desc *d = (const smask_tokenizer_desc *)user;
    smask_token_use s;
    smask_tokenizer t;

    smask_tokenizer_init(c, &t, d);
    smask_tokenizer_fit(c, &t, patches, MANY, 3, NULL, NULL);
    smask_begin_step(c);
    smask_tokenize(c, &t, images, 90, ids);
    smask_token_stats(c, ids, 90 * smask_tokenizer_rows(&t),
        t.desc.vocabulary, NULL, &s);
    smask_end_step(c);
    return smask_error(c);
}

static void exact_plan(void)
{
    smask_random before;
    int kind, euclidean;

    fill(patches, MANY * WIDTH, 15);
    fill(images, 90 * PIXELS, 16);
    for (kind = 0; kind < 3; kind++)
        for (euclidean = 0; euclidean < 2; euclidean++) {
            smask_tokenizer_desc d = kmeans_desc(300);
            smask_desc desc = { 0 };
            smask_sizes sizes;
            smask_ctx c;
            d.kind = (smask_token_kind)kind;
            d.euclidean = euclidean;
            SAME(smask_plan(NULL, whole_use, &d, &sizes), SMASK_OK);
            desc.memory_size = sizes.bytes;
            SAME(smask_setup(&c, &desc), SMASK_OK);
            before = c.random;
            SAME(whole_use(&c, &d), SMASK_OK);
            CHECK(memcmp(&before, &c.random, sizeof before) != 0);
            smask_shutdown(&c);
            desc.memory_size = sizes.bytes - 64;
            if (smask_setup(&c, &desc) == SMASK_OK)
                SAME(whole_use(&c, &d), SMASK_MEMORY);
            smask_shutdown(&c);
        }
}

/* ------------------------------------------------------ given and stats */

static void given(void)
{
    smask_tokenizer_desc d = { 0 };
    smask_tokenizer t;
    smask_ctx c;
    int32_t mine[2 * ROWS];
    int i;

    for (i = 0; i < 2 * ROWS; i++) mine[i] = i % 10;
    smask_setup(&c, NULL);
    d.kind = SMASK_TOKENS_GIVEN;
    d.vocabulary = 10;
    SAME(smask_tokenizer_init(&c, &t, &d), SMASK_OK);
    CHECK(t.codebook == NULL);
    refuse(&c, smask_tokenize(&c, &t, images, 2, ids), SMASK_STATE);
    t.given = mine;
    SAME(smask_tokenize(&c, &t, NULL, 2, ids), SMASK_OK);
    CHECK(memcmp(ids, mine, sizeof mine) == 0);
    mine[2 * ROWS - 1] = 10;
    SAME(smask_tokenize(&c, &t, NULL, 1, ids), SMASK_OK);
    refuse(&c, smask_tokenize(&c, &t, NULL, 2, ids), SMASK_RANGE);
    mine[2 * ROWS - 1] = -1;
    refuse(&c, smask_tokenize(&c, &t, NULL, 2, ids), SMASK_RANGE);
    smask_shutdown(&c);
}

static void stats(void)
{
    smask_token_use s;
    int32_t counts[10];
    smask_ctx c;
    int i;

    smask_setup(&c, NULL);
    for (i = 0; i < 600; i++) ids[i] = i % 6;
    SAME(smask_token_stats(&c, ids, 600, 10, counts, &s), SMASK_OK);
    NEAR(s.entropy, log(6), 1e-12);
    NEAR(s.perplexity, 6, 1e-11);
    SAME(s.used, 6);
    for (i = 0; i < 10; i++) SAME(counts[i], i < 6 ? 100 : 0);
    for (i = 0; i < 600; i++) ids[i] = i % 4 == 0 ? 9 : 2;
    SAME(smask_token_stats(&c, ids, 600, 10, NULL, &s), SMASK_OK);
    NEAR(s.entropy, -0.25 * log(0.25) - 0.75 * log(0.75), 1e-12);
    NEAR(s.perplexity, exp(s.entropy), 1e-12);
    SAME(s.used, 2);
    SAME(smask_token_stats(&c, ids, 1, 10, NULL, &s), SMASK_OK);
    CHECK(s.entropy == 0 && s.perplexity == 1 && s.used == 1);
    ids[5] = 10;
    refuse(&c, smask_token_stats(&c, ids, 600, 10, NULL, &s), SMASK_RANGE);
    ids[5] = -1;
    refuse(&c, smask_token_stats(&c, ids, 600, 10, counts, &s),
        SMASK_RANGE);
    refuse(&c, smask_token_stats(&c, ids, 0, 10, NULL, &s), SMASK_ARG);
    refuse(&c, smask_token_stats(&c, ids, 5, 0, NULL, &s), SMASK_ARG);
    smask_shutdown(&c);
}

int main(void)
{
    RUN(defaults);
    RUN(desc_of_a_model);
    RUN(init_errors);
    RUN(projection);
    RUN(tokens_against_double);
    RUN(batch_or_alone);
    RUN(half_switch);
    RUN(centre_switch);
    RUN(patches_kind);
    RUN(patches_are_fair);
    RUN(euclidean_switch);
    RUN(kmeans_of_copies);
    RUN(kmeans_finds_clouds);
    RUN(kmeans_never_rises);
    RUN(kmeans_leaves_none_empty);
    RUN(kmeans_of_blanks);
    RUN(fit_errors);
    RUN(same_bits_for_any_workers);
    RUN(exact_plan);
    RUN(given);
    RUN(stats);
    return DONE("test_tokenizers");
}
