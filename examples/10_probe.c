/* 10  The linear probe: what do frozen features know?

   Shows   how to judge a pre-trained encoder: freeze it, take the features
           of every layer, and train nothing but a linear classifier on
           them. The same is done with an encoder that was never trained.
   Build   cc -O2 -I. examples/10_probe.c -o build/10_probe -lm
   Prints  accuracy on new images by layer, random beside pre-trained. The
           task: is it a disc, a square or a diamond? Place, size and
           brightness differ, so that no single pixel helps. Returns 1 if
           pre-training brought nothing. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 24                          /* pixels                         */
#define PIXELS (SIDE * SIDE)
#define BATCH 32
#define STEPS 400
#define TRAIN 384                        /* labelled images to learn from  */
#define TEST 384                         /* and to be judged by            */
#define ALL (TRAIN + TEST)
#define D 48
#define DEPTH 3
#define CLASSES 3

static float images[ALL * PIXELS], batch[BATCH * PIXELS];
static float features[(DEPTH + 1) * ALL * D];
static float target[TRAIN * CLASSES];    /* one-hot                        */
static int label[ALL];

static int draw_image(smask_random *r, float *image)
{
    float cx = 8 + 8 * smask_uniform(r), cy = 8 + 8 * smask_uniform(r);
    float size = 4 + 3 * smask_uniform(r);
    float bright = smask_uniform(r) < 0.5f ? 1.5f : -1.5f;
    int kind = (int)smask_below(r, CLASSES), y, x;
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            float u = fabsf((float)x - cx), v = fabsf((float)y - cy);
            float reach = kind == 0 ? sqrtf(u * u + v * v)
                        : kind == 1 ? fmaxf(u, v) * 1.13f : (u + v) * 0.8f;
            image[y * SIDE + x] = (reach < size ? bright : 0)
                                + 0.2f * smask_normal(r);
        }
    return kind;
}

static void pretrain(smask_ctx *c, smask_vit *vit, smask_random *r)
{
    const smask_tokenizer_desc words = { .image = SIDE, .channels = 1,
        .vocabulary = 64 };
    const smask_adam_desc speed = { .lr = 2e-3f, .warmup = 20,
        .steps = STEPS };
    smask_tokenizer tok;
    smask_adam adam;
    int step, i;
    smask_tokenizer_init(c, &tok, &words);
    smask_adam_init(c, &adam, &speed, &vit->params);
    for (step = 0; step < STEPS && smask_error(c) == SMASK_OK; step++) {
        smask_tensor *loss;
        for (i = 0; i < BATCH; i++) draw_image(r, batch + i * PIXELS);
        smask_begin_step(c);
        loss = smask_splitmask_loss(c, vit, &tok, NULL, batch, BATCH, NULL);
        if (smask_backward(c, loss) == SMASK_OK)
            smask_adam_update(c, &adam, &vit->params);
        smask_end_step(c);
    }
}

/* Each feature to mean 0 and deviation 1 over the training images, so that
   one learning rate suits all layers. */
static void standardise(float *x)
{
    int d, i;
    for (d = 0; d < D; d++) {
        double sum = 0, square = 0, mean, scale;
        for (i = 0; i < TRAIN; i++) sum += (double)x[i * D + d];
        mean = sum / TRAIN;
        for (i = 0; i < TRAIN; i++)
            square += ((double)x[i * D + d] - mean)
                    * ((double)x[i * D + d] - mean);
        scale = 1 / sqrt(square / TRAIN + 1e-12);
        for (i = 0; i < ALL; i++)
            x[i * D + d] = (float)(((double)x[i * D + d] - mean) * scale);
    }
}

/* Softmax regression on frozen features; share of TEST it gets right. */
static double probe(smask_ctx *c, const float *x)
{
    const smask_adam_desc speed = { .lr = 0.02f, .steps = 300 };
    smask_param item[2] = { { .decay = 1 }, { .decay = 0 } };
    smask_params params = { .item = item, .count = 2, .capacity = 2 };
    smask_adam adam;
    smask_tensor *score;
    int step, i, k, right = 0;
    item[0].t = smask_parameter(c, CLASSES, D, 0, 0);
    item[1].t = smask_parameter(c, CLASSES, 0, 0, 0);
    smask_adam_init(c, &adam, &speed, &params);
    for (step = 0; step <= 300 && smask_error(c) == SMASK_OK; step++) {
        smask_begin_step(c);
        score = smask_linear(c, smask_input(c, x, step < 300 ? TRAIN : ALL,
                             D, 0, 0), item[0].t, item[1].t);
        if (step < 300) {
            if (smask_backward(c, smask_cross_entropy(c, score, target))
                == SMASK_OK) smask_adam_update(c, &adam, &params);
        } else if (score) {
            for (i = TRAIN; i < ALL; i++) {
                const float *s = score->x + i * CLASSES;
                int best = 0;
                for (k = 1; k < CLASSES; k++) if (s[k] > s[best]) best = k;
                right += best == label[i];
            }
        }
        smask_end_step(c);
    }
    return (double)right / TEST;
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .channels = 1, .dim = D,
        .depth = DEPTH, .heads = 2, .vocabulary = 64, .decoder_depth = 1 };
    double right[2][DEPTH + 1] = { { 0 }, { 0 } }, best[2] = { 0, 0 };
    smask_ctx c;
    smask_vit vit;
    smask_random r;
    int i, l, trained;

    smask_setup(&c, NULL);
    smask_seed(&r, 10, 0);
    for (i = 0; i < ALL; i++) {
        label[i] = draw_image(&r, images + i * PIXELS);
        if (i < TRAIN) target[i * CLASSES + label[i]] = 1;
    }
    smask_vit_init(&c, &vit, &model);
    for (trained = 0; trained < 2; trained++) {
        if (trained) pretrain(&c, &vit, &r);
        smask_vit_features(&c, &vit, images, ALL, features);
        for (l = 0; l <= DEPTH && smask_error(&c) == SMASK_OK; l++) {
            standardise(features + l * ALL * D);
            right[trained][l] = probe(&c, features + l * ALL * D);
            if (right[trained][l] > best[trained])
                best[trained] = right[trained][l];
        }
    }
    if (smask_error(&c) != SMASK_OK) {
        fprintf(stderr, "10_probe: %s (%s)\n", smask_text(smask_error(&c)),
                smask_detail(&c));
        smask_shutdown(&c);
        return 1;
    }
    printf("%-16s %8s %12s\n", "features after", "random", "pre-trained");
    for (l = 0; l <= DEPTH; l++)
        printf("%-10s %d     %6.1f %% %10.1f %%\n",
               l < DEPTH ? "block" : "norm, block", l < DEPTH ? l + 1 : l,
               100 * right[0][l], 100 * right[1][l]);
    printf("guessing             %.1f %%\n", 100.0 / CLASSES);
    smask_shutdown(&c);
    return best[1] > best[0] + 0.05 ? 0 : 1;
}
