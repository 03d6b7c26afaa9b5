/* 03  An op of your own: sine units and a squared error.

   Shows   how to add a differentiable function to the tape in a dozen
           lines (forward fills y->x, backward adds to the sources' dx), how
           to check it, and how to train parameters of your own with AdamW.
   Build   cc -O2 -I. examples/03_user_op.c -o build/03_user_op -lm
   Prints  the gradient check of both ops, the loss falling, and the wave
           that the network has learnt: points (o) and fit (*). Returns 1
           if a check fails or the fit is poor. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define POINTS 64
#define UNITS 16

/* y = sin(x). d loss / d x = d loss / d y * cos(x). A source that requires
   no gradient has dx == NULL. */
static void sine(smask_tensor *y, void *user)
{
    size_t i;
    (void)user;
    for (i = 0; i < smask_count(y); i++) y->x[i] = sinf(y->source[0]->x[i]);
}

static void sine_backward(smask_tensor *y, void *user)
{
    const smask_tensor *x = y->source[0];
    size_t i;
    (void)user;
    for (i = 0; x->dx && i < smask_count(y); i++)
        x->dx[i] += y->dx[i] * cosf(x->x[i]);
}

/* y = mean (a - b)^2: two sources, one number out. */
static void square_error(smask_tensor *y, void *user)
{
    const smask_tensor *a = y->source[0], *b = y->source[1];
    size_t i, n = smask_count(a);
    (void)user;
    y->x[0] = 0;
    for (i = 0; i < n; i++) {
        float d = a->x[i] - b->x[i];
        y->x[0] += d * d / (float)n;
    }
}

static void square_error_backward(smask_tensor *y, void *user)
{
    const smask_tensor *a = y->source[0], *b = y->source[1];
    size_t i, n = smask_count(a);
    (void)user;
    for (i = 0; i < n; i++) {
        float gradient = 2 * (a->x[i] - b->x[i]) / (float)n * y->dx[0];
        if (a->dx) a->dx[i] += gradient;
        if (b->dx) b->dx[i] -= gradient;
    }
}

static const smask_user_op op_sine = { "sine", sine, sine_backward, NULL };
static const smask_user_op op_error = {
    "square_error", square_error, square_error_backward, NULL
};

typedef struct problem {
    smask_param item[4];                     /* in_w, in_b, out_w, out_b   */
    float x[POINTS], y[POINTS], fit[POINTS];
} problem;

static smask_tensor *problem_loss(smask_ctx *c, void *user)
{
    problem *p = (problem *)user;
    smask_tensor *y = smask_input(c, p->y, POINTS, 1, 0, 0), *h;
    size_t i;
    h = smask_input(c, p->x, POINTS, 1, 0, 0);
    h = smask_linear(c, h, p->item[0].t, p->item[1].t);
    h = smask_user(c, &op_sine, h, NULL, NULL, POINTS, UNITS, 0, 0);
    h = smask_linear(c, h, p->item[2].t, p->item[3].t);
    for (i = 0; h && i < POINTS; i++) p->fit[i] = h->x[i];
    return smask_user(c, &op_error, h, y, NULL, 1, 0, 0, 0);
}

static void draw(const problem *p)
{
    char picture[15][POINTS + 1];
    int row, i;
    for (row = 0; row < 15; row++) {
        for (i = 0; i < POINTS; i++) picture[row][i] = ' ';
        picture[row][POINTS] = 0;
    }
    for (i = 0; i < POINTS; i++) {
        row = 7 - (int)lroundf(p->y[i] * 4);
        if (row >= 0 && row < 15) picture[row][i] = 'o';
        row = 7 - (int)lroundf(p->fit[i] * 4);
        if (row >= 0 && row < 15) picture[row][i] = '*';
    }
    for (row = 0; row < 15; row++) printf("    |%s\n", picture[row]);
}

int main(void)
{
    static const int32_t shape[4][2] = {
        { UNITS, 1 }, { UNITS, 0 }, { 1, UNITS }, { 1, 0 }
    };
    static problem p;                        /* zeroed                     */
    const smask_adam_desc optim = { .lr = 0.02f, .weight_decay = -1 };
    const smask_params params = { .item = p.item, .count = 4 };
    smask_ctx c;
    smask_adam adam;
    float worst = 1, loss_now = 1;
    int i, step;

    smask_setup(&c, NULL);
    for (i = 0; i < POINTS; i++) {
        p.x[i] = 2 * (float)i / (POINTS - 1) - 1;
        p.y[i] = sinf(7 * p.x[i]) * (1 - p.x[i] * p.x[i])
               + 0.5f * cosf(13 * p.x[i]);
    }
    for (i = 0; i < 4; i++) {
        smask_tensor *t = smask_parameter(&c, shape[i][0], shape[i][1],
                                          0, 0);
        size_t k;
        for (k = 0; t && k < smask_count(t); k++)
            t->x[k] = smask_normal(&c.random) * (i < 2 ? 5 : 0.3f);
        p.item[i].t = t;
    }
    smask_gradcheck(&c, p.item[0].t, problem_loss, &p, 16, 1e-2f, &worst);
    printf("gradient check through both ops: %.1e\n\n", (double)worst);
    smask_adam_init(&c, &adam, &optim, &params);
    for (step = 0; step <= 1000 && smask_error(&c) == SMASK_OK; step++) {
        smask_tensor *loss;
        smask_begin_step(&c);
        loss = problem_loss(&c, &p);
        if (loss) loss_now = loss->x[0];
        if (step % 200 == 0)
            printf("step %4d   loss %.5f\n", step, (double)loss_now);
        smask_backward(&c, loss);
        smask_adam_update(&c, &adam, &params);
        smask_end_step(&c);
    }
    draw(&p);
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "03_user_op: %s (%s)\n",
            smask_result_text(smask_error(&c)), smask_detail(&c));
    i = smask_error(&c) == SMASK_OK && worst < 1e-2f && loss_now < 0.01f;
    smask_shutdown(&c);
    return i ? 0 : 1;
}
