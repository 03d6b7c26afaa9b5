/* 02  The gradient check: how to trust a derivative.

   Shows   that a derivative can be tested without knowing its formula: move
           one number a little to both sides and see how the loss changes;
           how small "a little" has to be; and that a wrong derivative does
           not pass.
   Build   cc -O2 -I. examples/02_gradcheck.c -o build/02_gradcheck -lm
   Prints  the largest difference for a small network, by the size of the
           move, as bars; then the same for a derivative that is wrong
           on purpose. Returns 1 if the right one fails or the wrong one
           passes. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define TOKENS 6
#define WIDTH 8

static float picture[2 * TOKENS * WIDTH];    /* two "images" of six tokens */
static const float answer[2 * WIDTH] = {     /* the class of each          */
    0, 1, 0, 0, 0, 0, 0, 0,   0, 0, 0, 0, 0, 1, 0, 0
};

typedef struct network {
    smask_tensor *norm_w, *norm_b, *qkv_w, *qkv_b, *out_w;
    const smask_user_op *last;               /* NULL, or an op to put last */
} network;

/* One attention layer and a classifier. smask_gradcheck calls this many
   times, so it builds the whole loss from its inputs each time. */
static smask_tensor *network_loss(smask_ctx *c, void *user)
{
    network *n = (network *)user;
    smask_tensor *x = smask_input(c, picture, 2, TOKENS, WIDTH, 0);
    x = smask_norm_linear(c, x, n->norm_w, n->norm_b, n->qkv_w, n->qkv_b);
    x = smask_attention(c, x, 2, NULL, NULL);
    x = smask_gelu(c, smask_linear(c, x, n->out_w, NULL));
    x = smask_mean_tokens(c, x, 0);
    if (n->last) x = smask_user(c, n->last, x, NULL, NULL, 2, WIDTH, 0, 0);
    return smask_cross_entropy(c, x, answer);
}

/* y = (1 + x)^3. The wrong derivative lacks the factor 3. */
static void cube(smask_tensor *y, void *user)
{
    size_t i;
    (void)user;
    for (i = 0; i < smask_count(y); i++) {
        float x = 1 + y->source[0]->x[i];    /* around 1, where it is steep */
        y->x[i] = x * x * x;
    }
}

static void cube_backward_right(smask_tensor *y, void *user)
{
    size_t i;
    (void)user;
    for (i = 0; y->source[0]->dx && i < smask_count(y); i++) {
        float x = 1 + y->source[0]->x[i];
        y->source[0]->dx[i] += 3 * x * x * y->dx[i];
    }
}

static void cube_backward_wrong(smask_tensor *y, void *user)
{
    size_t i;
    (void)user;
    for (i = 0; y->source[0]->dx && i < smask_count(y); i++) {
        float x = 1 + y->source[0]->x[i];
        y->source[0]->dx[i] += x * x * y->dx[i];
    }
}

static smask_tensor *random_parameter(smask_ctx *c, int32_t d0, int32_t d1,
    float middle)
{
    smask_tensor *t = smask_parameter(c, d0, d1, 0, 0);
    size_t i;
    for (i = 0; t && i < smask_count(t); i++)
        t->x[i] = middle + 0.5f * smask_normal(&c->random);
    return t;
}

/* The difference, with bars: each mark is a quarter of a power of ten. */
static float check(smask_ctx *c, network *n, const char *what, float eps)
{
    float worst = 1;
    int marks;
    smask_gradcheck(c, n->qkv_w, network_loss, n, 64, eps, &worst);
    printf("%-22s %8.0e  %8.1e  ", what, (double)eps, (double)worst);
    for (marks = (int)(4 * log10((double)worst / 1e-6)); marks > 0; marks--)
        putchar('#');
    putchar('\n');
    return worst;
}

int main(void)
{
    const smask_user_op right = { "cube", cube, cube_backward_right, NULL };
    const smask_user_op wrong = { "cube", cube, cube_backward_wrong, NULL };
    float best = 1, right_answer, wrong_answer, answer_here, eps;
    smask_ctx c;
    network n;
    size_t i;

    smask_setup(&c, NULL);
    for (i = 0; i < sizeof picture / sizeof *picture; i++)
        picture[i] = smask_normal(&c.random);
    n.norm_w = random_parameter(&c, WIDTH, 0, 1);
    n.norm_b = random_parameter(&c, WIDTH, 0, 0);
    n.qkv_w = random_parameter(&c, 3 * WIDTH, WIDTH, 0);
    n.qkv_b = random_parameter(&c, 3 * WIDTH, 0, 0);
    n.out_w = random_parameter(&c, WIDTH, WIDTH, 0);
    n.last = NULL;

    printf("%-22s %8s  %8s\n", "derivative of", "move", "differs");
    for (eps = 1; eps > 5e-5f; eps /= 3.1623f) {
        answer_here = check(&c, &n, "the network", eps);
        if (answer_here < best) best = answer_here;
    }
    printf("\nLarge moves see the curve bend, tiny ones drown in rounding:\n"
           "trust the bottom of the valley, near 3e-2 here.\n\n");
    n.last = &right;
    right_answer = check(&c, &n, "network, cube (right)", 3e-2f);
    n.last = &wrong;
    wrong_answer = check(&c, &n, "network, cube (wrong)", 3e-2f);

    if (smask_error(&c) != SMASK_OK) {
        fprintf(stderr, "02_gradcheck: %s (%s)\n",
                smask_result_text(smask_error(&c)), smask_detail(&c));
        smask_shutdown(&c);
        return 1;
    }
    smask_shutdown(&c);
    printf("\nBelow 1e-2 passes: the network %s, the right cube %s, the "
           "wrong cube %s.\n", best < 1e-2f ? "does" : "DOES NOT",
           right_answer < 1e-2f ? "does" : "DOES NOT",
           wrong_answer < 1e-2f ? "DOES" : "does not");
    return best < 1e-2f && right_answer < 1e-2f && wrong_answer > 1e-1f
           ? 0 : 1;
}
