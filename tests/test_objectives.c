/* The losses of SplitMask and BEiT, and the gradients of every parameter,
   against PyTorch in float64 (fixtures/reference.py): values to a relative
   error of 1e-5, gradients to 1e-4, where the error of a tensor is its
   largest absolute difference over the largest absolute reference. */
#include "fixtures/cases.h"
#include "fixtures/reference_objectives.h"

/* The masks the references were made with, by case. */
static const int32_t *stored_mask(const char *name)
{
#define MASK(which)                                                         \
    if (strcmp(name, #which) == 0) return reference_objectives_##which
    MASK(splitmask);
    MASK(no_decoder_embed);
    MASK(shares_position);
    MASK(sincos);
    MASK(layer_scale);
    MASK(raw_features);
    MASK(weights);
    MASK(all_negatives);
    MASK(stop_keys);
    MASK(match_decoder);
    MASK(no_match);
    MASK(no_inpaint);
    MASK(uniform);
    MASK(third);
    MASK(quarters);
    MASK(independent);
    MASK(odd_grid);
    MASK(beit);
    MASK(beit_official);
    MASK(beit_uniform);
#undef MASK
    return NULL;
}

/* The mask drawn now is that of the references. If not, all checks below
   fail: run fixtures/make.sh. */
static int same_mask(const smask_mask *m, const int32_t *x)
{
    int branch, good = x != NULL;
    int32_t i;

    for (branch = 0; good && branch < m->branches; branch++) {
        good = m->visible[branch] == x[0] && m->masked[branch] == x[1];
        for (x += 2, i = 0; good && i < m->B * m->visible[branch]; i++)
            good = m->visible_at[branch][i] == *x++;
        for (i = 0; good && i < m->B * m->masked[branch]; i++)
            good = m->masked_at[branch][i] == *x++;
    }
    return good;
}

static void value(const char *name, const char *what, float x)
{
    char full[64];

    snprintf(full, sizeof full, "%s.%s", name, what);
    VALUES(&reference_objectives, full, &x, 1);
}

static void objective(const char *name)
{
    const fixture_case *k = objective_cases;
    float *images;
    int32_t *tokens;
    smask_tensor *loss;
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;

    while (strcmp(k->name, name) != 0) k++;
    images = case_images(k, 0);
    tokens = case_tokens(k, 0);
    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    case_seed(&c, 0);
    smask_begin_step(&c);
    loss = case_loss(&c, &v, &t, k, images, tokens, &out);
    SAME(smask_backward(&c, loss), SMASK_OK);
    CHECK_TEXT(smask_detail(&c), "");
    if (smask_error(&c) == SMASK_OK
            && CHECK(same_mask(&out.mask, stored_mask(name)))) {
        NEAR(loss->x[0], out.total, 0);
        value(name, "total", out.total);
        if (!k->objective.no_inpaint) {
            value(name, "inpaint", out.inpaint);
            value(name, "accuracy", out.accuracy);
            value(name, "predictions", (float)out.predictions);
        }
        if (k->kind == CASE_SPLITMASK && !k->objective.no_match) {
            value(name, "match", out.match);
            value(name, "match_accuracy", out.match_accuracy);
        }
        fixture_compare(&v, &reference_objectives, name, 0, 1e-4);
    }
    smask_end_step(&c);
    smask_shutdown(&c);
    free(images);
    free(tokens);
}

#define CASE(name) static void name(void) { objective(#name); }
CASE(splitmask)
CASE(no_decoder_embed)
CASE(shares_position)
CASE(sincos)
CASE(layer_scale)
CASE(raw_features)
CASE(weights)
CASE(all_negatives)
CASE(stop_keys)
CASE(match_decoder)
CASE(no_match)
CASE(no_inpaint)
CASE(uniform)
CASE(third)
CASE(quarters)
CASE(independent)
CASE(odd_grid)
CASE(beit)
CASE(beit_official)
CASE(beit_uniform)
#undef CASE

/* What a view predicts depends on its visible patches only: with other
   pixels in all patches hidden from A, the visual tokens that A predicts stay
   the same, and those that B predicts change. */
static void guesses_of_a_view(void)
{
    const fixture_case *k = &objective_cases[0];
    const size_t pixels = 3 * 16 * 16;
    float *images = case_images(k, 0);
    int32_t *tokens = case_tokens(k, 0), first[48];
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;
    int round, moved = 0;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    for (round = 0; round < 5; round++) {
        int32_t i, b, y, x;
        uint64_t s = (uint64_t)round;

        case_seed(&c, 0);
        smask_begin_step(&c);
        if (CHECK(case_loss(&c, &v, &t, k, images, tokens, &out) != NULL)) {
            const int32_t M = out.mask.masked[0];
            SAME(out.predictions, 48);
            if (round == 0) memcpy(first, out.guess, sizeof first);
            for (i = 0; i < 3 * M; i++) SAME(out.guess[i], first[i]);
            for (; i < 48; i++) moved += out.guess[i] != first[i];
            for (i = 0; i < 3 * M; i++)
                for (b = i / M, y = 0; y < 12; y++)
                    for (x = 0; x < 4; x++) {
                        const int32_t n = out.mask.masked_at[0][i];
                        images[(size_t)b * pixels + (size_t)(y / 4 * 256
                            + (n / 4 * 4 + y % 4) * 16 + n % 4 * 4 + x)]
                            = 3 * fixture_draw(&s);
                    }
        }
        smask_end_step(&c);
    }
    CHECK(moved > 48);
    smask_shutdown(&c);
    free(images);
    free(tokens);
}

/* What a split alone reveals. With `splits` groups in a batch of B equal
   images no view can be told from another of its group: the match loss of
   equal views is exactly the logarithm of the size of a group. */
static float match_of_equal_images(smask_mask_kind kind, int32_t B,
    int32_t splits, int decoder)
{
    const smask_vit_desc model = { CASE_SPLIT };
    const smask_tokenizer_desc codebook = { .image = 16, .patch = 4,
        .vocabulary = 24 };
    static float images[8 * 3 * 16 * 16];
    const size_t pixels = 3 * 16 * 16;
    smask_objective o;
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;
    uint64_t s = 5;
    size_t i;

    memset(&o, 0, sizeof o);
    o.mask = kind;
    o.splits = splits;
    o.match_decoder = decoder;
    for (i = 0; i < pixels; i++) images[i] = fixture_draw(&s);
    for (; i < (size_t)B * pixels; i++) images[i] = images[i - pixels];
    SAME(fixture_setup(&c), SMASK_OK);
    SAME(smask_vit_init(&c, &v, &model), SMASK_OK);
    SAME(smask_tokenizer_init(&c, &t, &codebook), SMASK_OK);
    for (i = 0; i < smask_count(v.position); i++)    /* cues, if used      */
        v.position->x[i] = fixture_draw(&s);
    for (i = 0; i < smask_count(v.decoder_position); i++)
        v.decoder_position->x[i] = fixture_draw(&s);
    smask_begin_step(&c);
    CHECK(smask_splitmask_loss(&c, &v, &t, &o, images, B, &out) != NULL);
    CHECK_TEXT(smask_detail(&c), "");
    smask_end_step(&c);
    smask_shutdown(&c);
    return out.match;
}

static void equal_images(void)
{
    int kind, decoder;

    for (kind = SMASK_MASK_BLOCKS; kind <= SMASK_MASK_INDEPENDENT; kind++)
        for (decoder = 0; decoder < 2; decoder++) {
            /* ln B: the mean of 2 B logarithms in double, kept as a float */
            NEAR(match_of_equal_images((smask_mask_kind)kind, 8, 1, decoder),
                log(8), 1e-6);
            NEAR(match_of_equal_images((smask_mask_kind)kind, 8, 2, decoder),
                log(4), 1e-6);
            /* A split for each image identifies the image. */
            CHECK(fabs((double)match_of_equal_images((smask_mask_kind)kind,
                8, 8, decoder) - log(8)) > 1e-4);
        }
}

/* Views that are cut from images of their own: from the same images they
   change nothing; from others they change the match. */
static void views_of_their_own(void)
{
    const fixture_case *k = &objective_cases[0];
    float *images = case_images(k, 0), *other = case_images(k, 1);
    int32_t *tokens = case_tokens(k, 0);
    float total[3], accuracy[3];
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;
    int i;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    t.given = tokens;
    for (i = 0; i < 3; i++) {
        smask_objective o = k->objective;
        if (i == 1) o.view_images[0] = o.view_images[1] = images;
        if (i == 2) o.view_images[1] = other;
        case_seed(&c, 0);
        smask_begin_step(&c);
        CHECK(smask_splitmask_loss(&c, &v, &t, &o, images, k->B, &out)
            != NULL);
        smask_end_step(&c);
        total[i] = out.total;
        accuracy[i] = out.accuracy;
    }
    NEAR(total[1], total[0], 0);
    NEAR(accuracy[1], accuracy[0], 0);
    CHECK(fabsf(total[2] - total[0]) > 1e-4f);
    smask_shutdown(&c);
    free(images);
    free(other);
    free(tokens);
}

/* A loss that cannot be computed sets an error with its reason. */
static void refused(const smask_vit_desc *model, smask_tokenizer_desc codebook,
    const smask_objective *o, int beit, smask_result code)
{
    static float images[2 * 3 * 16 * 16];
    smask_tensor *loss;
    smask_tokenizer t;
    smask_vit v;
    smask_ctx c;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(smask_vit_init(&c, &v, model), SMASK_OK);
    SAME(smask_tokenizer_init(&c, &t, &codebook), SMASK_OK);
    smask_begin_step(&c);
    loss = beit ? smask_beit_loss(&c, &v, &t, o, images, 2, NULL)
        : smask_splitmask_loss(&c, &v, &t, o, images, 2, NULL);
    CHECK(loss == NULL);
    SAME(smask_error(&c), code);
    CHECK(strlen(smask_detail(&c)) > 10);
    smask_end_step(&c);
    smask_shutdown(&c);
}

static void refusals(void)
{
    const smask_vit_desc split = { CASE_SPLIT }, masked = { CASE_MASKED };
    const smask_vit_desc bare = { CASE_BODY };
    const smask_vit_desc headless = { CASE_BODY, .decoder_depth = 1 };
    const smask_vit_desc related = { CASE_SPLIT, .relative_bias = 1 };
    const smask_tokenizer_desc codebook = { .image = 16, .patch = 4,
        .vocabulary = 24 };
    smask_tokenizer_desc other = codebook;
    smask_objective o;

    memset(&o, 0, sizeof o);
    refused(&bare, codebook, NULL, 0, SMASK_STATE);
    refused(&headless, codebook, NULL, 0, SMASK_STATE);
    refused(&masked, codebook, NULL, 0, SMASK_STATE);
    refused(&split, codebook, NULL, 1, SMASK_STATE);
    refused(&bare, codebook, NULL, 1, SMASK_STATE);
    /* Relative positions have one index, SplitMask two sets of patches. */
    refused(&related, codebook, NULL, 0, SMASK_ARG);
    other.vocabulary = 25;
    refused(&split, other, NULL, 0, SMASK_ARG);
    refused(&masked, other, NULL, 1, SMASK_ARG);
    other = codebook;
    other.image = 32;
    refused(&split, other, NULL, 0, SMASK_ARG);
    other = codebook;
    other.channels = 1;
    refused(&split, other, NULL, 0, SMASK_ARG);
    other = codebook;
    other.patch = 2;
    refused(&split, other, NULL, 0, SMASK_ARG);
    o.ratio = 1.5f;
    refused(&split, codebook, &o, 0, SMASK_ARG);
    refused(&masked, codebook, &o, 1, SMASK_ARG);
    memset(&o, 0, sizeof o);
    o.temperature = -1;
    refused(&split, codebook, &o, 0, SMASK_ARG);
    memset(&o, 0, sizeof o);
    o.no_match = o.no_inpaint = 1;
    refused(&split, codebook, &o, 0, SMASK_ARG);
    memset(&o, 0, sizeof o);
    o.splits = -1;
    refused(&split, codebook, &o, 0, SMASK_ARG);
}

/* A given token outside the vocabulary. */
static void foreign_token(void)
{
    const fixture_case *k = &objective_cases[0];
    float *images = case_images(k, 0);
    int32_t *tokens = case_tokens(k, 0);
    smask_tokenizer t;
    smask_losses out;
    smask_vit v;
    smask_ctx c;

    SAME(fixture_setup(&c), SMASK_OK);
    SAME(fixture_model(&c, &v, &k->model), SMASK_OK);
    SAME(case_tokenizer(&c, &t, k), SMASK_OK);
    tokens[11] = 24;
    smask_begin_step(&c);
    CHECK(case_loss(&c, &v, &t, k, images, tokens, &out) == NULL);
    SAME(smask_error(&c), SMASK_RANGE);
    smask_end_step(&c);
    smask_shutdown(&c);
    free(images);
    free(tokens);
}

static void all(void)
{
    RUN(splitmask);
    RUN(no_decoder_embed);
    RUN(shares_position);
    RUN(sincos);
    RUN(layer_scale);
    RUN(raw_features);
    RUN(weights);
    RUN(all_negatives);
    RUN(stop_keys);
    RUN(match_decoder);
    RUN(no_match);
    RUN(no_inpaint);
    RUN(uniform);
    RUN(third);
    RUN(quarters);
    RUN(independent);
    RUN(odd_grid);
    RUN(beit);
    RUN(beit_official);
    RUN(beit_uniform);
}

int main(void)
{
    fixture_each_isa(all);
    RUN(equal_images);
    RUN(views_of_their_own);
    RUN(guesses_of_a_view);
    RUN(refusals);
    RUN(foreign_token);
    return DONE("test_objectives");
}
