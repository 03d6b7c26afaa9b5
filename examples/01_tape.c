/* 01  The tape: a straight line, fitted by formula and by the tape.

   Shows   how a loss is written as ops on tensors, how smask_backward fills
           in the gradient of each parameter, and that these gradients are the
           ones you would derive on paper.
   Build   cc -O2 -I. examples/01_tape.c -o build/01_tape -lm
   Prints  both gradients side by side while the loss falls, then the points
           (o) and the fitted line (-). Returns 1 if the gradients differ or
           the line is wrong. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <stdio.h>

#define POINTS 24
#define TRUE_A 1.5f
#define TRUE_B -0.5f

/* The line is y = a x + b. The mean squared error

       loss = 1/n sum_i (a x_i + b - y_i)^2

   has, by the chain rule, the derivatives

       d loss / d a = 2/n sum_i (a x_i + b - y_i) x_i
       d loss / d b = 2/n sum_i (a x_i + b - y_i)                          */
static void gradient_by_formula(const float line[2], float design[POINTS][2],
    const float *y, float gradient[2])
{
    int i;
    gradient[0] = gradient[1] = 0;
    for (i = 0; i < POINTS; i++) {
        float error = line[0] * design[i][0] + line[1] - y[i];
        gradient[0] += 2 * error * design[i][0] / POINTS;
        gradient[1] += 2 * error / POINTS;
    }
}

/* The same loss as ops. The rows of `design` are (x_i, 1), the line is (a, b):
   one linear layer computes all predictions. Shapes are in brackets. */
static smask_tensor *loss_by_tape(smask_ctx *c, smask_tensor *line,
    float design[POINTS][2], const float *y)
{
    smask_tensor *rows = smask_input(c, design[0], 1, POINTS, 2, 0);
    smask_tensor *truth = smask_input(c, y, 1, POINTS, 1, 0);
    smask_tensor *guess = smask_linear(c, rows, line, NULL); /* (1, n, 1)  */
    smask_tensor *error = smask_sub(c, guess, truth);        /* (1, n, 1)  */
    smask_tensor *square = smask_mul(c, error, error);       /* (1, n, 1)  */
    return smask_mean_tokens(c, square, 0);                  /* (1, 1)     */
}

static void draw(const float line[2], float design[POINTS][2],
    const float *y)
{
    char picture[13][50];
    int i, row, column;
    for (row = 0; row < 13; row++) {
        for (column = 0; column < 49; column++) picture[row][column] = ' ';
        picture[row][49] = 0;
    }
    for (column = 0; column < 49; column++) {
        float x = (float)column / 24 - 1;
        row = 6 - (int)((line[0] * x + line[1]) * 2.5f + 100.5f) + 100;
        if (row >= 0 && row < 13) picture[row][column] = '-';
    }
    for (i = 0; i < POINTS; i++) {
        row = 6 - (int)(y[i] * 2.5f + 100.5f) + 100;
        column = (int)((design[i][0] + 1) * 24 + 0.5f);
        if (row >= 0 && row < 13) picture[row][column] = 'o';
    }
    for (row = 0; row < 13; row++) printf("    |%s\n", picture[row]);
}

int main(void)
{
    smask_ctx c;
    smask_random r;
    smask_tensor *line;
    float design[POINTS][2], y[POINTS];
    float formula[2], worst = 0;
    int i, step;

    smask_seed(&r, 1, 0);
    for (i = 0; i < POINTS; i++) {
        design[i][0] = 2 * smask_uniform(&r) - 1;
        design[i][1] = 1;
        y[i] = TRUE_A * design[i][0] + TRUE_B + 0.15f * smask_normal(&r);
    }

    smask_setup(&c, NULL);
    line = smask_parameter(&c, 1, 2, 0, 0);      /* (a, b), both zero      */

    printf("step     loss   d loss/d a: formula, tape   d loss/d b: formula, "
           "tape\n");
    for (step = 0; line && step <= 60; step++) {
        smask_tensor *loss;
        smask_begin_step(&c);
        loss = loss_by_tape(&c, line, design, y);
        if (smask_backward(&c, loss) == SMASK_OK) {
            gradient_by_formula(line->x, design, y, formula);
            if (step % 10 == 0)
                printf("%4d %8.4f %15.6f %10.6f %16.6f %10.6f\n", step,
                       (double)loss->x[0], (double)formula[0],
                       (double)line->dx[0], (double)formula[1],
                       (double)line->dx[1]);
            for (i = 0; i < 2; i++) {
                float error = formula[i] - line->dx[i];
                if (error < 0) error = -error;
                if (error > worst) worst = error;
                line->x[i] -= 0.3f * line->dx[i];    /* one step downhill  */
                line->dx[i] = 0;         /* backward adds: clear it        */
            }
        }
        smask_end_step(&c);
    }

    /* Ops pass errors on as NULL, so one look at the end is enough. */
    if (smask_error(&c) != SMASK_OK) {
        fprintf(stderr, "01_tape: %s (%s)\n",
            smask_result_text(smask_error(&c)), smask_detail(&c));
        smask_shutdown(&c);
        return 1;
    }
    printf("\nfound y = %.2f x %+.2f; the points were made with "
           "%.2f x %+.2f and noise\n\n", (double)line->x[0],
           (double)line->x[1], (double)TRUE_A, (double)TRUE_B);
    draw(line->x, design, y);
    printf("\nlargest difference between formula and tape: %.1e\n",
           (double)worst);
    i = worst < 1e-5f && line->x[0] > 1.3f && line->x[0] < 1.7f
        && line->x[1] > -0.7f && line->x[1] < -0.3f;
    smask_shutdown(&c);
    return i ? 0 : 1;
}
