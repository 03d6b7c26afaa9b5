/* test_kernels.c: chapters 4 and 6 through the ops that use them, for every
   instruction set of the processor.

   Each op is compared with its formula in double (reference.h): its values,
   and its gradients with central differences of the double reference, which
   are good to nine digits. A bound is stated for each op, relative to the
   largest entry of what is compared. Then the functions that are polynomials
   here (exp, GELU and its derivative) are compared with long double over
   the whole range of float. */
#include "splitmask.h"
#include "guard.h"
#include "reference.h"
#include "test.h"
#include <stdlib.h>

#define MAX_TENSORS 6                    /* tensors of an op               */

typedef struct trial trial;
struct trial {
    const char *name;
    size_t B, N, D, H, O;                /* see each op                    */
    int flag;
    int tensors;
    size_t shape[MAX_TENSORS][4];
    double middle[MAX_TENSORS];          /* of the values                  */
    double spread[MAX_TENSORS];
    const int32_t *index;
    const float *floats;
    size_t outputs;
    double y_bound, dx_bound;            /* relative to the largest entry, */
    double dx_floor;                     /* or to this if that is more     */
    smask_tensor *(*build)(smask_ctx *c, const trial *t,
        smask_tensor *const *p);
    void (*right)(const trial *t, double *const *p, double *y);
    double *frozen;                      /* tensor 0 before it was moved   */
    double *scratch;
};

static guard buffer[MAX_TENSORS];
static unsigned char arena[96 << 20];
static int32_t whole[1 << 16];           /* indices or labels of a trial   */
static float real[1 << 16];              /* its keeps or targets           */

/* ------------------------------------------------------------------ ops */

static size_t elements(const trial *t, int i)
{
    size_t n = 1;
    int k;

    for (k = 0; k < 4 && t->shape[i][k] != 0; k++) n *= t->shape[i][k];
    return n;
}

static void tensor(trial *t, size_t d0, size_t d1, size_t d2, double middle,
    double spread)
{
    t->shape[t->tensors][0] = d0;
    t->shape[t->tensors][1] = d1;
    t->shape[t->tensors][2] = d2;
    t->middle[t->tensors] = middle;
    t->spread[t->tensors] = spread;
    t->tensors++;
}

static smask_tensor *add_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_add(c, p[0], p[1]);
}

static void add_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs; i++) y[i] = p[0][i] + p[1][i];
}

static smask_tensor *sub_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_sub(c, p[0], p[1]);
}

static void sub_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs; i++) y[i] = p[0][i] - p[1][i];
}

static smask_tensor *mul_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_mul(c, p[0], p[1]);
}

static void mul_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs; i++) y[i] = p[0][i] * p[1][i];
}

static smask_tensor *scale_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_scale(c, p[0], -1.375f);
}

static void scale_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs; i++) y[i] = -1.375 * p[0][i];
}

static smask_tensor *gain_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_scale_rows(c, p[0], p[1]);
}

static void gain_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs; i++) y[i] = p[0][i] * p[1][i / t->D];
}

/* LINEAR in its five forms. x (B,N,D), w (O,D), b (O), r (B,N,O), ln_w (D),
   ln_b (D). flag: 1 bias, 2 residual, 4 keep, 8 norm, 16 GELU. */
static smask_tensor *linear_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    const int f = t->flag;
    smask_tensor *x = p[0], *w = p[1], *b = f & 1 ? p[2] : NULL;
    smask_tensor *next = p[f & 1 ? 3 : 2];
    const float *keep = f & 4 ? t->floats : NULL;

    if (f & 8)
        return smask_norm_linear(c, x, next, p[f & 1 ? 4 : 3], w, b);
    if (f & 16) return smask_gelu_linear_add(c, x, w, b, next, keep);
    if (f & 2) return smask_linear_add(c, x, w, b, next, keep);
    return smask_linear(c, x, w, b);
}

static void linear_right(const trial *t, double *const *p, double *y)
{
    const int f = t->flag;
    const size_t rows = t->B * t->N, I = t->D;
    const double *next = p[f & 1 ? 3 : 2];
    const double *x = p[0];
    size_t i;

    if (f & 8)
        for (i = 0; i < rows; i++)
            right_norm(p[0] + i * I, next, p[f & 1 ? 4 : 3], I,
                t->scratch + i * I);
    if (f & 16)
        for (i = 0; i < rows * I; i++) t->scratch[i] = right_gelu(p[0][i]);
    if (f & 24) x = t->scratch;
    right_linear(x, p[1], f & 1 ? p[2] : NULL, f & 18 ? next : NULL,
        f & 4 ? t->floats : NULL, t->N, rows, I, t->O, y);
}

static smask_tensor *norm_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_layernorm(c, p[0], p[1], p[2]);
}

static void norm_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs / t->D; i++)
        right_norm(p[0] + i * t->D, p[1], p[2], t->D, y + i * t->D);
}

static smask_tensor *gelu_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_gelu(c, p[0]);
}

static void gelu_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs; i++) y[i] = right_gelu(p[0][i]);
}

static smask_tensor *attention_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    return smask_attention(c, p[0], (int32_t)t->H, t->flag ? p[1] : NULL,
        t->flag ? t->index : NULL);
}

static void attention_right(const trial *t, double *const *p, double *y)
{
    right_attention(p[0], t->flag ? p[1] : NULL, t->index, t->B, t->N, t->D,
        t->H, t->scratch, y);
}

/* flag: 1 index, 2 fill, 4 position */
static smask_tensor *rows_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    return smask_gather(c, p[0], (int32_t)t->B, (int32_t)t->N,
        t->flag & 1 ? t->index : NULL, t->flag & 2 ? p[1] : NULL,
        t->flag & 4 ? p[t->flag & 2 ? 2 : 1] : NULL);
}

static void rows_right(const trial *t, double *const *p, double *y)
{
    right_gather(p[0], t->flag & 2 ? p[1] : NULL,
        t->flag & 4 ? p[t->flag & 2 ? 2 : 1] : NULL,
        t->flag & 1 ? t->index : NULL, t->B, t->N, t->D, y);
}

static smask_tensor *mean_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    return smask_mean_tokens(c, p[0], t->flag);
}

static void mean_right(const trial *t, double *const *p, double *y)
{
    right_mean_tokens(p[0], t->B, t->N, t->D, (size_t)t->flag, y);
}

static smask_tensor *unit_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    (void)t;
    return smask_l2_normalize(c, p[0]);
}

static void unit_right(const trial *t, double *const *p, double *y)
{
    size_t i;
    for (i = 0; i < t->outputs / t->D; i++)
        right_l2_normalize(p[0] + i * t->D, t->D, y + i * t->D);
}

static smask_tensor *entropy_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    return smask_cross_entropy(c, p[0], t->floats);
}

static void entropy_right(const trial *t, double *const *p, double *y)
{
    y[0] = right_cross_entropy(p[0], t->floats, t->B, t->D);
}

/* x (B,D), w (O,D), b (O) if flag */
static smask_tensor *head_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    return smask_linear_cross_entropy(c, p[0], p[1], t->flag ? p[2] : NULL,
        t->index, NULL, NULL);
}

static void head_right(const trial *t, double *const *p, double *y)
{
    y[0] = right_head_loss(p[0], p[1], t->flag ? p[2] : NULL, t->index,
        t->B, t->D, t->O, t->scratch);
}

/* flag: 1 all negatives, 2 stop keys */
static smask_tensor *contrast_build(smask_ctx *c, const trial *t,
    smask_tensor *const *p)
{
    return smask_info_nce(c, p[0], 0.3f, t->flag & 1, t->flag & 2, NULL);
}

static void contrast_right(const trial *t, double *const *p, double *y)
{
    y[0] = right_info_nce(p[0], t->flag & 2 ? t->frozen : p[0], t->B, t->D,
        (double)0.3f, t->flag & 1, t->scratch);
}

/* ------------------------------------------------------ one trial, whole */

/* The loss of a trial: sum of weight * y, a node of our own. */
static void weigh(smask_tensor *y, void *user)
{
    const float *weight = (const float *)user;
    double sum = 0;
    size_t i;

    for (i = 0; i < smask_count(y->source[0]); i++)
        sum += (double)weight[i] * (double)y->source[0]->x[i];
    y->x[0] = (float)sum;
}

static void weigh_backward(smask_tensor *y, void *user)
{
    const float *weight = (const float *)user;
    size_t i;

    for (i = 0; y->source[0]->dx && i < smask_count(y->source[0]); i++)
        y->source[0]->dx[i] += y->dx[0] * weight[i];
}

static double loss_of(const trial *t, double *const *p, const float *weight,
    double *y)
{
    double sum = 0;
    size_t i;

    t->right(t, p, y);
    for (i = 0; i < t->outputs; i++) sum += (double)weight[i] * y[i];
    return sum;
}

static double largest(const double *x, size_t count)
{
    double max = 0;
    size_t i;

    for (i = 0; i < count; i++) if (fabs(x[i]) > max) max = fabs(x[i]);
    return max;
}

/* Gradients of tensor i against central differences, at `samples` places:
   the first, the last and random ones. */
static void compare_gradients(const trial *t, smask_random *r, int i,
    const float *got, double *const *p, const float *weight, double *y,
    size_t samples, const char *where)
{
    const size_t n = elements(t, i), tries = n < samples ? n : samples;
    double *right = (double *)malloc(tries * sizeof *right);
    size_t *at = (size_t *)malloc(tries * sizeof *at), k;
    double max = t->dx_floor;

    for (k = 0; right != NULL && at != NULL && k < tries; k++) {
        const double h = 1e-4;
        double above, below, x;
        at[k] = n == tries ? k : k == 0 ? 0 : k == 1 ? n - 1
            : smask_below(r, (uint32_t)n);
        x = p[i][at[k]];
        p[i][at[k]] = x + h;
        above = loss_of(t, p, weight, y);
        p[i][at[k]] = x - h;
        below = loss_of(t, p, weight, y);
        p[i][at[k]] = x;
        right[k] = (above - below) / (2 * h);
        if (fabs(right[k]) > max) max = fabs(right[k]);
    }
    for (k = 0; right != NULL && at != NULL && k < tries; k++) {
        const double d = fabs((double)got[at[k]] - right[k]) / max;
        if (!(d <= t->dx_bound) && test_fails(__FILE__, __LINE__))
            printf("%s: gradient of tensor %d at %lu: %.8g, not %.8g: off by "
                "%.2g > %.2g of the largest\n", where, i,
                (unsigned long)at[k], (double)got[at[k]], right[k], d,
                t->dx_bound);
    }
    CHECK(right != NULL && at != NULL);
    free(right);
    free(at);
}

/* The same with read-only values between unreadable pages: the result must
   have the same bits. */
static void same_between_guards(smask_ctx *c, const trial *t,
    float *const *x, const smask_tensor *y, int at_end, const char *where)
{
    smask_tensor *p[MAX_TENSORS], *again;
    int i;

    for (i = 0; i < t->tensors; i++) {
        const size_t *d = t->shape[i];
        float *to = guard_at(&buffer[i], elements(t, i), at_end);
        memcpy(to, x[i], elements(t, i) * sizeof *to);
        mprotect(buffer[i].first, buffer[i].bytes, PROT_READ);
        p[i] = smask_input(c, to, (int32_t)d[0], (int32_t)d[1],
            (int32_t)d[2], (int32_t)d[3]);
    }
    guard_doing = where;
    again = t->build(c, t, p);
    if (CHECK(again != NULL))
        CHECK(memcmp(again->x, y->x, t->outputs * sizeof(float)) == 0);
    for (i = 0; i < t->tensors; i++)
        mprotect(buffer[i].first, buffer[i].bytes, PROT_READ | PROT_WRITE);
}

static void run_trial(trial *t, int isa, smask_random *r, size_t samples)
{
    static char where[200];
    double *p[MAX_TENSORS] = { NULL }, *y = NULL;
    float *x[MAX_TENSORS] = { NULL }, *weight;
    smask_tensor *param[MAX_TENSORS], *out, *loss;
    smask_user_op op;
    smask_desc desc;
    smask_ctx c;
    size_t k, max = 64;
    int i;

    memset(&desc, 0, sizeof desc);
    desc.memory = arena;
    desc.memory_size = sizeof arena;
    desc.isa = (smask_isa)isa;
    if (smask_setup(&c, &desc) != SMASK_OK) return;  /* not on this one    */
    sprintf(where, "%s %s B %lu N %lu D %lu H %lu O %lu flag %d", t->name,
        smask_isa_text(&c), (unsigned long)t->B, (unsigned long)t->N,
        (unsigned long)t->D, (unsigned long)t->H, (unsigned long)t->O,
        t->flag);
    for (i = 0; i < t->tensors; i++) {
        const size_t n = elements(t, i), *d = t->shape[i];
        max += n;
        x[i] = (float *)malloc(n * sizeof(float));
        p[i] = (double *)malloc(n * sizeof(double));
        param[i] = smask_parameter(&c, (int32_t)d[0], (int32_t)d[1],
            (int32_t)d[2], (int32_t)d[3]);
        for (k = 0; param[i] != NULL && k < n; k++) {
            x[i][k] = (float)(t->middle[i]
                + t->spread[i] * (double)smask_normal(r));
            p[i][k] = (double)x[i][k];
            param[i]->x[k] = x[i][k];
        }
    }
    t->frozen = (double *)malloc(elements(t, 0) * sizeof(double));
    memcpy(t->frozen, p[0], elements(t, 0) * sizeof(double));
    t->scratch = (double *)malloc((max + t->B + t->N + t->O)
        * sizeof(double));
    y = (double *)malloc(t->outputs * sizeof(double));
    weight = (float *)malloc(t->outputs * sizeof(float));
    for (k = 0; k < t->outputs; k++) weight[k] = smask_normal(r);
    memset(&op, 0, sizeof op);
    op.name = "weigh";
    op.forward = weigh;
    op.backward = weigh_backward;
    op.user = weight;

    smask_begin_step(&c);
    out = t->build(&c, t, param);
    loss = smask_user(&c, &op, out, NULL, NULL, 1, 0, 0, 0);
    SAME(smask_backward(&c, loss), SMASK_OK);
    if (loss == NULL || smask_error(&c) != SMASK_OK)
        printf("%s: %s\n", where, smask_detail(&c));
    if (CHECK(out != NULL && loss != NULL)
        && CHECK(smask_count(out) == t->outputs)) {
        double size;
        t->right(t, p, y);
        size = largest(y, t->outputs);
        for (k = 0; k < t->outputs; k++) {
            const double d = fabs((double)out->x[k] - y[k]) / (size + 1e-30);
            if (!(d <= t->y_bound) && test_fails(__FILE__, __LINE__))
                printf("%s: y at %lu: %.8g, not %.8g: off by %.2g > %.2g of "
                    "the largest\n", where, (unsigned long)k,
                    (double)out->x[k], y[k], d, t->y_bound);
        }
        for (i = 0; i < t->tensors; i++) {
            const size_t n = elements(t, i);
            CHECK(memcmp(param[i]->x, x[i], n * sizeof(float)) == 0);
            compare_gradients(t, r, i, param[i]->dx, p, weight, y, samples,
                where);
        }
        same_between_guards(&c, t, x, out, 1, where);
        same_between_guards(&c, t, x, out, 0, where);
    }
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
    for (i = 0; i < t->tensors; i++) {
        free(x[i]);
        free(p[i]);
    }
    free(t->frozen);
    free(t->scratch);
    free(y);
    free(weight);
}

static trial new_trial(const char *name, size_t outputs, double y_bound,
    double dx_bound, smask_tensor *(*build)(smask_ctx *, const trial *,
    smask_tensor *const *), void (*right)(const trial *, double *const *,
    double *))
{
    trial t;

    memset(&t, 0, sizeof t);
    t.name = name;
    t.outputs = outputs;
    t.y_bound = y_bound;
    t.dx_bound = dx_bound;
    t.dx_floor = 1e-30;
    t.build = build;
    t.right = right;
    return t;
}

/* Operands that are rounded to bfloat16 are wrong by up to 2^-9, a product
   by twice that; the sum of such errors, all of one sign, bounds the error
   relative to the largest entry: 0.4 %. Gradients go through two products,
   and norm and GELU enlarge some. test_gemm compares to the bit and finds what
   this bound misses: a pair left out of a sum, rounding not to nearest. */
#define Y_BF16 1e-2
#define DX_BF16 2e-2

static void for_each_isa(trial *t, size_t samples)
{
    const trial exact = *t;
    smask_random r;
    int isa;

    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        if (isa == SMASK_ISA_BF16) {
            t->y_bound = fmax(t->y_bound, Y_BF16);
            t->dx_bound = fmax(t->dx_bound, DX_BF16);
        }
        smask_seed(&r, 1, (uint64_t)(t->B * 7 + t->N * 5 + t->D));
        run_trial(t, isa, &r, samples);
        *t = exact;
    }
}

/* Row widths around all vector widths, then some that need many pieces. */
static const size_t widths[] = { 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20,
    24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 100, 192 };
#define WIDTHS (sizeof widths / sizeof *widths)

/* --------------------------------------------------------- element-wise
   Bounds: one rounding each, u = 6e-8; gradients are sums of a few. */

static void elementwise(void)
{
    size_t i, n;

    for (i = 0; i < WIDTHS + 2; i++) {
        trial t;
        n = i < WIDTHS ? widths[i] : i == WIDTHS ? 16385 : 40000;
        t = new_trial("add", 3 * n, 1e-7, 1e-6, add_build, add_right);
        t.D = n;
        tensor(&t, 3, n, 0, 0, 1);
        tensor(&t, 3, n, 0, 0, 1);
        if (n <= 192 || n == 40000) for_each_isa(&t, n <= 192 ? 12 : 3);
        t.name = "sub";
        t.build = sub_build;
        t.right = sub_right;
        if (n <= 192 || n == 40000) for_each_isa(&t, n <= 192 ? 12 : 3);
        t.name = "mul";
        t.build = mul_build;
        t.right = mul_right;
        if (n <= 192 || n == 40000) for_each_isa(&t, n <= 192 ? 12 : 3);
        t = new_trial("scale", 2 * n, 1e-7, 1e-6, scale_build, scale_right);
        t.D = n;
        tensor(&t, 2, n, 0, 0, 1);
        if (n <= 192 || n == 40000) for_each_isa(&t, n <= 192 ? 12 : 3);
        t = new_trial("gelu", n, 4e-7, 2e-6, gelu_build, gelu_right);
        t.D = n;
        tensor(&t, n, 0, 0, 0, 2);
        for_each_isa(&t, n <= 192 ? 24 : 3);
    }
    for (i = 0; i < WIDTHS; i++) {
        trial t = new_trial("scale_rows", 5 * widths[i], 1e-7, 2e-6, gain_build,
            gain_right);
        t.D = widths[i];
        tensor(&t, 5, widths[i], 0, 0, 1);
        tensor(&t, 5, 0, 0, 0, 1);
        for_each_isa(&t, 24);
    }
}

/* ---------------------------------------------------------------- linear
   Bounds: sums of D products in float stay below 6 sqrt(D) u of the sum of
   absolute values; relative to the largest entry that is below 3e-6 for D
   up to 400. Gradients of weights sum over the rows. With a norm or a GELU
   before it, their own errors pass through the product. */

static trial linear_trial(size_t B, size_t N, size_t D, size_t O, int flag)
{
    trial t = new_trial("linear", B * N * O, 3e-6, 1e-5, linear_build,
        linear_right);
    size_t i;

    t.B = B;
    t.N = N;
    t.D = D;
    t.O = O;
    t.flag = flag;
    tensor(&t, B, N, D, 0, 1);
    tensor(&t, O, D, 0, 0, 1 / sqrt((double)D));
    if (flag & 1) tensor(&t, O, 0, 0, 0, 1);
    if (flag & 18) tensor(&t, B, N, O, 0, 1);
    if (flag & 8) {
        tensor(&t, D, 0, 0, 1, 0.2);
        tensor(&t, D, 0, 0, 0, 0.2);
    }
    for (i = 0; i < B; i++) real[i] = i % 3 == 1 ? 0 : 1.25f;
    t.floats = real;
    return t;
}

static void linear_forms(void)
{
    static const int flags[] = { 0, 1, 3, 2, 7, 6, 9, 8, 19, 18, 23, 22 };
    static const size_t size[][4] = { { 1, 1, 1, 1 }, { 2, 3, 5, 7 },
        { 3, 1, 16, 2 }, { 2, 4, 17, 33 }, { 1, 14, 32, 31 },
        { 3, 5, 33, 48 }, { 2, 15, 64, 3 }, { 4, 9, 8, 100 } };
    size_t i, j;

    for (i = 0; i < sizeof flags / sizeof *flags; i++)
        for (j = 0; j < sizeof size / sizeof *size; j++) {
            trial t;
            /* With one element the gradient may be near a zero of gelu',
               where the bound is absolute; see layernorm for few columns. */
            if ((flags[i] & 24) && size[j][2] < 5) continue;
            t = linear_trial(size[j][0], size[j][1], size[j][2], size[j][3],
                flags[i]);
            for_each_isa(&t, 16);
        }
}

/* Several blocks of k, several pieces of rows, a wide output. */
static void linear_large(void)
{
    static const int flags[] = { 1, 7, 9, 23 };
    size_t i;

    for (i = 0; i < sizeof flags / sizeof *flags; i++) {
        trial t = linear_trial(5, 50, 100, 60, flags[i]);
        for_each_isa(&t, 4);
        t = linear_trial(1, 33, 400, 20, flags[i]);
        for_each_isa(&t, 4);
        t = linear_trial(2, 8, 24, 400, flags[i]);
        for_each_isa(&t, 4);
    }
}

/* ------------------------------------------------------------ layernorm
   Bounds: mean and deviation are sums of D terms, then three roundings.
   A row of one column has deviation 0: y is b for every x. */

static void layernorm(void)
{
    size_t i;

    for (i = 0; i < WIDTHS + 1; i++) {
        const size_t D = i < WIDTHS ? widths[i] : 700;
        trial t = new_trial("layernorm", 7 * D, 2e-6, 2e-5, norm_build,
            norm_right);
        if (D < 5) continue;
        t.D = D;
        tensor(&t, 7, D, 0, 0.5, 1);
        tensor(&t, D, 0, 0, 1, 0.3);
        tensor(&t, D, 0, 0, 0, 0.3);
        for_each_isa(&t, 16);
    }
    {                                    /* many pieces                    */
        trial t = new_trial("layernorm", 700 * 64, 2e-6, 2e-5, norm_build,
            norm_right);
        t.D = 64;
        tensor(&t, 700, 64, 0, 0, 1);
        tensor(&t, 64, 0, 0, 1, 0.3);
        tensor(&t, 64, 0, 0, 0, 0.3);
        for_each_isa(&t, 4);
    }
}

/* A mean of 1000 deviations costs three of seven digits: x - mean is known
   to 1000 u = 6e-5 only. And rows that do not vary. */
static void layernorm_offset(void)
{
    trial t = new_trial("layernorm far from 0", 6 * 48, 2e-4, 1,
        norm_build, norm_right);
    int isa;

    t.D = 48;
    tensor(&t, 6, 48, 0, 1000, 1);
    tensor(&t, 48, 0, 0, 1, 0.3);
    tensor(&t, 48, 0, 0, 0, 0.3);
    for_each_isa(&t, 1);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        float x[4 * 20], w[20], b[20];
        smask_tensor *y;
        smask_desc desc;
        smask_ctx c;
        int i;
        memset(&desc, 0, sizeof desc);
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        for (i = 0; i < 80; i++) x[i] = (float)(i / 20);
        for (i = 0; i < 20; i++) w[i] = 2, b[i] = (float)i;
        y = smask_layernorm(&c, smask_input(&c, x, 4, 20, 0, 0),
            smask_input(&c, w, 20, 0, 0, 0), smask_input(&c, b, 20, 0, 0, 0));
        for (i = 0; y != NULL && i < 80; i++)
            NEAR(y->x[i], i % 20, 2e-3);
        CHECK(y != NULL);
        smask_shutdown(&c);
    }
}

/* ------------------------------------------------------------ attention
   Bounds: exp to 1e-6 at scores of a few units, sums of N weights and K
   products. Gradients are differences (dp - sum p dp) and lose a digit; of one
   token they are 0, as a difference of numbers near 1, so the bound is
   absolute there. */

static trial attention_trial(size_t B, size_t N, size_t H, size_t K, int bias)
{
    trial t = new_trial("attention", B * N * H * K, 4e-6, 3e-5,
        attention_build, attention_right);
    smask_random r;
    size_t i;

    t.B = B;
    t.N = N;
    t.D = H * K;
    t.H = H;
    t.flag = bias;
    t.dx_floor = 0.1;
    tensor(&t, B, N, 3 * t.D, 0, 1);
    if (bias) {
        tensor(&t, 11, H, 0, 0, 1);
        smask_seed(&r, 2, N);
        for (i = 0; i < N * N; i++) whole[i] = (int32_t)smask_below(&r, 11);
    }
    t.index = whole;
    return t;
}

static void attention(void)
{
    static const size_t tokens[] = { 1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33,
        64, 65 };
    static const size_t heads[][2] = { { 1, 1 }, { 2, 3 }, { 1, 8 },
        { 3, 16 }, { 2, 17 }, { 1, 32 }, { 1, 64 } };
    size_t i, j;

    for (i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (j = 0; j < sizeof heads / sizeof *heads; j++) {
            trial t;
            if (tokens[i] > 17 && (i + j) % 3 != 0) continue;
            t = attention_trial(1 + i % 3, tokens[i], heads[j][0],
                heads[j][1], (int)((i + j) % 2));
            for_each_isa(&t, 10);
        }
    {
        trial t = attention_trial(2, 200, 2, 24, 1);
        for_each_isa(&t, 3);
    }
}

/* ------------------------------------------------- rows, means, lengths */

static void gather(void)
{
    size_t i, k;
    int flag;

    for (i = 0; i < WIDTHS; i += 2)
        for (flag = 0; flag < 8; flag++) {
            const size_t D = widths[i], B = 3, N = 5, R = flag & 1 ? 6 : 15;
            trial t = new_trial("gather", B * N * D, 2e-7, 2e-6, rows_build,
                rows_right);
            t.B = B;
            t.N = N;
            t.D = D;
            t.flag = flag;
            tensor(&t, R, D, 0, 0, 1);
            if (flag & 2) tensor(&t, D, 0, 0, 0, 1);
            if (flag & 4) tensor(&t, N, D, 0, 0, 1);
            for (k = 0; k < B * N; k++)  /* rows used twice, and not at all*/
                whole[k] = flag & 2 && k % 4 == 1 ? -1
                    : (int32_t)(k * k % 5);
            t.index = whole;
            for_each_isa(&t, 12);
        }
    {                                    /* many pieces                    */
        trial t = new_trial("gather", 4 * 130 * 64, 2e-7, 1e-5, rows_build,
            rows_right);
        t.B = 4;
        t.N = 130;
        t.D = 64;
        t.flag = 7;
        tensor(&t, 100, 64, 0, 0, 1);
        tensor(&t, 64, 0, 0, 0, 1);
        tensor(&t, 130, 64, 0, 0, 1);
        for (k = 0; k < 520; k++)
            whole[k] = k % 3 == 0 ? -1 : (int32_t)(k * 7 % 100);
        t.index = whole;
        for_each_isa(&t, 4);
    }
}

static void means_and_units(void)
{
    size_t i;

    for (i = 0; i < WIDTHS; i++) {
        const size_t D = widths[i];
        trial t = new_trial("mean_tokens", 3 * D, 1e-6, 2e-6, mean_build,
            mean_right);
        t.B = 3;
        t.N = 9;
        t.D = D;
        t.flag = (int)(i % 3);
        tensor(&t, 3, 9, D, 0, 1);
        for_each_isa(&t, 12);
        t = new_trial("l2_normalize", 6 * D, 1e-6, 1e-5, unit_build,
            unit_right);
        t.D = D;
        if (D < 3) continue;             /* 1: y is a sign, its gradient 0    */
        tensor(&t, 2, 3, D, 0, 3);
        for_each_isa(&t, 12);
    }
}

/* Lengths from 1e-15 to 1e15. A row of length 0 gives 0, gradient 0. */
static void unit_sizes(void)
{
    int isa, e;

    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_desc desc;
        smask_ctx c;
        memset(&desc, 0, sizeof desc);
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        for (e = -15; e <= 15; e++) {
            float x[6];
            smask_tensor *y;
            int i;
            for (i = 0; i < 3; i++) {
                x[i] = (float)((i + 1) * pow(10, e));
                x[3 + i] = 0;
            }
            y = smask_l2_normalize(&c, smask_input(&c, x, 2, 3, 0, 0));
            for (i = 0; y != NULL && i < 3; i++) {
                NEAR(y->x[i], (i + 1) / sqrt(14.0), 5e-7);
                CHECK(y->x[3 + i] == 0);
            }
            CHECK(y != NULL);
        }
        smask_shutdown(&c);
    }
}

/* --------------------------------------------------------------- losses */

static void cross_entropy(void)
{
    smask_random r;
    size_t i, k, j;

    smask_seed(&r, 3, 0);
    for (i = 0; i < WIDTHS; i++) {
        const size_t C = widths[i], R = 5;
        trial t = new_trial("cross_entropy", 1, 2e-6, 2e-5, entropy_build,
            entropy_right);
        t.B = R;
        t.D = C;
        tensor(&t, R, C, 0, 0, 3);
        for (k = 0; k < R; k++) {        /* soft, some of them one-hot     */
            float sum = 0;
            for (j = 0; j < C; j++)
                sum += real[k * C + j] = k == 0 ? j == C - 1
                    : smask_uniform(&r) + 0.01f;
            for (j = 0; j < C; j++) real[k * C + j] /= sum;
        }
        t.floats = real;
        if (C > 1) for_each_isa(&t, 24);
    }
}

static void head_loss(void)
{
    static const size_t size[][3] = { { 1, 1, 2 }, { 3, 5, 7 },
        { 9, 16, 17 }, { 16, 33, 64 }, { 20, 24, 100 }, { 5, 64, 1000 },
        { 150, 12, 33 }, { 40, 20, 257 } };          /* rows, D, V         */
    size_t i, k;
    int bias;

    for (i = 0; i < sizeof size / sizeof *size; i++)
        for (bias = 0; bias < 2; bias++) {
            trial t = new_trial("linear_cross_entropy", 1, 2e-6, 2e-5,
                head_build, head_right);
            t.B = size[i][0];
            t.D = size[i][1];
            t.O = size[i][2];
            t.flag = bias;
            tensor(&t, t.B, t.D, 0, 0, 1);
            tensor(&t, t.O, t.D, 0, 0, 1);
            if (bias) tensor(&t, t.O, 0, 0, 0, 1);
            for (k = 0; k < t.B; k++)
                whole[k] = (int32_t)(k * 13 % t.O);
            t.index = whole;
            for_each_isa(&t, t.B * t.O > 5000 ? 4 : 12);
        }
}

static void info_nce(void)
{
    static const size_t size[][2] = { { 2, 3 }, { 4, 1 }, { 6, 16 },
        { 10, 33 }, { 32, 8 }, { 34, 20 }, { 70, 7 } };
    size_t i;
    int flag;

    for (i = 0; i < sizeof size / sizeof *size; i++)
        for (flag = 0; flag < 4; flag++) {
            trial t = new_trial("info_nce", 1, 4e-6, 3e-5, contrast_build,
                contrast_right);
            t.B = size[i][0];
            t.D = size[i][1];
            t.flag = flag;
            tensor(&t, t.B, t.D, 0, 0, 1 / sqrt((double)t.D));
            /* One pair and no other image: the loss is 0 throughout. */
            if (t.B == 2 && !(flag & 1)) t.dx_bound = 1e24;
            for_each_isa(&t, 12);
        }
}

/* ------------------------------- exp and GELU over the whole float range */

static float float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static int finite_bits(uint32_t bits)
{
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* y(1) = sum of x, gradient 1 everywhere: the loss that shows a derivative. */
static void total(smask_tensor *y, void *user)
{
    (void)user;
    y->x[0] = 0;
}

static void total_backward(smask_tensor *y, void *user)
{
    size_t i;

    (void)user;
    for (i = 0; i < smask_count(y->source[0]); i++)
        y->source[0]->dx[i] += y->dx[0];
}

/* Promised: |error| < 5e-7 for |x| < 4. Beyond, Phi is right to 1.3e-7, and
   with the roundings of the last product the bound is 2.5e-7 |x|. The
   derivative: 5e-7 everywhere (the header's own bound for its polynomial), plus
   one rounding. Every 4099th bit pattern: a million values of both signs,
   denormal to largest. */
#define GELU_STEP 4099u
#define GELU_COUNT (0xffffffffu / GELU_STEP + 1u)

static void gelu_whole_range(void)
{
    static float x[GELU_COUNT];
    static double right[GELU_COUNT], gradient[GELU_COUNT];
    const smask_user_op op = { "total", total, total_backward, NULL };
    uint32_t n = 0, k;
    int isa;

    for (k = 0; k < GELU_COUNT; k++) {
        const uint32_t bits = k * GELU_STEP;
        long double z, phi;
        if (!finite_bits(bits)) continue;
        x[n] = float_of(bits);
        z = (long double)x[n];
        phi = 0.5L * erfcl(-z * 0.707106781186547524400844362104849039L);
        right[n] = (double)(z * phi);
        gradient[n] = (double)(phi + z * expl(-z * z / 2)
            * 0.398942280401432677939946059934381868L);
        n++;
    }
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        double worst_near = 0, worst_far = 0, worst_gradient = 0;
        smask_tensor *p, *y;
        smask_desc desc;
        smask_ctx c;
        memset(&desc, 0, sizeof desc);
        desc.memory = arena;
        desc.memory_size = sizeof arena;
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        p = smask_parameter(&c, (int32_t)n, 0, 0, 0);
        if (CHECK(p != NULL)) memcpy(p->x, x, n * sizeof *x);
        smask_begin_step(&c);
        y = smask_gelu(&c, p);
        SAME(smask_backward(&c, smask_user(&c, &op, y, NULL, NULL, 1, 0, 0,
            0)), SMASK_OK);
        for (k = 0; CHECK(y != NULL) && k < n; k++) {
            const double d = fabs((double)y->x[k] - right[k]);
            const double e = fabs((double)p->dx[k] - gradient[k]);
            const double size = fabs((double)x[k]);
            if (!(d <= 1e300 && e <= 1e300)) CHECK(0 && "not finite");
            if (size < 4 && d > worst_near) worst_near = d;
            if (size < 2.4e-38)          /* x / 2 is no normal number, or  */
                CHECK(d < 1.2e-38);      /* flushed to 0 (-ffast-math)     */
            else if (d / size > worst_far)
                worst_far = d / size;
            if (e > worst_gradient) worst_gradient = e;
        }
        printf("gelu %s: worst error %.2g below 4, %.2g |x| anywhere; "
            "gradient %.2g\n", smask_isa_text(&c), worst_near, worst_far,
            worst_gradient);
        CHECK(worst_near < 5e-7);
        CHECK(worst_far < 2.5e-7);
        CHECK(worst_gradient < 6e-7);
        smask_end_step(&c);
        smask_shutdown(&c);
    }
}

/* exp as the losses use it: a row (0, -a, -b, ...) has the softmax
   exp(-a) / sum, read off the gradient. The largest entry is 0, so that the
   arguments are exact. Relative error: 2e-7 (1 + a) of exp, 2e-7 of the sum
   and three roundings of 6e-8: below 6e-7 (1 + a), down to where exp ends:
   what is less than 1e-37 may be anything up to that. a runs over all
   binades. */
static void exp_whole_range(void)
{
    enum { R = 512, C = 67 };
    static float t[R * C];
    int isa;
    size_t i, j;

    for (i = 0; i < R; i++) t[i * C] = 1;
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        double worst = 0, worst_loss = 0;
        long double loss = 0;
        smask_tensor *p, *y;
        smask_random r;
        smask_desc desc;
        smask_ctx c;
        memset(&desc, 0, sizeof desc);
        desc.memory = arena;
        desc.memory_size = sizeof arena;
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        smask_seed(&r, 4, 0);
        p = smask_parameter(&c, R, C, 0, 0);
        for (i = 0; CHECK(p != NULL) && i < R; i++)
            for (j = 1; j < C; j++) {
                uint32_t bits = smask_next(&r) | 0x80000000u;
                if (i % 2 == 0)          /* half of them where exp lives   */
                    bits = (bits & 0x80ffffffu) | 0x40000000u
                        | (smask_next(&r) & 0x03000000u);
                p->x[i * C + j] = finite_bits(bits) ? float_of(bits)
                    : -3e38f;
            }
        smask_begin_step(&c);
        y = smask_cross_entropy(&c, p, t);
        SAME(smask_backward(&c, y), SMASK_OK);
        for (i = 0; CHECK(y != NULL) && i < R; i++) {
            long double sum = 0;
            for (j = 0; j < C; j++)
                sum += expl((long double)p->x[i * C + j]);
            loss += logl(sum) / R;
            for (j = 1; j < C; j++) {
                const double right = (double)(expl(
                    (long double)p->x[i * C + j]) / sum);
                const double d = fabs((double)p->dx[i * C + j] * R - right);
                const double max = right
                    * (1 - (double)p->x[i * C + j]);
                if (!(d <= 1e-37 * R || d / max <= worst))
                    worst = d / max;
            }
        }
        worst_loss = y != NULL ? fabs((double)y->x[0] - (double)loss) : 1;
        printf("exp %s: worst relative error %.2g (1 + a)\n",
            smask_isa_text(&c), worst);
        CHECK(worst < 6e-7);
        CHECK(worst_loss < 2e-6 * fabs((double)loss));
        smask_end_step(&c);
        smask_shutdown(&c);
    }
}

/* The same in attention: two tokens, q = 1, k = (0, -a), v = (0, 1). */
static void exp_in_attention(void)
{
    enum { B = 4000 };
    static float qkv[B * 2 * 3];
    size_t i;
    int isa;

    for (i = 0; i < B; i++) {
        const double a = pow(10, -8 + 46 * (double)i / B);
        float *x = qkv + i * 6;
        x[0] = x[3] = 1;                 /* q                              */
        x[1] = 0;                        /* k                              */
        x[4] = -(float)a;
        x[2] = 0;                        /* v                              */
        x[5] = 1;
    }
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        double worst = 0;
        smask_tensor *y;
        smask_desc desc;
        smask_ctx c;
        memset(&desc, 0, sizeof desc);
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        y = smask_attention(&c, smask_input(&c, qkv, B, 2, 3, 0), 1, NULL,
            NULL);
        for (i = 0; CHECK(y != NULL) && i < B; i++) {
            const long double e = expl((long double)qkv[i * 6 + 4]);
            const double right = (double)(e / (1 + e));
            const double d = fabs((double)y->x[2 * i] - right);
            const double max = right * (1 - (double)qkv[i * 6 + 4]);
            if (!(d <= 1e-37 || d / max <= worst)) worst = d / max;
        }
        printf("exp in attention %s: worst relative error %.2g (1 + a)\n",
            smask_isa_text(&c), worst);
        CHECK(worst < 6e-7);
        smask_shutdown(&c);
    }
}

/* Logits far from 0 and far apart: no overflow, no NaN, the right loss. (The
   loss is a difference in double: log 4 remains beside logits of 1e8.) */
static void large_logits(void)
{
    static const float x[5][4] = { { 1e4f, 1e4f, 1e4f, 1e4f },
        { -1e8f, -1e8f, -1e8f, -1e8f }, { 3e38f, -3e38f, 0, 1 },
        { 1e8f, 1e8f, 1e8f, 1e8f }, { 88, 89, 90, 500 } };
    static const float t[5][4] = { { 1, 0, 0, 0 }, { 0, 1, 0, 0 },
        { 1, 0, 0, 0 }, { 0.25f, 0.25f, 0.25f, 0.25f }, { 0, 0, 0, 1 } };
    const double right[5] = { log(4.0), log(4.0), 0, log(4.0), 0 };
    int isa, i;

    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_desc desc;
        smask_ctx c;
        memset(&desc, 0, sizeof desc);
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        for (i = 0; i < 5; i++) {
            smask_tensor *y = smask_cross_entropy(&c, smask_input(&c, x[i],
                1, 4, 0, 0), t[i]);
            if (CHECK(y != NULL)) NEAR(y->x[0], right[i], 1e-6);
        }
        smask_shutdown(&c);
    }
}

/* ---------------------------------------------------------------- counts */

/* guess and hits: the largest logit of each row; the positives that rank
   first. */
static void guesses(void)
{
    enum { R = 37, D = 5, V = 50 };
    float x[R * D], w[V * D], b[V], pairs[12];
    int32_t label[R], guess[R], hits = -1;
    smask_random r;
    int isa, i, j, k;

    smask_seed(&r, 5, 0);
    for (i = 0; i < R * D; i++) x[i] = smask_normal(&r);
    for (i = 0; i < V * D; i++) w[i] = smask_normal(&r);
    for (i = 0; i < V; i++) b[i] = smask_normal(&r);
    for (isa = SMASK_ISA_SCALAR; isa < SMASK_ISA_COUNT; isa++) {
        smask_desc desc;
        smask_ctx c;
        int right = 0;
        memset(&desc, 0, sizeof desc);
        desc.isa = (smask_isa)isa;
        if (smask_setup(&c, &desc) != SMASK_OK) continue;
        for (i = 0; i < R; i++) {
            double best = -1e30;
            int max = -1;
            for (j = 0; j < V; j++) {
                double sum = (double)b[j];
                for (k = 0; k < D; k++)
                    sum += (double)x[i * D + k] * (double)w[j * D + k];
                if (sum > best) {
                    best = sum;
                    max = j;
                }
            }
            label[i] = i % 3 == 0 ? max : (max + i) % V;
            right += label[i] == max;
            guess[i] = max;
        }
        {
            int32_t got[R + 1];
            got[R] = -9;
            CHECK(smask_linear_cross_entropy(&c, smask_input(&c, x, R, D, 0,
                0), smask_input(&c, w, V, D, 0, 0), smask_input(&c, b, V, 0,
                0, 0), label, got, &hits) != NULL);
            SAME(hits, right);
            for (i = 0; i < R; i++) SAME(got[i], guess[i]);
            SAME(got[R], -9);
        }
        /* Three pairs. a0 and b0, a1 and b1 find each other; a2 is nearer
           to b0 than to its partner, b2 nearer to a1. */
        memset(pairs, 0, sizeof pairs);
        pairs[0] = pairs[6] = 1;                     /* a0, b0: (1, 0)     */
        pairs[3] = pairs[9] = 1;                     /* a1, b1: (0, 1)     */
        pairs[4] = 0.5f;                             /* a2                 */
        pairs[10] = -1;                              /* b2                 */
        hits = -1;
        CHECK(smask_info_nce(&c, smask_input(&c, pairs, 6, 2, 0, 0), 0.2f, 0,
            0, &hits) != NULL);
        SAME(hits, 4);
        smask_shutdown(&c);
    }
}

int main(void)
{
    int i;

    for (i = 0; i < MAX_TENSORS; i++) buffer[i] = guard_make((size_t)1 << 18);
    RUN(elementwise);
    RUN(linear_forms);
    RUN(linear_large);
    RUN(layernorm);
    RUN(layernorm_offset);
    RUN(attention);
    RUN(gather);
    RUN(means_and_units);
    RUN(unit_sizes);
    RUN(cross_entropy);
    RUN(head_loss);
    RUN(info_nce);
    RUN(gelu_whole_range);
    RUN(exp_whole_range);
    RUN(exp_in_attention);
    RUN(large_logits);
    RUN(guesses);
    return DONE("test_kernels");
}
