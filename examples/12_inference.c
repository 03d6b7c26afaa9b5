/* 12  Inference on little: weights in constant memory, no allocator.

   Shows   a model in a small device: its weights are a constant table (in
           ROM; never copied), its memory is one static array, and the
           training half of the library is not compiled at all.
   Build   cc -O2 -I. examples/12_inference.c -o build/12_inference -lm
           (with -DTRAIN it learns the table again and prints it)
   Prints  three pictures with the answers of the model, how many of 300
           it gets right, and the bytes used. Returns 1 below nine in ten. */

#ifndef TRAIN
#define SPLITMASK_NO_AUTOGRAD
#define SPLITMASK_NO_MALLOC
#endif
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

enum { SIDE = 8, CLASSES = 3 };          /* pixels; directions             */

/* Stripes of one of three directions, random width and place, and noise. */
static int draw_image(smask_random *r, float *image)
{
    int kind = (int)smask_below(r, CLASSES), y, x;
    float wave = 1.2f + 0.8f * smask_uniform(r);
    float start = 6.28f * smask_uniform(r);
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            int way = kind == 0 ? 10 * y : kind == 1 ? 10 * x : 7 * (x + y);
            image[y * SIDE + x] = 1.2f * sinf(0.1f * wave * (float)way + start)
                                + 0.3f * smask_normal(r);
        }
    return kind;
}

static const smask_vit_desc shape = { .image = SIDE, .patch = 4,
    .channels = 1, .dim = 4, .depth = 1, .heads = 1, .mlp_ratio = 1,
    .classes = CLASSES, .init_std = 0.3f };

#ifdef TRAIN
int main(void)
{
    static float images[64][SIDE * SIDE], target[64][CLASSES];
    const smask_adam_desc optim = { .lr = 0.02f, .steps = 6000 };
    smask_ctx c;
    smask_vit vit;
    smask_adam adam;
    int i, k, step, column = 0;
    smask_setup(&c, NULL);
    smask_vit_init(&c, &vit, &shape);
    smask_adam_init(&c, &adam, &optim, &vit.params);
    for (step = 0; step < 6000 && smask_error(&c) == SMASK_OK; step++) {
        smask_tensor *score;
        for (i = 0; i < 64; i++) {
            int kind = draw_image(&c.random, images[i]);
            for (k = 0; k < CLASSES; k++) target[i][k] = k == kind ? 1 : 0;
        }
        smask_begin_step(&c);
        score = smask_vit_classify(&c, &vit, images[0], 64);
        smask_backward(&c, smask_cross_entropy(&c, score, target[0]));
        smask_adam_update(&c, &adam, &vit.params);
        smask_end_step(&c);
    }
    for (i = 0; i < vit.params.count; i++)
        for (k = 0; k < (int)smask_count(vit.params.item[i].t); k++)
            printf("%.1ff,%s", (double)vit.params.item[i].t->x[k],
                   ++column % 11 ? " " : "\n");
    i = smask_error(&c) == SMASK_OK ? 0 : 1;
    smask_shutdown(&c);
    return i;
}
#else
static const char *const name[CLASSES] = { "level", "upright", "slanted" };
static const float weights[] = {
  .7f, -.1f, -.4f, -.4f, 1.0f, -.2f, -.6f, -.4f, 1.0f, -.4f, -.6f, -.4f, .7f,
  -.3f, -.5f, -.4f, .1f, -.1f, -.1f, 0, -.1f, -.1f, -.1f, 0, -.1f, .1f, .1f,
  .1f, .1f, .2f, .1f, -.1f, -.1f, -.5f, -.8f, -.3f, .3f, .1f, -.1f, .4f, .5f,
  .2f, .2f, .4f, -.1f, -.2f, -.4f, 0, -.1f, 0, 0, 0, -.5f, -.3f, -.3f, -.2f,
  -.2f, .1f, .2f, 0, .3f, .6f, .6f, .2f, .1f, .4f, .5f, .3f, .2f, .3f, .2f, 0,
  -.1f, -.3f, -.3f, -.4f, -.2f, -.5f, -.3f, -.1f, 1.2f, -.4f, -.6f, -.5f, 1.6f,
  1.0f, 1.8f, .9f, -1.1f, .4f, .7f, .3f, -.3f, .2f, .4f, -.4f, -.1f, .3f, .1f,
  -.3f, .4f, -.1f, -.5f, .3f, -.3f, .1f, .4f, -.3f, .1f, -.2f, -.5f, .6f, .2f,
  .1f, -.4f, .2f, -.1f, .4f, .4f, -.7f, .1f, -.3f, -.4f, .5f, -.3f, .3f, .2f,
  0, 0, .1f, .1f, -.1f, 0, 0, .1f, .1f, -.2f, .3f, .4f, -.3f, -.4f, -.7f, -.1f,
  -.1f, 0, 0, 0, 0, .5f, 0, 0, .2f, -.3f, 0, 0, -.4f, .2f, .1f, -.1f, 0, -.2f,
  .2f, 0, .3f, .5f, 0, 0, .2f, .4f, .1f, -.3f, .1f, 1.9f, 2.5f, 2.6f, 4.3f,
  -2.0f, .6f, 1.3f, .8f, -.4f, .1f, -.1f, .7f, .1f, 0, -.3f, .6f, -1.3f, .3f,
  .5f, -.2f, .1f, -.7f, .7f, .2f, 1.1f, .4f, 1.5f, .4f, -.4f, -.2f, -.9f, -.1f,
  .4f, .1f, .2f, 1.0f, .6f, .6f, .1f, -.7f, -.2f, -.3f, .7f, .4f, -.3f, -1.0f,
  .7f, .4f, 5.4f, 2.2f, 5.4f, 5.5f, -.8f, .3f, 1.1f, .5f, -1.4f, .7f, -.3f,
  .9f, .4f, -.1f, -1.5f, .1f, 0, -.2f, 1.2f, -1.1f, .1f, -.1f, -.3f,
};

static unsigned char memory[24 << 10];   /* all the memory there is        */

/* All that the device does; the dry run walks through it, too. */
typedef struct device { smask_vit vit; float image[SIDE * SIDE]; } device;

static int classify(smask_ctx *c, device *d)
{
    smask_tensor *score;
    int k, best = 0;
    smask_begin_step(c);
    score = smask_vit_classify(c, &d->vit, d->image, 1);
    for (k = 1; score && score->x && k < CLASSES; k++)
        if (score->x[k] > score->x[best]) best = k;
    smask_end_step(c);
    return best;
}

static smask_result start(smask_ctx *c, void *user)
{
    device *d = (device *)user;
    smask_vit_desc desc = shape;
    desc.weights = weights;
    smask_vit_init(c, &d->vit, &desc);
    classify(c, d);
    return smask_error(c);
}

int main(void)
{
    static device d;
    const smask_desc desc = { .memory = memory,
        .memory_size = sizeof memory, .inference = 1 };
    int right = 0, i, k;
    smask_sizes sizes = { 0 };
    smask_random r;
    smask_ctx c;

    smask_plan(&desc, start, &d, &sizes);
    if (smask_setup(&c, &desc) == SMASK_OK) start(&c, &d);
    smask_seed(&r, 2024, 0);             /* none of these was trained on   */
    for (i = 0; i < 300 && smask_error(&c) == SMASK_OK; i++) {
        int truth = draw_image(&r, d.image), guess = classify(&c, &d);
        right += truth == guess;
        for (k = 0; i < 3 && k < SIDE * SIDE; k++)
            printf("%s%s", d.image[k] > 0 ? "##" : " .",
                   k % SIDE == SIDE - 1 ? "\n" : "");
        if (i < 3) printf("the model's answer: %s\n\n", name[guess]);
    }
    printf("%d of 300 right, with %lu bytes of weights and %lu of memory\n",
           right, (unsigned long)sizeof weights, (unsigned long)sizes.bytes);
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "12_inference: %s\n", smask_detail(&c));
    smask_shutdown(&c);
    return right >= 270 ? 0 : 1;
}
#endif
