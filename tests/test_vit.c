/* The vision transformer against PyTorch in float64 (fixtures/reference.py),
   and what holds for any weights: the encoding of one view does not depend
   on the other, and how a model is run does not change its bits.

   Values to a relative error of 1e-5, gradients to 1e-4: the largest
   absolute difference in a tensor over the largest absolute reference. */
#include "fixtures/cases.h"
#include "fixtures/reference_vit.h"

static smask_vit_desc body(void)
{
    const smask_vit_desc d = { CASE_BODY };
    return d;
}

/* ----------------------------------------------------- reference values */

/* The blocks of the vit, under CASE.blocks.0.NAME. */
static void block_gradient(void *user, const char *name, smask_tensor *t)
{
    if (strncmp(name, "blocks.0.", 9) == 0) fixture_gradient(user, name, t);
}

static void one_block(void)
{
    static char name[3][16] = { "block", "block_scale", "block_bias" };
    int i;

    for (i = 0; i < 3; i++) {
        fixture_gradients g = { &reference_vit, NULL, 0, 1e-4 };
        smask_vit_desc d = body();
        smask_user_op sum;
        smask_tensor *x, *y;
        smask_vit v;
        smask_ctx c;
        char full[64];

        d.depth = 1;
        d.layer_scale = i == 1 ? 0.1f : 0;
        d.relative_bias = i == 2 ? 2 : 0;
        SAME(fixture_setup(&c), SMASK_OK);
        SAME(fixture_model(&c, &v, &d), SMASK_OK);
        x = fixture_parameter(&c, "block/x", 0, 2, 2, 16, 20);
        smask_begin_step(&c);
        y = smask_vit_block(&c, &v, v.blocks, x, v.blocks->bias);
        SAME(smask_backward(&c, fixture_sum(&c, &sum, y, name[i])),
            SMASK_OK);
        CHECK_TEXT(smask_detail(&c), "");
        if (smask_error(&c) == SMASK_OK) {
            snprintf(full, sizeof full, "%s.y", name[i]);
            VALUES(&reference_vit, full, y->x, smask_count(y));
            snprintf(full, sizeof full, "%s.x", name[i]);
            GRADIENT(&reference_vit, full, x->dx, smask_count(x));
            g.prefix = name[i];
            fixture_walk(&v, block_gradient, &g);
        }
        smask_end_step(&c);
        smask_shutdown(&c);
    }
}

static int rising(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

    return x < y ? -1 : x > y;
}

/* For each of two images, 6 drawn patches belong to A and 10 to B; index
   has for each patch its row of A, then of B, and -1 where it has none. */
static void draw_halves(int32_t *index)
{
    uint64_t s = fixture_seed("decoder/seen");
    int32_t image, i, at[16];

    for (i = 0; i < 64; i++) index[i] = -1;
    for (image = 0; image < 2; image++) {
        for (i = 0; i < 16; i++) at[i] = i;
        for (i = 15; i > 0; i--) {
            const int32_t j = fixture_below(&s, i + 1), t = at[i];
            at[i] = at[j];
            at[j] = t;
        }
        qsort(at, 6, sizeof *at, rising);
        qsort(at + 6, 10, sizeof *at, rising);
        for (i = 0; i < 6; i++) index[image * 16 + at[i]] = image * 6 + i;
        for (i = 0; i < 10; i++)
            index[32 + image * 16 + at[6 + i]] = 12 + image * 10 + i;
    }
}

static void decoder_gradient(void *user, const char *name, smask_tensor *t)
{
    if (strncmp(name, "norm_", 5) == 0
        || strncmp(name, "decoder_embed_", 14) == 0
            || strncmp(name, "decoder", 7) == 0)
        fixture_gradient(user, name, t);
}

static void decoder(void)
{
    static char name[] = "decoder";
    fixture_gradients g = { &reference_vit, NULL, 0, 1e-4 };
    const smask_vit_desc d = { CASE_SPLIT };
    smask_user_op sum;
    smask_tensor *a, *b, *y;
    int32_t index[64];
    smask_vit v;
    smask_ctx c;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &d), SMASK_OK);
    a = fixture_parameter(&c, "decoder/a", 0, 1, 2, 6, 20);
    b = fixture_parameter(&c, "decoder/b", 0, 1, 2, 10, 20);
    draw_halves(index);
    smask_begin_step(&c);
    y = smask_vit_decode(&c, &v, a, b, index, 4);
    SAME(smask_backward(&c, fixture_sum(&c, &sum, y, name)), SMASK_OK);
    CHECK_TEXT(smask_detail(&c), "");
    if (smask_error(&c) == SMASK_OK) {
        VALUES(&reference_vit, "decoder.y", y->x, smask_count(y));
        GRADIENT(&reference_vit, "decoder.a", a->dx, smask_count(a));
        GRADIENT(&reference_vit, "decoder.b", b->dx, smask_count(b));
        g.prefix = name;
        fixture_walk(&v, decoder_gradient, &g);
    }
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* Values of CASE.WHAT. */
static void compare_values(const fixture_case *k, const char *what,
    const float *x, size_t count)
{
    char full[64];

    snprintf(full, sizeof full, "%s.%s", k->name, what);
    VALUES(&reference_vit, full, x, count);
}

static void features_of(smask_ctx *c, const smask_vit *v,
    const fixture_case *k, const float *images)
{
    const size_t count = (size_t)((k->model.depth + 1) * k->B
        * k->model.dim);
    float *out = (float *)malloc(count * sizeof *out);

    CHECK(out != NULL);
    smask_begin_step(c);
    SAME(smask_vit_features(c, v, images, k->B, out), SMASK_OK);
    smask_end_step(c);
    compare_values(k, "features", out, count);
    free(out);
}

static void encode_case(const fixture_case *k)
{
    float *images = case_images(k, 0);
    smask_tensor *y, *pooled = NULL;
    smask_user_op sum;
    smask_vit v;
    smask_ctx c;
    char name[32];

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    snprintf(name, sizeof name, "%s", k->name);
    smask_begin_step(&c);
    if (k->kind == CASE_CLASSIFY) {
        y = smask_vit_classify(&c, &v, images, k->B);
    } else {
        y = smask_vit_encode(&c, &v, images, k->B);
        pooled = smask_vit_pool(&c, &v, y);
    }
    CHECK_TEXT(smask_detail(&c), "");
    if (y != NULL)
        compare_values(k, k->kind == CASE_CLASSIFY ? "scores" : "tokens",
            y->x, smask_count(y));
    if (pooled != NULL)
        compare_values(k, "pooled", pooled->x, smask_count(pooled));
    if (pooled != NULL || k->kind == CASE_CLASSIFY) {
        const smask_tensor *t = pooled != NULL ? pooled : y;
        CHECK(t != NULL && t->rank == 2);
        if (t != NULL) SAME(t->shape[0], k->B);
        if (t != NULL)
            SAME(t->shape[1], pooled != NULL ? k->model.dim
                : k->model.classes);
    }
    if (k->model.sincos && v.position != NULL)
        compare_values(k, "table", v.position->x, smask_count(v.position));
    SAME(smask_backward(&c, fixture_sum(&c, &sum, y, name)), SMASK_OK);
    fixture_compare(&v, &reference_vit, k->name, 0, 1e-4);
    smask_end_step(&c);
    if (k->kind == CASE_ENCODE) features_of(&c, &v, k, images);
    CHECK_TEXT(smask_detail(&c), "");
    smask_shutdown(&c);
    free(images);
}

static void encoders(void)
{
    int i;

    for (i = 0; i < ENCODER_CASES; i++) encode_case(&encoder_cases[i]);
}

/* --------------------------------------------------------- the two views */

/* The encoder's part of SplitMask in public functions: embed all patches,
   gather the visible ones, run the blocks. `at` (B, visible). */
static smask_tensor *see(smask_ctx *c, const smask_vit *v,
    const float *images, int32_t B, const int32_t *at, int32_t visible)
{
    int32_t *row = (int32_t *)smask_alloc(c, (size_t)(B * visible)
        * sizeof *row);
    smask_tensor *x = smask_vit_embed(c, v, images, B);
    int32_t i;

    x = smask_gather(c, x, B, v->tokens, NULL, NULL, v->position);
    for (i = 0; row != NULL && i < B * visible; i++)
        row[i] = i / visible * v->tokens + at[i];
    return smask_vit_blocks(c, v, smask_gather(c, x, B, visible, row, NULL,
        NULL));
}

/* Overwrite the pixels of patch `n` of an image. */
static void spoil(float *image, const smask_vit *v, int32_t n,
    smask_random *r)
{
    const int32_t P = v->desc.patch, S = v->desc.image, G = v->grid;
    int32_t ch, y, x;

    for (ch = 0; ch < v->desc.channels; ch++)
        for (y = 0; y < P; y++)
            for (x = 0; x < P; x++)
                image[(ch * S + n / G * P + y) * S + n % G * P + x]
                    = 9 * smask_normal(r);
}

/* New pixels everywhere except in the visible patches of `branch`. */
static void spoil_unseen(float *images, const smask_vit *v,
    const smask_mask *m, int branch, smask_random *r)
{
    const size_t one = (size_t)(v->desc.channels * v->desc.image
        * v->desc.image);
    int32_t b, n, s;

    for (b = 0; b < m->B; b++)
        for (n = 0; n < m->N; n++) {
            int visible = 0;
            for (s = 0; s < m->visible[branch]; s++)
                visible |= n
                    == m->visible_at[branch][b * m->visible[branch] + s];
            if (!visible) spoil(images + (size_t)b * one, v, n, r);
        }
}

/* The encoding of a view has the same bits whatever the other view holds.
   The encoder has no mask token and one row per visible patch. A change of
   a visible pixel does change it. */
static void halves_are_blind(void)
{
    const smask_vit_desc d = { CASE_SPLIT };
    const int32_t B = 3;
    const size_t pixels = 3 * 3 * 16 * 16;
    float *images, other[3 * 3 * 16 * 16];
    int kind, branch;
    smask_random r;
    smask_vit v;
    smask_ctx c;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    SAME(fixture_model(&c, &v, &d), SMASK_OK);
    CHECK(v.mask == NULL);
    smask_seed(&r, 5, 0);
    images = fixture_images(&v.desc, B, "images.0");
    for (kind = 0; kind < 4; kind++)
        for (branch = 0; branch < 2; branch++) {
            smask_tensor *x, *y, *z;
            smask_mask m;
            int32_t first;

            smask_begin_step(&c);
            SAME(smask_mask_split(&c, B, v.grid, (smask_mask_kind)kind,
                kind < 2 ? 0.5f : 0.75f, &m), SMASK_OK);
            SAME(m.visible[branch], kind < 2 ? 8 : 4);
            memcpy(other, images, sizeof other);
            spoil_unseen(other, &v, &m, branch, &r);
            CHECK(memcmp(other, images, sizeof other) != 0);
            x = see(&c, &v, images, B, m.visible_at[branch], m.visible[branch]);
            y = see(&c, &v, other, B, m.visible_at[branch], m.visible[branch]);
            first = m.visible_at[branch][0];
            spoil(other, &v, first, &r);
            z = see(&c, &v, other, B, m.visible_at[branch], m.visible[branch]);
            CHECK_TEXT(smask_detail(&c), "");
            if (z != NULL) {
                SAME(smask_count(x), B * m.visible[branch] * v.desc.dim);
                CHECK(memcmp(x->x, y->x, smask_count(x) * sizeof(float))
                    == 0);
                CHECK(memcmp(x->x, z->x, smask_count(x) * sizeof(float))
                    != 0);
            }
            smask_end_step(&c);
        }
    SAME(pixels, sizeof other / sizeof *other);
    smask_shutdown(&c);
    free(images);
}

/* By default each patch is visible to one view and predicted by the
   other, once. */
static void each_patch_once(void)
{
    static const int32_t grid[4] = { 4, 5, 8, 14 };
    const int32_t B = 5;
    smask_ctx c;
    int i, branch;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    for (i = 0; i < 4; i++) {
        const int32_t N = grid[i] * grid[i];
        int32_t b, k;
        smask_mask m;

        smask_begin_step(&c);
        SAME(smask_mask_split(&c, B, grid[i], SMASK_MASK_BLOCKS, 0.5f, &m),
            SMASK_OK);
        SAME(m.masked[0] + m.masked[1], N);
        SAME(m.masked[0], m.visible[1]);
        SAME(m.masked[1], m.visible[0]);
        for (b = 0; b < B; b++) {
            int visible[196] = { 0 }, predicted[196] = { 0 };
            for (branch = 0; branch < 2; branch++) {
                for (k = 0; k < m.visible[branch]; k++)
                    visible[m.visible_at[branch][b * m.visible[branch] + k]]
                        += 1 + branch;
                for (k = 0; k < m.masked[branch]; k++)
                    predicted[m.masked_at[branch][b * m.masked[branch] + k]]
                        += 2 - branch;
            }
            for (k = 0; k < N; k++) {
                CHECK(visible[k] == 1 || visible[k] == 2);
                SAME(predicted[k], visible[k]);
            }
        }
        smask_end_step(&c);
    }
    smask_shutdown(&c);
}

/* Embed, split, blocks, decode, predict and match, called one by one, give
   the same numbers as the loss. */
static void loss_is_its_parts(void)
{
    const fixture_case *k = &objective_cases[0];
    const int32_t B = k->B, N = 16;
    smask_tensor *loss, *half[2], *full, *z, *inpaint, *match;
    int32_t index[2 * 3 * 16], at[3 * 16], label[3 * 16], i, j, branch;
    float *images = case_images(k, 0);
    int32_t *tokens = case_tokens(k, 0), hits = 0, hits_match = 0;
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    case_seed(&c, 0);
    smask_begin_step(&c);
    loss = case_loss(&c, &v, &t, k, images, tokens, &out);
    CHECK(loss != NULL);
    if (loss == NULL) return;
    for (i = 0; i < 2 * B * N; i++) index[i] = -1;
    for (branch = 0, j = 0; branch < 2; branch++) {
        const int32_t S = out.mask.visible[branch];
        const int32_t M = out.mask.masked[branch];
        const int32_t before = branch ? B * out.mask.visible[0] : 0;
        half[branch] = see(&c, &v, images, B, out.mask.visible_at[branch], S);
        for (i = 0; i < B * S; i++)
            index[(branch * B + i / S) * N + out.mask.visible_at[branch][i]]
                = before + i;
        for (i = 0; i < B * M; i++, j++) {
            const int32_t n = out.mask.masked_at[branch][i];
            at[j] = (branch * B + i / M) * N + n;
            label[j] = tokens[i / M * N + n];
        }
    }
    SAME(j, B * N);
    full = smask_vit_decode(&c, &v, half[0], half[1], index, 2 * B);
    z = smask_gather(&c, full, 1, j, at, NULL, NULL);
    inpaint = smask_linear_cross_entropy(&c, z, v.head_w, v.head_b, label,
        NULL, &hits);
    for (branch = 0; branch < 2; branch++)
        half[branch] = smask_mean_tokens(&c, smask_layernorm(&c, half[branch],
            v.norm_w, v.norm_b), 0);
    match = smask_info_nce(&c, smask_l2_normalize(&c, smask_join(&c, half,
        2)), 0.2f, 0, 0, &hits_match);
    CHECK(inpaint != NULL && match != NULL);
    if (match != NULL && inpaint != NULL) {
        NEAR(out.inpaint, inpaint->x[0], 1e-6 * (double)out.inpaint);
        NEAR(out.match, match->x[0], 1e-6 * (double)out.match);
        NEAR(out.total, inpaint->x[0] + match->x[0],
            1e-6 * (double)out.total);
        NEAR(loss->x[0], out.total, 0);
        NEAR(out.accuracy, (double)hits / (B * N), 1e-6);
        NEAR(out.match_accuracy, (double)hits_match / (2 * B), 1e-6);
        SAME(out.predictions, B * N);
    }
    smask_end_step(&c);
    smask_shutdown(&c);
    free(images);
    free(tokens);
}

/* -------------------------------------------------- the same, run anew */

/* One step's loss and, optionally, all gradients; a copy in malloc. */
typedef struct outcome { float loss, *gradient; size_t count; } outcome;

/* The name of the one weight that is not held fixed, if any are. */
static const char *only;

static outcome run(const fixture_case *k, const smask_vit_desc *model,
    const float *weights, int grad)
{
    outcome r = { 0, NULL, 0 };
    float *images = case_images(k, 0);
    int32_t *tokens = case_tokens(k, 0), i;
    smask_vit_desc d = *model;
    smask_tensor *loss;
    smask_desc desc;
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;

    memset(&desc, 0, sizeof desc);
    desc.inference = weights != NULL;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    d.weights = weights;
    if (weights != NULL) SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
    else SAME(fixture_model(&c, &v, &d), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    for (i = 0; only != NULL && i < v.params.count; i++)
        v.params.item[i].t->requires_grad = &v.params.item[i]
            == smask_params_find(&v.params, only);
    v.training = 1;
    case_seed(&c, 0);
    smask_record(&c, grad);
    smask_begin_step(&c);
    loss = case_loss(&c, &v, &t, k, images, tokens, &out);
    CHECK_TEXT(smask_detail(&c), "");
    CHECK(loss != NULL);
    if (loss != NULL) r.loss = loss->x[0];
    if (grad) {
        SAME(smask_backward(&c, loss), SMASK_OK);
        r.count = smask_params_count(&v.params);
        r.gradient = (float *)calloc(r.count, sizeof(float));
        for (i = 0, r.count = 0; i < v.params.count; i++) {
            const smask_tensor *p = v.params.item[i].t;
            if (p->dx != NULL)
                memcpy(r.gradient + r.count, p->dx,
                    smask_count(p) * sizeof(float));
            r.count += smask_count(p);
        }
    }
    smask_end_step(&c);
    smask_shutdown(&c);
    free(images);
    free(tokens);
    return r;
}

static void same_outcome(outcome a, outcome b)
{
    CHECK(a.loss == b.loss);
    CHECK(a.loss > 0);
    SAME(a.count, b.count);
    if (a.gradient != NULL && b.gradient != NULL)
        CHECK(memcmp(a.gradient, b.gradient, a.count * sizeof(float)) == 0);
    free(a.gradient);
    free(b.gradient);
}

/* Blocks that backward recomputes give the same bits, also with stochastic
   depth, which does not draw again. */
static void recompute(void)
{
    int i, drop;

    for (i = 0; i < OBJECTIVE_CASES; i++)
        for (drop = 0; drop < 2; drop++) {
            const fixture_case *k = &objective_cases[i];
            smask_vit_desc once = k->model, twice = k->model;

            once.drop_path = twice.drop_path = drop ? 0.5f : 0;
            twice.recompute = 1;
            same_outcome(run(k, &once, NULL, 1), run(k, &twice, NULL, 1));
        }
}

/* Image by image through the blocks, or all together: the same, except that
   gradients of weights are summed in another order. A float's rounding of 2^-24
   on each of a few hundred terms, signs at random, stays below 2e-6 of the
   largest gradient; the loss is a mean of as many. */
static void near_outcome(outcome a, outcome b)
{
    size_t j;
    float max = 0;

    NEAR(b.loss, a.loss, 1e-6 * (double)a.loss);
    SAME(a.count, b.count);
    for (j = 0; j < a.count; j++)
        if (fabsf(a.gradient[j]) > max) max = fabsf(a.gradient[j]);
    CHECK(max > 0);
    for (j = 0; j < a.count && j < b.count; j++)
        NEAR(b.gradient[j], a.gradient[j], 2e-6 * (double)max);
    free(a.gradient);
    free(b.gradient);
}

/* With groups, recomputing and not recording give the same bits. LayerScale
   is the exception: without recomputing it is scaled once for all groups,
   which changes the order of its sums. */
static void groups(void)
{
    int i;

    for (i = 0; i < OBJECTIVE_CASES; i++) {
        const fixture_case *k = &objective_cases[i];
        smask_vit_desc alone = k->model, again;
        outcome a, b;

        alone.group = 1;
        b = run(k, &alone, NULL, 1);
        a = run(k, &alone, NULL, 0);
        CHECK(a.loss == b.loss);
        near_outcome(run(k, &k->model, NULL, 1), b);
        alone.drop_path = 0.5f;
        again = alone;
        again.recompute = 1;
        a = run(k, &alone, NULL, 1);
        b = run(k, &again, NULL, 1);
        if (k->model.layer_scale > 0) near_outcome(a, b);
        else same_outcome(a, b);
    }
}

/* All weights but one held fixed: its gradient stays what it was. Behind a
   fixed part no gradient flows, so attention, whose output backward normally
   recomputes, has to keep it. The recomputed output divides by the sum of the
   weights before the product, not after: a rounding of 2^-24 on each of a
   few terms, as in `groups` above. */
static void fixed(void)
{
    static const char *const names[] = { "blocks.0.attn.proj.weight",
        "blocks.1.attn.proj.weight", "blocks.0.attn.qkv.weight",
        "blocks.1.attn.proj.bias", "blocks.0.mlp.fc1.weight" };
    const fixture_case *k = &objective_cases[0];
    size_t i, j, gradients = 0;

    for (i = 0; i < sizeof names / sizeof *names; i++) {
        const outcome a = run(k, &k->model, NULL, 1);
        outcome b;
        float max = 0;

        only = names[i];
        b = run(k, &k->model, NULL, 1);
        only = NULL;
        CHECK(a.loss == b.loss);
        SAME(a.count, b.count);
        for (j = 0; j < b.count; j++)
            if (fabsf(b.gradient[j]) > max) max = fabsf(b.gradient[j]);
        for (j = 0; j < b.count; j++) {
            if (b.gradient[j] == 0) continue;
            gradients++;
            NEAR(b.gradient[j], a.gradient[j], 2e-6 * (double)max);
        }
        free(a.gradient);
        free(b.gradient);
    }
    CHECK(gradients > 100);
}

/* No recording, no gradients: the same bits. */
static void inference(void)
{
    int i;

    for (i = 0; i < OBJECTIVE_CASES; i++) {
        const fixture_case *k = &objective_cases[i];
        const outcome a = run(k, &k->model, NULL, 1);
        const outcome b = run(k, &k->model, NULL, 0);

        CHECK(a.loss == b.loss);
        free(a.gradient);
    }
    for (i = 0; i < ENCODER_CASES; i++) {
        const fixture_case *k = &encoder_cases[i];
        float *images = case_images(k, 0), *first = NULL;
        size_t count = 0;
        int mode;

        for (mode = 0; mode < 5; mode++) {
            smask_desc desc;
            smask_tensor *y;
            smask_vit v;
            smask_ctx c;

            memset(&desc, 0, sizeof desc);
            desc.inference = mode >= 2;
            SAME(smask_setup(&c, &desc), SMASK_OK);
            SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
            v.training = 1;              /* no drop path: no difference    */
            if (mode >= 3) SAME(smask_vit_pack(&c, &v), SMASK_OK);
            if (mode == 4) {             /* pack again, other weights      */
                float *const w = v.blocks[0].up_w->x, old = w[1];
                w[1] = 100;
                SAME(smask_vit_pack(&c, &v), SMASK_OK);
                w[1] = old;              /* the packed copy keeps 100      */
            }
            smask_record(&c, mode == 0);
            smask_begin_step(&c);
            y = smask_vit_encode(&c, &v, images, k->B);
            CHECK(y != NULL);
            if (y != NULL && first == NULL) {
                count = smask_count(y);
                first = (float *)malloc(count * sizeof *first);
                memcpy(first, y->x, count * sizeof *first);
            } else if (y != NULL) {
                SAME(smask_count(y), count);
                CHECK((memcmp(first, y->x, count * sizeof *first) == 0)
                    == (mode < 4));
            }
            SAME(smask_vit_pack(&c, &v), SMASK_STATE);       /* in a step  */
            smask_end_step(&c);
            smask_shutdown(&c);
        }
        free(first);
        free(images);
    }
}

/* Stochastic depth: off outside training. In training, a branch is left
   out with probability p, image by image, or counts 1 / (1 - p); the two
   branches of a block draw on their own. `mlp` 0: the second gives zero. p
   rises from 0 in the first block to drop_path in the last. */
static void depth_draws(int mlp)
{
    const int draws = 4000;
    smask_vit_desc d = body();
    float first[16 * 20];
    double full;
    smask_tensor *x, *y;
    smask_block *k;
    smask_vit v;
    smask_ctx c;
    int i, none = 0, some = 0;

    d.depth = 3;
    d.drop_path = 0.25f;
    SAME(smask_setup(&c, NULL), SMASK_OK);
    SAME(fixture_model(&c, &v, &d), SMASK_OK);
    k = &v.blocks[2];
    NEAR(v.blocks[0].drop, 0, 0);
    NEAR(v.blocks[1].drop, 0.125, 1e-7);
    NEAR(k->drop, 0.25, 1e-7);
    if (!mlp) {
        memset(k->down_w->x, 0, 20 * 40 * sizeof(float));
        memset(k->down_b->x, 0, 20 * sizeof(float));
    }
    fixture_fill(first, 16 * 20, "block/x", 0, 2);
    smask_record(&c, 0);
    for (v.training = 0, full = 0, i = -1; i < draws; i++) {
        double step = -1;
        smask_begin_step(&c);
        x = smask_input(&c, first, 1, 16, 20, 0);
        y = smask_vit_block(&c, &v, k, x, NULL);
        if (y != NULL) step = (double)y->x[7] - (double)first[7];
        smask_end_step(&c);
        if (v.training) {
            none += fabs(step) <= 0;
            some += fabs(step) > 0;
            if (!mlp && fabs(step) > 0)
                NEAR(step, full / 0.75, 1e-5 * fabs(full));
        } else {
            full = step;
            CHECK(fabs(full) > 0.01);
        }
        v.training = 1;
    }
    CHECK_TEXT(smask_detail(&c), "");
    SAME(none + some, draws);
    /* Four standard deviations of `draws` coins of p, or of p squared. */
    NEAR(none, mlp ? 250 : 1000, mlp ? 61 : 110);
    smask_shutdown(&c);
}

static void stochastic_depth(void)
{
    depth_draws(0);
    depth_draws(1);
}

/* ------------------------------------------------------------- weights */

/* desc.weights: read in the order of params, never written, and the same
   model as one with these values copied in. They are for inference: a model
   that learns would have to write them. */
static void given_weights(void)
{
    int i;

    for (i = 0; i < OBJECTIVE_CASES; i++) {
        const fixture_case *k = &objective_cases[i];
        smask_vit_desc d = k->model;
        float *flat, *copy;
        size_t count = 0, at = 0;
        int32_t j;
        smask_vit v;
        smask_ctx c;

        SAME(smask_setup(&c, NULL), SMASK_OK);
        SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
        count = smask_params_count(&v.params);
        flat = (float *)malloc(count * sizeof *flat);
        copy = (float *)malloc(count * sizeof *copy);
        CHECK(flat != NULL && copy != NULL);
        for (j = 0; j < v.params.count; j++) {
            const smask_tensor *p = v.params.item[j].t;
            memcpy(flat + at, p->x, smask_count(p) * sizeof *flat);
            at += smask_count(p);
        }
        SAME(at, count);
        memcpy(copy, flat, count * sizeof *copy);
        smask_shutdown(&c);
        same_outcome(run(k, &d, NULL, 0), run(k, &d, flat, 0));
        CHECK(memcmp(flat, copy, count * sizeof *flat) == 0);
        SAME(smask_setup(&c, NULL), SMASK_OK);
        d.weights = flat;
        SAME(smask_vit_init(&c, &v, &d), SMASK_STATE);
        CHECK(strstr(smask_detail(&c), "inference") != NULL);
        smask_shutdown(&c);
        free(flat);
        free(copy);
    }
}

/* The same seed draws the same model, another seed another one. */
static void seeds(void)
{
    const smask_vit_desc d = { CASE_SPLIT, .class_token = 1,
        .relative_bias = 2, .layer_scale = 0.1f };
    float first[3] = { 0, 0, 0 };
    int i;

    for (i = 0; i < 3; i++) {
        smask_desc desc;
        smask_vit v;
        smask_ctx c;

        memset(&desc, 0, sizeof desc);
        desc.seed = i == 2 ? 8 : 7;
        SAME(smask_setup(&c, &desc), SMASK_OK);
        SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
        first[i] = v.head_w->x[5];
        smask_shutdown(&c);
    }
    CHECK(first[0] == first[1]);
    CHECK(first[0] != first[2]);
}

/* The standard deviation of a matrix; no entry is beyond `max`. */
static double deviation(const smask_tensor *t, double max)
{
    double sum = 0;
    size_t i;

    for (i = 0; i < smask_count(t); i++) {
        sum += (double)t->x[i] * (double)t->x[i];
        CHECK(fabs((double)t->x[i]) <= max * (1 + 1e-6));
    }
    return sqrt(sum / (double)smask_count(t));
}

static int all(const smask_tensor *t, float value)
{
    size_t i;

    for (i = 0; i < smask_count(t); i++) if (t->x[i] != value) return 0;
    return 1;
}

/* First values: matrices normal with init_std, redrawn beyond two
   deviations, which leaves 0.8796 of the deviation; the outputs of block l
   (from 1) divided by sqrt(2 l); norms 1, biases 0, LayerScale as set,
   relative positions 0. */
static void first_values(void)
{
    const smask_vit_desc d = { .image = 16, .dim = 64, .depth = 3,
        .heads = 2, .relative_bias = 1, .layer_scale = 0.1f,
        .class_token = 1, .mask_token = 1, .classes = 10 };
    const double std = 0.02 * 0.8796;
    smask_vit v;
    smask_ctx c;
    int i;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
    /* The deviation of a sample of n has itself a deviation of less than
       1 / sqrt(2 n) of it: 0.013 for the smallest matrix (3072 entries),
       0.022 for the positions (1088). Four of these are allowed. */
    NEAR(deviation(v.patch_w, 0.04), std, std * 0.052);
    NEAR(deviation(v.position, 0.04), std, std * 0.088);
    CHECK(all(v.norm_w, 1) && all(v.norm_b, 0) && all(v.patch_b, 0));
    CHECK(all(v.bias, 0));
    CHECK(!all(v.cls, 0) && !all(v.mask, 0));
    for (i = 0; i < 3; i++) {
        const smask_block *k = &v.blocks[i];
        const double deep = sqrt(2.0 * (i + 1));

        NEAR(deviation(k->qkv_w, 0.04), std, std * 0.052);
        NEAR(deviation(k->up_w, 0.04), std, std * 0.052);
        NEAR(deviation(k->out_w, 0.04 / deep) * deep, std, std * 0.052);
        NEAR(deviation(k->down_w, 0.04 / deep) * deep, std, std * 0.052);
        CHECK(all(k->ln1_w, 1) && all(k->ln2_w, 1));
        CHECK(all(k->ln1_b, 0) && all(k->ln2_b, 0));
        CHECK(all(k->qkv_b, 0) && all(k->out_b, 0));
        CHECK(all(k->up_b, 0) && all(k->down_b, 0));
        CHECK(all(k->ls1, 0.1f) && all(k->ls2, 0.1f));
    }
    smask_shutdown(&c);
}

/* ---------------------------------------------------------- wrong descs */

static void refused(smask_vit_desc d, const char *word)
{
    smask_vit v;
    smask_ctx c;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &d), SMASK_ARG);
    SAME(smask_error(&c), SMASK_ARG);
    CHECK(strstr(smask_detail(&c), "vit_init") != NULL);
    if (!CHECK(strstr(smask_detail(&c), word) != NULL))
        printf("    \"%s\" says nothing of \"%s\"\n", smask_detail(&c),
            word);
    /* What uses it fails as well, and nothing crashes. */
    smask_clear(&c);
    smask_shutdown(&c);
}

static void wrong_descs(void)
{
    smask_vit_desc d;

#define WRONG(change, word) d = body(); change; refused(d, word)
    WRONG(d.patch = 5, "patch");
    WRONG(d.patch = -4, "patch");
    WRONG(d.patch = 32, "patch");
    WRONG(d.image = -16, "image");
    WRONG(d.heads = 3, "heads");
    WRONG(d.heads = -1, "heads");
    WRONG(d.dim = -20, "dim");
    WRONG(d.depth = -1, "depth");
    WRONG(d.channels = -3, "channels");
    WRONG(d.mlp_ratio = -2, "mlp_ratio");
    WRONG(d.vocabulary = -1, "vocabulary");
    WRONG(d.decoder_depth = -1, "decoder_depth");
    WRONG(d.classes = -1, "classes");
    WRONG(d.group = -1, "group");
    WRONG(d.pool_class = 1, "class");
    WRONG(d.relative_bias = 3, "relative_bias");
    WRONG((d.sincos = 1, d.dim = 18, d.heads = 2), "sin");
    WRONG(d.drop_path = 1, "drop_path");
    WRONG(d.drop_path = -0.5f, "drop_path");
#undef WRONG
}

/* Kept memory cannot be allocated inside a step. */
static void in_a_step(void)
{
    const smask_vit_desc d = body();
    smask_vit v;
    smask_ctx c;

    SAME(smask_setup(&c, NULL), SMASK_OK);
    smask_begin_step(&c);
    SAME(smask_vit_init(&c, &v, &d), SMASK_STATE);
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* A small arena: an error, and NULL after it. */
static void small_arena(void)
{
    const smask_vit_desc d = body();
    static unsigned char block[20000];
    static float images[3 * 16 * 16];
    smask_desc desc;
    smask_vit v;
    smask_ctx c;

    memset(&desc, 0, sizeof desc);
    desc.memory = block;
    desc.memory_size = sizeof block;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &d), SMASK_MEMORY);
    smask_begin_step(&c);
    CHECK(smask_vit_encode(&c, &v, images, 1) == NULL);
    CHECK(smask_vit_classify(&c, &v, images, 1) == NULL);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_MEMORY);
    CHECK(smask_vit_block(&c, &v, v.blocks, NULL, NULL) == NULL);
    smask_clear(&c);                     /* releases all of it             */
    SAME(c.low, 0);
    SAME(c.nodes, 0);
    smask_shutdown(&c);
}

/* Frozen features of all layers take no more memory than of two. */
static smask_result features_plan(smask_ctx *c, void *user)
{
    static float out[1];
    smask_vit v;

    if (smask_vit_init(c, &v, (const smask_vit_desc *)user) != SMASK_OK)
        return smask_error(c);
    smask_begin_step(c);
    return smask_vit_features(c, &v, NULL, 16, out);
}

static void features_memory(void)
{
    smask_vit_desc d = body();
    smask_desc desc;
    smask_sizes two, many;

    memset(&desc, 0, sizeof desc);
    desc.inference = 1;
    d.depth = 2;
    SAME(smask_plan(&desc, features_plan, &d, &two), SMASK_OK);
    d.depth = 12;
    SAME(smask_plan(&desc, features_plan, &d, &many), SMASK_OK);
    /* nodes, at the high end, are some hundred bytes a layer */
    CHECK(many.step_bytes < two.step_bytes + 10 * 4096);
    CHECK(two.step_bytes > 100000);
}

/* Blocks and pooling reject tensors of other shapes. */
static void wrong_tensors(void)
{
    static const float x[8] = { 0 };
    int of_class;

    for (of_class = 0; of_class < 2; of_class++) {
        smask_vit_desc d;
        smask_vit v;
        smask_ctx c;

        memset(&d, 0, sizeof d);
        d.dim = 8;
        d.heads = 2;
        d.depth = 1;
        d.class_token = d.pool_class = of_class;
        SAME(smask_setup(&c, NULL), SMASK_OK);
        SAME(smask_vit_init(&c, &v, &d), SMASK_OK);
        smask_begin_step(&c);
        CHECK(smask_vit_blocks(&c, &v, smask_input(&c, x, 8, 0, 0, 0))
            == NULL);
        SAME(smask_error(&c), SMASK_SHAPE);
        smask_clear(&c);
        CHECK(smask_vit_pool(&c, &v, smask_input(&c, x, 8, 0, 0, 0))
            == NULL);
        SAME(smask_error(&c), SMASK_SHAPE);
        smask_shutdown(&c);
    }
}

static void reference(void)
{
    RUN(one_block);
    RUN(decoder);
    RUN(encoders);
}

int main(void)
{
    fixture_each_isa(reference);
    RUN(halves_are_blind);
    RUN(each_patch_once);
    RUN(loss_is_its_parts);
    RUN(recompute);
    RUN(fixed);
    RUN(groups);
    RUN(inference);
    RUN(stochastic_depth);
    RUN(given_weights);
    RUN(seeds);
    RUN(first_values);
    RUN(wrong_descs);
    RUN(wrong_tensors);
    RUN(in_a_step);
    RUN(small_arena);
    RUN(features_memory);
    return DONE("test_vit");
}
