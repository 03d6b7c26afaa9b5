/* test_evaluation.c: kNN and the linear probe on cases with a known
   answer. */
#include "splitmask.h"
#include "examples/support/evaluation.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------------- kNN */

static void unit_rows(void)
{
    float x[6] = { 3, 4, 0, 0, -1e-20f, 0 };

    evaluation_unit_rows(x, 3, 2);
    NEAR(x[0], 0.6, 1e-7);
    NEAR(x[1], 0.8, 1e-7);
    CHECK(x[2] == 0 && x[3] == 0);
    NEAR(x[4], -1, 1e-6);
}

static void shrink(void)
{
    /* 4 x 4 to 2 x 2: means of the quarters. 5 to 2: columns 0 1 | 2 3 4. */
    float x[16], wide[25], y[4];
    int i;

    for (i = 0; i < 16; i++) x[i] = (float)i;
    evaluation_shrink(x, 1, 1, 4, 2, y);
    NEAR(y[0], 2.5, 1e-6);
    NEAR(y[1], 4.5, 1e-6);
    NEAR(y[2], 10.5, 1e-6);
    NEAR(y[3], 12.5, 1e-6);
    for (i = 0; i < 25; i++) wide[i] = (float)(i % 5);
    evaluation_shrink(wide, 1, 1, 5, 2, y);
    NEAR(y[0], 0.5, 1e-6);
    NEAR(y[1], 3.0, 1e-6);
    evaluation_shrink(x, 1, 1, 4, 4, wide);
    CHECK(memcmp(x, wide, sizeof x) == 0);
}

/* Four points on the circle, at 0, 10, 90 and 100 degrees. */
static const float circle[8] = { 1, 0, 0.98480775f, 0.17364818f, 0, 1,
    -0.17364818f, 0.98480775f };

static void knn_nearest(void)
{
    const int32_t label[4] = { 2, 0, 1, 1 };
    const float query[6] = { 0.9998477f, 0.0174524f,  /* 1 degree          */
        0.9876883f, 0.1564345f,                       /* 9 degrees         */
        0.0348995f, 0.9993908f };                     /* 88 degrees        */
    int32_t guess[3] = { -1, -1, -1 };

    CHECK(evaluation_knn(NULL, circle, label, 4, query, 3, 2, 3, 1, 0.07f,
        guess) == SMASK_OK);
    CHECK(guess[0] == 2);
    CHECK(guess[1] == 0);
    CHECK(guess[2] == 1);
}

/* The temperature decides between one near neighbour and two far ones. */
static void knn_weights(void)
{
    const int32_t label[4] = { 0, 1, 1, 1 };
    const float bank[8] = { 1, 0, 0.8f, 0.6f, 0.8f, -0.6f, 0, 1 };
    const float query[2] = { 1, 0 };
    int32_t guess = -1;

    /* k 3, cosines 1, 0.8, 0.8: e^(1/T) against 2 e^(0.8/T). Class 0 wins
       while 0.2 / T > ln 2, that is below T = 0.2885. */
    CHECK(evaluation_knn(NULL, bank, label, 4, query, 1, 2, 2, 3, 0.28f,
        &guess) == SMASK_OK);
    CHECK(guess == 0);
    CHECK(evaluation_knn(NULL, bank, label, 4, query, 1, 2, 2, 3, 0.30f,
        &guess) == SMASK_OK);
    CHECK(guess == 1);
    /* A tiny temperature must not overflow. */
    CHECK(evaluation_knn(NULL, bank, label, 4, query, 1, 2, 2, 3, 1e-6f,
        &guess) == SMASK_OK);
    CHECK(guess == 0);
    /* More neighbours than there are: all vote. */
    CHECK(evaluation_knn(NULL, bank, label, 4, query, 1, 2, 2, 1000, 10,
        &guess) == SMASK_OK);
    CHECK(guess == 1);
}

static void knn_ties(void)
{
    const int32_t label[3] = { 2, 1, 0 };
    const float bank[6] = { 1, 0, 1, 0, 1, 0 };
    const float query[2] = { 1, 0 };
    int32_t guess = -1;

    CHECK(evaluation_knn(NULL, bank, label, 3, query, 1, 2, 3, 1, 1,
        &guess) == SMASK_OK);
    CHECK(guess == 2);               /* the first image of the bank        */
    CHECK(evaluation_knn(NULL, bank, label, 3, query, 1, 2, 3, 3, 1,
        &guess) == SMASK_OK);
    CHECK(guess == 0);               /* the lowest class                   */
}

static void knn_arguments(void)
{
    const int32_t label[4] = { 0, 1, 1, 3 };
    int32_t guess;

    CHECK(evaluation_knn(NULL, circle, label, 4, circle, 1, 2, 3, 1, 0.07f,
        &guess) == SMASK_RANGE);
    CHECK(evaluation_knn(NULL, circle, label, 3, circle, 1, 2, 3, 0, 0.07f,
        &guess) == SMASK_ARG);
    CHECK(evaluation_knn(NULL, circle, label, 3, circle, 1, 2, 3, 1, 0,
        &guess) == SMASK_ARG);
    CHECK(evaluation_knn(NULL, circle, label, 0, circle, 1, 2, 3, 1, 0.07f,
        &guess) == SMASK_ARG);
}

/* Larger than every tile, in both directions, against the plain
   definition. */
static void knn_tiles(void)
{
    const size_t banks = 2051, queries = 517, width = 6, k = 7;
    const int32_t classes = 5;
    float *bank = malloc(banks * width * sizeof *bank);
    float *query = malloc(queries * width * sizeof *query);
    int32_t *label = malloc(banks * sizeof *label);
    int32_t *guess = malloc(queries * sizeof *guess);
    double *cosine = malloc(banks * sizeof *cosine);
    size_t i, j, n, wrong = 0;
    smask_random random;

    CHECK(bank && query && label && guess && cosine);
    smask_seed(&random, 3, 0);
    for (i = 0; i < banks * width; i++) bank[i] = smask_normal(&random);
    for (i = 0; i < queries * width; i++) query[i] = smask_normal(&random);
    for (i = 0; i < banks; i++)
        label[i] = (int32_t)smask_below(&random, (uint32_t)classes);
    evaluation_unit_rows(bank, banks, width);
    evaluation_unit_rows(query, queries, width);
    CHECK(evaluation_knn(NULL, bank, label, banks, query, queries, width,
        classes, (int32_t)k, 0.07f, guess) == SMASK_OK);
    for (i = 0; i < queries; i++) {
        double votes[5] = { 0, 0, 0, 0, 0 };
        int winner = 0, q;
        for (j = 0; j < banks; j++) {
            cosine[j] = 0;
            for (n = 0; n < width; n++)
                cosine[j] += (double)bank[j * width + n]
                    * query[i * width + n];
        }
        for (n = 0; n < k; n++) {
            size_t best = 0;
            for (j = 1; j < banks; j++)
                if (cosine[j] > cosine[best]) best = j;
            votes[label[best]] += exp(cosine[best] / 0.07);
            cosine[best] = -2;
        }
        for (q = 1; q < 5; q++) if (votes[q] > votes[winner]) winner = q;
        wrong += guess[i] != winner;
    }
    /* Float against double may order two neighbours differently, rarely. */
    CHECK(wrong <= 1);
    free(bank);
    free(query);
    free(label);
    free(guess);
    free(cosine);
}

static void balanced(void)
{
    /* 6 of class 0, 3 of class 1, 1 of class 2. */
    const int32_t label[10] = { 0, 0, 1, 0, 2, 0, 1, 0, 0, 1 };
    int32_t chosen[10], again[10], counts[3] = { 0, 0, 0 };
    int i;

    CHECK(evaluation_balanced(label, 10, 3, 6, 1, chosen) == 6);
    for (i = 0; i < 6; i++) counts[label[chosen[i]]]++;
    for (i = 1; i < 6; i++) CHECK(chosen[i] > chosen[i - 1]);
    CHECK(counts[2] == 1);
    CHECK(counts[0] >= 2 && counts[1] >= 2);
    CHECK(evaluation_balanced(label, 10, 3, 6, 1, again) == 6);
    CHECK(memcmp(chosen, again, 6 * sizeof *chosen) == 0);
    CHECK(evaluation_balanced(label, 10, 3, 0, 1, chosen) == 10);
    CHECK(evaluation_balanced(label, 10, 3, 11, 1, chosen) == 10);
    CHECK(chosen[0] == 0 && chosen[9] == 9);
}

/* --------------------------------------------------------------- probe */

/* Gaussian clouds around `classes` corners of a cube of side `gap`; the
   features are then stretched and moved, which standardising undoes. */
static void clouds(size_t count, size_t width, int32_t classes, float gap,
    uint64_t seed, float *x, int32_t *label)
{
    smask_random random;
    size_t i, j;

    smask_seed(&random, seed, 1);
    for (i = 0; i < count; i++) {
        label[i] = (int32_t)(i % (size_t)classes);
        for (j = 0; j < width; j++) {
            const float corner = (size_t)label[i] == j ? gap : 0;
            x[i * width + j] = 100 + (float)(j + 1) * 10
                * (corner + smask_normal(&random));
        }
    }
}

/* Chosen decay, then accuracy on the test clouds. */
static double probe_accuracy(const smask_parallel *hook, const float *x,
    const int32_t *label, size_t count, const float *test,
    const int32_t *test_label, size_t test_count, size_t width,
    int32_t classes, evaluation_probe *found, int32_t *guess)
{
    CHECK(evaluation_probe_choose(hook, x, label, count, width, classes, 1,
        found) == SMASK_OK);
    CHECK(evaluation_probe_test(hook, x, label, count, test, test_count,
        width, classes, found->weight_decay, guess) == SMASK_OK);
    return evaluation_accuracy(guess, test_label, test_count);
}

static void probe_separable(void)
{
    static float x[300 * 8], test[300 * 8];
    static int32_t label[300], test_label[300], guess[300];
    evaluation_probe found;

    clouds(300, 8, 5, 9, 1, x, label);
    clouds(300, 8, 5, 9, 2, test, test_label);
    NEAR(probe_accuracy(NULL, x, label, 300, test, test_label, 300, 8, 5,
        &found, guess), 1, 0.004);
    NEAR(found.held_accuracy, 1, 0.02);
    CHECK(found.held_count == 60);
    CHECK(found.iterations > 0);
}

/* Two overlapping clouds on a line: the best plane is half way, and the
   share it gets right is Phi(gap / 2). */
static void probe_bayes(void)
{
    const size_t count = 4000, width = 3;
    float *x = malloc(2 * count * width * sizeof *x);
    int32_t *label = malloc(3 * count * sizeof *label);
    evaluation_probe found;
    double best;

    CHECK(x && label);
    /* Two corners at distance gap sqrt 2. */
    clouds(count, width, 2, 1, 5, x, label);
    clouds(count, width, 2, 1, 6, x + count * width, label + count);
    best = 0.5 * (1 + erf(sqrt(2.0) / 2 / sqrt(2.0)));
    /* Three standard errors of 4000 coin flips: 0.020. */
    NEAR(probe_accuracy(NULL, x, label, count, x + count * width,
        label + count, count, width, 2, &found, label + 2 * count), best,
        0.02);
    free(x);
    free(label);
}

static void probe_chance(void)
{
    const size_t count = 2000, width = 10;
    float *x = malloc(2 * count * width * sizeof *x);
    int32_t *label = malloc(3 * count * sizeof *label);
    smask_random random;
    evaluation_probe found;
    size_t i;

    CHECK(x && label);
    smask_seed(&random, 11, 0);
    for (i = 0; i < 2 * count * width; i++) x[i] = smask_normal(&random);
    for (i = 0; i < 2 * count; i++)
        label[i] = (int32_t)smask_below(&random, 4);
    /* Four standard errors of 2000 draws at 1/4: 0.039. */
    NEAR(probe_accuracy(NULL, x, label, count, x + count * width,
        label + count, count, width, 4, &found, label + 2 * count), 0.25,
        0.039);
    free(x);
    free(label);
}

/* One feature that is -1 or 1: the sign decides while the decay is weak,
   and nothing but the offset is left when it is strong. */
static void probe_minimum(void)
{
    const float x[6] = { -1, -1, -1, 1, 1, 1 };
    const int32_t label[6] = { 0, 0, 0, 1, 1, 1 };
    const int32_t uneven[6] = { 0, 0, 1, 1, 1, 1 };
    const float test[4] = { -0.01f, 0.01f, -1, 1 };
    int32_t guess[4];

    CHECK(evaluation_probe_test(NULL, x, label, 6, test, 4, 1, 2, 0.1,
        guess) == SMASK_OK);
    CHECK(guess[0] == 0 && guess[1] == 1);
    CHECK(guess[2] == 0 && guess[3] == 1);
    /* A decay so strong that the weight is nothing leaves the bias, which
       is not decayed and learns the larger class. */
    CHECK(evaluation_probe_test(NULL, x, uneven, 6, test, 4, 1, 2, 1e4,
        guess) == SMASK_OK);
    CHECK(guess[0] == 1 && guess[2] == 1 && guess[3] == 1);
    /* A weak one follows the majority on either side. */
    CHECK(evaluation_probe_test(NULL, x, uneven, 6, test, 4, 1, 2, 1e-4,
        guess) == SMASK_OK);
    CHECK(guess[2] == 0 && guess[3] == 1);
}

static void probe_odd_input(void)
{
    static float x[40 * 3], test[3] = { 0, 5, 1 };
    int32_t label[40], guess;
    evaluation_probe found;
    int i;

    for (i = 0; i < 40; i++) {
        label[i] = i % 2;
        x[3 * i] = (float)label[i];
        x[3 * i + 1] = 5;            /* a feature that never varies        */
        x[3 * i + 2] = (float)i;
    }
    CHECK(evaluation_probe_choose(NULL, x, label, 40, 3, 2, 1, &found)
        == SMASK_OK);
    NEAR(found.held_accuracy, 1, 1e-9);
    CHECK(evaluation_probe_test(NULL, x, label, 40, test, 1, 3, 2, 1e-3,
        &guess) == SMASK_OK);
    CHECK(guess == 0);
    /* Too few to hold any out: a decay is still chosen. */
    CHECK(evaluation_probe_choose(NULL, x, label, 4, 3, 2, 1, &found)
        == SMASK_OK);
    CHECK(found.held_count == 0 && found.weight_decay > 0);
    label[7] = 2;
    CHECK(evaluation_probe_choose(NULL, x, label, 40, 3, 2, 1, &found)
        == SMASK_RANGE);
    label[7] = 1;
    x[8] = (float)HUGE_VAL;
    CHECK(evaluation_probe_choose(NULL, x, label, 40, 3, 2, 1, &found)
        == SMASK_NUMERIC);
    CHECK(evaluation_probe_choose(NULL, x, label, 0, 3, 2, 1, &found)
        == SMASK_ARG);
}

/* A hook that runs the pieces backwards and pretends to have two workers. */
static void backwards(void *user, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    int i;

    (void)user;
    for (i = count - 1; i >= 0; i--) fn(arg, i, i % 2);
}

static void same_for_any_threads(void)
{
    static float x[900 * 8];
    static int32_t label[900], one[300], two[300];
    evaluation_probe found_one, found_two;
    smask_parallel hook;

    hook.run = backwards;
    hook.user = NULL;
    hook.workers = 2;
    clouds(900, 8, 5, 1, 9, x, label);
    probe_accuracy(NULL, x, label, 600, x + 600 * 8, label + 600, 300, 8, 5,
        &found_one, one);
    probe_accuracy(&hook, x, label, 600, x + 600 * 8, label + 600, 300, 8, 5,
        &found_two, two);
    CHECK(memcmp(one, two, sizeof one) == 0);
    CHECK(found_one.weight_decay == found_two.weight_decay);
    CHECK(found_one.held_accuracy == found_two.held_accuracy);
    CHECK(found_one.iterations == found_two.iterations);
    evaluation_unit_rows(x, 900, 8);
    CHECK(evaluation_knn(NULL, x, label, 600, x + 600 * 8, 300, 8, 5, 20,
        0.07f, one) == SMASK_OK);
    CHECK(evaluation_knn(&hook, x, label, 600, x + 600 * 8, 300, 8, 5, 20,
        0.07f, two) == SMASK_OK);
    CHECK(memcmp(one, two, sizeof one) == 0);
}

/* ------------------------------------------------------------ features */

typedef struct pictures { int32_t calls; float all[7 * 3 * 8 * 8]; } pictures;

static void give(void *user, size_t first, int32_t count, float *images)
{
    pictures *p = (pictures *)user;

    p->calls++;
    memcpy(images, p->all + first * 3 * 8 * 8,
        (size_t)count * 3 * 8 * 8 * sizeof(float));
}

static void features_in_batches(void)
{
    static pictures p;
    float whole[3 * 7 * 16], parts[3 * 7 * 16], last[7 * 16], direct[112];
    smask_vit_desc shape;
    smask_vit v;
    smask_ctx c;
    smask_random random;
    smask_tensor *pooled;
    int i;

    smask_seed(&random, 1, 0);
    for (i = 0; i < 7 * 3 * 8 * 8; i++) p.all[i] = smask_normal(&random);
    memset(&shape, 0, sizeof shape);
    shape.image = 8;
    shape.dim = 16;
    shape.depth = 2;
    shape.heads = 2;
    CHECK(smask_setup(&c, NULL) == SMASK_OK);
    CHECK(smask_vit_init(&c, &v, &shape) == SMASK_OK);
    CHECK(evaluation_features(&c, &v, 7, 7, -1, give, &p, whole)
        == SMASK_OK);
    CHECK(p.calls == 1);
    CHECK(evaluation_features(&c, &v, 7, 3, -1, give, &p, parts)
        == SMASK_OK);
    CHECK(p.calls == 4);
    for (i = 0; i < 3 * 7 * 16; i++) NEAR(parts[i], whole[i], 1e-6);
    CHECK(evaluation_features(&c, &v, 7, 2, 2, give, &p, last) == SMASK_OK);
    for (i = 0; i < 7 * 16; i++) NEAR(last[i], whole[2 * 112 + i], 1e-6);
    /* The last layer is what encoding and pooling give. */
    smask_begin_step(&c);
    pooled = smask_vit_pool(&c, &v, smask_vit_encode(&c, &v, p.all, 7));
    CHECK(pooled != NULL);
    if (pooled != NULL) memcpy(direct, pooled->x, sizeof direct);
    smask_end_step(&c);
    if (pooled != NULL)
        for (i = 0; i < 112; i++) NEAR(direct[i], whole[224 + i], 1e-5);
    CHECK(evaluation_features(&c, &v, 7, 2, 3, give, &p, last) == SMASK_ARG);
    CHECK(smask_error(&c) == SMASK_OK);
    smask_shutdown(&c);
}

int main(void)
{
    RUN(unit_rows);
    RUN(shrink);
    RUN(knn_nearest);
    RUN(knn_weights);
    RUN(knn_ties);
    RUN(knn_arguments);
    RUN(knn_tiles);
    RUN(balanced);
    RUN(probe_separable);
    RUN(probe_bayes);
    RUN(probe_chance);
    RUN(probe_minimum);
    RUN(probe_odd_input);
    RUN(same_for_any_threads);
    RUN(features_in_batches);
    return DONE("test_evaluation");
}
