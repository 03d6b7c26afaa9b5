/* 04  The plan: training in a block of memory of exactly the right size.

   Shows   the dry run, which walks through your program without computing
           and returns the bytes it will need; then a real training run in a
           static array, without a single allocation; then that one byte
           less gives a clear error, not a crash.
   Build   cc -O2 -I. examples/04_plan.c -o build/04_plan -lm
   Prints  the plan for a few batch sizes, the loss falling inside the
           planned block, the error. Returns 1 if the plan is wrong. */

#define SPLITMASK_NO_MALLOC              /* no allocator is called         */
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"
#include <stdio.h>

#define SIDE 16                          /* pixels                         */
#define MAX_BATCH 16                     /* images                         */

static unsigned char memory[8 << 20];    /* all that the library gets      */
static float images[MAX_BATCH * SIDE * SIDE];

typedef struct job {
    int32_t batch;
    int steps;
    float first, last;                   /* the loss, nats                 */
} job;

/* Squares of random place and size on a dark background: a tiny data set. */
static void draw_images(smask_random *r, int32_t count)
{
    int32_t b, y, x;
    for (b = 0; b < count; b++) {
        int32_t size = 5 + (int32_t)smask_below(r, 6);
        int32_t top = (int32_t)smask_below(r, (uint32_t)(SIDE - size));
        int32_t left = (int32_t)smask_below(r, (uint32_t)(SIDE - size));
        for (y = 0; y < SIDE; y++)
            for (x = 0; x < SIDE; x++) {
                int inside = y >= top && y < top + size
                          && x >= left && x < left + size;
                images[(b * SIDE + y) * SIDE + x] = inside ? 1.5f : -0.5f;
            }
    }
}

/* The whole program: model, tokenizer, optimiser, steps. It runs three
   times: dry, for the plan; in a block of that size; in one that is too small.
   In a dry run all tensors have x == NULL: read values only when there are
   some. One step is enough, because all steps are alike. */
static smask_result train(smask_ctx *c, void *user)
{
    job *j = (job *)user;
    int step, steps = smask_is_dry(c) ? 1 : j->steps;
    const smask_vit_desc model = { .image = SIDE, .channels = 1,
        .dim = 32, .depth = 2, .heads = 2, .vocabulary = 64,
        .decoder_depth = 1 };
    const smask_adam_desc optim = { .lr = 2e-3f };
    smask_tokenizer_desc codebook;
    smask_vit vit;
    smask_tokenizer tok;
    smask_adam adam;
    smask_random r;

    smask_seed(&r, 4, 0);
    smask_vit_init(c, &vit, &model);
    codebook = smask_tokenizer_desc_for(&vit);   /* the model's sizes      */
    smask_tokenizer_init(c, &tok, &codebook);
    smask_adam_init(c, &adam, &optim, &vit.params);
    for (step = 0; step < steps; step++) {
        smask_losses out;
        smask_tensor *loss;
        draw_images(&r, j->batch);
        smask_begin_step(c);
        loss = smask_splitmask_loss(c, &vit, &tok, NULL, images, j->batch,
                                    &out);
        if (loss && !smask_is_dry(c)) {
            if (step == 0) j->first = out.total;
            j->last = out.total;
            if (step % 50 == 0)
                printf("    step %3d   loss %.3f\n", step,
                       (double)out.total);
        }
        smask_backward(c, loss);
        smask_adam_update(c, &adam, &vit.params);
        smask_end_step(c);
    }
    return smask_error(c);
}

/* Run `j` in the first `bytes` of the block. */
static smask_result run_in(size_t bytes, job *j)
{
    const smask_desc desc = { .memory = memory, .memory_size = bytes };
    smask_result result;
    smask_ctx c;
    if (smask_setup(&c, &desc) == SMASK_OK) train(&c, j);
    if (smask_error(&c) != SMASK_OK)
        printf("    %s (%s)\n", smask_result_text(smask_error(&c)),
               smask_detail(&c));
    result = smask_error(&c);
    smask_shutdown(&c);                  /* clears the error, too          */
    return result;
}

int main(void)
{
    /* A plan stores only structs: 192 bytes a tensor, 96 a parameter. */
    const smask_desc desc = { .memory = memory,
                              .memory_size = sizeof memory };
    smask_sizes sizes;
    smask_result whole, short_of_one;
    job j = { 0, 201, 0, 0 };
    int fell;

    printf("%6s %12s %12s %12s %7s\n", "batch", "bytes", "kept", "step",
           "nodes");
    for (j.batch = 2; j.batch <= MAX_BATCH; j.batch *= 2) {
        smask_result r = smask_plan(&desc, train, &j, &sizes);
        if (r != SMASK_OK) {
            fprintf(stderr, "04_plan: the plan failed: %s\n",
                    smask_result_text(r));
            return 1;
        }
        printf("%6d %12lu %12lu %12lu %7d\n", (int)j.batch,
               (unsigned long)sizes.bytes, (unsigned long)sizes.kept_bytes,
               (unsigned long)sizes.step_bytes, sizes.nodes);
    }
    j.batch = MAX_BATCH;                 /* sizes: that of the last plan   */
    if (sizes.bytes > sizeof memory) {
        fprintf(stderr, "04_plan: make `memory` at least %lu bytes\n",
                (unsigned long)sizes.bytes);
        return 1;
    }
    printf("\nin exactly %lu bytes:\n", (unsigned long)sizes.bytes);
    whole = run_in(sizes.bytes, &j);
    fell = j.last < j.first;
    printf("\nin one byte less:\n");
    j.steps = 1;
    short_of_one = run_in(sizes.bytes - 1, &j);
    return whole == SMASK_OK && fell && short_of_one == SMASK_MEMORY ? 0 : 1;
}
