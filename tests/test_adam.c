/* AdamW, its schedule and the running mean of weights: one update against
   the formula in double, ten updates of a SplitMask model against PyTorch's
   own AdamW in float64 (fixtures/reference.py). */
#include "fixtures/cases.h"
#include "fixtures/reference_train.h"

/* ---------------------------------------------------------- one update */

static double rate_of(const smask_adam_desc *d, int64_t step)
{
    const double w = (double)d->warmup, all = (double)d->steps;
    const double s = (double)step;

    if (step < d->warmup) return (double)d->lr * s / w;
    if (d->steps == 0) return (double)d->lr;
    return (double)d->final_lr + ((double)d->lr - (double)d->final_lr)
        * (1 + cos(3.14159265358979323846 * fmin((s - w) / (all - w), 1)))
        / 2;
}

static void schedule(void)
{
    static const smask_adam_desc desc[4] = {
        { .lr = 1e-3f, .warmup = 10, .steps = 100, .final_lr = 1e-5f },
        { .lr = 1e-3f, .steps = 50, .final_lr = 1e-4f },
        { .lr = 2e-3f, .warmup = 7, .final_lr = 1e-5f },
        { .lr = 2e-3f, .final_lr = 1e-5f } };
    int i;

    for (i = 0; i < 4; i++) {
        smask_params none;
        smask_adam a;
        smask_ctx c;
        int64_t step;

        memset(&none, 0, sizeof none);
        SAME(fixture_setup(&c), SMASK_OK);
        SAME(smask_adam_init(&c, &a, &desc[i], &none), SMASK_OK);
        for (step = 0; step < 130; step++)
            NEAR(smask_adam_rate(&a, step), rate_of(&desc[i], step),
                1e-6 * (double)desc[i].lr);
        smask_shutdown(&c);
    }
}

static void defaults(void)
{
    smask_adam_desc wrong;
    smask_params none;
    smask_adam a;
    smask_ctx c;

    memset(&none, 0, sizeof none);
    SAME(fixture_setup(&c), SMASK_OK);
    SAME(smask_adam_init(&c, &a, NULL, &none), SMASK_OK);
    CHECK(a.desc.lr == 1.5e-3f && a.desc.eps == 1e-8f);
    CHECK(a.desc.beta1 == 0.9f && a.desc.beta2 == 0.98f);
    CHECK(a.desc.weight_decay == 0.05f && a.desc.clip == 3);
    CHECK(a.desc.layer_decay == 1 && a.desc.final_lr == 1e-5f);
    CHECK(a.desc.warmup == 0 && a.desc.steps == 0);
    CHECK(smask_adam_rate(&a, 1000000) == 1.5e-3f);
    memset(&wrong, 0, sizeof wrong);
    wrong.final_lr = -1;                 /* a cosine may end at 0          */
    wrong.steps = 10;
    SAME(smask_adam_init(&c, &a, &wrong, &none), SMASK_OK);
    CHECK(smask_adam_rate(&a, 10) == 0);
    wrong.weight_decay = (float)(HUGE_VAL - HUGE_VAL);
    SAME(smask_adam_init(&c, &a, &wrong, &none), SMASK_ARG);
    smask_clear(&c);
    wrong.weight_decay = 0;
    wrong.layer_decay = 1.5f;
    SAME(smask_adam_init(&c, &a, &wrong, &none), SMASK_ARG);
    smask_clear(&c);
    wrong.layer_decay = 0;
    wrong.lr = (float)HUGE_VAL;
    SAME(smask_adam_init(&c, &a, &wrong, &none), SMASK_ARG);
    smask_clear(&c);
    smask_shutdown(&c);
}

/* A list of three parameters, with the settings of a file's entry. */
typedef struct trio {
    smask_param item[3];
    smask_params list;
    double m[3][40], v[3][40], x[3][40];
} trio;

static void make_trio(smask_ctx *c, trio *t)
{
    static const int32_t rows[3] = { 4, 0, 5 }, columns[3] = { 7, 33, 8 };
    int i;
    size_t j;

    memset(t, 0, sizeof *t);
    t->list.item = t->item;
    t->list.count = t->list.capacity = 3;
    for (i = 0; i < 3; i++) {
        smask_param *p = &t->item[i];
        p->t = rows[i] ? smask_parameter(c, rows[i], columns[i], 0, 0)
            : smask_parameter(c, columns[i], 0, 0, 0);
        CHECK(p->t != NULL);
        snprintf(p->name, sizeof p->name, "p%d", i);
        p->decay = i != 1;
        p->layer = i;                /* embedding, block 1, head: L is 1   */
        fixture_fill(p->t->x, smask_count(p->t), p->name, 0, 1);
        for (j = 0; j < smask_count(p->t); j++)
            t->x[i][j] = (double)p->t->x[j];
    }
}

/* Gradients of this step, drawn; their global norm. */
static double draw_gradients(trio *t, int step, double scale)
{
    double norm = 0;
    char name[32];
    size_t j;
    int i;

    for (i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "g%d.%d", i, step);
        fixture_fill(t->item[i].t->dx, smask_count(t->item[i].t), name, 0,
            (float)scale);
        for (j = 0; j < smask_count(t->item[i].t); j++)
            norm += (double)t->item[i].t->dx[j] * (double)t->item[i].t->dx[j];
    }
    return sqrt(norm);
}

/* Algorithm 2 of Loshchilov & Hutter: decay beside the gradient. */
static void expect_update(trio *t, const smask_adam_desc *d, int step,
    double norm)
{
    const double clip = d->clip > 0 && norm > (double)d->clip
        ? (double)d->clip / norm : 1;
    int i;
    size_t j;

    for (i = 0; i < 3; i++) {
        const smask_param *p = &t->item[i];
        const double rate = rate_of(d, step)
            * pow((double)d->layer_decay, 2 - p->layer);
        for (j = 0; j < smask_count(p->t); j++) {
            const double b1 = (double)d->beta1, b2 = (double)d->beta2;
            const double g = (double)p->t->dx[j] * clip;
            double *m = &t->m[i][j], *v = &t->v[i][j], *x = &t->x[i][j];

            *m = b1 * *m + (1 - b1) * g;
            *v = b2 * *v + (1 - b2) * g * g;
            if (p->decay && d->weight_decay > 0)
                *x -= rate * (double)d->weight_decay * *x;
            *x -= rate * (*m / (1 - pow(b1, step + 1)))
                / (sqrt(*v / (1 - pow(b2, step + 1))) + (double)d->eps);
        }
    }
}

/* Fifty updates stay within float rounding of the formula: each adds half a
   unit in the last place of x, 6e-8, and a few units of an update of 0.02. */
static void follow(smask_adam_desc d, double scale)
{
    smask_adam a;
    smask_ctx c;
    trio t;
    int step, i;
    size_t j;

    SAME(fixture_setup(&c), SMASK_OK);
    make_trio(&c, &t);
    SAME(smask_adam_init(&c, &a, &d, &t.list), SMASK_OK);
    d = a.desc;
    for (step = 0; step < 50; step++) {
        double norm;
        smask_begin_step(&c);
        norm = draw_gradients(&t, step, scale);
        expect_update(&t, &d, step, norm);
        SAME(smask_adam_update(&c, &a, &t.list), SMASK_OK);
        smask_end_step(&c);
        SAME(a.step, step + 1);
        NEAR(a.norm, norm, 1e-6 * norm);
        NEAR(a.rate, rate_of(&d, step), 1e-8);
        for (i = 0; i < 3; i++)
            for (j = 0; j < smask_count(t.item[i].t); j++)
                CHECK(t.item[i].t->dx[j] == 0);
    }
    for (i = 0; i < 3; i++)
        for (j = 0; j < smask_count(t.item[i].t); j++)
            NEAR(t.item[i].t->x[j], t.x[i][j], 4e-6);
    smask_shutdown(&c);
}

static void updates(void)
{
    const smask_adam_desc base = { .lr = 0.02f };
    smask_adam_desc d = base;

    follow(d, 0.1);                      /* clip 3: never reached          */
    follow(d, 4);                        /* reached always                 */
    d.clip = -1;
    follow(d, 4);
    d = base;
    d.weight_decay = -1;
    follow(d, 0.1);
    d = base;
    d.weight_decay = 0.5f;
    d.layer_decay = 0.65f;
    d.warmup = 5;
    d.steps = 40;
    d.final_lr = 1e-3f;
    follow(d, 0.5);
    d = base;
    d.beta1 = 0.8f;
    d.beta2 = 0.999f;
    d.eps = 1e-3f;
    follow(d, 0.1);
}

/* A gradient that is not finite changes no weight and no moment. */
static void not_finite(void)
{
    static const float bad[3] = { (float)HUGE_VAL, -(float)HUGE_VAL, 0 };
    const smask_adam_desc d = { .lr = 0.02f };
    int k;

    for (k = 0; k < 3; k++) {
        float before[40], m[40], v[40];
        smask_adam a;
        smask_ctx c;
        trio t;
        int i;
        size_t j;

        SAME(fixture_setup(&c), SMASK_OK);
        make_trio(&c, &t);
        SAME(smask_adam_init(&c, &a, &d, &t.list), SMASK_OK);
        draw_gradients(&t, 0, 1);
        smask_begin_step(&c);
        SAME(smask_adam_update(&c, &a, &t.list), SMASK_OK);
        smask_end_step(&c);
        memcpy(before, t.item[2].t->x, sizeof before);
        memcpy(m, a.m[2], sizeof m);
        memcpy(v, a.v[2], sizeof v);
        draw_gradients(&t, 1, 1);
        t.item[1].t->dx[32] = k == 2 ? bad[0] - bad[0] : bad[k];
        smask_begin_step(&c);
        SAME(smask_adam_update(&c, &a, &t.list), SMASK_NUMERIC);
        smask_end_step(&c);
        SAME(a.step, 1);
        CHECK(memcmp(before, t.item[2].t->x, sizeof before) == 0);
        CHECK(memcmp(m, a.m[2], sizeof m) == 0);
        CHECK(memcmp(v, a.v[2], sizeof v) == 0);
        for (i = 0; i < 3; i++)
            for (j = 0; j < smask_count(t.item[i].t); j++)
                CHECK(t.item[i].t->dx[j] == 0);
        /* After smask_clear the run continues. */
        smask_clear(&c);
        draw_gradients(&t, 2, 1);
        smask_begin_step(&c);
        SAME(smask_adam_update(&c, &a, &t.list), SMASK_OK);
        smask_end_step(&c);
        SAME(a.step, 2);
        smask_shutdown(&c);
    }
}

static void running_mean(void)
{
    smask_ema e;
    smask_ctx c;
    trio t;
    double mean[40], now = 0;
    float x[40];
    int step;
    size_t j, n;

    SAME(fixture_setup(&c), SMASK_OK);
    make_trio(&c, &t);
    SAME(smask_ema_init(&c, &e, 0.9f, &t.list), SMASK_OK);
    n = smask_count(t.item[2].t);
    for (j = 0; j < n; j++) mean[j] = (double)t.item[2].t->x[j];
    for (step = 0; step < 20; step++) {
        fixture_fill(t.item[2].t->x, n, step % 2 ? "odd" : "even",
            (float)step, 1);
        for (j = 0; j < n; j++)
            mean[j] = 0.9 * mean[j] + 0.1 * (double)t.item[2].t->x[j];
        smask_ema_update(&c, &e, &t.list);
    }
    memcpy(x, t.item[2].t->x, sizeof x);
    smask_ema_swap(&c, &e, &t.list);
    for (j = 0; j < n; j++) {
        now = (double)t.item[2].t->x[j];
        NEAR(now, mean[j], 1e-5 * 20);
        CHECK(e.mean[2][j] == x[j]);
    }
    smask_ema_swap(&c, &e, &t.list);
    CHECK(memcmp(x, t.item[2].t->x, sizeof x) == 0);
    CHECK_TEXT(smask_detail(&c), "");
    smask_shutdown(&c);
}

/* Which parameters decay: not vectors, not the class token, not positions;
   mask tokens do (BEiT stores them as (1, 1, D)), and so does the table of
   relative positions. */
static void decay_wrong(void *user, const char *name, smask_tensor *t)
{
    const smask_params *p = (const smask_params *)user;
    int32_t i;
    const int wants = fixture_ends(name, "mask")
        || (smask_columns(t) < smask_count(t)
            && !fixture_ends(name, "position"));

    for (i = 0; i < p->count; i++)
        if (p->item[i].t == t && !CHECK(p->item[i].decay == wants))
            printf("    decay of %s is %d\n", name, (int)p->item[i].decay);
}

static void decays(void)
{
    const smask_vit_desc d = { CASE_BODY, .vocabulary = 24,
        .decoder_depth = 1, .class_token = 1, .mask_token = 1,
        .relative_bias = 1, .layer_scale = 0.1f, .classes = 5 };
    smask_vit v;
    smask_ctx c;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
    SAME(fixture_walk(&v, decay_wrong, &v.params), v.params.count);
    smask_shutdown(&c);
}

/* Sin-cos positions do not learn: no moments, no running mean, no change. */
static void fixed_positions(void)
{
    const smask_vit_desc d = { CASE_BODY, .class_token = 1, .sincos = 1 };
    float before[17 * 20];
    smask_vit v;
    smask_adam a;
    smask_ema e;
    smask_ctx c;
    int32_t i;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
    SAME(smask_adam_init(&c, &a, NULL, &v.params), SMASK_OK);
    SAME(smask_ema_init(&c, &e, 0.5f, &v.params), SMASK_OK);
    SAME(smask_count(v.position), sizeof before / sizeof *before);
    for (i = 0; i < v.params.count; i++) {
        const int fixed = v.params.item[i].t == v.position;
        CHECK((a.m[i] == NULL) == fixed && (a.v[i] == NULL) == fixed);
        CHECK((e.mean[i] == NULL) == fixed);
        v.params.item[i].t->dx[0] = 1;
    }
    memcpy(before, v.position->x, sizeof before);
    SAME(smask_adam_update(&c, &a, &v.params), SMASK_OK);
    smask_ema_update(&c, &e, &v.params);
    smask_ema_swap(&c, &e, &v.params);
    CHECK(memcmp(before, v.position->x, sizeof before) == 0);
    smask_shutdown(&c);
}

/* ---------------------------------------------------------- ten updates */

static int same_mask(const smask_mask *m, const int32_t **x)
{
    int branch, good = 1;
    int32_t i;

    for (branch = 0; branch < 2; branch++) {
        good &= m->visible[branch] == *(*x)++;
        good &= m->masked[branch] == *(*x)++;
        for (i = 0; good && i < m->B * m->visible[branch]; i++)
            good = m->visible_at[branch][i] == *(*x)++;
        for (i = 0; good && i < m->B * m->masked[branch]; i++)
            good = m->masked_at[branch][i] == *(*x)++;
    }
    return good;
}

/* The bias of the keys adds the same to all scores of a query, so its gradient
   is zero apart from rounding. Adam divides rounding by its own size: these
   entries drift, by at most a rate a step, and change nothing. They are set
   to their first values before the comparison, here and in reference.py. */
static void still_keys(smask_block *k, int32_t count, const char *part)
{
    int32_t i;

    for (i = 0; i < count; i++, k++) {
        const size_t D = smask_columns(k->qkv_w);
        float first[3 * 64];
        char name[32];
        double max = 0;
        size_t j;

        snprintf(name, sizeof name, "%s.%d.qkv_b", part, (int)i);
        fixture_fill(first, 3 * D, name, 0, 0.25f);
        for (j = D; j < 2 * D; j++) {
            max = fmax(max, fabs((double)(k->qkv_b->x[j] - first[j])));
            k->qkv_b->x[j] = first[j];
        }
        CHECK(max <= TRAIN_STEPS * (double)train_adam.lr);
    }
}

/* Tolerances. The losses: as all values. The weights: Adam moves every
   entry by about the rate, however small its gradient is, so rounding in
   a gradient that is small beside others of its tensor weighs more than
   in the gradient itself: with an error of 1e-6 of the largest gradient,
   an entry whose gradient is 1e-3 of that is wrong by 1e-3 of a rate of
   0.004. That is 1e-5 of weights near 0.5, and twice this is allowed; the
   ten updates move them by some 4e-2. */
static void ten_updates(void)
{
    const fixture_case *k = &train_case;
    const int32_t *mask = reference_train_masks;
    float losses[TRAIN_STEPS], norms[TRAIN_STEPS], rates[TRAIN_STEPS];
    smask_tokenizer t;
    smask_losses out;
    smask_adam a;
    smask_vit v;
    smask_ctx c;
    int step;

    memset(losses, 0, sizeof losses);
    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    SAME(smask_adam_init(&c, &a, &train_adam, &v.params), SMASK_OK);
    for (step = 0; step < TRAIN_STEPS; step++) {
        float *images = case_images(k, step);
        int32_t *tokens = case_tokens(k, step);

        case_seed(&c, step);
        smask_begin_step(&c);
        SAME(smask_backward(&c, case_loss(&c, &v, &t, k, images, tokens,
            &out)), SMASK_OK);
        SAME(smask_adam_update(&c, &a, &v.params), SMASK_OK);
        if (smask_error(&c) == SMASK_OK) CHECK(same_mask(&out.mask, &mask));
        losses[step] = out.total;
        norms[step] = a.norm;
        rates[step] = a.rate;
        smask_end_step(&c);
        free(images);
        free(tokens);
    }
    CHECK_TEXT(smask_detail(&c), "");
    VALUES(&reference_train, "rates", rates, TRAIN_STEPS);
    VALUES(&reference_train, "losses", losses, TRAIN_STEPS);
    GRADIENT(&reference_train, "norms", norms, TRAIN_STEPS);
    still_keys(v.blocks, v.desc.depth, "blocks");
    still_keys(v.decoder, v.desc.decoder_depth, "decoder");
    fixture_compare(&v, &reference_train, "final", 1, 2e-5);
    smask_shutdown(&c);
}

static void all(void)
{
    RUN(updates);
    RUN(not_finite);
    RUN(running_mean);
    RUN(ten_updates);
}

int main(void)
{
    RUN(schedule);
    RUN(defaults);
    RUN(decays);
    RUN(fixed_positions);
    fixture_each_isa(all);
    return DONE("test_adam");
}
