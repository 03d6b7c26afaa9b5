/* 09  SplitMask: a complete pre-training program.

   Shows   the whole method in one page: images are split into two halves of
           their patches, each half is encoded alone, and a small decoder
           predicts the visual tokens of the patches it did not see
           (inpaint), while the two halves of an image must find each other
           in the batch (match).
   Build   cc -O2 -I. examples/09_splitmask.c -o build/09_splitmask -lm
   Prints  both losses falling. Returns 1 if the model does not predict
           tokens better than by their frequency, or finds fewer than half of
           the matching halves. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <math.h>
#include <stdio.h>

#define SIDE 24                          /* pixels                         */
#define BATCH 24
#define STEPS 300

static float images[BATCH * SIDE * SIDE];

/* Put your own images here: any float32 (BATCH, channels, SIDE, SIDE) with
   mean 0 and standard deviation 1. These are stripes behind a disc. */
static void next_images(smask_random *r)
{
    int b, y, x;
    for (b = 0; b < BATCH; b++) {
        float cx = 6 + 12 * smask_uniform(r), cy = 6 + 12 * smask_uniform(r);
        float angle = 6.28f * smask_uniform(r), size = 4 + 4 * smask_uniform(r);
        float wave = 0.3f + 0.7f * smask_uniform(r);
        for (y = 0; y < SIDE; y++)
            for (x = 0; x < SIDE; x++) {
                float u = (float)x - cx, v = (float)y - cy;
                float way = u * cosf(angle) + v * sinf(angle);
                images[(b * SIDE + y) * SIDE + x]
                    = u * u + v * v < size * size ? 2 : sinf(wave * way);
            }
    }
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .patch = 4, .channels = 1,
        .dim = 48, .depth = 2, .heads = 2, .vocabulary = 64,
        .decoder_depth = 1, .init_std = 0.06f };
    const smask_adam_desc optim = { .lr = 3e-3f, .warmup = 20,
        .steps = STEPS };
    smask_tokenizer_desc codebook;
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_losses out = { 0 };
    smask_token_use use = { 0 };
    smask_random r;
    int step, ok;

    smask_setup(&c, NULL);
    smask_seed(&r, 9, 0);
    smask_vit_init(&c, &vit, &model);
    codebook = smask_tokenizer_desc_for(&vit);   /* the model's sizes      */
    codebook.kind = SMASK_TOKENS_PROJECTION;
    smask_tokenizer_init(&c, &tok, &codebook);
    smask_adam_init(&c, &adam, &optim, &vit.params);
    printf("%lu weights, %s\n", (unsigned long)
           smask_params_count(&vit.params), smask_isa_text(&c));

    for (step = 0; step <= STEPS && smask_error(&c) == SMASK_OK; step++) {
        smask_tensor *loss;
        next_images(&r);
        smask_begin_step(&c);
        loss = smask_splitmask_loss(&c, &vit, &tok, NULL, images, BATCH,
                                    &out);
        smask_backward(&c, loss);
        smask_adam_update(&c, &adam, &vit.params);
        smask_token_stats(&c, out.tokens, BATCH * (size_t)vit.tokens,
                          codebook.vocabulary, NULL, &use);
        smask_end_step(&c);              /* the step's memory rewinds      */
        if (step % 30 == 0)
            printf("step %3d   inpaint %.3f (%2.0f %% right)   match %.3f "
                   "(%3.0f %% found)\n", step, (double)out.inpaint,
                   100 * (double)out.accuracy, (double)out.match,
                   100 * (double)out.match_accuracy);
    }
    printf("guessing tokens by frequency would give inpaint %.3f\n",
           use.entropy);
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "09_splitmask: %s (%s)\n",
                smask_result_text(smask_error(&c)), smask_detail(&c));
    ok = smask_error(&c) == SMASK_OK && (double)out.inpaint < use.entropy
        && out.match_accuracy > 0.5f;
    smask_shutdown(&c);
    return ok ? 0 : 1;
}
