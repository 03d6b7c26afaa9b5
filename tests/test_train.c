/* test_train.c: whole training runs on a model of a few thousand weights.
   It learns, its bits do not depend on the number of workers, it allocates
   nothing, and bad data is reported before a weight changes. */
#define SPLITMASK_THREADS
#include "splitmask.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>

enum { SIDE = 16, COUNT = 8, VOCABULARY = 32, PIXELS = SIDE * SIDE };

static float images[COUNT * PIXELS];
static float copy_of_weights[200000];
static unsigned char arena[24 << 20];

/* Eight pictures of a disc on stripes, each of its own kind. */
static void draw_images(void)
{
    int i, y, x;

    for (i = 0; i < COUNT; i++)
        for (y = 0; y < SIDE; y++)
            for (x = 0; x < SIDE; x++) {
                const double u = x - 4.0 - i, v = y - 11.0 + i;
                const double wave = sin(0.5 * (i + 1) * (i % 2 ? x : y));
                images[(i * SIDE + y) * SIDE + x] = u * u + v * v < 12
                    ? 1.8f : (float)wave;
            }
}

typedef struct run {
    int beit;
    smask_ctx c;
    smask_vit v;
    smask_tokenizer t;
    smask_adam a;
    smask_losses out;
} run;

static smask_vit_desc model_of(int beit)
{
    smask_vit_desc d;

    memset(&d, 0, sizeof d);
    d.image = SIDE;
    d.channels = 1;
    d.dim = 32;
    d.depth = 2;
    d.heads = 2;
    d.mlp_ratio = 2;
    d.vocabulary = VOCABULARY;
    d.decoder_depth = !beit;
    d.mask_token = beit;
    d.init_std = 0.08f;
    return d;
}

static smask_tokenizer_desc codebook_of(smask_token_kind kind)
{
    smask_tokenizer_desc d;

    memset(&d, 0, sizeof d);
    d.kind = kind;
    d.image = SIDE;
    d.channels = 1;
    d.vocabulary = VOCABULARY;
    return d;
}

/* Set up context, model, tokenizer and optimiser. 0 if this processor lacks
   the instruction set. */
static int start(run *r, int beit, const smask_desc *desc)
{
    const smask_vit_desc model = model_of(beit);
    const smask_tokenizer_desc codebook = codebook_of(SMASK_TOKENS_PROJECTION);
    smask_adam_desc speed;

    memset(r, 0, sizeof *r);
    r->beit = beit;
    memset(&speed, 0, sizeof speed);
    speed.lr = 4e-3f;
    speed.warmup = 10;
    speed.weight_decay = -1;
    if (smask_setup(&r->c, desc) != SMASK_OK) return 0;
    SAME(smask_vit_init(&r->c, &r->v, &model), SMASK_OK);
    SAME(smask_tokenizer_init(&r->c, &r->t, &codebook), SMASK_OK);
    SAME(smask_adam_init(&r->c, &r->a, &speed, &r->v.params), SMASK_OK);
    return 1;
}

static smask_tensor *loss_of(run *r, const float *x, int32_t B)
{
    return r->beit
        ? smask_beit_loss(&r->c, &r->v, &r->t, NULL, x, B, &r->out)
        : smask_splitmask_loss(&r->c, &r->v, &r->t, NULL, x, B, &r->out);
}

static smask_result step(run *r, const float *x)
{
    smask_result result;

    smask_begin_step(&r->c);
    result = smask_backward(&r->c, loss_of(r, x, COUNT));
    if (result == SMASK_OK)
        result = smask_adam_update(&r->c, &r->a, &r->v.params);
    smask_end_step(&r->c);
    return result;
}

/* All weights, one after the other. */
static size_t weights(const run *r, float *to)
{
    size_t n = 0;
    int32_t i;

    for (i = 0; i < r->v.params.count; i++) {
        const smask_tensor *t = r->v.params.item[i].t;
        memcpy(to + n, t->x, smask_count(t) * sizeof *to);
        n += smask_count(t);
    }
    CHECK(n == smask_params_count(&r->v.params));
    return n;
}

static uint64_t hash_of_weights(const run *r)
{
    const size_t n = weights(r, copy_of_weights) * sizeof(float);
    const unsigned char *byte = (const unsigned char *)copy_of_weights;
    uint64_t hash = 14695981039346656037u;
    size_t i;

    for (i = 0; i < n; i++) hash = (hash ^ byte[i]) * 1099511628211u;
    return hash;
}

/* ------------------------------------------------------------- it learns */

/* The model memorises eight images under ever new masks: it predicts the
   visual tokens of hidden patches far better than their frequency does, and
   most of them correctly. */
static void overfits(int beit)
{
    smask_token_use use;
    double inpaint = 0, accuracy = 0, match = 0;
    smask_desc desc;
    run r;
    int i;

    memset(&desc, 0, sizeof desc);
    desc.seed = 3;
    if (!CHECK(start(&r, beit, &desc))) return;
    for (i = 0; i < 400; i++) {
        SAME(step(&r, images), SMASK_OK);
        if (i == 0) {                    /* untrained: one of VOCABULARY is
                                            right, one of COUNT            */
            CHECK((double)r.out.inpaint > 0.8 * log(VOCABULARY));
            if (!beit) CHECK((double)r.out.match > 0.5 * log(COUNT));
        }
        if (i >= 390) {
            inpaint += (double)r.out.inpaint / 10;
            accuracy += (double)r.out.accuracy / 10;
            match += (double)r.out.match_accuracy / 10;
        }
    }
    smask_begin_step(&r.c);
    CHECK(loss_of(&r, images, COUNT) != NULL);
    SAME(smask_token_stats(&r.c, r.out.tokens, COUNT * (size_t)r.v.tokens,
        VOCABULARY, NULL, &use), SMASK_OK);
    smask_end_step(&r.c);
    printf("%s: inpaint %.3f (by frequency %.3f), accuracy %.2f, matches "
        "%.2f\n", beit ? "beit" : "splitmask", inpaint, use.entropy,
        accuracy, match);
    CHECK(inpaint < 0.4 * use.entropy);
    CHECK(accuracy > 0.8);
    if (!beit) CHECK(match > 0.9);
    SAME(smask_error(&r.c), SMASK_OK);
    smask_shutdown(&r.c);
}

static void splitmask_overfits(void) { overfits(0); }
static void beit_overfits(void) { overfits(1); }

/* --------------------------------------------------------------- workers */

/* From the last piece to the first, to the workers round robin. */
static void backwards(void *user, int count,
    void (*fn)(void *arg, int piece, int worker), void *arg)
{
    const int workers = *(const int *)user;

    while (count-- > 0) fn(arg, count, count % workers);
}

/* Weights after a few steps, bit for bit, for no hook, 1, 2 and 4 workers
   and pieces taken backwards; for each instruction set. */
static void same_bits(void)
{
    int beit, isa, way, i, five = 5;

    for (beit = 0; beit < 2; beit++)
        for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT;
                isa++) {
            uint64_t first = 0;
            for (way = 0; way < 5; way++) {
                const int workers = way == 3 ? 4 : way;
                smask_desc desc;
                smask_threads pool;
                run r;
                memset(&desc, 0, sizeof desc);
                desc.seed = 4;
                desc.isa = (smask_isa)isa;
                if (way >= 1 && way <= 3) {
                    SAME(smask_threads_start(&pool, workers), SMASK_OK);
                    desc.parallel = smask_threads_hook(&pool);
                } else if (way == 4) {
                    desc.parallel.run = backwards;
                    desc.parallel.user = &five;
                    desc.parallel.workers = five;
                }
                if (start(&r, beit, &desc)) {
                    uint64_t hash;
                    for (i = 0; i < 6; i++)
                        SAME(step(&r, images), SMASK_OK);
                    hash = hash_of_weights(&r);
                    if (way == 0) first = hash;
                    if (!CHECK(hash == first))
                        printf("%s %s, way %d\n", beit ? "beit"
                            : "splitmask", smask_isa_text(&r.c), way);
                    smask_shutdown(&r.c);
                }
                if (way >= 1 && way <= 3) smask_threads_stop(&pool);
            }
        }
}

/* Another seed, another run; the same seed, the same. */
static void seeds(void)
{
    uint64_t hash[3];
    smask_desc desc;
    run r;
    int i, k;

    memset(&desc, 0, sizeof desc);
    for (k = 0; k < 3; k++) {
        desc.seed = k < 2 ? 7 : 8;
        if (!CHECK(start(&r, 0, &desc))) return;
        for (i = 0; i < 2; i++) step(&r, images);
        hash[k] = hash_of_weights(&r);
        smask_shutdown(&r.c);
    }
    CHECK(hash[0] == hash[1]);
    CHECK(hash[0] != hash[2]);
}

/* ----------------------------------------------------------------- isa */

/* Wider vectors only change the order of sums: the loss of the first step
   agrees to the last digits, that of the 20th to three. Operands rounded to
   bfloat16 are up to 2^-9 off, of a loss of 5 that is 1e-2 if all errors go
   one way; in a mean they do not. */
static void isas_agree(void)
{
    double first[2] = { 0 }, last[2] = { 0 };
    int beit, isa, i;

    for (beit = 0; beit < 2; beit++)
        for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT;
                isa++) {
            const int coarse = isa == SMASK_ISA_BF16;
            smask_desc desc;
            run r;
            memset(&desc, 0, sizeof desc);
            desc.seed = 5;
            desc.isa = (smask_isa)isa;
            if (!start(&r, beit, &desc)) continue;
            for (i = 0; i < 20; i++) {
                SAME(step(&r, images), SMASK_OK);
                if (i == 0 && isa == SMASK_ISA_SCALAR)
                    first[beit] = (double)r.out.total;
                if (i == 0)
                    NEAR(r.out.total, first[beit], coarse ? 2e-3 : 1e-5);
            }
            if (isa == SMASK_ISA_SCALAR)
                last[beit] = (double)r.out.total;
            NEAR(r.out.total, last[beit], 5e-3);
            smask_shutdown(&r.c);
        }
}

/* ---------------------------------------------------------------- memory */

static void *forbidden(void *user, size_t bytes)
{
    (void)user;
    (void)bytes;
    printf("the allocator was called: the test ends here\n");
    exit(1);
}

static void forbidden_release(void *user, void *block)
{
    (void)user;
    (void)block;
    printf("a release was called: the test ends here\n");
    exit(1);
}

/* In the caller's buffer, training and evaluation never call the
   allocator. */
static void allocates_nothing(void)
{
    float features[3 * COUNT * 32];
    smask_desc desc;
    smask_ema e;
    run r;
    int i;

    memset(&desc, 0, sizeof desc);
    desc.memory = arena;
    desc.memory_size = sizeof arena;
    desc.allocator.alloc = forbidden;
    desc.allocator.release = forbidden_release;
    if (!CHECK(start(&r, 0, &desc))) return;
    SAME(smask_ema_init(&r.c, &e, 0.9f, &r.v.params), SMASK_OK);
    for (i = 0; i < 10; i++) {
        SAME(step(&r, images), SMASK_OK);
        smask_ema_update(&r.c, &e, &r.v.params);
    }
    SAME(smask_vit_features(&r.c, &r.v, images, COUNT, features), SMASK_OK);
    SAME(smask_error(&r.c), SMASK_OK);
    smask_shutdown(&r.c);
}

/* ------------------------------------------------------------- bad data */

/* A NaN or an infinity among the pixels: NUMERIC, and no weight moves; then
   training goes on with good images. */
static void bad_pixels(void)
{
    static const uint32_t patterns[3] = { 0x7fc00000u, 0x7f800000u,
        0xff800000u };
    static float spoilt[COUNT * PIXELS];
    int beit, k;

    for (beit = 0; beit < 2; beit++)
        for (k = 0; k < 3; k++) {
            uint64_t before;
            smask_result result;
            run r;
            if (!CHECK(start(&r, beit, NULL))) return;
            step(&r, images);
            before = hash_of_weights(&r);
            memcpy(spoilt, images, sizeof spoilt);
            memcpy(&spoilt[3 * PIXELS + 77], &patterns[k], sizeof(float));
            result = step(&r, spoilt);
            SAME(result, SMASK_NUMERIC);
            SAME(smask_error(&r.c), SMASK_NUMERIC);
            CHECK(hash_of_weights(&r) == before);
            /* The error sticks until it is cleared. */
            CHECK(step(&r, images) != SMASK_OK);
            CHECK(hash_of_weights(&r) == before);
            smask_clear(&r.c);
            SAME(step(&r, images), SMASK_OK);
            CHECK(hash_of_weights(&r) != before);
            smask_shutdown(&r.c);
        }
}

/* A NaN gradient: the update sets the gradients to zero and changes nothing
   else. */
static void bad_gradients(void)
{
    uint64_t before;
    smask_tensor *t;
    int32_t i;
    size_t k, left = 0;
    run r;
    const uint32_t nan = 0x7fc00000u;

    if (!CHECK(start(&r, 0, NULL))) return;
    step(&r, images);
    before = hash_of_weights(&r);
    smask_begin_step(&r.c);
    SAME(smask_backward(&r.c, loss_of(&r, images, COUNT)), SMASK_OK);
    t = r.v.params.item[r.v.params.count / 2].t;
    memcpy(&t->dx[smask_count(t) - 1], &nan, sizeof nan);
    SAME(smask_adam_update(&r.c, &r.a, &r.v.params), SMASK_NUMERIC);
    smask_end_step(&r.c);
    CHECK(hash_of_weights(&r) == before);
    SAME(r.a.step, 1);
    for (i = 0; i < r.v.params.count; i++)
        for (k = 0; k < smask_count(r.v.params.item[i].t); k++)
            left += r.v.params.item[i].t->dx[k] != 0;
    CHECK(left == 0);
    smask_clear(&r.c);
    SAME(step(&r, images), SMASK_OK);
    smask_shutdown(&r.c);
}

/* Given tokens: in range they are used; out of range they are an error and
   no weight changes. */
static void given_tokens(void)
{
    int32_t ids[COUNT * 16];
    smask_tokenizer_desc codebook = codebook_of(SMASK_TOKENS_GIVEN);
    int beit, i;

    for (beit = 0; beit < 2; beit++) {
        static const int32_t bad[] = { VOCABULARY, -1, 2147483647 };
        uint64_t before;
        smask_tokenizer mine;
        float loss;
        run r;
        if (!CHECK(start(&r, beit, NULL))) return;
        SAME(r.v.tokens, 16);
        SAME(smask_tokenizer_init(&r.c, &mine, &codebook), SMASK_OK);
        mine.given = ids;

        /* The ids of the tokenizer, passed as given, yield the same loss. */
        smask_begin_step(&r.c);
        SAME(smask_tokenize(&r.c, &r.t, images, COUNT, ids), SMASK_OK);
        smask_seed(&r.c.random, 1, 1);
        CHECK(loss_of(&r, images, COUNT) != NULL);
        loss = r.out.total;
        r.t = mine;
        smask_seed(&r.c.random, 1, 1);
        CHECK(loss_of(&r, images, COUNT) != NULL);
        NEAR(r.out.total, loss, 0);
        smask_end_step(&r.c);
        SAME(smask_error(&r.c), SMASK_OK);

        before = hash_of_weights(&r);
        for (i = 0; i < 3; i++) {
            const int32_t keep = ids[37];
            ids[37] = bad[i];
            /* Every patch is predicted by SplitMask, some by BEiT. */
            if (!beit) {
                SAME(step(&r, images), SMASK_RANGE);
                CHECK(hash_of_weights(&r) == before);
            } else {
                int n;
                for (n = 0; n < 16 * COUNT; n++) ids[n] = bad[i];
                SAME(step(&r, images), SMASK_RANGE);
                for (n = 0; n < 16 * COUNT; n++) ids[n] = n % VOCABULARY;
            }
            ids[37] = keep;
            smask_clear(&r.c);
        }
        CHECK(hash_of_weights(&r) == before);
        SAME(step(&r, images), SMASK_OK);
        smask_shutdown(&r.c);
    }
}

/* ------------------------------------------------------------ wrong order */

static void refusals(void)
{
    smask_vit_desc model = model_of(0);
    smask_tokenizer_desc codebook = codebook_of(SMASK_TOKENS_PROJECTION);
    smask_ctx c;
    smask_vit v;
    smask_tokenizer t;
    smask_losses out;

    /* no decoder: no SplitMask; no head: neither */
    SAME(smask_setup(&c, NULL), SMASK_OK);
    model.decoder_depth = 0;
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    SAME(smask_tokenizer_init(&c, &t, &codebook), SMASK_OK);
    smask_begin_step(&c);
    CHECK(smask_splitmask_loss(&c, &v, &t, NULL, images, COUNT, &out)
        == NULL);
    SAME(smask_error(&c), SMASK_STATE);
    smask_clear(&c);
    smask_end_step(&c);
    smask_shutdown(&c);

    SAME(smask_setup(&c, NULL), SMASK_OK);
    model.vocabulary = 0;
    model.mask_token = 1;
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    SAME(smask_tokenizer_init(&c, &t, &codebook), SMASK_OK);
    smask_begin_step(&c);
    CHECK(smask_beit_loss(&c, &v, &t, NULL, images, COUNT, &out) == NULL);
    SAME(smask_error(&c), SMASK_STATE);
    smask_clear(&c);
    smask_end_step(&c);
    smask_shutdown(&c);

    /* model and tokenizer differ */
    SAME(smask_setup(&c, NULL), SMASK_OK);
    model = model_of(0);
    codebook.vocabulary = VOCABULARY + 1;
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    SAME(smask_tokenizer_init(&c, &t, &codebook), SMASK_OK);
    smask_begin_step(&c);
    CHECK(smask_splitmask_loss(&c, &v, &t, NULL, images, COUNT, &out)
        == NULL);
    SAME(smask_error(&c), SMASK_ARG);
    smask_clear(&c);
    CHECK(smask_splitmask_loss(&c, &v, &t, NULL, images, 0, &out) == NULL);
    CHECK(smask_error(&c) != SMASK_OK);
    smask_clear(&c);

    /* models are made between steps */
    SAME(smask_vit_init(&c, &v, &model), SMASK_STATE);
    smask_clear(&c);
    smask_end_step(&c);
    smask_shutdown(&c);

    /* shapes that make no sense */
    SAME(smask_setup(&c, NULL), SMASK_OK);
    model = model_of(0);
    model.patch = 5;
    SAME(smask_vit_init(&c, &v, &model), SMASK_ARG);
    smask_clear(&c);
    model = model_of(0);
    model.heads = 5;
    SAME(smask_vit_init(&c, &v, &model), SMASK_ARG);
    smask_shutdown(&c);
}

/* One image has no negatives: the match is 0, the rest learns. */
static void one_image(void)
{
    run r;

    if (!CHECK(start(&r, 0, NULL))) return;
    smask_begin_step(&r.c);
    SAME(smask_backward(&r.c, loss_of(&r, images, 1)), SMASK_OK);
    NEAR(r.out.match, 0, 1e-6);
    CHECK(r.out.inpaint > 0);
    SAME(r.out.predictions, 16);
    SAME(smask_adam_update(&r.c, &r.a, &r.v.params), SMASK_OK);
    smask_end_step(&r.c);
    SAME(smask_error(&r.c), SMASK_OK);
    smask_shutdown(&r.c);
}

int main(void)
{
    draw_images();
    RUN(splitmask_overfits);
    RUN(beit_overfits);
    RUN(same_bits);
    RUN(seeds);
    RUN(isas_agree);
    RUN(allocates_nothing);
    RUN(bad_pixels);
    RUN(bad_gradients);
    RUN(given_tokens);
    RUN(refusals);
    RUN(one_image);
    return DONE("test_train");
}
