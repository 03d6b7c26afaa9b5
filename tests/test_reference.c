/* Op by op against PyTorch in float64 (fixtures/reference.py): values to a
   relative error of 1e-5, gradients to 1e-4, where the error of a tensor is
   its largest absolute difference divided by the largest absolute value of
   the reference. */
#include "fixtures/fixture.h"
#include "fixtures/reference_ops.h"

/* One op at a time: a context, up to six sources, one result. */
static smask_ctx c;
static const char *op_name;
static const char *source_name[6];
static smask_tensor *source[6];
static int sources;

static void begin(void)
{
    SAME(fixture_setup(&c), SMASK_OK);
    sources = 0;
}

/* A parameter drawn as `drawn`, whose gradient is compared under `name`. */
static smask_tensor *add_source(const char *name, const char *drawn,
    float middle, float scale, int32_t d0, int32_t d1, int32_t d2)
{
    smask_tensor *t = fixture_parameter(&c, drawn, middle, scale, d0, d1,
        d2);

    CHECK(t != NULL);
    source_name[sources] = name;
    source[sources++] = t;
    return t;
}

/* Compare y, descend the weighted sum of y (y itself if a scalar), compare
   the gradients, and close the context. */
static void compare(smask_tensor *y)
{
    smask_user_op sum;
    char full[96], drawn[64];
    int i;

    CHECK(y != NULL);
    CHECK_TEXT(smask_detail(&c), "");
    if (y != NULL) {
        snprintf(full, sizeof full, "%s.y", op_name);
        VALUES(&reference_ops, full, y->x, smask_count(y));
        snprintf(drawn, sizeof drawn, "%s", op_name);
        if (smask_count(y) > 1) y = fixture_sum(&c, &sum, y, drawn);
        SAME(smask_backward(&c, y), SMASK_OK);
        for (i = 0; i < sources; i++) {
            snprintf(full, sizeof full, "%s.%s", op_name, source_name[i]);
            GRADIENT(&reference_ops, full, source[i]->dx,
                smask_count(source[i]));
        }
    }
    smask_end_step(&c);
    smask_shutdown(&c);
}

static void layernorm_from(float middle)
{
    smask_tensor *x, *w, *b;
    char drawn[64];

    begin();
    snprintf(drawn, sizeof drawn, "%s/x", op_name);
    x = add_source("x", drawn, middle, 1, 7, 37, 0);
    w = add_source("w", "ln/w", 1, 0.5f, 37, 0, 0);
    b = add_source("b", "ln/b", 0, 1, 37, 0, 0);
    smask_begin_step(&c);
    compare(smask_layernorm(&c, x, w, b));
}

static void layernorm(void)
{
    op_name = "layernorm";
    layernorm_from(0);
}

/* A mean of 16 standard deviations: E[x x] - mean^2 would lose digits. */
static void layernorm_far(void)
{
    op_name = "layernorm_far";
    layernorm_from(16);
}

/* sub, mul, and mul with one source twice. */
static void sub_and_mul(void)
{
    static const char *const name[3] = { "sub", "mul", "square" };
    int i;

    for (i = 0; i < 3; i++) {
        smask_tensor *a, *b = NULL;
        char drawn[16];

        begin();
        op_name = name[i];
        snprintf(drawn, sizeof drawn, "%s/a", op_name);
        a = add_source("a", drawn, 0, 1, 2, 5, 9);
        snprintf(drawn, sizeof drawn, "%s/b", op_name);
        if (i < 2) b = add_source("b", drawn, 0, 1, 2, 5, 9);
        smask_begin_step(&c);
        compare(i == 0 ? smask_sub(&c, a, b)
            : smask_mul(&c, a, i == 1 ? b : a));
    }
}

static void gelu(void)
{
    smask_tensor *x;

    begin();
    op_name = "gelu";
    x = add_source("x", "gelu/x", 0, 8, 11, 31, 0);
    smask_begin_step(&c);
    compare(smask_gelu(&c, x));
}

/* The linear family: x (2,9,20), w (33,20), b (33), r (2,9,33). */
static void linears(void)
{
    static const char *const name[7] = { "linear", "linear_bare",
        "linear_add", "linear_keep", "norm_linear", "gelu_linear_add",
        "gelu_linear_keep" };
    static const float keep[2] = { 0, 1.25f };
    int i;

    for (i = 0; i < 7; i++) {
        smask_tensor *x, *w, *b = NULL, *r = NULL, *lw = NULL, *lb = NULL;
        smask_tensor *y = NULL;

        begin();
        op_name = name[i];
        x = add_source("x", "linear/x", 0, 1, 2, 9, 20);
        w = add_source("w", "linear/w", 0, 1, 33, 20, 0);
        if (i != 1) b = add_source("b", "linear/b", 0, 1, 33, 0, 0);
        if (i == 2 || i == 3 || i > 4)
            r = add_source("r", "linear/r", 0, 1, 2, 9, 33);
        if (i == 4) {
            lw = add_source("lw", "linear/lw", 1, 0.5f, 20, 0, 0);
            lb = add_source("lb", "linear/lb", 0, 1, 20, 0, 0);
        }
        smask_begin_step(&c);
        switch (i) {
        case 0: case 1: y = smask_linear(&c, x, w, b); break;
        case 2: y = smask_linear_add(&c, x, w, b, r, NULL); break;
        case 3: y = smask_linear_add(&c, x, w, b, r, keep); break;
        case 4: y = smask_norm_linear(&c, x, lw, lb, w, b); break;
        case 5: y = smask_gelu_linear_add(&c, x, w, b, r, NULL); break;
        default: y = smask_gelu_linear_add(&c, x, w, b, r, keep); break;
        }
        compare(y);
    }
}

static void attention(void)
{
    static const char *const name[3] = { "attention", "attention_long",
        "attention_one" };
    static const int32_t size[3][4] = { { 2, 17, 2, 10 }, { 1, 197, 3, 16 },
        { 3, 1, 2, 4 } };            /* B, N, H, K                         */
    int i;

    for (i = 0; i < 3; i++) {
        const int32_t *s = size[i];
        smask_tensor *qkv;

        begin();
        op_name = name[i];
        qkv = add_source("qkv", "attention/qkv", 0, 2, s[0], s[1],
            3 * s[2] * s[3]);
        smask_begin_step(&c);
        compare(smask_attention(&c, qkv, s[2], NULL, NULL));
    }
}

/* BEiT's rows of the table for a grid of `grid` patches and a class token:
   one for each offset, then class to patch, patch to class, class. */
static void bias_rows(int32_t grid, int32_t *index)
{
    const int32_t n = grid * grid + 1, T = (2 * grid - 1) * (2 * grid - 1);
    int32_t i, j;

    for (i = 0; i < n; i++)
        for (j = 0; j < n; j++) {
            const int32_t dy = (i - 1) / grid - (j - 1) / grid + grid - 1;
            const int32_t dx = (i - 1) % grid - (j - 1) % grid + grid - 1;
            index[i * n + j] = i == 0 && j == 0 ? T + 2 : i == 0 ? T
                : j == 0 ? T + 1 : dy * (2 * grid - 1) + dx;
        }
}

static void attention_bias(void)
{
    static const char *const name[2] = { "attention_bias",
        "attention_bias_long" };
    static const int32_t size[2][4] = { { 2, 4, 2, 10 }, { 1, 9, 3, 16 } };
    static int32_t index[82 * 82];
    int i;

    for (i = 0; i < 2; i++) {
        const int32_t B = size[i][0], G = size[i][1], H = size[i][2];
        smask_tensor *qkv, *bias;

        begin();
        op_name = name[i];
        bias_rows(G, index);
        qkv = add_source("qkv", "attention/qkv", 0, 2, B, G * G + 1,
            3 * H * size[i][3]);
        bias = add_source("bias", "attention/bias", 0, 2,
            (2 * G - 1) * (2 * G - 1) + 3, H, 0);
        smask_begin_step(&c);
        compare(smask_attention(&c, qkv, H, bias, index));
    }
}

static void gather(void)
{
    static const int32_t index[8] = { 2, -1, 0, 5, 5, 5, -1, 1 };
    smask_tensor *x, *fill, *place;

    begin();
    op_name = "gather";
    x = add_source("x", "gather/x", 0, 1, 6, 11, 0);
    fill = add_source("fill", "gather/fill", 0, 1, 11, 0, 0);
    place = add_source("place", "gather/place", 0, 1, 4, 11, 0);
    smask_begin_step(&c);
    compare(smask_gather(&c, x, 2, 4, index, fill, place));
}

static void mean_tokens(void)
{
    smask_tensor *x;

    begin();
    op_name = "mean_tokens";
    x = add_source("x", "mean/x", 0, 1, 3, 5, 11);
    smask_begin_step(&c);
    compare(smask_mean_tokens(&c, x, 1));
}

static void l2_normalize(void)
{
    smask_tensor *x;

    begin();
    op_name = "l2_normalize";
    x = add_source("x", "l2_normalize/x", 0, 1, 5, 13, 0);
    smask_begin_step(&c);
    compare(smask_l2_normalize(&c, x));
}

static void scale_rows(void)
{
    smask_tensor *x, *g;

    begin();
    op_name = "scale_rows";
    x = add_source("x", "scale_rows/x", 0, 1, 5, 13, 0);
    g = add_source("g", "scale_rows/g", 0, 1, 5, 0, 0);
    smask_begin_step(&c);
    compare(smask_scale_rows(&c, x, g));
}

/* Soft targets: 64 balls in 13 boxes, row by row. */
static void cross_entropy(void)
{
    static float t[9 * 13];
    uint64_t s = fixture_seed("cross_entropy/t");
    smask_tensor *x;
    int i, ball;

    memset(t, 0, sizeof t);
    for (i = 0; i < 9; i++)
        for (ball = 0; ball < 64; ball++)
            t[i * 13 + fixture_below(&s, 13)] += 1.0f / 64;
    begin();
    op_name = "cross_entropy";
    x = add_source("x", "cross_entropy/x", 0, 4, 9, 13, 0);
    smask_begin_step(&c);
    compare(smask_cross_entropy(&c, x, t));
}

static void linear_cross_entropy(void)
{
    static const char *const name[2] = { "linear_cross_entropy",
        "linear_cross_entropy_large" };
    static const int32_t size[2][3] = { { 13, 20, 50 }, { 150, 24, 331 } };
    const int32_t *expected = reference_ops_guess;
    int32_t label[150], guess[150], hits = -1;
    int i, k;

    for (i = 0; i < 2; i++) {
        const int32_t R = size[i][0], D = size[i][1], V = size[i][2];
        smask_tensor *x, *w, *b, *y;
        float found;

        begin();
        op_name = name[i];
        x = add_source("x", "lce/x", 0, 2, R, D, 0);
        w = add_source("w", "lce/w", 0, 1, V, D, 0);
        b = add_source("b", "lce/b", 0, 1, V, 0, 0);
        fixture_labels(label, (size_t)R, "lce/label", V);
        smask_begin_step(&c);
        y = smask_linear_cross_entropy(&c, x, w, b, label, guess, &hits);
        for (k = 0; k < R; k++) SAME(guess[k], expected[k]);
        expected += R;
        found = (float)hits;
        VALUES(&reference_ops, i ? "linear_cross_entropy_large.hits"
            : "linear_cross_entropy.hits", &found, 1);
        compare(y);
    }
}

static void info_nce(void)
{
    static const int32_t size[2][2] = { { 5, 12 }, { 40, 33 } };
    char name[64], full[96];
    int i, negatives, stop;

    for (i = 0; i < 2; i++)
        for (negatives = 0; negatives < 2; negatives++)
            for (stop = 0; stop < 2; stop++) {
                smask_tensor *x, *y;
                int32_t hits = -1;
                float found;

                snprintf(name, sizeof name, "info_nce_%d_%d_%d",
                    (int)size[i][0], negatives, stop);
                begin();
                op_name = name;
                x = add_source("x", "info_nce/x", 0, 0.5f, 2 * size[i][0],
                    size[i][1], 0);
                smask_begin_step(&c);
                y = smask_info_nce(&c, x, 0.25f, negatives, stop, &hits);
                snprintf(full, sizeof full, "%s.hits", name);
                found = (float)hits;
                VALUES(&reference_ops, full, &found, 1);
                compare(y);
            }
}

static void patches(void)
{
    static float x[2 * 3 * 8 * 8], rows_of[2 * 16 * 12], small[2 * 3 * 16];
    smask_tokenizer_desc d;
    smask_tokenizer t;
    smask_ctx small_c;

    fixture_fill(x, 384, "patches/x", 0, 1);
    smask_patches(x, 2, 3, 8, 2, rows_of);
    VALUES(&reference_ops, "patches", rows_of, 384);
    memset(&d, 0, sizeof d);             /* one patch: the whole image     */
    d.image = d.patch = 8;
    d.half_resolution = 1;
    smask_setup(&small_c, NULL);
    SAME(smask_tokenizer_init(&small_c, &t, &d), SMASK_OK);
    smask_tokenizer_patches(&t, x, 2, small);
    smask_shutdown(&small_c);
    VALUES(&reference_ops, "half", small, 96);
}

/* Shrunk, enlarged, cropped, as they are, from one pixel, to one pixel; with
   an odd number of pixels cut off. A filter's place is a float below 40 after
   two roundings, so it is off by less than 5e-6 pixels; neighbours differ by
   at most the whole range and two sides of the triangle change: 1e-5 of the
   range. The largest value is at least half the range. */
static void images_from_bytes(void)
{
    static const int32_t size[8][5] = { { 2, 23, 17, 3, 8 },
        { 1, 9, 14, 1, 20 }, { 1, 16, 16, 3, 16 }, { 1, 12, 27, 1, 12 },
        { 1, 40, 33, 3, 5 }, { 1, 29, 30, 3, 28 }, { 1, 1, 4, 1, 3 },
        { 2, 10, 10, 1, 1 } };       /* B, H, W, C, S                      */
    static const float mean[3] = { 0.5f, 0.375f, 0.25f };
    static const float std[3] = { 0.25f, 0.5f, 0.125f };
    static int32_t drawn[40 * 33 * 3];
    static unsigned char bytes[40 * 33 * 3];
    static float images[3 * 28 * 28];
    char name[32];
    int i;

    for (i = 0; i < 8; i++) {
        const int32_t *s = size[i];
        const size_t in = (size_t)(s[0] * s[1] * s[2] * s[3]);
        size_t k;

        fixture_labels(drawn, in, "bytes", 256);
        for (k = 0; k < in; k++) bytes[k] = (unsigned char)drawn[k];
        smask_images_from_bytes(bytes, s[0], s[1], s[2], s[3], s[4],
            s[3] == 3 ? mean : NULL, s[3] == 3 ? std : NULL, images);
        snprintf(name, sizeof name, "bytes_%d_%d", (int)s[1], (int)s[2]);
        fixture_same(&reference_ops, name, images,
            (size_t)(s[0] * s[3] * s[4] * s[4]), 2e-5, __FILE__, __LINE__);
    }
}

static void all(void)
{
    RUN(layernorm);
    RUN(layernorm_far);
    RUN(sub_and_mul);
    RUN(gelu);
    RUN(linears);
    RUN(attention);
    RUN(attention_bias);
    RUN(gather);
    RUN(mean_tokens);
    RUN(l2_normalize);
    RUN(scale_rows);
    RUN(cross_entropy);
    RUN(linear_cross_entropy);
    RUN(info_nce);
    RUN(patches);
    RUN(images_from_bytes);
}

int main(void)
{
    fixture_each_isa(all);
    return DONE("test_reference");
}
