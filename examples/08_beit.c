/* 08  BEiT: predict the visual tokens of masked patches.

   Shows   the older of the two methods. Part of each image is replaced by a
           mask token; the encoder sees all places and predicts the visual
           token at the hidden ones.
   Build   cc -O2 -I. examples/08_beit.c -o build/08_beit -lm
   Prints  the loss beside the entropy of the tokens (what guessing by
           frequency alone would cost), then a new picture: whole, with
           gaps, and with the gaps painted by the model. Returns 1 if the
           model does not beat guessing by frequency. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 24                          /* pixels                         */
#define P 4                              /* side of a patch, pixels        */
#define GRID (SIDE / P)
#define N (GRID * GRID)                  /* patches per image              */
#define V 32                             /* visual tokens                  */
#define BATCH 16
#define IMAGES 128                       /* to learn the codebook from     */
#define STEPS 300

static float images[IMAGES * SIDE * SIDE];
static float patches[IMAGES * N * P * P];
static int32_t ids[IMAGES * N];

/* A bright disc, square or diamond at a random place on a dark background. */
static void draw_image(smask_random *r, float *image)
{
    float cx = 8 + 8 * smask_uniform(r), cy = 8 + 8 * smask_uniform(r);
    float size = 5 + 3 * smask_uniform(r);
    uint32_t kind = smask_below(r, 3);
    int y, x;
    for (y = 0; y < SIDE; y++)
        for (x = 0; x < SIDE; x++) {
            float u = fabsf((float)x - cx), v = fabsf((float)y - cy);
            float reach = kind == 0 ? sqrtf(u * u + v * v)
                        : kind == 1 ? fmaxf(u, v) * 1.13f : (u + v) * 0.8f;
            image[y * SIDE + x] = reach < size ? 1.5f : -0.5f;
        }
}

/* The picture whole, with '?' where it was hidden, and painted by guess. */
static void draw_guess(const smask_tokenizer *t, const smask_losses *out,
    const float *image)
{
    const char *ramp = " .:-=+*#%@";
    int guess[N], i, y, x, copy;
    for (i = 0; i < N; i++) guess[i] = -1;
    for (i = 0; i < out->mask.masked[0]; i++)
        guess[out->mask.masked_at[0][i]] = out->guess[i];
    for (y = 0; y < SIDE; y += 2, printf("|\n"))
        for (copy = 0; copy < 3; copy++) {
            printf(copy ? "|  |" : "  |");
            for (x = 0; x < SIDE; x++) {
                int g = guess[y / P * GRID + x / P];
                float value = image[y * SIDE + x];
                int level;
                if (g >= 0 && copy == 2) /* unit length; patches have
                                            a length near 3                */
                    value = 3 * t->codebook[(g * P + y % P) * P + x % P];
                level = (int)((value + 0.7f) * 4.5f);
                level = level < 0 ? 0 : level > 9 ? 9 : level;
                putchar(g >= 0 && copy == 1 ? '?' : ramp[level]);
            }
        }
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .patch = P, .channels = 1,
        .dim = 64, .depth = 3, .heads = 2, .vocabulary = V,
        .mask_token = 1, .init_std = 0.06f };
    const smask_tokenizer_desc codebook = { .kind = SMASK_TOKENS_KMEANS,
        .image = SIDE, .patch = P, .channels = 1, .vocabulary = V };
    const smask_adam_desc optim = { .lr = 3e-3f, .warmup = 30,
        .steps = STEPS };
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_random r;
    smask_token_use stats;
    double late = 0;                     /* mean loss of the last steps    */
    int i, step;

    smask_setup(&c, NULL);
    smask_seed(&r, 8, 0);
    for (i = 0; i < IMAGES; i++) draw_image(&r, images + i * SIDE * SIDE);
    smask_tokenizer_init(&c, &tok, &codebook);
    smask_tokenizer_patches(&tok, images, IMAGES, patches);
    smask_tokenizer_fit(&c, &tok, patches, IMAGES * N, 0, NULL, NULL);
    smask_tokenize(&c, &tok, images, IMAGES, ids);
    smask_token_stats(&c, ids, IMAGES * N, V, NULL, &stats);
    smask_vit_init(&c, &vit, &model);
    smask_adam_init(&c, &adam, &optim, &vit.params);

    for (step = 0; step <= STEPS && smask_error(&c) == SMASK_OK; step++) {
        smask_losses out;
        smask_tensor *loss;
        for (i = 0; i < BATCH; i++) draw_image(&r, images + i * SIDE * SIDE);
        smask_begin_step(&c);
        loss = smask_beit_loss(&c, &vit, &tok, NULL, images, BATCH, &out);
        if (loss && step % 50 == 0)
            printf("step %3d   loss %.3f   entropy %.3f   guessed right "
                   "%3.0f %%\n", step, (double)out.total, stats.entropy,
                   100 * (double)out.accuracy);
        if (loss && step > STEPS - 20) late += (double)out.total / 20;
        if (loss && step == STEPS) {
            printf("\n");
            draw_guess(&tok, &out, images);
        }
        smask_backward(&c, loss);
        smask_adam_update(&c, &adam, &vit.params);
        smask_end_step(&c);
    }
    if (smask_error(&c) != SMASK_OK) {
        fprintf(stderr, "08_beit: %s (%s)\n",
            smask_result_text(smask_error(&c)), smask_detail(&c));
        smask_shutdown(&c);
        return 1;
    }
    smask_shutdown(&c);
    printf("\nby frequency alone: %.3f nats a patch; by context: %.3f\n",
           stats.entropy, late);
    return late < 0.8 * stats.entropy ? 0 : 1;
}
