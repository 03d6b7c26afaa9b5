/* 15  Your own images: from bytes to a training step, batch by batch.

   Shows   how pictures as decoders give them (RGB bytes, any size) become the
           model's images; how the tokenizer takes its sizes from the model;
           and gradient accumulation: one update from the gradients of
           several small batches, when a large one does not fit in memory.
           (The match stays within a batch: it has fewer halves to compare.)
   Build   cc -O2 -I. examples/15_own_images.c -o build/15_own_images -lm
   Prints  a picture as the model sees it, then both losses falling. Returns
           1 if the last updates do not predict tokens better than by their
           frequency, or find fewer than half of the matching halves. */

#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <stdio.h>

#define HEIGHT 36                        /* of the pictures, pixels        */
#define WIDTH 54
#define SIDE 24                          /* of the model's images, pixels  */
#define BATCH 12
#define PARTS 2                          /* batches for one update         */
#define UPDATES 240
#define LAST 40                          /* updates that the check looks at */

static unsigned char pictures[BATCH][HEIGHT][WIDTH][3];
static float images[BATCH * 3 * SIDE * SIDE];

/* Decode your own files here, for example with stb_image.h. These are discs
   of any colour on a background that goes from one colour to another. */
static void next_pictures(smask_random *r)
{
    int b, y, x, k;
    for (b = 0; b < BATCH; b++) {
        float colour[3][3], size = 6 + 6 * smask_uniform(r);
        float cx = 15 + 24 * smask_uniform(r), cy = 6 + 24 * smask_uniform(r);
        for (k = 0; k < 9; k++) colour[k / 3][k % 3] = 255 * smask_uniform(r);
        for (y = 0; y < HEIGHT; y++)
            for (x = 0; x < WIDTH; x++) {
                float u = (float)x - cx, v = (float)y - cy;
                float right = (float)x / WIDTH;
                int inside = u * u + v * v < size * size;
                for (k = 0; k < 3; k++)
                    pictures[b][y][x][k] = (unsigned char)(inside
                        ? colour[0][k] : right * colour[1][k]
                        + (1 - right) * colour[2][k]);
            }
    }
}

/* Red, green and blue of the first image, each dark (blank) to bright (@). */
static void draw_image(void)
{
    const char *ramp = " .:-=+*#%@";
    int k, y, x;
    for (y = 0; y < SIDE; y += 2, printf("|\n"))
        for (k = 0; k < 3; k++) {
            printf(k ? "|  |" : "  |");
            for (x = 0; x < SIDE; x++) {
                float value = images[(k * SIDE + y) * SIDE + x];
                putchar(ramp[(int)((value + 1) * 4.99f)]);   /* -1 .. 1    */
            }
        }
}

int main(void)
{
    const smask_vit_desc model = { .image = SIDE, .channels = 3, .dim = 48,
        .depth = 2, .heads = 2, .vocabulary = 64, .decoder_depth = 1,
        .init_std = 0.06f };
    const smask_adam_desc optim = { .lr = 3e-3f, .warmup = 20,
        .steps = UPDATES };
    smask_tokenizer_desc codebook;
    smask_ctx c;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_losses out = { 0 };
    smask_token_use use = { 0 };
    smask_random r;
    double inpaint = 0, entropy = 0, found = 0;  /* means of the last      */
    int update, part, ok;

    smask_setup(&c, NULL);
    smask_seed(&r, 15, 0);
    smask_vit_init(&c, &vit, &model);
    codebook = smask_tokenizer_desc_for(&vit);   /* no size is typed twice */
    smask_tokenizer_init(&c, &tok, &codebook);
    smask_adam_init(&c, &adam, &optim, &vit.params);

    for (update = 1; update <= UPDATES; update++) {
        for (part = 0; part < PARTS; part++) {
            smask_tensor *loss;
            next_pictures(&r);
            smask_images_from_bytes(pictures[0][0][0], BATCH, HEIGHT, WIDTH, 3,
                                    SIDE, NULL, NULL, images);
            if (update == 1 && part == 0) draw_image();
            smask_begin_step(&c);
            loss = smask_splitmask_loss(&c, &vit, &tok, NULL, images, BATCH,
                                        &out);
            smask_backward(&c, smask_scale(&c, loss, 1.0f / PARTS));
            smask_token_stats(&c, out.tokens, BATCH * (size_t)vit.tokens,
                              codebook.vocabulary, NULL, &use);
            smask_end_step(&c);          /* the gradients stay             */
        }
        smask_adam_update(&c, &adam, &vit.params);   /* and are cleared    */
        if (update > UPDATES - LAST) {
            inpaint += (double)out.inpaint / LAST;
            entropy += use.entropy / LAST;
            found += (double)out.match_accuracy / LAST;
        }
        if (update % 30 == 0)
            printf("update %3d   inpaint %.3f (%2.0f %% right)   match %.3f "
                   "(%3.0f %% found)\n", update, (double)out.inpaint,
                   100 * (double)out.accuracy, (double)out.match,
                   100 * (double)out.match_accuracy);
    }
    printf("last %d updates: inpaint %.3f, guessing by frequency would give "
           "%.3f\n", LAST, inpaint, entropy);
    if (smask_error(&c) != SMASK_OK)
        fprintf(stderr, "15_own_images: %s (%s)\n",
                smask_result_text(smask_error(&c)), smask_detail(&c));
    ok = smask_error(&c) == SMASK_OK && inpaint < entropy && found > 0.5;
    smask_shutdown(&c);
    return ok ? 0 : 1;
}
