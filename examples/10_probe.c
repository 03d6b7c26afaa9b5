/* 10  The linear probe: what do frozen features know?

   Shows   how to judge an encoder: freeze it, take the features of every
           layer, and train only a linear classifier on them. Here it finds
           the direction of stripes, from 16 labelled images a class.
   Build   cc -O2 -I. examples/10_probe.c -o build/10_probe -lm
   Prints  accuracy on new images by layer, for an encoder that was never
           trained and one that was. Returns 1 if training does not help. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 24                          /* pixels                         */
#define BATCH 32
#define STEPS 200
#define TRAIN 96                         /* labelled images                */
#define ALL 480                          /* the rest is for the test       */
#define D 48
#define DEPTH 2
#define CLASSES 6

static float images[ALL][SIDE * SIDE], batch[BATCH][SIDE * SIDE];
static float features[(DEPTH + 1) * ALL * D], target[TRAIN * CLASSES];
static int label[ALL];

/* Stripes of six directions, any width and phase, under noise.
   Returns the direction, 0 .. 5: 30 degrees from one to the next, +- 12. */
static int draw_image(smask_random *r, float *image)
{
    int kind = (int)smask_below(r, CLASSES), y, x;
    float angle = 0.524f * ((float)kind - 0.4f + 0.8f * smask_uniform(r));
    float wave = 0.5f + 0.7f * smask_uniform(r);
    float start = 6.28f * smask_uniform(r);
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            float way = (float)x * cosf(angle) + (float)y * sinf(angle);
            image[y * SIDE + x] = sinf(wave * way + start)
                                + 0.6f * smask_normal(r);
        }
    return kind;
}

/* SplitMask on unlabelled images: the loop of 09_splitmask.c. */
static void pretrain(smask_ctx *c, smask_vit *vit, smask_random *r)
{
    const smask_tokenizer_desc codebook = smask_tokenizer_desc_for(vit);
    const smask_adam_desc optim = { .lr = 3e-3f, .steps = STEPS };
    smask_tokenizer tok;
    smask_adam adam;
    int step, i;
    smask_tokenizer_init(c, &tok, &codebook);
    smask_adam_init(c, &adam, &optim, &vit->params);
    for (step = 0; step < STEPS && smask_error(c) == SMASK_OK; step++) {
        smask_tensor *loss;
        for (i = 0; i < BATCH; i++) draw_image(r, batch[i]);
        smask_begin_step(c);
        loss = smask_splitmask_loss(c, vit, &tok, NULL, batch[0], BATCH,
                                    NULL);
        smask_backward(c, loss);
        smask_adam_update(c, &adam, &vit->params);
        smask_end_step(c);
    }
}

/* Mean 0 and deviation 1, so that one learning rate suits all layers. */
static void standardise(float *x)
{
    int d, i;
    for (d = 0; d < D; d++) {
        float mean = 0, square = 1e-9f;
        for (i = 0; i < TRAIN; i++) mean += x[i * D + d] / TRAIN;
        for (i = 0; i < ALL; i++) x[i * D + d] -= mean;
        for (i = 0; i < TRAIN; i++) square += x[i * D + d] * x[i * D + d];
        for (i = 0; i < ALL; i++) x[i * D + d] /= sqrtf(square / TRAIN);
    }
}

/* Softmax regression on frozen features; share of the rest it gets right. */
static double probe(smask_ctx *c, float *x)
{
    const smask_adam_desc optim = { .lr = 0.02f };
    smask_param item[2] = { { .decay = 1 }, { .decay = 0 } };
    smask_params params = { .item = item, .count = 2, .capacity = 2 };
    smask_adam adam;
    smask_tensor *score, *loss;
    int step, i, k, right = 0;
    standardise(x);
    item[0].t = smask_parameter(c, CLASSES, D, 0, 0);
    item[1].t = smask_parameter(c, CLASSES, 0, 0, 0);
    smask_adam_init(c, &adam, &optim, &params);
    for (step = 0; step < 300 && smask_error(c) == SMASK_OK; step++) {
        smask_begin_step(c);
        score = smask_input(c, x, TRAIN, D, 0, 0);
        score = smask_linear(c, score, item[0].t, item[1].t);
        loss = smask_cross_entropy(c, score, target);
        smask_backward(c, loss);
        smask_adam_update(c, &adam, &params);
        smask_end_step(c);
    }
    smask_begin_step(c);
    score = smask_input(c, x + TRAIN * D, ALL - TRAIN, D, 0, 0);
    score = smask_linear(c, score, item[0].t, item[1].t);
    for (i = 0; score && i < ALL - TRAIN; i++) {
        const float *s = score->x + i * CLASSES;
        int best = 0;
        for (k = 1; k < CLASSES; k++) if (s[k] > s[best]) best = k;
        right += best == label[TRAIN + i];
    }
    smask_end_step(c);
    return (double)right / (ALL - TRAIN);
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .channels = 1, .dim = D,
        .depth = DEPTH, .heads = 2, .vocabulary = 64, .decoder_depth = 1,
        .init_std = 0.06f };
    const smask_desc memory = { .memory_size = (size_t)256 << 20 };
    double right[2][DEPTH + 1] = { { 0 }, { 0 } };
    smask_ctx c;
    smask_vit vit;
    smask_random r;
    int i, l, trained;

    smask_setup(&c, &memory);
    smask_seed(&r, 10, 0);
    for (i = 0; i < ALL; i++) label[i] = draw_image(&r, images[i]);
    for (i = 0; i < TRAIN; i++) target[i * CLASSES + label[i]] = 1;
    smask_vit_init(&c, &vit, &model);
    for (trained = 0; trained < 2; trained++) {
        if (trained) pretrain(&c, &vit, &r);
        smask_vit_features(&c, &vit, images[0], ALL, features);
        for (l = 0; l <= DEPTH && smask_error(&c) == SMASK_OK; l++)
            right[trained][l] = probe(&c, features + l * ALL * D);
    }
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "10_probe: %s (%s)\n",
            smask_result_text(smask_error(&c)), smask_detail(&c));
    printf("features after     random   pre-trained\n");
    for (l = 0; l <= DEPTH; l++)
        printf("%-12s %d %8.1f %% %11.1f %%\n",
               l < DEPTH ? "block" : "norm, block", l < DEPTH ? l + 1 : l,
               100 * right[0][l], 100 * right[1][l]);
    printf("guessing           %.1f %%\n", 100.0 / CLASSES);
    smask_shutdown(&c);
    return right[1][DEPTH] > right[0][DEPTH] + 0.1 ? 0 : 1;
}
