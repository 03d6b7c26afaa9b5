/* 09  SplitMask: a complete pre-training program.

   Shows   the whole method in one page: images are split into two halves of
           their patches, each half is encoded alone, and a small decoder
           predicts the words of the patches it did not see (inpaint) while
           the two halves must recognise each other in the batch (match).
   Build   cc -O2 -I. examples/09_splitmask.c -o build/09_splitmask -lm
   Prints  both losses falling. Returns 1 if nothing was learnt. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 32                          /* pixels                         */
#define BATCH 32
#define STEPS 200

static float images[BATCH * SIDE * SIDE];

/* Put your own images here: any float32 (BATCH, channels, SIDE, SIDE) with
   mean 0 and standard deviation 1. These are discs, squares and diamonds of
   random place, size and brightness. */
static void next_images(smask_random *r)
{
    int b, y, x;
    for (b = 0; b < BATCH; b++) {
        float cx = 8 + 16 * smask_uniform(r), cy = 8 + 16 * smask_uniform(r);
        float size = 5 + 6 * smask_uniform(r);
        float bright = smask_uniform(r) < 0.5f ? 1.5f : -1.5f;
        uint32_t kind = smask_below(r, 3);
        for (y = 0; y < SIDE; y++)
            for (x = 0; x < SIDE; x++) {
                float u = fabsf((float)x - cx), v = fabsf((float)y - cy);
                float reach = kind == 0 ? sqrtf(u * u + v * v)
                            : kind == 1 ? fmaxf(u, v) : (u + v) * 0.8f;
                images[(b * SIDE + y) * SIDE + x]
                    = reach < size ? bright : 0.1f * smask_normal(r);
            }
    }
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .patch = 4, .channels = 1,
        .dim = 64, .depth = 3, .heads = 2, .vocabulary = 128,
        .decoder_depth = 1 };
    const smask_tokenizer_desc words = { .kind = SMASK_TOKENS_PROJECTION,
        .image = SIDE, .patch = 4, .channels = 1, .vocabulary = 128 };
    const smask_adam_desc speed = { .lr = 2e-3f, .warmup = 20,
        .steps = STEPS };
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_losses out = { 0 }, first = { 0 };
    smask_random r;
    int step, ok;

    smask_setup(&c, NULL);
    smask_seed(&r, 9, 0);
    smask_vit_init(&c, &vit, &model);
    smask_tokenizer_init(&c, &tok, &words);
    smask_adam_init(&c, &adam, &speed, &vit.params);
    printf("%lu weights, %s\n", (unsigned long)
           smask_params_count(&vit.params), smask_lanes_text(&c));

    for (step = 0; step <= STEPS && smask_error(&c) == SMASK_OK; step++) {
        smask_tensor *loss;
        next_images(&r);
        smask_begin_step(&c);
        loss = smask_splitmask_loss(&c, &vit, &tok, NULL, images, BATCH,
                                    &out);
        if (smask_backward(&c, loss) == SMASK_OK)
            smask_adam_update(&c, &adam, &vit.params);
        smask_end_step(&c);              /* the step's memory rewinds      */
        if (step == 0) first = out;
        if (step % 20 == 0)
            printf("step %3d   inpaint %.3f (%2.0f %% right)   match %.3f "
                   "(%3.0f %% found)\n", step, (double)out.inpaint,
                   100 * (double)out.accuracy, (double)out.match,
                   100 * (double)out.match_accuracy);
    }
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "09_splitmask: %s (%s)\n",
                smask_text(smask_error(&c)), smask_detail(&c));
    ok = smask_error(&c) == SMASK_OK && out.inpaint < 0.8f * first.inpaint
        && out.match < 0.8f * first.match;
    smask_shutdown(&c);
    return ok ? 0 : 1;
}
