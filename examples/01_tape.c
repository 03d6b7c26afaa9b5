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
#define TRUE_SLOPE 1.5f
#define TRUE_START -0.5f

/* What the tape has to find out: the mean squared error

       loss = 1/n sum_i (gradient x_i + start - y_i)^2

   has, by the chain rule, the derivatives

       d loss / d gradient = 2/n sum_i (gradient x_i + start - y_i) x_i
       d loss / d start = 2/n sum_i (gradient x_i + start - y_i)           */
static void gradients_by_formula(const float line[2], float design[POINTS][2],
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

/* The same loss as ops. With rows (x_i, 1) in `design`, all predictions at
   once are one linear layer; the error is that layer minus y; and the sum
   of squares is the product of the error with itself. */
static smask_tensor *loss_by_tape(smask_ctx *c, smask_tensor *line,
    float design[POINTS][2], const float *minus_y)
{
    smask_tensor *rows = smask_input(c, design[0], POINTS, 2, 0, 0);
    smask_tensor *y = smask_input(c, minus_y, 1, POINTS, 0, 0);
    smask_tensor *error = smask_linear_add(c, line, rows, NULL, y, NULL);
    smask_tensor *square = smask_linear(c, error, error, NULL);
    return smask_scale(c, square, 1.0f / POINTS);
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
    float design[POINTS][2], y[POINTS], minus_y[POINTS];
    float formula[2], worst = 0;
    int i, step;

    smask_seed(&r, 1, 0);
    for (i = 0; i < POINTS; i++) {
        design[i][0] = 2 * smask_uniform(&r) - 1;
        design[i][1] = 1;
        y[i] = TRUE_SLOPE * design[i][0] + TRUE_START
             + 0.15f * smask_normal(&r);
        minus_y[i] = -y[i];
    }

    smask_setup(&c, NULL);
    line = smask_parameter(&c, 1, 2, 0, 0);  /* gradient and start, both zero */

    printf("step     loss    d/dslope formula, tape    d/dstart formula, "
           "tape\n");
    for (step = 0; line && step <= 60; step++) {
        smask_tensor *loss;
        smask_begin_step(&c);
        loss = loss_by_tape(&c, line, design, minus_y);
        if (smask_backward(&c, loss) == SMASK_OK) {
            gradients_by_formula(line->x, design, y, formula);
            if (step % 10 == 0)
                printf("%4d %8.4f %13.6f %10.6f %14.6f %10.6f\n", step,
                       (double)loss->x[0], (double)formula[0],
                       (double)line->dx[0], (double)formula[1],
                       (double)line->dx[1]);
            for (i = 0; i < 2; i++) {
                float apart = formula[i] - line->dx[i];
                if (apart < 0) apart = -apart;
                if (apart > worst) worst = apart;
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
           (double)line->x[1], (double)TRUE_SLOPE, (double)TRUE_START);
    draw(line->x, design, y);
    printf("\nlargest difference between formula and tape: %.1e\n",
           (double)worst);
    i = worst < 1e-5f && line->x[0] > 1.3f && line->x[0] < 1.7f
        && line->x[1] > -0.7f && line->x[1] < -0.3f;
    smask_shutdown(&c);
    return i ? 0 : 1;
}
