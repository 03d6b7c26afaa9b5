/* test_tape.c: chapter 7. Every op of SMASK_OPS has a gradient check here,
   or this program fails; then how gradients add up where paths meet, what
   is an error, and that nothing is recorded when no gradient is required.
   test_kernels.c checks the values of the ops. */
#include "splitmask.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>

static smask_ctx setup_of(int inference)
{
    smask_desc desc;
    smask_ctx c;

    memset(&desc, 0, sizeof desc);
    desc.seed = 5;
    desc.inference = inference;
    SAME(smask_setup(&c, &desc), SMASK_OK);
    return c;
}

/* A parameter of random values. */
static smask_tensor *draw(smask_ctx *c, int32_t d0, int32_t d1, int32_t d2,
    float middle, float spread)
{
    smask_tensor *t = smask_parameter(c, d0, d1, d2, 0);
    size_t i;

    for (i = 0; t != NULL && t->x != NULL && i < smask_count(t); i++)
        t->x[i] = middle + spread * smask_normal(&c->random);
    return t;
}

/* ------------------------------------------- a loss with fixed weights */

/* sum of a * (0.3, 0.7, 1.1, ...): all gradients differ. A node of our own. */
static float weight_of(size_t i)
{
    return 0.3f + 0.4f * (float)(i % 5) - 0.9f * (float)(i % 3);
}

static void weigh(smask_tensor *y, void *user)
{
    double sum = 0;
    size_t i;

    (void)user;
    for (i = 0; i < smask_count(y->source[0]); i++)
        sum += (double)weight_of(i) * (double)y->source[0]->x[i];
    y->x[0] = (float)sum;
}

static void weigh_backward(smask_tensor *y, void *user)
{
    size_t i;

    (void)user;
    for (i = 0; y->source[0]->dx && i < smask_count(y->source[0]); i++)
        y->source[0]->dx[i] += y->dx[0] * weight_of(i);
}

static const smask_user_op op_weigh = { "weigh", weigh, weigh_backward, NULL };

static smask_tensor *loss_of(smask_ctx *c, smask_tensor *x)
{
    return smask_user(c, &op_weigh, x, NULL, NULL, 1, 0, 0, 0);
}

/* ------------------------------------------------------- gradient checks
   A case makes its parameters once and its loss again and again. While one
   parameter is checked, smask_gradcheck freezes all others; one_frozen below
   looks at the opposite. */

#define MOST 6

typedef struct checked {
    smask_tensor *p[MOST];
    int form;
    float keep[4];
    int32_t index[64];
    float target[64];
} checked;

static float input_x[2 * 3 * 8];

static smask_tensor *input_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_linear(c, smask_input(c, input_x, 2, 3, 8, 0),
        k->p[0], NULL));
}

static smask_tensor *param_loss(smask_ctx *c, void *user)
{
    return loss_of(c, ((checked *)user)->p[0]);
}

static smask_tensor *add_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_add(c, k->p[0], k->p[1]));
}

/* Two sources; one source twice, a parameter; one source twice, a node that
   owns its gradient. a - a alone would leave a gradient of 0 to check. */
static smask_tensor *sub_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    smask_tensor *a = k->p[0], *b = k->p[1];
    if (k->form == 2) a = smask_gelu(c, a);
    if (k->form > 0) b = smask_scale(c, b, 0.5f);
    if (k->form > 0) a = smask_add(c, a, smask_sub(c, a, a));
    return loss_of(c, smask_sub(c, a, b));
}

static smask_tensor *mul_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    smask_tensor *a = k->p[0], *b = k->p[1];
    if (k->form == 2) a = smask_gelu(c, a);
    if (k->form > 0) b = smask_scale(c, b, 0.5f);
    if (k->form > 0) a = smask_mul(c, a, a);
    return loss_of(c, smask_mul(c, a, b));
}

static smask_tensor *scale_loss(smask_ctx *c, void *user)
{
    return loss_of(c, smask_scale(c, ((checked *)user)->p[0], -0.6f));
}

static smask_tensor *gain_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_scale_rows(c, k->p[0], k->p[1]));
}

/* x (2,3,6), w (5,6), b (5), r (2,3,5), ln_w (6), ln_b (6) */
static smask_tensor *linear_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    smask_tensor *const *p = k->p, *y = NULL;
    switch (k->form) {
    case 0: y = smask_linear(c, p[0], p[1], p[2]); break;
    case 1: y = smask_linear(c, p[0], p[1], NULL); break;
    case 2: y = smask_linear_add(c, p[0], p[1], p[2], p[3], NULL); break;
    case 3: y = smask_linear_add(c, p[0], p[1], p[2], p[3], k->keep); break;
    case 4: y = smask_norm_linear(c, p[0], p[4], p[5], p[1], p[2]); break;
    case 5: y = smask_norm_linear(c, p[0], p[4], p[5], p[1], NULL); break;
    case 6: y = smask_gelu_linear_add(c, p[0], p[1], p[2], p[3], NULL); break;
    case 7: y = smask_gelu_linear_add(c, p[0], p[1], NULL, p[3], k->keep);
    }
    return loss_of(c, y);
}

static smask_tensor *layernorm_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_layernorm(c, k->p[0], k->p[4], k->p[5]));
}

static smask_tensor *gelu_loss(smask_ctx *c, void *user)
{
    return loss_of(c, smask_gelu(c, ((checked *)user)->p[0]));
}

/* qkv (2,4,12), table (5,2) */
static smask_tensor *attention_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_attention(c, k->p[0], 2,
        k->form ? k->p[1] : NULL, k->form ? k->index : NULL));
}

/* x (7,4), fill (4), position (5,4) */
static smask_tensor *rows_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    if (k->form == 0)
        return loss_of(c, smask_gather(c, k->p[0], 1, 7, NULL, NULL, NULL));
    return loss_of(c, smask_gather(c, k->p[0], 2, 5, k->index,
        k->p[1], k->form == 2 ? k->p[2] : NULL));
}

static smask_tensor *mean_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_mean_tokens(c, k->p[0], k->form));
}

static smask_tensor *unit_loss(smask_ctx *c, void *user)
{
    return loss_of(c, smask_l2_normalize(c, ((checked *)user)->p[0]));
}

static smask_tensor *entropy_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return smask_scale(c, smask_cross_entropy(c, k->p[0], k->target), 1.7f);
}

/* x (6,4), w (9,4), b (9) */
static smask_tensor *head_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return smask_scale(c, smask_linear_cross_entropy(c, k->p[0], k->p[1],
        k->form ? k->p[2] : NULL, k->index, NULL, NULL), -2.5f);
}

static smask_tensor *contrast_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return smask_scale(c, smask_info_nce(c, k->p[0], 0.5f, k->form, 0, NULL),
        3);
}

/* A layer to recompute: x (2,3,6), w (6,6), b (6) */
static smask_tensor *again(smask_ctx *c, smask_tensor *x, const void *user)
{
    const checked *k = (const checked *)user;
    smask_tensor *h = smask_gelu(c, smask_linear(c, x, k->p[1], k->p[2]));
    return smask_linear_add(c, h, k->p[1], k->p[2], x, NULL);
}

/* Two slices that overlap, so that gradients meet. */
static smask_tensor *slice_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_add(c, smask_slice(c, k->p[0], 0, 2),
        smask_slice(c, k->p[0], 1, 2)));
}

/* Parts of different sizes, one of them used twice. */
static smask_tensor *join_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    smask_tensor *part[3];
    part[0] = k->p[1];
    part[1] = smask_scale(c, k->p[0], 2);
    part[2] = k->p[0];
    return loss_of(c, smask_join(c, part, 3));
}

static smask_tensor *recompute_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    smask_tensor *x = smask_recompute(c, k->p[0], again, k);
    return loss_of(c, smask_recompute(c, x, again, k));
}

/* y = a * b, element by element. */
static void product(smask_tensor *y, void *user)
{
    size_t i;
    (void)user;
    for (i = 0; i < smask_count(y); i++)
        y->x[i] = y->source[0]->x[i] * y->source[1]->x[i];
}

static void product_backward(smask_tensor *y, void *user)
{
    smask_tensor *a = y->source[0], *b = y->source[1];
    size_t i;
    (void)user;
    for (i = 0; i < smask_count(y); i++) {
        if (a->dx) a->dx[i] += y->dx[i] * b->x[i];
        if (b->dx) b->dx[i] += y->dx[i] * a->x[i];
    }
}

static const smask_user_op op_product = { "product", product, product_backward,
    NULL };

static smask_tensor *user_loss(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    return loss_of(c, smask_user(c, &op_product, k->p[0], k->p[1], NULL, 3,
        4, 0, 0));
}

/* The registry: op, loss, how many forms, shapes of the parameters. */
typedef struct entry {
    smask_op op;
    const char *name;
    smask_tensor *(*loss)(smask_ctx *c, void *user);
    int forms;
    int32_t shape[MOST][3];
} entry;

static const entry registry[] = {
    { SMASK_OP_INPUT, "input", input_loss, 1, { { 5, 8, 0 } } },
    { SMASK_OP_PARAM, "param", param_loss, 1, { { 3, 4, 2 } } },
    { SMASK_OP_ADD, "add", add_loss, 1, { { 3, 5, 0 }, { 3, 5, 0 } } },
    { SMASK_OP_SUB, "sub", sub_loss, 3, { { 3, 5, 0 }, { 3, 5, 0 } } },
    { SMASK_OP_MUL, "mul", mul_loss, 3, { { 3, 5, 0 }, { 3, 5, 0 } } },
    { SMASK_OP_SCALE, "scale", scale_loss, 1, { { 3, 5, 0 } } },
    { SMASK_OP_SCALE_ROWS, "scale_rows", gain_loss, 1,
        { { 3, 5, 2 }, { 3, 0, 0 } } },
    { SMASK_OP_LINEAR, "linear", linear_loss, 8, { { 2, 3, 6 }, { 5, 6, 0 },
        { 5, 0, 0 }, { 2, 3, 5 }, { 6, 0, 0 }, { 6, 0, 0 } } },
    { SMASK_OP_LAYERNORM, "layernorm", layernorm_loss, 1, { { 2, 3, 6 },
        { 1, 0, 0 }, { 1, 0, 0 }, { 1, 0, 0 }, { 6, 0, 0 }, { 6, 0, 0 } } },
    { SMASK_OP_GELU, "gelu", gelu_loss, 1, { { 5, 7, 0 } } },
    { SMASK_OP_ATTENTION, "attention", attention_loss, 2, { { 2, 4, 12 },
        { 5, 2, 0 } } },
    { SMASK_OP_GATHER, "gather", rows_loss, 3, { { 7, 4, 0 }, { 4, 0, 0 },
        { 5, 4, 0 } } },
    { SMASK_OP_MEAN_TOKENS, "mean_tokens", mean_loss, 3, { { 2, 5, 3 } } },
    { SMASK_OP_L2_NORMALIZE, "l2_normalize", unit_loss, 1, { { 4, 5, 0 } } },
    { SMASK_OP_CROSS_ENTROPY, "cross_entropy", entropy_loss, 1,
        { { 4, 6, 0 } } },
    { SMASK_OP_LINEAR_CROSS_ENTROPY, "linear_cross_entropy", head_loss, 2,
        { { 6, 4, 0 }, { 9, 4, 0 }, { 9, 0, 0 } } },
    { SMASK_OP_INFO_NCE, "info_nce", contrast_loss, 2, { { 6, 4, 0 } } },
    { SMASK_OP_SLICE, "slice", slice_loss, 1, { { 3, 4, 2 } } },
    { SMASK_OP_JOIN, "join", join_loss, 1, { { 1, 2, 3 }, { 2, 2, 3 } } },
    { SMASK_OP_RECOMPUTE, "recompute", recompute_loss, 1, { { 2, 3, 6 },
        { 6, 6, 0 }, { 6, 0, 0 } } },
    { SMASK_OP_USER, "user", user_loss, 1, { { 3, 4, 0 }, { 3, 4, 0 } } }
};
#define ENTRIES ((int)(sizeof registry / sizeof *registry))

/* Is there a node of this op under y? */
static int holds(const smask_tensor *y, int op)
{
    int i;

    if (y == NULL) return 0;
    if (y->op == op) return 1;
    for (i = 0; i < SMASK_SOURCES; i++)
        if (holds(y->source[i], op)) return 1;
    return 0;
}

/* Which parameters does the loss of this form reach? */
static int reaches(const smask_tensor *y, const smask_tensor *p)
{
    int i;

    if (y == NULL) return 0;
    if (y == p) return 1;
    for (i = 0; i < SMASK_SOURCES; i++)
        if (reaches(y->source[i], p)) return 1;
    return 0;
}

static void start(checked *k, smask_ctx *c, const entry *e)
{
    int i, j;

    memset(k, 0, sizeof *k);
    for (i = 0; i < MOST && e->shape[i][0] > 0; i++)
        k->p[i] = draw(c, e->shape[i][0], e->shape[i][1], e->shape[i][2],
            i == 4 ? 1 : 0, 0.8f);
    for (i = 0; i < 64; i++) k->index[i] = i * i % 5;
    if (e->op == SMASK_OP_GATHER) k->index[2] = k->index[8] = -1;
    k->keep[0] = 1.25f;
    k->keep[1] = 0;
    for (i = 0; i < 4; i++)
        for (j = 0; j < 6; j++)
            k->target[i * 6 + j] = i == 0 ? j == 3 : (float)(1 + j) / 21;
    for (i = 0; i < 48; i++) input_x[i] = smask_normal(&c->random);
}

static void one_gradcheck(const entry *e)
{
    int form, i;

    for (form = 0; form < e->forms; form++) {
        smask_ctx c = setup_of(0);
        smask_tensor *loss;
        checked k;
        int tested = 0, reached[MOST];
        start(&k, &c, e);
        k.form = form;
        smask_begin_step(&c);
        loss = e->loss(&c, &k);
        if (!CHECK(loss != NULL && smask_count(loss) == 1))
            printf("%s: %s\n", e->name, smask_detail(&c));
        CHECK(holds(loss, (int)e->op));  /* the graph contains the op      */
        for (i = 0; i < MOST; i++)
            reached[i] = k.p[i] != NULL && (reaches(loss, k.p[i])
                || e->op == SMASK_OP_RECOMPUTE);
        smask_end_step(&c);
        for (i = 0; i < MOST; i++) {
            float worst = 1;
            if (!reached[i]) continue;
            tested++;
            SAME(smask_gradcheck(&c, k.p[i], e->loss, &k, 40, 1e-2f, &worst),
                SMASK_OK);
            if (!CHECK(worst < 1e-2f))
                printf("%s, form %d, parameter %d: off by %.3g\n", e->name,
                    form, i, (double)worst);
        }
        CHECK(tested > 0);
        SAME(smask_error(&c), SMASK_OK);
        smask_shutdown(&c);
    }
}

#define OP_NAME(NAME, name) #name,
static const char *const op_name[] = { SMASK_OPS(OP_NAME) NULL };

static void every_op_has_a_check(void)
{
    int op, i;

    for (op = 0; op < SMASK_OP_COUNT; op++) {
        int found = 0;
        for (i = 0; i < ENTRIES; i++)
            if ((int)registry[i].op == op) {
                found = 1;
                one_gradcheck(&registry[i]);
            }
        if (!CHECK(found))
            printf("SMASK_OP_%s has no gradient check\n", op_name[op]);
    }
}

/* ------------------------------------------------- the check of checks */

static void wrong_backward(smask_tensor *y, void *user)
{
    size_t i;
    (void)user;
    for (i = 0; y->source[0]->dx && i < smask_count(y->source[0]); i++)
        y->source[0]->dx[i] += y->dx[0] * weight_of(i) * 1.1f;
}

static smask_tensor *user_only(smask_ctx *c, void *user)
{
    void **pair = (void **)user;
    return smask_user(c, (const smask_user_op *)pair[1],
        (smask_tensor *)pair[0], NULL, NULL, 1, 0, 0, 0);
}

static void no_number(smask_tensor *y, void *user)
{
    (void)user;
    y->x[0] = (float)HUGE_VAL;
}

static void number_at_first(smask_tensor *y, void *user)
{
    (void)user;
    y->x[0] = *y->source[0]->x == 1 ? 1 : (float)HUGE_VAL;
}

static void gradcheck_finds_errors(void)
{
    smask_user_op wrong = { "wrong", weigh, wrong_backward, NULL };
    smask_ctx c = setup_of(0);
    smask_tensor *p = draw(&c, 5, 4, 0, 0, 1);
    smask_random random = c.random;
    float worst = 0, before[20];
    void *pair[2];

    memcpy(before, p->x, sizeof before);
    pair[0] = p;
    pair[1] = &wrong;
    SAME(smask_gradcheck(&c, p, user_only, pair, 30, 1e-2f, &worst),
        SMASK_OK);
    NEAR(worst, 0.1 / 2.1, 1e-2);        /* |1.1 g - g| / (1.1 g + g)      */
    wrong.backward = weigh_backward;
    SAME(smask_gradcheck(&c, p, user_only, pair, 30, 1e-2f, &worst),
        SMASK_OK);
    CHECK(worst < 1e-3f);
    CHECK(memcmp(before, p->x, sizeof before) == 0);     /* put back       */
    CHECK(random.state == c.random.state);               /* nor drawn from */
    CHECK(!c.in_step);
    wrong.forward = no_number;           /* a NaN loss fails               */
    SAME(smask_gradcheck(&c, p, user_only, pair, 30, 1e-2f, &worst),
        SMASK_NUMERIC);
    smask_clear(&c);
    if (c.in_step) smask_end_step(&c);
    wrong.forward = number_at_first;
    *p->x = 1;
    SAME(smask_gradcheck(&c, p, user_only, pair, 30, 1e-2f, &worst),
        SMASK_OK);
    CHECK(worst > 1e6f);
    smask_shutdown(&c);
}

/* ----------------------------------------- where paths part and meet */

/* Gradients are exact here: weights of one binary digit or two. */
static void shared_inputs(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *a = draw(&c, 3, 4, 0, 0, 1), *b = draw(&c, 3, 4, 0, 0, 1);
    smask_tensor *h, *y;
    size_t i;

    smask_begin_step(&c);                /* a + a                          */
    SAME(smask_backward(&c, loss_of(&c, smask_add(&c, a, a))), SMASK_OK);
    for (i = 0; i < 12; i++) NEAR(a->dx[i], 2 * (double)weight_of(i), 1e-6);
    smask_end_step(&c);

    /* gradients add to what is there */
    smask_begin_step(&c);
    SAME(smask_backward(&c, loss_of(&c, smask_add(&c, a, b))), SMASK_OK);
    for (i = 0; i < 12; i++) {
        NEAR(a->dx[i], 3 * (double)weight_of(i), 1e-6);
        NEAR(b->dx[i], weight_of(i), 1e-6);
    }
    smask_end_step(&c);
    memset(a->dx, 0, 12 * sizeof(float));
    memset(b->dx, 0, 12 * sizeof(float));

    smask_begin_step(&c);                /* a - a is 0, and so is da       */
    y = smask_sub(&c, a, a);
    SAME(smask_backward(&c, loss_of(&c, y)), SMASK_OK);
    for (i = 0; i < 12; i++) CHECK(y->x[i] == 0 && a->dx[i] == 0);
    smask_end_step(&c);

    smask_begin_step(&c);                /* a a: da = 2 a                  */
    y = smask_mul(&c, a, a);
    SAME(smask_backward(&c, loss_of(&c, y)), SMASK_OK);
    for (i = 0; i < 12; i++) {
        NEAR(y->x[i], a->x[i] * a->x[i], 0);
        NEAR(a->dx[i], 2 * (double)weight_of(i) * (double)a->x[i],
            1e-6 * (1 + fabs((double)a->x[i])));
    }
    smask_end_step(&c);
    memset(a->dx, 0, 12 * sizeof(float));

    /* a diamond: h = a + b; y = 2 h + (h + h) - h + a; dy = 3 h + a */
    smask_begin_step(&c);
    h = smask_add(&c, a, b);
    y = smask_add(&c, smask_scale(&c, h, 2), smask_add(&c, h, h));
    y = smask_add(&c, y, smask_scale(&c, h, -1));
    y = smask_add(&c, y, a);
    SAME(smask_backward(&c, loss_of(&c, y)), SMASK_OK);
    for (i = 0; i < 12; i++) {
        NEAR(a->dx[i], 4 * (double)weight_of(i), 3e-6);
        NEAR(b->dx[i], 3 * (double)weight_of(i), 3e-6);
    }
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* Nodes that the loss does not use get no gradient and change none, whether
   recorded before, between or after its own. */
static void loose_ends(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *a = draw(&c, 3, 4, 0, 0, 1), *b = draw(&c, 3, 4, 0, 0, 1);
    smask_tensor *h, *y;
    size_t i;

    smask_begin_step(&c);
    smask_gelu(&c, b);
    h = smask_scale(&c, a, 2);
    smask_add(&c, h, b);
    y = loss_of(&c, h);
    loss_of(&c, smask_add(&c, h, b));
    SAME(smask_backward(&c, y), SMASK_OK);
    for (i = 0; i < 12; i++) {
        NEAR(a->dx[i], 2 * (double)weight_of(i), 1e-6);
        CHECK(b->dx[i] == 0);
    }
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* A graph in which every node is used several times and residuals are
   passed on in place, against central differences; with the branches recorded
   before and after, so that each order of the contributions occurs. */
static int tap_form;

static smask_tensor *web(smask_ctx *c, void *user)
{
    checked *k = (checked *)user;
    smask_tensor *x = k->p[0], *w = k->p[1], *b = k->p[2], *early = NULL;
    smask_tensor *h, *y, *out;

    if (tap_form & 1) early = smask_gelu(c, x);
    h = smask_linear_add(c, x, w, b, x, NULL);           /* x twice        */
    if (tap_form & 2) early = early ? smask_add(c, early, h) : smask_gelu(c,
        h);
    y = smask_gelu_linear_add(c, h, w, b, h, k->keep);   /* h twice        */
    out = smask_add(c, y, smask_norm_linear(c, y, k->p[4], k->p[5], w, b));
    out = smask_add(c, out, smask_l2_normalize(c, y));
    if (tap_form & 4) out = smask_linear_add(c, h, w, NULL, out, NULL);
    out = smask_add(c, out, h);
    out = smask_add(c, smask_scale(c, out, 0.5f), out);
    if (early) out = smask_add(c, early, out);
    return loss_of(c, out);
}

static void webs(void)
{
    static const entry shapes = { SMASK_OP_LINEAR, "web", web, 1,
        { { 2, 3, 6 }, { 6, 6, 0 }, { 6, 0, 0 }, { 1, 0, 0 }, { 6, 0, 0 },
        { 6, 0, 0 } } };
    int i;

    for (tap_form = 0; tap_form < 8; tap_form++) {
        smask_ctx c = setup_of(0);
        checked k;
        start(&k, &c, &shapes);
        for (i = 0; i < MOST; i++) {
            float worst = 1;
            if (i == 3) continue;
            SAME(smask_gradcheck(&c, k.p[i], web, &k, 40, 1e-2f, &worst),
                SMASK_OK);
            if (!CHECK(worst < 2e-2f))
                printf("web %d, parameter %d: off by %.3g\n", tap_form, i,
                    (double)worst);
        }
        smask_shutdown(&c);
    }
}

/* Two losses of one trunk: backward of each is backward of their sum. */
static void two_losses(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *w = draw(&c, 6, 6, 0, 0, 1);
    smask_tensor *h, *a, *b;
    float right[36];
    size_t i;

    for (i = 0; i < 48; i++) input_x[i] = smask_normal(&c.random);
    smask_begin_step(&c);
    h = smask_gelu(&c, smask_linear(&c, smask_input(&c, input_x, 8, 6, 0, 0),
        w, NULL));
    a = loss_of(&c, smask_linear(&c, h, w, NULL));
    b = loss_of(&c, smask_l2_normalize(&c, h));
    SAME(smask_backward(&c, smask_add(&c, a, b)), SMASK_OK);
    memcpy(right, w->dx, sizeof right);
    memset(w->dx, 0, sizeof right);
    smask_end_step(&c);

    smask_begin_step(&c);
    h = smask_gelu(&c, smask_linear(&c, smask_input(&c, input_x, 8, 6, 0, 0),
        w, NULL));
    a = loss_of(&c, smask_linear(&c, h, w, NULL));
    SAME(smask_backward(&c, a), SMASK_OK);
    b = loss_of(&c, smask_l2_normalize(&c, h));
    SAME(smask_backward(&c, b), SMASK_OK);
    for (i = 0; i < 36; i++) NEAR(w->dx[i], right[i], 2e-5);
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* Gradient accumulation: two steps on half a batch each, their losses scaled
   by 1/2, leave the gradient of one step on the whole batch. Each half has as
   many rows, so the mean of the means is the mean; the sums are rounded in
   another order. */
static float targets[8 * 5];

static void part_of_batch(smask_ctx *c, smask_tensor *w, smask_tensor *b,
    int32_t first, int32_t rows, float s)
{
    smask_tensor *y;

    smask_begin_step(c);
    y = smask_linear(c, smask_input(c, input_x + 6 * first, rows, 6, 0, 0),
        w, b);
    y = smask_cross_entropy(c, y, targets + 5 * first);
    SAME(smask_backward(c, smask_scale(c, y, s)), SMASK_OK);
    smask_end_step(c);
}

static void gradients_accumulate(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *w = draw(&c, 5, 6, 0, 0, 1), *b = draw(&c, 5, 0, 0, 0, 1);
    float right_w[30], right_b[5];
    size_t i;

    for (i = 0; i < 48; i++) input_x[i] = smask_normal(&c.random);
    memset(targets, 0, sizeof targets);
    for (i = 0; i < 8; i++) targets[5 * i + i * i % 5] = 1;
    part_of_batch(&c, w, b, 0, 8, 1);
    memcpy(right_w, w->dx, sizeof right_w);
    memcpy(right_b, b->dx, sizeof right_b);
    memset(w->dx, 0, sizeof right_w);
    memset(b->dx, 0, sizeof right_b);

    part_of_batch(&c, w, b, 0, 4, 0.5f);
    part_of_batch(&c, w, b, 4, 4, 0.5f);
    for (i = 0; i < 30; i++) NEAR(w->dx[i], right_w[i], 1e-6);
    for (i = 0; i < 5; i++) NEAR(b->dx[i], right_b[i], 1e-6);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* A leaf on the caller's floats gets no gradient; the floats are never
   written. */
static void inputs_want_nothing(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *w = draw(&c, 4, 4, 0, 0, 1), *x, *h;
    float data[12], before[12];
    size_t i;

    for (i = 0; i < 12; i++) data[i] = before[i] = (float)i;
    smask_begin_step(&c);
    x = smask_input(&c, data, 3, 4, 0, 0);
    CHECK(x->x == data && !x->requires_grad);
    h = smask_linear_add(&c, x, w, NULL, x, NULL);
    h = smask_add(&c, h, x);
    CHECK(h->requires_grad == 1);
    CHECK(smask_add(&c, x, x)->requires_grad == 0);
    SAME(smask_backward(&c, loss_of(&c, h)), SMASK_OK);
    CHECK(x->dx == NULL);
    CHECK(memcmp(data, before, sizeof data) == 0);
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* A parameter that is frozen (an input in its place) changes no gradient of
   the others: one parameter of one form at a time. */
static void one_frozen(const entry *e, int form, int frozen)
{
    smask_ctx c = setup_of(0);
    smask_tensor *loss;
    checked k;
    float right[MOST][256];
    int j;
    size_t i;

    start(&k, &c, e);
    k.form = form;
    smask_begin_step(&c);
    SAME(smask_backward(&c, e->loss(&c, &k)), SMASK_OK);
    for (j = 0; j < MOST && k.p[j] != NULL; j++) {
        memcpy(right[j], k.p[j]->dx, smask_count(k.p[j]) * sizeof(float));
        memset(k.p[j]->dx, 0, smask_count(k.p[j]) * sizeof(float));
    }
    smask_end_step(&c);

    smask_begin_step(&c);
    k.p[frozen] = smask_input(&c, k.p[frozen]->x, k.p[frozen]->shape[0],
        k.p[frozen]->shape[1], k.p[frozen]->shape[2], 0);
    loss = e->loss(&c, &k);
    if (CHECK(loss != NULL) && loss->requires_grad)
        SAME(smask_backward(&c, loss), SMASK_OK);
    for (j = 0; j < MOST && k.p[j] != NULL; j++)
        for (i = 0; j != frozen && i < smask_count(k.p[j]); i++)
            if (!NEAR(k.p[j]->dx[i], right[j][i],
                    1e-5 * (1 + fabs((double)right[j][i])))) {
                printf("%s, form %d: parameter %d when %d is frozen\n",
                    e->name, form, j, frozen);
                break;
            }
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

static void partly_frozen(void)
{
    int e, form, i;

    for (e = 0; e < ENTRIES; e++)
        for (form = 0; form < registry[e].forms; form++)
            for (i = 0; i < MOST && registry[e].shape[i][0] > 0; i++)
                if (registry[e].op != SMASK_OP_PARAM)
                    one_frozen(&registry[e], form, i);
}

/* ------------------------------------------------------------- no tape */

static void not_recording(void)
{
    int e;

    for (e = 0; e < ENTRIES; e++) {
        smask_ctx c = setup_of(0);
        smask_tensor *loss;
        checked k;
        float with = 0, without = 1;
        size_t bytes;
        start(&k, &c, &registry[e]);
        smask_begin_step(&c);
        loss = registry[e].loss(&c, &k);
        if (CHECK(loss != NULL)) with = loss->x[0];
        bytes = c.low;
        smask_end_step(&c);
        smask_begin_step(&c);
        smask_record(&c, 0);
        loss = registry[e].loss(&c, &k);
        if (CHECK(loss != NULL)) {
            without = loss->x[0];
            CHECK(!loss->requires_grad);
        }
        CHECK(c.low <= bytes);
        CHECK(memcmp(&with, &without, sizeof with) == 0);
        CHECK(smask_backward(&c, loss) != SMASK_OK);
        smask_clear(&c);
        smask_record(&c, 1);
        loss = registry[e].loss(&c, &k); /* and on again                   */
        SAME(smask_backward(&c, loss), SMASK_OK);
        smask_end_step(&c);
        smask_shutdown(&c);
    }
}

static void for_inference(void)
{
    smask_ctx c = setup_of(1);
    smask_tensor *w = draw(&c, 4, 4, 0, 0, 1);

    CHECK(w != NULL && w->dx == NULL && !w->requires_grad);
    CHECK(smask_gelu(&c, w)->requires_grad == 0);
    smask_shutdown(&c);
}

/* ---------------------------------------------------------- recompute */

static void recompute_saves_memory(void)
{
    smask_ctx c = setup_of(0);
    static checked k;                    /* p: x, w, b                     */
    smask_tensor *h, *loss;
    float plain[3][64 * 24], values[2];
    size_t peak[2], i;
    int way, j;

    memset(&k, 0, sizeof k);
    k.p[0] = draw(&c, 64, 24, 0, 0, 1);
    k.p[1] = draw(&c, 24, 24, 0, 0, 0.2f);
    k.p[2] = draw(&c, 24, 0, 0, 0, 0.2f);
    for (way = 0; way < 2; way++) {
        for (j = 0; j < 3; j++)
            memset(k.p[j]->dx, 0, smask_count(k.p[j]) * sizeof(float));
        c.step_peak = 0;
        smask_begin_step(&c);
        h = k.p[0];
        for (j = 0; j < 8; j++)
            h = way ? smask_recompute(&c, h, again, &k) : again(&c, h, &k);
        loss = loss_of(&c, h);
        SAME(smask_backward(&c, loss), SMASK_OK);
        values[way] = loss != NULL ? loss->x[0] : 0;
        smask_end_step(&c);
        peak[way] = c.step_peak;
        for (j = 0; j < 3; j++)
            for (i = 0; i < smask_count(k.p[j]); i++)
                if (way == 0) plain[j][i] = k.p[j]->dx[i];
                else NEAR(k.p[j]->dx[i], plain[j][i],
                    1e-5 * (1 + fabs((double)plain[j][i])));
    }
    CHECK(values[0] == values[1]);       /* the same kernels: same bits    */
    CHECK(peak[1] < peak[0] * 3 / 4);
    smask_shutdown(&c);
}

/* ------------------------------------------------------------ user ops */

static void without_backward(void)
{
    const smask_user_op forward_only = { "forward_only", weigh, NULL, NULL };
    smask_ctx c = setup_of(0);
    smask_tensor *p = draw(&c, 4, 0, 0, 0, 1), *y;

    smask_begin_step(&c);
    y = smask_user(&c, &forward_only, p, NULL, NULL, 1, 0, 0, 0);
    CHECK(y != NULL && smask_error(&c) == SMASK_OK);
    SAME(smask_backward(&c, y), SMASK_STATE);
    CHECK(strstr(smask_detail(&c), "forward_only") != NULL);
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* ------------------------------------------------------------ refusals */

/* Every required tensor argument: NULL in, NULL out. smask_backward rejects
   a loss of NULL. */
static void null_in_null_out(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *x = draw(&c, 2, 3, 6, 0, 1), *w = draw(&c, 6, 6, 0, 0, 1);
    smask_tensor *b = draw(&c, 6, 0, 0, 0, 1), *r = draw(&c, 2, 3, 6, 0, 1);
    smask_tensor *n = NULL;
    float t[36] = { 0 };
    int32_t label[6] = { 0 };
    checked k;

    memset(&k, 0, sizeof k);
    smask_begin_step(&c);
    CHECK(smask_add(&c, n, x) == NULL && smask_add(&c, x, n) == NULL);
    CHECK(smask_sub(&c, n, x) == NULL && smask_sub(&c, x, n) == NULL);
    CHECK(smask_mul(&c, n, x) == NULL && smask_mul(&c, x, n) == NULL);
    CHECK(smask_scale(&c, n, 1) == NULL);
    CHECK(smask_scale_rows(&c, n, b) == NULL
        && smask_scale_rows(&c, x, n) == NULL);
    CHECK(smask_linear(&c, n, w, b) == NULL);
    CHECK(smask_linear(&c, x, n, b) == NULL);
    CHECK(smask_linear_add(&c, n, w, b, r, NULL) == NULL);
    CHECK(smask_linear_add(&c, x, n, b, r, NULL) == NULL);
    CHECK(smask_linear_add(&c, x, w, b, n, NULL) == NULL);
    CHECK(smask_norm_linear(&c, n, b, b, w, b) == NULL);
    CHECK(smask_norm_linear(&c, x, n, b, w, b) == NULL);
    CHECK(smask_norm_linear(&c, x, b, n, w, b) == NULL);
    CHECK(smask_norm_linear(&c, x, b, b, n, b) == NULL);
    CHECK(smask_gelu_linear_add(&c, n, w, b, r, NULL) == NULL);
    CHECK(smask_gelu_linear_add(&c, x, n, b, r, NULL) == NULL);
    CHECK(smask_gelu_linear_add(&c, x, w, b, n, NULL) == NULL);
    CHECK(smask_layernorm(&c, n, b, b) == NULL);
    CHECK(smask_layernorm(&c, x, n, b) == NULL);
    CHECK(smask_layernorm(&c, x, b, n) == NULL);
    CHECK(smask_gelu(&c, n) == NULL);
    CHECK(smask_attention(&c, n, 2, NULL, NULL) == NULL);
    CHECK(smask_gather(&c, n, 2, 3, NULL, NULL, NULL) == NULL);
    CHECK(smask_mean_tokens(&c, n, 0) == NULL);
    CHECK(smask_l2_normalize(&c, n) == NULL);
    CHECK(smask_cross_entropy(&c, n, t) == NULL);
    CHECK(smask_linear_cross_entropy(&c, n, w, b, label, NULL, NULL)
        == NULL);
    CHECK(smask_linear_cross_entropy(&c, x, n, b, label, NULL, NULL)
        == NULL);
    CHECK(smask_info_nce(&c, n, 1, 0, 0, NULL) == NULL);
    CHECK(smask_recompute(&c, n, again, &k) == NULL);
    CHECK(smask_backward(&c, n) != SMASK_OK);
    smask_end_step(&c);
    smask_shutdown(&c);
}

/* After the first error every op returns NULL and the first cause stays. */
static void errors_propagate(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *x = draw(&c, 2, 3, 6, 0, 1), *w = draw(&c, 5, 4, 0, 0, 1);
    smask_tensor *y;
    char detail[96];

    smask_begin_step(&c);
    y = smask_linear(&c, x, w, NULL);    /* 6 columns, w has 4             */
    CHECK(y == NULL);
    SAME(smask_error(&c), SMASK_SHAPE);
    strcpy(detail, smask_detail(&c));
    CHECK(smask_gelu(&c, x) == NULL);    /* a valid op after a failed one  */
    y = smask_add(&c, smask_gelu(&c, y), x);
    SAME(smask_backward(&c, loss_of(&c, y)), SMASK_SHAPE);
    CHECK_TEXT(smask_detail(&c), detail);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_SHAPE);  /* it outlives the step           */
    smask_clear(&c);
    smask_begin_step(&c);
    CHECK(smask_gelu(&c, x) != NULL);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* Each of these is one call that must fail with one code. */
static int fails_with(smask_ctx *c, const smask_tensor *y,
    smask_result right, int line)
{
    const int good = y == NULL && smask_error(c) == right;

    if (!good && test_fails(__FILE__, line))
        printf("got %s (%s), not %s\n", smask_result_text(smask_error(c)),
            smask_detail(c), smask_result_text(right));
    smask_clear(c);
    return good;
}

#define FAILS(call, code) fails_with(&c, call, code, __LINE__)

static smask_tensor *parameter_itself(smask_ctx *c, smask_tensor *x,
    const void *user)
{
    (void)c;
    (void)x;
    return (smask_tensor *)(uintptr_t)user;
}

static void shapes_are_checked(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *x = draw(&c, 2, 3, 6, 0, 1), *w = draw(&c, 4, 6, 0, 0, 1);
    smask_tensor *v6 = draw(&c, 6, 0, 0, 0, 1), *v4 = draw(&c, 4, 0, 0, 0, 1);
    smask_tensor *v2 = draw(&c, 2, 0, 0, 0, 1), *odd = draw(&c, 3, 4, 0, 0, 1);
    smask_tensor *r = draw(&c, 2, 3, 4, 0, 1), *flat = draw(&c, 6, 6, 0, 0, 1);
    smask_tensor *table = draw(&c, 5, 2, 0, 0, 1);
    int32_t index[9] = { 0 }, label[6] = { 0 };
    float t[12] = { 0 };

    smask_begin_step(&c);
    FAILS(smask_add(&c, x, w), SMASK_SHAPE);
    FAILS(smask_add(&c, x, flat), SMASK_SHAPE);
    FAILS(smask_sub(&c, x, w), SMASK_SHAPE);
    FAILS(smask_sub(&c, x, flat), SMASK_SHAPE);
    FAILS(smask_mul(&c, x, w), SMASK_SHAPE);
    FAILS(smask_mul(&c, x, flat), SMASK_SHAPE);
    FAILS(smask_scale_rows(&c, x, v6), SMASK_SHAPE);
    FAILS(smask_linear(&c, x, odd, NULL), SMASK_SHAPE);
    FAILS(smask_linear(&c, x, w, v6), SMASK_SHAPE);
    FAILS(smask_linear(&c, x, v6, NULL), SMASK_SHAPE);
    FAILS(smask_linear_add(&c, x, w, v4, x, NULL), SMASK_SHAPE);
    FAILS(smask_linear_add(&c, x, w, v4, odd, NULL), SMASK_SHAPE);
    FAILS(smask_norm_linear(&c, x, v4, v6, w, v4), SMASK_SHAPE);
    FAILS(smask_norm_linear(&c, x, v6, v4, w, v4), SMASK_SHAPE);
    FAILS(smask_norm_linear(&c, x, v6, v6, w, v6), SMASK_SHAPE);
    FAILS(smask_gelu_linear_add(&c, x, odd, NULL, r, NULL), SMASK_SHAPE);
    FAILS(smask_gelu_linear_add(&c, x, w, v4, x, NULL), SMASK_SHAPE);
    FAILS(smask_layernorm(&c, x, v4, v6), SMASK_SHAPE);
    CHECK(smask_layernorm(&c, x, v6, v4) == NULL);
    CHECK(strcmp(smask_detail(&c), "layernorm: b (4), x (2,3,6)") == 0);
    smask_clear(&c);
    SAME(smask_count(NULL), 0);
    SAME(smask_columns(NULL), 0);
    SAME(smask_row_count(NULL), 0);
    FAILS(smask_info_nce(&c, x, 1e-4f, 0, 0, NULL), SMASK_ARG);
    FAILS(smask_recompute(&c, x, parameter_itself, v4), SMASK_ARG);
    FAILS(smask_attention(&c, x, 3, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_attention(&c, x, 0, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_attention(&c, x, -2, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_attention(&c, x, INT32_MAX, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_attention(&c, flat, 1, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_attention(&c, r, 1, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_attention(&c, x, 1, table, index), SMASK_SHAPE);
    FAILS(smask_attention(&c, x, 2, table, NULL), SMASK_ARG);
    FAILS(smask_attention(&c, x, 2, NULL, index), SMASK_ARG);
    FAILS(smask_gather(&c, x, 2, 3, NULL, v4, NULL), SMASK_SHAPE);
    FAILS(smask_gather(&c, x, 2, 3, NULL, NULL, w), SMASK_SHAPE);
    FAILS(smask_gather(&c, x, 0, 3, NULL, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_gather(&c, x, 2, -3, NULL, NULL, NULL), SMASK_SHAPE);
    FAILS(smask_mean_tokens(&c, flat, 0), SMASK_SHAPE);
    FAILS(smask_mean_tokens(&c, x, 3), SMASK_SHAPE);
    FAILS(smask_mean_tokens(&c, x, -1), SMASK_SHAPE);
    FAILS(smask_cross_entropy(&c, x, NULL), SMASK_ARG);
    FAILS(smask_linear_cross_entropy(&c, x, odd, NULL, label, NULL, NULL),
        SMASK_SHAPE);
    FAILS(smask_linear_cross_entropy(&c, x, w, v6, label, NULL, NULL),
        SMASK_SHAPE);
    FAILS(smask_info_nce(&c, odd, 1, 0, 0, NULL), SMASK_SHAPE);
    FAILS(smask_info_nce(&c, x, 0, 0, 0, NULL), SMASK_ARG);
    FAILS(smask_info_nce(&c, x, -1, 0, 0, NULL), SMASK_ARG);
    FAILS(smask_info_nce(&c, x, t[0] / t[1], 0, 0, NULL), SMASK_ARG);
    FAILS(smask_input(&c, t, 0, 0, 0, 0), SMASK_SHAPE);
    FAILS(smask_input(&c, t, -1, 0, 0, 0), SMASK_SHAPE);
    FAILS(smask_input(&c, t, 2, 0, 3, 0), SMASK_SHAPE);
    FAILS(smask_input(&c, t, 2, 3, -1, 0), SMASK_SHAPE);
    FAILS(smask_input(&c, NULL, 2, 0, 0, 0), SMASK_ARG);
    FAILS(smask_parameter(&c, 2, 0, 0, 0), SMASK_STATE);     /* in a step  */
    CHECK(smask_scale_rows(&c, x, v2) != NULL);
    CHECK(smask_linear_add(&c, x, w, v4, r, NULL) != NULL);

    /* backward: of a scalar, of something recorded, of a number */
    SAME(smask_backward(&c, x), SMASK_SHAPE);
    smask_clear(&c);
    SAME(smask_backward(&c, smask_input(&c, t, 1, 0, 0, 0)), SMASK_STATE);
    smask_clear(&c);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

static void indices_are_checked(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *x = draw(&c, 2, 3, 6, 0, 1), *w = draw(&c, 4, 6, 0, 0, 1);
    smask_tensor *fill = draw(&c, 6, 0, 0, 0, 1);
    smask_tensor *table = draw(&c, 5, 1, 0, 0, 1);
    int32_t index[9] = { 0 }, label[6] = { 0 };

    smask_begin_step(&c);
    index[4] = 6;
    FAILS(smask_gather(&c, x, 2, 3, index, fill, NULL), SMASK_RANGE);
    index[4] = -1;
    FAILS(smask_gather(&c, x, 2, 3, index, NULL, NULL), SMASK_RANGE);
    CHECK(smask_gather(&c, x, 2, 3, index, fill, NULL) != NULL);
    index[4] = -2;
    FAILS(smask_gather(&c, x, 2, 3, index, fill, NULL), SMASK_RANGE);
    FAILS(smask_gather(&c, x, 2, 4, NULL, fill, NULL), SMASK_RANGE);
    index[4] = 2147483647;
    FAILS(smask_gather(&c, x, 2, 3, index, fill, NULL), SMASK_RANGE);
    index[4] = 5;
    FAILS(smask_attention(&c, x, 1, table, index), SMASK_RANGE);
    index[4] = -1;
    FAILS(smask_attention(&c, x, 1, table, index), SMASK_RANGE);
    index[4] = 4;
    CHECK(smask_attention(&c, x, 1, table, index) != NULL);
    label[5] = 4;
    FAILS(smask_linear_cross_entropy(&c, x, w, NULL, label, NULL, NULL),
        SMASK_RANGE);
    label[5] = -1;
    FAILS(smask_linear_cross_entropy(&c, x, w, NULL, label, NULL, NULL),
        SMASK_RANGE);
    label[5] = 3;
    CHECK(smask_linear_cross_entropy(&c, x, w, NULL, label, NULL, NULL)
        != NULL);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

/* A NaN loss stops backward before any gradient changes. */
static void not_a_number(void)
{
    const uint32_t patterns[3] = { 0x7fc00000u, 0x7f800000u, 0xff800000u };
    int i, j;

    for (i = 0; i < 3; i++) {
        smask_ctx c = setup_of(0);
        smask_tensor *p = draw(&c, 4, 0, 0, 0, 1);
        memcpy(&p->x[2], &patterns[i], sizeof(float));
        smask_begin_step(&c);
        SAME(smask_backward(&c, loss_of(&c, p)), SMASK_NUMERIC);
        for (j = 0; j < 4; j++) CHECK(p->dx[j] == 0);
        smask_end_step(&c);
        smask_shutdown(&c);
    }
}

/* --------------------------------------------------------------- steps */

static void steps_rewind(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *w = draw(&c, 16, 16, 0, 0, 1), *first = NULL, *kept;
    size_t low = c.low, high = c.high;
    int i, nodes = c.nodes;

    kept = smask_gelu(&c, w);            /* made outside: stays            */
    low = c.low;
    high = c.high;
    nodes = c.nodes;
    for (i = 0; i < 100; i++) {
        smask_tensor *h;
        smask_begin_step(&c);
        h = smask_gelu(&c, smask_linear(&c, w, w, NULL));
        if (i == 0) first = h;
        CHECK(h == first);               /* the same place every time      */
        SAME(smask_backward(&c, loss_of(&c, h)), SMASK_OK);
        smask_end_step(&c);
        CHECK(c.low == low && c.high == high && c.nodes == nodes);
    }
    CHECK(c.last == kept);
    SAME(smask_error(&c), SMASK_OK);

    smask_begin_step(&c);                /* pairs only                     */
    smask_begin_step(&c);
    SAME(smask_error(&c), SMASK_STATE);
    smask_clear(&c);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_OK);
    smask_end_step(&c);
    SAME(smask_error(&c), SMASK_STATE);
    smask_shutdown(&c);
}

static void shapes_are_kept(void)
{
    smask_ctx c = setup_of(0);
    smask_tensor *t = smask_parameter(&c, 2, 3, 4, 5);

    SAME(t->rank, 4);
    SAME(smask_count(t), 120);
    SAME(smask_row_count(t), 24);
    SAME(smask_columns(t), 5);
    t = smask_parameter(&c, 7, 0, 0, 0);
    SAME(t->rank, 1);
    SAME(smask_count(t), 7);
    SAME(smask_row_count(t), 1);
    SAME(smask_columns(t), 7);
    t = smask_gelu(&c, smask_parameter(&c, 2, 3, 4, 5));
    CHECK(t != NULL && t->rank == 4 && t->shape[3] == 5);
    t = smask_linear(&c, smask_parameter(&c, 2, 3, 4, 5),
        smask_parameter(&c, 9, 5, 0, 0), NULL);
    CHECK(t != NULL && t->rank == 4 && t->shape[2] == 4 && t->shape[3] == 9);
    t = smask_mean_tokens(&c, smask_parameter(&c, 2, 3, 4, 0), 1);
    CHECK(t != NULL && t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 4);
    smask_shutdown(&c);
}

int main(void)
{
    RUN(every_op_has_a_check);
    RUN(gradcheck_finds_errors);
    RUN(shared_inputs);
    RUN(loose_ends);
    RUN(webs);
    RUN(two_losses);
    RUN(gradients_accumulate);
    RUN(inputs_want_nothing);
    RUN(partly_frozen);
    RUN(not_recording);
    RUN(for_inference);
    RUN(recompute_saves_memory);
    RUN(without_backward);
    RUN(null_in_null_out);
    RUN(errors_propagate);
    RUN(shapes_are_checked);
    RUN(indices_are_checked);
    RUN(not_a_number);
    RUN(steps_rewind);
    RUN(shapes_are_kept);
    return DONE("test_tape");
}
